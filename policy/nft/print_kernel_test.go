//go:build kernel

package nft

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netns"
)

// nftTool runs the nft tool in a namespace. Where a machine is to do without it, the environment says so:
// KITH_NFT=absent.
func nftTool(t testing.TB, ns netns.NsHandle, stdin string, args ...string) string {
	t.Helper()
	if os.Getenv("KITH_NFT") == "absent" {
		t.Skip("NOT CHECKED here: what needs the nft tool, which this machine is to do without")
	}
	path, err := exec.LookPath("nft")
	must(t, "find the nft tool (apt-get install nftables)", err)
	var out, errs bytes.Buffer
	inside(t, ns, func() {
		cmd := exec.Command(path, args...)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errs
		err = cmd.Run()
	})
	if err != nil {
		t.Fatalf("nft %s: %v\n%s", strings.Join(args, " "), err, errs.String())
	}
	return out.String()
}

func TestToolPrintsAndLoadsTheTable(t *testing.T) {
	ns, other := newNamespace(t), newNamespace(t)
	table, copied := openTable(t, ns, Shared()), openTable(t, other, Shared())
	want := everything()
	converge(t, table, want)
	printed := nftTool(t, ns, "", "--stateless", "list", "ruleset")
	nftTool(t, other, printed, "-f", "-")
	if diff := cmp.Diff(printed, nftTool(t, other, "", "--stateless", "list", "ruleset")); diff != "" {
		t.Errorf("the print loads to another print:\n%s", diff)
	}
	sameRuleset(t, copied, want)
	if t.Failed() || testing.Verbose() {
		t.Log(printed)
	}
}
