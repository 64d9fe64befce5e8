// Command image builds Kith's container image, build/kith-image.tar, without a container engine.
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
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	builder, err := parts.New(os.Stderr)
	if err != nil {
		return err
	}
	_, err = builder.Kith(ctx)
	return err
}
