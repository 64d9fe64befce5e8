package userspace

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestControlSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "folder", "kith0.sock")
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(filepath.Dir(filepath.Dir(path)), "s"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false)
	stale.Close()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(stale.Addr().String(), path); err != nil {
		t.Fatal(err)
	}
	l, err := listen(path)
	if err != nil {
		t.Fatalf("a socket left behind is in the way: %v", err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- accept(ctx, l, func(c net.Conn) { c.Write([]byte("x")); c.Close() }) }()
	mustAnswer(t, path)
	if _, err := listen(path); err == nil {
		t.Error("a second process takes the socket away")
	}
	mustAnswer(t, path)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	mustAnswer(t, path)
	cancel()
	if err := <-done; err != nil {
		t.Errorf("at the end: %v", err)
	}
}

func mustAnswer(t *testing.T, path string) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		c, err := net.Dial("unix", path)
		if err == nil {
			_, err = c.Read(make([]byte, 1))
			c.Close()
		}
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("no answer: %v", err)
		}
	}
}
