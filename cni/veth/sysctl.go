package veth

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/kithnet/kith/cni"
)

// sysctls writes settings of the network namespace that the calling thread is in.
type sysctls struct {
	root string
}

// setting is a file below net/, and what must be in it.
type setting struct {
	path  string
	value string
}

func (s sysctls) setHost(a cni.Attachment) error {
	for _, want := range a.HostSettings() {
		set := s.set
		if want.Optional {
			set = s.setIfThere
		}
		if err := set([]setting{{want.Path(a.HostInterface), want.Value}}); err != nil {
			return err
		}
	}
	return nil
}

func (s sysctls) setPod(a cni.Attachment) error {
	v6 := "ipv6/conf/" + a.IfName
	settings := []setting{{v6 + "/accept_ra", "0"}, {v6 + "/accept_dad", "0"}, {v6 + "/dad_transmits", "0"}}
	if !hasIPv6(a) {
		return s.setIfThere(settings)
	}
	return s.set(append(settings,
		setting{"ipv6/conf/all/disable_ipv6", "0"},
		setting{"ipv6/conf/default/disable_ipv6", "0"},
		setting{v6 + "/disable_ipv6", "0"}))
}

func hasIPv6(a cni.Attachment) bool {
	for _, addr := range a.Addresses {
		if addr.Is6() {
			return true
		}
	}
	return false
}

// IgnoreARP keeps the node from answering, and so from remembering, what pods ask by ARP whose interfaces still speak it:
// those of agents before NOARP. Turning ARP off where packets flow would forget the permanent neighbours for an instant.
func (l *Links) IgnoreARP(ctx context.Context) error {
	names, err := l.List(ctx)
	if err != nil {
		return err
	}
	var failed error
	for _, name := range names {
		failed = errors.Join(failed, l.sysctls.setIfThere([]setting{{"ipv4/conf/" + name + "/arp_ignore", "8"}}))
	}
	return failed
}

// ForwardIPv4 makes the node forward IPv4.
func (l *Links) ForwardIPv4() error {
	return l.sysctls.set([]setting{{"ipv4/ip_forward", "1"}})
}

// ForwardIPv6 makes the node forward IPv6. Interfaces that took their addresses and routes from
// router advertisements go on doing so, which a forwarding node otherwise would not.
func (l *Links) ForwardIPv6() error {
	const forwarding = "ipv6/conf/all/forwarding"
	if now, err := l.sysctls.get(forwarding); err != nil || now == "1" {
		return err
	}
	interfaces, err := os.ReadDir(filepath.Join(l.sysctls.root, "net/ipv6/conf"))
	if err != nil {
		return fmt.Errorf("list interfaces: %w", err)
	}
	for _, dir := range interfaces {
		ra := "ipv6/conf/" + dir.Name() + "/accept_ra"
		if dir.Name() == "all" || dir.Name() == "default" {
			continue
		}
		if now, err := l.sysctls.get(ra); err != nil || now != "1" {
			continue
		}
		if err := l.sysctls.setIfThere([]setting{{ra, "2"}}); err != nil {
			return err
		}
	}
	return l.sysctls.set([]setting{{forwarding, "1"}})
}

func (s sysctls) get(path string) (string, error) {
	data, err := os.ReadFile(filepath.Join(s.root, "net", path))
	if err != nil {
		return "", fmt.Errorf("read setting: %w", err)
	}
	return strings.TrimSpace(string(data)), nil
}

// set writes only what differs, so that it works where all is right and nothing may be written.
func (s sysctls) set(settings []setting) error {
	for _, want := range settings {
		if now, err := s.get(want.path); err == nil && now == want.value {
			continue
		}
		path := filepath.Join(s.root, "net", want.path)
		if err := os.WriteFile(path, []byte(want.value), 0o644); err != nil {
			return fmt.Errorf("write setting: %w", err)
		}
	}
	return nil
}

func (s sysctls) setIfThere(settings []setting) error {
	for _, one := range settings {
		err := s.set([]setting{one})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
