package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// tryAll tries two mistakes at the same time: each compiles on one processor for most of its time. Those that show in the
// kernel are tried one after the other: they share what a machine has once.
func tryAll(ctx context.Context, out io.Writer, root string, all []mistake) (errs []error) {
	var said sync.Mutex
	try := func(m mistake) {
		began := time.Now()
		err := m.try(ctx, root)
		said.Lock()
		defer said.Unlock()
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", m.name, err))
			fmt.Fprintf(out, "NOT CAUGHT %s: %v\n", m.name, err)
			return
		}
		fmt.Fprintf(out, "caught by %s in %s: %s\n", m.test, time.Since(began).Round(100*time.Millisecond), m.name)
	}
	others := make(chan mistake, len(all))
	for _, m := range all {
		if m.tags != inKernel {
			others <- m
		}
	}
	close(others)
	var workers sync.WaitGroup
	workers.Go(func() {
		for m := range others {
			try(m)
		}
	})
	for _, m := range all {
		if m.tags == inKernel {
			try(m)
		}
	}
	for m := range others {
		try(m)
	}
	workers.Wait()
	return errs
}

// try puts the mistake in and runs its test.
func (m mistake) try(ctx context.Context, root string) error {
	if m.tags == inKernel && os.Geteuid() != 0 {
		return errors.New("this needs root")
	}
	dir, err := os.MkdirTemp("", "kith-mistake-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	overlay, err := m.overlay(root, dir)
	if err != nil {
		return err
	}
	name := "^" + strings.ReplaceAll(m.test, "/", "$/^") + "$"
	args := []string{"test", "-overlay", overlay, "-tags", m.tags, "-vet=off", "-failfast", "-count=1", "-timeout=2m", "-run", name}
	cmd := exec.CommandContext(ctx, "go", append(args, m.pkg)...)
	cmd.Dir = root
	printed, err := cmd.CombinedOutput()
	switch {
	case err == nil:
		return fmt.Errorf("%s passes with it", m.test)
	case !bytes.Contains(printed, []byte("--- FAIL: "+m.test)) || !bytes.Contains(printed, []byte(m.says)):
		return fmt.Errorf("no failure of %s, but: %w\n%s", m.test, err, printed[max(0, len(printed)-2000):])
	}
	return nil
}

// overlay writes the file with the mistake, and the list that gives it to the compiler.
func (m mistake) overlay(root, dir string) (string, error) {
	path := filepath.Join(root, filepath.FromSlash(m.file))
	text, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	if n := strings.Count(string(text), m.right); n != 1 {
		return "", fmt.Errorf("%s has %q %d times: let the mistake follow the code", m.file, m.right, n)
	}
	bad, list := filepath.Join(dir, filepath.Base(m.file)), filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(bad, []byte(strings.Replace(string(text), m.right, m.wrong, 1)), 0o600); err != nil {
		return "", err
	}
	data, err := json.Marshal(map[string]any{"Replace": map[string]string{path: bad}})
	if err != nil {
		return "", err
	}
	return list, os.WriteFile(list, data, 0o600)
}
