package main

import (
	"fmt"
	"log/slog"
	"sync"

	"github.com/kithnet/kith/identity"
	identitykube "github.com/kithnet/kith/identity/kube"
	"github.com/kithnet/kith/policy/ruleset"
)

// order keeps changes of labels behind the policies that were made before them. Each kind of object has a watch of its own,
// and one may be ahead of the other: a pod would lose the policy of its old labels before the policy of its new ones is
// known, and a peer would be allowed by a policy that allows it no longer. So a change that may open something, as far as
// policies are known, takes effect when the watches of policies have brought what the API server had when it came. Nothing
// else waits.
type order struct {
	log      *slog.Logger
	enforcer *enforcer
	screen   *screen
	sources  orderSources
	nodes    func() int    // how many nodes ask the API server
	came     chan struct{} // signals that something is held

	mu    sync.Mutex
	on    bool
	held  map[labelled]heldChange // not asked about yet
	asked map[labelled]heldChange // waiting for an answer
	doubt string
}

// labelled is a pod or, without a name, a namespace.
type labelled = identity.PodKey

// heldChange is what an object became. Of pod and namespace one is set.
type heldChange struct {
	pod       *identity.Pod
	namespace *identity.Namespace
	stake     ruleset.Stake
}

func newOrder(log *slog.Logger, e *enforcer, s *screen, sources orderSources, nodes func() int) *order {
	return &order{
		log: log, enforcer: e, screen: s, sources: sources, nodes: nodes, came: make(chan struct{}, 1),
		held: map[labelled]heldChange{}, asked: map[labelled]heldChange{},
	}
}

// begin says that changes wait from now on. Before the input is complete nothing is written, and nothing needs to wait.
func (o *order) begin() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.on = true
}

// holds says whether a change of a pod or of its namespace is held.
func (o *order) holds(pod identity.PodKey) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, k := range []labelled{pod, {Namespace: pod.Namespace}} {
		if _, held := o.held[k]; held {
			return true
		}
		if _, asked := o.asked[k]; asked {
			return true
		}
	}
	return false
}

// pods hands on a change of pods, but for what is held. Of a pod of which a change is held all but labels and ports is
// handed on: its addresses are its own, and it may end.
func (o *order) pods(c identitykube.PodChange, r *ruleset.Compiler) {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := identitykube.PodChange{All: c.All, Delete: c.Delete}
	if c.All {
		there := make(map[labelled]bool, len(c.Put))
		for _, p := range c.Put {
			there[p.Key()] = true
		}
		o.forget(func(k labelled) bool { return k.Name == "" || there[k] })
	}
	for _, k := range c.Delete {
		o.drop(k)
	}
	for _, p := range c.Put {
		stake, at := ruleset.Stake{}, false
		if o.on {
			stake, at = r.PodStake(p)
		}
		if !at {
			o.drop(p.Key())
			now.Put = append(now.Put, p)
			continue
		}
		is := p
		o.hold(p.Key(), heldChange{pod: &is, stake: stake})
		if before, known := r.Known(p.Key()); known && before.UID == p.UID {
			p.Labels, p.Ports = before.Labels, before.Ports
			now.Put = append(now.Put, p)
		} else if known {
			now.Delete = append(now.Delete, p.Key())
		}
	}
	o.screen.take(now, r)
}

// namespaces hands on a change of namespaces, but for what is held.
func (o *order) namespaces(c identitykube.NamespaceChange, r *ruleset.Compiler) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if c.All {
		there := make(map[string]bool, len(c.Put))
		for _, n := range c.Put {
			there[n.Name] = true
		}
		o.forget(func(k labelled) bool { return k.Name != "" || there[k.Namespace] })
	}
	var now []identity.Namespace
	for _, n := range c.Put {
		k := labelled{Namespace: n.Name}
		stake, at := ruleset.Stake{}, false
		if o.on {
			stake, at = r.NamespaceStake(n)
		}
		if !at {
			o.drop(k)
			now = append(now, n)
			continue
		}
		o.hold(k, heldChange{namespace: &n, stake: stake})
		if before, known := r.KnownNamespace(n.Name); known {
			now = append(now, before)
		}
	}
	if c.All {
		r.ReplaceNamespaces(now)
		return
	}
	for _, n := range now {
		r.PutNamespace(n)
	}
	for _, name := range c.Delete {
		o.drop(labelled{Namespace: name})
		r.DeleteNamespace(name)
	}
}

func (o *order) hold(k labelled, c heldChange) {
	o.held[k] = c
	nudge(o.came)
}

// drop forgets what is held of an object: it is gone, or is again what nobody waits for.
func (o *order) drop(k labelled) {
	delete(o.held, k)
	delete(o.asked, k)
}

func (o *order) forget(but func(labelled) bool) {
	for _, all := range []map[labelled]heldChange{o.held, o.asked} {
		for k := range all {
			if !but(k) {
				delete(all, k)
			}
		}
	}
}

// ask takes out what is to be asked about now. What an object became after that waits for the next time: an object that
// changes all the time is not held for ever.
func (o *order) ask() map[labelled]heldChange {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := map[labelled]heldChange{}
	for k, c := range o.held {
		if _, waits := o.asked[k]; !waits {
			now[k], o.asked[k] = c, c
			delete(o.held, k)
		}
	}
	return now
}

// release hands on what was held, unless the object is gone or another one since.
func (o *order) release(keys []labelled, r *ruleset.Compiler) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, k := range keys {
		c, still := o.asked[k]
		if !still {
			continue
		}
		delete(o.asked, k)
		if c.namespace != nil {
			r.PutNamespace(*c.namespace)
		} else {
			o.releasePod(*c.pod, r)
		}
	}
	if len(o.held) > 0 {
		nudge(o.came)
	}
}

// releasePod gives a pod its labels. All else is as it became since.
func (o *order) releasePod(p identity.Pod, r *ruleset.Compiler) {
	if c, newer := o.held[p.Key()]; newer {
		if c.pod.UID != p.UID {
			return
		}
		labels, ports := p.Labels, p.Ports
		p = *c.pod
		p.Labels, p.Ports = labels, ports
	}
	o.screen.take(identitykube.PodChange{Put: []identity.Pod{p}}, r)
	if c, newer := o.held[p.Key()]; newer && r.SameLabels(*c.pod) {
		delete(o.held, p.Key())
	}
}

// Problems says that something took effect before all was known.
func (o *order) Problems() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.doubt == "" {
		return nil
	}
	return []string{fmt.Sprintf("changes of labels took effect after %v, before it was certain which policies were made before them: %s", orderLimit, o.doubt)}
}
