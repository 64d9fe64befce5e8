package nft

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/nftables"
	"github.com/kithnet/kith/policy/ruleset"
)

// errUnread is what Apply says when it does not know the table: at first, and after an error.
var errUnread = errors.New("the table must be read first")

// Apply writes a transaction: at once if it fits one batch, or would without its new sets, which then come before it, and
// without the sets of chains in which most changes; else in the order of stages. An empty one writes nothing. After an error nothing, or of a cut transaction a part, has
// been written: read, compare, apply again.
func (t *Table) Apply(ctx context.Context, tx ruleset.Transaction) error {
	if tx.Empty() {
		return nil
	}
	if err := t.apply(ctx, tx); err != nil {
		t.sets = nil
		return fmt.Errorf("write table %s: %w", ruleset.Table, errors.Join(err, t.encode()))
	}
	for _, name := range tx.DeleteSets {
		delete(t.sets, name)
	}
	return nil
}

func (t *Table) apply(ctx context.Context, tx ruleset.Transaction) error {
	if t.sets == nil {
		return errUnread
	}
	if t.replace = t.replace || tx.Replace; t.replace {
		clear(t.sets)
	}
	for _, s := range tx.AddSets {
		t.sets[s.Name] = s
	}
	w := writer{Table: t}
	if t.replace {
		t.conn.AddTable(t.kernel)
		t.conn.DelTable(t.kernel)
		t.conn.AddTable(t.kernel)
	}
	if sizeOf(tx) <= t.limit {
		return w.whole(ctx, tx)
	}
	// A table that is replaced must begin with the chains that close it.
	if !t.replace {
		if parts, ok := apart(tx, t.sets, t.limit); ok {
			return w.parts(ctx, parts)
		}
	}
	for _, s := range stages(tx, t.sets) {
		if err := w.stage(ctx, s); err != nil {
			return err
		}
	}
	return w.flush(ctx)
}

// writer puts the parts of a transaction into batches.
type writer struct {
	*Table
	size int // of the batch, about
	// list are elements of one set that are added or deleted together: in one message, which the kernel finds the set
	// for only once.
	list     []nftables.SetElement
	listSize int
	listOf   change
}

// whole puts everything into one batch. Within one the order matters only for references: what refers to a thing
// comes after the thing is made, and goes before it is deleted.
func (w *writer) whole(ctx context.Context, tx ruleset.Transaction) error {
	s := stage{sets: byUse(tx.AddSets), chains: tx.AddChains, rules: tx.SetRules, deleteChains: tx.DeleteChains, deleteSets: tx.DeleteSets}
	s.changes = make([]change, 0, len(tx.DeleteElements)+len(tx.AddElements))
	for _, e := range tx.DeleteElements {
		s.changes = append(s.changes, change{delete: true, ElementChange: e})
	}
	for _, e := range tx.AddElements {
		s.changes = append(s.changes, change{ElementChange: e})
	}
	if err := w.stage(ctx, s); err != nil {
		return err
	}
	return w.flush(ctx)
}

// parts writes what is apart from a transaction before and after it.
func (w *writer) parts(ctx context.Context, p parts) error {
	for _, s := range p.before {
		if err := w.stage(ctx, s); err != nil {
			return err
		}
		if err := w.flush(ctx); err != nil {
			return err
		}
	}
	if err := w.whole(ctx, p.tx); err != nil {
		return err
	}
	if err := w.stage(ctx, p.after); err != nil {
		return err
	}
	return w.flush(ctx)
}

// stage writes one stage, beginning a new batch whenever the last is full.
func (w *writer) stage(ctx context.Context, s stage) error {
	if err := w.structure(ctx, s); err != nil {
		return err
	}
	for i, c := range s.changes {
		size := sizeOfElement(c.ElementChange)
		if i == 0 || !c.tied {
			if err := w.makeRoom(ctx, size); err != nil {
				return err
			}
		}
		if err := w.change(c, size); err != nil {
			return err
		}
	}
	if err := w.closeList(); err != nil {
		return err
	}
	for _, c := range s.rules {
		if err := w.rules(ctx, c); err != nil {
			return err
		}
	}
	return w.deletions(ctx, s)
}

func (w *writer) structure(ctx context.Context, s stage) error {
	if len(s.sets)+len(s.chains) > 0 {
		w.conn.AddTable(w.kernel)
	}
	for _, spec := range s.sets {
		if err := w.makeRoom(ctx, sizeOfSet); err != nil {
			return err
		}
		set, err := kernelSet(w.kernel, spec)
		if err != nil {
			return err
		}
		if err := w.conn.AddSet(set, nil); err != nil {
			return fmt.Errorf("create set %s: %w", spec.Name, err)
		}
	}
	for _, spec := range s.chains {
		if err := w.makeRoom(ctx, sizeOfChain); err != nil {
			return err
		}
		chain, err := kernelChain(w.kernel, spec)
		if err != nil {
			return err
		}
		w.conn.AddChain(chain)
	}
	return nil
}

func (w *writer) change(c change, size int) error {
	spec, ok := w.sets[c.Set]
	if !ok {
		return fmt.Errorf("there is no set %s", c.Set)
	}
	if n := keyLen(spec.Key); len(c.Key.Low) != n || spec.Interval && len(c.Key.High) != n {
		return fmt.Errorf("set %s: a key has %d and %d bytes, not %d", c.Set, len(c.Key.Low), len(c.Key.High), n)
	}
	if w.listOf.Set != c.Set || w.listOf.delete != c.delete || w.listSize+size > maxList {
		if err := w.closeList(); err != nil {
			return err
		}
	}
	w.list, w.listOf = appendElement(w.list, spec, c), c
	w.listSize += size
	return nil
}

// closeList ends the message that elements were put into. Every other message must wait for it.
func (w *writer) closeList() error {
	if len(w.list) == 0 {
		return nil
	}
	set, write := &nftables.Set{Table: w.kernel, Name: w.listOf.Set}, w.conn.SetAddElements
	if w.listOf.delete {
		write = w.conn.SetDeleteElements
	}
	err := write(set, w.list)
	w.list, w.listSize = w.list[:0], 0
	return err
}

// rules sets the whole contents of a chain. It is never cut.
func (w *writer) rules(ctx context.Context, c ruleset.Chain) error {
	if err := w.makeRoom(ctx, sizeOfRules(c)); err != nil {
		return err
	}
	chain := &nftables.Chain{Table: w.kernel, Name: c.Name}
	w.conn.FlushChain(chain)
	for _, r := range c.Rules {
		rule, err := kernelRule(chain, r, w.sets)
		if err != nil {
			return err
		}
		w.conn.AddRule(rule)
	}
	return nil
}

// deletions empties the chains first, since they may refer to each other and to the sets, whose elements may refer
// to chains.
func (w *writer) deletions(ctx context.Context, s stage) error {
	flushChain := func(name string) { w.conn.FlushChain(&nftables.Chain{Table: w.kernel, Name: name}) }
	deleteChain := func(name string) { w.conn.DelChain(&nftables.Chain{Table: w.kernel, Name: name}) }
	deleteSet := func(name string) { w.conn.DelSet(&nftables.Set{Table: w.kernel, Name: name}) }
	for _, step := range []struct {
		names []string
		do    func(string)
	}{{s.deleteChains, flushChain}, {s.deleteSets, deleteSet}, {s.deleteChains, deleteChain}} {
		for _, name := range step.names {
			if err := w.makeRoom(ctx, sizeOfDeletion); err != nil {
				return err
			}
			step.do(name)
		}
	}
	return nil
}

// makeRoom sends the batch if it would be too full with so much more.
func (w *writer) makeRoom(ctx context.Context, size int) error {
	if w.size > 0 && w.size+size > w.limit {
		if err := w.flush(ctx); err != nil {
			return err
		}
	}
	w.size += size
	return nil
}

// flush sends the batch.
func (w *writer) flush(ctx context.Context) error {
	w.size = 0
	if err := errors.Join(ctx.Err(), w.closeList()); err != nil {
		return err
	}
	if err := w.conn.Flush(); err != nil {
		return w.explain(err)
	}
	w.replace = false
	return nil
}
