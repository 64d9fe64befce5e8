package ruleset

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kithnet/kith/identity"
	"github.com/kithnet/kith/policy"
	"k8s.io/apimachinery/pkg/labels"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// golden compares text with a file of testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s differs (-want +got), -update rewrites it:\n%s", file, d)
	}
}

// selector parses a selector; "*" is everything.
func selector(t testing.TB, s string) labels.Selector {
	t.Helper()
	if s == "*" {
		return labels.Everything()
	}
	sel, err := labels.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return sel
}

func addresses(as ...string) []netip.Addr {
	out := make([]netip.Addr, len(as))
	for i, a := range as {
		out[i] = netip.MustParseAddr(a)
	}
	return out
}

func prefixes(ps ...string) []netip.Prefix {
	out := make([]netip.Prefix, len(ps))
	for i, p := range ps {
		out[i] = netip.MustParsePrefix(p)
	}
	return out
}

// twoNodes is a small dual-stack cluster; the first node is ours.
func twoNodes() Network {
	return Network{Node: "one", Resets: true, Nodes: []policy.Node{
		{
			Name: "one", PodCIDRs: prefixes("10.244.1.0/24", "fd00:1::/64"),
			Addresses: addresses("172.18.0.2"), Mesh: addresses("10.244.1.1", "fd00:1::1"),
		},
		{
			Name: "two", PodCIDRs: prefixes("10.244.2.0/24", "fd00:2::/64"),
			Addresses: addresses("172.18.0.3"), Mesh: addresses("10.244.2.1", "fd00:2::1"),
		},
	}}
}

// coffee is a namespace with a client on the other node and a server on ours.
func coffee() Input {
	pods := []identity.Pod{
		{
			Namespace: "coffee", Name: "shop", UID: "1", Labels: map[string]string{"app": "coffeeshop"},
			Addresses: addresses("10.244.2.10", "fd00:2::10"),
		},
		{
			Namespace: "coffee", Name: "pay", UID: "2", Labels: map[string]string{"app": "payment-processor", "role": "api"},
			Ports:     []identity.NamedPort{{Name: "my-http", Protocol: identity.TCP, Number: 8080}},
			Addresses: addresses("10.244.1.10", "fd00:1::10"),
		},
		{
			Namespace: "tea", Name: "house", UID: "3", Labels: map[string]string{"app": "tea"},
			Ports:     []identity.NamedPort{{Name: "my-http", Protocol: identity.TCP, Number: 9090}},
			Addresses: addresses("10.244.1.11"),
		},
	}
	attachments := []Attachment{
		{
			Pod: pods[1].Key(), UID: "2", Interface: "kith-0000000002", MAC: MAC{2, 0, 0, 0, 0, 2},
			Addresses: pods[1].Addresses,
		},
		{
			Pod: pods[2].Key(), UID: "3", Interface: "kith-0000000003", MAC: MAC{2, 0, 0, 0, 0, 3},
			Addresses: pods[2].Addresses,
		},
	}
	namespaces := []identity.Namespace{{Name: "coffee", Labels: map[string]string{"team": "a"}}, {Name: "tea", Labels: map[string]string{"team": "b"}}}
	return Input{Pods: pods, Namespaces: namespaces, Attachments: attachments, Network: twoNodes()}
}

func isolate(rules ...policy.Rule) *policy.Rules {
	r := policy.Rules(rules)
	return &r
}

func tcp(first, last uint16) policy.Port {
	return policy.Port{Protocol: identity.TCP, First: first, Last: last}
}

func TestCompileGolden(t *testing.T) {
	everyone := selector(t, "*")
	shop := policy.Peer{OwnNamespace: true, Pods: selector(t, "app=coffeeshop")}
	teamB := policy.Peer{Namespaces: selector(t, "team=b"), Pods: everyone}
	httpPort := policy.Port{Protocol: identity.TCP, Name: "my-http"}
	block := policy.Peer{Block: &policy.Block{CIDR: netip.MustParsePrefix("172.18.0.0/16"), Except: prefixes("172.18.1.0/24")}}
	tests := []struct {
		name     string
		policies []policy.Policy
	}{
		{"none", nil},
		{"deny-all", []policy.Policy{{Namespace: "coffee", Name: "deny-all", Subject: everyone, Ingress: isolate()}}},
		{"default-deny", []policy.Policy{{Namespace: "coffee", Name: "default-deny", Subject: everyone, Ingress: isolate(), Egress: isolate()}}},
		{"api-allow", []policy.Policy{{
			Namespace: "coffee", Name: "api-allow", Subject: selector(t, "app=payment-processor,role=api"),
			Ingress: isolate(policy.Rule{Peers: []policy.Peer{shop}, AllPorts: true}),
		}}},
		{"named-port", []policy.Policy{{
			Namespace: "coffee", Name: "allow-hello", Subject: everyone,
			Ingress: isolate(policy.Rule{Peers: []policy.Peer{shop}, Ports: []policy.Port{httpPort}}),
			Egress:  isolate(policy.Rule{Peers: []policy.Peer{teamB, block}, Ports: []policy.Port{httpPort}}),
		}}},
		{"blocks", []policy.Policy{{
			Namespace: "coffee", Name: "blocks", Subject: everyone,
			Ingress: isolate(policy.Rule{Peers: []policy.Peer{block}, AllPorts: true}),
			Egress:  isolate(policy.Rule{Peers: []policy.Peer{block}, Ports: []policy.Port{tcp(80, 80), tcp(8000, 9000)}}),
		}}},
		{"ranges", []policy.Policy{
			{
				Namespace: "coffee", Name: "ranges", Subject: everyone,
				Ingress: isolate(policy.Rule{Peers: []policy.Peer{teamB}, Ports: []policy.Port{tcp(8000, 9000), tcp(80, 80)}}),
			},
			{
				Namespace: "coffee", Name: "dns", Subject: everyone,
				Egress: isolate(policy.Rule{AllPeers: true, Ports: []policy.Port{{Protocol: identity.UDP, First: 53, Last: 53}, {Protocol: identity.SCTP, First: 0, Last: 65535}}}),
			},
		}},
		{"allow-all", []policy.Policy{{
			Namespace: "coffee", Name: "allow-all", Subject: everyone, Ingress: isolate(policy.Rule{AllPeers: true, AllPorts: true}),
		}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in := coffee()
			in.Policies = tt.policies
			golden(t, tt.name+".nft", Compile(in).String())
		})
	}
}
