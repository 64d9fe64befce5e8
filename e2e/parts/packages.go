package parts

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
)

// NodePackages are the Debian packages whose programs nodes and test images use.
func NodePackages() []string {
	return []string{
		"bind9-dnsutils", "busybox-static", "conntrack", "curl", "dash", "ethtool", "iproute2", "iptables", "iputils-ping",
		"kmod", "libseccomp2", "mount", "netcat-openbsd", "nftables", "procps", "util-linux",
	}
}

// EnsurePackages installs the Debian packages that are missing.
func (b *Builder) EnsurePackages(ctx context.Context, names ...string) error {
	var missing []string
	for _, name := range names {
		out, err := exec.CommandContext(ctx, "dpkg-query", "-W", "-f", "${Status}", name).Output()
		if err != nil || !strings.Contains(string(out), "install ok installed") {
			missing = append(missing, name)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	b.Say("installing Debian packages: %s", strings.Join(missing, " "))
	env := []string{"DEBIAN_FRONTEND=noninteractive"}
	// Another apt may be at work: wait for it rather than fail.
	const lock = "DPkg::Lock::Timeout=600"
	if _, err := run(ctx, "", env, "apt-get", "update", "-q", "-o", lock); err != nil {
		return fmt.Errorf("install packages: %w", err)
	}
	install := append([]string{"apt-get", "install", "-q", "-y", "-o", lock, "--no-install-recommends"}, missing...)
	if _, err := run(ctx, "", env, install...); err != nil {
		return fmt.Errorf("install packages: %w", err)
	}
	return nil
}
