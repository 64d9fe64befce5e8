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
		Template    corev1.PodTemplateSpec `json:"template"`
		JobTemplate struct {
			Spec struct {
				Template corev1.PodTemplateSpec `json:"template"`
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
	template := o.Spec.Template
	if kind == "CronJob" {
		template = o.Spec.JobTemplate.Spec.Template
	}
	p, err := modelPod(&corev1.Pod{ObjectMeta: template.ObjectMeta, Spec: template.Spec})
	if err != nil {
		r.fail(at, "", err.Error())
		return
	}
	p.Namespace, p.Name = o.Namespace, o.Name
	r.workloads = append(r.workloads, workload{kind: kind, name: o.Namespace + "/" + o.Name, template: p})
}

// standIns adds a pod for every workload none of whose pods is there, and says how many.
func (r *reader) standIns() int {
	slices.SortFunc(r.workloads, func(a, b workload) int { return strings.Compare(a.name+" "+a.kind, b.name+" "+b.kind) })
	names := map[identity.PodKey]bool{}
	inNamespace := map[string][]pod{}
	for _, p := range r.pods {
		names[p.Key()] = true
		inNamespace[p.Namespace] = append(inNamespace[p.Namespace], p)
	}
	added := 0
	for _, w := range r.workloads {
		if isThere(w.template, inNamespace[w.template.Namespace]) {
			continue
		}
		if names[w.template.Key()] {
			w.template.Name += "-" + strings.ToLower(w.kind)
		}
		names[w.template.Key()] = true
		r.pods = append(r.pods, w.template)
		added++
	}
	return added
}

// isThere: a workload's pods bear the labels of its template.
func isThere(template pod, pods []pod) bool {
	if len(template.Labels) == 0 {
		return false
	}
	selector := labels.SelectorFromSet(template.Labels)
	return slices.ContainsFunc(pods, func(p pod) bool { return selector.Matches(labels.Set(p.Labels)) })
}
