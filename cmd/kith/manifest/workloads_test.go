package manifest

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// TestSeveral: a workload of several pods is more than a pod that reaches itself.
func TestSeveral(t *testing.T) {
	for _, tt := range []struct {
		kind, spec string
		several    bool
	}{
		{"Deployment", "replicas: 2,", true}, {"Deployment", "replicas: 1,", false}, {"Deployment", "", false}, {"StatefulSet", "replicas: 3,", true},
		{"ReplicaSet", "replicas: 3,", true}, {"DaemonSet", "", true}, {"Job", "", false}, {"Job", "parallelism: 2,", true}, {"CronJob", "", false}, {"CronJob", "parallelism: 2,", true},
	} {
		api, spec := "apps/v1", "{"+tt.spec+" template: {metadata: {labels: {app: a}}}}"
		switch tt.kind {
		case "Job":
			api = "batch/v1"
		case "CronJob":
			api, spec = "batch/v1", "{jobTemplate: {spec: "+spec+"}}"
		}
		found := mustRead(t, fmt.Sprintf("{apiVersion: %s, kind: %s, metadata: {name: w}, spec: %s}", api, tt.kind, spec))
		if several := len(found.Ends[0].Twin) == 1; len(found.Ends) != 1 || found.Ends[0].Name != "default/w" || several != tt.several || several != (len(found.Cluster.Pods) == 2) {
			t.Errorf("%s %s: ends %v, pods %v", tt.kind, tt.spec, found.Ends, found.Cluster.Pods)
		}
	}
}

// TestAutoscaled: a workload that leaves its number to an autoscaler is several pods.
func TestAutoscaled(t *testing.T) {
	const web = "{apiVersion: apps/v1, kind: Deployment, metadata: {name: web, namespace: a}, spec: {template: {metadata: {labels: {app: web}}}}}\n---\n"
	const scaler = "{apiVersion: autoscaling/v2, kind: HorizontalPodAutoscaler, metadata: {name: web, namespace: %s}, spec: {scaleTargetRef: {kind: Deployment, name: web}, maxReplicas: %d}}"
	for _, tt := range []struct {
		namespace string
		most      int
		several   bool
	}{{"a", 5, true}, {"a", 1, false}, {"b", 5, false}} {
		found := mustRead(t, web+fmt.Sprintf(scaler, tt.namespace, tt.most))
		if several := len(found.Ends[0].Twin) > 0; several != tt.several {
			t.Errorf("%v: twin %v", tt, found.Ends[0].Twin)
		}
	}
}

// TestWorkloadsDoNotVanish: a workload is left out for pods of its own that run, and for no others; and that is said.
func TestWorkloadsDoNotVanish(t *testing.T) {
	const web = "{apiVersion: apps/v1, kind: Deployment, metadata: {name: web, namespace: a}, spec: {template: {metadata: {labels: {app: web}}}}}"
	const job = "{apiVersion: batch/v1, kind: Job, metadata: {name: once, namespace: a}, spec: {template: {metadata: {labels: {app: once}}}}, status: {conditions: [{type: %s, status: 'True'}]}}"
	const set = "{apiVersion: apps/v1, kind: ReplicaSet, metadata: {name: web-5f, namespace: a, ownerReferences: [{kind: Deployment, name: web, controller: true}]}, spec: {template: {metadata: {labels: {app: web, pod-template-hash: 5f}}}}}"
	pod := func(labels, owner, phase string) string {
		return fmt.Sprintf("{apiVersion: v1, kind: Pod, metadata: {name: p, namespace: a, labels: {%s}, ownerReferences: [%s]}, status: {phase: %s}}", labels, owner, phase)
	}
	const there, none = "workloads left out, as their pods are here: 1", "workloads left out, as they have ended or want no pod: 1"
	for _, tt := range []struct{ name, workload, more, ends, note string }{
		{"its pod", web, pod("app: web, pod-template-hash: 5f", "{kind: ReplicaSet, name: web-5f, controller: true}", "Running"), "[a/p]", there},
		{"its pod, with more labels", web, pod("app: web, mesh: x", "{kind: ReplicaSet, name: web-5f, controller: true}", "Running"), "[a/p]", there},
		{"its pod, before its labels changed", web, pod("app: old", "{kind: ReplicaSet, name: web-5f, controller: true}", "Running"), "[a/p a/web]", ""},
		{"another's pod", web, pod("app: web", "{kind: ReplicaSet, name: web-api-5f, controller: true}", "Running"), "[a/p a/web]", ""},
		{"another kind's pod", web, pod("app: web", "{kind: Job, name: web-5f, controller: true}", "Running"), "[a/p a/web]", ""},
		{"like its pod", web, pod("app: web, pod-template-hash: 5f", "", "Running"), "[a/p]", there},
		{"not like its pod", web, pod("app: web, role: db", "", "Running"), "[a/p a/web]", ""},
		{"failed", web, pod("app: web", "", "Failed"), "[a/web]", "pods that have ended, left out: 1"},
		{"its set", web, set, "[a/web]", ""},
		{"a set alone", set, "", "[a/web-5f]", ""},
		{"a Job", fmt.Sprintf(job, "Suspended"), "", "[a/once]", ""},
		{"a Job that is complete", fmt.Sprintf(job, "Complete"), pod("app: once", "", "Succeeded") + "\n---\n" + web, "[a/web]", none},
		{"a Job that failed", fmt.Sprintf(job, "Failed"), web, "[a/web]", none},
	} {
		found := mustRead(t, tt.workload+"\n---\n"+tt.more)
		var ends []string
		for _, e := range found.Ends {
			ends = append(ends, e.Name)
		}
		if fmt.Sprint(ends) != tt.ends || tt.note != "" && !slices.Contains(found.Notes, tt.note) {
			t.Errorf("%s: ends %v, want %s; notes %q, want %q", tt.name, ends, tt.ends, found.Notes, tt.note)
		}
	}
}

// TestGeneratedName: a Job may leave its name to the API server, a policy may not.
func TestGeneratedName(t *testing.T) {
	const job = "{apiVersion: batch/v1, kind: Job, metadata: {generateName: migrate-, namespace: a}, spec: {template: {metadata: {labels: {app: m}}}}}"
	if found := mustRead(t, job); len(found.Ends) != 1 || found.Ends[0].Name != "a/migrate" {
		t.Errorf("ends %v", found.Ends)
	}
	// Two of one name are two, whichever comes first.
	other := strings.Replace(job, "app: m", "app: a", 1)
	for _, text := range []string{job + "\n---\n" + other, other + "\n---\n" + job} {
		found := mustRead(t, text)
		if got := fmt.Sprintf("%s %v %s %v", found.Ends[0].Name, found.Ends[0].Labels, found.Ends[1].Name, found.Ends[1].Labels); got != "a/migrate map[app:a] a/migrate-job map[app:m]" {
			t.Errorf("ends %s", got)
		}
	}
	if _, err := read("{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {generateName: a-}}"); err == nil || !strings.Contains(err.Error(), "metadata.name: is missing") {
		t.Errorf("error %v", err)
	}
}
