package kith_test

import (
	"bufio"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const maxArchitecture = 150

// documents are the pages at the root.
var documents = []string{"README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"}

// TestInvariantsNameTheirTests: every **invariant** of ARCHITECTURE.md names tests that exist.
func TestInvariantsNameTheirTests(t *testing.T) {
	exists := map[string]bool{}
	for _, f := range goFiles(t) {
		if f.isTest {
			for name := range f.syntax.Scope.Objects {
				exists[name] = true
			}
		}
	}
	text := readFile(t, "ARCHITECTURE.md")
	if n := strings.Count(text, "\n"); n >= maxArchitecture {
		t.Errorf("ARCHITECTURE.md has %d lines, it must stay below %d", n, maxArchitecture)
	}
	named := regexp.MustCompile("`((?:Test|Fuzz|Benchmark)[A-Za-z0-9_]*)`")
	for _, m := range named.FindAllStringSubmatch(text, -1) {
		if !exists[m[1]] {
			t.Errorf("ARCHITECTURE.md names %s, which is no test", m[1])
		}
	}
	invariants := paragraphsWith(text, "- **")
	if len(invariants) < 10 {
		t.Errorf("only %d invariants found", len(invariants))
	}
	for _, invariant := range invariants {
		if !named.MatchString(invariant) {
			t.Errorf("this invariant names no test: %s", invariant)
		}
	}
}

// paragraphsWith are the list entries that begin with prefix, each with its continuation lines.
func paragraphsWith(text, prefix string) []string {
	var all []string
	var inside bool
	for line := range strings.Lines(text) {
		switch {
		case strings.HasPrefix(line, prefix):
			all, inside = append(all, line), true
		case inside && strings.HasPrefix(line, "  "):
			all[len(all)-1] += line
		default:
			inside = false
		}
	}
	return all
}

// TestDependenciesAreExplained: each direct dependency has its reason in ARCHITECTURE.md.
func TestDependenciesAreExplained(t *testing.T) {
	text := readFile(t, "ARCHITECTURE.md")
	inRequire := false
	for line := range strings.Lines(readFile(t, "go.mod")) {
		fields := strings.Fields(line)
		switch {
		case strings.HasPrefix(line, "require ("):
			inRequire = true
		case strings.HasPrefix(line, ")"):
			inRequire = false
		case inRequire && len(fields) == 2 && !strings.Contains(text, "`"+fields[0]+"`"):
			t.Errorf("ARCHITECTURE.md does not say why Kith needs %s", fields[0])
		}
	}
}

// TestLinks: what the pages link to inside the repository exists.
func TestLinks(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#:]+)(?:#[^)]*)?\)`)
	for _, name := range documents {
		for _, m := range link.FindAllStringSubmatch(readFile(t, name), -1) {
			if _, err := os.Stat(filepath.FromSlash(m[1])); err != nil {
				t.Errorf("%s links to %s: %v", name, m[1], err)
			}
		}
	}
}

// TestMakeTargets: every `make x` that the pages speak of is a target.
func TestMakeTargets(t *testing.T) {
	targets := map[string]bool{}
	scan := bufio.NewScanner(strings.NewReader(readFile(t, "Makefile")))
	for scan.Scan() {
		if name, _, ok := strings.Cut(scan.Text(), ":"); ok && !strings.ContainsAny(name, " \t#=") {
			targets[name] = true
		}
	}
	command := regexp.MustCompile("`(?:[A-Z]+=[^ `]* )*make ([a-z-]+)")
	for _, name := range documents {
		for _, m := range command.FindAllStringSubmatch(readFile(t, name), -1) {
			if !targets[m[1]] {
				t.Errorf("%s: make %s is no target", name, m[1])
			}
		}
	}
}

func TestLicence(t *testing.T) {
	text := readFile(t, "LICENSE")
	for _, want := range []string{"Apache License", "Version 2.0, January 2004", "END OF TERMS AND CONDITIONS"} {
		if !strings.Contains(text, want) {
			t.Errorf("LICENSE lacks %q", want)
		}
	}
}

// TestVersion: image, chart and Dockerfile bear the same version.
func TestVersion(t *testing.T) {
	m := regexp.MustCompile(`KithVersion = "(v[^"]+)"`).FindStringSubmatch(readFile(t, "e2e/parts/kith.go"))
	if m == nil {
		t.Fatal("e2e/parts names no version")
	}
	for name, want := range map[string]string{"deploy/helm/kith/Chart.yaml": "appVersion: " + m[1] + "\n", "deploy/Dockerfile": "VERSION=" + m[1] + "\n"} {
		if !strings.Contains(readFile(t, name), want) {
			t.Errorf("%s lacks %q", name, want)
		}
	}
}
