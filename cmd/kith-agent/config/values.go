package config

import (
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// The smallest underlay must carry the smallest IPv6 packet (1280) and the tunnel's own headers over IPv6 (80).
const (
	minMTU = 1280 + 80
	maxMTU = 65535
)

// maxRunDir keeps the path of a socket inside RunDir below the kernel's limit of 107 bytes.
const maxRunDir = 80

// problem is what is wrong with a value.
type problem struct {
	line      int
	text, fix string
}

// reader takes one value into the config it belongs to.
type reader func(*yaml.Node) *problem

// values are the readers of all keys.
func (c *Config) values() map[string]reader {
	return map[string]reader{
		"logLevel":                 logLevel(&c.LogLevel),
		"underlay.family":          choice(&c.Underlay.Family, FamilyAuto, FamilyIPv4, FamilyIPv6),
		"underlay.interface":       interfaceName(&c.Underlay.Interface),
		"underlay.mtu":             mtu(&c.Underlay.MTU),
		"wireguard.port":           lanePort(&c.WireGuard.Port),
		"wireguard.implementation": choice(&c.WireGuard.Implementation, ImplementationAuto, ImplementationKernel, ImplementationUserspace),
		"wireguard.rotation":       rotation(&c.WireGuard.Rotation),
		"wireguard.presharedKeys":  boolean(&c.WireGuard.PresharedKeys),
		"gossip.port":              port(&c.Gossip.Port),
		"probe.port":               port(&c.Probe.Port),
		"announce.port":            port(&c.Announce.Port),
		"health.port":              port(&c.Health.Port),
		"policy.maxElements":       maxElements(&c.Policy.MaxElements),
		"holdSigningKeys":          boolean(&c.HoldSigningKeys),
		"connections.newPerSecond": newPerSecond(&c.Connections.NewPerSecond),
		"policy.nameServers":       addresses(&c.Policy.NameServers),
		"masquerade":               boolean(&c.Masquerade),
		"podCIDRs":                 prefixes(&c.PodCIDRs),
		"nonMasqueradeCIDRs":       prefixes(&c.NonMasqueradeCIDRs),
		"cni.binDir":               folder(&c.CNI.BinDir),
		"cni.confDir":              folder(&c.CNI.ConfDir),
		"stateDir":                 folder(&c.StateDir),
		"runDir":                   runFolder(&c.RunDir),
	}
}

// scalar turns a parser of one word into a reader.
func scalar[T any](to *T, fix string, parse func(string) (T, bool)) reader {
	return func(node *yaml.Node) *problem {
		if node.Kind != yaml.ScalarNode {
			return &problem{node.Line, "is " + kind(node), fix}
		}
		v, ok := parse(node.Value)
		if !ok {
			return &problem{node.Line, fmt.Sprintf("%q is not valid", node.Value), fix}
		}
		*to = v
		return nil
	}
}

func choice[T ~string](to *T, all ...T) reader {
	names := make([]string, len(all))
	for i, v := range all {
		names[i] = string(v)
	}
	return scalar(to, "write one of "+strings.Join(names, ", "), func(s string) (T, bool) {
		return T(s), slices.Contains(all, T(s))
	})
}

func logLevel(to *slog.Level) reader {
	levels := map[string]slog.Level{
		"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError,
	}
	return scalar(to, "write one of debug, info, warn, error", func(s string) (slog.Level, bool) {
		level, ok := levels[s]
		return level, ok
	})
}

func boolean(to *bool) reader {
	return scalar(to, "write true or false", func(s string) (bool, bool) {
		return s == "true", s == "true" || s == "false"
	})
}

func port(to *uint16) reader {
	return scalar(to, "write a port from 1 to 65535", func(s string) (uint16, bool) {
		n, err := strconv.ParseUint(s, 10, 16)
		return uint16(n), err == nil && n > 0
	})
}

// The bounds of the bound: a small policy must be enforced, and a large one must not stop an agent.
const (
	minElements = 8192
	maxOfBound  = 1 << 20
)

func maxElements(to *int) reader {
	return scalar(to, fmt.Sprintf("write a number from %d to %d", minElements, maxOfBound), func(s string) (int, bool) {
		n, err := strconv.Atoi(s)
		return n, err == nil && minElements <= n && n <= maxOfBound
	})
}

// The bounds of a rate: below, a pod's start already needs more; above, a rate bounds nothing.
const (
	minNewPerSecond = 10
	maxNewPerSecond = 1_000_000
)

func newPerSecond(to *uint32) reader {
	fix := fmt.Sprintf("write off, or a number from %d to %d", minNewPerSecond, maxNewPerSecond)
	return scalar(to, fix, func(s string) (uint32, bool) {
		if s == "off" {
			return 0, true
		}
		n, err := strconv.ParseUint(s, 10, 32)
		return uint32(n), err == nil && minNewPerSecond <= n && n <= maxNewPerSecond
	})
}

// lanePort is a port with one more behind it, for the second lane.
func lanePort(to *uint16) reader {
	return scalar(to, "write a port from 1 to 65534; the next one is used, too", func(s string) (uint16, bool) {
		n, err := strconv.ParseUint(s, 10, 16)
		return uint16(n), err == nil && n > 0 && n < 65535
	})
}

// minRotation leaves each change of keys the time to reach all nodes.
const minRotation = 10 * time.Minute

func rotation(to *time.Duration) reader {
	return scalar(to, "write off, or a time from 10m, such as 168h", func(s string) (time.Duration, bool) {
		if s == "off" {
			return 0, true
		}
		d, err := time.ParseDuration(s)
		return d, err == nil && d >= minRotation
	})
}

func mtu(to *int) reader {
	fix := fmt.Sprintf("write auto, or a number from %d (an IPv6 packet inside the tunnel) to %d", minMTU, maxMTU)
	return scalar(to, fix, func(s string) (int, bool) {
		if s == "auto" {
			return 0, true
		}
		n, err := strconv.Atoi(s)
		return n, err == nil && n >= minMTU && n <= maxMTU
	})
}

func interfaceName(to *string) reader {
	valid := regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.@-]{0,14}$`)
	return scalar(to, "write auto, or the name of an interface that every node has", func(s string) (string, bool) {
		if s == "auto" {
			return "", true
		}
		return s, valid.MatchString(s) && s != "lo" && !strings.HasPrefix(s, "kith")
	})
}

func folder(to *string) reader {
	return scalar(to, "write an absolute path without .. or a slash at its end", func(s string) (string, bool) {
		return s, validFolder(s)
	})
}

func runFolder(to *string) reader {
	fix := fmt.Sprintf("write an absolute path of at most %d bytes without .. or a slash at its end", maxRunDir)
	return scalar(to, fix, func(s string) (string, bool) {
		return s, validFolder(s) && len(s) <= maxRunDir
	})
}

func validFolder(s string) bool {
	return filepath.IsAbs(s) && s != "/" && filepath.Clean(s) == s && !strings.ContainsRune(s, 0)
}

// prefixes reads a list of CIDRs; their order does not matter, so they are kept sorted and once each.
func prefixes(to *[]netip.Prefix) reader {
	const fix = "write a list of CIDRs such as [192.0.2.0/24, 2001:db8::/32]"
	return func(node *yaml.Node) *problem {
		if node.Kind != yaml.SequenceNode {
			return &problem{node.Line, "is " + kind(node), fix}
		}
		var list []netip.Prefix
		for _, item := range node.Content {
			var p netip.Prefix
			if problem := scalar(&p, fix, parsePrefix)(item); problem != nil {
				return problem
			}
			if p != p.Masked() {
				return &problem{item.Line, fmt.Sprintf("%s has bits beyond its length", p), "write " + p.Masked().String()}
			}
			list = append(list, p)
		}
		slices.SortFunc(list, netip.Prefix.Compare)
		*to = slices.Compact(list)
		return nil
	}
}

func parsePrefix(s string) (netip.Prefix, bool) {
	p, err := netip.ParsePrefix(s)
	return p, err == nil && !p.Addr().Is4In6()
}

// addresses reads a list of addresses, kept sorted and once each.
func addresses(to *[]netip.Addr) reader {
	const fix = "write a list of addresses such as [192.0.2.53, 2001:db8::53]"
	return func(node *yaml.Node) *problem {
		if node.Kind != yaml.SequenceNode {
			return &problem{node.Line, "is " + kind(node), fix}
		}
		var list []netip.Addr
		for _, item := range node.Content {
			var a netip.Addr
			if problem := scalar(&a, fix, parseAddress)(item); problem != nil {
				return problem
			}
			list = append(list, a)
		}
		slices.SortFunc(list, netip.Addr.Compare)
		*to = slices.Compact(list)
		return nil
	}
}

func parseAddress(s string) (netip.Addr, bool) {
	a, err := netip.ParseAddr(s)
	return a, err == nil && !a.Is4In6() && a.Zone() == "" && !a.IsUnspecified()
}
