package wireguard

import (
	"errors"
	"fmt"
	"math/rand/v2"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Probe returns Kernel if this kernel can make a WireGuard device, else Userspace.
// It makes one under a random name and removes it: loading the module on demand is
// part of the question.
func Probe() (Mode, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return "", fmt.Errorf("probe for kernel WireGuard: %w", err)
	}
	defer h.Close()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = fmt.Sprintf("kithp%08x", rand.Uint32())
	link := &netlink.Wireguard{LinkAttrs: attrs}
	err = h.LinkAdd(link)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return Userspace, nil
	}
	if err != nil {
		return "", fmt.Errorf("probe for kernel WireGuard: %w", err)
	}
	if err := h.LinkDel(link); err != nil {
		return "", fmt.Errorf("remove probe device %s: %w", attrs.Name, err)
	}
	return Kernel, nil
}
