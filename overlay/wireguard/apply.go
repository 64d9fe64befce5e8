package wireguard

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/kithnet/kith/overlay"
)

// Apply takes the steps of a plan in order. Without its device a lane's other steps
// are left out; any other step that fails holds up none. The error names every step
// that failed.
func (d *Device) Apply(ctx context.Context, plan overlay.Plan) error {
	var failed error
	absent := make(map[*lane]bool)
	batch := batch{}
	for _, step := range plan.Steps {
		if err := ctx.Err(); err != nil {
			return errors.Join(failed, err)
		}
		l := d.lane(step)
		if absent[l] {
			continue
		}
		config, isPeer, err := peerConfigs(step)
		if isPeer && err == nil {
			failed = errors.Join(failed, batch.add(ctx, l, config))
			continue
		}
		failed = errors.Join(failed, batch.flush(ctx))
		if err == nil {
			err = d.take(ctx, step)
		}
		if err == nil {
			continue
		}
		failed = errors.Join(failed, fmt.Errorf("%s: %w", step, err))
		if _, fatal := step.(overlay.CreateDevice); fatal {
			absent[l] = true
		}
	}
	return errors.Join(failed, batch.flush(ctx))
}

// batch is changes of one lane's peers that go to the kernel together.
type batch struct {
	on    *lane
	peers []wgtypes.PeerConfig
}

func (b *batch) add(ctx context.Context, on *lane, peers []wgtypes.PeerConfig) error {
	var err error
	if on != b.on {
		err = b.flush(ctx)
	}
	b.on, b.peers = on, append(b.peers, peers...)
	return err
}

func (b *batch) flush(ctx context.Context) error {
	if len(b.peers) == 0 {
		return nil
	}
	peers := b.peers
	b.peers = nil
	return b.on.setPeers(ctx, peers)
}

// lane is the one that a step is about, or nil.
func (d *Device) lane(step overlay.Step) *lane {
	switch s := step.(type) {
	case overlay.SetRoute:
		return d.lanes[s.Route.Lane]
	case interface{ OnLane() int }:
		return d.lanes[s.OnLane()]
	}
	return nil
}

// take makes one step that is not about peers.
func (d *Device) take(ctx context.Context, step overlay.Step) error {
	switch s := step.(type) {
	case overlay.AddUnreachable:
		return d.links.RouteReplace(unreachable(s.CIDR))
	case overlay.RemoveUnreachable:
		return gone(d.links.RouteDel(unreachable(s.CIDR)))
	}
	l := d.lane(step)
	switch s := step.(type) {
	case overlay.CreateDevice:
		return l.create(ctx)
	case overlay.SetKey:
		return l.setKey(ctx, s.Key)
	case overlay.SetPort:
		return l.setPort(ctx, s.Port)
	}
	link, present, err := l.link()
	if err != nil {
		return err
	}
	if !present {
		return fmt.Errorf("device %s: %w", l.name, absent(controlDir, l.name))
	}
	return l.takeOn(link, step)
}

// takeOn makes one step on the link.
func (l *lane) takeOn(link netlink.Link, step overlay.Step) error {
	switch s := step.(type) {
	case overlay.SetMTU:
		return l.links.LinkSetMTU(link, s.MTU)
	case overlay.SetUp:
		return errors.Join(l.sysctls.tune(l.name), l.links.LinkSetUp(link))
	case overlay.AddAddress:
		addr := &netlink.Addr{IPNet: hostNet(s.Addr), Flags: unix.IFA_F_NODAD | unix.IFA_F_NOPREFIXROUTE}
		return l.links.AddrReplace(link, addr)
	case overlay.RemoveAddress:
		return gone(l.links.AddrDel(link, &netlink.Addr{IPNet: hostNet(s.Addr)}))
	case overlay.SetRoute:
		return l.links.RouteReplace(intoDevice(link, s.Route))
	case overlay.RemoveRoute:
		return gone(l.links.RouteDel(intoDevice(link, overlay.Route{CIDR: s.CIDR})))
	}
	return fmt.Errorf("unknown step %T", step)
}

// create makes the kernel's device, or waits for wireguard-go's to be made by its
// own process. A leftover of the other mode is in the way and goes.
func (l *lane) create(ctx context.Context) error {
	link, present, err := l.link()
	if err != nil {
		return err
	}
	if present && !l.ours(link) {
		if !isKernel(link) && !isTUN(link) {
			return fmt.Errorf("device %s is a %s that is not ours", l.name, link.Type())
		}
		if err := l.links.LinkDel(link); err != nil {
			return fmt.Errorf("remove leftover %s device: %w", link.Type(), err)
		}
		present = false
	}
	if l.mode == Kernel {
		if present {
			return nil
		}
		attrs := netlink.NewLinkAttrs()
		attrs.Name = l.name
		return l.links.LinkAdd(&netlink.Wireguard{LinkAttrs: attrs})
	}
	if _, err := l.control(ctx); !present || unserved(err) {
		return absent(controlDir, l.name)
	} else if err != nil {
		return err
	}
	return nil
}

func (l *lane) setKey(ctx context.Context, public overlay.Key) error {
	private, ok := l.keys.find(public)
	if !ok {
		return errors.New("this node has no private key for it")
	}
	key := private.private()
	return l.configure(ctx, wgtypes.Config{PrivateKey: &key})
}

// setPort asks first whether the port is free: wireguard-go would close its
// sockets over one in use and answer nobody until it is told another.
func (l *lane) setPort(ctx context.Context, port uint16) error {
	if l.mode == Userspace {
		conn, err := net.ListenUDP("udp", &net.UDPAddr{Port: int(port)})
		if err != nil {
			return fmt.Errorf("port in use: %w", err)
		}
		if err := conn.Close(); err != nil {
			return err
		}
	}
	n := int(port)
	return l.configure(ctx, wgtypes.Config{ListenPort: &n})
}

func unreachable(cidr netip.Prefix) *netlink.Route {
	return &netlink.Route{Dst: ipNet(cidr), Type: unix.RTN_UNREACHABLE, Protocol: protocol, Table: unix.RT_TABLE_MAIN}
}

func intoDevice(link netlink.Link, r overlay.Route) *netlink.Route {
	route := &netlink.Route{
		LinkIndex: link.Attrs().Index,
		Dst:       ipNet(r.CIDR),
		Type:      unix.RTN_UNICAST,
		Protocol:  protocol,
		Table:     unix.RT_TABLE_MAIN,
		MTU:       r.MTU,
	}
	if r.CIDR.Addr().Is4() {
		route.Scope = netlink.SCOPE_LINK
	}
	if r.Src.IsValid() {
		route.Src = r.Src.AsSlice()
	}
	return route
}

// gone takes the absence of what should be removed for success.
func gone(err error) error {
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}
