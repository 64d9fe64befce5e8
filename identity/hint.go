package identity

import (
	"net/netip"
	"slices"
	"time"
	"unique"
)

// Hint is what a node says of addresses of its own pod CIDRs before the API does: they are a pod's, or, with the zero Pin,
// nobody's any more. Of what a node says of an address, the highest Sequence holds.
type Hint struct {
	Pin
	Node      string
	Addresses []netip.Addr
	Sequence  uint64
	Until     time.Time
}

// maxHints bounds the addresses of which one node's word is kept.
const maxHints = 1024

// word is the last that was said of an address.
type word struct {
	pin      Pin
	node     unique.Handle[string]
	sequence uint64
	until    time.Time
}

// Hint gives a pod addresses until its status names some, the pod is gone or ended, another Hint takes them, or the time is
// over. It counts only for a pod that the API puts on that node under that UID. One that comes before its pod waits for it,
// within bounds. As with addresses that pods state, the newest pod has an address.
func (t *Table) Hint(h Hint) {
	if h.Node == "" || (h.Pod == PodKey{}) != (h.UID == "") {
		return
	}
	w := word{h.Pin, unique.Make(h.Node), h.Sequence, h.Until}
	if r := t.pods[h.Pod]; r != nil && r.stated && r.uid == h.UID {
		w.pin = Pin{}
	}
	for _, a := range h.Addresses {
		old, known := t.words[a]
		same := known && old.node == w.node
		if same && old.sequence >= w.sequence || !same && t.spoken[w.node] >= maxHints {
			continue
		}
		t.unsay(a)
		t.words[a] = w
		t.spoken[w.node]++
		if w.pin != (Pin{}) {
			t.hinted[w.pin] = append(t.hinted[w.pin], a)
		}
		t.rehint(old.pin)
	}
	t.rehint(w.pin)
}

// DropHints forgets the hints whose time is over.
func (t *Table) DropHints(now time.Time) {
	for a, w := range t.words {
		if !w.until.After(now) {
			t.unsay(a)
			t.rehint(w.pin)
		}
	}
}

// Stated says whether a pod's status names addresses.
func (t *Table) Stated(p Pin) bool {
	r := t.pods[p.Pod]
	return r != nil && r.stated && r.uid == p.UID
}

// unsay forgets the last word on an address.
func (t *Table) unsay(a netip.Addr) {
	w, known := t.words[a]
	if !known {
		return
	}
	delete(t.words, a)
	if t.spoken[w.node]--; t.spoken[w.node] == 0 {
		delete(t.spoken, w.node)
	}
	t.hinted[w.pin] = slices.DeleteFunc(t.hinted[w.pin], func(x netip.Addr) bool { return x == a })
	if len(t.hinted[w.pin]) == 0 {
		delete(t.hinted, w.pin)
	}
}

// void makes the words on a pod say nobody. They stay, so that an older one that comes late does not count.
func (t *Table) void(p Pin) {
	for _, a := range t.hinted[p] {
		w := t.words[a]
		w.pin = Pin{}
		t.words[a] = w
	}
	delete(t.hinted, p)
}

// hints are the addresses that a pod has by its node's word, in order.
func (t *Table) hints(p Pin, node unique.Handle[string]) []netip.Addr {
	var out []netip.Addr
	for _, a := range t.hinted[p] {
		if t.words[a].node == node {
			out = append(out, a)
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return out
}

// rehint brings a pod's addresses up to date after what was said of it.
func (t *Table) rehint(p Pin) {
	r := t.pods[p.Pod]
	if r == nil || r.stated || r.uid != p.UID {
		return
	}
	if addresses := t.hints(p, r.node); !slices.Equal(r.addresses, addresses) {
		t.unclaim(r)
		r.addresses = addresses
		t.claim(r)
	}
}
