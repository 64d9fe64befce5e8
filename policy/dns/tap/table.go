package tap

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

const (
	tableName = "kith_dns"
	held      = "held" // the mark of a copy whose packet waits for us
	// tableOwned has the kernel remove the table with the socket that made it (NFT_TABLE_F_OWNER).
	tableOwned = 2
	// hookPriority is behind address translation: answers are as the pod will see them.
	hookPriority = 200
	// longest is how long a packet may be that surely fits a pod's interface: IPv6 asks that of every link.
	longest = 1280
	dnsPort = 53
	ctReply = 1
)

// table is nftables' part: what it does is said in the package's comment.
type table struct {
	conn      *netlink.Conn
	nft       *nftables.Conn
	kernel    *nftables.Table
	sets      [2]*nftables.Set // IPv4, IPv6
	listening map[netip.Addr]struct{}
}

func newTable() (*table, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, err
	}
	t := &table{conn: conn, kernel: &nftables.Table{Name: tableName, Family: nftables.TableFamilyINet}, listening: map[netip.Addr]struct{}{}}
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
	hook, priority := nftables.ChainHookPostrouting, nftables.ChainPriority(hookPriority)
	chain := t.nft.AddChain(&nftables.Chain{Table: t.kernel, Name: "answers", Type: nftables.ChainTypeFilter, Hooknum: hook, Priority: &priority})
	for i, f := range []struct {
		family   byte
		key      nftables.SetDatatype
		at, size uint32
	}{{unix.NFPROTO_IPV4, nftables.TypeIPAddr, 16, 4}, {unix.NFPROTO_IPV6, nftables.TypeIP6Addr, 24, 16}} {
		t.sets[i] = &nftables.Set{Table: t.kernel, Name: fmt.Sprintf("pods%d", 4+2*i), KeyType: f.key}
		if err := t.nft.AddSet(t.sets[i], nil); err != nil {
			return err
		}
		toPod := []expr.Any{
			&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1}, equal(f.family),
			&expr.Payload{Base: expr.PayloadBaseNetworkHeader, Offset: f.at, Len: f.size, DestRegister: 1},
			&expr.Lookup{SourceRegister: 1, SetName: t.sets[i].Name},
		}
		short := append(answers(unix.IPPROTO_UDP),
			&expr.Meta{Key: expr.MetaKeyLEN, Register: 1},
			&expr.Byteorder{SourceRegister: 1, DestRegister: 1, Op: expr.ByteorderHton, Len: 4, Size: 4},
			&expr.Cmp{Op: expr.CmpOpLte, Register: 1, Data: binary.BigEndian.AppendUint32(nil, longest)},
			copied(held), &expr.Verdict{Kind: expr.VerdictDrop})
		for _, rest := range [][]expr.Any{short, append(answers(unix.IPPROTO_UDP), copied("")), append(answers(unix.IPPROTO_TCP), copied(""))} {
			t.nft.AddRule(&nftables.Rule{Table: t.kernel, Chain: chain, Exprs: append(append([]expr.Any{}, toPod...), rest...)})
		}
	}
	return t.nft.Flush()
}

// answers match what a name server replies in a connection that is known.
func answers(protocol byte) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, equal(protocol),
		&expr.Payload{Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 2, DestRegister: 1}, equal(dnsPort>>8, dnsPort&0xff),
		&expr.Ct{Key: expr.CtKeyDIRECTION, Register: 1}, equal(ctReply),
	}
}

func equal(b ...byte) expr.Any { return &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: b} }

func copied(prefix string) expr.Any {
	l := &expr.Log{Key: 1 << unix.NFTA_LOG_GROUP, Group: group}
	if prefix != "" {
		l.Key, l.Data = l.Key|1<<unix.NFTA_LOG_PREFIX, []byte(prefix)
	}
	return l
}

// listen makes the sets exactly these addresses.
func (t *table) listen(pods []netip.Addr) error {
	want := make(map[netip.Addr]struct{}, len(pods))
	for _, a := range pods {
		want[a] = struct{}{}
	}
	if err := errors.Join(t.change(want, t.listening, t.nft.SetAddElements), t.change(t.listening, want, t.nft.SetDeleteElements)); err != nil {
		return err
	}
	if err := t.nft.Flush(); err != nil {
		return err
	}
	t.listening = want
	return nil
}

// change does something with the addresses that are in one and not in the other.
func (t *table) change(in, notIn map[netip.Addr]struct{}, do func(*nftables.Set, []nftables.SetElement) error) error {
	var elements [2][]nftables.SetElement
	for a := range in {
		if _, both := notIn[a]; !both {
			family := 0
			if a.Is6() {
				family = 1
			}
			elements[family] = append(elements[family], nftables.SetElement{Key: a.AsSlice()})
		}
	}
	for i, es := range elements {
		if len(es) == 0 {
			continue
		}
		if err := do(t.sets[i], es); err != nil {
			return err
		}
	}
	return nil
}
