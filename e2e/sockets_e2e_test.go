//go:build e2e

package e2e

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kithnet/kith/e2e/cluster"
)

// TestSocketsListenWhereTheyMust: the agent and wireguard-go listen nowhere but at the node's own address (gossip), at its
// mesh address, to which only the tunnel leads (probes, what nodes tell of new pods), on WireGuard's ports, on loopback (the
// kubelet's probes), and on sockets in folders of root. A packet socket without a protocol only sends.
func TestSocketsListenWhereTheyMust(t *testing.T) {
	for _, n := range shared.Members {
		gossip := netip.AddrPortFrom(n.Addresses[0], 7950).String()
		want := []string{
			"tcp " + gossip, "udp " + gossip, "tcp 127.0.0.1:7949",
			"udp 0.0.0.0:51820", "udp 0.0.0.0:51821", "udp [::]:51820", "udp [::]:51821",
			"unix /run/kith/agent.sock", "unix /var/run/wireguard/kith0.sock", "unix /var/run/wireguard/kith1.sock",
		}
		for _, text := range strings.Fields(kubectl(t.Context(), t, "get", "node", n.Name, "-o", "jsonpath={.spec.podCIDRs[*]}")) {
			cidr, err := netip.ParsePrefix(text)
			if err != nil {
				t.Fatal(err)
			}
			for _, port := range []uint16{7947, 7948} {
				want = append(want, "udp "+netip.AddrPortFrom(cidr.Addr().Next(), port).String())
			}
		}
		slices.Sort(want)
		var got []string
		// A node that has only just come up may not have bound all yet.
		for end := time.Now().Add(time.Minute); time.Now().Before(end) && !slices.Equal(got, want); time.Sleep(time.Second) {
			got = slices.Concat(listening(t, n, "kith-agent"), listening(t, n, "kith-wireguard"))
			slices.Sort(got)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s listens at (-want +got):\n%s", n.Name, diff)
		}
	}
}

// listening is where the processes of a program on a node listen.
func listening(t *testing.T, n cluster.Node, program string) []string {
	t.Helper()
	pids, err := shared.Processes(n.Name, program)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, pid := range pids {
		own := sockets(pid)
		for _, protocol := range []string{"tcp", "tcp6", "udp", "udp6", "raw", "raw6", "packet", "unix"} {
			text, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", pid, protocol))
			if os.IsNotExist(err) {
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			for _, line := range strings.Split(string(text), "\n")[1:] {
				if at := listener(protocol, strings.Fields(line), own); at != "" {
					all = append(all, at)
				}
			}
		}
	}
	return all
}

// sockets are the inodes of a process's sockets.
func sockets(pid int) map[string]bool {
	own := map[string]bool{}
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	for _, file := range files {
		target, _ := os.Readlink(file)
		if inode, ok := strings.CutPrefix(target, "socket:["); ok {
			own[strings.TrimSuffix(inode, "]")] = true
		}
	}
	return own
}

// listener reads a line of the kernel's tables; empty: it is none of ours, or hears only whom it has called.
func listener(protocol string, field []string, own map[string]bool) string {
	const listens, unconnected, acceptsConnections, noProtocol = "0A", "07", "00010000", "0000"
	switch {
	case protocol == "unix":
		if len(field) < 8 || !own[field[6]] || field[3] != acceptsConnections {
			return ""
		}
		return "unix " + field[7]
	case protocol == "packet":
		if len(field) < 9 || !own[field[8]] || field[3] == noProtocol {
			return ""
		}
		return "packet"
	case len(field) < 10 || !own[field[9]]:
		return ""
	case strings.HasPrefix(protocol, "tcp") && field[3] != listens, strings.HasPrefix(protocol, "udp") && field[3] != unconnected:
		return ""
	}
	return strings.TrimSuffix(protocol, "6") + " " + address(field[1])
}

// address reads the kernel's way to write an address: words in the machine's order, and the port.
func address(text string) string {
	host, port, _ := strings.Cut(text, ":")
	raw, _ := hex.DecodeString(host)
	for i := 0; i+4 <= len(raw); i += 4 {
		binary.NativeEndian.PutUint32(raw[i:], binary.BigEndian.Uint32(raw[i:]))
	}
	addr, _ := netip.AddrFromSlice(raw)
	var number uint16
	fmt.Sscanf(port, "%X", &number)
	return netip.AddrPortFrom(addr, number).String()
}
