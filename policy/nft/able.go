package nft

import (
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// CanLimit returns why this kernel has no rules with limits, or nil.
func CanLimit() error {
	if err := try(&expr.Limit{Type: expr.LimitTypePkts, Rate: 1, Unit: expr.LimitTimeSecond, Burst: 1, Over: true}); err != nil {
		return fmt.Errorf("try a rule with a limit (kernel module nft_limit): %w", err)
	}
	return nil
}

// CanReset returns why this kernel has no rules that answer with a TCP reset, or nil.
func CanReset() error {
	if err := try(&expr.Reject{Type: unix.NFT_REJECT_TCP_RST}); err != nil {
		return fmt.Errorf("try a rule that rejects (kernel module nft_reject_inet): %w", err)
	}
	return nil
}

// try makes a rule in a table of its own, and deletes it, in one transaction. A transaction with an expression that the
// kernel does not have would fail whole, with the policies in it.
func try(e expr.Any) error {
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	table := conn.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "kith_probe"})
	chain := conn.AddChain(&nftables.Chain{Name: "probe", Table: table})
	conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{e}})
	conn.DelTable(table)
	return conn.Flush()
}
