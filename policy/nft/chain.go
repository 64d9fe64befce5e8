package nft

import (
	"fmt"

	"github.com/kithnet/kith/policy/ruleset"
	"golang.org/x/sys/unix"
)

// maxComment is what the nft tool takes as a comment.
const maxComment = 127

var hooks = [...]string{
	unix.NF_INET_PRE_ROUTING: "prerouting", unix.NF_INET_LOCAL_IN: "input", unix.NF_INET_FORWARD: "forward",
	unix.NF_INET_LOCAL_OUT: "output", unix.NF_INET_POST_ROUTING: "postrouting",
}

func hookNumber(name string) (uint32, error) {
	for n, h := range hooks {
		if h == name {
			return uint32(n), nil
		}
	}
	return 0, fmt.Errorf("there is no hook %q", name)
}

func (m *batch) addChain(c ruleset.ChainSpec) error {
	at := m.begin(unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE, "create chain", c.Name)
	m.str(unix.NFTA_CHAIN_TABLE, ruleset.Table)
	m.str(unix.NFTA_CHAIN_NAME, c.Name)
	if c.Hook != nil {
		number, err := hookNumber(c.Hook.Name)
		if err != nil {
			return fmt.Errorf("create chain %s: %w", c.Name, err)
		}
		hook := m.open(unix.NFTA_CHAIN_HOOK)
		m.u32(unix.NFTA_HOOK_HOOKNUM, number)
		m.u32(unix.NFTA_HOOK_PRIORITY, uint32(c.Hook.Priority))
		m.shut(hook)
		m.u32(unix.NFTA_CHAIN_POLICY, nfAccept)
		m.str(unix.NFTA_CHAIN_TYPE, c.Hook.Type)
	}
	m.end(at)
	return nil
}

func (m *batch) deleteChain(name string) {
	at := m.begin(unix.NFT_MSG_DELCHAIN, 0, "delete chain", name)
	m.str(unix.NFTA_CHAIN_TABLE, ruleset.Table)
	m.str(unix.NFTA_CHAIN_NAME, name)
	m.end(at)
}

func (m *batch) flushChain(name string) {
	at := m.begin(unix.NFT_MSG_DELRULE, 0, "empty chain", name)
	m.str(unix.NFTA_RULE_TABLE, ruleset.Table)
	m.str(unix.NFTA_RULE_CHAIN, name)
	m.end(at)
}

func (m *batch) addRule(chain string, rule ruleset.Rule, specs map[string]ruleset.SetSpec) error {
	instrs, err := instrsOf(rule, specs)
	if err != nil {
		return fmt.Errorf("add rule to chain %s: %w", chain, err)
	}
	if len(rule.Comment) > maxComment {
		return fmt.Errorf("add rule to chain %s: the comment has %d bytes; %d are allowed", chain, len(rule.Comment), maxComment)
	}
	at := m.begin(unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_APPEND, "add rule to chain", chain)
	m.messages[len(m.messages)-1].rule = rule
	m.str(unix.NFTA_RULE_TABLE, ruleset.Table)
	m.str(unix.NFTA_RULE_CHAIN, chain)
	exprs := m.open(unix.NFTA_RULE_EXPRESSIONS)
	for _, in := range instrs {
		m.instr(in)
	}
	m.shut(exprs)
	if rule.Comment != "" {
		m.attr(unix.NFTA_RULE_USERDATA, userData(rule.Comment))
	}
	m.end(at)
	return nil
}

// parseChain reads a chain. One that is not as the language has it gets a hook that no chain of ours has.
func parseChain(b []byte) (table string, c ruleset.ChainSpec) {
	typ, policy := "", uint32(nfAccept)
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
		if policy != nfAccept {
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
	var exprs, userdata []byte
	for _, a := range attributes(b) {
		switch a.typ {
		case unix.NFTA_RULE_CHAIN:
			chain = text(a.data)
		case unix.NFTA_RULE_EXPRESSIONS:
			exprs = a.data
		case unix.NFTA_RULE_USERDATA:
			userdata = a.data
		}
	}
	return chain, ruleOf(parseInstrs(exprs), userdata, specs)
}
