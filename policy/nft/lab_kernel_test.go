//go:build kernel

package nft

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/kithnet/kith/identity"
	"github.com/kithnet/kith/policy"
	"github.com/kithnet/kith/policy/ruleset"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// lab is one node and what surrounds it, each in a network namespace: pods on veths, the mesh (which bears the
// addresses of another node and its pods, behind kith0), and a machine on the underlay.
type lab struct {
	testing.TB
	table                 *Table
	taught                bool
	router, mesh, outside *place
	pods                  []*place // on this node
	remotes               []end    // in the mesh
}

// place is a namespace with the links in it.
type place struct {
	ns     netns.NsHandle
	handle *netlink.Handle
	link   string // towards the router
	veth   string // the router's end of it
	mac    net.HardwareAddr
	end
}

// end is where connections start and arrive: a pod, a node, a machine.
type end struct {
	name      string
	ns        netns.NsHandle
	addresses []netip.Addr
}

const (
	podCount, remoteCount = 4, 3
	outLink               = "out0"
	gateway4, gateway6    = "169.254.1.1", "fe80::1"
)

var (
	ownCIDRs    = []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24"), netip.MustParsePrefix("fd00:1::/64")}
	remoteCIDRs = []netip.Prefix{netip.MustParsePrefix("10.244.2.0/24"), netip.MustParsePrefix("fd00:2::/64")}
	ownMesh     = addrs("10.244.1.1", "fd00:1::1")
	remoteMesh  = addrs("10.244.2.1", "fd00:2::1")
	ownNode     = addrs("192.0.2.1", "2001:db8::1")
	remoteNode  = addrs("192.0.2.2", "2001:db8::2")
	outsiders   = addrs("192.0.2.9", "2001:db8::9", "192.0.2.130", "2001:db8:0:1::9")
)

func addrs(s ...string) []netip.Addr {
	var out []netip.Addr
	for _, a := range s {
		out = append(out, netip.MustParseAddr(a))
	}
	return out
}

func newLab(t testing.TB, opts ...Option) *lab {
	t.Helper()
	l := &lab{TB: t, router: newPlace(t, "router"), mesh: newPlace(t, "mesh"), outside: newPlace(t, "outside")}
	l.router.addresses = append(append([]netip.Addr{}, ownMesh...), ownNode...)
	l.table = openTable(t, l.router.ns, opts...)
	l.forwarding()
	l.connectOutside()
	l.connectMesh()
	for i := range podCount {
		l.addPod(i)
	}
	l.await()
	return l
}

// await waits until every link carries and every address receives: the kernel does both at its leisure, and most tests
// send a packet once.
func (l *lab) await() {
	l.Helper()
	for _, p := range append([]*place{l.mesh, l.outside}, l.pods...) {
		l.until(p.link+" of "+p.name+" is up", func() bool {
			return l.find(p, p.link).Attrs().OperState == netlink.OperUp && l.find(l.router, p.veth).Attrs().OperState == netlink.OperUp
		})
	}
	for _, e := range l.ends() {
		for _, a := range e.addresses {
			l.until(e.name+" has "+a.String(), func() bool {
				routes, err := l.place(e).handle.RouteGet(a.AsSlice())
				return err == nil && len(routes) > 0 && routes[0].Type == unix.RTN_LOCAL
			})
		}
	}
}

func (l *lab) until(what string, holds func() bool) {
	l.Helper()
	for end := time.Now().Add(12 * late); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			l.Fatalf("not after %s: %s", 12*late, what)
		}
	}
}

func newPlace(t testing.TB, name string) *place {
	t.Helper()
	ns := newNamespace(t)
	h, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE, unix.NETLINK_NETFILTER)
	must(t, "open netlink", err)
	t.Cleanup(h.Close)
	p := &place{ns: ns, handle: h, end: end{name: name, ns: ns}}
	lo, err := h.LinkByName("lo")
	must(t, "find lo", err)
	must(t, "set lo up", h.LinkSetUp(lo))
	return p
}

func must(t testing.TB, what string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

func (l *lab) sysctl(p *place, value string, keys ...string) {
	l.Helper()
	inside(l, p.ns, func() {
		for _, k := range keys {
			must(l, "set "+k, os.WriteFile("/proc/sys/net/"+k, []byte(value), 0o644))
		}
	})
}

func (l *lab) forwarding() {
	l.sysctl(l.router, "1", "ipv4/ip_forward", "ipv6/conf/all/forwarding")
	for _, p := range []*place{l.router, l.outside, l.mesh} {
		l.sysctl(p, "0", "ipv4/conf/all/rp_filter", "ipv4/conf/default/rp_filter", "ipv6/conf/default/accept_dad", "ipv4/icmp_ratelimit")
	}
}

// wire joins the router to a place by a veth pair.
func (l *lab) wire(p *place, routerEnd, placeEnd string, n byte) {
	l.Helper()
	p.link, p.veth, p.mac = placeEnd, routerEnd, net.HardwareAddr{2, 0, 0, 0, 1, n}
	must(l, "add "+routerEnd, l.router.handle.LinkAdd(&netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: routerEnd, HardwareAddr: routerMAC(n)}, PeerName: placeEnd,
		PeerHardwareAddr: p.mac, PeerNamespace: netlink.NsFd(p.ns),
	}))
	for _, e := range []struct {
		place *place
		link  string
	}{{l.router, routerEnd}, {p, placeEnd}} {
		must(l, "set up "+e.link, e.place.handle.LinkSetUp(l.find(e.place, e.link)))
	}
}

func routerMAC(n byte) net.HardwareAddr { return net.HardwareAddr{2, 0, 0, 0, 0, n} }

func (l *lab) find(p *place, name string) netlink.Link {
	l.Helper()
	link, err := p.handle.LinkByName(name)
	must(l, "find "+name, err)
	return link
}

func (l *lab) address(p *place, link string, a netip.Prefix) {
	l.Helper()
	must(l, "add "+a.String(), p.handle.AddrAdd(l.find(p, link), &netlink.Addr{IPNet: ipNet(a), Flags: unix.IFA_F_NODAD}))
}

func single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// route sends a prefix out of a link; via may be the zero Addr.
func (l *lab) route(p *place, link string, to netip.Prefix, via netip.Addr) {
	l.Helper()
	r := &netlink.Route{LinkIndex: l.find(p, link).Attrs().Index, Dst: ipNet(to), Scope: netlink.SCOPE_LINK}
	if via.IsValid() {
		r.Gw, r.Flags, r.Scope = via.AsSlice(), int(netlink.FLAG_ONLINK), netlink.SCOPE_UNIVERSE
	}
	must(l, fmt.Sprintf("route %s by %s", to, link), p.handle.RouteReplace(r))
}

func (l *lab) neighbour(p *place, link string, a netip.Addr, mac net.HardwareAddr) {
	l.Helper()
	must(l, "add neighbour "+a.String(), p.handle.NeighSet(&netlink.Neigh{
		LinkIndex: l.find(p, link).Attrs().Index, State: netlink.NUD_PERMANENT, IP: a.AsSlice(), HardwareAddr: mac,
	}))
}

func (l *lab) connectOutside() {
	l.wire(l.outside, outLink, "eth0", 200)
	l.outside.addresses = outsiders
	l.address(l.router, outLink, netip.PrefixFrom(ownNode[0], 24))
	l.address(l.router, outLink, netip.PrefixFrom(ownNode[1], 64))
	for i, a := range outsiders {
		l.address(l.outside, "eth0", netip.PrefixFrom(a, []int{24, 64, 24, 64}[i]))
		l.route(l.router, outLink, single(a), netip.Addr{})
	}
	for i, p := range ownCIDRs {
		l.route(l.outside, "eth0", p, ownNode[i])
	}
}

func (l *lab) connectMesh() {
	l.wire(l.mesh, ruleset.Devices[0], "eth0", 201)
	for f := range 2 {
		l.address(l.router, ruleset.Devices[0], single(ownMesh[f]))
		l.address(l.mesh, "eth0", single(remoteMesh[f]))
		l.route(l.router, ruleset.Devices[0], remoteCIDRs[f], netip.Addr{})
		l.neighbour(l.router, ruleset.Devices[0], remoteMesh[f], l.mesh.mac)
		l.neighbour(l.mesh, "eth0", ownMesh[f], routerMAC(201))
		l.route(l.mesh, "eth0", ownCIDRs[f], ownMesh[f])
	}
	l.mesh.addresses = remoteMesh
	for i := range remoteCount {
		r := end{name: fmt.Sprintf("remote%d", i), ns: l.mesh.ns, addresses: addrs(fmt.Sprintf("10.244.2.%d", 10+i), fmt.Sprintf("fd00:2::%d", 10+i))}
		for _, a := range r.addresses {
			l.address(l.mesh, "eth0", single(a))
			l.neighbour(l.router, ruleset.Devices[0], a, l.mesh.mac)
		}
		l.remotes = append(l.remotes, r)
	}
}

func (l *lab) addPod(i int) {
	p := newPlace(l, fmt.Sprintf("pod%d", i))
	l.sysctl(p, "0", "ipv6/conf/default/accept_dad")
	l.wire(p, fmt.Sprintf("kith-%010x", i), "eth0", byte(i))
	p.addresses = addrs(fmt.Sprintf("10.244.1.%d", 10+i), fmt.Sprintf("fd00:1::%d", 10+i))
	for f, gw := range addrs(gateway4, gateway6) {
		l.address(p, "eth0", single(p.addresses[f]))
		l.route(l.router, p.veth, single(p.addresses[f]), netip.Addr{})
		l.neighbour(l.router, p.veth, p.addresses[f], p.mac)
		l.neighbour(p, "eth0", gw, routerMAC(byte(i)))
		l.route(p, "eth0", []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}[f], gw)
	}
	l.pods = append(l.pods, p)
}

// ends are all that can open or take a connection.
func (l *lab) ends() []end {
	out := []end{l.router.end, l.mesh.end, l.outside.end}
	for _, p := range l.pods {
		out = append(out, p.end)
	}
	return append(out, l.remotes...)
}

// local says whether an address is that of a pod of this node.
func (l *lab) local(a netip.Addr) bool {
	for _, p := range l.pods {
		for _, have := range p.addresses {
			if have == a {
				return true
			}
		}
	}
	return false
}

func (l *lab) network() ruleset.Network {
	return ruleset.Network{Node: "own", Resets: true, Ports: ruleset.Ports{Gossip: 7946, WireGuard: 51820, Probe: 7947, Announce: 7948}, Nodes: []policy.Node{
		{Name: "own", Labels: map[string]string{"node": "own"}, PodCIDRs: ownCIDRs, Addresses: ownNode, Mesh: ownMesh},
		{Name: "remote", Labels: map[string]string{"node": "remote"}, PodCIDRs: remoteCIDRs, Addresses: remoteNode, Mesh: remoteMesh},
	}}
}

// attachments are those of all pods, opened.
func (l *lab) attachments() []ruleset.Attachment {
	var out []ruleset.Attachment
	for _, p := range l.pods {
		out = append(out, ruleset.Attachment{
			Pod: identity.PodKey{Namespace: namespaceOf(p.name), Name: p.name}, Interface: p.veth,
			MAC: ruleset.MAC(p.mac), Addresses: p.addresses,
		})
	}
	return out
}

// namespaceOf puts the pods with even numbers into one namespace and the others into another.
func namespaceOf(pod string) string {
	if strings.HasSuffix(pod, "0") || strings.HasSuffix(pod, "2") {
		return "even"
	}
	return "odd"
}

// cluster is the lab's pods with the labels app=<name>, without policies.
func (l *lab) cluster() policy.Cluster {
	c := policy.Cluster{Nodes: l.network().Nodes}
	for _, n := range []string{"even", "odd"} {
		c.Namespaces = append(c.Namespaces, identity.Namespace{Name: n, Labels: map[string]string{"team": n}})
	}
	for _, e := range l.ends()[3:] {
		c.Pods = append(c.Pods, identity.Pod{
			Namespace: namespaceOf(e.name), Name: e.name, UID: e.name, Labels: map[string]string{"app": e.name}, Addresses: e.addresses,
		})
	}
	return c
}

// enforce puts a cluster's policies into the kernel, as the agent does.
func (l *lab) enforce(c policy.Cluster, attachments []ruleset.Attachment) {
	l.Helper()
	in := ruleset.Input{Pods: c.Pods, Namespaces: c.Namespaces, Attachments: attachments, Network: l.network()}
	if l.taught {
		converge(l, l.table, ruleset.Compile(in)) // forgets what pods were told
	}
	in.Policies = c.Policies
	compiler := ruleset.CompilerOf(in)
	converge(l, l.table, compiler.Ruleset())
	l.taught = len(c.Answers) > 0
	must(l, "learn", l.table.Pupil().Learn(l.Context(), lasting(compiler.Lessons(c.Answers), time.Hour)))
}
