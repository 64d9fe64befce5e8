module github.com/kithnet/kith/cmd/kith-cni/testdata/runtime

go 1.26

// The version that containerd 1.x, CRI-O up to 1.30 and cri-dockerd are built with: it knows results up to 1.0.0.
require github.com/containernetworking/cni v1.1.2
