package ruleset

import "github.com/kithnet/kith/policy"

// memo is what was found out of rules within one settle: a policy may be in as many chains as there are pods here.
type memo struct {
	ranges map[peersOf]ranged
	lists  map[string]families // by what is in them
}

// peersOf is the peers of a rule, which do not change where they stand.
type peersOf struct {
	first  *policy.Peer
	length int
}

// ranged is ranges, sorted and disjoint, and the key that tells them from others.
type ranged struct {
	ranges []addrRange
	key    string
}

func newMemo() memo { return memo{map[peersOf]ranged{}, map[string]families{}} }

// ranged is the addresses of a rule's peers that are blocks or nodes.
func (c *Compiler) ranged(peers []policy.Peer) ranged {
	if len(peers) == 0 {
		return ranged{}
	}
	at := peersOf{&peers[0], len(peers)}
	if known, ok := c.dirty.memo.ranges[at]; ok {
		return known
	}
	var blocks, nodes []addrRange
	for _, peer := range peers {
		switch {
		case peer.Block != nil:
			blocks = append(blocks, blockRanges(*peer.Block)...)
		case peer.Nodes != nil:
			nodes = append(nodes, nodeRanges(peer, c.network.Nodes)...)
		}
	}
	if len(blocks) > 0 {
		blocks = withNodes(mergeRanges(blocks), c.network.Nodes)
	}
	r := makeRanged(append(blocks, nodes...))
	c.dirty.memo.ranges[at] = r
	return r
}

func makeRanged(ranges []addrRange) ranged {
	ranges = mergeRanges(ranges)
	return ranged{ranges, rangesKey(ranges)}
}

// remember is the lists of which the content is known by a key. They are made if they are not there.
func (b *builder) remember(key string, make func() families) families {
	known, ok := b.compiler.dirty.memo.lists[key]
	if !ok {
		known = make()
		b.compiler.dirty.memo.lists[key] = known
		return known
	}
	for _, name := range []string{known.four, known.six} {
		if name != "" {
			b.compiler.lists[name].users++
			b.lists = append(b.lists, name)
		}
	}
	return known
}
