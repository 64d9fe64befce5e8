package veth

import (
	"encoding/binary"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestAttribute(t *testing.T) {
	message := []byte{
		1, 2, 3, 4, // a header
		5, 0, 7, 0, 42, 0, 0, 0, // one byte, and what aligns it
		8, 0, 9, 0, 1, 2, 3, 4,
	}
	if got, there := attribute(message, 4, 7); !there || len(got) != 1 || got[0] != 42 {
		t.Errorf("got %v %v", got, there)
	}
	if got, there := attribute(message, 4, 9); !there || index(got, 0) != int(binary.NativeEndian.Uint32([]byte{1, 2, 3, 4})) {
		t.Errorf("got %v %v", got, there)
	}
	for name, wrong := range map[string][]byte{
		"none": message[:4], "too long": {1, 2, 3, 4, 9, 0, 7, 0, 42}, "no length": {1, 2, 3, 4, 0, 0, 7, 0}, "no header": {1},
	} {
		if got, there := attribute(wrong, 4, 7); there {
			t.Errorf("%s: got %v", name, got)
		}
	}
}

// FuzzMessages: no message of the kernel ends the agent.
func FuzzMessages(f *testing.F) {
	w := &Watch{}
	w.ours.Store(&map[int]string{7: "kith-0123456789"})
	types := []uint16{
		unix.RTM_NEWLINK, unix.RTM_DELLINK, unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH, unix.RTM_NEWROUTE, unix.RTM_DELROUTE, newNetconf,
	}
	f.Add([]byte{2, 0, 0, 0, 8, 0, netconfIndex, 0, 7, 0, 0, 0})
	f.Add(make([]byte, 64))
	f.Fuzz(func(_ *testing.T, data []byte) {
		for _, kind := range types {
			w.about(syscall.NetlinkMessage{Header: syscall.NlMsghdr{Type: kind, Flags: unix.NLM_F_REPLACE}, Data: data})
		}
		w.concerns(data)
	})
}
