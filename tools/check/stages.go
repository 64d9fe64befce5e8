package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// stage is one part of the tests.
type stage struct {
	name, what string
	run        func(context.Context, runner) error
}

func stages() []stage {
	return []stage{
		{"lint", "gofmt, vet, staticcheck", lint},
		{"vuln", "known vulnerabilities in what Kith calls", vulnerabilities},
		{"unit", "everything that needs no root, with the race detector", unit},
		{"install", "the chart, the manifest and the kustomization make the same objects", install},
		{"mistakes", "each known mistake, put into the code, is caught by its test; some of them in the kernel only", mistakes},
		{"kernel", "nftables, WireGuard by wireguard-go, pods' interfaces, in fresh network namespaces", kernel},
		{"guest", "the same with the kernel's WireGuard, in an emulated machine", guest},
		{"cluster", "a cluster in namespaces: upstream's policy tests, no open window, outages, the basics, agents killed", cluster},
		{"kind", "a kind cluster, dual stack", kind},
	}
}

// runner runs commands in the repository.
type runner struct {
	root string
	out  io.Writer
}

// command is one program to run; dir is relative to the root.
type command struct {
	dir  string
	env  []string
	args []string
}

func (r runner) run(ctx context.Context, c command) error {
	fmt.Fprintf(r.out, "$ %s\n", strings.Join(append(slices.Clone(c.env), c.args...), " "))
	cmd := exec.CommandContext(ctx, c.args[0], c.args[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = filepath.Join(r.root, c.dir), r.out, r.out
	cmd.Env = append(os.Environ(), c.env...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	// Tests that brought a cluster up take it down when they are interrupted.
	cmd.WaitDelay = 2 * time.Minute
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w", strings.Join(c.args, " "), err)
	}
	return nil
}

// all runs every command, also after one that failed.
func (r runner) all(ctx context.Context, commands ...command) error {
	var errs []error
	for _, c := range commands {
		errs = append(errs, r.run(ctx, c))
	}
	return errors.Join(errs...)
}

func lint(ctx context.Context, r runner) error {
	return errors.Join(format(ctx, r), r.all(ctx,
		command{args: []string{"go", "vet", "-tags", "kernel", "./..."}},
		command{args: []string{"go", "vet", "./..."}},
		command{dir: "tools", args: []string{"go", "vet", "./..."}},
		command{dir: "deploy/test", args: []string{"go", "vet", "./..."}},
		command{dir: "e2e", args: []string{"go", "vet", "-tags", "e2e", "./..."}},
		command{args: tool(r, "staticcheck", "-tags", "kernel", "./...")},
		command{dir: "e2e", args: tool(r, "staticcheck", "-tags", "e2e", "./...")},
		command{dir: "tools", args: tool(r, "staticcheck", "./...")},
		command{dir: "deploy/test", args: tool(r, "staticcheck", "./...")},
	))
}

// tool runs a program at the version that tools/go.mod names.
func tool(r runner, name string, args ...string) []string {
	return append([]string{"go", "tool", "-modfile=" + filepath.Join(r.root, "tools", "go.mod"), name}, args...)
}

func format(ctx context.Context, r runner) error {
	cmd := exec.CommandContext(ctx, "gofmt", "-l", ".")
	cmd.Dir = r.root
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("gofmt: %w", err)
	}
	if len(out) > 0 {
		return fmt.Errorf("not formatted, run gofmt -w on: %s", strings.Join(strings.Fields(string(out)), " "))
	}
	return nil
}

const vulnerabilityDatabase = "vuln.go.dev"

func vulnerabilities(ctx context.Context, r runner) error {
	if os.Getenv("GOVULNDB") == "" {
		dialer := net.Dialer{Timeout: 5 * time.Second}
		conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(vulnerabilityDatabase, "443"))
		if err != nil {
			return cannotRun{"the vulnerability database cannot be reached, and $GOVULNDB names no other: " + err.Error(), true}
		}
		_ = conn.Close()
	}
	return r.run(ctx, command{args: tool(r, "govulncheck", "./...")})
}

func unit(ctx context.Context, r runner) error {
	race, env := []string{"go", "test", "-race", "./..."}, []string{"CGO_ENABLED=1"}
	if err := r.provide(ctx, "gcc", "gcc", "libc6-dev"); err != nil {
		if os.Getenv("CI") == "true" {
			return err
		}
		fmt.Fprintf(r.out, "%v: this runs WITHOUT the race detector.\n", err)
		race, env = []string{"go", "test", "./..."}, nil
	}
	return r.all(ctx,
		command{args: race, env: env},
		command{dir: "tools", args: []string{"go", "test", "./..."}},
		command{dir: "e2e", args: []string{"go", "test", "./..."}},
	)
}

// provide installs Debian packages unless the program that they are for is there.
func (r runner) provide(ctx context.Context, program string, packages ...string) error {
	if _, err := exec.LookPath(program); err == nil {
		return nil
	}
	install := command{dir: "e2e", args: append([]string{"go", "run", "./cmd/packages"}, packages...)}
	if err := r.run(ctx, install); err != nil {
		return cannotRun{reason: fmt.Sprintf("there is no %s, and apt-get install %s failed", program, strings.Join(packages, " "))}
	}
	return nil
}

func install(ctx context.Context, r runner) error {
	return r.run(ctx, command{dir: "deploy/test", args: []string{"go", "test", "./..."}})
}

func mistakes(ctx context.Context, r runner) error {
	if err := needRoot(); err != nil {
		return err
	}
	return r.run(ctx, command{dir: "tools", args: []string{"go", "run", "./mistakes"}})
}

func kernel(ctx context.Context, r runner) error {
	if err := needRoot(); err != nil {
		return err
	}
	packages, err := kernelPackages(r.root)
	if err != nil {
		return err
	}
	for _, p := range [][2]string{{"nft", "nftables"}, {"ip", "iproute2"}, {"ping", "iputils-ping"}, {"sysctl", "procps"}, {"iptables", "iptables"}} {
		if err := r.provide(ctx, p[0], p[1]); err != nil {
			return err
		}
	}
	// Without -p 1 packages would compete for the two things a machine has once: time and conntrack.
	args := append([]string{"go", "test", "-tags", "kernel", "-count=1", "-p", "1", "-timeout", "20m"}, packages...)
	return r.run(ctx, command{args: args, env: []string{"KITH_WIREGUARD=userspace", "KITH_NFT="}})
}

// kernelPackages are those with tests that need the kernel.
func kernelPackages(root string) ([]string, error) {
	var all []string
	for _, pattern := range []string{"*/*_kernel_test.go", "*/*/*_kernel_test.go", "*/*/*/*_kernel_test.go"} {
		files, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			return nil, err
		}
		for _, f := range files {
			dir, err := filepath.Rel(root, filepath.Dir(f))
			if err != nil {
				return nil, err
			}
			if !strings.HasPrefix(dir, "e2e") {
				all = append(all, "./"+filepath.ToSlash(dir))
			}
		}
	}
	slices.Sort(all)
	if all = slices.Compact(all); len(all) == 0 {
		return nil, errors.New("no kernel tests found")
	}
	return all, nil
}

func needRoot() error {
	if os.Geteuid() != 0 {
		return cannotRun{reason: "this needs root"}
	}
	return nil
}

func guest(ctx context.Context, r runner) error { return endToEnd(ctx, r, "./guest/...", "30m") }

// cluster takes half an hour, and up to another one where it has to compile Kubernetes first.
func cluster(ctx context.Context, r runner) error {
	if err := endToEnd(ctx, r, "./olderruntime", "10m"); err != nil {
		return err
	}
	return endToEnd(ctx, r, ".", "120m")
}

func kind(ctx context.Context, r runner) error { return endToEnd(ctx, r, "./kind/...", "40m") }

func endToEnd(ctx context.Context, r runner, pkg, limit string) error {
	if err := needRoot(); err != nil {
		return err
	}
	return r.run(ctx, command{dir: "e2e", args: []string{"go", "test", "-tags", "e2e", "-count=1", "-v", "-timeout", limit, pkg}})
}
