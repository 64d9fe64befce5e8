package gossip

import (
	"bytes"
	"context"
	"log/slog"
	"sync"

	"github.com/hashicorp/memberlist"
)

// post carries messages from one member to one other, each over a stream of its
// own. Where they come faster than they are taken, they are dropped: who needs an
// answer asks again.
type post struct {
	received chan []byte
	queue    chan parcel
	lost     func(Cause)
	doubtful sync.Mutex // of the one who goes to a member that may be dead
}

type parcel struct {
	to      string
	message []byte
}

const (
	postBox   = 256
	postmen   = 4
	maxLetter = 4096 // more than twice the longest that members send
)

func newPost(lost func(Cause)) *post {
	return &post{received: make(chan []byte, postBox), queue: make(chan parcel, postBox), lost: lost}
}

func (p *post) receive(message []byte) {
	if len(message) > maxLetter {
		p.lost(MessageSize)
		return
	}
	select {
	case p.received <- bytes.Clone(message):
	default:
		p.lost(MailboxFull)
	}
}

// Send queues a message for a member.
func (g *Gossip) Send(to string, message []byte) {
	select {
	case g.post.queue <- parcel{to, message}:
	default:
	}
}

// Received gives what other members have sent. Who it is from, only the message says.
func (g *Gossip) Received() <-chan []byte { return g.post.received }

// deliver sends what is queued until ctx ends.
func (g *Gossip) deliver(ctx context.Context) {
	var all sync.WaitGroup
	for range postmen {
		all.Go(func() {
			for {
				select {
				case <-ctx.Done():
					return
				case p := <-g.post.queue:
					g.carry(p)
				}
			}
		})
	}
	all.Wait()
}

// carry brings a parcel also to a member that gossip calls dead, since nobody signs that. One at a time goes there: it
// may take long, and to no end.
func (g *Gossip) carry(p parcel) {
	to := g.member(p.to)
	if to == nil {
		addr, known := g.roster.address(p.to)
		if !known || !g.post.doubtful.TryLock() {
			return
		}
		defer g.post.doubtful.Unlock()
		to = &memberlist.Node{Name: p.to, Addr: addr.Addr().AsSlice(), Port: addr.Port()}
	}
	if err := g.list.SendReliable(to, p.message); err != nil {
		g.log.Debug("message not sent", slog.String("member", p.to), slog.Any("error", err))
	}
}

// member finds one that memberlist does not hold for dead.
func (g *Gossip) member(name string) *memberlist.Node {
	for _, n := range g.list.Members() {
		if n.Name == name {
			return n
		}
	}
	return nil
}
