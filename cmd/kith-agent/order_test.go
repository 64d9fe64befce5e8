package main

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/metadata"
	metadatafake "k8s.io/client-go/metadata/fake"
	kubetesting "k8s.io/client-go/testing"
	"sigs.k8s.io/yaml"

	"github.com/kithnet/kith/identity"
	identitykube "github.com/kithnet/kith/identity/kube"
	"github.com/kithnet/kith/policy"
	policykube "github.com/kithnet/kith/policy/kube"
	"github.com/kithnet/kith/policy/random"
	"github.com/kithnet/kith/policy/ruleset"
	"github.com/kithnet/kith/policy/ruleset/walk"
)

// witness is a table that looks at everything that is ever in it.
type witness struct {
	*memoryTable
	look func(ruleset.Ruleset)
}

func (w witness) Apply(ctx context.Context, t ruleset.Transaction) error {
	err := w.memoryTable.Apply(ctx, t)
	have, _ := w.Read(ctx)
	w.look(have)
	return err
}

// upToDate is a watch that has brought all there is.
type upToDate struct{}

func (upToDate) CatchUpAll(context.Context) error               { return nil }
func (upToDate) CatchUpIn(context.Context, string) error        { return nil }
func (upToDate) CatchUpNamespaces(context.Context) error        { return nil }
func (upToDate) CatchUpNamespace(context.Context, string) error { return nil }

// lateAPI is an agent of which the watch of NetworkPolicies is late: it brings what the test lets it.
type lateAPI struct {
	*agent
	watch *watch.FakeWatcher
	asked chan struct{} // for what there is

	mu    sync.Mutex
	there networkingv1.NetworkPolicyList
}

func networkPolicy(t *testing.T, text string) networkingv1.NetworkPolicy {
	t.Helper()
	var np networkingv1.NetworkPolicy
	if err := yaml.UnmarshalStrict([]byte(text), &np); err != nil {
		t.Fatal(err)
	}
	return np
}

func (l *lateAPI) set(version string, all ...networkingv1.NetworkPolicy) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.there = networkingv1.NetworkPolicyList{Items: all}
	l.there.ResourceVersion = version
}

// startLate starts an agent that knows a policy of the version 5, and says to look all that its table ever holds.
func startLate(t *testing.T, first networkingv1.NetworkPolicy, look func(ruleset.Ruleset), things ...func(*ruleset.Compiler)) *lateAPI {
	t.Helper()
	e := newEnforcer(slog.New(slog.DiscardHandler), witness{&memoryTable{}, look})
	l := &lateAPI{agent: &agent{log: e.log, screen: newScreen(), enforcer: e}, watch: watch.NewFake(), asked: make(chan struct{}, 1000)}
	l.cfg.Policy.MaxElements = policy.MaxElements
	l.set("5", first)
	client := fake.NewClientset()
	client.PrependReactor("list", "networkpolicies", func(kubetesting.Action) (bool, runtime.Object, error) {
		l.mu.Lock()
		defer l.mu.Unlock()
		return true, l.there.DeepCopy(), nil
	})
	client.PrependWatchReactor("networkpolicies", func(kubetesting.Action) (bool, watch.Interface, error) { return true, l.watch, nil })
	var err error
	if l.policies, err = policykube.New(client, l.names(), l.policyChanged); err != nil {
		t.Fatal(err)
	}
	l.order = newOrder(e.log, e, l.screen, orderSources{l.policies, upToDate{}, upToDate{}}, func() int { return 1 })
	ctx, cancel := context.WithCancel(context.Background())
	var tasks sync.WaitGroup
	for _, task := range []task{e.run, l.policies.Run, l.order.run, l.order.complete} {
		tasks.Go(func() {
			if err := task(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(func() { cancel(); tasks.Wait() })
	e.Update(func(c *ruleset.Compiler) {
		c.PutNamespace(identity.Namespace{Name: "shop"})
		c.SetNetwork(ruleset.Network{Node: "n1", Nodes: []policy.Node{{Name: "n1", PodCIDRs: prefixes("10.244.1.0/24")}}})
		for _, thing := range things {
			thing(c)
		}
	})
	l.await(t, func(*ruleset.Compiler) bool { return isClosed(e.complete) })
	for len(l.asked) > 0 {
		<-l.asked
	}
	return l
}

// names answers what policies there are.
func (l *lateAPI) names() metadata.Interface {
	scheme := metadatafake.NewTestScheme()
	if err := metav1.AddMetaToScheme(scheme); err != nil {
		panic(err)
	}
	client := metadatafake.NewSimpleMetadataClient(scheme)
	client.PrependReactor("list", "networkpolicies", func(kubetesting.Action) (bool, runtime.Object, error) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.asked <- struct{}{}
		list := metav1.List{ListMeta: l.there.ListMeta} // as the fake client wants it
		for _, np := range l.there.Items {
			list.Items = append(list.Items, runtime.RawExtension{Object: &metav1.PartialObjectMetadata{ObjectMeta: np.ObjectMeta}})
		}
		return true, &list, nil
	})
	return client
}

func (l *lateAPI) await(t *testing.T, settled func(*ruleset.Compiler) bool) {
	t.Helper()
	if err := l.enforcer.Await(t.Context(), func(*ruleset.Compiler) {}, settled); err != nil {
		t.Fatal(err)
	}
}

// awaitQuestion returns when the API server is asked what policies there are, or the pod has its labels without that.
func (l *lateAPI) awaitQuestion(t *testing.T, p identity.Pod) {
	t.Helper()
	overtook := false
	l.await(t, func(c *ruleset.Compiler) bool { overtook = c.SameLabels(p); return true })
	if !overtook {
		<-l.asked
	}
}

func (l *lateAPI) pod(p identity.Pod) {
	l.podsChanged(identitykube.PodChange{Put: []identity.Pod{p}})
}

const isolateOld = `{metadata: {namespace: shop, name: old, resourceVersion: "5"}, spec: {podSelector: {matchLabels: {x: "0"}}, policyTypes: [Ingress]}}`

// TestLabelsDoNotOvertakePolicies: a policy that isolates x=1 is made, and then a pod that another isolates gets the label.
// The watch of pods is the faster one. At no moment the pod is isolated by neither.
func TestLabelsDoNotOvertakePolicies(t *testing.T) {
	pod := identity.Pod{Namespace: "shop", Name: "api", UID: "u1", Labels: map[string]string{"x": "0"}}
	key := ruleset.Key{Low: string(testAttachment.Addresses[0].AsSlice())}
	opened := false
	l := startLate(t, networkPolicy(t, isolateOld), func(have ruleset.Ruleset) {
		opened = opened || len(have.Sets[ruleset.SetOpened].Elements) > 0
		if _, isolated := have.Sets["ingress4"].Elements[key]; opened && !isolated {
			t.Error("the pod is not isolated")
		}
	}, func(c *ruleset.Compiler) { c.PutPod(pod); c.PutAttachment(attachment(testAttachment)) })
	isolateNew := networkPolicy(t, `{metadata: {namespace: shop, name: new, resourceVersion: "8"}, spec: {podSelector: {matchLabels: {x: "1"}}, policyTypes: [Ingress]}}`)
	l.set("8", networkPolicy(t, isolateOld), isolateNew)
	pod.Labels = map[string]string{"x": "1"}
	l.pod(pod)
	l.awaitQuestion(t, pod)
	l.watch.Add(&isolateNew)
	l.await(t, func(c *ruleset.Compiler) bool { return c.SameLabels(pod) })
	l.await(t, func(*ruleset.Compiler) bool { return true })
	if !opened {
		t.Error("the pod was never open: this shows nothing")
	}
}

// TestPeersDoNotOvertakePolicies: a policy comes to allow z=1 no longer, and then a pod elsewhere gets the label, or is made.
func TestPeersDoNotOvertakePolicies(t *testing.T) {
	const text = `{metadata: {namespace: shop, name: p, resourceVersion: "%d"}, spec: {podSelector: {matchLabels: {x: "0"}}, ingress: [{from: [{podSelector: {matchLabels: {z: "%d"}}}]}]}}`
	address := netip.MustParseAddr("10.244.2.7")
	for name, before := range map[string]map[string]string{"relabelled": {"z": "0"}, "new": nil} {
		t.Run(name, func(t *testing.T) {
			peer := identity.Pod{Namespace: "shop", Name: "peer", UID: "u2", Labels: before, Node: "n2", Addresses: []netip.Addr{address}}
			subject := identity.Pod{Namespace: "shop", Name: "api", UID: "u1", Labels: map[string]string{"x": "0"}}
			old, edited := networkPolicy(t, fmt.Sprintf(text, 5, 1)), networkPolicy(t, fmt.Sprintf(text, 8, 2))
			l := startLate(t, old, func(have ruleset.Ruleset) {
				if _, named := have.Sets["identity4"].Elements[ruleset.Key{Low: string(address.AsSlice())}]; named {
					t.Error("the pod is one that the policy allows")
				}
			}, func(c *ruleset.Compiler) {
				c.PutPod(subject)
				c.PutAttachment(attachment(testAttachment))
				if before != nil {
					c.PutPod(peer)
				}
			})
			l.enforcer.Update(func(c *ruleset.Compiler) {
				l.screen.nodes([]policy.Node{{Name: "n2", PodCIDRs: prefixes("10.244.2.0/24")}}, c)
			})
			l.set("8", edited)
			peer.Labels = map[string]string{"z": "1"}
			l.pod(peer)
			l.awaitQuestion(t, peer)
			l.watch.Modify(&edited)
			l.await(t, func(c *ruleset.Compiler) bool { return c.SameLabels(peer) })
			l.await(t, func(*ruleset.Compiler) bool { return true })
		})
	}
}

// TestADDWaitsForLabelsThatAreHeld: what ADD promises to know includes what is held.
func TestADDWaitsForLabelsThatAreHeld(t *testing.T) {
	e, _ := startEnforcer(t, &memoryTable{})
	o := newOrder(e.log, e, newScreen(), orderSources{}, func() int { return 1 })
	e.Update(func(c *ruleset.Compiler) { putInput(c); putPod(c) })
	e.Complete()
	pod := identity.PodKey{Namespace: "shop", Name: "api"}
	o.held[pod] = heldChange{pod: &identity.Pod{Namespace: "shop", Name: "api", UID: "u1", Labels: map[string]string{"x": "1"}}}
	opened := make(chan error, 1)
	go func() { opened <- gate{enforcer: e, order: o}.Open(t.Context(), testAttachment) }()
	assertWaits(t, opened, "with labels held")
	keys := slices.Collect(maps.Keys(o.ask()))
	assertWaits(t, opened, "with labels asked about")
	e.Update(func(c *ruleset.Compiler) { o.release(keys, c) })
	if err := <-opened; err != nil {
		t.Error(err)
	}
}

// TestOrderEndsAsTheAPIHasIt: whatever is held and released, and whatever else becomes of it meanwhile, in the end every
// pod and namespace is what it was at last, and nothing is held.
func TestOrderEndsAsTheAPIHasIt(t *testing.T) {
	held := 0
	for seed := range uint64(100) {
		r := random.New(seed)
		c := random.Cluster(r)
		in := walk.Input(c, c.Nodes[0].Name)
		compiler := ruleset.CompilerOf(in)
		o := newOrder(slog.New(slog.DiscardHandler), nil, newScreen(), orderSources{}, func() int { return 1 })
		o.screen.nodes(in.Network.Nodes, compiler)
		for i := range in.Pods {
			in.Pods[i].Node = home(in, in.Pods[i])
		}
		o.pods(identitykube.PodChange{All: true, Put: in.Pods}, compiler)
		o.begin()
		var asked []labelled
		for range 60 {
			held += len(o.held)
			switch r.IntN(4) {
			case 0:
				asked = append(asked, slices.Collect(maps.Keys(o.ask()))...)
			case 1:
				o.release(asked, compiler)
				asked = nil
			default:
				happen(r, &in, o, compiler)
			}
		}
		for range 3 {
			o.release(append(asked, slices.Collect(maps.Keys(o.ask()))...), compiler)
		}
		want := ruleset.CompilerOf(in).Ruleset()
		if d := cmp.Diff(want.String(), compiler.Ruleset().String()); d != "" || len(o.held)+len(o.asked) > 0 {
			t.Fatalf("seed %d: %d held, %d asked, ruleset (-want +got)\n%s", seed, len(o.held), len(o.asked), d)
		}
	}
	if held < 400 {
		t.Errorf("held only %d times: this shows little", held)
	}
}

// home is the node of a pod's addresses, or of none if they are of several.
func home(in ruleset.Input, p identity.Pod) string {
	for _, n := range in.Network.Nodes {
		for _, cidr := range n.PodCIDRs {
			if len(p.Addresses) > 0 && cidr.Contains(p.Addresses[0]) {
				return n.Name
			}
		}
	}
	return ""
}

// happen changes something.
func happen(r *rand.Rand, in *ruleset.Input, o *order, c *ruleset.Compiler) {
	other := random.Cluster(r)
	if r.IntN(5) == 0 {
		n := &in.Namespaces[r.IntN(len(in.Namespaces))]
		n.Labels = other.Namespaces[0].Labels
		change := identitykube.NamespaceChange{Put: []identity.Namespace{*n}}
		if r.IntN(3) == 0 {
			change = identitykube.NamespaceChange{All: true, Put: in.Namespaces}
		}
		o.namespaces(change, c)
		return
	}
	if len(in.Pods) == 0 {
		return
	}
	in.Pods = slices.Clone(in.Pods)
	i := r.IntN(len(in.Pods))
	p := &in.Pods[i]
	change := identitykube.PodChange{Put: []identity.Pod{*p}}
	switch r.IntN(8) {
	case 0:
		change = identitykube.PodChange{Delete: []identity.PodKey{p.Key()}}
		in.Pods = slices.Delete(in.Pods, i, i+1)
	case 1:
		p.Addresses = nil
		change.Put[0] = *p
	case 2:
		p.UID, p.Labels = fmt.Sprint(p.UID, r.IntN(100)), other.Pods[0].Labels
		change.Put[0] = *p
	case 3:
		p.Labels = other.Pods[0].Labels
		change = identitykube.PodChange{All: true, Put: in.Pods}
	default:
		p.Labels = other.Pods[0].Labels
		change.Put[0] = *p
	}
	o.pods(change, c)
}
