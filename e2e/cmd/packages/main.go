// Command packages installs the Debian packages that it is given, those that are missing.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"

	"github.com/kithnet/kith/e2e/parts"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "packages:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, names []string) error {
	builder, err := parts.New(os.Stderr)
	if err != nil {
		return err
	}
	return builder.EnsurePackages(ctx, names...)
}
