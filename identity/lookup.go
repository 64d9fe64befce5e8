package identity

import (
	"iter"
	"net/netip"
	"slices"
)

// Lookup is the identity behind an address, or nil.
func (t *Table) Lookup(a netip.Addr) *Identity {
	if p, ok := t.pins[a]; ok {
		return t.Match(p.Pod, p.UID)
	}
	return t.owner[a].identity()
}

// Claimed says whether any pod but this one has an address, as far as pods themselves say.
func (t *Table) Claimed(a netip.Addr, but PodKey) bool {
	other := func(r *record) bool { return r.key() != but }
	return t.owner[a] != nil && other(t.owner[a]) || slices.ContainsFunc(t.contenders[a], other)
}

// Pod is the identity of a pod, or nil while pod or namespace are not known.
func (t *Table) Pod(k PodKey) *Identity { return t.pods[k].identity() }

// Match is the identity of the pod if it is the one with this UID, or nil. An empty UID is any.
func (t *Table) Match(k PodKey, uid string) *Identity {
	r := t.pods[k]
	if r == nil || uid != "" && r.uid != "" && uid != r.uid {
		return nil
	}
	return r.identity()
}

// Number is the identity's number, never 0; 0 for an identity that the table does not hold.
func (t *Table) Number(i *Identity) uint32 { return t.numbers.Of(i.key) }

// Identities are all identities that a known pod has.
func (t *Table) Identities() iter.Seq[*Identity] {
	return func(yield func(*Identity) bool) {
		for _, e := range t.entries {
			if e.space.known && !yield(e.id) {
				return
			}
		}
	}
}

// Addresses are the addresses whose identity this is.
func (t *Table) Addresses(i *Identity) iter.Seq[netip.Addr] {
	return func(yield func(netip.Addr) bool) {
		e := t.entries[i.key]
		if e == nil {
			return
		}
		for _, r := range e.pods {
			for _, a := range r.addresses {
				if t.Lookup(a) == i && !yield(a) {
					return
				}
			}
			for _, a := range t.pinned[r.key()] {
				if !slices.Contains(r.addresses, a) && t.Lookup(a) == i && !yield(a) {
					return
				}
			}
		}
	}
}

// Counts says how many pods, namespaces and identities the table knows.
func (t *Table) Counts() (pods, namespaces, identities int) {
	for _, s := range t.spaces {
		if s.known {
			namespaces++
		}
	}
	return len(t.pods), namespaces, len(t.numbers.number)
}

func (t *Table) space(name string) *space {
	s := t.spaces[name]
	if s == nil {
		s = &space{name: name, entries: map[*entry]struct{}{}}
		t.spaces[name] = s
	}
	return s
}

// dropSpace forgets a namespace that neither an object nor a pod names any more.
func (t *Table) dropSpace(s *space) {
	if !s.known && len(s.entries) == 0 {
		delete(t.spaces, s.name)
	}
}

// entry finds or makes the identity. While the namespace is not known its identity is kept, but not shown.
func (t *Table) entry(s *space, labels Labels, ports []NamedPort) *entry {
	id := newIdentity(s.name, s.labels, labels, ports)
	if e := t.entries[id.key]; e != nil {
		return e
	}
	e := &entry{id: id, space: s}
	t.entries[id.key] = e
	s.entries[e] = struct{}{}
	if s.known {
		t.appear(e)
	}
	return e
}

func (t *Table) join(r *record, e *entry) {
	r.entry, r.index = e, int32(len(e.pods))
	e.pods = append(e.pods, r)
}

// leave takes a pod out of its entry, and the entry out of the table when it was the last.
func (t *Table) leave(r *record) {
	e := r.entry
	last := e.pods[len(e.pods)-1]
	e.pods[r.index], last.index = last, r.index
	e.pods[len(e.pods)-1] = nil
	e.pods = e.pods[:len(e.pods)-1]
	if len(e.pods) > 0 {
		return
	}
	if e.space.known {
		t.disappear(e)
	}
	delete(t.entries, e.id.key)
	delete(e.space.entries, e)
	t.dropSpace(e.space)
}

func (t *Table) appear(e *entry) {
	t.changes.Appeared[e.id] = struct{}{}
	t.renumbered(t.numbers.Add(e.id.key))
}

func (t *Table) disappear(e *entry) {
	moved := t.numbers.Remove(e.id.key)
	delete(t.changes.Renumbered, e.id)
	if _, ok := t.changes.Appeared[e.id]; ok {
		delete(t.changes.Appeared, e.id)
	} else {
		t.changes.Gone[e.id] = struct{}{}
	}
	t.renumbered(moved)
}

func (t *Table) renumbered(keys []Key) {
	for _, k := range keys {
		e := t.entries[k]
		if _, fresh := t.changes.Appeared[e.id]; !fresh {
			t.changes.Renumbered[e.id] = struct{}{}
		}
	}
}

func (t *Table) claim(r *record) {
	for _, a := range r.addresses {
		held := t.owner[a]
		switch {
		case held == nil:
			t.owner[a] = r
		case r.newer(held):
			t.owner[a] = r
			t.contenders[a] = append(t.contenders[a], held)
		default:
			t.contenders[a] = append(t.contenders[a], r)
		}
	}
	t.touchAddresses(r.addresses)
}

func (t *Table) unclaim(r *record) {
	t.touchAddresses(r.addresses)
	for _, a := range r.addresses {
		rest := slices.DeleteFunc(t.contenders[a], func(c *record) bool { return c == r })
		if t.owner[a] == r {
			delete(t.owner, a)
			if len(rest) > 0 {
				next := slices.MaxFunc(rest, compareAge)
				t.owner[a] = next
				rest = slices.DeleteFunc(rest, func(c *record) bool { return c == next })
			}
		}
		if len(rest) == 0 {
			delete(t.contenders, a)
		} else {
			t.contenders[a] = rest
		}
	}
}

func compareAge(a, b *record) int {
	if a.newer(b) {
		return 1
	}
	return -1
}

// touch notes that a pod, and with it what is pinned to it, changed.
func (t *Table) touch(k PodKey) {
	t.changes.Pods[k] = struct{}{}
	t.touchAddresses(t.pinned[k])
}

func (t *Table) touchAddresses(as []netip.Addr) {
	for _, a := range as {
		t.changes.Addresses[a] = struct{}{}
	}
}

// Namespaces are the known namespaces with their labels.
func (t *Table) Namespaces() iter.Seq2[string, Labels] {
	return func(yield func(string, Labels) bool) {
		for _, s := range t.spaces {
			if s.known && !yield(s.name, s.labels) {
				return
			}
		}
	}
}

// IdentitiesIn are the identities in a known namespace.
func (t *Table) IdentitiesIn(namespace string) iter.Seq[*Identity] {
	return func(yield func(*Identity) bool) {
		s := t.spaces[namespace]
		if s == nil || !s.known {
			return
		}
		for e := range s.entries {
			if !yield(e.id) {
				return
			}
		}
	}
}
