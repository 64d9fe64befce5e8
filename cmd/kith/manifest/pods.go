package manifest

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

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
	several  bool         // it stands for more than one
	twin     []netip.Addr // if several: the addresses of another
}

// another is a second pod of a workload. No pod can have its name.
func (p pod) another() identity.Pod {
	p.Pod.Name += " (another)"
	p.Pod.Addresses = p.twin
	return p.Pod
}

// workload makes pods; template is what they are like.
type workload struct {
	kind, name string
	template   pod
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
		Pod: p, node: o.Spec.NodeName, host: o.Spec.HostNetwork,
		finished: o.Status.Phase == corev1.PodSucceeded || o.Status.Phase == corev1.PodFailed,
	}, nil
}

// workloadObject is what Deployments, StatefulSets, DaemonSets, ReplicaSets, Jobs and CronJobs have in common.
type workloadObject struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              struct {
		Replicas    *int32                 `json:"replicas"`
		Parallelism *int32                 `json:"parallelism"`
		Template    corev1.PodTemplateSpec `json:"template"`
		JobTemplate struct {
			Spec struct {
				Parallelism *int32                 `json:"parallelism"`
				Template    corev1.PodTemplateSpec `json:"template"`
			} `json:"spec"`
		} `json:"jobTemplate"`
	} `json:"spec"`
}

func isWorkload(t metav1.TypeMeta) bool {
	switch t.APIVersion {
	case "apps/v1":
		return slices.Contains([]string{"Deployment", "StatefulSet", "DaemonSet", "ReplicaSet"}, t.Kind)
	case "batch/v1":
		return t.Kind == "Job" || t.Kind == "CronJob"
	}
	return false
}

func (r *reader) workload(at place, kind string) {
	var o workloadObject
	if !r.take(&at, kind, &o, "spec", "status") {
		return
	}
	owned := metav1.GetControllerOf(&o) != nil
	if owned || o.Spec.Replicas != nil && *o.Spec.Replicas == 0 {
		return
	}
	template, pods := o.Spec.Template, max(count(o.Spec.Replicas), count(o.Spec.Parallelism))
	switch kind {
	case "CronJob":
		template, pods = o.Spec.JobTemplate.Spec.Template, count(o.Spec.JobTemplate.Spec.Parallelism)
	case "DaemonSet":
		pods = 2 // or more: one on each node
	}
	p, err := modelPod(&corev1.Pod{ObjectMeta: template.ObjectMeta, Spec: template.Spec})
	if err != nil {
		r.fail(at, "", err.Error())
		return
	}
	p.Namespace, p.Name, p.several = o.Namespace, o.Name, pods > 1
	r.workloads = append(r.workloads, workload{kind: kind, name: o.Namespace + "/" + o.Name, template: p})
}

// count is a number of pods, one if it is not given.
func count(n *int32) int32 {
	if n == nil {
		return 1
	}
	return *n
}

// standIns adds a pod for every workload none of whose pods is there, and says how many stand for one pod and how
// many for several.
func (r *reader) standIns() (alone, several int) {
	slices.SortFunc(r.workloads, func(a, b workload) int { return strings.Compare(a.name+" "+a.kind, b.name+" "+b.kind) })
	names := map[identity.PodKey]bool{}
	inNamespace := map[string][]pod{}
	for _, p := range r.pods {
		names[p.Key()] = true
		inNamespace[p.Namespace] = append(inNamespace[p.Namespace], p)
	}
	for _, w := range r.workloads {
		if isThere(w.template, inNamespace[w.template.Namespace]) {
			continue
		}
		if names[w.template.Key()] {
			w.template.Name += "-" + strings.ToLower(w.kind)
		}
		names[w.template.Key()] = true
		r.pods = append(r.pods, w.template)
		if w.template.several && !w.template.host {
			several++
		} else {
			alone++
		}
	}
	return alone, several
}

// isThere: a workload's pods bear the labels of its template.
func isThere(template pod, pods []pod) bool {
	if len(template.Labels) == 0 {
		return false
	}
	selector := labels.SelectorFromSet(template.Labels)
	return slices.ContainsFunc(pods, func(p pod) bool { return selector.Matches(labels.Set(p.Labels)) })
}
