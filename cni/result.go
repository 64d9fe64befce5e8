package cni

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
)

// Result returns the attachment as the specification's result, added to prev if there is one.
func Result(a Attachment, prev *types100.Result) *types100.Result {
	r := &types100.Result{}
	if prev != nil {
		*r = *prev
	}
	r.CNIVersion = types100.ImplementedSpecVersion
	pod := len(r.Interfaces) + 1
	r.Interfaces = append(r.Interfaces[:len(r.Interfaces):len(r.Interfaces)],
		&types100.Interface{Name: a.HostInterface, Mac: a.HostMAC.String(), Mtu: a.MTU},
		&types100.Interface{Name: a.IfName, Mac: a.PodMAC.String(), Mtu: a.MTU, Sandbox: a.Netns})
	r.IPs, r.Routes = r.IPs[:len(r.IPs):len(r.IPs)], r.Routes[:len(r.Routes):len(r.Routes)]
	for _, addr := range a.Addresses {
		gw := net.IP(Gateway(addr).AsSlice())
		r.IPs = append(r.IPs, &types100.IPConfig{Interface: types100.Int(pod), Address: ipNet(Single(addr)), Gateway: gw})
		r.Routes = append(r.Routes, &types.Route{Dst: ipNet(defaultRoute(addr)), GW: gw})
	}
	return r
}

// Gateway returns the address through which a pod with this address reaches everything. It is the
// same for every pod; no interface has the IPv4 one.
func Gateway(pod netip.Addr) netip.Addr {
	if pod.Is4() {
		return netip.AddrFrom4([4]byte{169, 254, 1, 1})
	}
	return netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80, 15: 1})
}

// Single returns the prefix that holds this address only.
func Single(addr netip.Addr) netip.Prefix { return netip.PrefixFrom(addr, addr.BitLen()) }

func defaultRoute(addr netip.Addr) netip.Prefix {
	if addr.Is4() {
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
}

func ipNet(p netip.Prefix) net.IPNet {
	return net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// Check returns every way in which the attachment is not as ADD left it: against the record, the
// result that the runtime kept, the kernel and the gate.
func Check(ctx context.Context, d Deps, r Request) error {
	a, ok := d.Records.Get(r.Key)
	if !ok || !a.Complete {
		return types.NewError(types.ErrUnknownContainer, "unknown attachment", r.Key.String())
	}
	var wrong []string
	if a.Netns != r.Netns {
		wrong = append(wrong, fmt.Sprintf("CNI_NETNS is %s, the attachment's is %s", r.Netns, a.Netns))
	}
	wrong = append(wrong, missingIn(r.Config.PrevResult, a)...)
	if err := d.Links.Check(ctx, a); err != nil {
		wrong = append(wrong, err.Error())
	}
	if err := d.Gate.Check(ctx, a); err != nil {
		wrong = append(wrong, err.Error())
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("check %s: %w", r.Key, err)
	}
	if len(wrong) > 0 {
		return types.NewError(CodeMismatch, "attachment is not as it was made", strings.Join(wrong, "; "))
	}
	return nil
}

// missingIn returns what of the attachment the result lacks. Plugins later in the chain may have
// added to the result, or changed routes, so only what is ours and must be there is compared.
func missingIn(prev *types100.Result, a Attachment) []string {
	var wrong []string
	pod := -1
	for i, iface := range prev.Interfaces {
		if iface.Name == a.IfName && iface.Sandbox == a.Netns {
			pod = i
		}
	}
	if pod < 0 {
		return []string{fmt.Sprintf("prevResult has no interface %s in %s", a.IfName, a.Netns)}
	}
	if mac := prev.Interfaces[pod].Mac; mac != "" && mac != a.PodMAC.String() {
		wrong = append(wrong, fmt.Sprintf("prevResult says hardware address %s, the attachment's is %s", mac, a.PodMAC))
	}
	for _, addr := range a.Addresses {
		if !hasAddress(prev, pod, addr) {
			wrong = append(wrong, fmt.Sprintf("prevResult has no address %s on %s", addr, a.IfName))
		}
	}
	return wrong
}

func hasAddress(prev *types100.Result, pod int, addr netip.Addr) bool {
	for _, ip := range prev.IPs {
		got, ok := netip.AddrFromSlice(ip.Address.IP)
		if ok && got.Unmap() == addr && (ip.Interface == nil || *ip.Interface == pod) {
			return true
		}
	}
	return false
}
