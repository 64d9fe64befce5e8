//go:build kernel

package nft

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/kithnet/kith/identity"
	"github.com/kithnet/kith/policy"
	"k8s.io/apimachinery/pkg/labels"
)

// ends says whether who writes now hears that his connection is over. (Who reads only, does not: nothing is sent to him.)
func ends(t testing.TB, conn net.Conn) bool {
	t.Helper()
	must(t, "set deadline", conn.SetDeadline(time.Now().Add(late)))
	_, _ = conn.Write([]byte("anybody?"))
	_, err := io.Copy(io.Discard, conn) // what was written before, and then the end
	return !errors.Is(err, os.ErrDeadlineExceeded)
}

// TestForgottenConnectionsEnd: a connection of a pod that policies select, though they allow it, ends when the kernel's table
// has lost it: whoever writes, hears so, and then the other end. It does not hang.
func TestForgottenConnectionsEnd(t *testing.T) {
	families(t, func(t *testing.T, family int) {
		l := newLab(t)
		service := netip.AddrPortFrom(addrs("10.96.0.1", "fd96::1")[family], 90)
		a := l.another("service", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, -100)
		a.redirect(identity.TCP, service, netip.AddrPortFrom(l.pods[1].addresses[family], 90))
		must(t, "make service", a.conn.Flush())
		everybody := policy.Rule{AllPeers: true, AllPorts: true}
		bound := isolates("pod2", policy.Egress, policy.Rule{Action: policy.Accept, AllPeers: true, AllPorts: true})
		bound.Tier, bound.Namespace, bound.Namespaces = policy.Admin, "", labels.Everything()
		l.under(isolates("pod0", policy.Ingress, everybody), isolates("pod1", policy.Egress, everybody), bound)
		byService := l.between(l.pods[3].end, l.pods[1].end, family, identity.TCP, 90)
		byService.by = service
		for name, f := range map[string]flow{
			"from a remote pod":      l.between(l.remotes[0], l.pods[0].end, family, identity.TCP, 80),
			"to a remote pod":        l.between(l.pods[1].end, l.remotes[0], family, identity.TCP, 81),
			"of two pods":            l.between(l.pods[3].end, l.pods[0].end, family, identity.TCP, 82),
			"by a Service":           byService,
			"to outside":             l.between(l.pods[1].end, l.outside.end, family, identity.TCP, 83),
			"from the node":          l.between(l.router.end, l.pods[2].end, family, identity.TCP, 84),
			"to the node":            l.between(l.pods[2].end, l.router.end, family, identity.TCP, 85),
			"of a pod that is bound": l.between(l.pods[2].end, l.pods[3].end, family, identity.TCP, 86),
		} {
			for _, first := range []string{"client", "server"} {
				c := l.call(f)
				l.wantCarried(c, name, true)
				l.forget()
				both := []net.Conn{c.client, c.server}
				if first == "server" {
					both = []net.Conn{c.server, c.client}
				}
				for i, conn := range both {
					if !ends(t, conn) {
						t.Fatalf("%s, the %s writes first: writer %d hangs", name, first, i+1)
					}
				}
				c.client.Close()
				c.server.Close()
			}
		}
	})
}

// TestResetsEndNothingElse: a segment that belongs to no connection, forged or not, is answered to its sender alone, and says
// nothing about connections that are open.
func TestResetsEndNothingElse(t *testing.T) {
	families(t, func(t *testing.T, family int) {
		l := newLab(t)
		l.under(isolates("pod0", policy.Ingress, only("remote0")))
		open := l.call(l.between(l.remotes[0], l.pods[0].end, family, identity.TCP, 80))
		l.wantCarried(open, "at first", true)
		stranger := l.between(l.remotes[1], l.pods[0].end, family, identity.TCP, 80)
		for range 20 {
			l.inject(l.mesh, l.toRouter(l.mesh, tcpPacket(stranger, 1234, ack, newWord())))
		}
		l.wantCarried(open, "while a stranger's segments are refused", true)
		word := newWord()
		if l.seen(l.pods[0].end, word, soon, func() { l.inject(l.mesh, l.toRouter(l.mesh, tcpPacket(stranger, 1235, rst, word))) }) {
			t.Error("a reset of no connection arrives")
		}
	})
}
