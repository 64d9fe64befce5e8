package nft

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/kithnet/kith/policy/ruleset"
)

// heldFor is how long the kernel remembers where a connection was open.
const heldFor = time.Hour

// Pupil puts what pods were told into the sets that learn, beside the Table that keeps all else, whose socket it shares: a
// batch of either goes at a time, in the kernel, too. One goroutine may use it at a time.
type Pupil struct {
	conn   *nftables.Conn
	socket *socket
	table  *nftables.Table
}

// atOnce is how many elements one message takes.
const atOnce = 256

// Learn adds elements, each for so long, from now on. They are there when it returns without an error; with one, those of
// a set that could not take all of its own may not be, and those of all other sets are.
func (p *Pupil) Learn(ctx context.Context, elements map[ruleset.ElementChange]time.Duration) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	bySet := map[string][]nftables.SetElement{}
	for e, lifetime := range elements {
		bySet[e.Set] = append(bySet[e.Set], learned(e, lifetime))
	}
	var failed []error
	for name, some := range bySet {
		if err := p.write(name, some, p.anew); err != nil {
			failed = append(failed, fmt.Errorf("add %d elements to set %s: %w", len(some), name, err))
		}
	}
	return errors.Join(failed...)
}

// Forget deletes elements. They are gone when it returns, and so they may have been before, by time or with their set.
func (p *Pupil) Forget(elements []ruleset.ElementChange) error {
	bySet := map[string][]nftables.SetElement{}
	for _, e := range elements {
		bySet[e.Set] = append(bySet[e.Set], learned(e, heldFor))
	}
	var failed []error
	for name, some := range bySet {
		if err := p.write(name, some, p.without); err != nil && !errors.Is(err, unix.ENOENT) {
			failed = append(failed, fmt.Errorf("delete %d elements of set %s: %w", len(some), name, err))
		}
	}
	return errors.Join(failed...)
}

func learned(e ruleset.ElementChange, lifetime time.Duration) nftables.SetElement {
	return nftables.SetElement{Key: []byte(e.Key.Low), Timeout: lifetime}
}

// write does something to elements of one set, some at a time, until it fails.
func (p *Pupil) write(name string, elements []nftables.SetElement, do func(*nftables.Set, []nftables.SetElement) error) error {
	set := &nftables.Set{Table: p.table, Name: name, HasTimeout: true}
	for some := range slices.Chunk(elements, atOnce) {
		err := do(set, some)
		if err == nil {
			err = p.flush()
		}
		if err != nil {
			p.conn, _ = encoder(p.socket)
			return err
		}
	}
	return nil
}

// anew adds, deletes and adds again: to add what is there does not, in all kernels, begin its time anew.
func (p *Pupil) anew(set *nftables.Set, elements []nftables.SetElement) error {
	return errors.Join(p.without(set, elements), p.conn.SetAddElements(set, elements))
}

// without adds before it deletes: to delete what is not there fails.
func (p *Pupil) without(set *nftables.Set, elements []nftables.SetElement) error {
	return errors.Join(p.conn.SetAddElements(set, elements), p.conn.SetDeleteElements(set, elements))
}

func (p *Pupil) flush() error {
	err := p.conn.Flush()
	var f *failure
	if errors.As(err, &f) && f.cause == nil {
		return f.refused[0].errno
	}
	return err
}
