package gossip

import (
	"fmt"
	"sync"

	"github.com/hashicorp/memberlist"
)

// announcement holds this node's encoded record for memberlist to carry. The
// other duties of a memberlist delegate are empty: user messages starve in large
// clusters, so everything a member says is in its record.
type announcement struct {
	mu   sync.Mutex
	meta []byte
}

func newAnnouncement(r Record) (*announcement, error) {
	a := &announcement{}
	return a, a.set(r)
}

func (a *announcement) set(r Record) error {
	meta, err := r.MarshalBinary()
	if err != nil {
		return err
	}
	if _, err := ParseRecord(meta); err != nil {
		return err
	}
	if len(meta) > memberlist.MetaMaxSize {
		return fmt.Errorf("record of %d bytes, at most %d", len(meta), memberlist.MetaMaxSize)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.meta = meta
	return nil
}

// NodeMeta implements memberlist.Delegate.
func (a *announcement) NodeMeta(int) []byte {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.meta
}

func (*announcement) NotifyMsg([]byte)                {}
func (*announcement) GetBroadcasts(int, int) [][]byte { return nil }
func (*announcement) LocalState(bool) []byte          { return nil }
func (*announcement) MergeRemoteState([]byte, bool)   {}
