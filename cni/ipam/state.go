package ipam

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/kithnet/kith/cni"
)

// The operations of a journal line.
const (
	opHeader = "kith-ipam"
	opPut    = "put"
	opCommit = "commit"
	opFree   = "free"
	opQueue  = "queue"
)

// entry is one line of the journal.
type entry struct {
	Op         string          `json:"op"`
	Version    int             `json:"version,omitempty"`
	Attachment *cni.Attachment `json:"attachment,omitempty"`
	Key        *cni.Key        `json:"key,omitempty"`
	// Addresses are free ones, the longest free first.
	Addresses []netip.Addr `json:"addresses,omitempty"`
}

// state is what the journal says: every entry is checked, then applied.
type state struct {
	records map[cni.Key]cni.Attachment
	links   map[string]cni.Key
	used    map[netip.Addr]cni.Key
	freed   queue
}

func newState() *state {
	return &state{
		records: map[cni.Key]cni.Attachment{},
		links:   map[string]cni.Key{},
		used:    map[netip.Addr]cni.Key{},
		freed:   queue{waiting: map[netip.Addr]bool{}},
	}
}

func (st *state) check(e entry) error {
	switch e.Op {
	case opPut:
		return st.checkPut(e.Attachment)
	case opCommit, opFree:
		if e.Key == nil {
			return fmt.Errorf("%s without a key", e.Op)
		}
		if _, ok := st.records[*e.Key]; !ok {
			return fmt.Errorf("%s of %s: no such attachment", e.Op, e.Key)
		}
		return nil
	case opQueue:
		for _, addr := range e.Addresses {
			if err := st.checkFree(addr); err != nil {
				return err
			}
		}
		return nil
	default:
		return fmt.Errorf("unknown operation %q", e.Op)
	}
}

func (st *state) checkPut(a *cni.Attachment) error {
	if a == nil || a.Validate() != nil {
		return fmt.Errorf("put without a valid attachment")
	}
	if _, ok := st.records[a.Key]; ok {
		return fmt.Errorf("put of %s: there is one already", a.Key)
	}
	if other, ok := st.links[a.HostInterface]; ok {
		return fmt.Errorf("put of %s: interface %s is that of %s", a.Key, a.HostInterface, other)
	}
	for i, addr := range a.Addresses {
		if other, ok := st.used[addr]; ok {
			return fmt.Errorf("put of %s: address %s is in use by %s", a.Key, addr, other)
		}
		if !addr.IsValid() || slices.Contains(a.Addresses[:i], addr) {
			return fmt.Errorf("put of %s: address %s is invalid or twice there", a.Key, addr)
		}
	}
	return nil
}

func (st *state) checkFree(addr netip.Addr) error {
	if other, ok := st.used[addr]; ok {
		return fmt.Errorf("free address %s is in use by %s", addr, other)
	}
	if !addr.IsValid() || st.freed.waiting[addr] {
		return fmt.Errorf("free address %s is invalid or twice there", addr)
	}
	return nil
}

// apply changes the state by an entry that check has passed.
func (st *state) apply(e entry) {
	switch e.Op {
	case opPut:
		st.put(*e.Attachment)
	case opCommit:
		a := st.records[*e.Key]
		a.Complete = true
		st.records[*e.Key] = a
	case opFree:
		a := st.records[*e.Key]
		delete(st.records, *e.Key)
		delete(st.links, a.HostInterface)
		for _, addr := range a.Addresses {
			delete(st.used, addr)
			st.freed.push(addr)
		}
	case opQueue:
		for _, addr := range e.Addresses {
			st.freed.push(addr)
		}
	}
}

func (st *state) put(a cni.Attachment) {
	st.records[a.Key] = a
	st.links[a.HostInterface] = a.Key
	for _, addr := range a.Addresses {
		st.used[addr] = a.Key
		st.freed.remove(addr)
	}
}

func (st *state) list() []cni.Attachment {
	all := make([]cni.Attachment, 0, len(st.records))
	for _, a := range st.records {
		a.Addresses = slices.Clone(a.Addresses)
		all = append(all, a)
	}
	slices.SortFunc(all, func(a, b cni.Attachment) int { return compareKeys(a.Key, b.Key) })
	return all
}

// seen says whether an address was ever given out, as far as is known.
func (st *state) seen(addr netip.Addr) bool {
	_, used := st.used[addr]
	return used || st.freed.waiting[addr]
}

// queue is addresses in the order they were freed.
type queue struct {
	order   []netip.Addr
	waiting map[netip.Addr]bool
}

func (q *queue) push(addr netip.Addr) {
	if !q.waiting[addr] {
		q.order = append(q.order, addr)
		q.waiting[addr] = true
	}
}

func (q *queue) remove(addr netip.Addr) {
	if q.waiting[addr] {
		delete(q.waiting, addr)
		i := slices.Index(q.order, addr)
		q.order = slices.Delete(q.order, i, i+1)
	}
}
