package cluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

const netnsDir = "/run/netns"

func (c *Cluster) underlayNetns() string { return c.Name + "-lan" }
func (c *Cluster) outsideNetns() string  { return c.Name + "-out" }
func (c *Cluster) rootLink() string      { return c.Name + "-root" }

const bridgeName = "lan"

// underlay returns the prefixes of the node network, the first family first.
func (c *Cluster) underlay() []netip.Prefix {
	v4 := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 89, byte(c.Index), 0}), 24)
	v6 := netip.MustParsePrefix(fmt.Sprintf("fd00:89:0:%x::/64", c.Index))
	if c.Stack == DualIPv6 {
		return []netip.Prefix{v6, v4}
	}
	return c.families(v4, v6)
}

// addresses returns the addresses with a host number on the node network.
func (c *Cluster) addresses(host byte) []netip.Addr {
	var out []netip.Addr
	for _, p := range c.underlay() {
		b := p.Addr().AsSlice()
		b[len(b)-1] = host
		a, _ := netip.AddrFromSlice(b)
		out = append(out, a)
	}
	return out
}

// Host numbers on the node network.
const (
	rootHost    = 1
	firstNode   = 11
	outsideHost = 200
)

// OutsideAddresses are the addresses of the outside host, which knows no route to any pod.
func (c *Cluster) OutsideAddresses() []netip.Addr { return c.addresses(outsideHost) }

func (c *Cluster) makeNetwork(ctx context.Context) error {
	var err error
	if c.Index, err = freeIndex(); err != nil {
		return err
	}
	for i := range c.Nodes {
		c.Members = append(c.Members, Node{Name: fmt.Sprintf("%s-n%d", c.Name, i+1), Addresses: c.addresses(firstNode + byte(i))})
	}
	if err := c.save(); err != nil {
		return err
	}
	if err := newNetns(c.underlayNetns()); err != nil {
		return err
	}
	if err := c.makeBridge(); err != nil {
		return fmt.Errorf("bridge: %w", err)
	}
	if err := c.attachRoot(); err != nil {
		return fmt.Errorf("link of this machine: %w", err)
	}
	for _, n := range c.Members {
		if err := c.attach(n.Name, n.Name, n.Addresses); err != nil {
			return fmt.Errorf("link of node %s: %w", n.Name, err)
		}
	}
	if err := c.attach(c.outsideNetns(), "out", c.addresses(outsideHost)); err != nil {
		return fmt.Errorf("link of the outside host: %w", err)
	}
	return c.serveOutside()
}

// freeIndex picks the first reserved subnet of which this machine knows no route.
func freeIndex() (int, error) {
	routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		return 0, fmt.Errorf("list routes: %w", err)
	}
	for i := range 256 {
		taken := false
		for _, r := range routes {
			ones := 0
			if r.Dst != nil {
				ones, _ = r.Dst.Mask.Size()
			}
			taken = taken || (ones > 0 && r.Dst.Contains(net.IPv4(10, 89, byte(i), 0)))
		}
		if !taken {
			return i, nil
		}
	}
	return 0, errors.New("all of 10.89.0.0/16 is taken")
}

func (c *Cluster) makeBridge() error {
	h, err := handleAt(c.underlayNetns())
	if err != nil {
		return err
	}
	defer h.Close()
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: bridgeName}}
	if err := h.LinkAdd(bridge); err != nil {
		return err
	}
	if err := h.LinkSetUp(bridge); err != nil {
		return err
	}
	// The underlay forwards frames; it must not track or filter what it carries.
	return inNetns(c.underlayNetns(), func() error {
		for _, family := range []string{"iptables", "ip6tables", "arptables"} {
			err := os.WriteFile("/proc/sys/net/bridge/bridge-nf-call-"+family, []byte("0"), 0o644)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		return nil
	})
}

// attachRoot gives this machine an address on the node network, for kubectl.
func (c *Cluster) attachRoot() error {
	lan, err := netns.GetFromName(c.underlayNetns())
	if err != nil {
		return err
	}
	defer lan.Close()
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: c.rootLink()}, PeerName: "root", PeerNamespace: netlink.NsFd(int(lan))}
	if err := netlink.LinkAdd(veth); err != nil {
		return err
	}
	if err := c.setPort("root", portAttached); err != nil {
		return err
	}
	link, err := netlink.LinkByName(c.rootLink())
	if err != nil {
		return err
	}
	root := &netlink.Handle{}
	return configure(root, link, c.prefixes(c.addresses(rootHost)))
}

// attach makes a network namespace whose eth0 is a port of the bridge.
func (c *Cluster) attach(namespace, port string, addresses []netip.Addr) error {
	if err := newNetns(namespace); err != nil {
		return err
	}
	lan, err := handleAt(c.underlayNetns())
	if err != nil {
		return err
	}
	defer lan.Close()
	ns, err := netns.GetFromName(namespace)
	if err != nil {
		return err
	}
	defer ns.Close()
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: port}, PeerName: "eth0", PeerNamespace: netlink.NsFd(int(ns))}
	if err := lan.LinkAdd(veth); err != nil {
		return err
	}
	if err := c.setPort(port, portAttached); err != nil {
		return err
	}
	h, err := netlink.NewHandleAt(ns)
	if err != nil {
		return err
	}
	defer h.Close()
	link, err := h.LinkByName("eth0")
	if err != nil {
		return err
	}
	if err := configure(h, link, c.prefixes(addresses)); err != nil {
		return err
	}
	return c.addDefaultRoutes(h, link)
}

func (c *Cluster) addDefaultRoutes(h *netlink.Handle, link netlink.Link) error {
	for _, gw := range c.addresses(rootHost) {
		bits := gw.BitLen()
		route := &netlink.Route{LinkIndex: link.Attrs().Index, Gw: gw.AsSlice(),
			Dst: &net.IPNet{IP: make(net.IP, bits/8), Mask: net.CIDRMask(0, bits)}}
		if err := h.RouteAdd(route); err != nil {
			return fmt.Errorf("default route by %s: %w", gw, err)
		}
	}
	return nil
}

func (c *Cluster) prefixes(addresses []netip.Addr) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range c.underlay() {
		for _, a := range addresses {
			if p.Contains(a) {
				out = append(out, netip.PrefixFrom(a, p.Bits()))
			}
		}
	}
	return out
}

// configure sets addresses and brings the link up; IPv6 addresses are usable at once.
func configure(h *netlink.Handle, link netlink.Link, prefixes []netip.Prefix) error {
	for _, p := range prefixes {
		addr := &netlink.Addr{IPNet: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}}
		if p.Addr().Is6() {
			addr.Flags = unix.IFA_F_NODAD
		}
		if err := h.AddrAdd(link, addr); err != nil {
			return fmt.Errorf("add %s: %w", p, err)
		}
	}
	return h.LinkSetUp(link)
}

// portState says whether a port carries frames.
type portState string

const (
	portAttached portState = "attached"
	portDetached portState = "detached" // the link keeps its carrier, its frames go nowhere
)

func (c *Cluster) setPort(port string, state portState) error {
	h, err := handleAt(c.underlayNetns())
	if err != nil {
		return err
	}
	defer h.Close()
	link, err := h.LinkByName(port)
	if err != nil {
		return fmt.Errorf("port %s: %w", port, err)
	}
	if state == portDetached {
		return h.LinkSetNoMaster(link)
	}
	bridge, err := h.LinkByName(bridgeName)
	if err != nil {
		return err
	}
	if err := h.LinkSetMaster(link, bridge); err != nil {
		return fmt.Errorf("port %s: %w", port, err)
	}
	return h.LinkSetUp(link)
}

// Cut takes a node off the underlay; its link stays up.
func (c *Cluster) Cut(node string) error { return c.changePort(node, portDetached) }

// Heal puts a cut node back.
func (c *Cluster) Heal(node string) error { return c.changePort(node, portAttached) }

func (c *Cluster) changePort(node string, state portState) error {
	if _, err := c.node(node); err != nil {
		return err
	}
	return c.setPort(node, state)
}

func handleAt(namespace string) (*netlink.Handle, error) {
	ns, err := netns.GetFromName(namespace)
	if err != nil {
		return nil, fmt.Errorf("namespace %s: %w", namespace, err)
	}
	defer ns.Close()
	return netlink.NewHandleAt(ns)
}

// newNetns makes a named network namespace with its loopback up.
func newNetns(name string) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	own, err := netns.Get()
	if err != nil {
		return err
	}
	defer own.Close()
	ns, err := netns.NewNamed(name)
	if err != nil {
		return fmt.Errorf("make namespace %s: %w", name, err)
	}
	ns.Close()
	if err := netns.Set(own); err != nil {
		panic(fmt.Sprintf("this thread cannot return from namespace %s: %v", name, err))
	}
	h, err := handleAt(name)
	if err != nil {
		return err
	}
	defer h.Close()
	lo, err := h.LinkByName("lo")
	if err != nil {
		return err
	}
	return h.LinkSetUp(lo)
}

// inNetns runs f on a thread inside the namespace. The thread ends with it: it never serves others.
func inNetns(name string, f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		ns, err := netns.GetFromName(name)
		if err == nil {
			defer ns.Close()
			err = netns.Set(ns)
		}
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}

func removeNetns(name string) error {
	if _, err := os.Stat(filepath.Join(netnsDir, name)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return errors.Join(removeLinks(name), netns.DeleteNamed(name))
}

// removeLinks: whoever is still in the namespace, such as a thread or a socket of a test, keeps it, but not what it leads to.
func removeLinks(name string) error {
	h, err := handleAt(name)
	if err != nil {
		return err
	}
	defer h.Close()
	links, err := h.LinkList()
	if err != nil {
		return fmt.Errorf("list links of %s: %w", name, err)
	}
	for _, l := range links {
		if !slices.Contains([]string{"veth", "tuntap", "wireguard"}, l.Type()) {
			continue // the kernel's own
		}
		if err := removeLink(h, l.Attrs().Name); err != nil {
			return err
		}
	}
	return nil
}

// removePort removes a port of the bridge and the link behind it.
func (c *Cluster) removePort(name string) error {
	if _, err := os.Stat(filepath.Join(netnsDir, c.underlayNetns())); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	h, err := handleAt(c.underlayNetns())
	if err != nil {
		return err
	}
	defer h.Close()
	return removeLink(h, name)
}

func removeLink(h *netlink.Handle, name string) error {
	link, err := h.LinkByName(name)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil
	}
	if err != nil {
		return err
	}
	return h.LinkDel(link)
}
