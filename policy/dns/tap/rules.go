package tap

import (
	"encoding/binary"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

const (
	// hookPriority is behind address translation: answers are as the pod will see them.
	hookPriority = 200
	// longestHeld is how long a packet may be that surely fits a pod's interface: IPv6 asks that of every link.
	longestHeld = 1280
	// longestHeard is the longest that is read at all: about 250 addresses.
	longestHeard = 4096
	// shortestTCP is the shortest segment that holds an answer with an address. What only acknowledges is shorter.
	shortestTCP = 75
	dnsPort     = 53
	// Where a DNS message over UDP says whether it answers, and how many records it has: behind the header of UDP.
	rcodeAt, countAt = udpHeader + 3, udpHeader + 6
	udpHeader        = 8
)

// How many answers are heard: of one pod, and of all. What comes beyond passes unheard, and what waits in the socket fits
// there even if nobody has read since the first proof of two.
const (
	podRate, podBurst = 100, 200
	allRate, allBurst = 2000, 3500
	// noteRate is how often the agent hears that something passed unheard.
	noteRate, noteBurst = 1, 5
	// noteLength is enough of a packet for that: the addresses.
	noteLength = 60
)

// The notes on a copy that is not to be read as an answer.
const (
	noteStranger = "stranger" // the server is not one of those that are heard
	noteBusy     = "busy"     // the pod, or all pods, are answered more often than is heard
)

// The chains. Only the first has a hook; what comes to a chain's end passes.
const (
	chainAnswers = "answers" // what a server says to a pod
	chainHeard   = "heard"   // by a server that is heard
	chainHeld    = "held"    // and it is to wait until it was heard
	chainBusy    = "busy"    // it is not, since there is too much
)

func accept() expr.Any { return &expr.Verdict{Kind: expr.VerdictAccept} }

func drop() expr.Any { return &expr.Verdict{Kind: expr.VerdictDrop} }

func to(chain string) expr.Any { return &expr.Verdict{Kind: expr.VerdictGoto, Chain: chain} }

func (t *table) addRules() {
	hook, priority := nftables.ChainHookPostrouting, nftables.ChainPriority(hookPriority)
	add := func(chain string, rules ...[]expr.Any) {
		c := &nftables.Chain{Table: t.kernel, Name: chain}
		if chain == chainAnswers {
			c.Type, c.Hooknum, c.Priority = nftables.ChainTypeFilter, hook, &priority
		}
		t.nft.AddChain(c)
		for _, r := range rules {
			t.nft.AddRule(&nftables.Rule{Table: t.kernel, Chain: c, Exprs: r})
		}
	}
	add(chainBusy, append(t.note(noteBusy), accept()))
	add(chainHeld, append(t.paced(), to(chainBusy)), []expr.Any{beyond(allRate, allBurst), to(chainBusy)}, []expr.Any{copied(heldGroup), drop()})
	add(chainHeard, t.heardRules()...)
	for _, f := range families() {
		add("from"+f.name, f.fromRules(t)...)
	}
	var begin [][]expr.Any
	for _, f := range families() {
		for _, known := range [][]expr.Any{
			{&expr.Ct{Key: expr.CtKeyDIRECTION, Register: 1}, equal(1)}, // a reply in a connection
			untracked(), // as node-local caches have their own
		} {
			r := f.address(f.destination, setPods)
			r = append(r, port53()...)
			r = append(r, protocolIn(t, setHearing)...)
			begin = append(begin, append(append(r, known...), to("from"+f.name)))
		}
	}
	add(chainAnswers, begin...)
}

// heardRules let pass what tells nothing, hold what is short, and copy what is not.
func (t *table) heardRules() [][]expr.Any {
	udp, tcp := protocol(unix.IPPROTO_UDP), protocol(unix.IPPROTO_TCP)
	return [][]expr.Any{
		concat(udp, transport(rcodeAt, 1), []expr.Any{
			&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 1, Mask: []byte{0x0f}, Xor: []byte{0}},
			&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: []byte{0}}, accept()}),
		concat(udp, transport(countAt, 2), []expr.Any{equal(0, 0), accept()}),
		concat(udp, length(expr.CmpOpLte, longestHeld), []expr.Any{to(chainHeld)}),
		concat(length(expr.CmpOpGt, longestHeard), []expr.Any{accept()}),
		concat(tcp, length(expr.CmpOpLt, shortestTCP), []expr.Any{accept()}),
		append(t.paced(), to(chainBusy)),
		{copied(copyGroup)},
	}
}

// family is what differs between IPv4 and IPv6.
type family struct {
	name                string
	protocol            byte
	source, destination uint32 // where the addresses are
	size                uint32
}

func families() []family {
	return []family{{"4", unix.NFPROTO_IPV4, 12, 16, 4}, {"6", unix.NFPROTO_IPV6, 8, 24, 16}}
}

func (f family) load(at, size uint32) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1}, equal(f.protocol),
		&expr.Payload{Base: expr.PayloadBaseNetworkHeader, Offset: at, Len: size, DestRegister: 1},
	}
}

func (f family) address(at uint32, set string) []expr.Any {
	return append(f.load(at, f.size), &expr.Lookup{SourceRegister: 1, SetName: set + f.name})
}

// fromRules choose by who answers.
func (f family) fromRules(t *table) [][]expr.Any {
	rules := [][]expr.Any{
		append(f.address(f.source, setServers), to(chainHeard)),
		append(protocolIn(t, setAny), to(chainHeard)),
	}
	if f.protocol == unix.NFPROTO_IPV4 {
		rules = append(rules, append(f.load(f.source, 2), equal(169, 254), to(chainHeard)))
	}
	return append(rules, concat(protocol(unix.IPPROTO_UDP), t.note(noteStranger)))
}

func concat(all ...[]expr.Any) (out []expr.Any) {
	for _, some := range all {
		out = append(out, some...)
	}
	return out
}

func protocol(p byte) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, equal(p)}
}

func protocolIn(t *table, set string) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, &expr.Lookup{SourceRegister: 1, SetName: t.sets[set].Name}}
}

func transport(at, size uint32) []expr.Any {
	return []expr.Any{&expr.Payload{Base: expr.PayloadBaseTransportHeader, Offset: at, Len: size, DestRegister: 1}}
}

func port53() []expr.Any { return append(transport(0, 2), equal(dnsPort>>8, dnsPort&0xff)) }

// untracked matches what connection tracking was told to leave alone.
func untracked() []expr.Any {
	bit := binary.NativeEndian.AppendUint32(nil, expr.CtStateBitUNTRACKED)
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: bit, Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
	}
}

func length(op expr.CmpOp, n uint32) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyLEN, Register: 1},
		&expr.Byteorder{SourceRegister: 1, DestRegister: 1, Op: expr.ByteorderHton, Len: 4, Size: 4},
		&expr.Cmp{Op: op, Register: 1, Data: binary.BigEndian.AppendUint32(nil, n)},
	}
}

func equal(b ...byte) expr.Any { return &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: b} }

func within(rate uint64, burst uint32) expr.Any {
	return &expr.Limit{Type: expr.LimitTypePkts, Rate: rate, Unit: expr.LimitTimeSecond, Burst: burst}
}

func beyond(rate uint64, burst uint32) expr.Any {
	return &expr.Limit{Type: expr.LimitTypePkts, Rate: rate, Unit: expr.LimitTimeSecond, Burst: burst, Over: true}
}

// paced matches what goes to a pod's interface beyond its pace.
func (t *table) paced() []expr.Any {
	set := t.sets[setPaced]
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyOIF, Register: 1},
		&expr.Dynset{SrcRegKey: 1, SetName: set.Name, SetID: set.ID, Operation: unix.NFT_DYNSET_OP_UPDATE, Exprs: []expr.Any{beyond(podRate, podBurst)}},
	}
}

// copied gives a copy to those who take the group's.
func copied(group uint16) expr.Any { return &expr.Log{Key: 1 << unix.NFTA_LOG_GROUP, Group: group} }

// note says now and then that something passed unheard.
func (t *table) note(what string) []expr.Any {
	return []expr.Any{within(noteRate, noteBurst), &expr.Log{
		Key:   1<<unix.NFTA_LOG_GROUP | 1<<unix.NFTA_LOG_PREFIX | 1<<unix.NFTA_LOG_SNAPLEN,
		Group: copyGroup, Snaplen: noteLength, Data: []byte(what),
	}}
}
