package userspace

import (
	"context"
	"log/slog"
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// TestSocketsSendWhole holds that what sockets send does not hang on what is said of sizes.
func TestSocketsSendWhole(t *testing.T) {
	for _, network := range []string{"udp4", "udp6"} {
		conn, err := net.ListenPacket(network, ":0")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		// At its end, too, it has looked once.
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		Run(ctx, nil, slog.New(slog.DiscardHandler))
		level, option, want := unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE
		if network == "udp6" {
			level, option, want = unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE
		}
		raw, err := conn.(*net.UDPConn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		if err := raw.Control(func(fd uintptr) {
			if got, err := unix.GetsockoptInt(int(fd), level, option); err != nil || got != want {
				t.Errorf("%s: discovers sizes by %d, want %d (%v)", network, got, want, err)
			}
		}); err != nil {
			t.Fatal(err)
		}
	}
}
