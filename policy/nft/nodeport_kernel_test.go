//go:build kernel

package nft

import (
	"encoding/binary"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/kithnet/kith/identity"
	"golang.org/x/sys/unix"
)

// another is a table beside ours in the router, as kube-proxy has one.
type another struct {
	conn  *nftables.Conn
	table *nftables.Table
	chain *nftables.Chain
}

func (l *lab) another(name string, kind nftables.ChainType, hook *nftables.ChainHook, priority int32) another {
	l.Helper()
	conn, err := nftables.New(nftables.WithNetNSFd(int(l.router.ns)))
	must(l, "open nftables", err)
	a := another{conn: conn}
	a.table = conn.AddTable(&nftables.Table{Name: name, Family: nftables.TableFamilyINet})
	a.chain = conn.AddChain(&nftables.Chain{
		Name: "chain", Table: a.table, Type: kind, Hooknum: hook, Priority: nftables.ChainPriorityRef(nftables.ChainPriority(priority)),
	})
	return a
}

func (a another) rule(exprs ...expr.Any) {
	a.conn.AddRule(&nftables.Rule{Table: a.table, Chain: a.chain, Exprs: exprs})
}

// family matches the packet's family and destination address.
func destination(to netip.Addr) []expr.Any {
	family, offset, length := byte(unix.NFPROTO_IPV4), uint32(16), uint32(4)
	if to.Is6() {
		family, offset, length = unix.NFPROTO_IPV6, 24, 16
	}
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
		&expr.Cmp{Register: 1, Data: []byte{family}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: length},
		&expr.Cmp{Register: 1, Data: to.AsSlice()},
	}
}

// redirect rewrites the destination of what comes for an address and port.
func (a another) redirect(protocol identity.Protocol, from, to netip.AddrPort) {
	family := uint32(unix.NFPROTO_IPV4)
	if to.Addr().Is6() {
		family = unix.NFPROTO_IPV6
	}
	a.rule(append(destination(from.Addr()),
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Register: 1, Data: []byte{byte(protocol)}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Register: 1, Data: binary.BigEndian.AppendUint16(nil, from.Port())},
		&expr.Immediate{Register: 1, Data: to.Addr().AsSlice()},
		&expr.Immediate{Register: 2, Data: binary.BigEndian.AppendUint16(nil, to.Port())},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: family, RegAddrMin: 1, RegProtoMin: 2, Specified: true},
	)...)
}

const firstNodePort = 20000

// nodePort is where a pod's port can be reached from outside: by the router's address.
func (l *lab) nodePort(pod netip.Addr, port uint16) netip.AddrPort {
	for i, p := range l.pods {
		for family, a := range p.addresses {
			for n, have := range ports {
				if a == pod && have == port {
					return netip.AddrPortFrom(ownNode[family], firstNodePort+uint16(100*i+n))
				}
			}
		}
	}
	l.Fatalf("%s has no port for %d outside", pod, port)
	return netip.AddrPort{}
}

// openNodePorts makes every pod's ports reachable from outside.
func (l *lab) openNodePorts() {
	l.Helper()
	a := l.another("nodeports", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, -100)
	for _, p := range l.pods {
		for _, address := range p.addresses {
			for _, port := range ports {
				for _, protocol := range []identity.Protocol{identity.TCP, identity.UDP} {
					a.redirect(protocol, l.nodePort(address, port), netip.AddrPortFrom(address, port))
				}
			}
		}
	}
	must(l, "open node ports", a.conn.Flush())
}
