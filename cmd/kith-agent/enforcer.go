package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/kithnet/kith/cmd/kith/status"
	"github.com/kithnet/kith/policy/ruleset"
)

// table is the kernel's side of the ruleset.
type table interface {
	Read(context.Context) (ruleset.Ruleset, error)
	Apply(context.Context, ruleset.Transaction) error
}

// update is one thing that happened: it changes the compiler's input. Who waits for it to be in the kernel gives
// done, which is closed after the first write after which settled says yes.
type update struct {
	change  func(*ruleset.Compiler)
	settled func(*ruleset.Compiler) bool
	done    chan<- struct{}
	gone    <-chan struct{} // closed when nobody waits any more
	last    bool            // with this one, the input is complete
}

// enforcer keeps the kernel's table as the compiler wants it. One goroutine, run, owns the compiler; all others send
// it updates. Until every source of input has synced it keeps a table that is there already as it is, so that a restart,
// also one without an API server, leaves the last good rules alone. They need no file: what ends them ends the pods, too.
type enforcer struct {
	log      *slog.Logger
	table    table
	updates  chan update
	inbox    inbox                                        // what became of objects of the API
	woken    chan struct{}                                // signals that there is something in the inbox
	foreign  <-chan struct{}                              // somebody else changed the table
	complete chan struct{}                                // closed when the compiler has had all input once
	moved    func()                                       // told after each attempt to write
	listen   func(map[netip.Addr]ruleset.Listener)        // told after each write, before those who wait for it
	remind   func(context.Context, func(set string) bool) // told of the learned sets that may have lost what pods were told
	compiler *ruleset.Compiler
	waiting  []update
	unknown  bool            // what the kernel holds must be read before the next write
	found    ruleset.Ruleset // the table at the start, until the input is complete

	mu      sync.Mutex
	current enforcement
	proved  []ruleset.Proof // before this agent
}

// enforcement is what the enforcer tells about itself.
type enforcement struct {
	Enforcing bool // the kernel holds what all of the input asks for
	Apply     status.Apply
	Counts    ruleset.Counts
}

const (
	// batch bounds how many updates are taken before a write, so that a storm cannot put off a waiting pod.
	batch = 4096
	// firstRetry and lastRetry space attempts after the kernel refused a write.
	firstRetry = 50 * time.Millisecond
	lastRetry  = 5 * time.Second
)

func newEnforcer(log *slog.Logger, t table) *enforcer {
	return &enforcer{
		log: log, table: t, complete: make(chan struct{}),
		updates: make(chan update, batch), woken: make(chan struct{}, 1), compiler: ruleset.NewCompiler(), moved: func() {},
		listen: func(map[netip.Addr]ruleset.Listener) {}, remind: func(context.Context, func(string) bool) {},
	}
}

// Update hands in a change of the input and returns at once, unless the queue is full.
func (e *enforcer) Update(change func(*ruleset.Compiler)) { e.updates <- update{change: change} }

// Put hands in what became of an object of the API, for what was handed in of it before and not taken yet. It returns at
// once.
func (e *enforcer) Put(object any, change func(*ruleset.Compiler)) {
	e.inbox.put(object, change)
	nudge(e.woken)
}

// Complete says that with the updates handed in so far the input is complete. It is called once. It goes through the
// same queue as they do: an incomplete input must never be written.
func (e *enforcer) Complete() { e.updates <- update{change: func(*ruleset.Compiler) {}, last: true} }

// Await hands in a change and returns when the kernel holds what settled asks for, or ctx ends.
func (e *enforcer) Await(ctx context.Context, change func(*ruleset.Compiler), settled func(*ruleset.Compiler) bool) error {
	done := make(chan struct{})
	select {
	case e.updates <- update{change: change, settled: settled, done: done, gone: ctx.Done()}:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Enforcement says where the enforcer stands.
func (e *enforcer) Enforcement() enforcement {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.current
}

func (e *enforcer) run(ctx context.Context) error {
	if err := e.begin(ctx); err != nil {
		return err
	}
	delay := time.Duration(0)
	var retry <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case u := <-e.updates:
			e.take(u)
		case <-e.woken:
			e.take(update{change: func(*ruleset.Compiler) {}})
		case _, open := <-e.foreign:
			if !open && ctx.Err() == nil {
				return errors.New("the kernel's notices about the table ended")
			}
			e.unknown = true
		case <-retry:
		}
		if !isClosed(e.complete) {
			if err := e.hold(ctx); err != nil {
				return err
			}
			continue
		}
		if err := e.write(ctx); err != nil {
			delay = min(max(2*delay, firstRetry), lastRetry)
			retry = time.After(delay)
			continue
		}
		delay, retry = 0, nil
	}
}

// begin takes the table as it is found. A node that has none becomes a closed one before anything else happens on it.
func (e *enforcer) begin(ctx context.Context) error {
	have, err := e.table.Read(ctx)
	if err != nil {
		return fmt.Errorf("read table: %w", err)
	}
	e.found = have
	if len(have.Chains) > 0 {
		e.keepProofs(have.Proofs())
		return nil
	}
	e.found = ruleset.NewCompiler().Ruleset()
	if err := e.table.Apply(ctx, ruleset.Diff(have, e.found)); err != nil {
		return fmt.Errorf("write closed table: %w", err)
	}
	return nil
}

// keepProofs goes on with what was proved before this agent: until its own probes know better, a restart changes nothing.
func (e *enforcer) keepProofs(all []ruleset.Proof) {
	e.compiler.SetProved(all)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.proved = all
}

// Proved is what was proved before this agent.
func (e *enforcer) Proved() []ruleset.Proof {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.proved
}

// hold undoes, while the input is not complete, what somebody else has changed: the table as it was found is the last
// policy that this node knows.
func (e *enforcer) hold(ctx context.Context) error {
	if !e.unknown {
		return nil
	}
	have, err := e.table.Read(ctx)
	if err != nil {
		return fmt.Errorf("read table: %w", err)
	}
	e.unknown = false
	transaction := ruleset.Diff(have, e.found)
	if transaction.Empty() {
		return nil
	}
	if err := e.table.Apply(ctx, transaction); err != nil {
		return fmt.Errorf("write table as it was found: %w", err)
	}
	return nil
}

// take applies an update and those that queue behind it, each with what is in the inbox: who waits for an update may count on
// what was handed in before.
func (e *enforcer) take(u update) {
	for n := 1; ; n++ {
		e.inbox.drain(e.compiler)
		u.change(e.compiler)
		if u.last {
			e.unknown, e.found = true, ruleset.Ruleset{}
			close(e.complete)
		}
		if u.done != nil {
			e.waiting = append(e.waiting, u)
		}
		if n == batch {
			return
		}
		select {
		case u = <-e.updates:
		default:
			return
		}
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// write brings the kernel to what the compiler wants: by the compiler's own difference, or, where the kernel's state
// is not known, by reading it.
func (e *enforcer) write(ctx context.Context) error {
	begin := time.Now()
	transaction, lost := e.compiler.Commit(), made
	var err error
	if e.unknown {
		lost = every
		transaction, err = e.difference(ctx)
	}
	if err == nil && !transaction.Empty() {
		err = e.table.Apply(ctx, transaction)
	}
	if err != nil && !errors.Is(err, context.Canceled) {
		e.log.Error("ruleset not applied", "error", err)
	}
	e.unknown = err != nil
	e.record(transaction, begin, err)
	e.moved()
	if err == nil {
		e.listen(e.compiler.Listeners())
		e.release()
		if sets := lost(transaction); sets != nil {
			e.remind(ctx, sets)
		}
	}
	return err
}

// made are the sets that a transaction makes for pods to be told what belongs there, if there are any.
func made(t ruleset.Transaction) func(string) bool {
	names := map[string]bool{}
	for _, spec := range t.AddSets {
		if spec.Learned {
			names[spec.Name] = true
		}
	}
	if len(names) == 0 {
		return nil
	}
	return func(set string) bool { return names[set] }
}

// every set may have lost what it held, when somebody else was at the table: what is learned is not read.
func every(ruleset.Transaction) func(string) bool { return func(string) bool { return true } }

func (e *enforcer) difference(ctx context.Context) (ruleset.Transaction, error) {
	have, err := e.table.Read(ctx)
	if err != nil {
		return ruleset.Transaction{}, fmt.Errorf("read table: %w", err)
	}
	return ruleset.Diff(have, e.compiler.Ruleset()), nil
}

func (e *enforcer) record(t ruleset.Transaction, begin time.Time, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.current.Enforcing = err == nil
	e.current.Counts = e.compiler.Counts()
	apply := &e.current.Apply
	apply.Error = ""
	if err != nil {
		apply.Error = err.Error()
		return
	}
	if t.Empty() {
		return
	}
	apply.At, apply.Duration = begin, time.Since(begin)
	apply.Transactions++
	apply.Writes += uint64(t.Size())
}

// release tells those whose change is in the kernel.
func (e *enforcer) release() {
	still := e.waiting[:0]
	for _, u := range e.waiting {
		select {
		case <-u.gone:
			continue
		default:
		}
		if u.settled(e.compiler) {
			close(u.done)
			continue
		}
		still = append(still, u)
	}
	clear(e.waiting[len(still):])
	e.waiting = still
}
