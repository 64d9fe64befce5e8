package kube

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/yaml"

	"github.com/kithnet/kith/identity"
	"github.com/kithnet/kith/policy"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// read parses a policy as people write it.
func read(t testing.TB, text string) *networkingv1.NetworkPolicy {
	t.Helper()
	np := &networkingv1.NetworkPolicy{}
	if err := yaml.Unmarshal([]byte(text), np); err != nil {
		t.Fatal(err)
	}
	return np
}

// TestRecipes translates policies as people write them, each a file of testdata.
func TestRecipes(t *testing.T) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no recipes: %v", err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".yaml")
		t.Run(name, func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			p, problems := Translate(read(t, string(text)))
			got := describe(p)
			for _, problem := range problems {
				got += problem.Error() + "\n"
			}
			golden := filepath.Join("testdata", name+".golden")
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), got); d != "" {
				t.Errorf("(-want +got), -update rewrites it:\n%s", d)
			}
		})
	}
}

// describe is a policy of the model for people.
func describe(p policy.Policy) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s on %s\n", p.Key(), words(p.Subject))
	for _, d := range []policy.Direction{policy.Ingress, policy.Egress} {
		rules := p.In(d)
		if rules == nil {
			fmt.Fprintf(&b, "%s: not isolated\n", d)
			continue
		}
		fmt.Fprintf(&b, "%s: isolated, %d rules\n", d, len(*rules))
		for i, r := range *rules {
			action := ""
			if r.Action != policy.Accept {
				action = r.Action.String() + " "
			}
			fmt.Fprintf(&b, "  %d: %s%s; %s\n", i, action, peers(r), ports(r))
		}
	}
	return b.String()
}

func addresses(as ...string) []netip.Addr {
	out := make([]netip.Addr, len(as))
	for i, a := range as {
		out[i] = netip.MustParseAddr(a)
	}
	return out
}

func words(s labels.Selector) string {
	switch {
	case s == nil:
		return "nothing"
	case s.Empty():
		return "everything"
	}
	return s.String()
}

func peers(r policy.Rule) string {
	s := []string{}
	if r.AllPeers {
		s = append(s, "anybody")
	}
	for _, p := range r.Peers {
		switch {
		case p.Block != nil:
			s = append(s, fmt.Sprintf("%s without %v", p.Block.CIDR, p.Block.Except))
		case len(p.Domains) > 0:
			s = append(s, fmt.Sprint(p.Domains))
		case p.Nodes != nil:
			s = append(s, fmt.Sprintf("nodes {%s}", words(p.Nodes)))
		case p.OwnNamespace:
			s = append(s, fmt.Sprintf("pods {%s} here", words(p.Pods)))
		default:
			s = append(s, fmt.Sprintf("pods {%s} of namespaces {%s}", words(p.Pods), words(p.Namespaces)))
		}
	}
	return strings.Join(s, " or ")
}

func ports(r policy.Rule) string {
	s := []string{}
	if r.AllPorts {
		s = append(s, "any port")
	}
	for _, p := range r.Ports {
		if p.Name != "" {
			s = append(s, fmt.Sprintf("%s/%s", p.Name, p.Protocol))
			continue
		}
		s = append(s, fmt.Sprintf("%d-%d/%s", p.First, p.Last, p.Protocol))
	}
	return strings.Join(s, ", ")
}

// TestProblemsClose: whatever is wrong in a rule, the rule allows nothing, its neighbour still does, the pods stay
// isolated, and the problem names policy, field and fix.
func TestProblemsClose(t *testing.T) {
	tests := []struct{ name, rule, field string }{
		{"endPort below port", `{ports: [{port: 90, endPort: 80}]}`, "spec.ingress[0].ports[0].endPort"},
		{"endPort of a name", `{ports: [{port: http, endPort: 80}]}`, "spec.ingress[0].ports[0].endPort"},
		{"endPort without port", `{ports: [{endPort: 80}]}`, "spec.ingress[0].ports[0].endPort"},
		{"endPort too large", `{ports: [{port: 1, endPort: 65536}]}`, "spec.ingress[0].ports[0].endPort"},
		{"port zero", `{ports: [{port: 80}, {port: 0}]}`, "spec.ingress[0].ports[1].port"},
		{"port too large", `{ports: [{port: 65536}]}`, "spec.ingress[0].ports[0].port"},
		{"empty port name", `{ports: [{port: ""}]}`, "spec.ingress[0].ports[0].port"},
		{"protocol", `{ports: [{port: 80, protocol: ICMP}]}`, "spec.ingress[0].ports[0].protocol"},
		{"cidr", `{from: [{ipBlock: {cidr: 10.0.0.0}}]}`, "spec.ingress[0].from[0].ipBlock.cidr"},
		{"except", `{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [x]}}]}`, "spec.ingress[0].from[0].ipBlock.except[0]"},
		{"except elsewhere", `{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [11.0.0.0/16]}}]}`, "spec.ingress[0].from[0].ipBlock.except[0]"},
		{"number in quotes", `{ports: [{port: "80"}]}`, "spec.ingress[0].ports[0].port"},
		{"empty peer", `{from: [{}]}`, "spec.ingress[0].from[0]"},
		{"block and selector", `{from: [{ipBlock: {cidr: 10.0.0.0/8}, podSelector: {}}]}`, "spec.ingress[0].from[0]"},
		{"operator", `{from: [{podSelector: {matchExpressions: [{key: a, operator: Like}]}}]}`, "spec.ingress[0].from[0].podSelector.matchExpressions[0]"},
		{"namespace operator", `{from: [{namespaceSelector: {matchExpressions: [{key: a, operator: In}]}}]}`, "spec.ingress[0].from[0].namespaceSelector.matchExpressions[0]"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, problems := Translate(read(t, "{metadata: {namespace: a, name: b}, spec: {ingress: ["+tt.rule+", {ports: [{port: 1}]}]}}"))
			if len(problems) != 1 || problems[0].Field != tt.field || problems[0].Fix == "" || problems[0].Policy.String() != "a/b" {
				t.Errorf("problems %+v, want one of %s", problems, tt.field)
			}
			if p.Ingress == nil || len(*p.Ingress) != 2 {
				t.Fatalf("ingress %v, want two rules", p.Ingress)
			}
			bad, good := (*p.Ingress)[0], (*p.Ingress)[1]
			if d := cmp.Diff(policy.Rule{}, bad); d != "" {
				t.Errorf("the rule still allows (-nothing +got)\n%s", d)
			}
			if !good.AllPeers || len(good.Ports) != 1 {
				t.Errorf("the next rule is %+v", good)
			}
		})
	}
}

// TestRulesWithoutEffect: rules of a direction that policyTypes leave out do nothing, and are checked as the API server does.
func TestRulesWithoutEffect(t *testing.T) {
	p, problems := Translate(read(t, `{spec: {podSelector: {}, policyTypes: [Ingress], egress: [{}, {ports: [{port: 70000}]}]}}`))
	if p.Ingress == nil || len(*p.Ingress) > 0 || p.Egress != nil {
		t.Errorf("means %s", describe(p))
	}
	if len(problems) != 1 || problems[0].Field != "spec.egress[1].ports[0].port" {
		t.Errorf("problems %v", problems)
	}
	p, problems = Translate(read(t, `{spec: {podSelector: {}, policyTypes: [Egress], ingress: [{}]}}`))
	if p.Ingress != nil || p.Egress == nil || len(problems) > 0 {
		t.Errorf("means %s, problems %v", describe(p), problems)
	}
}

func TestProblemsOfThePolicyItself(t *testing.T) {
	p, problems := Translate(read(t, `{spec: {podSelector: {matchExpressions: [{key: a, operator: Like}]}, policyTypes: [Ingres]}}`))
	if len(problems) != 2 {
		t.Errorf("problems %v, want two", problems)
	}
	if words(p.Subject) != "everything" || p.Ingress == nil || p.Egress == nil {
		t.Errorf("subject %s, ingress %v, egress %v: want all pods isolated in both directions", words(p.Subject), p.Ingress, p.Egress)
	}
}

// TestUnclearPolicyAddsNothing: a policy of which it is not known whom it isolates must not open pods that another one
// isolates.
func TestUnclearPolicyAddsNothing(t *testing.T) {
	deny, problems := Translate(read(t, `{metadata: {name: deny, namespace: shop}, spec: {policyTypes: [Ingress, Egress]}}`))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	shop := identity.Pod{Namespace: "shop", Name: "api", Addresses: addresses("10.0.0.1")}
	for _, spec := range []string{
		`podSelector: {matchLabels: {app: "bad value!"}}, policyTypes: [Ingress, Egress]`,
		`podSelector: {matchLabels: {app: other}}, policyTypes: [Ingres]`,
	} {
		unclear, problems := Translate(read(t, `{metadata: {name: unclear, namespace: shop}, spec: {`+spec+`, ingress: [{}], egress: [{}]}}`))
		if len(problems) != 1 {
			t.Errorf("%s: problems %v", spec, problems)
		}
		c := policy.Cluster{
			Pods: []identity.Pod{shop}, Namespaces: []identity.Namespace{{Name: "shop"}}, Policies: []policy.Policy{deny, unclear},
		}
		pod, other := shop.Addresses[0], netip.MustParseAddr("192.0.2.1")
		for _, ends := range [][2]netip.Addr{{other, pod}, {pod, other}} {
			d := policy.Decide(c, policy.Flow{Source: ends[0], Destination: ends[1], Protocol: identity.TCP, Port: 80})
			if d.Allowed {
				t.Errorf("%s: %s → %s is allowed: %+v", spec, ends[0], ends[1], d)
			}
		}
	}
}

// FuzzTranslate: no policy makes Translate fail, none leaves something half understood, and one of which it is not clear
// whom it isolates allows nothing.
func FuzzTranslate(f *testing.F) {
	files, _ := filepath.Glob("testdata/*.yaml")
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(text))
	}
	f.Add(`{spec: {ingress: [{from: [{ipBlock: {cidr: "::ffff:10.0.0.0/104"}}]}]}}`)
	f.Fuzz(func(t *testing.T, text string) {
		np := &networkingv1.NetworkPolicy{}
		if yaml.Unmarshal([]byte(text), np) != nil {
			return
		}
		p, problems := Translate(np)
		if p.Subject == nil || p.Ingress == nil && p.Egress == nil {
			t.Fatalf("isolates nothing: %s", describe(p))
		}
		for _, problem := range problems {
			if problem.Field == "" || problem.Fix == "" {
				t.Errorf("problem without field or fix: %+v", problem)
			}
		}
		unclear := slices.ContainsFunc(problems, func(p Problem) bool {
			return strings.HasPrefix(p.Field, "spec.podSelector") || strings.HasPrefix(p.Field, "spec.policyTypes")
		})
		for _, d := range []policy.Direction{policy.Ingress, policy.Egress} {
			if rules := p.In(d); rules != nil {
				sound(t, *rules)
				if unclear && slices.ContainsFunc(*rules, func(r policy.Rule) bool { return !reflect.DeepEqual(r, policy.Rule{}) }) {
					t.Errorf("not clear for whom, and allows: %s", describe(p))
				}
			}
		}
		c := policy.Cluster{Pods: []identity.Pod{{Namespace: p.Namespace, Name: "x", Addresses: addresses("10.0.0.1")}}, Namespaces: []identity.Namespace{{Name: p.Namespace}}, Policies: []policy.Policy{p}}
		policy.Decide(c, policy.Flow{Source: netip.MustParseAddr("10.0.0.2"), Destination: netip.MustParseAddr("10.0.0.1"), Protocol: identity.TCP, Port: 80})
	})
}

// sound: nothing half understood is left in a rule.
func sound(t *testing.T, rules policy.Rules) {
	t.Helper()
	for _, r := range rules {
		if r.AllPeers && len(r.Peers) > 0 || r.AllPorts && len(r.Ports) > 0 {
			t.Errorf("all and some: %+v", r)
		}
		for _, p := range r.Peers {
			if p.Block != nil && !p.Block.CIDR.IsValid() || p.OfPods() && p.Pods == nil {
				t.Errorf("half a peer: %+v", p)
			}
		}
		for _, p := range r.Ports {
			if p.Protocol == 0 || p.First > p.Last || p.Name == "" && p.Last == 0 {
				t.Errorf("half a port: %+v", p)
			}
		}
	}
}
