package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestPolicy: what the commands print, say and return.
func TestPolicy(t *testing.T) {
	tests := []struct{ name, args string }{
		{"matrix", "matrix -f shop.yaml"},
		{"matrix-ports", "matrix -f shop.yaml -ports 8080/TCP,53/UDP,80"},
		{"matrix-narrow", "matrix -f shop.yaml -ports 8080 COLUMNS=40"},
		{"matrix-json", "matrix -f shop.yaml -ports 8080 -from den/thief -from 192.0.2.1 -to shop/app=api -o json"},
		{"matrix-list", "matrix -f shop.yaml -ports 8080 -from shop -to app=coffee -o list"},
		{"matrix-dual", "matrix -f dual.yaml -ports 80"},
		{"matrix-dual-list", "matrix -f dual.yaml -ports 80 -o list"},
		{"matrix-nobody", "matrix -f shop.yaml -from shop/tea"},
		{"matrix-host", "matrix -f shop.yaml -from den/proxy -ports 8080"},
		{"matrix-bad", "matrix -f shop.yaml bad.yaml"},
		{"expect", "matrix -f shop.yaml -expect expected.txt"},
		{"expect-json", "matrix -f shop.yaml -expect expected.txt -o json"},
		{"matrix-workloads", "matrix -f workloads.yaml -ports 80"},
		{"check-workload", "check -f workloads.yaml -from shop/db -to shop/db -port 80"},
		{"check-twin", "check -f workloads.yaml -from shop/db -to 10.244.0.3 -port 80"},
		{"matrix-service", "matrix -f service.yaml -to 10.96.0.20 -ports 80"},
		{"check-service", "check -f service.yaml -from shop/cli -to 10.96.0.20 -port 80"},
		{"check-service-outside", "check -f service.yaml -from shop/cli -to 192.0.2.10 -port 80"},
		{"check-service-without-pods", "check -f service.yaml -from shop/cli -to fd00::99 -port 80"},
		{"check-deny", "check -f shop.yaml -from den/thief -to shop/api -port 8080/TCP"},
		{"check-allow", "check -f shop.yaml -from shop/coffee-1 -to shop/api -port 8080"},
		{"check-json", "check -f shop.yaml -from shop/coffee-2 -to 10.244.1.6 -port 81 -o json"},
		{"check-address", "check -f shop.yaml -from 203.0.113.7 -to shop/api -port 8080"},
		{"check-node", "check -f shop.yaml -from 192.0.2.1 -to shop/api -port 8080"},
		{"check-families", "check -f dual.yaml -from default/a -to default/b -port 80"},
		{"check-itself", "check -f itself.yaml -from a/p -to a/p -port 80"},
		{"check-itself-json", "check -f itself.yaml -from a/p -to a/p -port 80 -o json"},
		{"check-no-family", "check -f dual.yaml -from 10.0.0.1 -to default/six -port 80"},
		{"check-nobody", "check -f shop.yaml -from shop/coffee -to shop/api -port 80"},
	}
	dir, err := filepath.Abs("testdata/offline")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(dir, tt.name+".golden")
			t.Chdir(dir)
			args, columns, narrow := strings.Cut(tt.args, " COLUMNS=")
			if !narrow {
				columns = "100"
			}
			t.Setenv("COLUMNS", columns)
			code, stdout, stderr := run(t, append([]string{"policy"}, strings.Fields(args)...)...)
			golden(t, path, []byte(fmt.Sprintf("$ kith policy %s\n%s%sexit %d\n", args, stderr, stdout, code)))
		})
	}
}

// TestExpectWhatWasWritten: what -o list and -o json write is expected to the cell.
func TestExpectWhatWasWritten(t *testing.T) {
	for _, manifest := range []string{"testdata/offline/shop.yaml", "testdata/offline/dual.yaml"} {
		for _, format := range []string{"list", "json"} {
			_, stdout, _ := run(t, "policy", "matrix", "-f", manifest, "-ports", "80,8080,53/UDP", "-o", format)
			if format == "json" {
				var cells []cell
				if err := json.Unmarshal([]byte(stdout), &cells); err != nil {
					t.Fatal(err)
				}
			}
			file := filepath.Join(t.TempDir(), "expected")
			if err := os.WriteFile(file, []byte(stdout), 0o644); err != nil {
				t.Fatal(err)
			}
			code, stdout, _ := run(t, "policy", "matrix", "-f", manifest, "-expect", file)
			if code != exitReady || !strings.Contains(stdout, " cells, 0 differ from ") {
				t.Errorf("%s, %s: code %d\n%s", manifest, format, code, stdout)
			}
		}
	}
}

// TestExamples: the examples mean what their table says.
func TestExamples(t *testing.T) {
	code, stdout, stderr := run(t, "policy", "matrix", "-f", "../../examples/policies.yaml", "../../examples/pods.yaml", "-expect", "../../examples/expected.txt")
	if code != exitReady {
		t.Errorf("code %d\n%s%s", code, stdout, stderr)
	}
}

func TestExpectationMistakes(t *testing.T) {
	for text, want := range map[string]string{
		"a b 80/TCP\n":                     `t:1: "a b 80/TCP" is not FROM TO PORT allow|deny`,
		"\n# c\na b 80 maybe\n":            `t:3: "maybe" is not allow or deny`,
		"a b 80/XCP deny\n":                `t:1: read port "80/XCP"`,
		`[{"from":"a","to":"b","port":1}]`: `t: cell a b 1/: "" is not allow or deny`,
		"[{]":                              "t:1: invalid character",
		"\ufeffa b 80/TCP\n":               `t:1: "a b 80/TCP" is not FROM`,
		"\ufeff[{\"verdict\": \"x\"}]":     `t: cell`,
		`[{"port":"80"}]`:                  "t:1: port: a string cannot stand here",
		"[7]":                              "t:1: is a number, want cells",
		"80/TCP\nfrom \\ to  a\n":          `t:1: "80/TCP" is not`,
	} {
		if _, err := parseExpectation("t", []byte(text)); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

func TestSelectors(t *testing.T) {
	const all = "den/thief shop/api shop/coffee-1 shop/coffee-2"
	for selector, want := range map[string]string{
		"shop": "shop/api shop/coffee-1 shop/coffee-2", "shop/*": "shop/api shop/coffee-1 shop/coffee-2", "shop/coffee-*": "shop/coffee-1 shop/coffee-2",
		"app=coffee": "den/thief shop/coffee-1 shop/coffee-2", "shop/app=coffee": "shop/coffee-1 shop/coffee-2", "shop/api": "shop/api",
		"den/proxy": "den/proxy", "app in (api)": "shop/api", "example.com/key!=x": all, "*": all, "shop/api,den/thief": "shop/api den/thief", "den,10.244.2.6,shop/api": "den/thief shop/api", "app in (api,coffee)": all, "*/*": all, "10.244.2.6": "den/thief", "203.0.113.7": "203.0.113.7",
	} {
		code, stdout, stderr := run(t, "policy", "matrix", "-f", "testdata/offline/shop.yaml", "-ports", "80", "-to", "shop/api", "-o", "list", "-from", selector)
		var got []string
		for line := range strings.Lines(stdout) {
			got = append(got, strings.Fields(line)[0])
		}
		if code != exitReady || strings.Join(got, " ") != want {
			t.Errorf("%s: %q, want %q\n%s", selector, got, want, stderr)
		}
	}
}

func TestPolicyUsage(t *testing.T) {
	tests := []struct {
		args, stderr string
		code         int
	}{
		{"", "Usage:", 2},
		{"matrices", "Usage:", 2},
		{"matrix", "name manifests with -f", 2},
		{"matrix -h", "default those that the policies name", 0},
		{"matrix -f /nowhere", "no such file", 2},
		{"matrix -f ../../examples/policies.yaml", "nobody is asked about; policies read, without a mistake: ", 0},
		{"matrix -f ../../examples/policies.yaml -o json", "nobody is asked about", 0},
		{"matrix -f ../../examples/policies.yaml -from shop", "no pod, and no workload", 2},
		{"matrix -f ../../examples/policies.yaml -expect ../../examples/expected.txt", "no pod, and no workload", 2},
		{"matrix -f testdata/offline/dual.yaml -from 10.0.0.1 -to default/six -expect testdata/offline/expected.txt", "there is no cell to compare", 2},
		{"matrix -f testdata/offline/dual.yaml -from 10.0.0.1 -to default/six -o json -expect testdata/offline/expected.txt", "there is no cell to compare", 2},
		{"matrix -f testdata/offline/shop.yaml -from shop,,den", "has an empty part", 2},
		{"matrix -f testdata/offline/shop.yaml -o yaml", "-o yaml: write table, list, json", 2},
		{"matrix -f testdata/offline/shop.yaml -ports 80/ICMP", "its protocol is TCP, UDP or SCTP", 2},
		{"matrix -f testdata/offline/shop.yaml -pod-cidr x", "-pod-cidr x", 2},
		{"matrix -f testdata/offline/shop.yaml -n a.b", "-n a.b", 2},
		{"matrix -f testdata/offline/shop.yaml -expect /nowhere", "read expectation", 2},
		{"matrix -f testdata/offline/shop.yaml -expect x -o list", "-expect prints what differs", 2},
		{"check -f testdata/offline/shop.yaml -from a/b", "name both ends", 2},
		{"check -f testdata/offline/shop.yaml -from a/b -to c/d", "name the port", 2},
	}
	for _, tt := range tests {
		code, _, stderr := run(t, append([]string{"policy"}, strings.Fields(tt.args)...)...)
		if code != tt.code || !strings.Contains(stderr, tt.stderr) {
			t.Errorf("kith policy %s: code %d, want %d, stderr:\n%s\nlacks %q", tt.args, code, tt.code, stderr, tt.stderr)
		}
	}
	if code, stdout, _ := run(t, "policy", "help"); code != 0 || !strings.Contains(stdout, "who reaches whom") {
		t.Errorf("help: %d %s", code, stdout)
	}
}

// full is a disk without room.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, syscall.ENOSPC }

// TestFullDisk: what could not be written is no success.
func TestFullDisk(t *testing.T) {
	for _, args := range []string{
		"matrix -f testdata/offline/shop.yaml", "matrix -f testdata/offline/shop.yaml -o list", "matrix -f testdata/offline/shop.yaml -o json",
		"matrix -f testdata/offline/shop.yaml -expect testdata/offline/expected.txt", "matrix -f ../../examples/policies.yaml -o json",
		"check -f testdata/offline/shop.yaml -from shop/api -to den/thief -port 80", "check -f testdata/offline/shop.yaml -from shop/api -to den/thief -port 80 -o json",
	} {
		var stderr strings.Builder
		c := console{out: full{}, err: &stderr, name: "kith"}
		if code := c.policy(strings.Fields(args)); code != exitUsage || !strings.Contains(stderr.String(), "no space left on device") {
			t.Errorf("kith policy %s: code %d\n%s", args, code, stderr.String())
		}
	}
}
