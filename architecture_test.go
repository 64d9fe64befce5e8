// Package kith_test holds the rules of the house: who imports whom, what pure means, and how large things may be.
package kith_test

import (
	"go/ast"
	"path"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/kithnet/kith/"

// rule is what a package of the product may do.
type rule struct {
	// pure packages have no clock, sockets, processes, files or goroutines, and know nothing that has.
	pure bool
	// imports are the packages of the product it may import; one that ends in /... stands for all below it, too.
	imports []string
}

// house has every package of the product. A package that is not here is not drawn in ARCHITECTURE.md either.
var house = map[string]rule{
	"identity":                    {pure: true},
	"identity/announce":           {imports: []string{"identity"}},
	"identity/kube":               {imports: []string{"identity"}},
	"overlay":                     {pure: true},
	"overlay/disk":                {imports: []string{"overlay"}},
	"overlay/gossip":              {imports: []string{"overlay"}},
	"overlay/kube":                {imports: []string{"overlay"}},
	"overlay/path":                {pure: true},
	"overlay/preshared":           {pure: true, imports: []string{"overlay"}},
	"overlay/rotation":            {pure: true, imports: []string{"overlay"}},
	"overlay/probe":               {imports: []string{"overlay/path"}},
	"overlay/wireguard":           {imports: []string{"overlay"}},
	"overlay/wireguard/userspace": {imports: []string{"overlay"}},
	"policy":                      {pure: true, imports: []string{"identity"}},
	"policy/dns":                  {pure: true, imports: []string{"policy"}},
	"policy/dns/tap":              {imports: []string{"policy/dns"}},
	"policy/kube":                 {imports: []string{"identity", "policy"}},
	"policy/random":               {imports: []string{"identity", "policy"}},
	"policy/matrix":               {pure: true, imports: []string{"identity", "policy"}},
	"policy/nft":                  {imports: []string{"policy/ruleset"}},
	"policy/ruleset":              {pure: true, imports: []string{"identity", "policy"}},
	"policy/ruleset/walk":         {pure: true, imports: []string{"identity", "policy", "policy/ruleset"}},
	"policy/conntrack":            {pure: true},
	"policy/conntrack/kernel":     {imports: []string{"policy/conntrack"}},
	"cni":                         {pure: true},
	"cni/client":                  {imports: []string{"cni"}},
	"cni/conflist":                {imports: []string{"cni"}},
	"cni/firewall":                {},
	"cni/ipam":                    {imports: []string{"cni"}},
	"cni/pending":                 {imports: []string{"cni"}},
	"cni/server":                  {imports: []string{"cni"}},
	"cni/veth":                    {imports: []string{"cni"}},
	"cmd/kith":                    {imports: []string{"identity", "policy", "policy/matrix", "cmd/kith/manifest", "cmd/kith/status"}},
	"cmd/kith/manifest":           {imports: []string{"deploy", "identity", "identity/kube", "overlay", "overlay/kube", "policy", "policy/kube", "policy/matrix"}},
	"cmd/kith/status":             {pure: true},
	"cmd/kith-agent":              {imports: []string{"identity/...", "overlay/...", "policy/...", "cni/...", "cmd/kith/status", "cmd/kith-agent/config", "deploy"}},
	"cmd/kith-agent/config":       {},
	"cmd/kith-cni":                {imports: []string{"cni", "cni/client", "cni/pending"}},
	"cmd/kith-wireguard":          {imports: []string{"overlay/wireguard", "overlay/wireguard/userspace", "cmd/kith-agent/config"}},
}

// impure are imports that a pure package may not have; those that end in / stand for all below.
var impure = []string{
	"os", "os/exec", "os/signal", "net/http", "net/rpc", "syscall", "runtime", "log", "log/slog", "math/rand", "math/rand/v2",
	"sync", "sync/atomic", "golang.org/x/sync/", "golang.org/x/sys/", "k8s.io/client-go/", "k8s.io/api/", "sigs.k8s.io/",
	"github.com/vishvananda/", "github.com/google/nftables/", "github.com/mdlayher/", "github.com/hashicorp/", "golang.zx2c4.com/",
	"github.com/containernetworking/plugins/",
}

// pureNames are what a pure package may use of packages that also hold sockets or the clock. An absent package may
// be used whole.
var pureNames = map[string][]string{
	"net":  {"IP", "IPNet", "IPMask", "CIDRMask", "HardwareAddr", "ParseMAC", "IPv4len", "IPv6len"},
	"time": {"Time", "Duration", "Nanosecond", "Microsecond", "Millisecond", "Second", "Minute", "Hour", "RFC3339", "RFC3339Nano", "Unix", "UnixMilli", "Date", "UTC", "Month"},
}

func TestImports(t *testing.T) {
	for _, f := range productFiles(t) {
		r, known := house[f.dir]
		if !known {
			t.Errorf("%s: package %s is not in the house: add it to architecture_test.go and draw it in ARCHITECTURE.md", f.name, f.dir)
			continue
		}
		for _, imported := range f.imports() {
			own, isOwn := strings.CutPrefix(imported, module)
			switch {
			case isOwn && !allowed(own, r.imports):
				t.Errorf("%s: %s may not import %s", f.name, f.dir, own)
			case r.pure && isOwn && !house[own].pure:
				t.Errorf("%s: %s is pure, %s is not", f.name, f.dir, own)
			case r.pure && !isOwn && matches(imported, impure):
				t.Errorf("%s: %s is pure and may not import %s", f.name, f.dir, imported)
			}
		}
	}
}

// allowed tells whether a package is in a list of imports.
func allowed(pkg string, list []string) bool {
	return slices.ContainsFunc(list, func(entry string) bool {
		below, all := strings.CutSuffix(entry, "/...")
		return pkg == below || all && strings.HasPrefix(pkg, below+"/")
	})
}

func matches(pkg string, list []string) bool {
	return slices.ContainsFunc(list, func(entry string) bool {
		return pkg == strings.TrimSuffix(entry, "/") || strings.HasSuffix(entry, "/") && strings.HasPrefix(pkg, entry)
	})
}

func TestPurePackagesTouchNothing(t *testing.T) {
	for _, f := range productFiles(t) {
		if !house[f.dir].pure {
			continue
		}
		ast.Inspect(f.syntax, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.GoStmt:
				t.Errorf("%s: %s is pure and may not start goroutines", f.at(n), f.dir)
			case *ast.SelectorExpr:
				pkg, isPackage := n.X.(*ast.Ident)
				if !isPackage || pkg.Obj != nil || !slices.Contains(f.imports(), pkg.Name) {
					return true
				}
				if names, limited := pureNames[pkg.Name]; limited && !slices.Contains(names, n.Sel.Name) {
					t.Errorf("%s: %s is pure and may not use %s.%s", f.at(n), f.dir, pkg.Name, n.Sel.Name)
				}
			}
			return true
		})
	}
}

func TestEdgesKnowOnlyTheirCore(t *testing.T) {
	for dir, r := range house {
		if r.pure || strings.HasPrefix(dir, "cmd/") {
			continue
		}
		for _, imported := range r.imports {
			if !house[imported].pure {
				t.Errorf("%s may import %s, an edge: only cmd joins edges", dir, imported)
			}
		}
	}
}

func TestHouseIsDrawn(t *testing.T) {
	drawing := readFile(t, "ARCHITECTURE.md")
	seen := map[string]bool{}
	for _, f := range productFiles(t) {
		seen[f.dir] = true
	}
	for dir := range house {
		// The walker's package may come and go with its tests.
		if !seen[dir] && dir != "policy/ruleset/walk" {
			t.Errorf("%s is in the house and not in the repository", dir)
		}
		if seen[dir] && !strings.Contains(drawing, dir) {
			t.Errorf("ARCHITECTURE.md does not draw %s", dir)
		}
	}
}

func TestNamesOfPackages(t *testing.T) {
	for _, f := range goFiles(t) {
		for _, bad := range []string{"pkg", "util", "utils", "common", "helpers", "misc"} {
			if slices.Contains(strings.Split(f.dir, "/"), bad) {
				t.Errorf("%s: a package %s says nothing", f.name, bad)
			}
		}
		if name := f.syntax.Name.Name; !f.isTest && f.dir != "deploy/test" && name != "main" && name != path.Base(f.dir) {
			t.Errorf("%s: package %s is in folder %s", f.name, name, f.dir)
		}
	}
}
