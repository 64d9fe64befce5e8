package overlay

import (
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// Plan is the ordered list of steps that makes one Mesh out of another.
type Plan struct{ Steps []Step }

// Empty reports that there is nothing to do.
func (p Plan) Empty() bool { return len(p.Steps) == 0 }

// String returns one line for each step.
func (p Plan) String() string {
	var b strings.Builder
	for _, step := range p.Steps {
		b.WriteString(step.String())
		b.WriteByte('\n')
	}
	return b.String()
}

// Step is one change. Its kinds are the types below.
type Step interface {
	fmt.Stringer
	step()
}

// On says which lane a step is about.
type On struct{ Lane int }

// OnLane is the number of the lane.
func (o On) OnLane() int { return o.Lane }

func (o On) String() string { return fmt.Sprintf("lane %d ", o.Lane) }

// Steps on a device itself.
type (
	CreateDevice struct{ On }
	SetKey       struct {
		On
		Key Key // the private key whose public one this is
	}
	SetPort struct {
		On
		Port uint16
	}
	SetMTU struct {
		On
		MTU int
	}
	SetUp struct{ On }
)

// Steps on addresses and routes. SetRoute takes the place of a route to the same
// CIDR, whatever its lane.
type (
	AddAddress struct {
		On
		Addr netip.Addr
	}
	RemoveAddress struct {
		On
		Addr netip.Addr
	}
	SetRoute    struct{ Route Route }
	RemoveRoute struct {
		On
		CIDR netip.Prefix
	}
	AddUnreachable    struct{ CIDR netip.Prefix }
	RemoveUnreachable struct{ CIDR netip.Prefix }
)

// SetPeer makes a peer, with its preshared key if it has one, or changes it. Allow are allowed IPs to add (taken from
// whichever peer has them); those that the peer has already stay. The zero
// Endpoint and the nil Keepalive leave what is there.
type SetPeer struct {
	On
	Name      string
	Key       Key
	New       bool
	Endpoint  netip.AddrPort
	Keepalive *time.Duration
	Preshared Preshared
	Allow     []netip.Prefix
}

// DropAllowed takes allowed IPs away from whichever peer has them.
type DropAllowed struct {
	On
	CIDRs []netip.Prefix
}

// RemovePeer removes a peer with all it is allowed.
type RemovePeer struct {
	On
	Key Key
}

func (CreateDevice) step()      {}
func (SetKey) step()            {}
func (SetPort) step()           {}
func (SetMTU) step()            {}
func (SetUp) step()             {}
func (AddAddress) step()        {}
func (RemoveAddress) step()     {}
func (SetRoute) step()          {}
func (RemoveRoute) step()       {}
func (AddUnreachable) step()    {}
func (RemoveUnreachable) step() {}
func (SetPeer) step()           {}
func (DropAllowed) step()       {}
func (RemovePeer) step()        {}

func (s CreateDevice) String() string  { return s.On.String() + "device create" }
func (s SetKey) String() string        { return s.On.String() + "device key " + s.Key.String() }
func (s SetPort) String() string       { return fmt.Sprintf("%sdevice port %d", s.On, s.Port) }
func (s SetMTU) String() string        { return fmt.Sprintf("%sdevice mtu %d", s.On, s.MTU) }
func (s SetUp) String() string         { return s.On.String() + "device up" }
func (s AddAddress) String() string    { return s.On.String() + "address add " + s.Addr.String() }
func (s RemoveAddress) String() string { return s.On.String() + "address remove " + s.Addr.String() }
func (s RemoveRoute) String() string   { return s.On.String() + "route remove " + s.CIDR.String() }
func (s AddUnreachable) String() string {
	return "unreachable add " + s.CIDR.String()
}
func (s RemoveUnreachable) String() string {
	return "unreachable remove " + s.CIDR.String()
}
func (s RemovePeer) String() string { return s.On.String() + "peer remove " + s.Key.String() }

func (s SetRoute) String() string {
	src := "none"
	if s.Route.Src.IsValid() {
		src = s.Route.Src.String()
	}
	return fmt.Sprintf("%sroute set %s src %s mtu %d", On{s.Route.Lane}, s.Route.CIDR, src, s.Route.MTU)
}

func (s SetPeer) String() string {
	var b strings.Builder
	verb := "update"
	if s.New {
		verb = "add"
	}
	fmt.Fprintf(&b, "%speer %s %s %s", s.On, verb, s.Key, s.Name)
	if s.Endpoint.IsValid() {
		fmt.Fprintf(&b, " endpoint %s", s.Endpoint)
	}
	if s.Keepalive != nil {
		fmt.Fprintf(&b, " keepalive %s", *s.Keepalive)
	}
	if !s.Preshared.IsZero() {
		b.WriteString(" preshared key")
	}
	for _, cidr := range s.Allow {
		fmt.Fprintf(&b, " +%s", cidr)
	}
	return b.String()
}

func (s DropAllowed) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%sallowed drop", s.On)
	for _, cidr := range s.CIDRs {
		fmt.Fprintf(&b, " %s", cidr)
	}
	return b.String()
}
