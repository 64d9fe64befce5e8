package nft

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/nftables"
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

// learn adds, deletes and adds again: to add what is there does not, in all kernels, begin its time anew, and to delete
// what is not there fails.
func (p *Pupil) learn(elements []ruleset.ElementChange, lifetime time.Duration) error {
	for _, e := range elements {
		set := &nftables.Set{Table: p.table, Name: e.Set, HasTimeout: true}
		element := []nftables.SetElement{{Key: []byte(e.Key.Low), Timeout: lifetime}}
		if err := errors.Join(p.conn.SetAddElements(set, element), p.conn.SetDeleteElements(set, element), p.conn.SetAddElements(set, element)); err != nil {
			return err
		}
	}
	err := p.conn.Flush()
	var f *failure
	if errors.As(err, &f) && f.cause == nil {
		return f.refused[0].errno
	}
	return err
}
