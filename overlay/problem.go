package overlay

import (
	"cmp"
	"fmt"
	"slices"
)

// ProblemKind names a cause, for counting.
type ProblemKind string

// What Grant and Compute can find wrong. None stops it: the offending part is left out.
const (
	OwnNodeMissing   ProblemKind = "own-node-missing"
	OwnKeyDiffers    ProblemKind = "own-key-differs"
	NoPodCIDR        ProblemKind = "no-pod-cidr"
	CIDRRefused      ProblemKind = "cidr-refused"
	CIDRTaken        ProblemKind = "cidr-taken"
	CIDRCoversNodes  ProblemKind = "cidr-covers-nodes"
	AddressRefused   ProblemKind = "address-refused"
	EndpointRefused  ProblemKind = "endpoint-refused"
	ClaimMissing     ProblemKind = "claim-missing"
	KeyTaken         ProblemKind = "key-taken"
	NoEndpoint       ProblemKind = "no-endpoint"
	UnderlayTooSmall ProblemKind = "underlay-too-small"
)

// Problem tells a person what was left out of the mesh, and why. Problems are
// comparable, so that a caller can report each one once.
type Problem struct {
	Kind   ProblemKind
	Node   string
	Detail string
}

func (p Problem) String() string { return fmt.Sprintf("node %s: %s", p.Node, p.Detail) }

type problems []Problem

func (p *problems) add(kind ProblemKind, node, format string, args ...any) {
	*p = append(*p, Problem{Kind: kind, Node: node, Detail: fmt.Sprintf(format, args...)})
}

func (p problems) sorted() []Problem {
	slices.SortFunc(p, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Detail, b.Detail))
	})
	return p
}
