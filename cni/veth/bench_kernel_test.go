//go:build kernel

package veth

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
)

// BenchmarkRead is what an event costs on a node with 250 pods, and with another router's 100,000 routes besides.
func BenchmarkRead(b *testing.B) {
	for _, routes := range []int{0, 100_000} {
		b.Run(fmt.Sprintf("%d routes of others", routes), func(b *testing.B) {
			var links, others strings.Builder
			for i := range 250 {
				name := fmt.Sprintf("kith-%010x", i)
				fmt.Fprintf(&links, "link add %s type veth peer name p%d\nlink set %s up\n", name, i, name)
				fmt.Fprintf(&links, "route add 10.1.0.%d/32 dev %s\nneigh add 10.1.0.%d dev %s lladdr 02:00:00:00:00:01\n", i, name, i, name)
				b.Cleanup(func() { _ = netlink.LinkDel(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}}) })
			}
			for i := range routes {
				fmt.Fprintf(&others, "route add 20.%d.%d.%d/32 dev kith-0000000000 proto bird\n", i>>16, i>>8&255, i&255)
			}
			for _, batch := range []string{links.String(), others.String()} {
				ip := exec.Command("ip", "-batch", "-")
				ip.Stdin = strings.NewReader(batch)
				if out, err := ip.CombinedOutput(); err != nil {
					b.Fatalf("%v: %.300s", err, out)
				}
			}
			w, err := New("/proc/sys").Watch()
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() { _ = w.Close() })
			for b.Loop() {
				if sides, err := w.Read(b.Context()); err != nil || len(sides) != 250 || len(sides["kith-0000000000"].Routes) != 1 {
					b.Fatalf("%d host sides, %v", len(sides), err)
				}
			}
		})
	}
}
