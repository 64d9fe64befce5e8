package ruleset

import (
	"fmt"
	"net/netip"
	"strings"
)

// Type is the datatype of one field of a set key, in nft's names.
type Type uint8

// The datatypes that the ruleset uses. TypeVerdict is only the data of a map.
const (
	TypeNone Type = iota
	TypeIfName
	TypeEtherAddr
	TypeIPv4Addr
	TypeIPv6Addr
	TypeInetProto
	TypeInetService
	TypeClassID
	TypeQuoted4
	TypeQuoted6
	TypeVerdict
)

var types = [...]struct {
	name string
	size int
}{
	TypeNone: {"", 0}, TypeIfName: {"ifname", 16}, TypeEtherAddr: {"ether_addr", 6}, TypeIPv4Addr: {"ipv4_addr", 4},
	TypeIPv6Addr: {"ipv6_addr", 16}, TypeInetProto: {"inet_proto", 1}, TypeInetService: {"inet_service", 2},
	TypeClassID: {"classid", 4}, TypeQuoted4: {"@th,192,32", 4}, TypeQuoted6: {"@th,256,128", 16}, TypeVerdict: {"verdict", 0},
}

// String is the datatype's name in nft.
func (t Type) String() string { return types[t].name }

// Size is the datatype's length in bytes, without the padding that a concatenation adds.
func (t Type) Size() int { return types[t].size }

// Field is a value that a rule loads from a packet, its metadata or its connection.
type Field uint8

// The fields that rules look at. A connection's original source is who opened it; its reply source is the real
// server, after destination NAT.
const (
	InInterface Field = iota
	OutInterface
	EtherSource
	IPSource
	IPDestination
	IP6Source
	IP6Destination
	OriginalSource
	OriginalSource6
	ReplySource
	ReplySource6
	L4Proto
	SourcePort
	DestinationPort
	Priority
	QuotedDestination  // of the packet that an ICMP error quotes
	QuotedDestination6 // of the packet that an ICMPv6 error quotes
)

var fields = [...]struct {
	text string
	typ  Type
}{
	InInterface: {"iifname", TypeIfName}, OutInterface: {"oifname", TypeIfName}, EtherSource: {"ether saddr", TypeEtherAddr},
	IPSource: {"ip saddr", TypeIPv4Addr}, IPDestination: {"ip daddr", TypeIPv4Addr},
	IP6Source: {"ip6 saddr", TypeIPv6Addr}, IP6Destination: {"ip6 daddr", TypeIPv6Addr},
	OriginalSource: {"ct original ip saddr", TypeIPv4Addr}, OriginalSource6: {"ct original ip6 saddr", TypeIPv6Addr},
	ReplySource: {"ct reply ip saddr", TypeIPv4Addr}, ReplySource6: {"ct reply ip6 saddr", TypeIPv6Addr},
	L4Proto: {"meta l4proto", TypeInetProto}, SourcePort: {"th sport", TypeInetService}, DestinationPort: {"th dport", TypeInetService},
	Priority:          {"meta priority", TypeClassID},
	QuotedDestination: {"@th,192,32", TypeQuoted4}, QuotedDestination6: {"@th,256,128", TypeQuoted6},
}

// String is the field as nft writes it.
func (f Field) String() string { return fields[f].text }

// Type is the field's datatype.
func (f Field) Type() Type { return fields[f].typ }

func joinFields(fs []Field) string {
	s := make([]string, len(fs))
	for i, f := range fs {
		s[i] = f.String()
	}
	return strings.Join(s, " . ")
}

// Expr is one expression of a rule. The set is closed: the types below are all that the printer, the kernel edge
// and the walker must know. An expression that looks at something the packet does not have (a port of an ICMP
// packet, the connection of an untracked one) does not match, as in the kernel.
type Expr interface {
	fmt.Stringer
	expr()
}

type (
	// Interface matches the name of an interface; a name that ends in * matches by its beginning.
	Interface struct {
		Field Field
		Op    Op
		Name  string
	}
	// State matches a connection that is in one of the states.
	State struct{ States CTState }
	// Translated matches packets of connections whose destination was rewritten, as a Service's.
	Translated struct{}
	// Unconfirmed matches the packet that makes a connection: the kernel remembers the connection only once the packet
	// has come through all chains. Later packets that nobody has answered yet are of state new, too, and do not match.
	Unconfirmed struct{}
	// Beyond matches the packets beyond a rate. Each rule counts for itself.
	Beyond struct{ PerSecond, Burst uint32 }
	// Direction matches packets of one direction of their connection.
	Direction struct{ Of CTDirection }
	// Protocol matches the transport protocol number.
	Protocol struct{ Number uint8 }
	// NotSYN matches TCP packets that are not the first of a handshake: (fin|syn|rst|ack) != syn.
	NotSYN struct{}
	// ClampMSS goes on behind packets that open a TCP connection, with the segment size they announce lowered to what
	// the routes of both directions carry. It never raises it.
	ClampMSS struct{}
	// ResetFlag matches TCP packets that end a connection at once: tcp flags rst.
	ResetFlag struct{}
	// ICMPType matches the type of an ICMP (Protocol 1) or ICMPv6 (Protocol 58) message.
	ICMPType struct {
		Protocol uint8
		Type     uint8
	}
	// FragmentationNeeded matches the ICMP error that says that a packet was too large. (That of ICMPv6 is ICMPType{58, 2}.)
	FragmentationNeeded struct{}
	// Claims matches an error that a packet was too large, of ICMP (Protocol 1) or ICMPv6 (Protocol 58), if it says that
	// packets must be smaller than Size. It asks for no more of the packet than that number.
	Claims struct {
		Protocol uint8
		Size     uint16
	}
	// KeepWhole forbids routers to cut an IPv4 packet of this node in pieces, if it bears the mark for that: ECT(1).
	KeepWhole struct{}
	// Lookup matches when the concatenation of Fields is (or is not) in a set.
	Lookup struct {
		Fields []Field
		Op     Op
		Set    string
	}
	// Update puts the concatenation of Fields into a set that learns, or begins its time there anew.
	Update struct {
		Fields []Field
		Set    string
	}
	// VerdictMap applies the verdict that a map holds for the concatenation of Fields; none: goes on.
	VerdictMap struct {
		Fields []Field
		Map    string
	}
	// PriorityMap sets the packet's priority, our scratch register, to what a map holds for a field; none: the rule ends.
	PriorityMap struct {
		Field Field
		Map   string
	}
	// PriorityNone resets the packet's priority.
	PriorityNone struct{}
	// PriorityIsNone matches when the priority is not set.
	PriorityIsNone struct{}
	// PriorityUnknown sets the priority to the number of pods that nobody knows, which is no identity's.
	PriorityUnknown struct{}
	// SetArrived sets ArrivedBit in the packet's mark, and leaves all other bits.
	SetArrived struct{}
	// Arrived matches packets whose mark has ArrivedBit.
	Arrived struct{}
	// Reset drops a TCP packet and ends its connection at who sent it, as RFC 9293 §3.10.7.1 does for one that nobody knows.
	// A reset is not answered.
	Reset struct{}
	// Counter counts packets and bytes.
	Counter struct{}
	// Masquerade rewrites the source to the address of the outgoing interface (nat chains only). The port is any that is free:
	// two pods that choose the same at once would meet at the next one, and the second connection would be lost.
	Masquerade struct{}
	// KeepSource binds the source to itself, a field of the packet (nat chains only): no later chain rewrites it.
	KeepSource struct{ Field Field }
	// SourceNAT rewrites the source to an address of the packet's family (nat chains only). Unlike what is masqueraded,
	// the connection goes on when its packets leave by another interface.
	SourceNAT struct{ To netip.Addr }
)

// Equal says that both rewrite to the same address.
func (e SourceNAT) Equal(other SourceNAT) bool { return e == other }

// Op is how a match compares.
type Op uint8

// The comparisons.
const (
	Equal Op = iota
	NotEqual
)

func (o Op) String() string {
	if o == NotEqual {
		return "!= "
	}
	return ""
}

// CTState is a set of connection states, with the kernel's bits (NF_CT_STATE_BIT).
type CTState uint32

// The connection states that rules name.
const (
	StateInvalid     CTState = 1
	StateEstablished CTState = 2
	StateRelated     CTState = 4
	StateNew         CTState = 8
	StateUntracked   CTState = 64
)

// CTDirection is a direction of a connection, with the kernel's numbers.
type CTDirection uint8

// The directions.
const (
	Original CTDirection = 0
	Reply    CTDirection = 1
)

// VerdictKind is what ends a rule.
type VerdictKind uint8

// The verdicts.
const (
	VerdictNone VerdictKind = iota
	Accept
	Drop
	Return
	Jump
	Goto
)

// Verdict ends a rule, or is the data of a verdict map. Chain is for Jump and Goto only.
type Verdict struct {
	Kind  VerdictKind
	Chain string
}

func (v Verdict) String() string {
	words := [...]string{"", "accept", "drop", "return", "jump ", "goto "}
	return words[v.Kind] + v.Chain
}

func (Interface) expr()       {}
func (State) expr()           {}
func (Translated) expr()      {}
func (Unconfirmed) expr()     {}
func (Beyond) expr()          {}
func (Direction) expr()       {}
func (Protocol) expr()        {}
func (NotSYN) expr()          {}
func (ClampMSS) expr()        {}
func (ICMPType) expr()        {}
func (Lookup) expr()          {}
func (Update) expr()          {}
func (VerdictMap) expr()      {}
func (PriorityMap) expr()     {}
func (PriorityNone) expr()    {}
func (PriorityIsNone) expr()  {}
func (PriorityUnknown) expr() {}
func (SetArrived) expr()      {}
func (Arrived) expr()         {}
func (ResetFlag) expr()       {}
func (Reset) expr()           {}
func (Counter) expr()         {}
func (Masquerade) expr()      {}
func (KeepSource) expr()      {}
func (SourceNAT) expr()       {}
func (Verdict) expr()         {}

func (FragmentationNeeded) expr() {}
func (Claims) expr()              {}
func (KeepWhole) expr()           {}
