package main

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"
)

func TestSummary(t *testing.T) {
	good := result{"lint", time.Second, nil}
	bad := result{"unit", time.Second, errors.New("broken")}
	away := result{"vuln", 0, cannotRun{"no such host", true}}
	absent := result{"kernel", 0, cannotRun{reason: "this needs root"}}
	tests := []struct {
		name    string
		ci      string
		results []result
		want    string
	}{
		{"passed", "true", []result{good}, ""},
		{"failed", "", []result{good, bad}, "failed: unit"},
		{"not run", "", []result{good, absent}, ""},
		{"a service away in CI", "true", []result{good, away}, ""},
		{"not run in CI", "true", []result{good, absent}, "could not run here, and CI=true: kernel"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("CI", tt.ci)
			var out bytes.Buffer
			err := summarize(&out, tt.results)
			if got := message(err); got != tt.want {
				t.Errorf("error %q, want %q", got, tt.want)
			}
			for _, r := range tt.results {
				if !strings.Contains(out.String(), r.name) {
					t.Errorf("%s is not in:\n%s", r.name, &out)
				}
				if why := (cannotRun{}); errors.As(r.err, &why) && !strings.Contains(out.String(), why.reason) {
					t.Errorf("%q is not in:\n%s", why.reason, &out)
				}
			}
		})
	}
}

func message(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestUnknownStage(t *testing.T) {
	err := check(context.Background(), &bytes.Buffer{}, []string{"untit"})
	if !strings.Contains(message(err), `there is no stage "untit": lint, vuln, unit,`) {
		t.Errorf("got %v", err)
	}
}

func TestKernelPackages(t *testing.T) {
	root, err := repositoryRoot()
	if err != nil {
		t.Fatal(err)
	}
	packages, err := kernelPackages(root)
	if err != nil || len(packages) == 0 {
		t.Errorf("got %q, %v", packages, err)
	}
}
