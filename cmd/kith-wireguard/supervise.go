package main

import (
	"context"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// A carrier that lived shorter than this is started again only after a pause.
const (
	steady   = 10 * time.Second
	pause    = 500 * time.Millisecond
	stopTime = 3 * time.Second
)

// supervise keeps a carrier running until ctx ends. The kubelet starts a container that has ended again, too, but waits
// 10 seconds the second time, and up to 5 minutes later.
func supervise(ctx context.Context, carrier func(context.Context) *exec.Cmd, log *slog.Logger) {
	// A carrier must not outlive its supervisor, which for the kernel is the thread that started it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for {
		began := time.Now()
		c := carrier(ctx)
		c.Stdout, c.Stderr = os.Stdout, os.Stderr
		c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		c.Cancel, c.WaitDelay = func() error { return c.Process.Signal(syscall.SIGTERM) }, stopTime
		err := c.Run()
		if ctx.Err() != nil {
			return
		}
		lived := time.Since(began)
		log.Warn("wireguard-go has ended and is started again", "lived", lived.Round(time.Millisecond), "end", err)
		if lived >= steady {
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// itself is this program as a carrier.
func itself() (func(context.Context) *exec.Cmd, error) {
	self, err := os.Executable()
	return func(ctx context.Context) *exec.Cmd {
		return exec.CommandContext(ctx, self, append(os.Args[1:], "-carry")...)
	}, err
}
