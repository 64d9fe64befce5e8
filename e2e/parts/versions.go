package parts

// The versions that are known to fit together.
const (
	KubernetesVersion = "v1.36.3"
	etcdVersion       = "v3.6.8"
	containerdVersion = "v2.4.2"
	runcVersion       = "v1.5.2"
	pluginsVersion    = "v1.9.1"
	corednsVersion    = "v1.14.2"
	crictlVersion     = "v1.36.0"
	KindVersion       = "v0.33.0"
	pauseVersion      = "3.10.2"
	agnhostVersion    = "2.63.0"
)

// Names under which the cluster knows its images.
const (
	PauseImage       = "registry.k8s.io/pause:" + pauseVersion
	CoreDNSImage     = "registry.k8s.io/coredns/coredns:" + corednsVersion
	ConformanceImage = "registry.k8s.io/e2e-test-images/agnhost:2.45"
	AgnhostImage     = "registry.k8s.io/e2e-test-images/agnhost:" + agnhostVersion
	BusyboxImage     = "registry.k8s.io/e2e-test-images/busybox:1.37.0-1"
	FlowsImage       = "docker.io/kithnet/e2e-flows:local"
)
