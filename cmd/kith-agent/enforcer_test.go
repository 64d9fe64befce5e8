package main

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/kithnet/kith/cni"
	"github.com/kithnet/kith/identity"
	"github.com/kithnet/kith/policy"
	"github.com/kithnet/kith/policy/ruleset"
)

// memoryTable is a table that holds what Apply gave it. It does what the kernel does with a transaction: all or nothing.
type memoryTable struct {
	mu     sync.Mutex
	have   ruleset.Ruleset
	writes int
	refuse error
}

func (m *memoryTable) Read(context.Context) (ruleset.Ruleset, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.have, nil
}

func (m *memoryTable) Apply(_ context.Context, t ruleset.Transaction) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.refuse != nil {
		return m.refuse
	}
	m.writes++
	m.have = applied(m.have, t)
	return nil
}

// applied is the ruleset that a transaction makes of another.
func applied(have ruleset.Ruleset, t ruleset.Transaction) ruleset.Ruleset {
	next := ruleset.Ruleset{Sets: map[string]*ruleset.Set{}, Chains: map[string]*ruleset.Chain{}}
	if !t.Replace {
		for name, s := range have.Sets {
			next.Sets[name] = &ruleset.Set{SetSpec: s.SetSpec, Elements: maps.Clone(s.Elements)}
		}
		for name, c := range have.Chains {
			next.Chains[name] = &ruleset.Chain{ChainSpec: c.ChainSpec, Rules: slices.Clone(c.Rules)}
		}
	}
	for _, spec := range t.AddSets {
		next.Sets[spec.Name] = &ruleset.Set{SetSpec: spec, Elements: map[ruleset.Key]ruleset.Value{}}
	}
	for _, spec := range t.AddChains {
		next.Chains[spec.Name] = &ruleset.Chain{ChainSpec: spec}
	}
	for _, e := range t.DeleteElements {
		delete(next.Sets[e.Set].Elements, e.Key)
	}
	for _, e := range t.AddElements {
		next.Sets[e.Set].Elements[e.Key] = e.Value
	}
	for _, c := range t.SetRules {
		next.Chains[c.Name].Rules = c.Rules
	}
	for _, name := range t.DeleteChains {
		delete(next.Chains, name)
	}
	for _, name := range t.DeleteSets {
		delete(next.Sets, name)
	}
	return next
}

func (m *memoryTable) count() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.writes
}

func (m *memoryTable) setRefuse(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.refuse = err
}

var testAttachment = cni.Attachment{
	Key: cni.Key{ContainerID: "c1", IfName: "eth0"}, Pod: cni.Pod{Namespace: "shop", Name: "api", UID: "u1"},
	HostInterface: "kith-0123456789", PodMAC: cni.MAC{2, 0, 0, 0, 0, 1}, Addresses: []netip.Addr{netip.MustParseAddr("10.244.1.5")},
}

func putInput(c *ruleset.Compiler) {
	c.SetNetwork(ruleset.Network{Node: "n1", Nodes: []policy.Node{{Name: "n1", PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")}}}})
	c.PutNamespace(identity.Namespace{Name: "shop"})
	c.PutPolicy(policy.Policy{Namespace: "shop", Name: "deny-all", Subject: labels.Everything(), Ingress: &policy.Rules{}})
}

func putPod(c *ruleset.Compiler) {
	c.PutPod(identity.Pod{Namespace: "shop", Name: "api", UID: "u1"})
}

func startEnforcer(t *testing.T, table *memoryTable) (*enforcer, chan struct{}) {
	t.Helper()
	foreign := make(chan struct{}, 1)
	e := newEnforcer(slog.New(slog.DiscardHandler), table)
	e.foreign = foreign
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- e.run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	return e, foreign
}

// TestNodeIsClosedFirstAndStaysSo holds that an agent which only starts and ends leaves a closed node, and that the next
// one which does so changes nothing.
func TestNodeIsClosedFirstAndStaysSo(t *testing.T) {
	ended, end := context.WithCancel(t.Context())
	end()
	table := &memoryTable{}
	for range 2 {
		if err := newEnforcer(slog.New(slog.DiscardHandler), table).run(ended); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(ruleset.NewCompiler().Ruleset().String(), table.have.String()); diff != "" || table.count() != 1 {
			t.Errorf("%d writes, table (-want +got):\n%s", table.count(), diff)
		}
	}
}

// TestADDWaitsForPolicy holds that an attachment opens only when its pod is known and its policy is in the table.
func TestADDWaitsForPolicy(t *testing.T) {
	table := &memoryTable{}
	e, _ := startEnforcer(t, table)
	e.Update(putInput)
	opened := make(chan error, 1)
	go func() { opened <- gate{enforcer: e}.Open(t.Context(), testAttachment) }()
	assertWaits(t, opened, "before the input is complete")
	e.Complete()
	assertWaits(t, opened, "before the pod is known")
	e.Update(putPod)
	if err := <-opened; err != nil {
		t.Fatalf("Open: %v", err)
	}
	have, _ := table.Read(t.Context())
	if len(have.Sets[ruleset.SetPods4].Elements) != 1 || len(have.Sets["ingress4"].Elements) != 1 {
		t.Errorf("opened without the pod's own policy:\n%s", have)
	}
	if err := (gate{enforcer: e}).Check(t.Context(), testAttachment); err != nil {
		t.Errorf("Check: %v", err)
	}
	if err := (gate{enforcer: e}).Close(t.Context(), testAttachment); err != nil {
		t.Errorf("Close: %v", err)
	}
	if have, _ = table.Read(t.Context()); len(have.Sets[ruleset.SetPods4].Elements) != 0 {
		t.Errorf("closed, and still open:\n%s", have)
	}
	if (gate{enforcer: e}).Check(t.Context(), testAttachment) == nil {
		t.Error("Check of a closed attachment finds nothing")
	}
}

func assertWaits(t *testing.T, c <-chan error, when string) {
	t.Helper()
	select {
	case err := <-c:
		t.Fatalf("opened %s (error %v)", when, err)
	case <-time.After(50 * time.Millisecond):
	}
}

// TestRestartWritesNothing holds that an agent which finds the table as it should be does not write.
func TestRestartWritesNothing(t *testing.T) {
	table := &memoryTable{have: compiled()}
	e, foreign := startEnforcer(t, table)
	e.Update(func(c *ruleset.Compiler) {
		putInput(c)
		putPod(c)
		c.PutAttachment(attachment(testAttachment))
	})
	e.Complete()
	foreign <- struct{}{}
	if err := e.Await(t.Context(), func(*ruleset.Compiler) {}, func(*ruleset.Compiler) bool { return true }); err != nil {
		t.Fatal(err)
	}
	if n := table.count(); n != 0 {
		t.Errorf("%d writes", n)
	}
	if got := e.Enforcement(); !got.Enforcing || got.Apply.Transactions != 0 {
		t.Errorf("enforcement: %+v", got)
	}
}

// TestNothingIsWrittenBeforeInputIsComplete holds that a table of before stays while the API server is away.
func TestNothingIsWrittenBeforeInputIsComplete(t *testing.T) {
	table := &memoryTable{have: compiled()}
	e, foreign := startEnforcer(t, table)
	e.Update(putInput)
	foreign <- struct{}{}
	if err := (gate{enforcer: e}).Close(t.Context(), testAttachment); err != nil {
		t.Fatal(err)
	}
	time.Sleep(20 * time.Millisecond)
	if diff := cmp.Diff(compiled().String(), table.have.String()); diff != "" || table.count() != 0 {
		t.Errorf("%d writes (-want +got):\n%s", table.count(), diff)
	}
}

func compiled() ruleset.Ruleset {
	c := ruleset.NewCompiler()
	putInput(c)
	putPod(c)
	c.PutAttachment(attachment(testAttachment))
	return c.Ruleset()
}

// TestRefusedWriteIsRepaired holds that after an error the table is read and the whole difference written.
func TestRefusedWriteIsRepaired(t *testing.T) {
	table := &memoryTable{}
	e, _ := startEnforcer(t, table)
	e.Update(putInput)
	e.Update(putPod)
	e.Complete()
	await := func() error {
		return e.Await(t.Context(), func(*ruleset.Compiler) {}, func(*ruleset.Compiler) bool { return true })
	}
	if err := await(); err != nil {
		t.Fatal(err)
	}
	table.setRefuse(errors.New("no memory"))
	opened := make(chan error, 1)
	go func() { opened <- gate{enforcer: e}.Open(t.Context(), testAttachment) }()
	for e.Enforcement().Apply.Error == "" {
		time.Sleep(time.Millisecond)
	}
	assertWaits(t, opened, "though the table refused the write")
	table.setRefuse(nil)
	if err := <-opened; err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(compiled().String(), table.have.String()); diff != "" {
		t.Errorf("table (-want +got):\n%s", diff)
	}
}

// TestForeignChangeIsUndone holds that a table changed by somebody else is brought back by event.
func TestForeignChangeIsUndone(t *testing.T) {
	table := &memoryTable{}
	e, foreign := startEnforcer(t, table)
	e.Update(putInput)
	e.Complete()
	if err := e.Await(t.Context(), func(*ruleset.Compiler) {}, func(*ruleset.Compiler) bool { return true }); err != nil {
		t.Fatal(err)
	}
	table.mu.Lock()
	want := table.have.String()
	table.have = ruleset.Ruleset{}
	table.mu.Unlock()
	before := table.count()
	foreign <- struct{}{}
	for table.count() == before {
		time.Sleep(time.Millisecond)
	}
	if diff := cmp.Diff(want, table.have.String()); diff != "" {
		t.Errorf("table (-want +got):\n%s", diff)
	}
}

// TestTableIsHeldBeforeInputIsComplete holds that while the API server is away, a table stays what it was when the agent
// started, and a node that had none stays closed, whatever others do to it.
func TestTableIsHeldBeforeInputIsComplete(t *testing.T) {
	closed := ruleset.NewCompiler().Ruleset()
	for name, c := range map[string]struct{ found, want ruleset.Ruleset }{
		"a table": {compiled(), compiled()}, "none": {ruleset.Ruleset{}, closed},
	} {
		t.Run(name, func(t *testing.T) {
			table := &memoryTable{have: c.found}
			e, foreign := startEnforcer(t, table)
			e.Update(putInput)
			foreign <- struct{}{}
			foreign <- struct{}{} // there is room for it when the first was taken: the table has been found
			for _, wrong := range []ruleset.Ruleset{{}, without(c.want)} {
				table.mu.Lock()
				table.have = wrong
				table.mu.Unlock()
				foreign <- struct{}{}
				table.awaits(t, c.want)
			}
		})
	}
}

// without is a ruleset whose chains are empty.
func without(r ruleset.Ruleset) ruleset.Ruleset {
	out := ruleset.Ruleset{Sets: r.Sets, Chains: map[string]*ruleset.Chain{}}
	for name, c := range r.Chains {
		out.Chains[name] = &ruleset.Chain{ChainSpec: c.ChainSpec}
	}
	return out
}

func (m *memoryTable) awaits(t *testing.T, want ruleset.Ruleset) {
	t.Helper()
	for began := time.Now(); ; time.Sleep(time.Millisecond) {
		have, _ := m.Read(t.Context())
		diff := cmp.Diff(want.String(), have.String())
		if diff == "" {
			return
		}
		if time.Since(began) > time.Minute {
			t.Fatalf("table (-want +got):\n%s", diff)
		}
	}
}
