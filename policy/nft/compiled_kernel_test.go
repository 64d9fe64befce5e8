//go:build kernel

package nft

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/kithnet/kith/policy"
	"github.com/kithnet/kith/policy/ruleset"
	"github.com/vishvananda/netns"
)

func (l *lab) input(c policy.Cluster) ruleset.Input {
	return ruleset.Input{Pods: c.Pods, Namespaces: c.Namespaces, Policies: c.Policies, Attachments: l.attachments(), Network: l.network()}
}

// printed is the table as the nft tool shows it, after it has read it back from there as well.
func printed(t testing.TB, ns netns.NsHandle) string {
	t.Helper()
	shown := nftTool(t, ns, "", "--stateless", "list", "ruleset")
	again := newNamespace(t)
	nftTool(t, again, shown, "-f", "-")
	if diff := cmp.Diff(shown, nftTool(t, again, "", "--stateless", "list", "ruleset")); diff != "" {
		t.Errorf("the print loads to another print:\n%s", diff)
	}
	return shown
}

func TestCompiledRulesetsPrintAndLoad(t *testing.T) {
	l := newLab(t, Shared())
	seed := fromEnv(t, "KITH_SEED", int(time.Now().Unix()))
	for i := range fromEnv(t, "KITH_CLUSTERS", 8) {
		r := chance{rand.New(rand.NewPCG(uint64(seed+i), 2))}
		want := ruleset.Compile(l.input(r.cluster(l)))
		converge(t, l.table, want)
		sameRuleset(t, l.table, want)
		shown := printed(t, l.router.ns)
		other := newNamespace(t)
		nftTool(t, other, want.String(), "-f", "-")
		sameRuleset(t, openTable(t, other, Shared()), want)
		if t.Failed() {
			t.Fatalf("KITH_SEED=%d KITH_CLUSTERS=1\n%s", seed+i, shown)
		}
	}
}

// TestGoldenRulesets takes the compiler's golden files by the tool's hands and gives them back.
func TestGoldenRulesets(t *testing.T) {
	nftTool(t, newNamespace(t), "", "--version")
	files, err := filepath.Glob("../ruleset/testdata/*.nft")
	must(t, "find golden files", err)
	if len(files) == 0 {
		t.Fatal("the compiler's golden files are not here")
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			golden, err := os.ReadFile(file)
			must(t, "read", err)
			byTool, byUs := newNamespace(t), newNamespace(t)
			nftTool(t, byTool, string(golden), "-f", "-")
			converge(t, openTable(t, byUs, Shared()), mustRead(t, openTable(t, byTool, Shared())))
			if diff := cmp.Diff(string(golden), textOf(t, byUs)); diff != "" {
				t.Errorf("what came back (+) is not the golden file (-):\n%s", diff)
			}
			printed(t, byUs)
		})
	}
}

func textOf(t testing.TB, ns netns.NsHandle) string {
	t.Helper()
	have := mustRead(t, openTable(t, ns, Shared()))
	return have.String()
}

// TestEventsReachTheKernel follows the compiler event by event, without ever reading between.
func TestEventsReachTheKernel(t *testing.T) {
	l := newLab(t)
	seed := fromEnv(t, "KITH_SEED", int(time.Now().Unix()))
	r := chance{rand.New(rand.NewPCG(uint64(seed), 3))}
	c := ruleset.NewCompiler()
	mustRead(t, l.table)
	for i := range 150 {
		r.event(l, c)
		tx := c.Commit()
		if err := l.table.Apply(t.Context(), tx); err != nil {
			t.Fatalf("KITH_SEED=%d, event %d: %v\n%s", seed, i, err, tx)
		}
		if i%10 == 0 {
			sameRuleset(t, l.table, c.Ruleset())
		}
		if t.Failed() {
			t.Fatalf("KITH_SEED=%d, event %d\n%s", seed, i, tx)
		}
	}
	sameRuleset(t, l.table, c.Ruleset())
}

// event is something that happens to a cluster.
func (r chance) event(l *lab, c *ruleset.Compiler) {
	now := r.cluster(l)
	pod := pick(r, now.Pods...)
	attachment := pick(r, l.attachments()...)
	switch r.IntN(12) {
	case 0:
		c.DeletePod(pod.Key())
	case 1:
		c.DeletePolicy(policy.Name{Namespace: pick(r, "even", "odd", ""), Name: pick(r, "policy0", "policy1", "policy2")})
	case 2:
		c.DeleteAttachment(attachment.Interface)
	case 3:
		c.ReplacePolicies(now.Policies)
	case 4:
		c.SetNetwork(l.network())
	case 5:
		c.ReplacePods(now.Pods)
	case 6, 7:
		c.PutAttachment(attachment)
	case 8:
		c.PutNamespace(pick(r, now.Namespaces...))
	case 9:
		c.PutPod(pod)
	default:
		c.PutPolicy(pick(r, now.Policies...))
	}
}
