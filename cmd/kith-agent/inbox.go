package main

import (
	"slices"
	"sync"

	"github.com/kithnet/kith/policy/ruleset"
)

// inbox holds of each object of the API the last change that the enforcer has not taken yet: who changes one object faster
// than the kernel can be written holds up no watch, and takes no memory for each version. What is in it is taken all at
// once, so that nothing that was handed in is seen without what was handed in before.
type inbox struct {
	mu      sync.Mutex
	changes []objectChange
	last    map[any]int // of each object, in changes
}

// objectChange is what became of an object. One without a change was overtaken by a later one.
type objectChange struct {
	object any
	change func(*ruleset.Compiler)
}

// put takes a change in, for the one that waits of the same object.
func (b *inbox) put(object any, change func(*ruleset.Compiler)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.last == nil {
		b.last = map[any]int{}
	}
	if i, waits := b.last[object]; waits {
		b.changes[i] = objectChange{}
	}
	if len(b.changes) > 2*len(b.last)+batch {
		b.squeeze()
	}
	b.last[object] = len(b.changes)
	b.changes = append(b.changes, objectChange{object, change})
}

// squeeze forgets those that were overtaken.
func (b *inbox) squeeze() {
	b.changes = slices.DeleteFunc(b.changes, func(c objectChange) bool { return c.change == nil })
	clear(b.last)
	for i, c := range b.changes {
		b.last[c.object] = i
	}
}

// drain makes all changes, in their order.
func (b *inbox) drain(c *ruleset.Compiler) {
	b.mu.Lock()
	changes := b.changes
	b.changes, b.last = nil, nil
	b.mu.Unlock()
	for _, o := range changes {
		if o.change != nil {
			o.change(c)
		}
	}
}
