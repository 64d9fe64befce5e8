package userspace

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// keepWhole sees to it that what the tunnel sends leaves whole or not at all, until ctx ends. Anybody can tell the
// kernel by ICMP that less than that arrives somewhere; it would believe it for ten minutes, cut packets in pieces, and
// refuse bundles of them. What really arrives the nodes find out by probes.
//
// wireguard-go opens its sockets when it likes, and shows them to nobody.
func keepWhole(ctx context.Context, log *slog.Logger) {
	tick := time.NewTicker(lookAfter)
	defer tick.Stop()
	failures := &repeats{seen: make(map[string]*repeat)}
	for {
		if err := sendWhole(); err != nil {
			if count, now := failures.note(err.Error(), time.Now()); now {
				log.Warn("anybody can shrink the tunnel's packets by ICMP", "error", err, hiddenField, count)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// sendWhole makes this process's UDP sockets send as large as the link allows, and never in pieces.
func sendWhole() error {
	const folder = "/proc/self/fd"
	files, err := os.ReadDir(folder)
	if err != nil {
		return fmt.Errorf("list open files: %w", err)
	}
	var failed error
	for _, file := range files {
		fd, err := strconv.Atoi(file.Name())
		if err != nil {
			return fmt.Errorf("list open files: %w", err)
		}
		// What is no socket, or is closed by now, has no protocol.
		if protocol, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL); err == nil && protocol == unix.IPPROTO_UDP {
			failed = errors.Join(failed, sendWholeOn(fd))
		}
	}
	return failed
}

func sendWholeOn(fd int) error {
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return fmt.Errorf("read family of socket: %w", err)
	}
	level, option, probe := unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE
	if domain == unix.AF_INET6 {
		level, option, probe = unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE
	}
	if err := unix.SetsockoptInt(fd, level, option, probe); err != nil {
		return fmt.Errorf("keep socket from cutting packets: %w", err)
	}
	return nil
}
