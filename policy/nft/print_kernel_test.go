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

// nftTool runs the nft tool in a namespace. A machine may do without the tool, but not in silence: the environment
// variable KITH_NFT=required makes its absence an error.
func nftTool(t testing.TB, ns netns.NsHandle, stdin string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath("nft")
	if err != nil {
		if os.Getenv("KITH_NFT") == "required" {
			t.Fatal("the nft tool is required and not here")
		}
		t.Log("NOT CHECKED: the nft tool is not here, so nothing says that it can print and load this table")
		t.SkipNow()
	}
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
	table, copied := openTable(t, ns), openTable(t, other)
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
