package main

import (
	"sync"
	"time"

	"github.com/kithnet/kith/identity"
	"github.com/kithnet/kith/policy/ruleset"
)

// maxHearsay bounds what waits of one node.
const maxHearsay = 512

// hearsay hands the enforcer what other nodes say, in one update at a time: a node that says much takes neither the
// enforcer's queue from others nor their place in this one.
type hearsay struct {
	enforcer *enforcer

	mu      sync.Mutex
	waiting map[string][]identity.Hint // by node
	until   time.Time                  // the last hint's
}

func newHearsay(e *enforcer) *hearsay {
	return &hearsay{enforcer: e, waiting: map[string][]identity.Hint{}}
}

func (h *hearsay) take(hint identity.Hint) {
	if h.put(hint) {
		h.enforcer.Update(h.drain)
	}
}

// put says whether an update is needed: otherwise one is on its way.
func (h *hearsay) put(hint identity.Hint) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	first := len(h.waiting) == 0
	if said := h.waiting[hint.Node]; len(said) < maxHearsay {
		h.waiting[hint.Node] = append(said, hint)
	}
	h.until = hint.Until
	return first
}

func (h *hearsay) drain(c *ruleset.Compiler) {
	h.mu.Lock()
	waiting := h.waiting
	h.waiting = map[string][]identity.Hint{}
	h.mu.Unlock()
	for _, said := range waiting {
		for _, hint := range said {
			c.Hint(hint)
		}
	}
}

// forget drops the hints whose time is over, if there are any.
func (h *hearsay) forget(now time.Time) {
	h.mu.Lock()
	none := h.until.IsZero()
	if h.until.Before(now) {
		h.until = time.Time{}
	}
	h.mu.Unlock()
	if !none {
		h.enforcer.Update(func(c *ruleset.Compiler) { c.DropHints(now) })
	}
}
