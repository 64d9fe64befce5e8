package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
	appsclient "k8s.io/client-go/kubernetes/typed/apps/v1"
	coreclient "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/streaming/pkg/httpstream"

	"golang.org/x/sync/errgroup"
)

// Where the manifests put the agents. With Helm they can be in any namespace, under the same label.
const (
	usualNamespace = "kith-system"
	daemonSet      = "kith"
	container      = "agent"
	agentsLabel    = "app.kubernetes.io/name=kith"
)

// atOnce bounds the nodes that are asked at the same time.
const atOnce = 32

// cluster is what `kith status` needs of a cluster.
type cluster struct {
	config  *rest.Config
	core    *coreclient.CoreV1Client
	apps    *appsclient.AppsV1Client
	timeout time.Duration
	// namespace is where the agents are: found by locate.
	namespace string
}

func loadingRules(f statusFlags) *clientcmd.ClientConfigLoadingRules {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = f.kubeconfig
	return rules
}

func hasKubeconfig(f statusFlags) bool {
	if f.kubeconfig != "" {
		return true
	}
	config, err := loadingRules(f).Load()
	return err != nil || len(config.Clusters) > 0
}

func connect(f statusFlags) (*cluster, error) {
	overrides := &clientcmd.ConfigOverrides{CurrentContext: f.kubecontext}
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(loadingRules(f), overrides).ClientConfig()
	if clientcmd.IsEmptyConfig(err) {
		return nil, fmt.Errorf("no kubeconfig in %s names a cluster: give one with -kubeconfig FILE or $KUBECONFIG",
			strings.Join(loadingRules(f).Precedence, ", "))
	}
	if err != nil {
		return nil, fmt.Errorf("read kubeconfig: %w", err)
	}
	config.UserAgent = "kith/" + version
	core, err := coreclient.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("read kubeconfig: %w", err)
	}
	apps, err := appsclient.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("read kubeconfig: %w", err)
	}
	return &cluster{config: config, core: core, apps: apps, timeout: f.timeout, namespace: usualNamespace}, nil
}

// status asks every agent. A node that does not answer is in the result with the reason.
func (k *cluster) status(ctx context.Context) ([]nodeStatus, error) {
	agents, err := k.agents(ctx)
	if err != nil {
		return nil, err
	}
	nodes := make([]nodeStatus, len(agents))
	var group errgroup.Group
	group.SetLimit(atOnce)
	for i, a := range agents {
		group.Go(func() error {
			nodes[i] = k.ask(ctx, a)
			return nil
		})
	}
	return nodes, group.Wait()
}

// agent is a node and the agent's pod there, if there is one.
type agent struct {
	node string
	pod  *corev1.Pod
}

// agents lists the nodes that should have an agent, sorted by name.
func (k *cluster) agents(ctx context.Context) ([]agent, error) {
	ctx, cancel := context.WithTimeout(ctx, k.timeout)
	defer cancel()
	set, err := k.locate(ctx)
	if err != nil {
		return nil, err
	}
	selector := metav1.FormatLabelSelector(set.Spec.Selector)
	pods, err := k.core.Pods(k.namespace).List(ctx, metav1.ListOptions{LabelSelector: selector})
	if err != nil {
		return nil, fmt.Errorf("list pods of DaemonSet %s/%s: %w", k.namespace, daemonSet, err)
	}
	nodes, err := k.nodes(ctx, set)
	if err != nil {
		return nil, err
	}
	return match(nodes, pods.Items), nil
}

// locate finds the agents' DaemonSet, and with it their namespace.
func (k *cluster) locate(ctx context.Context) (*appsv1.DaemonSet, error) {
	set, err := k.apps.DaemonSets(k.namespace).Get(ctx, daemonSet, metav1.GetOptions{})
	if err == nil {
		return set, nil
	}
	if !apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("get DaemonSet %s/%s: %w", k.namespace, daemonSet, err)
	}
	all, err := k.apps.DaemonSets("").List(ctx, metav1.ListOptions{LabelSelector: agentsLabel, FieldSelector: "metadata.name=" + daemonSet})
	if err != nil {
		return nil, fmt.Errorf("there is no DaemonSet %s/%s; list DaemonSets of all namespaces: %w", k.namespace, daemonSet, err)
	}
	switch len(all.Items) {
	case 0:
		return nil, fmt.Errorf("there is no DaemonSet %s: Kith is not installed in this cluster", daemonSet)
	case 1:
		k.namespace = all.Items[0].Namespace
		return &all.Items[0], nil
	}
	return nil, fmt.Errorf("there are DaemonSets %s in the namespaces %s and %s: remove one, a cluster has one Kith",
		daemonSet, all.Items[0].Namespace, all.Items[1].Namespace)
}

// nodes are the names of the nodes that the DaemonSet wants; none if this user may not list nodes.
func (k *cluster) nodes(ctx context.Context, set *appsv1.DaemonSet) ([]string, error) {
	selector := metav1.FormatLabelSelector(&metav1.LabelSelector{MatchLabels: set.Spec.Template.Spec.NodeSelector})
	if len(set.Spec.Template.Spec.NodeSelector) == 0 {
		selector = ""
	}
	list, err := k.core.Nodes().List(ctx, metav1.ListOptions{LabelSelector: selector})
	if apierrors.IsForbidden(err) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("list nodes: %w", err)
	}
	names := make([]string, len(list.Items))
	for i, node := range list.Items {
		names[i] = node.Name
	}
	return names, nil
}

// match finds each node's agent: the youngest pod there, one that is being deleted last.
func match(nodes []string, pods []corev1.Pod) []agent {
	byNode := map[string]*corev1.Pod{}
	for _, name := range nodes {
		byNode[name] = nil
	}
	for i := range pods {
		pod := &pods[i]
		if node := pod.Spec.NodeName; node != "" && better(pod, byNode[node]) {
			byNode[node] = pod
		}
	}
	agents := make([]agent, 0, len(byNode))
	for _, name := range slices.Sorted(maps.Keys(byNode)) {
		agents = append(agents, agent{node: name, pod: byNode[name]})
	}
	return agents
}

func better(pod, than *corev1.Pod) bool {
	if than == nil {
		return true
	}
	if (pod.DeletionTimestamp == nil) != (than.DeletionTimestamp == nil) {
		return pod.DeletionTimestamp == nil
	}
	return pod.CreationTimestamp.After(than.CreationTimestamp.Time)
}

// ask runs `kith status --local` in the agent's container.
func (k *cluster) ask(ctx context.Context, a agent) nodeStatus {
	if a.pod == nil {
		return nodeStatus{Node: a.node, Error: fmt.Sprintf("there is no pod of DaemonSet %s/%s on this node", k.namespace, daemonSet)}
	}
	n := nodeStatus{Node: a.node, Pod: a.pod.Name}
	if reason := whyNotRunning(a.pod); reason != "" {
		n.Error = fmt.Sprintf("pod %s: %s", a.pod.Name, reason)
		return n
	}
	ctx, cancel := context.WithTimeout(ctx, k.timeout)
	defer cancel()
	out, err := k.exec(ctx, a.pod.Name, []string{"/kith", "status", "-local", "-o", "json"})
	if report, parseErr := parseReport(out); parseErr == nil {
		n.Report = &report
		return n
	} else if err == nil {
		err = parseErr
	}
	if ctx.Err() != nil {
		err = fmt.Errorf("no answer in %s", k.timeout)
	}
	n.Error = fmt.Sprintf("exec in pod %s: %v", a.pod.Name, err)
	return n
}

// whyNotRunning says why the agent's container cannot be asked; empty if it can.
func whyNotRunning(pod *corev1.Pod) string {
	all := slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses)
	for _, c := range all {
		if c.Name == container && c.State.Running != nil {
			return ""
		}
		if w := c.State.Waiting; w != nil && w.Reason != "" && w.Reason != "PodInitializing" {
			return fmt.Sprintf("container %s waits: %s", c.Name, w.Reason)
		}
		if t := c.State.Terminated; t != nil && t.ExitCode != 0 {
			return fmt.Sprintf("container %s ended with code %d", c.Name, t.ExitCode)
		}
	}
	return fmt.Sprintf("is %s", pod.Status.Phase)
}

// exec runs a command in an agent's container and returns its output; the error has what it wrote to stderr.
func (k *cluster) exec(ctx context.Context, pod string, command []string) ([]byte, error) {
	url := k.core.RESTClient().Post().Resource("pods").Namespace(k.namespace).Name(pod).SubResource("exec").
		VersionedParams(&corev1.PodExecOptions{Container: container, Command: command, Stdout: true, Stderr: true},
			scheme.ParameterCodec).URL()
	spdy, err := remotecommand.NewSPDYExecutor(k.config, "POST", url)
	if err != nil {
		return nil, err
	}
	websocket, err := remotecommand.NewWebSocketExecutor(k.config, "GET", url.String())
	if err != nil {
		return nil, err
	}
	executor, err := remotecommand.NewFallbackExecutor(websocket, spdy, func(err error) bool {
		return httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err)
	})
	if err != nil {
		return nil, err
	}
	var stdout, stderr bytes.Buffer
	err = executor.StreamWithContext(ctx, remotecommand.StreamOptions{Stdout: &stdout, Stderr: &stderr})
	if line := firstLine(stderr.Bytes()); err != nil && line != "" {
		err = errors.New(line)
	}
	return stdout.Bytes(), err
}
