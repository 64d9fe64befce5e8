package userspace

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// controlDir is where WireGuard's tools look for control sockets.
const controlDir = "/var/run/wireguard"

// A control socket deleted by hand is missed within this time. A watch of the
// folder would need one of the few inotify instances that a user has.
const lookAfter = time.Second

func controlPath(name string) string { return filepath.Join(controlDir, name+".sock") }

// listen makes the control socket, in place of one that a dead process left.
func listen(path string) (*net.UnixListener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	addr := &net.UnixAddr{Name: path, Net: "unix"}
	l, err := net.ListenUnix("unix", addr)
	if errors.Is(err, unix.EADDRINUSE) {
		if err := removeStale(path); err != nil {
			return nil, err
		}
		l, err = net.ListenUnix("unix", addr)
	}
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

func removeStale(path string) error {
	c, err := net.Dial("unix", path)
	if err == nil {
		return errors.Join(fmt.Errorf("%s: another process answers on it", path), c.Close())
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// accept hands connections to handle until ctx ends, and makes the socket anew when
// its file is gone.
func accept(ctx context.Context, l *net.UnixListener, handle func(net.Conn)) error {
	path := l.Addr().String()
	for {
		watched, stop := context.WithCancel(ctx)
		go closeWhenGone(watched, l, path)
		err := acceptAll(l, handle)
		stop()
		if ctx.Err() != nil {
			return nil
		}
		if !errors.Is(err, net.ErrClosed) {
			return err
		}
		if l, err = listen(path); err != nil {
			return err
		}
	}
}

func acceptAll(l *net.UnixListener, handle func(net.Conn)) error {
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go handle(c)
	}
}

// closeWhenGone closes the listener at the end of ctx, or when nobody can find it.
func closeWhenGone(ctx context.Context, l *net.UnixListener, path string) {
	defer l.Close()
	tick := time.NewTicker(lookAfter)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
				return
			}
		}
	}
}
