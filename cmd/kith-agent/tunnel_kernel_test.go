//go:build kernel

package main

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
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/kithnet/kith/cni"
	"github.com/kithnet/kith/cni/veth"
	"github.com/kithnet/kith/overlay"
	"github.com/kithnet/kith/overlay/disk"
	"github.com/kithnet/kith/overlay/wireguard"
	"github.com/kithnet/kith/policy/nft"
	"github.com/kithnet/kith/policy/ruleset"
)

const (
	tunnelUnderlayMTU = 1500
	tunnelPatience    = 60 * time.Second
)

// tunnel is two nodes joined by one cable, with a pod of both families on each. It lives in network namespaces that no name holds:
// they go with the test.
type tunnel struct {
	testing.TB
	mode   wireguard.Mode
	family int // of the cable that the tunnel goes over
	nodes  [2]*tunnelNode
}

// place runs functions in a network namespace of its own.
type place struct {
	work chan func()
	path string
	fd   int
}

// tunnelNode is a node with what an agent holds of it, and its pod.
type tunnelNode struct {
	*place
	api        overlay.Node
	keys       *wireguard.Keyring
	device     *wireguard.Device
	mesh       overlay.Mesh
	names      [overlay.Lanes]string // the devices', while they are configured
	process    int                   // wireguard-go's; 0 in the kernel
	table      *nft.Table
	pod        *place
	attachment cni.Attachment
}

func newPlace(b testing.TB) *place {
	b.Helper()
	p := &place{work: make(chan func())}
	ready := make(chan error)
	go func() {
		// Never unlocked: the thread ends with its namespace.
		runtime.LockOSThread()
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			p.path = fmt.Sprintf("/proc/%d/task/%d/ns/net", os.Getpid(), unix.Gettid())
			p.fd, err = unix.Open(p.path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		}
		ready <- err
		for f := range p.work {
			f()
		}
	}()
	mustDo(b, "make a network namespace, which needs root", <-ready)
	b.Cleanup(func() {
		close(p.work)
		unix.Close(p.fd)
	})
	return p
}

// do runs f in the namespace and waits for it.
func (p *place) do(f func() error) error {
	done := make(chan error)
	p.work <- func() { done <- f() }
	return <-done
}

func mustDo(b testing.TB, what string, err error) {
	b.Helper()
	if err != nil {
		b.Fatalf("%s: %v", what, err)
	}
}

// newTunnel makes all of it as the agents would: mesh, pods, and empty tables.
func newTunnel(b testing.TB, mode wireguard.Mode) *tunnel {
	b.Helper()
	return newTunnelOver(b, mode, 0)
}

// newTunnelOver is one over IPv4 (0) or IPv6 (1).
func newTunnelOver(b testing.TB, mode wireguard.Mode, family int) *tunnel {
	b.Helper()
	t := &tunnel{TB: b, mode: mode, family: family}
	for i := range t.nodes {
		t.nodes[i] = t.newNode(i + 1)
	}
	t.cable()
	for _, n := range t.nodes {
		if mode == wireguard.Userspace {
			t.startProcess(n)
		}
		t.joinMesh(n)
		mustDo(b, "attach pod", n.do(func() error { return veth.New("/proc/sys").Create(b.Context(), n.attachment) }))
	}
	return t
}

func (t *tunnel) newNode(number int) *tunnelNode {
	t.Helper()
	n := &tunnelNode{place: newPlace(t.TB), pod: newPlace(t.TB), names: ruleset.Devices}
	if t.mode == wireguard.Userspace {
		// The control sockets of both nodes are in one folder. The devices get their real names afterwards.
		for i := range n.names {
			n.names[i] = fmt.Sprintf("kt%08x", rand.Uint32())
		}
	}
	var err error
	n.keys, err = wireguard.LoadKeys(disk.Folder(t.TempDir()).File(wireguard.KeyFile))
	mustDo(t.TB, "make keys", err)
	n.api = overlay.Node{
		Name:        fmt.Sprintf("node%d", number),
		PodCIDRs:    prefixes(fmt.Sprintf("10.244.%d.0/24", number), fmt.Sprintf("fd00:244:%d::/64", number)),
		InternalIPs: cableEnds(number)[t.family:][:1], Addresses: cableEnds(number)[t.family:][:1],
	}
	n.attachment = cni.NewAttachment(cni.Request{
		Key: cni.Key{ContainerID: "pod-" + n.api.Name, IfName: "eth0"}, Netns: n.pod.path,
		Pod: cni.Pod{Namespace: tunnelNamespace, Name: n.api.Name, UID: n.api.Name}, Config: cni.NetConf{Name: "kith"},
	}, tunnelUnderlayMTU-60)
	for _, cidr := range n.api.PodCIDRs {
		n.attachment.Addresses = append(n.attachment.Addresses, overlay.MeshAddress(cidr).Next())
	}
	mustDo(t.TB, "forward", n.do(veth.New("/proc/sys").ForwardIPv4))
	mustDo(t.TB, "forward", n.do(veth.New("/proc/sys").ForwardIPv6))
	n.table, err = nft.Open(nft.InNamespace(n.fd))
	mustDo(t.TB, "open table", err)
	t.Cleanup(func() { n.table.Close() })
	return n
}

func (t *tunnel) cable() {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = "eth0", tunnelUnderlayMTU
	pair := &netlink.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerMTU: tunnelUnderlayMTU, PeerNamespace: netlink.NsFd(t.nodes[1].fd)}
	mustDo(t.TB, "make cable", t.nodes[0].do(func() error { return netlink.LinkAdd(pair) }))
	for number, n := range t.nodes {
		mustDo(t.TB, "plug cable in", n.do(func() error {
			link, err := netlink.LinkByName("eth0")
			if err != nil {
				return err
			}
			for i, addr := range cableEnds(number + 1) {
				address := ipNet(netip.PrefixFrom(addr, []int{24, 64}[i]))
				if err := netlink.AddrAdd(link, &netlink.Addr{IPNet: address, Flags: []int{0, unix.IFA_F_NODAD}[i]}); err != nil {
					return err
				}
			}
			return netlink.LinkSetUp(link)
		}))
	}
}

// cableEnds are a node's addresses on the cable.
func cableEnds(number int) []netip.Addr {
	return addrs(fmt.Sprintf("172.31.0.%d", number), fmt.Sprintf("fd00:31::%d", number))
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// startProcess runs wireguard-go as the image has it.
func (t *tunnel) startProcess(n *tunnelNode) {
	t.Helper()
	program := filepath.Join(t.TempDir(), "kith-wireguard")
	build := exec.Command("go", "build", "-o", program, "../kith-wireguard")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build kith-wireguard: %v: %s", err, out)
	}
	cmd := exec.Command(program, "-devices", n.names[0]+","+n.names[1], "-carry")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	mustDo(t.TB, "start kith-wireguard", n.do(cmd.Start))
	n.process = cmd.Process.Pid
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		for _, name := range n.names {
			os.Remove(filepath.Join("/var/run/wireguard", name+".sock"))
		}
	})
}

// joinMesh applies plans until nothing is left to do, and gives the devices their names.
func (t *tunnel) joinMesh(n *tunnelNode) {
	t.Helper()
	mustDo(t.TB, "open device", n.do(func() (err error) {
		n.device, err = wireguard.Open(wireguard.Options{Names: n.names, Keys: n.keys, Mode: t.mode})
		return err
	}))
	t.Cleanup(func() { n.device.Close() })
	keys, _ := n.keys.Public()
	want, problems := overlay.Compute(overlay.Local{
		Name: n.api.Name, Keys: keys, Devices: n.names, ListenPort: 51820,
		UnderlayMTU: tunnelUnderlayMTU, Keepalive: keepalive,
	}, []overlay.Node{t.nodes[0].api, t.nodes[1].api}, []overlay.Claim{t.nodes[0].claim(), t.nodes[1].claim()}, nil)
	if len(problems) > 0 {
		t.Fatalf("mesh of %s: %v", n.api.Name, problems)
	}
	n.mesh = want
	var err error
	for end := time.Now().Add(tunnelPatience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		var left bool
		if left, err = n.approach(t.Context(), want); err == nil && !left {
			t.rename(n)
			return
		}
	}
	t.Fatalf("the mesh of %s does not come up: %v", n.api.Name, err)
}

func (n *tunnelNode) claim() overlay.Claim {
	keys, _ := n.keys.Public()
	return overlay.Claim{Node: n.api.Name, Keys: keys}
}

// approach applies one plan and says whether there was one.
func (n *tunnelNode) approach(ctx context.Context, want overlay.Mesh) (left bool, err error) {
	err = n.do(func() error {
		have, err := n.device.Read(ctx)
		if err != nil {
			return err
		}
		plan := overlay.Diff(have, want)
		left = !plan.Empty()
		return n.device.Apply(ctx, plan)
	})
	return left, err
}

func (t *tunnel) rename(n *tunnelNode) {
	if n.names == ruleset.Devices {
		return
	}
	mustDo(t.TB, "rename devices", n.do(func() error {
		for i, name := range n.names {
			link, err := netlink.LinkByName(name)
			if err != nil {
				return err
			}
			if err := netlink.LinkSetName(link, ruleset.Devices[i]); err != nil {
				return err
			}
		}
		return nil
	}))
}

// load makes a node's table this; an empty ruleset leaves no hook.
func (n *tunnelNode) load(ctx context.Context, want ruleset.Ruleset) error {
	have, err := n.table.Read(ctx)
	if err != nil {
		return err
	}
	return n.table.Apply(ctx, ruleset.Diff(have, want))
}

// tunnelMode is who carries WireGuard here: the kernel where it can, unless the environment says otherwise.
func tunnelMode(b testing.TB) wireguard.Mode {
	b.Helper()
	mode, err := wireguard.ParseMode(os.Getenv("KITH_WIREGUARD"))
	if err == nil && mode == wireguard.Auto {
		mode, err = wireguard.Probe()
	}
	mustDo(b, "choose who carries WireGuard", err)
	return mode
}

func number(b testing.TB, text string) int64 {
	b.Helper()
	n, err := strconv.ParseInt(text, 10, 64)
	mustDo(b, "read a number", err)
	return n
}
