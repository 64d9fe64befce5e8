//go:build kernel

package nft

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/kithnet/kith/identity"
	"github.com/kithnet/kith/policy"
	"github.com/moby/ipvs"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/labels"
)

// virtual is a Service's address in IPVS, for what is really at another.
func virtual(a netip.Addr) netip.Addr {
	b := a.As16()
	if a.Is4() {
		return netip.AddrFrom4([4]byte{10, 96, b[14], b[15]})
	}
	copy(b[:2], []byte{0xfd, 0x96})
	return netip.AddrFrom16(b)
}

// openVirtual reaches all pods' ports by IPVS as kube-proxy would set it up: Services, whose addresses the node has, and
// ports of the node.
func (l *lab) openVirtual() {
	l.Helper()
	handle, err := ipvs.New(fmt.Sprintf("/proc/self/fd/%d", int(l.router.ns)))
	must(l, "open IPVS", err)
	l.Cleanup(handle.Close)
	l.sysctl(l.router, "1", "ipv4/vs/conntrack")
	must(l, "add kube-ipvs0", l.router.handle.LinkAdd(&netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Name: "kube-ipvs0"}}))
	ends := slices.Clone(l.remotes)
	for _, p := range l.pods {
		ends = append(ends, p.end)
	}
	for _, e := range ends {
		for _, a := range e.addresses {
			l.address(l.router, "kube-ipvs0", single(virtual(a)))
			for _, port := range ports {
				l.balance(handle, netip.AddrPortFrom(virtual(a), port), netip.AddrPortFrom(a, port))
				if l.local(a) {
					l.balance(handle, l.nodePort(a, port), netip.AddrPortFrom(a, port))
				}
			}
		}
	}
	for _, e := range ends {
		for _, a := range e.addresses {
			l.until("the node has "+virtual(a).String(), func() bool {
				routes, err := l.router.handle.RouteGet(virtual(a).AsSlice())
				return err == nil && len(routes) > 0 && routes[0].Type == unix.RTN_LOCAL
			})
		}
	}
}

// balance has one address and port lead to another.
func (l *lab) balance(handle *ipvs.Handle, from, to netip.AddrPort) {
	l.Helper()
	family, netmask := uint16(unix.AF_INET), uint32(0xffffffff)
	if from.Addr().Is6() {
		family, netmask = unix.AF_INET6, 128
	}
	for _, protocol := range []identity.Protocol{identity.TCP, identity.UDP} {
		s := &ipvs.Service{
			Address: from.Addr().AsSlice(), Port: from.Port(), Protocol: uint16(protocol),
			SchedName: ipvs.RoundRobin, AddressFamily: family, Netmask: netmask,
		}
		must(l, "add a Service to IPVS", handle.NewService(s))
		must(l, "add its server", handle.NewDestination(s, &ipvs.Destination{
			Address: to.Addr().AsSlice(), Port: to.Port(), Weight: 1, AddressFamily: family, ConnectionFlags: ipvs.ConnectionFlagMasq,
		}))
	}
}

// byIPVS are the flows that this node can balance, each sent by a Service or a port of the node. What the node itself sends
// to a remote pod leaves by the mesh under the mesh's address.
func (l *lab) byIPVS(flows []flow) []flow {
	var out []flow
	for _, f := range flows {
		switch {
		case f.Protocol != identity.TCP && f.Protocol != identity.UDP, f.from.ns == l.mesh.ns:
			continue
		case f.to.ns == l.outside.ns || f.to.ns == l.router.ns || f.Destination == remoteMesh[0] || f.Destination == remoteMesh[1]:
			continue
		case !f.by.IsValid():
			f.by = netip.AddrPortFrom(virtual(f.Destination), f.Port)
		}
		out = append(out, f)
	}
	return out
}

// reaches says whether the first packet of a flow comes to the real server: what comes back meets the policies elsewhere.
func (l *lab) reaches(f flow, want expected) bool {
	l.Helper()
	f.Destination, f.Port = f.by.Addr(), f.by.Port()
	kind := func(f flow, word string) packet { return udpPacket(f, uint16(1024+rand.IntN(60000)), word) }
	if f.Protocol == identity.TCP {
		kind = func(f flow, word string) packet { return tcpPacket(f, uint16(1024+rand.IntN(60000)), syn, word) }
	}
	return l.carriesPacket(f, want.patience(), kind)
}

// withIPVS makes sure that the kernel has IPVS. Where KITH_IPVS is "required", one without is an error.
func withIPVS(t *testing.T) {
	t.Helper()
	if _, err := netlink.GenlFamilyGet("IPVS"); err == nil {
		return
	}
	if os.Getenv("KITH_IPVS") == "required" {
		t.Fatal("this kernel has no IPVS")
	}
	t.Skip("NOT CHECKED here: kube-proxy's mode ipvs, which needs a kernel with ip_vs; stage guest has one")
}

// TestIPVSIsNoWayRound: what IPVS forwards never sees the forward hook, and meets the same policies all the same, those for
// who sends and those for who receives.
func TestIPVSIsNoWayRound(t *testing.T) {
	withIPVS(t)
	const flowsEach, wordsEach = 150, 30
	l := newLab(t)
	l.serve()
	l.openVirtual()
	seed := fromEnv(t, "KITH_SEED", int(time.Now().Unix()))
	allowed, denied := 0, 0
	for i := range fromEnv(t, "KITH_CLUSTERS", 4) {
		r := chance{rand.New(rand.NewPCG(uint64(seed+i), 1))}
		c := r.cluster(l)
		l.enforce(c, l.attachments())
		flows := l.byIPVS(r.flows(l, flowsEach))
		wrong := l.mismatches(flows, func(f flow) bool { return l.allows(c, f) })
		for _, f := range flows[:min(wordsEach, len(flows))] {
			want := l.allows(c, f)
			if f.from.ns != l.router.ns && l.reaches(f, expected(want)) != want {
				wrong = append(wrong, f)
			}
			if want {
				allowed++
			} else {
				denied++
			}
		}
		if len(wrong) > 0 {
			t.Fatalf("KITH_SEED=%d KITH_CLUSTERS=1: %s", seed+i, explain(c, wrong))
		}
	}
	t.Logf("of %d words that are allowed and %d that are denied, from seed %d", allowed, denied, seed)
	if allowed == 0 || denied == 0 {
		t.Error("the flows were all of one kind")
	}
}

// TestIPVSIsCut: a connection by IPVS ends when a policy denies it, on its way there too.
func TestIPVSIsCut(t *testing.T) {
	withIPVS(t)
	families(t, func(t *testing.T, family int) {
		l := newLab(t)
		l.serve()
		l.openVirtual()
		for name, f := range map[string]flow{
			"who sends":    l.between(l.pods[0].end, l.remotes[0], family, identity.TCP, 80),
			"who receives": l.between(l.pods[1].end, l.pods[2].end, family, identity.TCP, 80),
		} {
			l.under()
			f.by = netip.AddrPortFrom(virtual(f.Destination), f.Port)
			var conn net.Conn
			var err error
			inside(t, f.from.ns, func() { conn, err = dialFlow(f, late) })
			must(t, "dial", err)
			defer conn.Close()
			if !talks(conn, late) {
				t.Fatalf("%s: does not pass without policies", name)
			}
			l.under(isolates("pod0", policy.Egress), isolates("pod2", policy.Ingress))
			word := newWord()
			if l.seen(f.to, word, soon, func() { _, _ = conn.Write([]byte(word)) }) {
				t.Errorf("%s: goes on though it is denied", name)
			}
		}
	})
}

// TestIPVSBesideTheNodesOwn: a ClusterNetworkPolicy for what a pod sends decides by the real server, not by the Service's
// address, which the node has as one of its own.
func TestIPVSBesideTheNodesOwn(t *testing.T) {
	withIPVS(t)
	families(t, func(t *testing.T, family int) {
		l := newLab(t)
		l.serve()
		l.openVirtual()
		f := l.between(l.pods[0].end, l.pods[1].end, family, identity.TCP, 80)
		f.by = netip.AddrPortFrom(virtual(f.Destination), f.Port)
		deny := isolates("pod0", policy.Egress, policy.Rule{
			Action: policy.Deny, Peers: []policy.Peer{{Block: &policy.Block{CIDR: single(f.by.Addr())}}}, AllPorts: true,
		})
		deny.Tier, deny.Namespace, deny.Namespaces = policy.Admin, "", labels.Everything()
		l.under(deny)
		if !l.passes(f, late) {
			t.Error("a rule about the Service's address denies what goes to the real server")
		}
	})
}
