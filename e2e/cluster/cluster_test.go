package cluster

import (
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
)

func TestMakeRoom(t *testing.T) {
	ended := exec.Command("true")
	if err := ended.Run(); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name  string
		owner Process
		want  string
	}{
		{"its owner lives", Self(), "uses it"},
		{"nobody owns it", Process{}, "take it down first"},
		{"its owner is gone", Process{PID: ended.Process.Pid, Start: "1"}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := &Cluster{Spec: Spec{Name: "zzroom", Owner: tt.owner}, dir: t.TempDir() + "/zzroom", progress: io.Discard}
			if err := os.Mkdir(c.dir, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := c.save(); err != nil {
				t.Fatal(err)
			}
			err := c.makeRoom()
			if got := err == nil; got != (tt.want == "") || (err != nil && !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("%v, want %q", err, tt.want)
			}
			_, stays := os.Stat(c.dir)
			if (stays == nil) != (tt.want != "") {
				t.Errorf("its folder: %v", stays)
			}
		})
	}
}

// TestMakeRoomAfterACutDown: a Down that was killed over the files may have removed the record first.
func TestMakeRoomAfterACutDown(t *testing.T) {
	c := &Cluster{Spec: Spec{Name: "zzroom"}, dir: t.TempDir() + "/zzroom", progress: io.Discard}
	if err := os.MkdirAll(c.imageDir(), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := c.makeRoom(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(c.dir); !os.IsNotExist(err) {
		t.Errorf("its folder stays: %v", err)
	}
}
