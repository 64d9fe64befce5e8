package parts

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"

	"github.com/kithnet/kith/e2e/image"
)

// Image returns the path of an image archive: pause, coredns, agnhost, busybox, flows; conformance is
// for upstream's ClusterNetworkPolicy suite; kubernetes and etcd are for clusters whose control plane
// runs in containers.
func (b *Builder) Image(ctx context.Context, name string) (string, error) {
	unlock, err := b.lock()
	if err != nil {
		return "", err
	}
	defer unlock()
	return b.image(ctx, name)
}

func (b *Builder) image(ctx context.Context, name string) (string, error) {
	describe, ok := map[string]func(context.Context) (image.Image, error){
		"pause": b.pauseImage, "coredns": b.corednsImage, "agnhost": b.agnhostImage,
		"busybox": b.busyboxImage, "flows": b.flowsImage, "conformance": b.conformanceImage, "kubernetes": b.kubernetesImage, "etcd": b.etcdImage,
	}[name]
	if !ok {
		return "", fmt.Errorf("no image is called %q", name)
	}
	img, err := describe(ctx)
	if err != nil {
		return "", fmt.Errorf("image %s: %w", name, err)
	}
	return b.cached(name+".tar", hash(fmt.Sprintf("%+v", img)), func(out string) error { return image.Write(out, img) })
}

func (b *Builder) pauseImage(ctx context.Context) (image.Image, error) {
	pause, err := b.program(ctx, "pause")
	return image.Image{Names: []string{PauseImage}, Entrypoint: []string{"/pause"}, User: "65535:65535",
		Files: []image.File{{Path: "/pause", Source: pause}}}, err
}

func (b *Builder) corednsImage(ctx context.Context) (image.Image, error) {
	coredns, err := b.program(ctx, "coredns")
	return image.Image{Names: []string{CoreDNSImage}, Entrypoint: []string{"/coredns"},
		Files: []image.File{{Path: "/coredns", Source: coredns}}}, err
}

func (b *Builder) etcdImage(ctx context.Context) (image.Image, error) {
	etcd, err := b.program(ctx, "etcd")
	return image.Image{Names: []string{"registry.k8s.io/etcd:" + etcdVersion[1:] + "-0"}, Files: []image.File{
		{Path: "/usr/local/bin/etcd", Source: etcd}, {Path: "/var/lib/etcd", Dir: true}}}, err
}

func (b *Builder) busyboxImage(ctx context.Context) (image.Image, error) {
	files, err := b.shell(ctx)
	return image.Image{Names: []string{BusyboxImage}, Cmd: []string{"sh"}, Files: files}, err
}

func (b *Builder) flowsImage(ctx context.Context) (image.Image, error) {
	flows, err := b.program(ctx, "flows")
	return image.Image{Names: []string{FlowsImage}, Entrypoint: []string{"/flows"},
		Files: []image.File{{Path: "/flows", Source: flows}}}, err
}

func (b *Builder) kubernetesImage(ctx context.Context) (image.Image, error) {
	binary, err := b.program(ctx, "kubernetes")
	if err != nil {
		return image.Image{}, err
	}
	files, err := b.shell(ctx, "nft", "conntrack")
	files = append(files, image.File{Path: "/usr/local/bin/kubernetes", Source: binary}, image.File{Path: "/run", Dir: true})
	var names []string
	for _, c := range KubernetesCommands()[:4] {
		files = append(files, image.File{Path: "/usr/local/bin/" + c, Link: "kubernetes"})
		names = append(names, "registry.k8s.io/"+c+":"+KubernetesVersion)
	}
	return image.Image{Names: names, Files: files}, err
}

// agnhostImage bears upstream's name and content: the specs look for both.
func (b *Builder) agnhostImage(ctx context.Context) (image.Image, error) {
	agnhost, err := b.program(ctx, "agnhost")
	if err != nil {
		return image.Image{}, err
	}
	files, err := b.shell(ctx, "curl", "ss", "nc", "dig", "nslookup")
	if err != nil {
		return image.Image{}, err
	}
	dir, err := ModuleDir(ctx, "k8s.io/kubernetes@"+KubernetesVersion)
	if err != nil {
		return image.Image{}, err
	}
	porter := filepath.Join(dir, "test", "images", "agnhost", "porter")
	files = append(files,
		image.File{Path: "/agnhost", Source: agnhost},
		image.File{Path: "/agnhost-2", Link: "agnhost"},
		image.File{Path: "/uploads", Dir: true},
		image.File{Path: "/localhost.crt", Source: filepath.Join(porter, "localhost.crt")},
		image.File{Path: "/localhost.key", Source: filepath.Join(porter, "localhost.key")},
		image.File{Path: "/etc/nsswitch.conf", Text: "hosts: files dns\n"},
		image.File{Path: "/etc/passwd", Text: "root:x:0:0:root:/root:/bin/sh\nuser-defined-in-image:x:1000:1000::/:/bin/sh\n"},
		image.File{Path: "/etc/group", Text: "root:x:0:\nuser-defined-in-image:x:1000:\ngroup-defined-in-image:x:50000:user-defined-in-image\n"},
	)
	return image.Image{Names: []string{AgnhostImage}, Entrypoint: []string{"/agnhost"}, Cmd: []string{"pause"}, Files: files}, nil
}

// conformanceImage is agnhost as upstream's ClusterNetworkPolicy suite wants it: under an older name, with bash, and
// with SCTP on every kernel.
func (b *Builder) conformanceImage(ctx context.Context) (image.Image, error) {
	img, err := b.agnhostImage(ctx)
	if err != nil {
		return image.Image{}, err
	}
	front, err := b.program(ctx, "agnhost-sctp")
	if err != nil {
		return image.Image{}, err
	}
	files := []image.File{{Path: "/agnhost", Source: front}, {Path: "/bin/bash", Link: "/bin/sh"}}
	for _, f := range img.Files {
		if f.Path == "/agnhost" {
			f.Path = "/agnhost-upstream"
		}
		files = append(files, f)
	}
	img.Names, img.Files = []string{ConformanceImage}, files
	return img, nil
}

// shell is a small userland. dash is sh: busybox's own shell prefers its applets to programs of the
// same name in PATH, and its nc lacks UDP.
func (b *Builder) shell(ctx context.Context, programs ...string) ([]image.File, error) {
	if err := b.EnsurePackages(ctx, NodePackages()...); err != nil {
		return nil, err
	}
	var paths []string
	for _, p := range append([]string{"dash"}, programs...) {
		path, err := exec.LookPath(p)
		if err != nil {
			return nil, err
		}
		paths = append(paths, path)
	}
	files, err := image.Closure(ctx, paths...)
	if err != nil {
		return nil, err
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return nil, err
	}
	files = append(files, image.File{Path: "/bin/busybox", Source: busybox}, image.File{Path: "/bin/sh", Link: paths[0]})
	for _, applet := range []string{"ls", "cat", "ip", "ping", "sleep", "mkdir", "grep", "env", "id", "hostname", "ps",
		"mount", "date", "head", "tail", "wc", "tr", "sed", "awk", "seq", "timeout"} {
		files = append(files, image.File{Path: "/bin/" + applet, Link: "/bin/busybox"})
	}
	return files, nil
}
