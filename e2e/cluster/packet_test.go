package cluster

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

func frame(kind uint16, protocol byte, from, to string) []byte {
	b := binary.BigEndian.AppendUint16(make([]byte, 12), kind)
	src, dst := netip.MustParseAddr(from).AsSlice(), netip.MustParseAddr(to).AsSlice()
	switch kind {
	case unix.ETH_P_IP:
		b = append(b, 0x45, 0, 0, 28, 0, 0, 0, 0, 64, protocol, 0, 0)
		b = append(append(b, src...), dst...)
	case unix.ETH_P_IPV6:
		b = append(b, 0x60, 0, 0, 0, 0, 8, protocol, 64)
		b = append(append(b, src...), dst...)
	case unix.ETH_P_ARP:
		b = append(append(b, make([]byte, 14)...), src...)
		b = append(append(b, make([]byte, 6)...), dst...)
	}
	return append(b, 0x30, 0x39, 0xca, 0x6c, 0, 8, 0, 0)
}

func TestFrames(t *testing.T) {
	vm, err := bpf.NewVM(acceptPods([]netip.Prefix{netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("fd00:10:244::/56")}))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name    string
		frame   []byte
		class   string
		exposed bool
	}{
		{"tunnel", frame(unix.ETH_P_IP, unix.IPPROTO_UDP, "10.89.0.11", "10.89.0.12"), WireGuardClass, false},
		{"tunnel over IPv6", frame(unix.ETH_P_IPV6, unix.IPPROTO_UDP, "fd00:89::b", "fd00:89::c"), WireGuardClass, false},
		{"pod source", frame(unix.ETH_P_IP, unix.IPPROTO_TCP, "10.244.1.5", "10.89.0.12"), "other TCP", true},
		{"pod destination", frame(unix.ETH_P_IP, unix.IPPROTO_ICMP, "10.89.0.12", "10.244.255.255"), "ICMP", true},
		{"next to the range", frame(unix.ETH_P_IP, unix.IPPROTO_TCP, "10.243.255.255", "10.245.0.0"), "other TCP", false},
		{"IPv6 pod source", frame(unix.ETH_P_IPV6, unix.IPPROTO_TCP, "fd00:10:244:ff::1", "fd00:89::c"), "other TCP", true},
		{"IPv6 pod destination", frame(unix.ETH_P_IPV6, unix.IPPROTO_TCP, "fd00:89::c", "fd00:10:244::1"), "other TCP", true},
		{"next to the IPv6 range", frame(unix.ETH_P_IPV6, unix.IPPROTO_TCP, "fd00:10:244:100::1", "fd00:10:243:ff::"), "other TCP", false},
		{"ARP of nodes", frame(unix.ETH_P_ARP, 0, "10.89.0.11", "10.89.0.12"), "ARP", false},
		{"ARP for a pod", frame(unix.ETH_P_ARP, 0, "10.89.0.11", "10.244.2.9"), "ARP", true},
	} {
		n, err := vm.Run(tt.frame)
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		if exposed := n > 0; exposed != tt.exposed {
			t.Errorf("%s: exposed %v, want %v", tt.name, exposed, tt.exposed)
		}
		if class := parse(tt.frame).class(); class != tt.class {
			t.Errorf("%s: class %q, want %q", tt.name, class, tt.class)
		}
	}
}
