package identity

import (
	"crypto/sha256"
	"encoding/binary"
	"slices"
)

// Unknown is the number of no key: it stands for pods of which nobody knows the identity.
const Unknown uint32 = 0xffffffff

// Numbers gives every key a number: a hash of the key, never 0 or Unknown. Where two keys hash to one number the
// smaller key has it and the other goes on to its next hash, whichever came first, so that the numbers depend on the
// set of keys alone.
type Numbers struct {
	owner   map[uint32]claim
	waiting map[uint32][]claim // those who had to go on from a number, for when it is free again
	number  map[Key]uint32
}

// claim is a key at its attempt-th number.
type claim struct {
	key     Key
	attempt int
}

// NewNumbers is empty.
func NewNumbers() *Numbers {
	return &Numbers{owner: map[uint32]claim{}, waiting: map[uint32][]claim{}, number: map[Key]uint32{}}
}

// Of is the key's number, or 0 when the key has none.
func (n *Numbers) Of(k Key) uint32 { return n.number[k] }

// Add numbers a key. It returns the keys whose number is new, k among them, in no particular order.
func (n *Numbers) Add(k Key) []Key {
	if _, ok := n.number[k]; ok {
		return nil
	}
	var changed []Key
	c := claim{key: k}
	for {
		num := hash(c.key, c.attempt)
		held, taken := n.owner[num]
		switch {
		case !usable(num):
		case !taken:
			n.set(num, c)
			return append(changed, c.key)
		case c.key.Compare(held.key) < 0:
			n.set(num, c)
			changed = append(changed, c.key)
			n.waiting[num] = append(n.waiting[num], held)
			c = held
		default:
			n.waiting[num] = append(n.waiting[num], c)
		}
		c.attempt++
	}
}

// Remove frees a key's number. It returns the keys that move to another number because of it.
func (n *Numbers) Remove(k Key) []Key {
	num, ok := n.number[k]
	if !ok {
		return nil
	}
	c := n.owner[num]
	delete(n.number, k)
	n.leave(c)
	var changed []Key
	for {
		delete(n.owner, num)
		next, ok := n.next(num)
		if !ok {
			return changed
		}
		old := n.owner[n.number[next.key]]
		free := n.number[next.key]
		for a := next.attempt; a < old.attempt; a++ {
			n.stopWaiting(hash(next.key, a), next.key)
		}
		n.set(num, next)
		changed = append(changed, next.key)
		num = free
	}
}

func (n *Numbers) set(num uint32, c claim) {
	n.owner[num] = c
	n.number[c.key] = num
}

// next is the smallest key that waits for a number.
func (n *Numbers) next(num uint32) (claim, bool) {
	w := n.waiting[num]
	if len(w) == 0 {
		return claim{}, false
	}
	return slices.MinFunc(w, func(a, b claim) int { return a.key.Compare(b.key) }), true
}

// leave takes a key out of every queue that it waits in.
func (n *Numbers) leave(c claim) {
	for a := range c.attempt {
		n.stopWaiting(hash(c.key, a), c.key)
	}
}

func (n *Numbers) stopWaiting(num uint32, k Key) {
	w := slices.DeleteFunc(n.waiting[num], func(c claim) bool { return c.key == k })
	if len(w) == 0 {
		delete(n.waiting, num)
		return
	}
	n.waiting[num] = w
}

func usable(num uint32) bool { return num != 0 && num != Unknown }

// hash is a key's attempt-th number: a word of the key, which is a hash already, and after its eight words a new hash.
func hash(k Key, attempt int) uint32 {
	const words = sha256.Size / 4
	if attempt < words {
		return binary.BigEndian.Uint32(k[4*attempt:])
	}
	sum := sha256.Sum256(binary.BigEndian.AppendUint32(k[:], uint32(attempt)))
	return binary.BigEndian.Uint32(sum[:])
}
