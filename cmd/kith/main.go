// Command kith tells a person what Kith does in a cluster. As kubectl-kith in the PATH it is also `kubectl kith`.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
)

// version is set when a release is built.
var version = "development"

// The exit codes.
const (
	exitReady     = 0
	exitNotReady  = 1
	exitDifferent = 1
	exitUsage     = 2
)

const usage = `%[1]s shows what Kith does in a cluster.

Usage:
  %[1]s COMMAND [flags]

Commands:
  status     the mesh and the policies of every node
  mesh       new keys for the mesh, or for a node that has lost its own
  policy     who reaches whom by manifests alone, without a cluster
  gossip     a new key for the talk between the nodes
  version    this program's version

%[1]s COMMAND -h lists a command's flags.
`

// console is where a command writes: what was asked for, and what else there is to say.
type console struct {
	name     string
	out, err io.Writer
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	c := console{name: programName(os.Args[0]), out: os.Stdout, err: os.Stderr}
	os.Exit(c.run(ctx, os.Args[1:]))
}

// programName is how the user calls this program: kubectl runs kubectl-kith as `kubectl kith`.
func programName(arg0 string) string {
	name := filepath.Base(arg0)
	if plugin, ok := strings.CutPrefix(name, "kubectl-"); ok {
		return "kubectl " + plugin
	}
	return name
}

func (c console) run(ctx context.Context, args []string) int {
	if len(args) == 0 {
		fmt.Fprintf(c.err, usage, c.name)
		return exitUsage
	}
	switch args[0] {
	case "status":
		return c.status(ctx, args[1:])
	case "mesh":
		return c.mesh(ctx, args[1:])
	case "policy":
		return c.policy(args[1:])
	case "gossip":
		return c.gossip(ctx, args[1:])
	case "version", "-version", "--version":
		fmt.Fprintln(c.out, version)
		return exitReady
	case "help", "-h", "-help", "--help":
		fmt.Fprintf(c.out, usage, c.name)
		return exitReady
	}
	fmt.Fprintf(c.err, "%s: there is no command %q\n\n", c.name, args[0])
	fmt.Fprintf(c.err, usage, c.name)
	return exitUsage
}
