package main

import (
	"fmt"
	"net/netip"
	"sync"

	"github.com/kithnet/kith/identity"
	identitykube "github.com/kithnet/kith/identity/kube"
	"github.com/kithnet/kith/policy"
	"github.com/kithnet/kith/policy/ruleset"
)

// screen hands the compiler pods with the addresses that count, and remembers who stated others.
type screen struct {
	mu     sync.Mutex
	screen *identity.Screen
}

func newScreen() *screen { return &screen{screen: identity.NewScreen()} }

// take hands on a change of pods.
func (s *screen) take(c identitykube.PodChange, r *ruleset.Compiler) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.All {
		r.ReplacePods(s.screen.Pods(c.Put))
		return
	}
	for _, p := range c.Put {
		r.PutPod(s.screen.Pod(p))
	}
	for _, k := range c.Delete {
		s.screen.Forget(k)
		r.DeletePod(k)
	}
}

// nodes hands on the pods that count otherwise now that nodes have other pod CIDRs.
func (s *screen) nodes(nodes []policy.Node, r *ruleset.Compiler) {
	s.mu.Lock()
	defer s.mu.Unlock()
	homes := make(map[string][]netip.Prefix, len(nodes))
	for _, n := range nodes {
		homes[n.Name] = n.PodCIDRs
	}
	for _, p := range s.screen.SetHomes(homes) {
		r.PutPod(p)
	}
}

// maxDoubts bounds how many pods Problems names: whoever makes such pods can make many.
const maxDoubts = 8

// Problems says which pods' addresses do not count.
func (s *screen) Problems() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for i, p := range s.screen.Doubted() {
		if i == maxDoubts {
			return append(out, "more pods state addresses that are not of their nodes")
		}
		where := "is on no node"
		if p.Node != "" {
			where = "is on node " + p.Node + ", whose pod CIDRs have not all of them"
		}
		out = append(out, fmt.Sprintf("pod %s states the addresses %v and %s: these are not believed; see who writes its status", p.Key(), p.Addresses, where))
	}
	return out
}
