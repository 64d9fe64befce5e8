package nft

import (
	"errors"
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

// try has the kernel judge a rule. A transaction with an expression that the kernel does not have would fail whole, with the
// policies in it.
func try(e expr.Any) error {
	s, err := dial(0)
	if err != nil {
		return err
	}
	defer s.conn.Close()
	return s.judge(func(conn *nftables.Conn) {
		table := conn.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "kith_probe"})
		chain := conn.AddChain(&nftables.Chain{Name: "probe", Table: table})
		conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{e}})
	})
}

// judge has the kernel judge a transaction and take it back, so that nobody hears of it: at its end stands the deletion of a
// table that is not there. It returns what else was refused.
func (s *socket) judge(write func(*nftables.Conn)) error {
	conn, err := encoder(s)
	if err != nil {
		return err
	}
	write(conn)
	conn.DelTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "kith_nowhere"})
	var f *failure
	switch err := conn.Flush(); {
	case !errors.As(err, &f):
		return fmt.Errorf("judge a transaction: it was not taken back: %w", err)
	case f.cause != nil:
		return f.cause
	case f.refused[0].index < len(f.batch)-2:
		return f.refused[0].errno
	}
	return nil
}
