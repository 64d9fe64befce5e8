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

// tune lets the device receive what it sent nothing to first, and keeps IPv6's
// own chatter out of the tunnel. Where a family is absent, so is its setting.
func (s sysctls) tune(device string) error {
	return errors.Join(
		s.set(filepath.Join("ipv4/conf", device, "rp_filter"), s.reversePath()),
		s.set(filepath.Join("ipv6/conf", device, "addr_gen_mode"), "1"),
		s.set(filepath.Join("ipv6/conf", device, "accept_ra"), "0"),
	)
}

// reversePath turns the filter off, or down to loose where the setting for all
// devices is stricter: the kernel takes the larger of the two numbers.
func (s sysctls) reversePath() string {
	all, err := os.ReadFile(filepath.Join(string(s), "net", "ipv4/conf/all/rp_filter"))
	if err == nil && strings.TrimSpace(string(all)) == "1" {
		return "2"
	}
	return "0"
}

func (s sysctls) set(name, value string) error {
	path := filepath.Join(string(s), "net", name)
	current, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && strings.TrimSpace(string(current)) == value {
		return nil
	}
	if err := os.WriteFile(path, []byte(value), 0); err != nil {
		return fmt.Errorf("set %s to %s: %w", name, value, err)
	}
	return nil
}
