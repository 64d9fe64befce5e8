package kube

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/yaml"
)

// Cluster is what the API server says of the cluster's addresses, as far as it says it.
type Cluster struct {
	Pods     []netip.Prefix // kubeadm's podSubnet
	Services []netip.Prefix // ServiceCIDRs (Kubernetes 1.33 and newer), and kubeadm's serviceSubnet
	Servers  []netip.Addr   // where the Service default/kubernetes leads
}

// The objects that ReadCluster reads besides ServiceCIDRs: the chart's roles name them.
const (
	kubeadmNamespace = "kube-system"
	kubeadmConfig    = "kubeadm-config"
	serverSlice      = "kubernetes"
)

// ReadCluster asks for the cluster's address ranges. What is not there, or may not be read, is left out: only an API server
// that does not answer is an error.
func ReadCluster(ctx context.Context, client kubernetes.Interface) (Cluster, error) {
	var c Cluster
	ranges, err := client.NetworkingV1().ServiceCIDRs().List(ctx, metav1.ListOptions{})
	if err := unlessAbsent(err); err != nil {
		return c, fmt.Errorf("list ServiceCIDRs: %w", err)
	}
	for i := range ranges.Items {
		c.Services = append(c.Services, prefixes(ranges.Items[i].Spec.CIDRs...)...)
	}
	config, err := client.CoreV1().ConfigMaps(kubeadmNamespace).Get(ctx, kubeadmConfig, metav1.GetOptions{})
	if err := unlessAbsent(err); err != nil {
		return c, fmt.Errorf("read ConfigMap %s/%s: %w", kubeadmNamespace, kubeadmConfig, err)
	}
	pods, services := kubeadmRanges(config)
	c.Pods, c.Services = pods, append(c.Services, services...)
	slices.SortFunc(c.Services, netip.Prefix.Compare)
	c.Services = slices.Compact(c.Services)
	slice, err := client.DiscoveryV1().EndpointSlices(metav1.NamespaceDefault).Get(ctx, serverSlice, metav1.GetOptions{})
	if err := unlessAbsent(err); err != nil {
		return c, fmt.Errorf("read EndpointSlice %s/%s: %w", metav1.NamespaceDefault, serverSlice, err)
	}
	for _, e := range slice.Endpoints {
		for _, address := range e.Addresses {
			if addr, err := netip.ParseAddr(address); err == nil {
				c.Servers = append(c.Servers, addr.Unmap())
			}
		}
	}
	slices.SortFunc(c.Servers, netip.Addr.Compare)
	return c, nil
}

// unlessAbsent drops the errors of an API server that has no such object, or does not show it.
func unlessAbsent(err error) error {
	if apierrors.IsNotFound(err) || apierrors.IsForbidden(err) {
		return nil
	}
	return err
}

// kubeadmRanges reads kubeadm's ClusterConfiguration (kubeadm.k8s.io, all versions).
func kubeadmRanges(config *corev1.ConfigMap) (pods, services []netip.Prefix) {
	var c struct {
		Networking struct {
			PodSubnet     string `json:"podSubnet"`
			ServiceSubnet string `json:"serviceSubnet"`
		} `json:"networking"`
	}
	if err := yaml.Unmarshal([]byte(config.Data["ClusterConfiguration"]), &c); err != nil {
		return nil, nil
	}
	return prefixes(strings.Split(c.Networking.PodSubnet, ",")...), prefixes(strings.Split(c.Networking.ServiceSubnet, ",")...)
}

// prefixes leaves out what is none.
func prefixes(all ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range all {
		if p, err := netip.ParsePrefix(strings.TrimSpace(s)); err == nil {
			out = append(out, p.Masked())
		}
	}
	slices.SortFunc(out, func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
	return out
}
