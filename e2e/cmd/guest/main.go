// Command guest runs a static program as root on Debian's cloud kernel in an emulated machine, and exits with
// its exit code:
//
//	go run ./cmd/guest [-env KEY=value] [-file GUESTPATH=HOSTPATH] [-timeout 10m] [-verbose] PROGRAM [args]
//
// Run it inside the checkout: it compiles the guest's init process with the go command.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/kithnet/kith/e2e/guest"
	"github.com/kithnet/kith/e2e/parts"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code, err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "guest:", err)
		code = 1
	}
	os.Exit(code)
}

func run(ctx context.Context) (int, error) {
	j := guest.Job{Files: map[string]string{}}
	flag.Func("env", "`KEY=value` for the program (repeatable)", func(value string) error {
		j.Env = append(j.Env, value)
		return nil
	})
	flag.Func("file", "`GUESTPATH=HOSTPATH`, a file or folder to copy in (repeatable)", func(value string) error {
		at, source, ok := strings.Cut(value, "=")
		if !ok {
			return fmt.Errorf("want GUESTPATH=HOSTPATH")
		}
		j.Files[at] = source
		return nil
	})
	flag.DurationVar(&j.Timeout, "timeout", 10*time.Minute, "end the guest after this time")
	flag.BoolVar(&j.Verbose, "verbose", false, "show the kernel's messages")
	flag.Parse()
	if flag.NArg() == 0 {
		return 0, fmt.Errorf("which program?")
	}
	j.Program, j.Args = flag.Arg(0), flag.Args()[1:]
	builder, err := parts.New(os.Stderr)
	if err != nil {
		return 0, err
	}
	kernel, err := guest.Fetch(ctx, builder)
	if err != nil {
		return 0, err
	}
	return guest.Run(ctx, kernel, j, os.Stdout)
}
