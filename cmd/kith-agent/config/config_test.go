package config

import (
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var comparePrefix = cmpopts.EquateComparable(netip.Prefix{}, netip.Addr{})

const everyKey = `
logLevel: debug
underlay:
  family: ipv6
  interface: eth1
  mtu: 9000
wireguard:
  port: 4500
  implementation: userspace
  rotation: 1h
  presharedKeys: false
gossip:
  port: 4501
probe:
  port: 4502
announce:
  port: 4503
health:
  port: 4504
policy:
  maxElements: 9000
  nameServers: ["2001:db8::53", 192.0.2.53, 192.0.2.53]
holdSigningKeys: false
connections:
  newPerSecond: 500
masquerade: false
nonMasqueradeCIDRs:
  - 198.51.100.0/24
  - 192.0.2.0/24
  - 2001:db8::/32
  - 192.0.2.0/24
cni:
  binDir: /usr/lib/cni
  confDir: /etc/cni/conf
stateDir: /data/kith
runDir: /run/other
`

func TestParse(t *testing.T) {
	full := Config{
		LogLevel:    slog.LevelDebug,
		Underlay:    Underlay{Family: FamilyIPv6, Interface: "eth1", MTU: 9000},
		WireGuard:   WireGuard{Port: 4500, Implementation: ImplementationUserspace, Rotation: time.Hour},
		Gossip:      Gossip{Port: 4501},
		Probe:       Probe{Port: 4502},
		Announce:    Announce{Port: 4503},
		Health:      Health{Port: 4504},
		Policy:      Policy{MaxElements: 9000, NameServers: []netip.Addr{netip.MustParseAddr("192.0.2.53"), netip.MustParseAddr("2001:db8::53")}},
		Connections: Connections{NewPerSecond: 500},
		Masquerade:  false,
		NonMasqueradeCIDRs: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"),
			netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("2001:db8::/32")},
		CNI:      CNI{BinDir: "/usr/lib/cni", ConfDir: "/etc/cni/conf"},
		StateDir: "/data/kith",
		RunDir:   "/run/other",
	}
	mtu := Default()
	mtu.Underlay.MTU = 1500
	tests := []struct {
		name, text string
		want       Config
	}{
		{"empty", "", Default()},
		{"only comments", "# nothing\n", Default()},
		{"only a document's start", "---\n", Default()},
		{"section without keys", "wireguard:\n", Default()},
		{"every key", everyKey, full},
		{"flow style", "underlay: {mtu: 1500}", mtu},
		{"quoted", `underlay: {"mtu": "1500"}`, mtu},
		{"auto", "underlay: {mtu: auto, interface: auto, family: auto}", Default()},
		{"empty list", "nonMasqueradeCIDRs: []", Default()},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Parse("kith.yaml", []byte(tt.text))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got, comparePrefix); diff != "" {
				t.Errorf("config (-want +got):\n%s", diff)
			}
		})
	}
}

func TestMistakesAreRefusedWithTheirLine(t *testing.T) {
	tests := []struct {
		name, text string
		want       []string
	}{
		{"unknown key", "masquerade: true\nmaskerade: true\n",
			[]string{"kith.yaml:2: maskerade: is not a key that Kith knows: here it knows announce, cni, connections, gossip, health, holdSigningKeys, logLevel, masquerade, nonMasqueradeCIDRs, podCIDRs, policy, probe, runDir, stateDir, underlay, wireguard"}},
		{"unknown key in a section", "wireguard:\n  prot: 1\n",
			[]string{"kith.yaml:2: wireguard.prot: is not a key that Kith knows: here it knows implementation, port"}},
		{"key of another section", "wireguard:\n  port: 1\nport: 2\n", []string{"kith.yaml:3: port: is not a key"}},
		{"dotted key", "wireguard.port: 3\n", []string{"kith.yaml:1: wireguard.port: is not a key"}},
		{"twice", "runDir: /a\n\nrunDir: /b\n", []string{"kith.yaml:3: runDir: is given already in line 1: keep one"}},
		{"every mistake at once", "logLevel: loud\nwireguard:\n  port: 0\ngossip:\n  port: http\n", []string{
			`kith.yaml:1: logLevel: "loud" is not valid: write one of debug, info, warn, error`,
			`kith.yaml:3: wireguard.port: "0" is not valid: write a port from 1 to 65534; the next one is used, too`,
			`kith.yaml:5: gossip.port: "http" is not valid`}},
		{"port too large", "gossip:\n  port: 65536\n", []string{`kith.yaml:2: gossip.port: "65536"`}},
		{"bound too small", "policy: {maxElements: 8191}", []string{`kith.yaml:1: policy.maxElements: "8191" is not valid: write a number from 8192 to 1048576`}},
		{"rate too small", "connections: {newPerSecond: 0}", []string{`kith.yaml:1: connections.newPerSecond: "0" is not valid: write off, or a number from 10 to 1000000`}},
		{"a name for a name server", "policy: {nameServers: [dns.example]}", []string{`kith.yaml:1: policy.nameServers: "dns.example" is not valid: write a list of addresses such as [192.0.2.53, 2001:db8::53]`}},
		{"one name server", "policy: {nameServers: 192.0.2.53}", []string{"kith.yaml:1: policy.nameServers: is the single value"}},
		{"same port", "gossip:\n  port: 51820\n", []string{"kith.yaml:2: gossip.port: is the same as wireguard.port: both use UDP"}},
		{"same port for probes", "probe: {port: 7950}", []string{"kith.yaml:1: probe.port: is the same as gossip.port: both use UDP"}},
		{"same port for probes and WireGuard", "wireguard: {port: 7947}", []string{"kith.yaml:1: wireguard.port: is the same as probe.port"}},
		{"same port for announcements", "announce: {port: 7947}", []string{"kith.yaml:1: announce.port: is the same as probe.port: both use UDP"}},
		{"same port the other way", "\nwireguard: {port: 7950}", []string{"kith.yaml:2: wireguard.port: is the same as gossip.port"}},
		{"same folder", "stateDir: /run/kith", []string{"kith.yaml:1: stateDir: is the same as runDir"}},
		{"same CNI folder", "cni: {binDir: /etc/cni/net.d}", []string{"kith.yaml:1: cni.binDir: is the same as cni.confDir"}},
		{"boolean", "masquerade: yes\n", []string{`kith.yaml:1: masquerade: "yes" is not valid: write true or false`}},
		{"mtu too small", "underlay:\n  mtu: 1280\n", []string{`kith.yaml:2: underlay.mtu: "1280" is not valid: write auto, or a number from 1360`}},
		{"family", "underlay:\n  family: inet\n", []string{"write one of auto, ipv4, ipv6"}},
		{"interface too long", "underlay: {interface: a234567890123456}", []string{"underlay.interface"}},
		{"our own interface", "underlay: {interface: kith0}", []string{"underlay.interface"}},
		{"CIDR", "nonMasqueradeCIDRs:\n- 10.0.0.0/8\n- 10.0.0.0\n", []string{`kith.yaml:3: nonMasqueradeCIDRs: "10.0.0.0" is not valid: write a list of CIDRs`}},
		{"CIDR bits", "nonMasqueradeCIDRs:\n- 10.1.0.0/8\n", []string{"kith.yaml:2: nonMasqueradeCIDRs: 10.1.0.0/8 has bits beyond its length: write 10.0.0.0/8"}},
		{"no list", "nonMasqueradeCIDRs: 10.0.0.0/8\n", []string{`is the single value "10.0.0.0/8": write a list`}},
		{"relative folder", "stateDir: var/lib/kith", []string{"kith.yaml:1: stateDir"}},
		{"unclean folder", "cni:\n  binDir: /opt/../bin\n", []string{"kith.yaml:2: cni.binDir"}},
		{"run folder too long", "runDir: /" + strings.Repeat("a", 90), []string{"at most 80 bytes"}},
		{"no value", "logLevel:\n", []string{"kith.yaml:1: logLevel: has no value"}},
		{"list for a value", "logLevel: [info]\n", []string{"kith.yaml:1: logLevel: is a list: write one of"}},
		{"value for a section", "wireguard: 51820\n", []string{`kith.yaml:1: wireguard: is the single value "51820": write keys here: implementation, port`}},
		{"list for the file", "- a\n", []string{"kith.yaml:1: is a list: write keys here: announce, cni, connections, gossip"}},
		{"alias", "stateDir: &d /a\nrunDir: *d\n", []string{"kith.yaml:1: stateDir: uses an anchor", "kith.yaml:2: runDir: uses an anchor or alias"}},
		{"not YAML", "logLevel: info\n\tmasquerade: true\n", []string{"kith.yaml:2: ", "this is not YAML"}},
		{"two documents", "logLevel: info\n---\nlogLevel: info\n", []string{"kith.yaml:2: a second document begins here"}},
		{"too large", strings.Repeat("#", maxSize+1), []string{"kith.yaml:1: the file has 65537 bytes"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Parse("kith.yaml", []byte(tt.text))
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error:\n%v\nlacks:\n%s", err, want)
				}
			}
		})
	}
}

func TestLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kith.yaml")
	if _, err := Load(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("absent file: %v", err)
	}
	if err := os.WriteFile(path, []byte("gossip: {port: 1}"), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := Load(path)
	if err != nil || got.Gossip.Port != 1 {
		t.Errorf("got %+v, %v", got, err)
	}
}

// FuzzParse: whatever the text, Parse returns, and every mistake names a line that the text has.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"", everyKey, "a: [", "? [a]\n: b", "x: &a [*a]", "---\n---\n", "%YAML 9\n---\n", "\xff\xfe", "<<: {a: b}"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		_, err := Parse("f", data)
		if err == nil {
			return
		}
		all := []error{err}
		if joined, ok := err.(interface{ Unwrap() []error }); ok {
			all = joined.Unwrap()
		}
		for _, one := range all {
			var e *Error
			if !errors.As(one, &e) {
				t.Fatalf("%T is no *Error: %v", one, one)
			}
			if e.Line < 1 || e.Problem == "" || e.Fix == "" {
				t.Errorf("incomplete: %+v", e)
			}
		}
	})
}

// TestShippedFile: the file that the manifests install says what an empty one means, and documents every key.
func TestShippedFile(t *testing.T) {
	const path = "../../../deploy/helm/kith/files/kith.yaml"
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	active := regexp.MustCompile(`(?m)^( *)#([a-zA-Z])`).ReplaceAllString(string(text), "$1$2")
	for name, text := range map[string]string{"as shipped": string(text), "with every key active": active} {
		got, err := Parse("kith.yaml", []byte(text))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if diff := cmp.Diff(Default(), got, comparePrefix, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s (-default +got):\n%s", name, diff)
		}
	}
	root, err := document(path, []byte(active))
	if err != nil {
		t.Fatal(err)
	}
	config := Default()
	p := &parser{config: config, values: config.values(), lines: map[string]int{}}
	p.mapping("", root)
	for name := range p.values {
		if p.lines[name] == 0 {
			t.Errorf("%s does not document %s", path, name)
		}
	}
}
