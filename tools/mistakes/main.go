// Command mistakes puts known mistakes into Kith, one at a time, and sees that the tests catch them. A mistake is a few
// words of a source file replaced by others, in a copy that only the compiler sees (go test -overlay).
//
//	go run ./mistakes [NAME...]      all of them if none is named
//
// It fails if a test does not, if the words to replace are not in the file exactly once (then the code has moved and the
// mistake must follow), and if it is given a name that no mistake has. Some mistakes show in the kernel only: their tests
// need root.
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
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Stdout, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "mistakes:", err)
		os.Exit(1)
	}
}

// inKernel is the tag of tests that need the kernel, and root.
const inKernel = "kernel"

// mistake is one to put in.
type mistake struct {
	name         string // where it was made before, if it was
	file         string // relative to the repository
	right, wrong string
	pkg          string // whose test must fail
	test         string // or one of its subtests, behind a slash
	says         string // what the failure must say, where the test looks at several things
	tags         string
}

// all are the mistakes that are tried, those of one package together.
func all() []mistake {
	return slices.Concat(inPolicy(), inFiles(), inGuards(), inClaims(), inOldClaims(), inSigningKeys(), inAdmissionCheck(), inNews(), inSecrets(), inGrants(), inBounds(), inMesh(), inSizes(),
		inPlan(), inMesher(), inOrder(),
		inWrites(), inLists(), inUnknown(), inOrderAndBound(), inGuard(), inBorders(), inErrors(), inMeshPorts(), inLives(), inNames(), inConnections(), inShares())
}

func run(ctx context.Context, out io.Writer, wanted []string) error {
	root, err := filepath.Abs("..")
	if err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(root, "tools", "go.mod")); err != nil {
		return errors.New("run it in the folder tools of a checkout")
	}
	var errs []error
	for _, name := range wanted {
		if !slices.ContainsFunc(all(), func(m mistake) bool { return m.name == name }) {
			errs = append(errs, fmt.Errorf("there is no mistake %q: tools/mistakes lists them", name))
		}
	}
	var tried []mistake
	for _, m := range all() {
		if len(wanted) == 0 || slices.Contains(wanted, m.name) {
			tried = append(tried, m)
		}
	}
	return errors.Join(append(errs, tryAll(ctx, out, root, tried)...)...)
}

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
