package main

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/kithnet/kith/cmd/kith-agent/config"
	"github.com/kithnet/kith/identity"
	"github.com/kithnet/kith/policy"
	policykube "github.com/kithnet/kith/policy/kube"
	"k8s.io/apimachinery/pkg/labels"
)

// TestPolicyTooLargeCloses: a policy beyond the configured bound is enforced without its rule, and the node says so.
func TestPolicyTooLargeCloses(t *testing.T) {
	if got := config.Default().Policy.MaxElements; got != policy.MaxElements {
		t.Errorf("a policy may have %d elements where nothing is configured, for `kith policy` %d", got, policy.MaxElements)
	}
	a := &agent{log: slog.New(slog.DiscardHandler), cfg: config.Config{Policy: config.Policy{MaxElements: 2000}}, enforcer: newEnforcer(slog.New(slog.DiscardHandler), nil)}
	var ports []policy.Port
	for n := range 2001 {
		ports = append(ports, policy.Port{Protocol: identity.TCP, First: uint16(2*n + 1), Last: uint16(2*n + 1)})
	}
	p := policy.Policy{Namespace: "shop", Name: "large", Subject: labels.Everything(), Ingress: &policy.Rules{{AllPeers: true, Ports: ports}}}
	a.policyChanged(policykube.Change{Name: p.Key(), Put: &p})
	problems := a.problems.list()
	if len(problems) != 1 || !strings.Contains(problems[0], "shop/large: spec.ingress[0]") {
		t.Errorf("problems: %v", problems)
	}
	a.enforcer.inbox.drain(a.enforcer.compiler)
	putInput(a.enforcer.compiler)
	putPod(a.enforcer.compiler)
	a.enforcer.compiler.PutAttachment(attachment(testAttachment))
	for name, s := range a.enforcer.compiler.Ruleset().Sets {
		if strings.HasPrefix(name, "ports_") {
			t.Errorf("the rule is there, with %d ports", len(s.Elements))
		}
	}
}
