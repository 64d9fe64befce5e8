package kube

import (
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kithnet/kith/identity"
)

// Pod translates an API object.
func Pod(obj any) (identity.Pod, error) {
	p, ok := obj.(*corev1.Pod)
	if !ok {
		return identity.Pod{}, fmt.Errorf("take pod: got a %T", obj)
	}
	return identity.Pod{
		Namespace: p.Namespace, Name: p.Name, UID: uid(p), Created: p.CreationTimestamp.Time,
		Labels: p.Labels, Ports: ports(p), Addresses: addresses(p), Node: node(p),
	}, nil
}

// Namespace translates an API object.
func Namespace(obj any) (identity.Namespace, error) {
	n, ok := obj.(*corev1.Namespace)
	if !ok {
		return identity.Namespace{}, fmt.Errorf("take namespace: got a %T", obj)
	}
	return identity.Namespace{Name: n.Name, Labels: n.Labels}, nil
}

// uid is the UID under which the container runtime knows the pod: for a static pod that is not its API object's.
func uid(p *corev1.Pod) string {
	if static := p.Annotations[corev1.MirrorPodAnnotationKey]; static != "" {
		return static
	}
	return string(p.UID)
}

// ownsAddresses is false on the host network, and once the pod has ended.
func ownsAddresses(p *corev1.Pod) bool {
	return !p.Spec.HostNetwork && p.Status.Phase != corev1.PodSucceeded && p.Status.Phase != corev1.PodFailed
}

// node is the one that may say what the pod's addresses are.
func node(p *corev1.Pod) string {
	if !ownsAddresses(p) {
		return ""
	}
	return p.Spec.NodeName
}

// addresses are those that are the pod's own now.
func addresses(p *corev1.Pod) []netip.Addr {
	if !ownsAddresses(p) {
		return nil
	}
	var out []netip.Addr
	for _, ip := range p.Status.PodIPs {
		if a, err := netip.ParseAddr(ip.IP); err == nil {
			out = append(out, a.Unmap())
		}
	}
	if len(out) == 0 {
		if a, err := netip.ParseAddr(p.Status.PodIP); err == nil {
			out = append(out, a.Unmap())
		}
	}
	return out
}

// ports are the named ports of the containers that run as long as the pod does.
func ports(p *corev1.Pod) []identity.NamedPort {
	var out []identity.NamedPort
	for _, c := range p.Spec.InitContainers {
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			out = appendPorts(out, c.Ports)
		}
	}
	for _, c := range p.Spec.Containers {
		out = appendPorts(out, c.Ports)
	}
	return out
}

func appendPorts(out []identity.NamedPort, ports []corev1.ContainerPort) []identity.NamedPort {
	for _, c := range ports {
		p, ok := protocol(c.Protocol)
		if c.Name != "" && ok && c.ContainerPort > 0 && c.ContainerPort <= 65535 {
			out = append(out, identity.NamedPort{Name: c.Name, Protocol: p, Number: uint16(c.ContainerPort)})
		}
	}
	return out
}

func protocol(p corev1.Protocol) (identity.Protocol, bool) {
	switch p {
	case corev1.ProtocolTCP, "":
		return identity.TCP, true
	case corev1.ProtocolUDP:
		return identity.UDP, true
	case corev1.ProtocolSCTP:
		return identity.SCTP, true
	}
	return 0, false
}

// slim keeps of a pod what Pod reads.
func slim(p *corev1.Pod) *corev1.Pod {
	s := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: p.Namespace, Name: p.Name, UID: p.UID, ResourceVersion: p.ResourceVersion,
			CreationTimestamp: p.CreationTimestamp, Labels: p.Labels,
		},
		Spec:   corev1.PodSpec{HostNetwork: p.Spec.HostNetwork, NodeName: p.Spec.NodeName},
		Status: corev1.PodStatus{Phase: p.Status.Phase, PodIP: p.Status.PodIP, PodIPs: p.Status.PodIPs},
	}
	if static := p.Annotations[corev1.MirrorPodAnnotationKey]; static != "" {
		s.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: static}
	}
	for _, c := range p.Spec.InitContainers {
		s.Spec.InitContainers = append(s.Spec.InitContainers, corev1.Container{Ports: c.Ports, RestartPolicy: c.RestartPolicy})
	}
	for _, c := range p.Spec.Containers {
		s.Spec.Containers = append(s.Spec.Containers, corev1.Container{Ports: c.Ports})
	}
	return s
}

func slimPod(obj any) (any, error) {
	if p, ok := obj.(*corev1.Pod); ok {
		return slim(p), nil
	}
	return obj, nil
}

func slimNamespace(obj any) (any, error) {
	if n, ok := obj.(*corev1.Namespace); ok {
		return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: n.Name, ResourceVersion: n.ResourceVersion, Labels: n.Labels}}, nil
	}
	return obj, nil
}
