package overlay

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
)

// Cause names why a claim was refused, for counting.
type Cause string

// The causes.
const (
	UnknownNode     Cause = "unknown-node"
	NoSigningKey    Cause = "no-signing-key"
	OtherKey        Cause = "other-signing-key"
	OtherVersion    Cause = "version"
	Malformed       Cause = "malformed"
	BadSignature    Cause = "bad-signature"
	NotItsKey       Cause = "not-its-wireguard-key"
	OldEpoch        Cause = "old-epoch"
	EpochTwice      Cause = "epoch-twice"
	WrongAddress    Cause = "wrong-address"
	AddressConflict Cause = "address-conflict"
	TooMany         Cause = "too-many"
)

// Stale tells of a cause that also occurs where nobody lies: news travel by several
// ways, and one is the first.
func (c Cause) Stale() bool { return c == OldEpoch || c == UnknownNode || c == AddressConflict }

// Refusal is a claim that was not taken. Node is the name it came under.
type Refusal struct {
	Node   string
	Cause  Cause
	Detail string
}

func (r Refusal) Error() string { return fmt.Sprintf("claim of node %q refused: %s", r.Node, r.Detail) }

// Refusals are how many claims under one name were refused for one cause. Names
// that no Node has are counted together, under the empty one.
type Refusals struct {
	Node  string
	Cause Cause
	Count uint64
}

type refusalKey struct {
	node  string
	cause Cause
}

func newRefusal(node string, cause Cause, format string, args ...any) Refusal {
	return Refusal{Node: node, Cause: cause, Detail: fmt.Sprintf(format, args...)}
}

func oldEpoch(node string, got, have uint64) Refusal {
	return newRefusal(node, OldEpoch, "epoch %d, and %d is known", got, have)
}

// refusalOf turns an error of the codec or of Open into a refusal.
func refusalOf(node string, err error) Refusal {
	c := Malformed
	switch {
	case errors.Is(err, ErrVersion):
		c = OtherVersion
	case errors.Is(err, ErrSignature):
		c = BadSignature
	case errors.Is(err, ErrPossession):
		c = NotItsKey
	}
	return Refusal{Node: node, Cause: c, Detail: err.Error()}
}

func cause(err error) Cause {
	var r Refusal
	errors.As(err, &r)
	return r.Cause
}

// Refuse counts a refusal that others than the ledger have found reason for.
func (l *Ledger) Refuse(r Refusal) { l.count(r.Node, r) }

func (l *Ledger) refuse(node string, cause Cause, format string, args ...any) error {
	return l.count(node, newRefusal(node, cause, format, args...))
}

func (l *Ledger) count(node string, err error) error {
	if err == nil {
		return nil
	}
	if l.accounts[node] == nil {
		node = ""
	}
	l.refused[refusalKey{node, cause(err)}]++
	return err
}

// forgetRefusals keeps the counts of a node that is gone under no name.
func (l *Ledger) forgetRefusals(node string) {
	for key, n := range l.refused {
		if key.node == node {
			delete(l.refused, key)
			l.refused[refusalKey{cause: key.cause}] += n
		}
	}
}

// Refused returns what was refused since the ledger was made, by node and cause.
func (l *Ledger) Refused() []Refusals {
	out := make([]Refusals, 0, len(l.refused))
	for key, n := range l.refused {
		out = append(out, Refusals{Node: key.node, Cause: key.cause, Count: n})
	}
	slices.SortFunc(out, func(a, b Refusals) int {
		return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(a.Cause, b.Cause))
	})
	return out
}

// maxHeld bounds the records that wait for their node to be known, maxHeard a record and a name.
const (
	maxHeld  = 256
	maxHeard = 512
)

// held keeps the latest record of each name; the name that came first goes first.
type held struct {
	records map[string][]byte
	order   []string
}

func (h *held) put(name string, record []byte) {
	if _, ok := h.records[name]; !ok {
		if len(h.order) == maxHeld {
			delete(h.records, h.order[0])
			h.order = slices.Delete(h.order, 0, 1)
		}
		h.order = append(h.order, name)
	}
	h.records[name] = slices.Clone(record)
}

func (h *held) take(name string) ([]byte, bool) {
	record, ok := h.records[name]
	if ok {
		delete(h.records, name)
		h.order = slices.DeleteFunc(h.order, func(n string) bool { return n == name })
	}
	return record, ok
}
