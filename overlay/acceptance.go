package overlay

import (
	"errors"
	"slices"
	"strings"
)

// Acceptance is an administrator's word that the node with this UID may change to this signing key.
type Acceptance struct {
	UID string
	Key SigningKey
}

// ParseAcceptance reads a UID and a key in base64, with space between them.
func ParseAcceptance(text string) (Acceptance, error) {
	words := strings.Fields(text)
	if len(words) != 2 {
		return Acceptance{}, errors.New("parse accepted signing key: want the Node's UID and the key")
	}
	key, err := ParseSigningKey(words[1])
	return Acceptance{UID: words[0], Key: key}, err
}

// String is what ParseAcceptance reads.
func (a Acceptance) String() string { return a.UID + " " + a.Key.String() }

// FollowKeys lets every signing key give way to the next that its Node object names. It is for the time before the first
// SetNodes.
func (l *Ledger) FollowKeys() { l.follows = true }

// Accept replaces the acceptances, by the nodes' names. They count from the next SetNodes on.
func (l *Ledger) Accept(all map[string]Acceptance) { l.accepted = all }

// accepts reports whether an administrator lets a node have the key that its Node object names.
func (l *Ledger) accepts(n *Node) bool {
	a, ok := l.accepted[n.Name]
	return ok && a.UID == n.UID && a.Key.String() == n.SigningKey
}

// hold keeps a pinned key, whatever the Node object names. It refuses another key once. One that is absent is no
// lie: its node writes it again.
func (l *Ledger) hold(a *account, n *Node) error {
	before := a.other
	a.other = ""
	if n.SigningKey == a.signing || n.SigningKey == "" {
		return nil
	}
	if a.other = n.SigningKey; a.other == before {
		return nil
	}
	return l.refuse(n.Name, OtherKey, "annotation %s changed under the same UID", SigningKeyAnnotation)
}

// KeyChange is a node whose Node object names another signing key than the one that holds. Key is zero if that is none.
type KeyChange struct {
	Node string
	Held SigningKey
	Acceptance
}

// KeyChanges returns the changes of signing keys that nobody has accepted, by node.
func (l *Ledger) KeyChanges() []KeyChange {
	var out []KeyChange
	for name, a := range l.accounts {
		if a.other == "" {
			continue
		}
		key, err := ParseSigningKey(a.other)
		if err != nil {
			key = SigningKey{}
		}
		out = append(out, KeyChange{Node: name, Held: a.key, Acceptance: Acceptance{UID: a.uid, Key: key}})
	}
	slices.SortFunc(out, func(a, b KeyChange) int { return strings.Compare(a.Node, b.Node) })
	return out
}
