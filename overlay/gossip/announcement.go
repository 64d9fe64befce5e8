package gossip

import (
	"fmt"
	"sync"

	"github.com/hashicorp/memberlist"
)

// announcement holds this node's record for memberlist to carry, and takes what is
// sent to this member alone. The other duties of a memberlist delegate are empty:
// broadcasts starve in large clusters, so all that a member says to everybody is in
// its record.
type announcement struct {
	post *post

	mu   sync.Mutex
	meta []byte
}

func newAnnouncement(record []byte, lost func(Cause)) (*announcement, error) {
	a := &announcement{post: newPost(lost)}
	return a, a.set(record)
}

func (a *announcement) set(record []byte) error {
	if len(record) == 0 || len(record) > memberlist.MetaMaxSize {
		return fmt.Errorf("record of %d bytes, at most %d", len(record), memberlist.MetaMaxSize)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.meta = record
	return nil
}

// NodeMeta implements memberlist.Delegate.
func (a *announcement) NodeMeta(int) []byte {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.meta
}

// NotifyMsg implements memberlist.Delegate.
func (a *announcement) NotifyMsg(message []byte) { a.post.receive(message) }

func (*announcement) GetBroadcasts(int, int) [][]byte { return nil }
func (*announcement) LocalState(bool) []byte          { return nil }
func (*announcement) MergeRemoteState([]byte, bool)   {}
