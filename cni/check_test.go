package cni

import (
	"encoding/json"
	"errors"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite golden files")

func TestCheck(t *testing.T) {
	tests := map[string]struct {
		change func(*world, *Request)
		code   uint
		says   string
	}{
		"as made":   {func(*world, *Request) {}, 0, ""},
		"no record": {func(w *world, _ *Request) { w.records = nil }, types.ErrUnknownContainer, "a/eth0"},
		"unfinished": {func(w *world, r *Request) {
			a := w.records[r.Key]
			a.Complete = false
			w.records[r.Key] = a
		}, types.ErrUnknownContainer, "a/eth0"},
		"other sandbox": {func(_ *world, r *Request) { r.Netns = "/run/netns/other" }, CodeMismatch, "CNI_NETNS is /run/netns/other"},
		"kernel":        {func(w *world, _ *Request) { w.wrong["check link"] = errInjected }, CodeMismatch, "injected"},
		"gate":          {func(w *world, _ *Request) { w.wrong["check gate"] = errInjected }, CodeMismatch, "injected"},
		"result without interface": {func(_ *world, r *Request) { r.Config.PrevResult.Interfaces = nil },
			CodeMismatch, "prevResult has no interface eth0"},
		"result without address": {func(_ *world, r *Request) { r.Config.PrevResult.IPs = r.Config.PrevResult.IPs[:1] },
			CodeMismatch, "prevResult has no address fd00::2"},
		"result with other MAC": {func(_ *world, r *Request) { r.Config.PrevResult.Interfaces[1].Mac = "02:00:00:00:00:09" },
			CodeMismatch, "02:00:00:00:00:09"},
		"result with more": {func(_ *world, r *Request) {
			r.Config.PrevResult.Interfaces = append(r.Config.PrevResult.Interfaces, &types100.Interface{Name: "ifb0"})
		}, 0, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w, r := newWorld(), request("a")
			result, err := Add(t.Context(), w.deps(), r)
			if err != nil {
				t.Fatal(err)
			}
			r.Config.PrevResult = result
			tt.change(w, &r)
			err = Check(t.Context(), w.deps(), r)
			expectError(t, err, tt.code, tt.says)
		})
	}
}

func expectError(t *testing.T, err error, code uint, says string) {
	t.Helper()
	got := ToError(err)
	switch {
	case code == 0 && got != nil:
		t.Errorf("error %v", got)
	case code != 0 && got == nil:
		t.Errorf("no error, want code %d", code)
	case code != 0 && (got.Code != code || !strings.Contains(got.Error(), says)):
		t.Errorf("error %d %v, want %d with %q", got.Code, got, code, says)
	}
}

func TestResultGolden(t *testing.T) {
	a := NewAttachment(request("a"), 1420)
	a.Addresses = []netip.Addr{netip.MustParseAddr("10.1.0.2"), netip.MustParseAddr("fd00::2")}
	prev := &types100.Result{
		Interfaces: []*types100.Interface{{Name: "lo", Sandbox: a.Netns}},
		IPs:        []*types100.IPConfig{{Interface: types100.Int(0), Address: ipNet(netip.MustParsePrefix("127.0.0.1/8"))}},
	}
	for name, result := range map[string]*types100.Result{"result": Result(a, nil), "result-chained": Result(a, prev)} {
		got, err := json.MarshalIndent(result, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join("testdata", name+".json")
		if *update {
			if err := os.WriteFile(path, append(got, '\n'), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), string(got)+"\n"); diff != "" {
			t.Error(diff)
		}
	}
	if len(prev.Interfaces) != 1 || len(prev.IPs) != 1 {
		t.Error("Result changed the result before")
	}
}

// The result must reach runtimes that speak older versions.
func TestResultConverts(t *testing.T) {
	w := newWorld()
	result, err := Add(t.Context(), w.deps(), request("a"))
	if err != nil {
		t.Fatal(err)
	}
	for _, version := range []string{"0.3.1", "0.4.0", "1.0.0", "1.1.0"} {
		old, err := result.GetAsVersion(version)
		if err != nil {
			t.Fatalf("version %s: %v", version, err)
		}
		data, err := json.Marshal(old)
		if err != nil {
			t.Fatal(err)
		}
		conf, err := ParseConf([]byte(`{"cniVersion":"` + version + `","name":"kith","prevResult":` + string(data) + `}`))
		if err != nil {
			t.Fatalf("version %s: %v", version, err)
		}
		if missing := missingIn(conf.PrevResult, w.records[request("a").Key]); missing != nil {
			t.Errorf("version %s: %v", version, missing)
		}
	}
}

func TestAttachmentIsLocalAndDistinct(t *testing.T) {
	seen := map[string]bool{}
	for _, id := range []string{"a", "b", "c", "d"} {
		a := NewAttachment(request(id), 1420)
		if len(a.HostInterface) != 15 || a.PodMAC[0]&3 != 2 || a.HostMAC[0]&3 != 2 {
			t.Errorf("%+v", a)
		}
		if seen[a.HostInterface] || seen[a.PodMAC.String()] {
			t.Errorf("%s is not distinct", id)
		}
		seen[a.HostInterface], seen[a.PodMAC.String()] = true, true
	}
}

func TestMACText(t *testing.T) {
	m := MAC{0x02, 0xab, 0, 1, 2, 0xff}
	var back MAC
	if err := back.UnmarshalText([]byte(m.String())); err != nil || back != m {
		t.Errorf("%v %v", back, err)
	}
	for _, bad := range []string{"", "02:ab:00:01:02", "02-ab-00-01-02-ff", "02:ab:00:01:02:fg", "02:ab:00:01:02:ff:00"} {
		if err := new(MAC).UnmarshalText([]byte(bad)); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}

func TestToError(t *testing.T) {
	spec := types.NewError(types.ErrInvalidNetNS, "msg", "details")
	tests := map[string]struct {
		err  error
		code uint
	}{
		"of the specification": {spec, types.ErrInvalidNetNS},
		"wrapped":              {errors.Join(errInjected, spec), types.ErrInvalidNetNS},
		"transient":            {errors.Join(errInjected, ErrUnavailable), types.ErrTryAgainLater},
		"other":                {errInjected, types.ErrInternal},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) { expectError(t, tt.err, tt.code, "") })
	}
	if ToError(nil) != nil {
		t.Error("nil became an error")
	}
}
