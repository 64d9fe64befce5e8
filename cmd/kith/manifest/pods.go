package manifest

import (
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kithnet/kith/identity"
	identitykube "github.com/kithnet/kith/identity/kube"
)

// pod is a pod with what the model does not say of it.
type pod struct {
	identity.Pod
	node     string
	host     bool         // on its node's network
	hostIPs  []netip.Addr // if host: its node's addresses as the pod knows them
	finished bool
	owner    *metav1.OwnerReference // the controller that made it
	several  bool                   // it stands for more than one
	twin     []netip.Addr           // if several: the addresses of another
}

// another is a second pod of a workload. No pod can have its name.
func (p pod) another() identity.Pod {
	p.Pod.Name += " (another)"
	p.Pod.Addresses = p.twin
	return p.Pod
}

func (r *reader) pod(at place) {
	var o corev1.Pod
	if !r.take(&at, "Pod", &o, "spec", "status") {
		return
	}
	var addresses []netip.Addr
	for i, ip := range o.Status.PodIPs {
		addresses = r.address(at, fmt.Sprintf("status.podIPs[%d].ip", i), ip.IP, addresses)
	}
	if o.Status.PodIP != "" && len(o.Status.PodIPs) == 0 {
		addresses = r.address(at, "status.podIP", o.Status.PodIP, addresses)
	}
	p, err := modelPod(&o)
	if err != nil {
		r.fail(at, "", err.Error())
		return
	}
	if p.host {
		p.hostIPs = addresses
	}
	r.pods = append(r.pods, p)
}

func modelPod(o *corev1.Pod) (pod, error) {
	p, err := identitykube.Pod(o)
	if err != nil {
		return pod{}, err
	}
	return pod{
		Pod: p, node: o.Spec.NodeName, host: o.Spec.HostNetwork, owner: metav1.GetControllerOf(o),
		finished: o.Status.Phase == corev1.PodSucceeded || o.Status.Phase == corev1.PodFailed,
	}, nil
}
