package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"time"

	"github.com/kithnet/kith/cmd/kith/status"
)

// mesh has two commands: rotate and accept.
func (c console) mesh(ctx context.Context, args []string) int {
	if len(args) > 0 && args[0] == "accept" {
		return c.accept(ctx, args[1:])
	}
	f := statusFlags{}
	set := flag.NewFlagSet("mesh", flag.ContinueOnError)
	set.SetOutput(c.err)
	set.BoolVar(&f.local, "local", false, "ask the agent of this node, by its socket")
	set.StringVar(&f.socket, "socket", "/run/kith/agent.sock", "the agent's socket, a `file`")
	set.StringVar(&f.kubeconfig, "kubeconfig", "", "how to reach the cluster, a `file`; default $KUBECONFIG or ~/.kube/config")
	set.StringVar(&f.kubecontext, "context", "", "the kubeconfig's context to use, a `name`")
	set.DurationVar(&f.timeout, "timeout", 10*time.Second, "how long a node may take to answer")
	set.Usage = func() {
		fmt.Fprintf(c.err, "Gives every node new WireGuard keys, one lane at a time: traffic moves to new keys once they have shaken hands.\n\n")
		fmt.Fprintf(c.err, "Usage:\n  %[1]s mesh rotate [flags]\n  %[1]s mesh accept NODE [flags]   the new signing key of a node that has lost its own\n\nFlags:\n", c.name)
		set.PrintDefaults()
	}
	if len(args) == 0 || args[0] != "rotate" {
		set.Usage()
		return exitUsage
	}
	if err := set.Parse(args[1:]); errors.Is(err, flag.ErrHelp) {
		return exitReady
	} else if err != nil || set.NArg() > 0 {
		set.Usage()
		return exitUsage
	}
	generation, err := rotate(ctx, f)
	if err != nil {
		fmt.Fprintln(c.err, err)
		return exitNotReady
	}
	fmt.Fprintf(c.out, "The mesh goes to generation %d of its keys; %s status shows how far each node is.\n", generation, c.name)
	return exitReady
}

// rotate asks one agent; the others follow it.
func rotate(ctx context.Context, f statusFlags) (uint32, error) {
	if f.local || onlyThisNode(f) {
		ctx, cancel := context.WithTimeout(ctx, f.timeout)
		defer cancel()
		var answer status.Rotation
		if err := call(ctx, f.socket, http.MethodPost, status.RotatePath, &answer); err != nil {
			return 0, fmt.Errorf("the agent on this node does not answer: %w", err)
		}
		return answer.Generation, nil
	}
	k, err := connect(f)
	if err != nil {
		return 0, err
	}
	agents, err := k.agents(ctx)
	if err != nil {
		return 0, err
	}
	err = errors.New("no agent runs")
	for _, a := range agents {
		if a.pod == nil || whyNotRunning(a.pod) != "" {
			continue
		}
		var out []byte
		var generation uint32
		if out, err = k.exec(ctx, a.pod.Name, []string{"/kith", "mesh", "rotate", "-local"}); err != nil {
			err = fmt.Errorf("exec in pod %s: %w", a.pod.Name, err)
			continue
		}
		if _, err = fmt.Sscanf(string(out), "The mesh goes to generation %d", &generation); err == nil {
			return generation, nil
		}
	}
	return 0, err
}
