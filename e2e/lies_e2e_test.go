//go:build e2e

package e2e

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// trusted is what a node's status says of the mesh and of whom it did not believe.
type trusted struct {
	Node  string
	Peers []struct {
		Node, PublicKey, Endpoint string
		AllowedIPs                []string
	}
	Refused []refusal
	Gossip  struct{ Unheard []refusal }

	Problems []string
}

type refusal struct {
	Node, Cause string
	Count       uint64
}

// all is how many records of a node were heard and refused, or not heard.
func (s trusted) all(node string) (n uint64) {
	for _, r := range append(s.Refused, s.Gossip.Unheard...) {
		if r.Node == node || r.Cause == "socket-full" || r.Cause == "queue-full" {
			n += r.Count
		}
	}
	return n
}

func (s trusted) mesh() string {
	slices.SortFunc(s.Peers, func(a, b struct {
		Node, PublicKey, Endpoint string
		AllowedIPs                []string
	}) int {
		return strings.Compare(a.Node+a.PublicKey, b.Node+b.PublicKey)
	})
	text, _ := json.Marshal(s.Peers)
	return string(text)
}

func (s trusted) count(node, cause string) (n uint64) {
	for _, r := range s.Refused {
		if r.Node == node && r.Cause == cause {
			n += r.Count
		}
	}
	return n
}

func statusOf(ctx context.Context, t *testing.T, pod string) trusted {
	t.Helper()
	var s trusted
	out := kubectl(ctx, t, "-n", "kith-system", "exec", pod, "-c", "agent", "--", "/kith", "status", "-local", "-o", "json")
	var wrapped struct{ Nodes []struct{ Report trusted } }
	if err := json.Unmarshal([]byte(out), &wrapped); err == nil && len(wrapped.Nodes) > 0 {
		return wrapped.Nodes[0].Report
	}
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		t.Fatalf("status: %v: %s", err, out)
	}
	return s
}

const flood = 100_000

// TestNoMemberCanLie: one node's own valid credentials (its keys, its token, the gossip key) in the hands of a liar move
// nothing of another node, whatever is tried: another's name, claim, key and address, an old epoch, a bent signature, a
// flood of records, another's Node object. Each lie is counted by those who heard it.
func TestNoMemberCanLie(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	liar, pod, victim := agentOfOneNode(ctx, t)
	listeners := map[string]string{}
	fields := strings.Fields(kubectl(ctx, t, "-n", "kith-system", "get", "pods", "-l", "app.kubernetes.io/name=kith", "-o",
		`jsonpath={range .items[*]}{.spec.nodeName} {.metadata.name} {end}`))
	for i := 0; i+1 < len(fields); i += 2 {
		if fields[i] != liar {
			listeners[fields[i]] = fields[i+1]
		}
	}
	before := map[string]trusted{}
	for node, pod := range listeners {
		before[node] = statusOf(ctx, t, pod)
	}
	config := agentConfig(ctx, t, "--bound-object-kind", "Pod", "--bound-object-name", pod)
	for _, key := range []string{"signing-public-key", "claim"} {
		args := append([]string{"--kubeconfig", config}, merge(victim, `{"annotations":{"kith.network/`+key+`":"x"}}`)...)
		if out, err := shared.Kubectl(ctx, args...); err == nil {
			t.Errorf("%s of another's Node written with the liar's token: %s", key, out)
		}
	}
	lie(ctx, t, liar, victim, listeners)
	for node, pod := range listeners {
		l := hearer{node: node, liar: liar, victim: victim, before: before[node], sent: uint64(flood / len(listeners))}
		after := l.listened(ctx, t, pod)
		if l.before.mesh() != after.mesh() {
			t.Errorf("%s: the mesh moved:\n%s\n%s", node, l.before.mesh(), after.mesh())
		}
		t.Logf("%s refused: %v, unheard: %v", node, after.Refused, after.Gossip.Unheard)
		for _, missing := range l.missing(after) {
			t.Errorf("%s: %s", node, missing)
		}
	}
}

// hearer is a node that was lied to.
type hearer struct {
	node, liar, victim string
	before             trusted
	sent               uint64 // records in the flood
}

// listened waits until a node has counted all lies, or would have: it works off what waits in its socket, and what the
// kernel dropped there it learns with a later packet.
func (l hearer) listened(ctx context.Context, t *testing.T, pod string) trusted {
	t.Helper()
	for began := time.Now(); ; time.Sleep(time.Second) {
		if after := statusOf(ctx, t, pod); len(l.missing(after)) == 0 || time.Since(began) > time.Minute {
			return after
		}
	}
}

// missing is what a node has not counted.
func (l hearer) missing(after trusted) (all []string) {
	if heard := after.all(l.liar) - l.before.all(l.liar); heard < l.sent {
		all = append(all, fmt.Sprintf("of %d records that were sent in the flood, %d are counted", l.sent, heard))
	}
	for _, want := range []struct{ name, cause string }{
		{l.liar, "bad-signature"}, {l.liar, "not-its-wireguard-key"}, {l.liar, "old-epoch"}, {l.liar, "version"}, {l.liar, "too-many"},
		{l.victim, "bad-signature"}, {l.victim, "wrong-address"}, {"", "unknown-node"},
	} {
		// A node takes no part in what is said about itself.
		if l.node != want.name && after.count(want.name, want.cause) <= l.before.count(want.name, want.cause) {
			all = append(all, fmt.Sprintf("%s of %q is not counted", want.cause, want.name))
		}
	}
	return all
}

// lie runs the liar with the credentials of its node.
func lie(ctx context.Context, t *testing.T, liar, victim string, listeners map[string]string) {
	t.Helper()
	type who struct{ Name, UID, Address, Claim string }
	person := func(node string) who {
		get := func(path string) string { return kubectl(ctx, t, "get", "node", node, "-o", "jsonpath="+path) }
		return who{
			Name: node, UID: get("{.metadata.uid}"), Claim: get(`{.metadata.annotations.kith\.network/claim}`),
			Address: get(`{.status.addresses[?(@.type=="InternalIP")].address}`),
		}
	}
	read := func(file string) []string {
		text, err := shared.ExecRun(liar, "cat", "/var/lib/kith/"+file)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Fields(text)
	}
	var targets []string
	for node := range listeners {
		targets = append(targets, person(node).Address+":7950")
	}
	secret := kubectl(ctx, t, "-n", "kith-system", "get", "secret", "kith-gossip", "-o", "jsonpath={.data.key}")
	gossipKey, err := base64.StdEncoding.DecodeString(secret)
	if err != nil {
		t.Fatal(err)
	}
	job, err := json.Marshal(map[string]any{
		"Targets": targets, "GossipKey": strings.Fields(string(gossipKey))[0], "Signing": read("signing.key")[0],
		"Lanes": read("wireguard.keys")[1:3], "Own": person(liar), "Victim": person(victim), "Flood": flood / len(targets),
	})
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), "liar")
	build := exec.CommandContext(ctx, "go", "test", "-c", "-vet=off", "-tags", "e2e", "-o", program, "./overlay/gossip")
	build.Dir = filepath.Dir(shared.builder.Module)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the liar: %v: %s", err, out)
	}
	// The member's own address is what it is counted under.
	run := exec.CommandContext(ctx, "nsenter", "--net=/run/netns/"+liar, program, "-test.run", "^TestLiarInACluster$", "-test.v")
	run.Env = append(os.Environ(), "KITH_LIAR="+string(job))
	if out, err := run.CombinedOutput(); err != nil {
		t.Fatalf("the liar: %v: %s", err, out)
	}
}
