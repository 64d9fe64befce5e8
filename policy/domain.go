package policy

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/kithnet/kith/identity"
)

// Domain is a domain name as a rule has it, or all names below one: "*.example.com". "'*', the wildcard specifier,
// matches one or more entire labels."
type Domain string

// MakeDomain is the one way to write a name: DNS does not tell large letters from small ones, of ASCII alone, nor is the
// dot at the end a part of it.
func MakeDomain(name string) Domain {
	return Domain(strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, strings.TrimSuffix(name, ".")))
}

// Matches says whether a rule's domain means a name, which has no wildcard.
func (d Domain) Matches(name Domain) bool {
	parent, wild := strings.CutPrefix(string(d), "*")
	if !wild {
		return d == name
	}
	return len(name) > len(parent) && strings.HasSuffix(string(name), parent)
}

// Answer is that a pod was told, by the name server that it asked, that a name has an address, and may still believe it.
type Answer struct {
	Pod     identity.PodKey
	Name    Domain
	Address netip.Addr
}

// told: "Pods are expected to make a DNS query for a domain before sending traffic to it."
func (c Cluster) told(e end, domains []Domain) bool {
	return slices.ContainsFunc(c.Answers, func(a Answer) bool {
		return a.Pod == e.subject.Key() && a.Address == e.otherAddr &&
			slices.ContainsFunc(domains, func(d Domain) bool { return d.Matches(a.Name) })
	})
}
