// Package dns reads what a name server's answer tells the pod that asked.
//
// Input: an IP packet with the answer, as the pod is about to get it. Output: for whom it is (Unwrap), and which names it
// says have which addresses, and for how long (Read).
//
// Invariants: only what the question was about is believed: its name, the names that a chain of aliases leads to from
// there within the one message, and their addresses. "The implementor does not need to perform their own CNAME chasing or
// to understand resolutions across multiple DNS requests." Whatever the bytes, reading ends and nothing panics.
//
// Out of scope: whether the answer is true, which is why pods should be let to no other name server than the cluster's;
// a message over TCP that is spread over several segments; hints in HTTPS and SVCB records.
package dns

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/kithnet/kith/policy"
)

// Telling is that a name has an address, for some time.
type Telling struct {
	Name    policy.Domain
	Address netip.Addr
	TTL     time.Duration
}

// maxAliases is how long a chain of aliases may be.
const maxAliases = 16

// record is what an answer says of one name: an alias, or an address.
type record struct {
	alias   policy.Domain
	address netip.Addr
	ttl     uint32
}

// Read gives what a message tells. A message that is no answer, or one without addresses, tells nothing.
func Read(message []byte) ([]Telling, error) {
	var p dnsmessage.Parser
	h, err := p.Start(message)
	if err != nil {
		return nil, fmt.Errorf("read DNS header: %w", err)
	}
	if !h.Response || h.RCode != dnsmessage.RCodeSuccess {
		return nil, nil
	}
	questions, err := p.AllQuestions()
	if err != nil || len(questions) != 1 || questions[0].Class != dnsmessage.ClassINET {
		return nil, err
	}
	records, err := answers(&p)
	if err != nil {
		return nil, fmt.Errorf("read DNS answer: %w", err)
	}
	return follow(policy.MakeDomain(questions[0].Name.String()), records), nil
}

func answers(p *dnsmessage.Parser) (map[policy.Domain][]record, error) {
	out := map[policy.Domain][]record{}
	for {
		h, err := p.AnswerHeader()
		if errors.Is(err, dnsmessage.ErrSectionDone) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		r := record{ttl: h.TTL}
		switch {
		case h.Class == dnsmessage.ClassINET && h.Type == dnsmessage.TypeA:
			var a dnsmessage.AResource
			a, err = p.AResource()
			r.address = netip.AddrFrom4(a.A)
		case h.Class == dnsmessage.ClassINET && h.Type == dnsmessage.TypeAAAA:
			var a dnsmessage.AAAAResource
			a, err = p.AAAAResource()
			r.address = netip.AddrFrom16(a.AAAA)
		case h.Class == dnsmessage.ClassINET && h.Type == dnsmessage.TypeCNAME:
			var c dnsmessage.CNAMEResource
			c, err = p.CNAMEResource()
			r.alias = policy.MakeDomain(c.CNAME.String())
		default:
			err = p.SkipAnswer()
		}
		if err != nil {
			return nil, err
		}
		owner := policy.MakeDomain(h.Name.String())
		out[owner] = append(out[owner], r)
	}
}

// follow walks from the name that was asked for along the aliases. An address belongs to all names on the way there, for
// the shortest of the times that the records on the way are good for.
func follow(asked policy.Domain, records map[policy.Domain][]record) []Telling {
	var out []Telling
	ttl, way := ^uint32(0), []policy.Domain{}
	for name := asked; name != "" && len(way) < maxAliases; {
		way = append(way, name)
		next := policy.Domain("")
		for _, r := range records[name] {
			if reachable(r.address) {
				for _, n := range way {
					out = append(out, Telling{n, r.address, time.Duration(min(ttl, r.ttl)) * time.Second})
				}
			}
			if r.alias != "" {
				next, ttl = r.alias, min(ttl, r.ttl)
			}
		}
		delete(records, name) // a chain that bites its tail ends here
		name = next
	}
	return out
}

// reachable leaves out what no name of the world stands for: among link-local addresses are those where clouds give
// machines their credentials.
func reachable(a netip.Addr) bool {
	return a.IsValid() && !a.Is4In6() && !a.IsUnspecified() && !a.IsLoopback() && !a.IsMulticast() && !a.IsLinkLocalUnicast()
}
