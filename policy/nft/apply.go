package nft

import (
	"context"
	"errors"
	"fmt"

	"github.com/kithnet/kith/policy/ruleset"
	"golang.org/x/sys/unix"
)

// errUnread is what Apply says when it does not know the table: at first, and after an error.
var errUnread = errors.New("the table must be read first")

// Apply writes a transaction: at once if it fits one batch, else in the order of stages. An empty one writes
// nothing. After an error nothing, or of a cut transaction a part, has been written: read, compare, apply again.
func (t *Table) Apply(ctx context.Context, tx ruleset.Transaction) error {
	if tx.Empty() {
		return nil
	}
	if err := t.apply(ctx, tx); err != nil {
		t.sets = nil
		return fmt.Errorf("write table %s: %w", ruleset.Table, err)
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
	w := writer{table: t, batch: &t.batch, limit: t.limit}
	w.begin()
	if err := w.whole(ctx, tx); err != nil {
		return err
	}
	if w.batch.size() <= t.limit {
		return w.flush(ctx)
	}
	w.begin()
	for _, s := range stages(tx, t.sets) {
		if err := w.stage(ctx, s); err != nil {
			return err
		}
	}
	return w.flush(ctx)
}

// writer puts the parts of a transaction into batches.
type writer struct {
	table *Table
	batch *batch
	limit int
}

// begin starts the first batch.
func (w *writer) begin() {
	w.batch.reset()
	if w.table.replace {
		w.batch.table()
		w.batch.deleteTable()
		w.batch.table()
	}
}

// whole puts everything into one batch. Within one the order matters only for references: what refers to a thing
// comes after the thing is made, and goes before it is deleted.
func (w *writer) whole(ctx context.Context, tx ruleset.Transaction) error {
	uncut := *w
	uncut.limit = int(^uint(0) >> 1)
	s := stage{sets: byUse(tx.AddSets), chains: tx.AddChains, rules: tx.SetRules, deleteChains: tx.DeleteChains, deleteSets: tx.DeleteSets}
	s.changes = make([]change, 0, len(tx.DeleteElements)+len(tx.AddElements))
	for _, e := range tx.DeleteElements {
		s.changes = append(s.changes, change{delete: true, ElementChange: e})
	}
	for _, e := range tx.AddElements {
		s.changes = append(s.changes, change{ElementChange: e})
	}
	return uncut.stage(ctx, s)
}

// stage writes one stage, beginning a new batch whenever the last is full.
func (w *writer) stage(ctx context.Context, s stage) error {
	if err := w.structure(ctx, s); err != nil {
		return err
	}
	for i, c := range s.changes {
		if i == 0 || !c.tied {
			if err := w.makeRoom(ctx); err != nil {
				return err
			}
		}
		if err := w.change(c); err != nil {
			return err
		}
	}
	w.batch.closeList()
	for _, c := range s.rules {
		if err := w.rules(ctx, c); err != nil {
			return err
		}
	}
	return w.deletions(ctx, s)
}

func (w *writer) structure(ctx context.Context, s stage) error {
	if len(s.sets)+len(s.chains) > 0 {
		w.batch.table()
	}
	for _, set := range s.sets {
		if err := w.makeRoom(ctx); err != nil {
			return err
		}
		w.batch.addSet(set)
	}
	for _, c := range s.chains {
		if err := w.makeRoom(ctx); err != nil {
			return err
		}
		if err := w.batch.addChain(c); err != nil {
			return err
		}
	}
	return nil
}

func (w *writer) change(c change) error {
	spec, ok := w.table.sets[c.Set]
	if !ok {
		return fmt.Errorf("there is no set %s", c.Set)
	}
	if n := keyLen(spec.Key); len(c.Key.Low) != n || spec.Interval && len(c.Key.High) != n {
		return fmt.Errorf("set %s: a key has %d and %d bytes, not %d", c.Set, len(c.Key.Low), len(c.Key.High), n)
	}
	typ := uint16(unix.NFT_MSG_NEWSETELEM)
	if c.delete {
		typ = unix.NFT_MSG_DELSETELEM
	}
	w.batch.element(typ, spec, c.ElementChange)
	return nil
}

// rules sets the whole contents of a chain. It is never cut.
func (w *writer) rules(ctx context.Context, c ruleset.Chain) error {
	if err := w.makeRoom(ctx); err != nil {
		return err
	}
	w.batch.flushChain(c.Name)
	for _, rule := range c.Rules {
		if err := w.batch.addRule(c.Name, rule, w.table.sets); err != nil {
			return err
		}
	}
	return nil
}

// deletions empties the chains first, since they may refer to each other and to the sets, whose elements may refer
// to chains.
func (w *writer) deletions(ctx context.Context, s stage) error {
	for _, step := range []struct {
		names []string
		do    func(string)
	}{{s.deleteChains, w.batch.flushChain}, {s.deleteSets, w.batch.deleteSet}, {s.deleteChains, w.batch.deleteChain}} {
		for _, name := range step.names {
			if err := w.makeRoom(ctx); err != nil {
				return err
			}
			step.do(name)
		}
	}
	return nil
}

// makeRoom sends the batch if it is full.
func (w *writer) makeRoom(ctx context.Context) error {
	if w.batch.size() < w.limit {
		return nil
	}
	if err := w.flush(ctx); err != nil {
		return err
	}
	w.batch.reset()
	return nil
}

// flush sends the batch.
func (w *writer) flush(ctx context.Context) error {
	if len(w.batch.messages) == 0 {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	w.batch.finish()
	refused, err := w.table.socket.transact(w.batch)
	if err != nil {
		return err
	}
	if len(refused) > 0 {
		return w.explain(refused)
	}
	w.table.replace = false
	return nil
}

// explain makes an error of what the kernel refused. The first refusal tells why; those behind it often follow.
func (w *writer) explain(refused []refusal) error {
	f := refused[0]
	more := ""
	if len(refused) > 1 {
		more = fmt.Sprintf(", and %d more", len(refused)-1)
	}
	if f.detail != "" {
		more = ": " + f.detail + more
	}
	if f.index < 0 || f.index >= len(w.batch.messages) {
		return fmt.Errorf("commit %d messages: %w%s", len(w.batch.messages), f.errno, more)
	}
	msg := w.batch.messages[f.index]
	if msg.rule != nil {
		return fmt.Errorf("%s %s: %s: %w%s", msg.verb, msg.name, msg.rule, f.errno, more)
	}
	return fmt.Errorf("%s %s%s: %w%s", msg.verb, msg.name, w.elementAt(msg, f.offset), f.errno, more)
}

// elementAt names the element that lies at an offset of a message.
func (w *writer) elementAt(msg message, offset int) string {
	spec, ok := w.table.sets[msg.name]
	at := msg.start + offset
	if !ok || offset == 0 || at >= len(w.batch.b) || msg.verb != verbAddElement && msg.verb != verbDeleteElement {
		return ""
	}
	elem := attributes(w.batch.b[at:])
	if len(elem) == 0 || elem[0].typ != unix.NFTA_LIST_ELEM {
		return ""
	}
	return " element " + keyText(spec, parseElement(spec, elem[0].data).key)
}
