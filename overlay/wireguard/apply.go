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

// Apply takes the steps of a plan in order. Without a device it stops there; a
// later step that fails does not hold up the others. The error names every step
// that failed.
func (d *Device) Apply(ctx context.Context, plan overlay.Plan) error {
	var failed error
	var peers []wgtypes.PeerConfig
	flush := func() {
		if len(peers) > 0 {
			failed = errors.Join(failed, d.setPeers(ctx, peers))
			peers = nil
		}
	}
	for _, step := range plan.Steps {
		if err := ctx.Err(); err != nil {
			return errors.Join(failed, err)
		}
		config, isPeer, err := d.peerConfigs(step)
		if isPeer && err == nil {
			peers = append(peers, config...)
			continue
		}
		flush()
		if err == nil {
			err = d.take(ctx, step)
		}
		if err == nil {
			continue
		}
		failed = errors.Join(failed, fmt.Errorf("%s: %w", step, err))
		if _, fatal := step.(overlay.CreateDevice); fatal {
			return failed
		}
	}
	flush()
	return failed
}

// take makes one step that is not about peers.
func (d *Device) take(ctx context.Context, step overlay.Step) error {
	switch s := step.(type) {
	case overlay.CreateDevice:
		return d.create(ctx)
	case overlay.SetKey:
		return d.setKey(ctx, s.Key)
	case overlay.SetPort:
		return d.setPort(ctx, s.Port)
	case overlay.AddUnreachable:
		return d.links.RouteReplace(unreachable(s.CIDR))
	case overlay.RemoveUnreachable:
		return gone(d.links.RouteDel(unreachable(s.CIDR)))
	}
	link, present, err := d.link()
	if err != nil {
		return err
	}
	if !present {
		return fmt.Errorf("device %s: %w", d.name, ErrAbsent)
	}
	return d.takeOn(link, step)
}

// takeOn makes one step on the link.
func (d *Device) takeOn(link netlink.Link, step overlay.Step) error {
	switch s := step.(type) {
	case overlay.SetMTU:
		return d.links.LinkSetMTU(link, s.MTU)
	case overlay.SetUp:
		return errors.Join(d.sysctls.tune(d.name), d.links.LinkSetUp(link))
	case overlay.AddAddress:
		addr := &netlink.Addr{IPNet: hostNet(s.Addr), Flags: unix.IFA_F_NODAD | unix.IFA_F_NOPREFIXROUTE}
		return d.links.AddrReplace(link, addr)
	case overlay.RemoveAddress:
		return gone(d.links.AddrDel(link, &netlink.Addr{IPNet: hostNet(s.Addr)}))
	case overlay.SetRoute:
		return d.links.RouteReplace(intoDevice(link, s.Route))
	case overlay.RemoveRoute:
		return gone(d.links.RouteDel(intoDevice(link, overlay.Route{CIDR: s.CIDR})))
	}
	return fmt.Errorf("unknown step %T", step)
}

// create makes the kernel's device, or waits for wireguard-go's to be made by its
// own process. A leftover of the other mode is in the way and goes.
func (d *Device) create(ctx context.Context) error {
	link, present, err := d.link()
	if err != nil {
		return err
	}
	if present && !d.ours(link) {
		if !isKernel(link) && !isTUN(link) {
			return fmt.Errorf("device %s is a %s that is not ours", d.name, link.Type())
		}
		if err := d.links.LinkDel(link); err != nil {
			return fmt.Errorf("remove leftover %s device: %w", link.Type(), err)
		}
		present = false
	}
	if d.mode == Kernel {
		if present {
			return nil
		}
		attrs := netlink.NewLinkAttrs()
		attrs.Name = d.name
		return d.links.LinkAdd(&netlink.Wireguard{LinkAttrs: attrs})
	}
	if _, err := d.control(ctx); !present || unserved(err) {
		return ErrAbsent
	} else if err != nil {
		return err
	}
	return nil
}

func (d *Device) setKey(ctx context.Context, public overlay.Key) error {
	if public != d.key.Public() {
		return errors.New("this node has no private key for it")
	}
	key := d.key.key
	return d.configure(ctx, wgtypes.Config{PrivateKey: &key})
}

// setPort asks first whether the port is free: wireguard-go would close its
// sockets over one in use and answer nobody until it is told another.
func (d *Device) setPort(ctx context.Context, port uint16) error {
	if d.mode == Userspace {
		conn, err := net.ListenUDP("udp", &net.UDPAddr{Port: int(port)})
		if err != nil {
			return fmt.Errorf("port in use: %w", err)
		}
		if err := conn.Close(); err != nil {
			return err
		}
	}
	n := int(port)
	return d.configure(ctx, wgtypes.Config{ListenPort: &n})
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
