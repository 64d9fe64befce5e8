package nft

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/kithnet/kith/policy/ruleset"
)

// heldFor is how long the kernel remembers where a connection was open.
const heldFor = time.Hour

// Pupil puts what pods were told into the sets that learn, beside the Table that keeps all else: on a socket of its own,
// of which Watch knows, too. One goroutine may use it at a time.
type Pupil struct {
	conn   *nftables.Conn
	socket *socket
	table  *nftables.Table
}

// Learn adds elements, each for so long, from now on. They are there when it returns.
func (p *Pupil) Learn(ctx context.Context, elements []ruleset.ElementChange, lifetime time.Duration) error {
	if len(elements) == 0 || ctx.Err() != nil {
		return ctx.Err()
	}
	if err := p.learn(elements, lifetime); err != nil {
		p.conn, _ = encoder(p.socket)
		return fmt.Errorf("add %d elements to set %s and others: %w", len(elements), elements[0].Set, err)
	}
	return nil
}

// learn adds, deletes and adds again: to add what is there does not, in all kernels, begin its time anew.
func (p *Pupil) learn(elements []ruleset.ElementChange, lifetime time.Duration) error {
	for _, e := range elements {
		set, element := p.element(e, lifetime)
		if err := errors.Join(p.without(set, element), p.conn.SetAddElements(set, element)); err != nil {
			return err
		}
	}
	return p.flush()
}

// Forget deletes elements. They are gone when it returns, and so they may have been before, by time or with their set.
func (p *Pupil) Forget(elements []ruleset.ElementChange) error {
	bySet := map[string][]ruleset.ElementChange{}
	for _, e := range elements {
		bySet[e.Set] = append(bySet[e.Set], e)
	}
	var failed []error
	for name, some := range bySet {
		if err := p.forget(some); err != nil && !errors.Is(err, unix.ENOENT) {
			p.conn, _ = encoder(p.socket)
			failed = append(failed, fmt.Errorf("delete %d elements of set %s: %w", len(some), name, err))
		}
	}
	return errors.Join(failed...)
}

func (p *Pupil) forget(elements []ruleset.ElementChange) error {
	for _, e := range elements {
		if err := p.without(p.element(e, heldFor)); err != nil {
			return err
		}
	}
	return p.flush()
}

func (p *Pupil) element(e ruleset.ElementChange, lifetime time.Duration) (*nftables.Set, []nftables.SetElement) {
	return &nftables.Set{Table: p.table, Name: e.Set, HasTimeout: true}, []nftables.SetElement{{Key: []byte(e.Key.Low), Timeout: lifetime}}
}

// without adds before it deletes: to delete what is not there fails.
func (p *Pupil) without(set *nftables.Set, element []nftables.SetElement) error {
	return errors.Join(p.conn.SetAddElements(set, element), p.conn.SetDeleteElements(set, element))
}

func (p *Pupil) flush() error {
	err := p.conn.Flush()
	var f *failure
	if errors.As(err, &f) && f.cause == nil {
		return f.refused[0].errno
	}
	return err
}
