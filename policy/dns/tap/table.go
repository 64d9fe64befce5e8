package tap

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"sync"
	"time"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

const (
	tableName = "kith_dns"
	// tableOwned has the kernel remove the table with the socket that made it (NFT_TABLE_F_OWNER).
	tableOwned = 2
	// listensFor is how long answers are taken out of the way after the last proof that somebody reads them.
	listensFor = 3 * time.Second
	// proveEvery is how often that is proved.
	proveEvery = time.Second
)

// The sets of the table: those of two families have 4 or 6 behind their name.
const (
	setPods    = "pods"      // who is heard
	setServers = "servers"   // whose answers are heard
	setAny     = "any"       // protocols in which every server's answers are heard
	setHearing = "hearing"   // protocols in which anybody is heard, as long as we prove that we are there
	setPaced   = "paced"     // how many answers went to each pod's interface
	pacedFor   = time.Minute // longer than any pace needs to be as at its beginning
)

// Audience is who is heard.
type Audience struct {
	// Pods are the addresses of those who ask.
	Pods []netip.Addr
	// Servers are those who answer, besides all of 169.254.0.0/16, where node-local caches are.
	Servers []netip.Addr
	// AnyServer hears all others, too.
	AnyServer bool
}

// table is nftables' part: what it does is said in the package's comment.
type table struct {
	mu     sync.Mutex
	conn   *netlink.Conn
	nft    *nftables.Conn
	kernel *nftables.Table
	lasts  time.Duration // listensFor, but in tests
	sets   map[string]*nftables.Set
	have   contents
}

// contents are the keys of each set that Listen fills, as the kernel has them.
type contents map[string]map[string]struct{}

func newTable() (*table, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, err
	}
	t := &table{conn: conn, lasts: listensFor, kernel: &nftables.Table{Name: tableName, Family: nftables.TableFamilyINet}, sets: map[string]*nftables.Set{}}
	if t.nft, err = nftables.New(nftables.AsLasting(), nftables.WithTestDial(t.deliver)); err == nil {
		err = t.create()
	}
	if err != nil {
		return nil, fmt.Errorf("make table %s: %w", tableName, errors.Join(err, conn.Close()))
	}
	return t, nil
}

func (t *table) close() error { return t.conn.Close() }

// deliver takes a batch of the library to the kernel: it makes no tables that have an owner, and asks for more answers
// than are needed.
func (t *table) deliver(batch []netlink.Message) ([]netlink.Message, error) {
	if len(batch) == 0 {
		return nil, nil
	}
	for i := range batch {
		batch[i].Header.Flags &^= netlink.Echo | netlink.Acknowledge
		if batch[i].Header.Type == unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWTABLE {
			binary.BigEndian.PutUint32(batch[i].Data[len(batch[i].Data)-4:], tableOwned) // the flags come last
		}
	}
	batch[len(batch)-2].Header.Flags |= netlink.Acknowledge
	if _, err := t.conn.SendMessages(batch); err != nil {
		return batch[:1], err
	}
	if _, err := t.conn.Receive(); err != nil {
		return batch[:1], err
	}
	return nil, nil
}

func (t *table) create() error {
	t.nft.AddTable(t.kernel)
	for _, s := range []*nftables.Set{
		{Name: setPods + "4", KeyType: nftables.TypeIPAddr},
		{Name: setPods + "6", KeyType: nftables.TypeIP6Addr},
		{Name: setServers + "4", KeyType: nftables.TypeIPAddr},
		{Name: setServers + "6", KeyType: nftables.TypeIP6Addr},
		{Name: setAny, KeyType: nftables.TypeInetProto},
		{Name: setHearing, KeyType: nftables.TypeInetProto, HasTimeout: true},
		{Name: setPaced, KeyType: nftables.TypeIFIndex, Dynamic: true, HasTimeout: true, Timeout: pacedFor, Size: 1 << 12},
	} {
		s.Table = t.kernel
		t.sets[s.Name] = s
		if err := t.nft.AddSet(s, nil); err != nil {
			return err
		}
	}
	t.addRules()
	return t.nft.Flush()
}

// listen makes the sets exactly these.
func (t *table) listen(a Audience) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	want := a.contents()
	for name, keys := range want {
		if err := errors.Join(t.change(name, keys, t.have[name], t.nft.SetAddElements),
			t.change(name, t.have[name], keys, t.nft.SetDeleteElements)); err != nil {
			return err
		}
	}
	if err := t.nft.Flush(); err != nil {
		return err
	}
	t.have = want
	return nil
}

func (a Audience) contents() contents {
	out := contents{setAny: {}}
	for kind, all := range map[string][]netip.Addr{setPods: a.Pods, setServers: a.Servers} {
		for _, family := range []string{"4", "6"} {
			out[kind+family] = map[string]struct{}{}
		}
		for _, address := range all {
			name := kind + "4"
			if address.Is6() {
				name = kind + "6"
			}
			out[name][string(address.AsSlice())] = struct{}{}
		}
	}
	if a.AnyServer {
		maps.Copy(out[setAny], map[string]struct{}{string(rune(unix.IPPROTO_TCP)): {}, string(rune(unix.IPPROTO_UDP)): {}})
	}
	return out
}

// change does something with the keys that are in one and not in the other.
func (t *table) change(name string, in, notIn map[string]struct{}, do func(*nftables.Set, []nftables.SetElement) error) error {
	var elements []nftables.SetElement
	for key := range in {
		if _, both := notIn[key]; !both {
			elements = append(elements, nftables.SetElement{Key: []byte(key)})
		}
	}
	if len(elements) == 0 {
		return nil
	}
	return do(t.sets[name], elements)
}

// prove has answers taken out of the way for another while. To add what is there does not, in all kernels, begin its time
// again.
func (t *table) prove() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	set, elements := t.sets[setHearing], []nftables.SetElement{
		{Key: []byte{unix.IPPROTO_TCP}, Timeout: t.lasts}, {Key: []byte{unix.IPPROTO_UDP}, Timeout: t.lasts},
	}
	for _, do := range []func(*nftables.Set, []nftables.SetElement) error{t.nft.SetAddElements, t.nft.SetDeleteElements, t.nft.SetAddElements} {
		if err := do(set, elements); err != nil {
			return err
		}
	}
	return t.nft.Flush()
}
