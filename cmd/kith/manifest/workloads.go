package manifest

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kithnet/kith/identity"
)

// workload makes pods; template is what they are like, and bears its name.
type workload struct {
	kind     string
	owner    *metav1.OwnerReference
	template pod
	pods     int32
	ended    bool
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
	Status struct {
		Conditions []struct {
			Type   string `json:"type"`
			Status string `json:"status"`
		} `json:"conditions"`
	} `json:"status"`
}

func isWorkload(t metav1.TypeMeta) bool {
	switch t.APIVersion {
	case "apps/v1":
		return slices.Contains([]string{"Deployment", "StatefulSet", "DaemonSet", "ReplicaSet"}, t.Kind)
	case "batch/v1":
		return t.Kind == "Job" || t.Kind == "CronJob"
	}
	return t.APIVersion == "v1" && t.Kind == "ReplicationController"
}

func (r *reader) workload(at place, kind string) {
	var o workloadObject
	if !r.take(&at, kind, &o, "spec", "status") {
		return
	}
	w := workload{kind: kind, owner: metav1.GetControllerOf(&o), pods: count(o.Spec.Replicas)}
	template := o.Spec.Template
	switch kind {
	case "Job":
		w.pods, w.ended = max(1, count(o.Spec.Parallelism)), o.ended()
	case "CronJob":
		template, w.pods = o.Spec.JobTemplate.Spec.Template, max(1, count(o.Spec.JobTemplate.Spec.Parallelism))
	case "DaemonSet":
		w.pods = 2 // or more: one on each node
	}
	p, err := modelPod(&corev1.Pod{ObjectMeta: template.ObjectMeta, Spec: template.Spec})
	if err != nil {
		r.fail(at, "", err.Error())
		return
	}
	p.Namespace, p.Name = o.Namespace, o.Name
	w.template = p
	r.workloads = append(r.workloads, w)
}

// ended: a Job is not run again.
func (o *workloadObject) ended() bool {
	for _, c := range o.Status.Conditions {
		if (c.Type == "Complete" || c.Type == "Failed") && c.Status == "True" {
			return true
		}
	}
	return false
}

// count is a number of pods, one if it is not given.
func count(n *int32) int32 {
	if n == nil {
		return 1
	}
	return *n
}

// standIns adds a pod for every workload none of whose pods is there.
func (r *reader) standIns() notes {
	slices.SortFunc(r.workloads, func(a, b workload) int { return strings.Compare(a.order(), b.order()) })
	names := map[identity.PodKey]bool{}
	inNamespace := map[string][]pod{}
	for _, p := range r.pods {
		names[p.Key()] = true
		inNamespace[p.Namespace] = append(inNamespace[p.Namespace], p)
	}
	var alone, several, there, none int
	for _, w := range r.workloads {
		scaled := r.scaled[objectKey(w.kind, w.template.Namespace, w.template.Name)]
		w.template.several = !w.template.host && (w.pods > 1 || scaled)
		switch {
		case r.ownerIsHere(w):
			continue
		case slices.ContainsFunc(inNamespace[w.template.Namespace], w.made):
			there++
			continue
		case w.pods == 0 || w.ended:
			none++
			continue
		case w.template.several:
			several++
		default:
			alone++
		}
		r.pods = append(r.pods, w.standIn(names))
	}
	var out notes
	out.count("workloads none of whose pods is here, each taken as one pod of its name", alone)
	out.count("workloads of several pods, none of which is here, each asked about as one of its pods, and to itself as two", several)
	out.count("workloads left out, as their pods are here", there)
	out.count("workloads left out, as they have ended or want no pod", none)
	return out
}

// standIn is a pod of the workload's name, or if that is taken of its name and kind.
func (w workload) standIn(names map[identity.PodKey]bool) pod {
	p := w.template
	withKind := p.Name + "-" + strings.ToLower(w.kind)
	for i := 1; names[p.Key()]; i++ {
		if p.Name = withKind; i > 1 {
			p.Name = fmt.Sprintf("%s-%d", withKind, i)
		}
	}
	names[p.Key()] = true
	return p
}

// order sorts by name, and those that will have a name by what they are.
func (w workload) order() string {
	return fmt.Sprint(w.template.Key(), " ", w.kind, " ", identity.MakeLabels(w.template.Labels), " ", w.pods, w.template.Ports)
}

// autoscaler notes what may be several pods. What is wrong in it decides nothing.
func (r *reader) autoscaler(at place) {
	var o struct {
		Metadata struct {
			Namespace string `yaml:"namespace"`
		} `yaml:"metadata"`
		Spec struct {
			Target struct {
				Kind string `yaml:"kind"`
				Name string `yaml:"name"`
			} `yaml:"scaleTargetRef"`
			MaxReplicas int `yaml:"maxReplicas"`
		} `yaml:"spec"`
	}
	if err := at.node.Decode(&o); err == nil && o.Spec.MaxReplicas > 1 {
		r.scaled[objectKey(o.Spec.Target.Kind, cmp.Or(o.Metadata.Namespace, r.home), o.Spec.Target.Name)] = true
	}
}

// ownerIsHere: a workload's owner stands for it.
func (r *reader) ownerIsHere(w workload) bool {
	return w.owner != nil && r.seen[objectKey(w.owner.Kind, w.template.Namespace, w.owner.Name)].where != ""
}

// made tells whether a pod is one of the workload's. A pod that names its maker bears at least the labels of the
// template, as admission may add some; one that names none bears these alone, besides a controller's.
func (w workload) made(p pod) bool {
	template := w.template.Labels
	switch {
	case p.finished:
		return false
	case p.owner == nil:
		return len(template) > 0 && maps.Equal(withoutControllers(p.Labels), withoutControllers(template))
	case !w.owns(*p.owner):
		return false
	}
	for key, value := range template {
		if has, ok := p.Labels[key]; !ok || has != value {
			return false
		}
	}
	return true
}

// owns tells whether a pod's maker is the workload, or what a Deployment or CronJob made for it: that has its name and a
// word behind.
func (w workload) owns(maker metav1.OwnerReference) bool {
	between := map[string]string{"Deployment": "ReplicaSet", "CronJob": "Job"}[w.kind]
	if between == "" {
		return maker.Kind == w.kind && maker.Name == w.template.Name
	}
	word, ok := strings.CutPrefix(maker.Name, w.template.Name+"-")
	return ok && maker.Kind == between && !strings.Contains(word, "-")
}

// withoutControllers are labels without those that controllers add to a pod.
func withoutControllers(all map[string]string) map[string]string {
	out := maps.Clone(all)
	for _, key := range []string{
		"pod-template-hash", "controller-revision-hash", "pod-template-generation", "job-name", "controller-uid",
		"statefulset.kubernetes.io/pod-name", "apps.kubernetes.io/pod-index",
		"batch.kubernetes.io/job-name", "batch.kubernetes.io/controller-uid", "batch.kubernetes.io/job-completion-index",
	} {
		delete(out, key)
	}
	return out
}
