// Command node is one node of the quick cluster: `start` clones it, `init` is its pid 1, `boot`
// imports images and becomes the kubelet.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/kithnet/kith/e2e/node"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "node:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) < 2 {
		return fmt.Errorf("usage: node start|init CONFIG | boot PROGRAM [ARGUMENTS]")
	}
	if args[0] == "boot" {
		return node.Boot(context.Background(), args[1:])
	}
	config, err := node.Load(args[1])
	if err != nil {
		return err
	}
	switch args[0] {
	case "start":
		return node.Start(config, args[1])
	case "init":
		return node.Init(config)
	}
	return fmt.Errorf("unknown command %q", args[0])
}
