package window

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Site is where pods are looked for: a node, its root folder as this process sees it, and the family of addresses that
// their flows use (unix.AF_INET or unix.AF_INET6).
type Site struct {
	Node, Root string
	Family     int
}

// Spy tells of every pod that starts on a node, when it has its address, which is before its interface opens.
func Spy(ctx context.Context, s Site, found func(*End)) error {
	dir := filepath.Join(s.Root, "run", "netns")
	// On a node that has just started it is the first pod that makes it.
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("watch for pods: %w", err)
	}
	watch, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK) // so that Close ends a Read
	if err != nil {
		return fmt.Errorf("watch %s: %w", dir, err)
	}
	if _, err := unix.InotifyAddWatch(watch, dir, unix.IN_CREATE); err != nil {
		unix.Close(watch)
		return fmt.Errorf("watch %s: %w", dir, err)
	}
	file := os.NewFile(uintptr(watch), "inotify")
	context.AfterFunc(ctx, func() { file.Close() })
	known := map[string]bool{}
	look := func() {
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			if known[e.Name()] {
				continue
			}
			known[e.Name()] = true
			go func() {
				if e := meet(ctx, s, filepath.Join(dir, e.Name())); e != nil {
					found(e)
				}
			}()
		}
	}
	look()
	go func() {
		buf := make([]byte, 4096)
		for {
			if _, err := file.Read(buf); err != nil {
				return
			}
			look()
		}
	}()
	return nil
}

// meet listens in a namespace and returns when it has an address; nil when it goes before.
func meet(ctx context.Context, s Site, path string) *End {
	e := &End{Node: s.Node, root: s.Root, path: path, Found: time.Now(), done: make(chan struct{})}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	if !until(ctx, func() bool { return e.open() }) {
		return nil
	}
	if !e.arrives(ctx, s.Family) {
		// It must not keep the port from whoever looks next.
		_ = e.Close()
		return nil
	}
	e.Born = time.Now()
	return e
}

func (e *End) arrives(ctx context.Context, family int) bool {
	handle, err := netlink.NewHandleAt(e.ns)
	if err != nil {
		return false
	}
	defer handle.Close()
	addressed := func() bool { e.Address = address(handle, family); return e.Address.IsValid() || e.gone() }
	return e.listen() == nil && until(ctx, addressed) && !e.gone()
}

// open takes the namespace once it is mounted over the file that bears its name.
func (e *End) open() bool {
	var fs unix.Statfs_t
	if unix.Statfs(e.path, &fs) != nil || fs.Type != unix.NSFS_MAGIC {
		return false
	}
	ns, err := netns.GetFromPath(e.path)
	e.ns = ns
	return err == nil
}

func (e *End) gone() bool {
	_, err := os.Stat(e.path)
	return err != nil
}

func address(h *netlink.Handle, family int) netip.Addr {
	links, err := h.LinkList()
	if err != nil {
		return netip.Addr{}
	}
	for _, l := range links {
		if l.Attrs().Name != "eth0" {
			continue
		}
		all, _ := h.AddrList(l, family)
		for _, a := range all {
			if addr, ok := netip.AddrFromSlice(a.IP); ok && addr.Unmap().IsGlobalUnicast() {
				return addr.Unmap()
			}
		}
	}
	return netip.Addr{}
}

func until(ctx context.Context, ok func() bool) bool {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil {
		if ok() {
			return true
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
	return false
}

// returns bounds how long the plugins after Kith may take on a machine that is busy.
const returns = time.Minute

// Returned waits until ADD has returned to the End's container runtime, and says when it did: libcni then writes down the
// result, after the last plugin of the chain has ended, and keeps it as long as the pod. The file's time may be a tick of
// the kernel's clock early, never late.
func (e *End) Returned(ctx context.Context) (at time.Time, err error) {
	ctx, cancel := context.WithTimeout(ctx, returns)
	defer cancel()
	if !until(ctx, func() bool { at, err = e.returned(); return err != nil || !at.IsZero() }) {
		return time.Time{}, fmt.Errorf("ADD for %s has not returned after %s", e.path, returns)
	}
	return at, err
}

// returned is zero as long as there is no result.
func (e *End) returned() (time.Time, error) {
	files, err := filepath.Glob(filepath.Join(e.root, "var/lib/cni/results/*-eth0"))
	if err != nil {
		return time.Time{}, err
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			continue // of another pod, which is gone
		}
		var result struct{ NetNS string }
		if json.Unmarshal(text, &result) != nil || filepath.Base(result.NetNS) != filepath.Base(e.path) {
			continue // half written, or of another pod
		}
		info, err := os.Stat(name)
		if err != nil {
			return time.Time{}, fmt.Errorf("read when ADD returned: %w", err)
		}
		return info.ModTime(), nil
	}
	return time.Time{}, nil
}

// Answered is when the agent had done its part of ADD, the first time, for each pod of a namespace, as the agents' logs
// say: the last thing an agent does before it answers its plugin is to write that line.
func Answered(root, namespace string) (map[string]time.Time, error) {
	files, err := filepath.Glob(filepath.Join(root, "var/log/pods/kith-system_kith-*/agent/*.log"))
	if err != nil {
		return nil, err
	}
	at := map[string]time.Time{}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if errors.Is(err, os.ErrNotExist) {
			continue // the kubelet has just tidied up after an agent that ended long ago
		}
		if err != nil {
			return nil, fmt.Errorf("read agent's log: %w", err)
		}
		for line := range strings.Lines(string(text)) {
			_, pod, ok := strings.Cut(line, " pod="+namespace+"/")
			if !ok || !strings.Contains(line, `msg="pod attached"`) {
				continue
			}
			pod, _, _ = strings.Cut(pod, " ")
			_, written, _ := strings.Cut(line, " time=")
			written, _, _ = strings.Cut(written, " ")
			when, err := time.Parse(time.RFC3339Nano, written)
			if err != nil {
				return nil, fmt.Errorf("read agent's log: %w", err)
			}
			if _, again := at[pod]; !again {
				at[pod] = when
			}
		}
	}
	return at, nil
}
