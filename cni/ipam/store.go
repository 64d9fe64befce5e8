// Package ipam models the addresses of one node: which of the node's pod CIDRs' addresses are in use,
// by which attachment, and in which order the free ones come next.
//
// Input is the CIDR list and the calls of package cni (Store satisfies its Addresses and Records);
// output is attachments with addresses, one of each family that the CIDRs have.
//
// Invariants:
//   - what a method changed is on disk when it returns; a change that was not acknowledged is either
//     wholly there or not at all after a crash;
//   - an address is in use by one attachment only, and never the first (network), the second (the
//     node's mesh address) or the last IPv4 (broadcast) of its CIDR;
//   - addresses never used come first, then the one freed longest ago: the address freed last is
//     reused last, over restarts too. To bound memory, no more than maxFreed addresses wait so;
//   - memory follows the addresses in use, not the size of the CIDRs;
//   - one process at a time has a store open.
//
// On disk a store is one file of checksummed lines, see journal.go. Out of scope: the kernel, and
// whether an attachment is still alive.
package ipam

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"github.com/kithnet/kith/cni"
)

// ErrExhausted is wrapped by Allocate and Available when a family has no free address, and ErrNoCIDRs
// when the node has no CIDR yet. Both pass with time.
var (
	ErrExhausted = fmt.Errorf("addresses exhausted: %w", cni.ErrUnavailable)
	ErrNoCIDRs   = fmt.Errorf("the node has no pod CIDR yet: %w", cni.ErrUnavailable)
)

// Store holds the attachments of a node and the addresses they use. It is safe for concurrent use.
type Store struct {
	mu    sync.Mutex
	disk  disk
	state *state
	v4    family
	v6    family
	// stale says that the file may not hold what state does, and must be written anew first.
	stale bool
	lines int
}

// disk is where a store's lines are; what it has accepted survives a crash.
type disk interface {
	append(line []byte) error
	rewrite(data []byte) error
	close() error
}

// Open opens the store in this folder and makes it if there is none. The store has no CIDRs until
// SetCIDRs. It fails, naming file and line, if anything but the end of the file is damaged.
func Open(dir string) (*Store, error) {
	f, data, err := openFile(dir)
	if err != nil {
		return nil, fmt.Errorf("open address store: %w", err)
	}
	st, err := parse(data)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open address store %s: %w", f.path, err), f.close())
	}
	s := newStore(f, st)
	// A torn last line must go before anything is appended to it. A full disk must not keep the agent from starting: what
	// is there is known, and the next change writes it anew or fails.
	if err := s.rewrite(); err != nil && data == nil {
		return nil, errors.Join(fmt.Errorf("open address store: %w", err), f.close())
	}
	return s, nil
}

func newStore(d disk, st *state) *Store {
	return &Store{disk: d, state: st, v4: family{name: "IPv4"}, v6: family{name: "IPv6"}}
}

// Close gives the store up to other processes.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.disk.close()
}

// SetCIDRs says which CIDRs addresses come from, each family in this order. Attachments keep the
// addresses they have, whatever the CIDRs.
func (s *Store) SetCIDRs(cidrs []netip.Prefix) error {
	v4, v6, err := newFamilies(cidrs)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.v4, s.v6 = v4, v6
	return nil
}

// Allocate gives the attachment an address of each family and records it.
func (s *Store) Allocate(a cni.Attachment) (cni.Attachment, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	addrs, err := s.choose()
	if err != nil {
		return cni.Attachment{}, err
	}
	a.Addresses = addrs
	if err := s.change(entry{Op: opPut, Attachment: &a}); err != nil {
		return cni.Attachment{}, err
	}
	a.Addresses = slices.Clone(addrs)
	return a, nil
}

func (s *Store) choose() ([]netip.Addr, error) {
	var addrs []netip.Addr
	for _, f := range []*family{&s.v4, &s.v6} {
		if len(f.ranges) == 0 {
			continue
		}
		addr, ok := f.next(s.state)
		if !ok {
			return nil, fmt.Errorf("%s: %w", f.usage(s.state), ErrExhausted)
		}
		addrs = append(addrs, addr)
	}
	if len(addrs) == 0 {
		return nil, ErrNoCIDRs
	}
	return addrs, nil
}

// Available returns why Allocate would fail now, or nil.
func (s *Store) Available() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, err := s.choose()
	return err
}

// Commit marks an attachment complete.
func (s *Store) Commit(k cni.Key) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.change(entry{Op: opCommit, Key: &k})
}

// Release forgets an attachment and frees its addresses.
func (s *Store) Release(k cni.Key) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.state.records[k]; !ok {
		return nil
	}
	return s.change(entry{Op: opFree, Key: &k})
}

// Get returns an attachment.
func (s *Store) Get(k cni.Key) (cni.Attachment, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a, ok := s.state.records[k]
	a.Addresses = slices.Clone(a.Addresses)
	return a, ok
}

// List returns all attachments, ordered by key.
func (s *Store) List() []cni.Attachment {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state.list()
}

// Usage returns one line per family: its CIDRs, and how many of their addresses are in use.
func (s *Store) Usage() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var lines []string
	for _, f := range []*family{&s.v4, &s.v6} {
		if len(f.ranges) > 0 {
			lines = append(lines, f.usage(s.state))
		}
	}
	return lines
}

// change makes one change: checked, then on disk, then in memory.
func (s *Store) change(e entry) error {
	if err := s.state.check(e); err != nil {
		return err
	}
	if s.stale {
		if err := s.rewrite(); err != nil {
			return err
		}
	}
	line, err := encode(e)
	if err != nil {
		return err
	}
	if err := s.disk.append(line); err != nil {
		s.stale = true
		return fmt.Errorf("write address store: %w", err)
	}
	s.state.apply(e)
	s.lines++
	if s.lines > 1024+2*len(s.state.records) {
		// The change is safe already: a failure here must not fail it, the next change tries again.
		s.stale = true
		_ = s.rewrite()
	}
	return nil
}

func (s *Store) rewrite() error {
	data, err := s.state.encode()
	if err != nil {
		return err
	}
	if err := s.disk.rewrite(data); err != nil {
		s.stale = true
		return fmt.Errorf("rewrite address store: %w", err)
	}
	s.stale, s.lines = false, 0
	return nil
}

func compareKeys(a, b cni.Key) int {
	return cmp.Or(cmp.Compare(a.ContainerID, b.ContainerID), cmp.Compare(a.IfName, b.IfName))
}
