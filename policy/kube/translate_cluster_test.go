package kube

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	policyv1alpha2 "sigs.k8s.io/network-policy-api/apis/v1alpha2"
	"sigs.k8s.io/yaml"

	"github.com/kithnet/kith/identity"
	"github.com/kithnet/kith/policy"
)

// readCluster parses a ClusterNetworkPolicy as people write it.
func readCluster(t testing.TB, text string) *policyv1alpha2.ClusterNetworkPolicy {
	t.Helper()
	cnp := &policyv1alpha2.ClusterNetworkPolicy{}
	if err := yaml.Unmarshal([]byte(text), cnp); err != nil {
		t.Fatal(err)
	}
	return cnp
}

// TestTranslateCluster has every field that is supported once.
func TestTranslateCluster(t *testing.T) {
	p, problems := TranslateCluster(readCluster(t, `
metadata: {name: all-fields}
spec:
  tier: Baseline
  priority: 1000
  subject: {pods: {namespaceSelector: {matchLabels: {team: a}}, podSelector: {matchLabels: {app: bar}}}}
  ingress:
  - {name: first, action: Pass, from: [{namespaces: {}}, {pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: shop}}}}]}
  egress:
  - {action: Accept, to: [{domainNames: [WWW.Example.com., "*.example.org"]}]}
  - action: Accept
    to: [{nodes: {matchLabels: {os: linux}}}, {networks: [10.1.2.3/8, "fd00::/8"]}]
    protocols: [{tcp: {destinationPort: {number: 80}}}, {udp: {destinationPort: {range: {start: 1, end: 9}}}}, {sctp: {destinationPort: {number: 65535}}}]
  - {action: Deny, to: [{namespaces: {matchLabels: {team: b}}}], protocols: [{destinationNamedPort: web}]}
`))
	if len(problems) > 0 {
		t.Errorf("problems %v", problems)
	}
	if p.Key().String() != "all-fields" || p.Tier != policy.Baseline || p.Priority != 1000 || words(p.Namespaces) != "team=a" {
		t.Errorf("policy %s, tier %s, priority %d, subject's namespaces %s", p.Key(), p.Tier, p.Priority, words(p.Namespaces))
	}
	want := `all-fields on app=bar
ingress: isolated, 1 rules
  0: Pass pods {everything} of namespaces {everything} or pods {app=shop} of namespaces {everything}; any port
egress: isolated, 3 rules
  0: [www.example.com *.example.org]; any port
  1: nodes {os=linux} or 10.0.0.0/8 without [] or fd00::/8 without []; 80-80/TCP, 1-9/UDP, 65535-65535/SCTP
  2: Deny pods {everything} of namespaces {team=b}; web/TCP, web/UDP, web/SCTP
`
	if d := cmp.Diff(want, describe(p)); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
}

func TestClusterDirectionWithoutRules(t *testing.T) {
	p, problems := TranslateCluster(readCluster(t, `{spec: {tier: Admin, subject: {namespaces: {}}}}`))
	if len(problems) > 0 || p.Ingress != nil || p.Egress != nil || words(p.Namespaces) != "everything" || words(p.Subject) != "everything" {
		t.Errorf("problems %v in\n%s", problems, describe(p))
	}
}

// TestClusterProblemsClose: whatever is wrong in a rule, it accepts nothing if it was to accept, and denies all if it was
// to deny or pass. Its neighbour keeps its place and meaning.
func TestClusterProblemsClose(t *testing.T) {
	tests := []struct{ name, rule, field string }{
		{"no peers", `to: []`, "spec.egress[0].to"},
		{"unknown peer", `to: [{namespaces: {}}, {planets: {}}]`, "spec.egress[0].to[1]"},
		{"two peers in one", `to: [{namespaces: {}, nodes: {}}]`, "spec.egress[0].to[0]"},
		{"part of a label", `to: [{domainNames: [example.com, "a*.example.com"]}]`, "spec.egress[0].to[0].domainNames[1]"},
		{"domain of one label", `to: [{domainNames: ["*.com"]}]`, "spec.egress[0].to[0].domainNames[0]"},
		{"no domain name", `to: [{domainNames: ["a b.com"]}]`, "spec.egress[0].to[0].domainNames[0]"},
		{"named port of a domain", `to: [{domainNames: [example.com]}], protocols: [{destinationNamedPort: a}]`, "spec.egress[0].protocols[0].destinationNamedPort"},
		{"network", `to: [{networks: [10.0.0.0/8, 10.0.0.1]}]`, "spec.egress[0].to[0].networks[1]"},
		{"mapped network", `to: [{networks: ["::ffff:10.0.0.0/104"]}]`, "spec.egress[0].to[0].networks[0]"},
		{"namespace operator", `to: [{namespaces: {matchExpressions: [{key: a, operator: Like}]}}]`, "spec.egress[0].to[0].namespaces.matchExpressions[0]"},
		{"pod operator", `to: [{pods: {podSelector: {matchExpressions: [{key: a, operator: In}]}}}]`, "spec.egress[0].to[0].pods.podSelector.matchExpressions[0]"},
		{"node operator", `to: [{nodes: {matchExpressions: [{key: a, operator: In}]}}]`, "spec.egress[0].to[0].nodes.matchExpressions[0]"},
		{"unknown protocol", `to: [{namespaces: {}}], protocols: [{icmp: {}}]`, "spec.egress[0].protocols[0]"},
		{"two protocols in one", `to: [{namespaces: {}}], protocols: [{tcp: {destinationPort: {number: 1}}, destinationNamedPort: a}]`, "spec.egress[0].protocols[0]"},
		{"unknown match of TCP", `to: [{namespaces: {}}], protocols: [{tcp: {flags: 1}}]`, "spec.egress[0].protocols[0].tcp.destinationPort"},
		{"unknown port", `to: [{namespaces: {}}], protocols: [{udp: {destinationPort: {any: true}}}]`, "spec.egress[0].protocols[0].udp.destinationPort"},
		{"number and range", `to: [{namespaces: {}}], protocols: [{udp: {destinationPort: {number: 1, range: {start: 1, end: 2}}}}]`, "spec.egress[0].protocols[0].udp.destinationPort"},
		{"number too large", `to: [{namespaces: {}}], protocols: [{sctp: {destinationPort: {number: 65536}}}]`, "spec.egress[0].protocols[0].sctp.destinationPort.number"},
		{"range turned round", `to: [{namespaces: {}}], protocols: [{tcp: {destinationPort: {range: {start: 2, end: 1}}}}]`, "spec.egress[0].protocols[0].tcp.destinationPort.range"},
		{"named port of a network", `to: [{networks: [10.0.0.0/8]}], protocols: [{destinationNamedPort: a}]`, "spec.egress[0].protocols[0].destinationNamedPort"},
	}
	denyAll := policy.Rule{Name: "bad", Action: policy.Deny, AllPeers: true, AllPorts: true}
	for _, tt := range tests {
		for action, want := range map[string]policy.Rule{"Accept": {Name: "bad"}, "Deny": denyAll, "Pass": denyAll} {
			t.Run(tt.name+" "+action, func(t *testing.T) {
				p, problems := TranslateCluster(readCluster(t, `
metadata: {name: b}
spec: {tier: Admin, subject: {namespaces: {}}, egress: [{name: bad, action: `+action+`, `+tt.rule+`}, {action: Accept, to: [{namespaces: {}}]}]}`))
				if len(problems) != 1 || problems[0].Field != tt.field || problems[0].Fix == "" || problems[0].Policy.String() != "b" {
					t.Errorf("problems %+v, want one of %s", problems, tt.field)
				}
				if p.Egress == nil || len(*p.Egress) != 2 {
					t.Fatalf("egress %v, want two rules", p.Egress)
				}
				if d := cmp.Diff(want, (*p.Egress)[0]); d != "" {
					t.Errorf("rule (-want +got)\n%s", d)
				}
				if good := (*p.Egress)[1]; good.Action != policy.Accept || len(good.Peers) != 1 || !good.AllPorts {
					t.Errorf("the next rule is %+v", good)
				}
			})
		}
	}
}

// TestClusterDoubtCloses: a policy of which it is not known whom it is for, or when it is asked, holds for all, and all
// that it does is deny.
func TestClusterDoubtCloses(t *testing.T) {
	const rules = `ingress: [{action: Accept, from: [{namespaces: {}}]}, {action: Pass, from: [{namespaces: {}}]}, {action: Deny, from: [{namespaces: {}}]}]`
	for field, text := range map[string]string{
		"spec.subject":                      `{spec: {tier: Admin, subject: {planets: {}}, ` + rules + `}}`,
		"spec.subject.namespaces":           `{spec: {tier: Admin, subject: {namespaces: {matchExpressions: [{key: a, operator: In}]}}, ` + rules + `}}`,
		"spec.subject.pods.podSelector":     `{spec: {tier: Admin, subject: {pods: {podSelector: {matchExpressions: [{key: a, operator: In}]}}}, ` + rules + `}}`,
		"spec.tier":                         `{spec: {tier: Middle, subject: {namespaces: {}}, ` + rules + `}}`,
		"spec.subject.pods.podSelector (2)": `{spec: {tier: Baseline, subject: {pods: {podSelector: {matchLabels: {"a b": c}}}}, ` + rules + `}}`,
	} {
		t.Run(field, func(t *testing.T) {
			p, problems := TranslateCluster(readCluster(t, text))
			if len(problems) != 1 || problems[0].Fix == "" {
				t.Errorf("problems %+v, want one", problems)
			}
			if words(p.Namespaces) != "everything" || words(p.Subject) != "everything" {
				t.Errorf("subject %s of namespaces %s", words(p.Subject), words(p.Namespaces))
			}
			for i, r := range *p.Ingress {
				if matches := r.AllPeers || len(r.Peers) > 0; matches && r.Action != policy.Deny {
					t.Errorf("rule %d is %+v", i, r)
				}
			}
			if pass := (*p.Ingress)[1]; pass.Action != policy.Deny || len(pass.Peers) != 1 {
				t.Errorf("the rule that passed is %+v", pass)
			}
		})
	}
}

// TestDomainsOnlyAccept: "DomainNames is only supported for Accept rules."
func TestDomainsOnlyAccept(t *testing.T) {
	for _, action := range []string{"Deny", "Pass"} {
		p, problems := TranslateCluster(readCluster(t, `{spec: {tier: Admin, subject: {namespaces: {}}, egress: [{action: `+action+`, to: [{domainNames: [example.com]}]}]}}`))
		r := (*p.Egress)[0]
		if len(problems) != 1 || problems[0].Field != "spec.egress[0].action" || r.Action != policy.Deny || !r.AllPeers || !r.AllPorts {
			t.Errorf("problems %v, rule %+v", problems, r)
		}
	}
}

func TestUnknownActionDenies(t *testing.T) {
	p, problems := TranslateCluster(readCluster(t, `{spec: {tier: Admin, subject: {namespaces: {}}, ingress: [{action: Log, from: [{namespaces: {}}]}]}}`))
	if r := (*p.Ingress)[0]; len(problems) != 1 || r.Action != policy.Deny || !r.AllPeers || !r.AllPorts {
		t.Errorf("problems %v, rule %+v", problems, r)
	}
}

// FuzzTranslateCluster: no object makes TranslateCluster fail or leaves something half understood.
func FuzzTranslateCluster(f *testing.F) {
	f.Add(`{spec: {tier: Admin, priority: -1, subject: {namespaces: {}}, egress: [{action: Pass, to: [{networks: [::/0]}], protocols: [{destinationNamedPort: a}]}]}}`)
	f.Add(`{spec: {tier: Baseline, subject: {pods: {}}, ingress: [{action: Deny, from: [{pods: {}}], protocols: [{tcp: {destinationPort: {range: {start: 1, end: 2}}}}]}]}}`)
	f.Fuzz(func(t *testing.T, text string) {
		cnp := &policyv1alpha2.ClusterNetworkPolicy{}
		if yaml.Unmarshal([]byte(text), cnp) != nil {
			return
		}
		p, problems := TranslateCluster(cnp)
		if p.Tier == policy.NetworkPolicy || p.Subject == nil || p.Namespaces == nil {
			t.Fatalf("tier %s, subject %v of %v", p.Tier, p.Subject, p.Namespaces)
		}
		for _, problem := range problems {
			if problem.Field == "" || problem.Fix == "" {
				t.Errorf("problem without field or fix: %+v", problem)
			}
		}
		for _, d := range []policy.Direction{policy.Ingress, policy.Egress} {
			if rules := p.In(d); rules != nil {
				sound(t, *rules)
			}
		}
		policy.Decide(policy.Cluster{
			Pods:       []identity.Pod{{Namespace: "a", Name: "x", Addresses: addresses("10.0.0.1")}},
			Namespaces: []identity.Namespace{{Name: "a"}}, Policies: []policy.Policy{p},
		}, policy.Flow{Source: addresses("10.0.0.1")[0], Destination: addresses("10.0.0.2")[0], Protocol: identity.TCP, Port: 80})
	})
}
