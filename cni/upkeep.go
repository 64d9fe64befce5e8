package cni

import (
	"errors"
	"fmt"
	"net/netip"
)

// ErrNoInterface says that an attachment's host side is not there.
var ErrNoInterface = errors.New("the interface is gone")

// Setting is one of the kernel's settings of an interface: what must be in the file Name of its folder for Family, ipv4 or
// ipv6.
type Setting struct {
	Family string
	Name   string
	Value  string
	// Or, if not empty, is another value that does as well.
	Or string
	// Optional settings may be missing, as where the kernel has no IPv6.
	Optional bool
}

// Path is where the setting is, below the folder of all families.
func (s Setting) Path(interfaceName string) string {
	return s.Family + "/conf/" + interfaceName + "/" + s.Name
}

// HostSettings returns the settings of the attachment's host side, in the order in which they can be written. A pod must
// not name the way of its packets, whatever the node's administrator allows elsewhere. The host side neither needs IPv6
// addresses nor may it learn any, also if no pod has IPv6. systemd sets every new interface's reverse path filter to loose,
// which keeps nothing out.
func (a Attachment) HostSettings() []Setting {
	const v4, v6 = "ipv4", "ipv6"
	settings := []Setting{
		{Family: v4, Name: "forwarding", Value: "1"},
		{Family: v4, Name: "rp_filter", Value: "0", Or: "2"},
		{Family: v4, Name: "accept_source_route", Value: "0"},
	}
	for _, addr := range a.Addresses {
		if addr.Is6() {
			settings = append(settings,
				Setting{Family: v6, Name: "disable_ipv6", Value: "0"},
				Setting{Family: v6, Name: "forwarding", Value: "1"})
			break
		}
	}
	return append(settings,
		Setting{Family: v6, Name: "accept_ra", Value: "0", Optional: true},
		Setting{Family: v6, Name: "addr_gen_mode", Value: "1", Optional: true},
		Setting{Family: v6, Name: "accept_source_route", Value: "0", Optional: true})
}

// HostSide is what the kernel has of one attachment's host side.
type HostSide struct {
	Up  bool
	MAC MAC
	// Settings are the values by Setting.Path; those that the kernel does not have are missing.
	Settings map[string]string
	// Routes are the addresses that have a route of their own into the interface.
	Routes map[netip.Addr]bool
	// Neighbours are the hardware addresses of the permanent neighbours.
	Neighbours map[netip.Addr]MAC
}

// Damage is what is not as ADD left it of one attachment's host side.
type Damage struct {
	Attachment Attachment
	// Gone says that there is no host side at all. It is not made again: who removes a pod's interface may want that.
	Gone bool
	// Differences has a sentence for each other thing.
	Differences []string
}

// Damages compares the host sides of attachments with what the kernel has, by name of the interface. Attachments whose ADD has
// not ended are left to it.
func Damages(attachments []Attachment, has map[string]HostSide) []Damage {
	var all []Damage
	for _, a := range attachments {
		if !a.Complete {
			continue
		}
		side, there := has[a.HostInterface]
		d := Damage{Attachment: a, Gone: !there}
		if there {
			d.Differences = side.differences(a)
		}
		if d.Gone || len(d.Differences) > 0 {
			all = append(all, d)
		}
	}
	return all
}

func (h HostSide) differences(a Attachment) []string {
	var out []string
	add := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	if !h.Up {
		add("the interface is down")
	}
	if h.MAC != a.HostMAC {
		add("its hardware address is %s, not %s", h.MAC, a.HostMAC)
	}
	for _, want := range a.HostSettings() {
		path := want.Path(a.HostInterface)
		switch now, there := h.Settings[path]; {
		case !there && !want.Optional:
			add("net/%s is missing", path)
		case there && now != want.Value && (want.Or == "" || now != want.Or):
			add("net/%s is %s, not %s", path, now, want.Value)
		}
	}
	for _, addr := range a.Addresses {
		if !h.Routes[addr] {
			add("the route to %s is missing", addr)
		}
		if mac, there := h.Neighbours[addr]; !there {
			add("the permanent neighbour %s is missing", addr)
		} else if mac != a.PodMAC {
			add("the neighbour %s has hardware address %s, not %s", addr, mac, a.PodMAC)
		}
	}
	return out
}
