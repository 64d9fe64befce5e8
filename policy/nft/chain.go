package nft

import (
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/userdata"
	"github.com/kithnet/kith/policy/ruleset"
	"golang.org/x/sys/unix"
)

// maxComment is what the nft tool takes as a comment.
const maxComment = 127

var hooks = [...]string{
	unix.NF_INET_PRE_ROUTING: "prerouting", unix.NF_INET_LOCAL_IN: "input", unix.NF_INET_FORWARD: "forward",
	unix.NF_INET_LOCAL_OUT: "output", unix.NF_INET_POST_ROUTING: "postrouting",
}

// kernelChain is a chain as the library writes it.
func kernelChain(table *nftables.Table, c ruleset.ChainSpec) (*nftables.Chain, error) {
	chain := &nftables.Chain{Table: table, Name: c.Name}
	if c.Hook == nil {
		return chain, nil
	}
	number := slices.Index(hooks[:], c.Hook.Name)
	if number < 0 {
		return nil, fmt.Errorf("create chain %s: there is no hook %q", c.Name, c.Hook.Name)
	}
	policy := nftables.ChainPolicyAccept
	chain.Type, chain.Policy = nftables.ChainType(c.Hook.Type), &policy
	chain.Hooknum = nftables.ChainHookRef(nftables.ChainHook(number))
	chain.Priority = nftables.ChainPriorityRef(nftables.ChainPriority(c.Hook.Priority))
	return chain, nil
}

// kernelRule is a rule as the library writes it.
func kernelRule(chain *nftables.Chain, rule ruleset.Rule, specs map[string]ruleset.SetSpec) (*nftables.Rule, error) {
	exprs, err := exprsOf(rule, specs)
	if err != nil {
		return nil, fmt.Errorf("add rule to chain %s: %w", chain.Name, err)
	}
	if len(rule.Comment) > maxComment {
		return nil, fmt.Errorf("add rule to chain %s: the comment has %d bytes; %d are allowed", chain.Name, len(rule.Comment), maxComment)
	}
	out := &nftables.Rule{Table: chain.Table, Chain: chain, Exprs: standIns(exprs)}
	if rule.Comment != "" {
		out.UserData = userdata.AppendString(nil, userdata.TypeComment, rule.Comment)
	}
	return out, nil
}

// parseChain reads a chain. One that is not as the language has it gets a hook that no chain of ours has.
func parseChain(b []byte) (table string, c ruleset.ChainSpec) {
	typ, policy := "", uint32(nftables.ChainPolicyAccept)
	for _, a := range attributes(b) {
		switch a.typ {
		case unix.NFTA_CHAIN_TABLE:
			table = text(a.data)
		case unix.NFTA_CHAIN_NAME:
			c.Name = text(a.data)
		case unix.NFTA_CHAIN_TYPE:
			typ = text(a.data)
		case unix.NFTA_CHAIN_POLICY:
			policy = number(a.data)
		case unix.NFTA_CHAIN_HOOK:
			c.Hook = parseHook(a.data)
		}
	}
	if c.Hook != nil {
		c.Hook.Type = typ
		if policy != uint32(nftables.ChainPolicyAccept) {
			c.Hook.Type += " that drops"
		}
	}
	return table, c
}

func parseHook(b []byte) *ruleset.Hook {
	h := &ruleset.Hook{Name: "unknown"}
	for _, a := range attributes(b) {
		switch n := number(a.data); {
		case a.typ == unix.NFTA_HOOK_HOOKNUM && int(n) < len(hooks):
			h.Name = hooks[n]
		case a.typ == unix.NFTA_HOOK_PRIORITY:
			h.Priority = int32(n)
		}
	}
	return h
}

// parseRule reads a rule and the chain that it is in.
func parseRule(b []byte, specs map[string]ruleset.SetSpec) (chain string, rule ruleset.Rule) {
	var exprs, userData []byte
	for _, a := range attributes(b) {
		switch a.typ {
		case unix.NFTA_RULE_CHAIN:
			chain = text(a.data)
		case unix.NFTA_RULE_EXPRESSIONS:
			exprs = a.data
		case unix.NFTA_RULE_USERDATA:
			userData = a.data
		}
	}
	return chain, ruleOf(parseExprs(exprs), parseComment(userData), specs)
}
