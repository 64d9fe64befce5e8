package firewall

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// ends says whether a rule drops every packet that comes to it: it looks at none of it.
func ends(r *nftables.Rule) bool {
	for _, e := range r.Exprs {
		switch e := e.(type) {
		case *expr.Verdict:
			return e.Kind == expr.VerdictDrop
		case *expr.Reject:
			return true
		case *expr.Target: // iptables'
			return e.Name == "REJECT"
		case *expr.Counter, *expr.Log, *expr.Limit:
		default:
			return false
		}
	}
	return false
}

// closes is the first rule of a chain that ends everything that comes to it, or behind the last, where the chain's policy does.
// A chain that ends nothing has none.
func closes(c *nftables.Chain, rules []*nftables.Rule) (int, bool) {
	if i := slices.IndexFunc(rules, ends); i >= 0 {
		return i, true
	}
	return len(rules), c.Policy != nil && *c.Policy == nftables.ChainPolicyDrop
}

// ours are the rules that accept what comes from interfaces with a name that begins so, and what goes to them. iptables shows them as
// `-i NAME+ -j ACCEPT` with a comment.
func ours(prefix string) [][]expr.Any {
	var out [][]expr.Any
	for _, key := range []expr.MetaKey{expr.MetaKeyIIFNAME, expr.MetaKeyOIFNAME} {
		out = append(out, []expr.Any{
			&expr.Meta{Key: key, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte(prefix)},
			&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictAccept},
		})
	}
	return out
}

// accepts says whether a rule is one of ours.
func accepts(r *nftables.Rule, key expr.MetaKey, prefix string) bool {
	if len(r.Exprs) < 3 {
		return false
	}
	load, isLoad := r.Exprs[0].(*expr.Meta)
	compare, isCompare := r.Exprs[1].(*expr.Cmp)
	verdict, isVerdict := r.Exprs[len(r.Exprs)-1].(*expr.Verdict)
	return isLoad && load.Key == key && isCompare && compare.Op == expr.CmpOpEq && string(compare.Data) == prefix &&
		isVerdict && verdict.Kind == expr.VerdictAccept
}

// missing says which of ours a chain does not have before it closes.
func missing(rules []*nftables.Rule, prefix string) []expr.MetaKey {
	var out []expr.MetaKey
	for _, key := range []expr.MetaKey{expr.MetaKeyIIFNAME, expr.MetaKeyOIFNAME} {
		if !slices.ContainsFunc(rules, func(r *nftables.Rule) bool { return accepts(r, key, prefix) }) {
			out = append(out, key)
		}
	}
	return out
}

// names says whether some rule compares with the beginning of the address of a network: its administrator has thought of it.
func names(rules []*nftables.Rule, networks []netip.Prefix) bool {
	for _, r := range rules {
		for _, e := range r.Exprs {
			compare, ok := e.(*expr.Cmp)
			if !ok || len(compare.Data) < 2 {
				continue
			}
			for _, n := range networks {
				if at := n.Masked().Addr().AsSlice(); len(compare.Data)*8 >= min(n.Bits(), 16) && bytes.HasPrefix(at, compare.Data) {
					return true
				}
			}
		}
	}
	return false
}

// aboutRules says whether a notice of the kernel is about chains or rules that may be somebody's firewall. In all of them the first
// attribute is the table's name.
func aboutRules(kind uint16, data []byte) bool {
	switch kind & 0xff {
	case unix.NFT_MSG_NEWCHAIN, unix.NFT_MSG_DELCHAIN, unix.NFT_MSG_NEWRULE, unix.NFT_MSG_DELRULE, unix.NFT_MSG_DELTABLE:
	default:
		return false
	}
	const header = 4
	if len(data) < header+unix.SizeofNlAttr {
		return false
	}
	length := int(binary.NativeEndian.Uint16(data[header:]))
	if length < unix.SizeofNlAttr || header+length > len(data) {
		return false
	}
	table := string(bytes.TrimRight(data[header+unix.SizeofNlAttr:header+length], "\x00"))
	return !slices.Contains(busy(), table)
}

// busy are tables that change all the time, and that are no firewalls.
func busy() []string { return []string{"kith", "kith_dns", "kith_probe", "kube-proxy"} }
