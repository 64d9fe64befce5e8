package nft

import (
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"github.com/kithnet/kith/policy"
	"github.com/kithnet/kith/policy/random"
	"github.com/kithnet/kith/policy/ruleset"
	"github.com/kithnet/kith/policy/ruleset/walk"
)

// seeds is how many random changes of each kind are cut everywhere.
const seeds = uint64(100)

// TestCutOpensNothing: wherever a transaction is cut, nothing passes that passes neither before nor after it. One kind
// of thing changes at a time, and one direction decides.
func TestCutOpensNothing(t *testing.T) {
	cuts, denied := 0, 0
	for name, change := range map[string]func(*rand.Rand, policy.Cluster) policy.Cluster{
		"another policy": anotherPolicy, "other labels of pods elsewhere": otherLabels,
	} {
		for seed := range seeds {
			r := random.New(seed)
			c := random.Cluster(r)
			node, after := c.Nodes[0].Name, walk.Compile(change(r, c))
			cut, whole := walk.Compile(c), walk.Compile(c)
			flows := deniedOf(t, cut, flowsOf(r, c))
			steps := stepsOf(cut.Ruleset(node), after.Ruleset(node))
			for _, s := range steps {
				s.on(whole.Ruleset(node))
			}
			flows = deniedOf(t, whole, flows)
			for i, s := range steps {
				s.on(cut.Ruleset(node))
				if left := deniedOf(t, cut, flows); len(left) < len(flows) {
					t.Fatalf("%s, seed %d: of %v only %v are denied after step %d of %d: %+v", name, seed, flows, left, i+1, len(steps), s)
				}
			}
			cuts, denied = cuts+len(steps), denied+len(flows)
		}
	}
	t.Logf("%d flows stay denied over %d cuts", denied, cuts)
}

// flowsOf is flows that the first node decides in one direction only.
func flowsOf(r *rand.Rand, c policy.Cluster) []policy.Flow {
	var flows []policy.Flow
	for range 60 {
		if f := random.Flow(r, c); isFirst(c, f.Source) != isFirst(c, f.Destination) {
			flows = append(flows, f)
		}
	}
	return flows
}

// isFirst says that an address is of the pods of the first node.
func isFirst(c policy.Cluster, a netip.Addr) bool {
	return slices.ContainsFunc(c.Nodes[0].PodCIDRs, func(p netip.Prefix) bool { return p.Contains(a) })
}

// deniedOf is the flows that do not pass.
func deniedOf(t *testing.T, paths *walk.Paths, flows []policy.Flow) []policy.Flow {
	t.Helper()
	var denied []policy.Flow
	for _, f := range flows {
		passes, _, err := paths.Flow(f)
		if err != nil {
			t.Fatal(err)
		}
		if !passes {
			denied = append(denied, f)
		}
	}
	return denied
}

// anotherPolicy gives a policy other rules, or takes it away.
func anotherPolicy(r *rand.Rand, c policy.Cluster) policy.Cluster {
	if len(c.Policies) == 0 {
		return c
	}
	i := r.IntN(len(c.Policies))
	c.Policies = slices.Clone(c.Policies)
	if r.IntN(3) > 0 {
		for range 20 {
			for _, p := range random.Cluster(r).Policies {
				if was := &c.Policies[i]; p.Tier == was.Tier {
					was.Ingress, was.Egress = p.Ingress, p.Egress
					return c
				}
			}
		}
	}
	c.Policies = slices.Delete(c.Policies, i, i+1)
	return c
}

// otherLabels gives pods that have no address of the first node the labels of others.
func otherLabels(r *rand.Rand, c policy.Cluster) policy.Cluster {
	c.Pods = slices.Clone(c.Pods)
	for i, p := range c.Pods {
		if len(p.Addresses) > 0 && !isFirst(c, p.Addresses[0]) {
			c.Pods[i].Labels = random.Cluster(r).Pods[0].Labels
		}
	}
	return c
}

// stepsOf cuts what makes one ruleset of another as finely as it may be.
func stepsOf(have, want ruleset.Ruleset) []step {
	specs := map[string]ruleset.SetSpec{}
	for _, r := range []ruleset.Ruleset{have, want} {
		for name, s := range r.Sets {
			specs[name] = s.SetSpec
		}
	}
	var out []step
	for _, s := range stages(ruleset.Diff(have, want), specs) {
		out = append(out, step{sets: s.sets, chains: s.chains})
		for n, c := range s.changes {
			if n > 0 && c.tied {
				last := &out[len(out)-1]
				last.changes = append(last.changes, c)
				continue
			}
			out = append(out, step{changes: []change{c}})
		}
		for _, c := range s.rules {
			out = append(out, step{rules: []ruleset.Chain{c}})
		}
		out = append(out, step{deleteChains: s.deleteChains, deleteSets: s.deleteSets})
	}
	return slices.DeleteFunc(out, func(s step) bool { return reflect.DeepEqual(s, step{}) })
}

// step is a part of a stage that is never cut.
type step stage

// on does a step to a ruleset, as the kernel would.
func (s step) on(r ruleset.Ruleset) {
	for _, spec := range s.sets {
		r.Sets[spec.Name] = &ruleset.Set{SetSpec: spec, Elements: map[ruleset.Key]ruleset.Value{}}
	}
	for _, spec := range s.chains {
		r.Chains[spec.Name] = &ruleset.Chain{ChainSpec: spec}
	}
	for _, c := range s.changes {
		if c.delete {
			delete(r.Sets[c.Set].Elements, c.Key)
		} else {
			r.Sets[c.Set].Elements[c.Key] = c.Value
		}
	}
	for _, c := range s.rules {
		r.Chains[c.Name] = &c
	}
	for _, name := range s.deleteChains {
		delete(r.Chains, name)
	}
	for _, name := range s.deleteSets {
		delete(r.Sets, name)
	}
}
