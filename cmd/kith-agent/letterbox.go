package main

import (
	"sync"
	"time"

	"github.com/kithnet/kith/overlay"
	"github.com/kithnet/kith/overlay/gossip"
	"github.com/kithnet/kith/overlay/preshared"
)

// letterbox keeps the letters of other nodes until the lanes read them. In come those that a known node has signed for
// this one; each node has a pace and a few places of its own there: who floods takes nothing from the others.
type letterbox struct {
	self string
	lost func(gossip.Cause)

	mu      sync.Mutex
	uid     string
	senders map[string]*sender
	letters map[preshared.Heading]letter
	order   []preshared.Heading // as they came
}

type sender struct {
	party  preshared.Other
	budget overlay.Budget
}

type letter struct {
	number uint64
	text   []byte
}

func newLetterbox(self, uid string, lost func(gossip.Cause)) *letterbox {
	return &letterbox{self: self, uid: uid, lost: lost, senders: map[string]*sender{}, letters: map[preshared.Heading]letter{}}
}

// know takes who may write, and to whom: this node's UID, if there is one.
func (b *letterbox) know(uid string, others []other) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if uid != "" {
		b.uid = uid
	}
	before := b.senders
	b.senders = make(map[string]*sender, len(others))
	for _, o := range others {
		s := before[o.Name]
		if s == nil {
			s = &sender{budget: overlay.Budget{Burst: 16, PerSecond: 4}}
		}
		s.party = o.party
		b.senders[o.Name] = s
	}
}

// put takes a letter, and says whether there is one more to read.
func (b *letterbox) put(text []byte, now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	name, err := preshared.Sender(text)
	from := b.senders[name]
	if err != nil || from == nil {
		b.lost(gossip.BadLetter)
		return false
	}
	about, number, err := preshared.Verify(text, b.self, b.uid, from.party)
	if err != nil {
		b.lost(gossip.BadLetter)
		return false
	}
	waiting, occupied := b.letters[about]
	if waiting.number > number || !from.budget.Take(now) {
		b.lost(gossip.MailboxFull)
		return false
	}
	if !occupied {
		b.order = append(b.order, about)
	}
	b.letters[about] = letter{number: number, text: text}
	return true
}

// take returns so many letters at most, the first first.
func (b *letterbox) take(most int) (texts [][]byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now, later := b.order[:min(most, len(b.order))], b.order[min(most, len(b.order)):]
	for _, about := range now {
		texts = append(texts, b.letters[about].text)
		delete(b.letters, about)
	}
	b.order = append([]preshared.Heading(nil), later...)
	return texts
}

// empty tells whether all is read.
func (b *letterbox) empty() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.order) == 0
}
