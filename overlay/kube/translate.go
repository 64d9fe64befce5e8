package kube

import (
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kithnet/kith/overlay"
)

// strip reduces a Node to what the mesh and policies need, before it enters the cache.
// Other objects (tombstones) pass.
func strip(object any) (any, error) {
	node, ok := object.(*corev1.Node)
	if !ok {
		return object, nil
	}
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{
			Name:              node.Name,
			UID:               node.UID,
			ResourceVersion:   node.ResourceVersion,
			CreationTimestamp: node.CreationTimestamp,
			Annotations:       ownAnnotations(node.Annotations),
			Labels:            node.Labels,
		},
		Spec:   corev1.NodeSpec{PodCIDR: node.Spec.PodCIDR, PodCIDRs: node.Spec.PodCIDRs},
		Status: corev1.NodeStatus{Addresses: numeric(node.Status.Addresses)},
	}, nil
}

func ownAnnotations(all map[string]string) map[string]string {
	out := make(map[string]string, 3)
	for _, name := range []string{overlay.SigningKeyAnnotation, overlay.ClaimAnnotation, EnforcedAnnotation} {
		if value, ok := all[name]; ok {
			out[name] = value
		}
	}
	return out
}

// numeric leaves out the addresses that are names.
func numeric(all []corev1.NodeAddress) []corev1.NodeAddress {
	var out []corev1.NodeAddress
	for _, address := range all {
		if address.Type == corev1.NodeInternalIP || address.Type == corev1.NodeExternalIP {
			out = append(out, address)
		}
	}
	return out
}

// Node is the core's view of a Node, with nothing granted yet. Addresses that are none are left out.
func Node(node *corev1.Node) overlay.Node {
	out := overlay.Node{
		Name:       node.Name,
		UID:        string(node.UID),
		Created:    node.CreationTimestamp.Time,
		Labels:     node.Labels,
		SigningKey: node.Annotations[overlay.SigningKeyAnnotation],
		Claim:      node.Annotations[overlay.ClaimAnnotation],
	}
	for _, cidr := range podCIDRs(node.Spec) {
		if prefix, err := netip.ParsePrefix(cidr); err == nil {
			out.Requested = append(out.Requested, prefix.Masked())
		}
	}
	for _, address := range node.Status.Addresses {
		addr, err := netip.ParseAddr(address.Address)
		switch {
		case err != nil:
		case address.Type == corev1.NodeInternalIP:
			out.InternalIPs = append(out.InternalIPs, addr.Unmap())
		case address.Type == corev1.NodeExternalIP:
			out.ExternalIPs = append(out.ExternalIPs, addr.Unmap())
		}
	}
	return out
}

// podCIDRs falls back to the singular field, which old controllers alone fill.
func podCIDRs(spec corev1.NodeSpec) []string {
	if len(spec.PodCIDRs) == 0 && spec.PodCIDR != "" {
		return []string{spec.PodCIDR}
	}
	return spec.PodCIDRs
}

// essence is what of a cached object the mesh can see.
func essence(object any) overlay.Node {
	if node, ok := object.(*corev1.Node); ok {
		return Node(node)
	}
	return overlay.Node{}
}
