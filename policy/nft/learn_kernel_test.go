//go:build kernel

package nft

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/kithnet/kith/identity"
	"github.com/kithnet/kith/policy"
	"github.com/kithnet/kith/policy/ruleset"
	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/labels"
)

// onlyNamed lets a pod reach a port of what a domain stands for, and nothing else.
func onlyNamed(pod string, d policy.Domain, ports ...policy.Port) policy.Policy {
	all := func(cidr string) policy.Peer {
		return policy.Peer{Block: &policy.Block{CIDR: netip.MustParsePrefix(cidr)}}
	}
	return policy.Policy{
		Tier: policy.Admin, Name: "named", Namespaces: labels.Everything(), Subject: parse("app=" + pod),
		Egress: &policy.Rules{
			{Peers: []policy.Peer{{Domains: []policy.Domain{d}}}, AllPorts: len(ports) == 0, Ports: ports},
			{Action: policy.Deny, Peers: []policy.Peer{all("0.0.0.0/0"), all("::/0")}, AllPorts: true},
		},
	}
}

func lasting(told []ruleset.ElementChange, lifetime time.Duration) map[ruleset.ElementChange]time.Duration {
	out := map[ruleset.ElementChange]time.Duration{}
	for _, e := range told {
		out[e] = lifetime
	}
	return out
}

// TestNamesAreLearned: what a pod was told it reaches, at the ports of the rule; when that is over, no new connection
// opens and the open ones go on, whatever agent comes next; when no rule names the domain any more, they end.
func TestNamesAreLearned(t *testing.T) {
	families(t, func(t *testing.T, family int) {
		l := newLab(t)
		l.serve()
		pod, remote := l.pods[0].end, l.remotes[0]
		l.under(onlyNamed("pod0", "*.example", port(identity.TCP, 8090), port(identity.TCP, ports[0])))
		told := []ruleset.ElementChange{ruleset.Told("*.example", pod.addresses[family], remote.addresses[family])}
		learn := func(lifetime time.Duration) {
			must(t, "learn", l.table.Pupil().Learn(t.Context(), lasting(told, lifetime)))
		}
		open := l.between(pod, remote, family, identity.TCP, ports[0])
		reaches := func(when string, f flow, want bool) {
			t.Helper()
			if wrong := l.mismatches([]flow{f}, func(flow) bool { return want }); len(wrong) > 0 {
				t.Errorf("%s: %s reaches its end: %t", when, f, !want)
			}
		}
		reaches("before it was told", open, false)
		learn(time.Hour)
		learn(time.Hour)
		reaches("told twice", open, true)
		must(t, "forget", l.table.Pupil().Forget(slices.Concat(told, []ruleset.ElementChange{ruleset.Told("gone.example", pod.addresses[family], remote.addresses[family])})))
		must(t, "forget again", l.table.Pupil().Forget(told))
		reaches("forgotten", open, false)
		learn(time.Hour)
		reaches("another port", l.between(pod, remote, family, identity.TCP, ports[1]), false)
		reaches("another pod of that name", l.between(pod, l.remotes[1], family, identity.TCP, ports[0]), false)
		l.table.conn.DelTable(l.table.kernel)
		must(t, "delete table", l.table.conn.Flush())
		l.under(onlyNamed("pod0", "*.example", port(identity.TCP, 8090), port(identity.TCP, ports[0])))
		reaches("when others emptied the table", open, false)
		learn(time.Hour)
		reaches("told again", open, true)
		c := l.call(l.between(pod, remote, family, identity.TCP, 8090))
		learn(50 * time.Millisecond)
		for over := time.Now().Add(late); time.Now().Before(over) && len(l.mismatches([]flow{open}, func(flow) bool { return false })) > 0; {
		}
		reaches("when it is over", open, false)
		l.wantCarried(c, "when it is over", true)
		wanted := mustRead(t, l.table)
		must(t, "end the agent", l.table.Close())
		l.table = openTable(t, l.router.ns)
		if tx := ruleset.Diff(mustRead(t, l.table), wanted); !tx.Empty() {
			t.Errorf("the next agent would write\n%s", tx)
		}
		l.wantCarried(c, "under the next agent", true)
		l.under(onlyNamed("pod0", "other.example"))
		l.wantCarried(c, "when no rule names it", false)
	})
}

// TestLearningIsNoForeignChange, but what others do to a set is.
func TestLearningIsNoForeignChange(t *testing.T) {
	l := newLab(t, Shared())
	l.under(onlyNamed("pod0", "a.example"))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	changes := l.table.Watch(ctx)
	told := []ruleset.ElementChange{ruleset.Told("a.example", l.pods[0].addresses[0], l.remotes[0].addresses[0])}
	must(t, "learn", l.table.Pupil().Learn(t.Context(), lasting(told, time.Hour)))
	select {
	case <-changes:
		t.Error("what was learned is told as a change by others")
	case <-time.After(soon):
	}
	must(t, "learn", openTable(t, l.router.ns, Shared()).Pupil().Learn(t.Context(), lasting(told, time.Hour)))
	select {
	case <-changes:
	case <-time.After(late):
		t.Error("what another process put into a set was not noticed")
	}
}

// TestFullSetDeniesNothing: where the kernel has no room to remember what is open, what a pod was told it reaches all the
// same, and what is remembered goes on.
func TestFullSetDeniesNothing(t *testing.T) {
	families(t, func(t *testing.T, family int) {
		l := newLab(t)
		l.serve()
		pod := l.pods[0].end
		l.under(onlyNamed("pod0", "*.example", port(identity.TCP, 8090), port(identity.TCP, ports[0])))
		pupil := l.table.Pupil()
		told := func(to end) []ruleset.ElementChange {
			return []ruleset.ElementChange{ruleset.Told("*.example", pod.addresses[family], to.addresses[family])}
		}
		must(t, "learn", pupil.Learn(t.Context(), lasting(told(l.remotes[0]), time.Hour)))
		c := l.call(l.between(pod, l.remotes[0], family, identity.TCP, 8090))
		fill(t, pupil, ruleset.Told("*.example", pod.addresses[family], pod.addresses[family]))
		must(t, "learn", pupil.Learn(t.Context(), lasting(told(l.remotes[1]), time.Hour)))
		reached := l.between(pod, l.remotes[1], family, identity.TCP, ports[0])
		if wrong := l.mismatches([]flow{reached}, func(flow) bool { return true }); len(wrong) > 0 {
			t.Errorf("%s does not reach what it was told when the set is full", reached)
		}
		must(t, "forget", pupil.Forget(told(l.remotes[0])))
		l.wantCarried(c, "when it is over", true)
	})
}

// fill puts addresses that nobody has into the set of open connections beside a set of told ones, until it takes no more.
func fill(t *testing.T, p *Pupil, like ruleset.ElementChange) {
	t.Helper()
	like.Set = strings.Replace(like.Set, "told", "held", 1)
	pod, next := like.Key.Low[:len(like.Key.Low)/2], netip.MustParseAddr("198.18.0.0")
	if len(pod) == 16 {
		next = netip.MustParseAddr("2001:2::")
	}
	for _, chunk := range []int{1000, 1} {
		for done := 0; ; done += chunk {
			var elements []nftables.SetElement
			for range chunk {
				like.Key.Low = pod + string(next.AsSlice())
				elements, next = append(elements, learned(like, time.Hour)), next.Next()
			}
			must(t, "fill", p.conn.SetAddElements(&nftables.Set{Table: p.table, Name: like.Set, HasTimeout: true}, elements))
			err := p.flush()
			if errors.Is(err, unix.ENFILE) {
				break
			}
			must(t, "fill", err)
			if done > 2*ruleset.LearnedSize {
				t.Fatalf("set %s is never full", like.Set)
			}
		}
		p.conn, _ = encoder(p.socket)
	}
}

// TestFullSetKeepsNothingFromOthers: what one domain's set has no room for, no other set misses.
func TestFullSetKeepsNothingFromOthers(t *testing.T) {
	table := openTable(t, newNamespace(t))
	pod, rest := netip.MustParseAddr("10.244.1.5"), netip.MustParseAddr("203.0.113.7")
	full, others := ruleset.Told("full.example", pod, rest), []ruleset.ElementChange{}
	for i := range 20 { // whichever is written first
		others = append(others, ruleset.Told(policy.Domain(fmt.Sprintf("x%d.example", i)), pod, rest))
	}
	want := ruleset.Ruleset{Sets: map[string]*ruleset.Set{}, Chains: map[string]*ruleset.Chain{}}
	for _, e := range append(others, full) {
		spec := ruleset.SetSpec{Name: e.Set, Key: []ruleset.Type{ruleset.TypeIPv4Addr, ruleset.TypeIPv4Addr}, Learned: true}
		want.Sets[e.Set] = &ruleset.Set{SetSpec: spec}
	}
	converge(t, table, want)
	holds := func(e ruleset.ElementChange) int {
		lists, err := table.reader.dump(unix.NFT_MSG_GETSETELEM,
			named(unix.NFTA_SET_ELEM_LIST_TABLE, ruleset.Table), named(unix.NFTA_SET_ELEM_LIST_SET, e.Set))
		must(t, "list", err)
		// While the kernel makes a set's table larger or smaller, its walk may come to an element twice (rhashtable.c).
		keys := map[string]bool{}
		for _, b := range lists {
			for _, held := range parseElements(want.Sets[e.Set].SetSpec, b) {
				keys[held.key.Low] = true
			}
		}
		return len(keys)
	}
	fill := map[ruleset.ElementChange]time.Duration{}
	for i := range ruleset.LearnedSize {
		fill[ruleset.Told("full.example", pod, netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}))] = time.Hour
	}
	must(t, "fill", table.Pupil().Learn(t.Context(), fill))
	must(t, "learn what is there", table.Pupil().Learn(t.Context(), fill))
	if n := holds(full); n != ruleset.LearnedSize {
		t.Fatalf("the full set holds %d elements", n)
	}
	err := table.Pupil().Learn(t.Context(), lasting(append(others, full), time.Hour))
	if !errors.Is(err, unix.ENFILE) || !strings.Contains(err.Error(), full.Set) || strings.Contains(err.Error(), others[0].Set) {
		t.Errorf("learned into a full set: %v", err)
	}
	for _, e := range others {
		if n := holds(e); n != 1 {
			t.Errorf("set %s holds %d elements, want 1", e.Set, n)
		}
	}
}
