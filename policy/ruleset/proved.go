package ruleset

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// The maps that send ICMP errors that a packet was too large to the chain of what is proved, by the address that the packet
// was for. An address in a quoted packet is bytes to nft, without a type of its own.
const (
	mapProved4 = "proved4"
	mapProved6 = "proved6"
)

// Proof is the largest packet that was seen to arrive whole, just now, at another node's address outside of the mesh.
type Proof struct {
	Address netip.Addr
	Size    uint16
}

// proved is what is proved, and what of it is in the ruleset.
type proved struct {
	sizes map[netip.Addr]uint16
	made  map[netip.Addr]uint16
}

// SetProved makes what is proved exactly this. Errors that say less of these addresses end before the kernel believes them,
// which would cut the tunnel's packets for ten minutes; all others it learns from as it always does. Of two proofs of one
// address the smaller one counts.
func (c *Compiler) SetProved(all []Proof) {
	sizes := make(map[netip.Addr]uint16, len(all))
	for _, p := range all {
		if before, twice := sizes[p.Address]; !twice || p.Size < before {
			sizes[p.Address] = p.Size
		}
	}
	c.dirty.proved = c.dirty.proved || !maps.Equal(sizes, c.proved.sizes)
	c.proved.sizes = sizes
}

// settleProved makes the chains and elements those of what is proved. All addresses with one size share a chain.
func (c *Compiler) settleProved() {
	if !c.dirty.proved {
		return
	}
	chains := map[string]struct{}{}
	for addr, size := range c.proved.sizes {
		name := provedChain(addr, size)
		if _, made := chains[name]; !made && c.want.ruleset.Chains[name] == nil {
			protocol := byFamily[uint8](addr, 1, 58)
			c.want.putChain(Chain{ChainSpec{name, nil}, []Rule{drop(Claims{protocol, size})}})
		}
		chains[name] = struct{}{}
		c.want.put(byFamily(addr, mapProved4, mapProved6), exactKey(addrPart(addr)), Value{Verdict: Verdict{Kind: Jump, Chain: name}})
	}
	for addr, size := range c.proved.made {
		if _, still := c.proved.sizes[addr]; !still {
			c.want.delete(byFamily(addr, mapProved4, mapProved6), exactKey(addrPart(addr)))
		}
		if _, still := chains[provedChain(addr, size)]; !still {
			c.want.deleteChain(provedChain(addr, size))
		}
	}
	c.proved.made = c.proved.sizes
}

// Proofs are what a ruleset holds for proved, as one that was read does.
func (r Ruleset) Proofs() []Proof {
	var out []Proof
	for name, prefix := range map[string]string{mapProved4: mapProved4 + "_", mapProved6: mapProved6 + "_"} {
		set := r.Sets[name]
		if set == nil {
			continue
		}
		for key, value := range set.Elements {
			addr, ok := netip.AddrFromSlice([]byte(key.Low))
			size, err := strconv.ParseUint(strings.TrimPrefix(value.Verdict.Chain, prefix), 10, 16)
			if ok && err == nil {
				out = append(out, Proof{addr, uint16(size)})
			}
		}
	}
	slices.SortFunc(out, func(a, b Proof) int { return a.Address.Compare(b.Address) })
	return out
}

// Chain is the chain at which errors end that say less than what is proved. Proofs of one size share it.
func (p Proof) Chain() string { return provedChain(p.Address, p.Size) }

func provedChain(addr netip.Addr, size uint16) string {
	return fmt.Sprintf("%s_%d", byFamily(addr, mapProved4, mapProved6), size)
}
