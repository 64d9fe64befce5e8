package nft

import (
	"errors"
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/kithnet/kith/policy/ruleset"
	"golang.org/x/sys/unix"
)

// Dropped counts the packets that chains of the table have dropped, as long as those chains stay as they are. One that is not
// there has dropped none.
func Dropped(chains []string, opts ...Option) (map[string]uint64, error) {
	var o options
	for _, opt := range opts {
		opt(&o)
	}
	conn, err := nftables.New(nftables.WithNetNSFd(o.namespace))
	if err != nil {
		return nil, fmt.Errorf("open nftables: %w", err)
	}
	out := map[string]uint64{}
	table := &nftables.Table{Name: ruleset.Table, Family: nftables.TableFamilyINet}
	for _, name := range chains {
		if _, again := out[name]; again {
			continue
		}
		rules, err := conn.GetRules(table, &nftables.Chain{Name: name})
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return nil, fmt.Errorf("count what chain %s has dropped: %w", name, err)
		}
		out[name] = 0
		for _, r := range rules {
			for _, e := range r.Exprs {
				if c, ok := e.(*expr.Counter); ok {
					out[name] += c.Packets
				}
			}
		}
	}
	return out, nil
}
