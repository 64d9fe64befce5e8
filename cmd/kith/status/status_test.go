package status

import (
	"encoding/json"
	"flag"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var update = flag.Bool("update", false, "rewrite golden files")

// TestJSON pins the form that scripts and older or newer versions of the command read.
func TestJSON(t *testing.T) {
	at := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	report := Report{
		Node: "n1", Version: "v1", Started: at, Ready: false, Reasons: []string{"waits for policies"}, Problems: []string{"p"},
		Claim:   Claim{SigningKey: "s1=", Epoch: 9},
		Gossip:  Gossip{Keys: []string{"f1"}, Strangers: 10},
		Refused: []Refused{{Node: "n2", Cause: "bad-signature", Count: 11}},
		Device:  Device{Name: "kith0", Kind: "kernel", MTU: 1420, Port: 51820, PublicKey: "k1="},
		Members: []Member{{Node: "n1", Address: netip.MustParseAddr("192.0.2.1"), State: Alive}},
		Peers: []Peer{{Node: "n2", PublicKey: "k2=", Endpoint: netip.MustParseAddrPort("[2001:db8::2]:51820"),
			AllowedIPs: []netip.Prefix{netip.MustParsePrefix("10.244.2.0/24")}, LastHandshake: at, RxBytes: 1, TxBytes: 2}},
		Ways: []Way{{Node: "n2", RoundTrip: time.Millisecond, Loss: 0.25, MTU: 1296},
			{Node: "n3", SilentSince: at, PeerRemade: at, Loss: 1}},
		Identities: 3, Policies: 4, Subjects: 5, Attachments: 6,
		Apply: Apply{At: at, Duration: time.Millisecond, Writes: 7, Transactions: 8, Error: "e"},
	}
	got, err := json.MarshalIndent(report, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, '\n')
	const golden = "testdata/report.json"
	if *update {
		if err := os.WriteFile(golden, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("JSON (-want +got):\n%s", diff)
	}
	var back Report
	if err := json.Unmarshal(want, &back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(report, back, cmpopts.EquateComparable(netip.Addr{}, netip.AddrPort{}, netip.Prefix{})); diff != "" {
		t.Errorf("read back (-want +got):\n%s", diff)
	}
}
