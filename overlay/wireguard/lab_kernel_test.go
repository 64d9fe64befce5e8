//go:build kernel

package wireguard_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/kithnet/kith/overlay"
	"github.com/kithnet/kith/overlay/disk"
	"github.com/kithnet/kith/overlay/probe"
	"github.com/kithnet/kith/overlay/wireguard"
)

// patience suits an emulated machine, where a handshake takes seconds.
const patience = 60 * time.Second

// lab is a bridge that stands for the underlay, and nodes on it. All of it lives
// in network namespaces that no name holds: they go with the test.
type lab struct {
	tb     testing.TB
	mode   wireguard.Mode
	bridge *thread
	nodes  []*node
	mtu    int
}

// thread runs functions in one network namespace.
type thread struct {
	work chan func()
	ns   int
}

func newThread(tb testing.TB) *thread {
	tb.Helper()
	t := &thread{work: make(chan func())}
	ready := make(chan error)
	go func() {
		// Never unlocked: the thread ends with its namespace.
		runtime.LockOSThread()
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			t.ns, err = unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		}
		ready <- err
		for f := range t.work {
			f()
		}
	}()
	if err := <-ready; err != nil {
		tb.Fatalf("make network namespace: %v", err)
	}
	tb.Cleanup(func() {
		close(t.work)
		unix.Close(t.ns)
	})
	t.do(func() { linkUp(tb, "lo") })
	return t
}

// do runs f in the namespace and waits for it.
func (t *thread) do(f func()) {
	done := make(chan struct{})
	t.work <- func() {
		defer close(done)
		f()
	}
	<-done
}

func linkUp(tb testing.TB, name string) {
	tb.Helper()
	link, err := netlink.LinkByName(name)
	if err == nil {
		err = netlink.LinkSetUp(link)
	}
	if err != nil {
		tb.Errorf("set %s up: %v", name, err)
	}
}

func newLab(tb testing.TB, underlayMTU int) *lab {
	tb.Helper()
	l := &lab{tb: tb, mode: wantMode(tb), bridge: newThread(tb), mtu: underlayMTU}
	l.bridge.do(func() {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.MTU = "underlay", underlayMTU
		if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
			tb.Errorf("make bridge: %v", err)
		}
		linkUp(tb, "underlay")
	})
	return l
}

// only goes on where WireGuard is of this mode: what is peculiar to it. Each mode has a stage of the checks in which
// it is the one.
func (l *lab) only(mode wireguard.Mode) {
	l.tb.Helper()
	if l.mode != mode {
		l.tb.Skipf("NOT CHECKED here: what only %s WireGuard has; set KITH_WIREGUARD=%s", mode, mode)
	}
}

// wantMode is the mode that the environment demands; the probe must agree on auto.
func wantMode(tb testing.TB) wireguard.Mode {
	tb.Helper()
	mode, err := wireguard.ParseMode(os.Getenv("KITH_WIREGUARD"))
	if err == nil && mode == wireguard.Auto {
		mode, err = wireguard.Probe()
	}
	if err != nil {
		tb.Fatal(err)
	}
	return mode
}

// node is one machine of the lab with an agent's hands on its device.
type node struct {
	*thread
	lab     *lab
	api     overlay.Node
	claim   overlay.Claim
	keys    *wireguard.Keyring
	devices [overlay.Lanes]string
	paths   map[string]overlay.Path
	dev     *wireguard.Device
	process *exec.Cmd
	prober  *probe.Prober // nil: ways are not probed
}

// addNode plugs a node with the underlay address 172.31.0.N or fd00:31::N in.
func (l *lab) addNode(family overlay.Family) *node {
	l.tb.Helper()
	keys, err := wireguard.LoadKeys(disk.Folder(l.tb.TempDir()).File(wireguard.KeyFile))
	if err != nil {
		l.tb.Fatal(err)
	}
	number := len(l.nodes) + 1
	n := &node{thread: newThread(l.tb), lab: l, keys: keys, paths: map[string]overlay.Path{}}
	// Control sockets of all namespaces share one folder.
	n.rename(fmt.Sprintf("kt%08x", rand.Uint32()))
	n.api = overlay.Node{
		Name: fmt.Sprintf("node%d", number),
		PodCIDRs: []netip.Prefix{
			netip.MustParsePrefix(fmt.Sprintf("10.244.%d.0/24", number)),
			netip.MustParsePrefix(fmt.Sprintf("fd00:244:0:%d::/64", number)),
		},
		InternalIPs: []netip.Addr{underlayAddr(family, number)},
	}
	n.publish()
	l.nodes = append(l.nodes, n)
	l.plug(n, number)
	n.do(func() {
		for _, cidr := range n.api.PodCIDRs {
			addAddr(l.tb, "lo", netip.PrefixFrom(podAddr(cidr), podAddr(cidr).BitLen()))
		}
	})
	n.startProcess()
	n.open()
	return n
}

func (n *node) rename(prefix string) {
	for i := range n.devices {
		n.devices[i] = fmt.Sprintf("%s-%d", prefix, i)
	}
}

// publish makes the node's claim bear its keys.
func (n *node) publish() { n.claim.Node, n.claim.Keys = n.api.Name, n.public() }

func (n *node) public() [overlay.Lanes]overlay.Key {
	keys, _ := n.keys.Public()
	return keys
}

func underlayAddr(family overlay.Family, number int) netip.Addr {
	if family == overlay.IPv6 {
		return netip.MustParseAddr(fmt.Sprintf("fd00:31::%d", number))
	}
	return netip.MustParseAddr(fmt.Sprintf("172.31.0.%d", number))
}

// podAddr is the address at which a node's stand-in for a pod answers.
func podAddr(cidr netip.Prefix) netip.Addr { return overlay.MeshAddress(cidr).Next() }

func (l *lab) plug(n *node, number int) {
	l.bridge.do(func() {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.MTU = fmt.Sprintf("port%d", number), l.mtu
		veth := &netlink.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerMTU: uint32(l.mtu), PeerNamespace: netlink.NsFd(n.ns)}
		if err := netlink.LinkAdd(veth); err != nil {
			l.tb.Errorf("make veth: %v", err)
			return
		}
		master, err := netlink.LinkByName("underlay")
		if err == nil {
			err = netlink.LinkSetMaster(veth, master)
		}
		if err != nil {
			l.tb.Errorf("plug veth in: %v", err)
		}
		linkUp(l.tb, attrs.Name)
	})
	n.do(func() {
		linkUp(l.tb, "eth0")
		addr := n.api.InternalIPs[0]
		addAddr(l.tb, "eth0", netip.PrefixFrom(addr, addr.BitLen()-8))
	})
}

func addAddr(tb testing.TB, device string, p netip.Prefix) {
	tb.Helper()
	link, err := netlink.LinkByName(device)
	if err == nil {
		ipNet := &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
		err = netlink.AddrAdd(link, &netlink.Addr{IPNet: ipNet, Flags: unix.IFA_F_NODAD})
	}
	if err != nil {
		tb.Errorf("add %s to %s: %v", p, device, err)
	}
}

func removeAddr(tb testing.TB, device string, a netip.Addr) {
	tb.Helper()
	link, err := netlink.LinkByName(device)
	if err == nil {
		err = netlink.AddrDel(link, &netlink.Addr{IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}})
	}
	if err != nil {
		tb.Errorf("remove %s from %s: %v", a, device, err)
	}
}

// startProcess runs wireguard-go in the node's namespace, where the mode asks it.
func (n *node) startProcess() {
	if n.lab.mode != wireguard.Userspace {
		return
	}
	self, err := os.Executable()
	if err != nil {
		n.lab.tb.Fatal(err)
	}
	n.process = exec.Command(self)
	n.process.Env = append(os.Environ(), serveEnv+"="+n.devices[0]+","+n.devices[1])
	n.process.Stderr = os.Stderr
	n.process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	n.do(func() {
		if err := n.process.Start(); err != nil {
			n.lab.tb.Errorf("start wireguard-go: %v", err)
		}
	})
	process := n.process
	n.lab.tb.Cleanup(func() {
		stop(process)
		for _, name := range n.devices {
			os.Remove(filepath.Join("/var/run/wireguard", name+".sock"))
		}
	})
}

func stop(c *exec.Cmd) {
	if c.Process != nil && c.ProcessState == nil {
		c.Process.Kill()
		c.Wait()
	}
}

// open does what a starting agent does.
func (n *node) open() {
	tb := n.lab.tb
	n.do(func() {
		var err error
		n.dev, err = wireguard.Open(wireguard.Options{Names: n.devices, Keys: n.keys, Mode: n.lab.mode})
		if err != nil {
			tb.Errorf("open device: %v", err)
		}
	})
	if n.dev == nil {
		tb.FailNow()
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	dev := n.dev
	go func() {
		defer close(done)
		dev.Run(ctx)
	}()
	tb.Cleanup(func() {
		cancel()
		<-done
		dev.Close()
	})
}

// want is the mesh this node should have.
func (n *node) want() overlay.Mesh {
	if n.prober == nil {
		return n.computed()
	}
	return n.computed().Within(n.prober.MTUs(), nil)
}

// computed is the same, but for the ways.
func (n *node) computed() overlay.Mesh {
	var nodes []overlay.Node
	var claims []overlay.Claim
	for _, other := range n.lab.nodes {
		nodes = append(nodes, other.api)
		claims = append(claims, other.claim)
	}
	mesh, problems := overlay.Compute(overlay.Local{
		Name:        n.api.Name,
		Keys:        n.public(),
		Devices:     n.devices,
		ListenPort:  51820,
		UnderlayMTU: n.lab.mtu,
		Keepalive:   25 * time.Second,
	}, nodes, claims, n.paths)
	for _, p := range problems {
		n.lab.tb.Logf("%s: %s", n.api.Name, p)
	}
	return mesh
}

// plan is what an agent would do now.
func (n *node) plan() overlay.Plan {
	n.lab.tb.Helper()
	var have overlay.Mesh
	var err error
	n.do(func() { have, err = n.dev.Read(context.Background()) })
	if err != nil {
		n.lab.tb.Fatalf("%s: read: %v", n.api.Name, err)
	}
	return overlay.Diff(have, n.want())
}

// await makes the devices, or waits until the process of wireguard-go has made them.
func (n *node) await() {
	n.lab.tb.Helper()
	create := overlay.Plan{Steps: []overlay.Step{overlay.CreateDevice{}, overlay.CreateDevice{On: overlay.On{Lane: 1}}}}
	var err error
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		n.do(func() { err = n.dev.Apply(context.Background(), create) })
		if err == nil {
			return
		}
	}
	n.lab.tb.Fatalf("%s: no device: %v", n.api.Name, err)
}

// reconcile applies plans until nothing is left to do.
func (n *node) reconcile() {
	n.lab.tb.Helper()
	var err error
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		plan := n.plan()
		if plan.Empty() {
			return
		}
		n.do(func() { err = n.dev.Apply(context.Background(), plan) })
	}
	n.lab.tb.Fatalf("%s: no end of plans; last error %v, left:\n%s", n.api.Name, err, n.plan())
}

func (l *lab) reconcile() {
	l.tb.Helper()
	for _, n := range l.nodes {
		n.reconcile()
	}
}
