package wireguard

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

const sysctlRoot = "/proc/sys/net"

// tune lets the device receive what it sent nothing to first, and keeps IPv6's
// own chatter out of the tunnel. Where a family is absent, so is its setting.
func tune(device string) error {
	return errors.Join(
		set(filepath.Join("ipv4/conf", device, "rp_filter"), reversePath()),
		set(filepath.Join("ipv6/conf", device, "addr_gen_mode"), "1"),
		set(filepath.Join("ipv6/conf", device, "accept_ra"), "0"),
	)
}

// reversePath turns the filter off, or down to loose where the setting for all
// devices is stricter: the kernel takes the larger of the two numbers.
func reversePath() string {
	all, err := os.ReadFile(filepath.Join(sysctlRoot, "ipv4/conf/all/rp_filter"))
	if err == nil && strings.TrimSpace(string(all)) == "1" {
		return "2"
	}
	return "0"
}

func set(name, value string) error {
	path := filepath.Join(sysctlRoot, name)
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
