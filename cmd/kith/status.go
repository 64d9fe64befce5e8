package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/kithnet/kith/cmd/kith/status"
)

// clusterStatus is the status of all nodes: what `kith status -o json` prints.
type clusterStatus struct {
	// Ready is true if every node is.
	Ready bool         `json:"ready"`
	Nodes []nodeStatus `json:"nodes"`
}

// nodeStatus has either the node's report or the reason why there is none.
type nodeStatus struct {
	Node   string         `json:"node"`
	Pod    string         `json:"pod,omitempty"`
	Error  string         `json:"error,omitempty"`
	Report *status.Report `json:"report,omitempty"`
}

func (n nodeStatus) ready() bool { return n.Report != nil && n.Report.Ready }

func newClusterStatus(nodes []nodeStatus) clusterStatus {
	all := clusterStatus{Ready: len(nodes) > 0, Nodes: nodes}
	for _, n := range nodes {
		all.Ready = all.Ready && n.ready()
	}
	return all
}

func thisNode(r status.Report) clusterStatus {
	return newClusterStatus([]nodeStatus{{Node: r.Node, Report: &r}})
}

func (s clusterStatus) exitCode() int {
	if s.Ready {
		return exitReady
	}
	return exitNotReady
}

type statusFlags struct {
	output      string
	matrix      bool
	local       bool
	socket      string
	kubeconfig  string
	kubecontext string
	timeout     time.Duration
}

func (c console) status(ctx context.Context, args []string) int {
	f, err := c.parseStatusFlags(args)
	if errors.Is(err, flag.ErrHelp) {
		return exitReady
	} else if err != nil {
		return exitUsage
	}
	if f.local {
		return c.localStatus(ctx, f)
	}
	if onlyThisNode(f) {
		fmt.Fprintf(c.err, "No kubeconfig here: this is the status of this node alone.\n\n")
		return c.localStatus(ctx, f)
	}
	return c.clusterStatus(ctx, f)
}

func (c console) parseStatusFlags(args []string) (statusFlags, error) {
	var f statusFlags
	set := flag.NewFlagSet("status", flag.ContinueOnError)
	set.SetOutput(c.err)
	set.StringVar(&f.output, "o", "table", "output `format`: table or json")
	set.BoolVar(&f.matrix, "matrix", false, "how each node reaches each other one: gossip, handshake, round trip, loss, path MTU")
	set.BoolVar(&f.local, "local", false, "only this node, from its agent's socket")
	set.StringVar(&f.socket, "socket", "/run/kith/agent.sock", "the agent's socket, a `file`")
	set.StringVar(&f.kubeconfig, "kubeconfig", "", "how to reach the cluster, a `file`; default $KUBECONFIG or ~/.kube/config")
	set.StringVar(&f.kubecontext, "context", "", "the kubeconfig's context to use, a `name`")
	set.DurationVar(&f.timeout, "timeout", 10*time.Second, "how long a node may take to answer")
	set.Usage = func() {
		fmt.Fprintf(c.err, "Shows the mesh and the policies of every node. Exits with %d if a node is not ready.\n\n", exitNotReady)
		fmt.Fprintf(c.err, "Usage:\n  %s status [flags]\n\nFlags:\n", c.name)
		set.PrintDefaults()
	}
	if err := set.Parse(args); err != nil {
		return f, err
	}
	if err := f.check(set.Args()); err != nil {
		fmt.Fprintf(c.err, "%s status: %v\n", c.name, err)
		return f, err
	}
	return f, nil
}

func (f statusFlags) check(rest []string) error {
	switch {
	case len(rest) > 0:
		return fmt.Errorf("takes no arguments, got %q", rest)
	case f.output != "table" && f.output != "json":
		return fmt.Errorf("-o %s: write table or json", f.output)
	case f.timeout <= 0:
		return fmt.Errorf("-timeout %s: write a time above zero", f.timeout)
	}
	return nil
}

func (c console) localStatus(ctx context.Context, f statusFlags) int {
	report, err := fetchLocal(ctx, f.socket, f.timeout)
	if err != nil {
		fmt.Fprintln(c.err, err)
		return exitNotReady
	}
	if f.output == "json" && !f.matrix {
		c.json(report)
	} else {
		c.show(f, thisNode(report))
	}
	return thisNode(report).exitCode()
}

func (c console) clusterStatus(ctx context.Context, f statusFlags) int {
	k, err := connect(f)
	if err != nil {
		fmt.Fprintf(c.err, "%s status: %v\n", c.name, err)
		return exitUsage
	}
	nodes, err := k.status(ctx)
	if err != nil {
		fmt.Fprintf(c.err, "%s status: %v\n", c.name, err)
		return exitUsage
	}
	all := newClusterStatus(nodes)
	c.show(f, all)
	return all.exitCode()
}

func (c console) show(f statusFlags, all clusterStatus) {
	switch {
	case f.matrix && f.output == "json":
		c.json(pairs(all.Nodes))
	case f.matrix:
		printMatrix(c.out, all.Nodes, time.Now())
	case f.output == "json":
		c.json(all)
	default:
		printStatus(c.out, all, time.Now())
	}
}

func (c console) json(v any) {
	enc := json.NewEncoder(c.out)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		fmt.Fprintf(c.err, "%s status: write JSON: %v\n", c.name, err)
	}
}

// onlyThisNode is true inside the agent's container and on a node without a kubeconfig.
func onlyThisNode(f statusFlags) bool {
	if hasKubeconfig(f) {
		return false
	}
	_, err := os.Stat(f.socket)
	return err == nil
}
