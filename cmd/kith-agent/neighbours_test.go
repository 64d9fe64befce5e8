package main

import (
	"slices"
	"testing"

	"github.com/kithnet/kith/overlay"
)

// TestReachedBy: a node's neighbours are those on the way to what no pod CIDR may take, and to other nodes.
func TestReachedBy(t *testing.T) {
	b := overlay.Bounds{Self: "n1", Reserved: []overlay.Reserved{reserve(addrs("192.0.2.254")[0], "this node's gateway"), {Range: prefixes("198.51.100.0/24")[0]}}}
	nodes := []overlay.Node{{Name: "n1", InternalIPs: addrs("192.0.2.1")}, {Name: "n2", InternalIPs: addrs("192.0.2.2", "2001:db8::2")}}
	if got, want := reachedBy(b, nodes), addrs("192.0.2.254", "192.0.2.2", "2001:db8::2"); !slices.Equal(got, want) {
		t.Errorf("reached: %v, want %v", got, want)
	}
}
