package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// acceptedPrefix begins the names of the Secret's entries by which agents accept a node's new signing key.
const acceptedPrefix = "node."

// accept runs `kith mesh accept NODE`.
func (c console) accept(ctx context.Context, args []string) int {
	var f statusFlags
	set := flag.NewFlagSet("mesh accept", flag.ContinueOnError)
	set.SetOutput(c.err)
	set.StringVar(&f.kubeconfig, "kubeconfig", "", "how to reach the cluster, a `file`; default $KUBECONFIG or ~/.kube/config")
	set.StringVar(&f.kubecontext, "context", "", "the kubeconfig's context to use, a `name`")
	set.DurationVar(&f.timeout, "timeout", 10*time.Second, "how long the node may take to answer")
	set.Usage = func() {
		fmt.Fprintf(c.err, "Asks a node's own agent for its signing key, and lets all nodes take it in place of the one that they know:\n")
		fmt.Fprintf(c.err, "for a node that has lost /var/lib/kith and goes on under its Node object.\n\nUsage:\n  %s mesh accept NODE [flags]\n\nFlags:\n", c.name)
		set.PrintDefaults()
	}
	var node string
	if len(args) > 0 && args[0] != "" && args[0][0] != '-' {
		node, args = args[0], args[1:]
	}
	if err := set.Parse(args); errors.Is(err, flag.ErrHelp) {
		return exitReady
	} else if err != nil || node == "" || set.NArg() > 0 {
		set.Usage()
		return exitUsage
	}
	k, err := connect(f)
	var key string
	if err == nil {
		key, err = k.accept(ctx, node)
	}
	if err != nil {
		fmt.Fprintf(c.err, "%s mesh accept: %v\n", c.name, err)
		return exitNotReady
	}
	fmt.Fprintf(c.out, "All nodes take %s for the signing key of %s now.\n", key, node)
	return exitReady
}

// accept returns the key that the node's agent has, after it is in the Secret.
func (k *cluster) accept(ctx context.Context, name string) (string, error) {
	agents, err := k.agents(ctx)
	if err != nil {
		return "", err
	}
	i := slices.IndexFunc(agents, func(a agent) bool { return a.node == name })
	if i < 0 {
		return "", fmt.Errorf("there is no node %s", name)
	}
	node, err := k.core.Nodes().Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return "", fmt.Errorf("get node %s: %w", name, err)
	}
	key, patch, err := acceptance(node, k.ask(ctx, agents[i]))
	if err != nil {
		return "", err
	}
	if _, err := k.core.Secrets(k.namespace).Patch(ctx, gossipSecret, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		return "", fmt.Errorf("change secret %s/%s: %w", k.namespace, gossipSecret, err)
	}
	return key, nil
}

// acceptance is the change of the Secret that lets a node have the key that its own agent reports, whatever its Node
// object names.
func acceptance(node *corev1.Node, n nodeStatus) (key string, patch []byte, err error) {
	if n.Report == nil {
		return "", nil, fmt.Errorf("%s does not answer: %s", n.Node, n.Error)
	}
	key = n.Report.Claim.SigningKey
	if raw, err := base64.StdEncoding.DecodeString(key); n.Report.Node != node.Name || err != nil || len(raw) != 32 {
		return "", nil, fmt.Errorf("%s does not say what its signing key is", node.Name)
	}
	patch, err = json.Marshal(map[string]any{"stringData": map[string]string{
		acceptedPrefix + node.Name: string(node.UID) + " " + key,
	}})
	return key, patch, err
}
