package identity

import (
	"maps"
	"net/netip"
	"slices"
	"unique"
)

// Table holds pods and namespaces and knows the identity of every pod and every address. Nothing in it depends on
// the order of the events. It is not safe for concurrent use.
type Table struct {
	pods       map[PodKey]*record
	spaces     map[string]*space
	entries    map[Key]*entry
	owner      map[netip.Addr]*record
	contenders map[netip.Addr][]*record // the pods that claim an address and do not own it
	pins       map[netip.Addr]Pin
	pinned     map[PodKey][]netip.Addr
	words      map[netip.Addr]word
	hinted     map[Pin][]netip.Addr          // the addresses whose word names a pod
	spoken     map[unique.Handle[string]]int // how many words are each node's
	numbers    *Numbers
	changes    Changes
}

// record is what is kept of a pod: a cluster has thousands, so it is small. Its namespace and labels are its entry's.
type record struct {
	name      string
	uid       string
	created   int64
	addresses []netip.Addr
	node      unique.Handle[string]
	entry     *entry
	index     int32 // in entry.pods
	stated    bool  // the addresses are of its status, not of hints
}

func (r *record) key() PodKey { return PodKey{r.entry.space.name, r.name} }

func (r *record) newer(o *record) bool {
	return age{r.created, r.uid, r.key()}.newer(age{o.created, o.uid, o.key()})
}

func (r *record) same(o *record) bool {
	return r.uid == o.uid && r.created == o.created && r.node == o.node && r.stated == o.stated && slices.Equal(r.addresses, o.addresses)
}

// identity is nil while the pod's namespace is not known.
func (r *record) identity() *Identity {
	if r == nil || !r.entry.space.known {
		return nil
	}
	return r.entry.id
}

// entry is an identity with the pods that have it.
type entry struct {
	id    *Identity
	space *space
	pods  []*record
}

// space is a namespace, known or only named by pods.
type space struct {
	name    string
	known   bool
	labels  Labels
	entries map[*entry]struct{}
}

// Pin is a node's own knowledge about who has an address.
type Pin struct {
	Pod PodKey
	UID string // empty: any
}

// Changes says what changed since it was last taken. What came and went in between is not in it.
type Changes struct {
	Appeared   map[*Identity]struct{}
	Gone       map[*Identity]struct{}
	Renumbered map[*Identity]struct{}  // neither appeared nor gone
	Pods       map[PodKey]struct{}     // pods that appeared, went, or have another identity or UID
	Addresses  map[netip.Addr]struct{} // addresses whose identity may be another
}

// NewTable is empty.
func NewTable() *Table {
	return &Table{
		pods: map[PodKey]*record{}, spaces: map[string]*space{}, entries: map[Key]*entry{},
		owner: map[netip.Addr]*record{}, contenders: map[netip.Addr][]*record{},
		pins: map[netip.Addr]Pin{}, pinned: map[PodKey][]netip.Addr{},
		words: map[netip.Addr]word{}, hinted: map[Pin][]netip.Addr{}, spoken: map[unique.Handle[string]]int{},
		numbers: NewNumbers(), changes: newChanges(),
	}
}

func newChanges() Changes {
	return Changes{
		Appeared: map[*Identity]struct{}{}, Gone: map[*Identity]struct{}{}, Renumbered: map[*Identity]struct{}{},
		Pods: map[PodKey]struct{}{}, Addresses: map[netip.Addr]struct{}{},
	}
}

// TakeChanges returns what changed since the last call.
func (t *Table) TakeChanges() Changes {
	c := t.changes
	t.changes = newChanges()
	return c
}

// PutPod adds a pod or replaces what is known of it.
func (t *Table) PutPod(p Pod) {
	e := t.entry(t.space(p.Namespace), MakeLabels(p.Labels), canonicalPorts(p.Ports))
	old := t.pods[p.Key()]
	r := t.record(p)
	if old != nil && old.entry == e && old.same(r) {
		return
	}
	t.join(r, e)
	if old != nil {
		t.unclaim(old)
		t.leave(old)
	}
	t.pods[r.key()] = r
	t.claim(r)
	t.touch(r.key())
}

// record is what is kept of a pod, with the addresses that its status names or else its node.
func (t *Table) record(p Pod) *record {
	r := &record{name: p.Name, uid: p.UID, created: p.Created.UnixNano(), node: unique.Make(p.Node), stated: len(p.Addresses) > 0}
	pin := Pin{p.Key(), p.UID}
	if r.stated {
		t.void(pin)
		r.addresses = slices.Clone(p.Addresses)
	} else {
		r.addresses = t.hints(pin, r.node)
	}
	return r
}

// DeletePod forgets a pod.
func (t *Table) DeletePod(k PodKey) {
	r := t.pods[k]
	if r == nil {
		return
	}
	t.unclaim(r)
	delete(t.pods, k)
	t.leave(r)
	t.touch(k)
}

// ReplacePods makes the pods exactly these.
func (t *Table) ReplacePods(pods []Pod) {
	keep := make(map[PodKey]struct{}, len(pods))
	for _, p := range pods {
		keep[p.Key()] = struct{}{}
	}
	for k := range t.pods {
		if _, ok := keep[k]; !ok {
			t.DeletePod(k)
		}
	}
	for _, p := range pods {
		t.PutPod(p)
	}
}

// PutNamespace adds a namespace or changes its labels.
func (t *Table) PutNamespace(n Namespace) {
	s := t.space(n.Name)
	labels := n.LabelSet()
	if s.known && slices.Equal(s.labels, labels) {
		return
	}
	t.relabel(s, labels)
}

// DeleteNamespace forgets a namespace. Pods still in it have no identity from then on.
func (t *Table) DeleteNamespace(name string) {
	if s := t.spaces[name]; s != nil && s.known {
		t.relabel(s, nil)
		t.dropSpace(s)
	}
}

// ReplaceNamespaces makes the namespaces exactly these.
func (t *Table) ReplaceNamespaces(all []Namespace) {
	keep := make(map[string]struct{}, len(all))
	for _, n := range all {
		keep[n.Name] = struct{}{}
		t.PutNamespace(n)
	}
	for _, name := range slices.Collect(maps.Keys(t.spaces)) {
		if _, ok := keep[name]; !ok {
			t.DeleteNamespace(name)
		}
	}
}

// relabel gives all pods of a namespace their new identity, or none when the namespace has no labels: one that is
// known has its name's at least.
func (t *Table) relabel(s *space, labels Labels) {
	old := s.entries
	if s.known {
		for e := range old {
			t.disappear(e)
		}
	}
	for e := range old {
		delete(t.entries, e.id.Key())
	}
	s.entries, s.labels, s.known = map[*entry]struct{}{}, labels, len(labels) > 0
	for e := range old {
		n := t.entry(s, e.id.labels, e.id.ports)
		n.pods = e.pods
		for _, r := range n.pods {
			r.entry = n
			t.touch(r.key())
			t.touchAddresses(r.addresses)
		}
	}
}

// Pin says that this node gave an address to a pod: it is that pod's whatever others say, and nobody's while the pod
// is not known. A pod of the same name with another UID is not it.
func (t *Table) Pin(a netip.Addr, p Pin) {
	if t.pins[a] == p {
		return
	}
	t.Unpin(a)
	t.pins[a] = p
	t.pinned[p.Pod] = append(t.pinned[p.Pod], a)
	t.changes.Addresses[a] = struct{}{}
}

// Unpin takes a Pin back.
func (t *Table) Unpin(a netip.Addr) {
	p, ok := t.pins[a]
	if !ok {
		return
	}
	delete(t.pins, a)
	t.pinned[p.Pod] = slices.DeleteFunc(t.pinned[p.Pod], func(x netip.Addr) bool { return x == a })
	if len(t.pinned[p.Pod]) == 0 {
		delete(t.pinned, p.Pod)
	}
	t.changes.Addresses[a] = struct{}{}
}
