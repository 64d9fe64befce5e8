// Package olderruntime tries Kith's CNI plugin under a container runtime of before CNI 1.1.0: Debian's containerd 1.6.
// It has no other content. The kubelet of today no longer speaks to that release, so the test is the kubelet: it asks over
// the CRI for a pod's sandbox, and takes it down.
//
// Out of scope: newer runtimes, which the clusters of package e2e run on; libcni alone (cmd/kith-cni).
package olderruntime
