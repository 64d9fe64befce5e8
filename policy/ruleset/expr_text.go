package ruleset

import (
	"fmt"
	"strings"
)

func (e Interface) String() string { return fmt.Sprintf("%s %s%q", e.Field, e.Op, e.Name) }

func (e State) String() string {
	var s []string
	for _, n := range []struct {
		bit  CTState
		name string
	}{{StateInvalid, "invalid"}, {StateEstablished, "established"}, {StateRelated, "related"}, {StateNew, "new"}, {StateUntracked, "untracked"}} {
		if e.States&n.bit != 0 {
			s = append(s, n.name)
		}
	}
	return "ct state " + strings.Join(s, ",")
}

func (Translated) String() string { return "ct status dnat" }

func (Unconfirmed) String() string { return "ct status ! confirmed" }

func (e Beyond) String() string {
	return fmt.Sprintf("limit rate over %d/second burst %d packets", e.PerSecond, e.Burst)
}

func (e Direction) String() string {
	if e.Of == Reply {
		return "ct direction reply"
	}
	return "ct direction original"
}

func (e Protocol) String() string { return fmt.Sprintf("meta l4proto %d", e.Number) }

func (NotSYN) String() string { return "tcp flags & (fin | syn | rst | ack) != syn" }

func (ClampMSS) String() string { return "tcp flags syn tcp option maxseg size set rt mtu" }

func (e ICMPType) String() string {
	if e.Protocol == 58 {
		return fmt.Sprintf("icmpv6 type %d", e.Type)
	}
	return fmt.Sprintf("icmp type %d", e.Type)
}

func (FragmentationNeeded) String() string { return "icmp type 3 icmp code 4" }

func (e Claims) String() string {
	if e.Protocol == 58 {
		return fmt.Sprintf("@th,32,32 < %d", e.Size)
	}
	return fmt.Sprintf("@th,48,16 < %d", e.Size)
}

func (KeepWhole) String() string { return "ip ecn ect1 ip frag-off set 16384" }

func (e Lookup) String() string { return joinFields(e.Fields) + " " + e.Op.String() + "@" + e.Set }

func (e Update) String() string { return "update @" + e.Set + " { " + joinFields(e.Fields) + " }" }

func (e VerdictMap) String() string { return joinFields(e.Fields) + " vmap @" + e.Map }

func (e PriorityMap) String() string {
	return "meta priority set " + e.Field.String() + " map @" + e.Map
}

func (PriorityNone) String() string { return "meta priority set 0" }

func (PriorityIsNone) String() string { return "meta priority 0" }

func (PriorityUnknown) String() string { return "meta priority set " + classID(Unknown) }

func (SetArrived) String() string { return fmt.Sprintf("meta mark set meta mark | 0x%08x", ArrivedBit) }

func (Arrived) String() string {
	return fmt.Sprintf("meta mark & 0x%08x == 0x%08x", ArrivedBit, ArrivedBit)
}

func (ResetFlag) String() string { return "tcp flags rst" }

func (Reset) String() string { return "reject with tcp reset" }

func (Counter) String() string { return "counter" }

func (Masquerade) String() string { return "masquerade fully-random" }

func (e KeepSource) String() string {
	if e.Field == IP6Source {
		return "snat ip6 to ip6 saddr"
	}
	return "snat ip to " + e.Field.String()
}

func (e SourceNAT) String() string {
	if e.To.Is6() {
		return "snat ip6 to " + e.To.String()
	}
	return "snat ip to " + e.To.String()
}
