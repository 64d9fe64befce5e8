// Package tap hears what name servers answer to pods, before the pods do.
//
// Input: the addresses of the pods and of the name servers that matter. Output: a call for each answer of one to the other,
// with what it tells; the answer goes on to the pod when the call returns. What is learned by it is therefore in the kernel
// before the pod's first packet to what it was told.
//
// A table of its own, inet kith_dns, takes the answers out of the way to the pods and gives a copy to a socket (nflog); a
// packet socket gives them back to the pod's veth. The table belongs to the process: when that dies the kernel removes it,
// and answers go their way unheard, as they do on a node without such pods. Answers over TCP and those that are longer
// than any path carries in one piece are not held back: there the call races with the pod, which tries again. What says no
// address passes, and so does what is longer than longestHeard: nobody reads it.
//
// Invariants: an answer that was taken out of the way goes on within patience, heard or not. What cannot be heard in time
// passes unheard: beyond a pace for each pod and one for all, while nobody reads (the table knows by an element that ends
// if we do not renew it, which we do when all was read), and while too much waits for its pod. Pods are heard in turn: one
// who is told much waits for himself.
//
// Out of scope: what a telling is good for, and whose addresses the pods' are.
package tap

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/kithnet/kith/policy/dns"
)

const (
	// patience is how long an answer is held at most; a resolver asks again after 5 seconds.
	patience = 3 * time.Second
	// lookEvery is how often we look whether one has waited for so long.
	lookEvery = 200 * time.Millisecond
)

// Hear is called with what an answer tells a pod.
type Hear func(ctx context.Context, pod netip.Addr, told []dns.Telling)

// Unheard is that an answer passed unheard: of a server that is not one of those that are heard, or, with Busy, of which
// there are too many.
type Unheard struct {
	Server, Pod netip.Addr
	Busy        bool
}

// Tap is open until Close.
type Tap struct {
	log      *slog.Logger
	hear     Hear
	patience time.Duration
	held     *copies
	others   *copies
	table    *table
	back     *sender
	queue    *queue
	unheard  func(Unheard)
}

// Open begins to hear nobody yet. Of what passes unheard, unheard is called now and then.
func Open(log *slog.Logger, hear Hear, unheard func(Unheard)) (*Tap, error) {
	t := &Tap{log: log, hear: hear, unheard: unheard, patience: patience, queue: newQueue()}
	if err := t.open(); err != nil {
		return nil, fmt.Errorf("hear name servers: %w", errors.Join(err, t.Close()))
	}
	return t, nil
}

// open asks for copies before there are any: what is taken out of the way with nobody there is lost.
func (t *Tap) open() (err error) {
	if t.back, err = newSender(); err != nil {
		return err
	}
	if t.held, err = openCopies(heldGroup); err != nil {
		return err
	}
	if t.others, err = openCopies(copyGroup); err != nil {
		return err
	}
	t.table, err = newTable()
	return err
}

// Close gives the answers their way back, also those that wait.
func (t *Tap) Close() error {
	var err error
	if t.table != nil {
		err = t.table.close()
	}
	if t.held != nil {
		t.letGo()
		err = errors.Join(err, t.held.close())
	}
	if t.others != nil {
		err = errors.Join(err, t.others.close())
	}
	if t.back != nil {
		err = errors.Join(err, t.back.close())
	}
	return err
}

// letGo sends on what is held, when no more comes.
func (t *Tap) letGo() {
	for _, w := range t.queue.overdue(time.Now().Add(patience)) {
		t.send(w.answer)
	}
	buffer := make([]byte, longestCopy)
	for {
		answers, err := t.held.read(context.Background(), buffer, time.Time{})
		if err != nil {
			return
		}
		for _, a := range answers {
			t.send(a)
		}
	}
}

// Listen hears exactly these from now on.
func (t *Tap) Listen(a Audience) error {
	t.back.forget()
	if err := t.table.listen(a); err != nil {
		return fmt.Errorf("hear %d name servers for %d addresses: %w", len(a.Servers), len(a.Pods), err)
	}
	return nil
}

// Run hears until ctx ends.
func (t *Tap) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	stop := context.AfterFunc(ctx, func() { t.held.wake(); t.others.wake() })
	defer stop()
	g.Go(func() error { return t.readHeld(ctx) })
	g.Go(func() error { return t.readOthers(ctx) })
	g.Go(func() error { t.work(ctx); return nil })
	g.Go(func() error { t.hurry(ctx); return nil })
	if err := g.Wait(); err != nil {
		return fmt.Errorf("hear name servers: %w", err)
	}
	return nil
}

// readHeld reads what was taken out of the way, and proves that it does. The proof is given when nothing is left in the
// socket, so that what comes before the next one is bounded, and finds room.
func (t *Tap) readHeld(ctx context.Context) error {
	buffer, next := make([]byte, longestCopy), time.Now()
	for ctx.Err() == nil {
		answers, err := t.held.read(ctx, buffer, next)
		switch {
		case ctx.Err() != nil:
		case errors.Is(err, errDrained):
			next = time.Now().Add(proveEvery)
			if err := t.table.prove(); err != nil {
				return fmt.Errorf("go on hearing: %w", err)
			}
		case errors.Is(err, unix.ENOBUFS):
			t.log.Warn("answers of name servers are lost, more than were to be held: pods must ask again")
		case err != nil:
			return err
		}
		t.take(answers)
	}
	return nil
}

// readOthers reads copies of what is on its way.
func (t *Tap) readOthers(ctx context.Context) error {
	buffer := make([]byte, longestCopy)
	for ctx.Err() == nil {
		answers, err := t.others.read(ctx, buffer, time.Now().Add(proveEvery))
		if err != nil && !errors.Is(err, errDrained) && !errors.Is(err, unix.ENOBUFS) {
			return err
		}
		for i, a := range answers {
			if a.note != "" {
				server, pod, _ := dns.Ends(a.packet)
				t.unheard(Unheard{server, pod, a.note == noteBusy})
				continue
			}
			t.take(answers[i : i+1])
		}
	}
	return nil
}

// take has answers heard in turn, or sends on unheard what finds no room.
func (t *Tap) take(answers []answer) {
	for _, a := range answers {
		if !t.queue.put(a, time.Now()) && a.held {
			t.send(a)
		}
	}
}

// work hears one answer after the other.
func (t *Tap) work(ctx context.Context) {
	for ctx.Err() == nil {
		w := t.queue.take()
		if w == nil {
			select {
			case <-ctx.Done():
			case <-t.queue.ready:
			}
			continue
		}
		t.tell(ctx, w.answer)
		if t.queue.release(w) {
			t.send(w.answer)
		}
	}
}

// tell has an answer heard.
func (t *Tap) tell(ctx context.Context, a answer) {
	pod, messages, err := dns.Unwrap(a.packet)
	for _, message := range messages {
		told, bad := dns.Read(message)
		err = errors.Join(err, bad)
		if len(told) > 0 {
			t.hear(ctx, pod, told)
		}
	}
	if err != nil {
		t.log.Debug("answer of a name server not understood", "pod", pod, "error", err)
	}
}

// hurry sends on what was held for long enough. It is heard in its turn all the same.
func (t *Tap) hurry(ctx context.Context) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			for _, w := range t.queue.overdue(now.Add(-t.patience)) {
				t.send(w.answer)
			}
		}
	}
}

func (t *Tap) send(a answer) {
	switch err := t.back.send(a); {
	case errors.Is(err, errGone):
		t.log.Debug("answer of a name server comes too late", "pod", a.pod, "error", err)
	case err != nil:
		t.log.Warn("answer of a name server lost", "pod", a.pod, "error", err)
	}
}
