package nft

import (
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// CanLimit returns why this kernel has no rules with limits, or nil. A transaction with one would fail whole, with the
// policies in it. It makes such a rule in a table of its own, and deletes it, in one transaction.
func CanLimit() error {
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	table := conn.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "kith_probe"})
	chain := conn.AddChain(&nftables.Chain{Name: "limit", Table: table})
	conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
		&expr.Limit{Type: expr.LimitTypePkts, Rate: 1, Unit: expr.LimitTimeSecond, Burst: 1, Over: true},
	}})
	conn.DelTable(table)
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("try a rule with a limit (kernel module nft_limit): %w", err)
	}
	return nil
}
