package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"syscall"

	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"
)

// execution runs a delegate that ends with this process: a runtime that gives up kills this one alone, and then asks for
// DEL, after which nothing may come.
type execution struct {
	invoke.RawExec
	version.PluginDecoder
}

// ExecPlugin runs a plugin and returns what it prints, or the error that it prints.
func (*execution) ExecPlugin(ctx context.Context, path string, stdin []byte, environ []string) ([]byte, error) {
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, path)
	cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = environ, bytes.NewReader(stdin), &stdout, &stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	err := cmd.Run()
	if err == nil {
		return stdout.Bytes(), nil
	}
	var spec types.Error
	if json.Unmarshal(stdout.Bytes(), &spec) == nil && spec.Msg != "" {
		return nil, &spec
	}
	return nil, fmt.Errorf("run %s: %w: %s%s", path, err, stdout.Bytes(), stderr.Bytes())
}
