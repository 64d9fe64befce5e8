// Command lab runs the quick cluster: real Kubernetes nodes in namespaces of this machine.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/kithnet/kith/e2e/cluster"
	"github.com/kithnet/kith/e2e/parts"
)

const usage = `usage: lab [flags] COMMAND [flags]

  up                     bring the cluster up (-nodes, -cni, -stack, -proxy)
  down                   take it down
  kubeconfig             print the path of its kubeconfig
  kubectl ARGUMENTS      run the matching kubectl against it
  exec NODE COMMAND...   run a command inside a node
  outside COMMAND...     run a command on the host outside the cluster
  proxy MODE             start kube-proxy again in another mode: nftables or iptables
  load ARCHIVE           load an image archive into all nodes
  install                build the image of Kith, load it, apply deploy/kith.yaml, wait
  restart NODE           power-cycle a node
  cut NODE, heal NODE    take a node off the underlay, put it back
  capture                count the packets on every underlay link until interrupted (-for)
  parts [NAME...]        only build what clusters are made of, or the parts named

flags:
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:])
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit) && exit.ExitCode() > 0:
		os.Exit(exit.ExitCode())
	case err != nil:
		fmt.Fprintln(os.Stderr, "lab:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("lab", flag.ContinueOnError)
	flags.Usage = func() { fmt.Fprint(flags.Output(), usage); flags.PrintDefaults() }
	l := lab{}
	flags.StringVar(&l.spec.Name, "name", "lab", "name of the cluster")
	flags.IntVar(&l.spec.Nodes, "nodes", 3, "number of nodes")
	cni := flags.String("cni", string(cluster.None), "kith or none")
	stack := flags.String("stack", string(cluster.IPv4), "ipv4, dual or dual-ipv6")
	proxy := flags.String("proxy", string(cluster.NFTables), "kube-proxy's mode: nftables or iptables")
	flags.DurationVar(&l.capture, "for", 0, "how long to capture; 0: until interrupted")
	if err := flags.Parse(args); err != nil {
		return err
	}
	command := flags.Arg(0)
	if command == "" {
		flags.Usage()
		return errors.New("no command given")
	}
	rest := flags.Args()[1:]
	// What follows these is another program's command line, flags and all.
	if command != "kubectl" && command != "exec" && command != "outside" {
		if err := flags.Parse(rest); err != nil {
			return err
		}
		rest = flags.Args()
	}
	if os.Geteuid() != 0 {
		return errors.New("namespaces and mounts need root")
	}
	l.spec.CNI, l.spec.Stack, l.spec.Proxy = cluster.CNI(*cni), cluster.Stack(*stack), cluster.Proxy(*proxy)
	builder, err := parts.New(os.Stderr)
	if err != nil {
		return err
	}
	l.builder, l.dir = builder, filepath.Join(builder.Cache, "run")
	return l.command(ctx, command, rest)
}
