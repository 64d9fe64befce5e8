package manifest

import (
	"fmt"
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
