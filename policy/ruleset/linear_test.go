package ruleset

import (
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/kithnet/kith/identity"
	"github.com/kithnet/kith/policy"
)

// network is the nth of networks that do not touch.
func network(n int) policy.Peer {
	return policy.Peer{Block: &policy.Block{CIDR: netip.PrefixFrom(netip.AddrFrom4([4]byte{192, byte(n >> 7), byte(n << 1), 0}), 24)}}
}

func networks(n int) []policy.Peer {
	out := make([]policy.Peer, n)
	for i := range out {
		out[i] = network(i)
	}
	return out
}

// ports are ports that do not touch.
func portsApart(n int) []policy.Port {
	out := make([]policy.Port, n)
	for i := range out {
		out[i] = tcp(uint16(2*i+1), uint16(2*i+1))
	}
	return out
}

// strangers are pods elsewhere, each of another identity.
func strangers(n int) []identity.Pod {
	pods := make([]identity.Pod, n)
	for i := range pods {
		name := fmt.Sprintf("stranger%d", i)
		pods[i] = identity.Pod{
			Namespace: "coffee", Name: name, UID: name, Labels: map[string]string{"stranger": fmt.Sprint(i)},
			Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 244, 3, byte(i)})},
		}
	}
	return pods
}

// under is the small cluster with more pods, and one policy on all pods of its namespace.
func under(pods []identity.Pod, rules ...policy.Rule) Input {
	in := coffee()
	in.Pods = append(in.Pods, pods...)
	in.Policies = []policy.Policy{{Namespace: "coffee", Name: "p", Egress: isolate(rules...)}}
	return in
}

func size(r Ruleset) int {
	n := 0
	for _, s := range r.Sets {
		n += len(s.Elements)
	}
	return n
}

// TestPolicyCostsItsSum: what a policy comes to in the kernel grows with the sum of what it names, not with the product, and
// the rules that a packet walks do not grow at all.
func TestPolicyCostsItsSum(t *testing.T) {
	const many = 200
	all := policy.Peer{OwnNamespace: true, Pods: selector(t, "*")}
	var holes []netip.Prefix
	for i := range many {
		holes = append(holes, netip.PrefixFrom(network(i).Block.CIDR.Addr(), 25))
	}
	var eachPort, eachNetwork, eachPair, eachClass []policy.Rule
	for i := range many {
		eachPort = append(eachPort, policy.Rule{Peers: []policy.Peer{all, network(0)}, Ports: portsApart(many)[i : i+1]})
		eachNetwork = append(eachNetwork, policy.Rule{Peers: networks(many)[i : i+1], Ports: portsApart(many)})
		eachPair = append(eachPair, policy.Rule{Peers: networks(many)[i : i+1], Ports: portsApart(many)[i : i+1]})
		stranger := policy.Peer{OwnNamespace: true, Pods: selector(t, fmt.Sprintf("stranger=%d", i))}
		eachClass = append(eachClass, policy.Rule{Peers: []policy.Peer{network(i), stranger}, Ports: portsApart(5 * many)[5*i : 5*i+5]})
	}
	for name, in := range map[string]Input{
		"a class for each":              under(strangers(many), eachClass...),
		"networks and ports":            under(nil, policy.Rule{Peers: networks(many), Ports: portsApart(many)}),
		"identities and ports":          under(strangers(many), policy.Rule{Peers: []policy.Peer{all}, Ports: portsApart(many)}),
		"identities and ranges":         under(strangers(many), policy.Rule{Peers: []policy.Peer{all}, Ports: []policy.Port{tcp(1, 9), tcp(20, 29), tcp(40, 49)}}),
		"holes and ports":               under(nil, policy.Rule{Peers: []policy.Peer{{Block: &policy.Block{CIDR: netip.MustParsePrefix("192.0.0.0/8"), Except: holes}}}, Ports: portsApart(many)}),
		"a rule for each port":          under(strangers(many), eachPort...),
		"a rule for each network":       under(nil, eachNetwork...),
		"a rule for each, of each":      under(nil, eachPair...),
		"networks under few ports each": under(nil, policy.Rule{Peers: networks(many), Ports: portsApart(few)}),
	} {
		in.Policies[0].Subject = selector(t, "*")
		empty := in
		empty.Policies = nil
		r := Compile(in)
		if got, limit := size(r)-size(Compile(empty)), few*4*many; got > limit {
			t.Errorf("%s: %d elements, more than %d", name, got, limit)
		}
		for chain, c := range r.Chains {
			if len(c.Rules) > 25 {
				t.Errorf("%s: chain %s has %d rules", name, chain, len(c.Rules))
			}
		}
	}
}

// TestHolesInTheirOrder: taking holes out of a block makes one list, not one for each hole.
func TestHolesInTheirOrder(t *testing.T) {
	cost := func(n int) float64 {
		holes := make([]addrRange, n)
		for i := range holes {
			holes[i] = prefixRange(network(i).Block.CIDR)
		}
		whole := prefixRange(netip.MustParsePrefix("192.0.0.0/8"))
		return testing.AllocsPerRun(1, func() { subtract(whole, holes) })
	}
	if few, many := cost(100), cost(1600); many > 4*few+100 {
		t.Errorf("%.0f allocations for 100 holes are %.0f for 1600", few, many)
	}
}

// TestIntervalsAreReplaced: of a set of intervals nothing is ever taken out: the kernel is slow there. What changes is
// another set, and what stays the same is not written.
func TestIntervalsAreReplaced(t *testing.T) {
	rule := func(n, ports int) policy.Rule { return policy.Rule{Peers: networks(n), Ports: portsApart(ports)} }
	for name, change := range map[string][2]policy.Rule{
		"fewer networks":               {rule(1000, 10), rule(500, 10)},
		"fewer networks, of one port":  {rule(600, 1), rule(300, 1)},
		"fewer ports":                  {rule(100, 100), rule(100, 50)},
		"fewer networks, of all ports": {{Peers: networks(100), AllPorts: true}, {Peers: networks(50), AllPorts: true}},
	} {
		for _, tier := range []policy.Tier{policy.NetworkPolicy, policy.Admin} {
			in := under(nil, change[0])
			p := &in.Policies[0]
			p.Tier, p.Subject, p.Namespaces = tier, selector(t, "*"), selector(t, "*")
			if tier == policy.Admin {
				p.Namespace = ""
			}
			c := CompilerOf(in)
			c.Commit()
			p.Egress = isolate(change[1])
			c.PutPolicy(*p)
			specs := c.Ruleset().Sets
			tx := c.Commit()
			for _, e := range tx.DeleteElements {
				if specs[e.Set] == nil || specs[e.Set].Interval {
					t.Fatalf("%s, %s: an element is taken out of %s", name, tier, e.Set)
				}
			}
			if len(tx.DeleteSets) == 0 {
				t.Errorf("%s, %s: no set is deleted", name, tier)
			}
		}
	}
}

// TestListsAreShared: policies that name the same networks have one list of them, which goes with the last.
func TestListsAreShared(t *testing.T) {
	in := coffee()
	for i, name := range []string{"coffee", "tea"} {
		in.Policies = append(in.Policies, policy.Policy{Namespace: name, Name: "p", Subject: selector(t, "*"), Egress: isolate(
			policy.Rule{Peers: slices.Concat(networks(300), []policy.Peer{network(0)}), Ports: portsApart(10 + i)},
		)})
	}
	c := CompilerOf(in)
	lists := func() map[string]int {
		out := map[string]int{}
		for name := range c.Ruleset().Sets {
			if kind, _, ok := strings.Cut(name, "_"); ok && (ElementChange{Set: name}).Listed() {
				out[kind]++
			}
		}
		return out
	}
	if got := lists(); got["net4"] != 1 || got["ports"] != 2 {
		t.Errorf("two policies have the lists %v", got)
	}
	c.DeletePolicy(in.Policies[0].Key())
	if got := lists(); got["net4"] != 1 || got["ports"] != 1 {
		t.Errorf("the policy that is left has the lists %v", got)
	}
	c.DeletePolicy(in.Policies[1].Key())
	if got := lists(); len(got) > 0 || len(c.lists) > 0 {
		t.Errorf("no policy has the lists %v", got)
	}
}

// TestHashesMayMeet: chains, lists and sets of which the hash is the same share nothing.
func TestHashesMayMeet(t *testing.T) {
	many := bigCluster(t) // of chains and lists
	many.Pods, many.Policies = many.Pods[:2000], many.Policies[:200]
	for i := range many.Policies {
		many.Policies[i].Egress = isolate(policy.Rule{Peers: networks(i%7 + 1), Ports: portsApart(i%5 + 4)})
	}
	sameWith(t, many, func(s string) string { return hash128(s)[:2] })
	one := under(strangers(60)) // of chains, with many sets
	for i := range 60 {
		own := policy.Peer{OwnNamespace: true, Pods: selector(t, fmt.Sprintf("stranger!=%d", i))}
		far := policy.Peer{Namespaces: selector(t, "*"), Pods: own.Pods}
		one.Policies = append(one.Policies, policy.Policy{
			Namespace: "coffee", Name: fmt.Sprint(i), Subject: selector(t, "*"), Ingress: isolate(policy.Rule{Peers: []policy.Peer{own}, Ports: portsApart(5 + i)}),
		}, policy.Policy{
			Tier: policy.Admin, Name: fmt.Sprint(i), Namespaces: selector(t, "*"), Subject: selector(t, "*"), Priority: int32(i),
			Ingress: isolate(policy.Rule{Action: policy.Action(i % 2), Peers: []policy.Peer{far}, AllPorts: true}),
		})
	}
	sameWith(t, one, func(s string) string { return hash128(s)[:1] + fmt.Sprint(hash128(s)[1]%5) })
}

// sameWith compares what rules mean when names are hashes that meet with what they mean when these do not.
func sameWith(t *testing.T, in Input, hash func(string) string) {
	t.Helper()
	want := meanings(Compile(in))
	c := NewCompiler()
	c.hash = hash
	c.SetNetwork(in.Network)
	c.ReplaceNamespaces(in.Namespaces)
	c.ReplacePods(in.Pods)
	c.ReplacePolicies(in.Policies)
	c.ReplaceAttachments(in.Attachments)
	got := meanings(c.Ruleset())
	for key, rules := range want {
		if got[key] != rules {
			t.Fatalf("%s is sent to\n%s\nnot to\n%s", key, got[key], rules)
		}
	}
}

var setName = regexp.MustCompile(`@\S+`)

// meanings are the rules that each subject is sent to, with what their sets hold instead of the names.
func meanings(r Ruleset) map[string]string {
	out := map[string]string{}
	for name, s := range r.Sets {
		for k, v := range s.Elements {
			if s.Data == TypeVerdict && !(ElementChange{Set: name}).Listed() {
				out[name+" "+s.key(k)] = meaning(r, v.Verdict.Chain)
			}
		}
	}
	return out
}

// meaning is the rules of a chain, and of those that it sends to.
func meaning(r Ruleset, chain string) string {
	var b strings.Builder
	for _, rule := range r.Chains[chain].Rules {
		b.WriteString(setName.ReplaceAllStringFunc(rule.String(), func(set string) string {
			s := r.Sets[set[1:]]
			var keys []string
			for _, k := range slices.SortedFunc(maps.Keys(s.Elements), Key.Compare) {
				keys = append(keys, s.key(k))
				if way := s.Elements[k].Verdict.Chain; way != "" {
					keys = append(keys, ": {"+meaning(r, way)+"}")
				}
			}
			return strings.Join(keys, " ")
		}))
		b.WriteByte('\n')
	}
	return b.String()
}
