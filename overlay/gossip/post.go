package gossip

import (
	"bytes"
	"context"
	"log/slog"
	"sync"
)

// post carries messages from one member to one other, each over a stream of its
// own. Where they come faster than they are taken, they are dropped: who needs an
// answer asks again.
type post struct {
	received chan []byte
	queue    chan parcel
	lost     func(Cause)
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

func (g *Gossip) carry(p parcel) {
	for _, n := range g.list.Members() {
		if n.Name != p.to {
			continue
		}
		if err := g.list.SendReliable(n, p.message); err != nil {
			g.log.Debug("message not sent", slog.String("member", p.to), slog.Any("error", err))
		}
	}
}
