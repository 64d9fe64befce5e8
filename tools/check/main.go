// Command check is behind `make test` and `make lint`: it runs the stages of the project's tests, from the quick ones
// to those that bring clusters up, and says at the end how long each took.
//
//	go run ./check [STAGE...]      all stages if none is named
//
// A stage that cannot run on this machine says why. With CI=true that is a failure, else the other stages decide. Only
// the stage that asks a service on the Internet may be left out there too, and it says so.
// Every stage runs, also after one that failed.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := check(ctx, os.Stdout, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "check:", err)
		os.Exit(1)
	}
}

// cannotRun is why a stage is not possible on this machine. It is excused where it is not the machine that lacks
// something but a service elsewhere that cannot be reached.
type cannotRun struct {
	reason  string
	excused bool
}

func (c cannotRun) Error() string { return c.reason }

// result is what became of a stage.
type result struct {
	name string
	took time.Duration
	err  error
}

func check(ctx context.Context, out io.Writer, wanted []string) error {
	root, err := repositoryRoot()
	if err != nil {
		return err
	}
	for _, name := range wanted {
		if !slices.ContainsFunc(stages(), func(s stage) bool { return s.name == name }) {
			return fmt.Errorf("there is no stage %q: %s", name, names())
		}
	}
	r := runner{root: root, out: out}
	var results []result
	for _, s := range stages() {
		if len(wanted) > 0 && !slices.Contains(wanted, s.name) {
			continue
		}
		fmt.Fprintf(out, "\n=== %s: %s\n", s.name, s.what)
		began := time.Now()
		err := s.run(ctx, r)
		if err != nil {
			fmt.Fprintf(out, "--- %s: %v\n", s.name, err)
		}
		results = append(results, result{s.name, time.Since(began), err})
		if ctx.Err() != nil {
			break
		}
	}
	return summarize(out, results)
}

func names() string {
	var all []string
	for _, s := range stages() {
		all = append(all, s.name)
	}
	return strings.Join(all, ", ")
}

// repositoryRoot is the folder above this module's.
func repositoryRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "tools", "go.mod")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("this is no checkout of Kith")
		}
	}
}

// summarize prints the table of stages and says what failed.
func summarize(out io.Writer, results []result) error {
	var failed, absent []string
	fmt.Fprintf(out, "\n%-10s %-10s %8s\n", "STAGE", "RESULT", "TIME")
	for _, r := range results {
		var cannot cannotRun
		word := "passed"
		switch {
		case errors.As(r.err, &cannot):
			word = "NOT RUN"
			if !cannot.excused {
				absent = append(absent, r.name)
			}
		case r.err != nil:
			word, failed = "FAILED", append(failed, r.name)
		}
		fmt.Fprintf(out, "%-10s %-10s %8s\n", r.name, word, r.took.Round(100*time.Millisecond))
		if cannot.reason != "" {
			fmt.Fprintf(out, "%10s %s\n", "", cannot.reason)
		}
	}
	switch {
	case len(failed) > 0:
		return fmt.Errorf("failed: %s", strings.Join(failed, ", "))
	case len(absent) > 0 && os.Getenv("CI") == "true":
		return fmt.Errorf("could not run here, and CI=true: %s", strings.Join(absent, ", "))
	}
	return nil
}
