package ruleset

import (
	"testing"

	"github.com/kithnet/kith/policy"
)

// TestTransactionGolden follows a pod's life, step by step.
func TestTransactionGolden(t *testing.T) {
	in := coffee()
	pay, veth := in.Pods[1], in.Attachments[0]
	shop := policy.Peer{OwnNamespace: true, Pods: selector(t, "app=coffeeshop")}
	first := policy.Policy{
		Namespace: "coffee", Name: "first", Subject: selector(t, "role=api"),
		Ingress: isolate(policy.Rule{Peers: []policy.Peer{shop}, Ports: []policy.Port{tcp(80, 80)}}),
	}
	second := first
	second.Name, second.Ingress = "second", isolate(policy.Rule{Peers: []policy.Peer{shop}, Ports: []policy.Port{tcp(90, 99)}})
	changed := first
	changed.Ingress = isolate(policy.Rule{Peers: []policy.Peer{shop}, Ports: []policy.Port{tcp(81, 81)}})
	c := NewCompiler()
	c.SetNetwork(in.Network)
	c.ReplaceNamespaces(in.Namespaces)
	c.PutPod(in.Pods[0])
	c.PutPod(pay)
	steps := []struct {
		name string
		do   event
	}{
		{"0-start", func(*Compiler) {}},
		{"1-policy-without-subject", func(c *Compiler) { c.PutPolicy(first) }},
		{"2-pod-attached", func(c *Compiler) { c.PutAttachment(veth) }},
		{"3-policy-changed", func(c *Compiler) { c.PutPolicy(changed) }},
		{"4-second-policy", func(c *Compiler) { c.PutPolicy(second) }},
		{"5-source-gone", func(c *Compiler) { c.DeletePod(in.Pods[0].Key()) }},
		{"6-policies-gone", func(c *Compiler) { c.ReplacePolicies(nil) }},
		{"7-pod-detached", func(c *Compiler) { c.DeleteAttachment(veth.Interface) }},
	}
	for _, s := range steps {
		s.do(c)
		golden(t, "transaction/"+s.name+".nft", c.Commit().String())
	}
}
