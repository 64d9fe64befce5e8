package wireguard

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// sysctls is the folder of the node's settings, /proc/sys or where a container can write it.
type sysctls string

// settings are what a device needs, by file below net: it receives what it sent nothing to first, forwards, also after
// somebody turned that off for all devices and on again, and keeps IPv6's own chatter out of the tunnel. Where a family is
// absent, so is its setting.
func (s sysctls) settings(device string) map[string]string {
	all := map[string]string{
		filepath.Join("ipv4/conf", device, "rp_filter"):     s.reversePath(),
		filepath.Join("ipv4/conf", device, "forwarding"):    "1",
		filepath.Join("ipv6/conf", device, "addr_gen_mode"): "1",
		filepath.Join("ipv6/conf", device, "accept_ra"):     "0",
	}
	if node, err := s.get("ipv6/conf/all/forwarding"); err == nil && node != "0" {
		all[filepath.Join("ipv6/conf", device, "forwarding")] = node
	}
	return all
}

// tune makes the device's settings what they must be.
func (s sysctls) tune(device string) error {
	var failed error
	for name, value := range s.settings(device) {
		failed = errors.Join(failed, s.set(name, value))
	}
	return failed
}

// tuned reports whether the device's settings do as well as what they must be: systemd sets every new device's reverse
// path filter to loose, which keeps nothing out.
func (s sysctls) tuned(device string) bool {
	for name, value := range s.settings(device) {
		now, err := s.get(name)
		if loose := filepath.Base(name) == "rp_filter" && now == "2"; err == nil && now != value && !loose {
			return false
		}
	}
	return true
}

// reversePath turns the filter off, or down to loose where the setting for all
// devices is stricter: the kernel takes the larger of the two numbers.
func (s sysctls) reversePath() string {
	if all, err := s.get("ipv4/conf/all/rp_filter"); err == nil && all == "1" {
		return "2"
	}
	return "0"
}

func (s sysctls) get(name string) (string, error) {
	text, err := os.ReadFile(filepath.Join(string(s), "net", name))
	return strings.TrimSpace(string(text)), err
}

func (s sysctls) set(name, value string) error {
	current, err := s.get(name)
	if errors.Is(err, fs.ErrNotExist) || err == nil && current == value {
		return nil
	}
	if err := os.WriteFile(filepath.Join(string(s), "net", name), []byte(value), 0); err != nil {
		return fmt.Errorf("set %s to %s: %w", name, value, err)
	}
	return nil
}
