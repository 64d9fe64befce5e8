package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kithnet/kith/cmd/kith/status"
)

var update = flag.Bool("update", false, "rewrite golden files")

func report(node string) status.Report {
	return status.Report{Node: node, Version: "v1.2.3", Ready: true,
		Device:     status.Device{Name: "kith0", Kind: "kernel", MTU: 1440, Port: 51820, PublicKey: "k="},
		Members:    []status.Member{{Node: node, Address: netip.MustParseAddr("192.0.2.1"), State: status.Alive}},
		Keys:       status.Keys{Generation: 6, Settled: 6},
		Identities: 12, Policies: 3, Subjects: 4, Attachments: 9,
		Apply: status.Apply{Duration: 1234567, Writes: 10, Transactions: 2}}
}

func TestTable(t *testing.T) {
	now := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	good, bad, fresh := report("node-1"), report("node-2"), report("node-3")
	good.Apply.At = now.Add(-90 * time.Second)
	good.Peers = []status.Peer{
		{Node: "node-2", Endpoint: netip.MustParseAddrPort("192.0.2.2:51820"), PresharedKey: "agreed", LastHandshake: now.Add(-40 * time.Second), RxBytes: 1 << 20, TxBytes: 1500},
		{Node: "node-3", Endpoint: netip.MustParseAddrPort("[2001:db8::3]:51820"), Lane: 1, PresharedKey: "pending", RxBytes: 0, TxBytes: 148},
		{Node: "node-4"}}
	good.Members = append(good.Members, status.Member{Node: "node-2", State: status.Dead})
	good.Members = append(good.Members, status.Member{Node: "node-3", State: status.Alive})
	good.Ways = []status.Way{{Node: "node-2", Loss: 1, SilentSince: now.Add(-time.Hour)},
		{Node: "node-3", Loss: 1, SilentSince: now.Add(-35 * time.Second), PeerRemade: now.Add(-20 * time.Second)}}
	good.Keys = status.Keys{Generation: 7, Settled: 6, WaitsFor: []string{"node-3", "node-4"}}
	bad.Ready, bad.Reasons = false, []string{"the policies are not listed yet", "the device kith0 is missing"}
	bad.Apply.Error = "add chain in_1: no buffer space available"
	bad.Device.Kind = "userspace"
	fresh.Device, fresh.Keys = status.Device{}, status.Keys{}
	fresh.Problems = []string{"policy ns/p: ingress[0].ports[1].endPort: is below port"}
	many := report("node-1")
	many.Peers = make([]status.Peer, maxPeerLines+1)
	tests := map[string][]nodeStatus{
		"ready": {{Node: "node-1", Report: ptr(report("node-1"))}},
		"trouble": {{Node: "node-1", Report: &good}, {Node: "node-2", Report: &bad}, {Node: "node-3", Report: &fresh},
			{Node: "node-4", Pod: "kith-x", Error: "exec in pod kith-x: no answer in 10s"}},
		"many":  {{Node: "node-1", Report: &many}},
		"empty": {},
	}
	for name, nodes := range tests {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			printStatus(&out, newClusterStatus(nodes), now)
			golden(t, "testdata/"+name+".txt", out.Bytes())
		})
	}
}

func ptr[T any](v T) *T { return &v }

func golden(t *testing.T, path string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

func TestWords(t *testing.T) {
	now := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	for want, d := range map[string]time.Duration{"now": 0, "1s ago": time.Second, "119s ago": 119 * time.Second,
		"2m ago": 2 * time.Minute, "119m ago": 119 * time.Minute, "2h ago": 2 * time.Hour, "2d ago": 50 * time.Hour} {
		if got := since(now.Add(-d), now); got != want {
			t.Errorf("since %s: %q, want %q", d, got, want)
		}
	}
	for want, n := range map[string]int64{"0 B": 0, "1023 B": 1023, "1.0 KiB": 1024, "1.5 MiB": 3 << 19, "8.0 EiB": 1<<63 - 1} {
		if got := size(n); got != want {
			t.Errorf("size %d: %q, want %q", n, got, want)
		}
	}
}

// run runs the command with no kubeconfig but the one in args.
func run(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	t.Setenv("KUBECONFIG", filepath.Join(t.TempDir(), "absent"))
	t.Setenv("HOME", t.TempDir())
	var out, err bytes.Buffer
	code = console{name: "kith", out: &out, err: &err}.run(t.Context(), args)
	return code, out.String(), err.String()
}

// agentSocket serves a handler on a socket as the agent does.
func agentSocket(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "kith")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: h}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
	return socket
}

func serve(r status.Report) http.HandlerFunc {
	return func(w http.ResponseWriter, req *http.Request) {
		if req.Method != http.MethodGet || req.URL.Path != status.Path {
			http.Error(w, "no", http.StatusNotFound)
			return
		}
		_ = json.NewEncoder(w).Encode(r)
	}
}

func TestLocal(t *testing.T) {
	unready := report("n2")
	unready.Ready, unready.Reasons = false, []string{"waits for policies"}
	ready, waiting := agentSocket(t, serve(report("n1"))), agentSocket(t, serve(unready))
	broken := agentSocket(t, func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "oh\nno", http.StatusTeapot) })
	silent := agentSocket(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	tests := []struct {
		name           string
		args           string
		code           int
		stdout, stderr string
	}{
		{"dead", "-local -socket /nowhere", 1, "", "the agent on this node does not answer: "},
		{"broken", "-local -socket " + broken, 1, "", "418 I'm a teapot: oh\n"},
		{"silent", "-local -timeout 50ms -socket " + silent, 1, "", "deadline exceeded"},
		{"table", "--local --socket " + ready, 0, "kith0 (kernel)", ""},
		{"table of a node not ready", "--local --socket " + waiting, 1, "n2 is not ready: waits for policies", ""},
		{"matrix", "-local -matrix -socket " + ready, 0, "FROM", ""},
		{"matrix in JSON", "-local -matrix -o json -socket " + ready, 0, "[]", ""},
		{"JSON", "-local -o json -socket " + ready, 0, `"node": "n1"`, ""},
		{"no kubeconfig", "-socket " + ready, 0, "kith0 (kernel)", "No kubeconfig here"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			code, stdout, stderr := run(t, append([]string{"status"}, strings.Fields(tt.args)...)...)
			if code != tt.code || !strings.Contains(stdout, tt.stdout) || !strings.Contains(stderr, tt.stderr) {
				t.Errorf("code %d, want %d\nstdout:\n%s\nstderr:\n%s", code, tt.code, stdout, stderr)
			}
			if tt.stdout == "" && stdout != "" || tt.stderr == "" && stderr != "" {
				t.Errorf("more was written than wanted:\n%s%s", stdout, stderr)
			}
		})
	}
}

func TestUsage(t *testing.T) {
	tests := []struct {
		args, stderr string
		code         int
	}{
		{"", "Usage:", 2},
		{"statsu", `there is no command "statsu"`, 2},
		{"status -h", "Exits with 1 if a node is not ready", 0},
		{"status now", `takes no arguments, got ["now"]`, 2},
		{"status -o yaml", "-o yaml: write table or json", 2},
		{"status -timeout 0s", "above zero", 2},
		{"status -nothing", "flag provided but not defined", 2},
		{"status -kubeconfig /nowhere", "read kubeconfig", 2},
	}
	for _, tt := range tests {
		code, _, stderr := run(t, strings.Fields(tt.args)...)
		if code != tt.code || !strings.Contains(stderr, tt.stderr) {
			t.Errorf("kith %s: code %d, want %d, stderr:\n%s\nlacks %q", tt.args, code, tt.code, stderr, tt.stderr)
		}
	}
	for want, arg0 := range map[string]string{"kith": "/usr/bin/kith", "kubectl kith": "/x/kubectl-kith"} {
		if got := programName(arg0); got != want {
			t.Errorf("%s: name %q, want %q", arg0, got, want)
		}
	}
}

func pod(name, node string, created int64, state corev1.ContainerState) corev1.Pod {
	p := corev1.Pod{}
	p.Name, p.Spec.NodeName, p.CreationTimestamp = name, node, metav1.Unix(created, 0)
	p.Status.Phase = corev1.PodRunning
	p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "agent", State: state}}
	return p
}

var running = corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}

func TestMatch(t *testing.T) {
	leaving := pod("leaving", "n2", 9, running)
	leaving.DeletionTimestamp = ptr(metav1.Now())
	pods := []corev1.Pod{pod("old", "n1", 1, running), pod("new", "n1", 2, running), leaving, pod("b", "n2", 1, running),
		pod("elsewhere", "n4", 1, running), pod("pending", "", 1, running)}
	var got []string
	for _, a := range match([]string{"n3", "n2", "n1"}, pods) {
		name := "none"
		if a.pod != nil {
			name = a.pod.Name
		}
		got = append(got, a.node+"="+name)
	}
	if want := "n1=new n2=b n3=none n4=elsewhere"; strings.Join(got, " ") != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestWhyNotRunning(t *testing.T) {
	waiting := corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ImagePullBackOff"}}
	behind := pod("p", "n", 1, corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "PodInitializing"}})
	behind.Status.Phase = corev1.PodPending
	broken := behind
	broken.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: "install-cni", State: waiting}}
	ended := pod("p", "n", 1, corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 3}})
	for want, p := range map[string]corev1.Pod{"": pod("p", "n", 1, running),
		"container agent waits: ImagePullBackOff": pod("p", "n", 1, waiting), "is Pending": behind,
		"container install-cni waits: ImagePullBackOff": broken, "container agent ended with code 3": ended} {
		if got := whyNotRunning(&p); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// TestCluster: what a cluster says whose nodes do not answer, each for another reason.
func TestCluster(t *testing.T) {
	waiting := corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}}
	answers := map[string]any{
		"/apis/apps/v1/namespaces/kith-system/daemonsets/kith": map[string]any{"spec": map[string]any{
			"selector": map[string]any{"matchLabels": map[string]any{"app": "kith"}}}},
		"/api/v1/namespaces/kith-system/pods": corev1.PodList{Items: []corev1.Pod{
			pod("kith-a", "n1", 1, running), pod("kith-b", "n2", 1, waiting)}},
		"/api/v1/nodes": corev1.NodeList{Items: []corev1.Node{{ObjectMeta: metav1.ObjectMeta{Name: "n3"}}}},
	}
	kubeconfig := apiServer(t, http.StatusForbidden, answers)
	code, stdout, stderr := run(t, "status", "-kubeconfig", kubeconfig)
	for _, want := range []string{"n1 does not answer: exec in pod kith-a: ", "n2 does not answer: pod kith-b: container agent waits: CrashLoopBackOff",
		"n3 does not answer: there is no pod of DaemonSet kith-system/kith on this node"} {
		if code != exitNotReady || !strings.Contains(stdout, want) {
			t.Errorf("code %d, lacks %q:\n%s%s", code, want, stdout, stderr)
		}
	}
	clear(answers)
	if code, _, stderr := run(t, "status", "-kubeconfig", kubeconfig); code != exitUsage || !strings.Contains(stderr, "get DaemonSet kith-system/kith") {
		t.Errorf("without Kith: code %d, %s", code, stderr)
	}
}

// apiServer has these answers, and an error for all else. It returns the path of a kubeconfig.
func apiServer(t *testing.T, otherwise int, answers map[string]any) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer, ok := answers[r.URL.Path]
		if !ok {
			http.Error(w, "not here", otherwise)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(answer)
	}))
	t.Cleanup(server.Close)
	kubeconfig := filepath.Join(t.TempDir(), "config")
	text := "apiVersion: v1\nkind: Config\nclusters: [{name: c, cluster: {server: " + server.URL + "}}]\n" +
		"contexts: [{name: c, context: {cluster: c}}]\ncurrent-context: c\n"
	if err := os.WriteFile(kubeconfig, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return kubeconfig
}

// TestAgentsInAnotherNamespace: the agents are found where Helm was told to put them; two installations are refused.
func TestAgentsInAnotherNamespace(t *testing.T) {
	set := func(namespace string) appsv1.DaemonSet {
		return appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "kith"},
			Spec: appsv1.DaemonSetSpec{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "kith"}}}}
	}
	answers := map[string]any{
		"/api/v1/namespaces/network/pods": corev1.PodList{},
		"/api/v1/nodes":                   corev1.NodeList{Items: []corev1.Node{{ObjectMeta: metav1.ObjectMeta{Name: "n3"}}}},
	}
	kubeconfig := apiServer(t, http.StatusNotFound, answers)
	for _, step := range []struct {
		sets []appsv1.DaemonSet
		want string
	}{
		{[]appsv1.DaemonSet{set("network")}, "there is no pod of DaemonSet network/kith on this node"},
		{[]appsv1.DaemonSet{set("network"), set("other")}, "in the namespaces network and other: remove one"},
		{nil, "Kith is not installed in this cluster"},
	} {
		answers["/apis/apps/v1/daemonsets"] = appsv1.DaemonSetList{Items: step.sets}
		if code, stdout, stderr := run(t, "status", "-kubeconfig", kubeconfig); code == 0 || !strings.Contains(stdout+stderr, step.want) {
			t.Errorf("code %d, lacks %q:\n%s%s", code, step.want, stdout, stderr)
		}
	}
}

func TestAskStopsAtTheTimeLimit(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	k := &cluster{timeout: time.Second}
	if n := k.ask(ctx, agent{node: "n"}); n.ready() || n.Error == "" {
		t.Errorf("got %+v", n)
	}
}

func TestNoKubeconfigSaysWhichAreMissing(t *testing.T) {
	t.Setenv("KUBECONFIG", "/nonexistent/config")
	_, err := connect(statusFlags{})
	if err == nil || !strings.Contains(err.Error(), "no kubeconfig in /nonexistent/config names a cluster: give one") {
		t.Errorf("%v", err)
	}
}
