package nft

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/google/nftables"
	"github.com/kithnet/kith/policy/ruleset"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// What x/sys does not have of the kernel's header.
const (
	errorMessage = 1 // NLMSGERR_ATTR_MSG
	errorOffset  = 2 // NLMSGERR_ATTR_OFFS
)

// encode begins to write anew: what the library has kept of a transaction that failed is forgotten. The library makes
// the messages and our socket takes them to the kernel. WithTestDial is the only way that v0.3.0 has for that; doc.go
// says what for.
func (t *Table) encode() (err error) {
	t.conn, err = encoder(t.socket)
	return err
}

func encoder(s *socket) (*nftables.Conn, error) {
	return nftables.New(nftables.AsLasting(), nftables.WithTestDial(s.deliver))
}

// refusal is why the kernel did not take a message.
type refusal struct {
	index  int // of the message in its batch; 0: the batch as a whole
	errno  unix.Errno
	detail string
	offset int // of the attribute at fault in the message; 0: none
}

// failure is why a batch is not in the kernel: what the kernel refused, or what kept the batch from it.
type failure struct {
	batch   []netlink.Message
	refused []refusal
	cause   error
}

func (f *failure) Error() string { return fmt.Sprintf("refused: %v; not sent: %v", f.refused, f.cause) }

// deliver takes a batch of the library to the kernel. The library then waits for an answer to each message, with
// nothing to send: it gets none, since silence is success.
func (s *socket) deliver(batch []netlink.Message) ([]netlink.Message, error) {
	if len(batch) == 0 {
		return nil, nil
	}
	refused, err := s.transact(batch)
	if err == nil && len(refused) == 0 {
		return nil, nil
	}
	return batch[:1], &failure{batch, refused, err} // with a message, so that the library sees the error only once
}

// transact sends a batch, which has a beginning and an end, and gives what the kernel refused of it.
func (s *socket) transact(batch []netlink.Message) ([]refusal, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.drain(); err != nil {
		return nil, err
	}
	s.own.flags(batch)
	for i := range batch {
		putRight(batch[i])
		batch[i].Header.Flags &^= netlink.Echo | netlink.Acknowledge
	}
	batch[len(batch)-2].Header.Flags |= netlink.Acknowledge // one is enough: the kernel reports errors unasked
	if err := s.send(batch); err != nil {
		return nil, fmt.Errorf("send %d messages to the kernel: %w", len(batch), err)
	}
	refused, err := s.refusals(batch[0].Header.Sequence, len(batch)-2)
	if err == nil && len(refused) == 0 {
		s.own.written(batch)
	}
	return refused, err
}

// refusals reads the answers to a batch whose messages are numbered from first on, until that to the last, if there
// is one.
func (s *socket) refusals(first uint32, last int) ([]refusal, error) {
	var refused []refusal
	for answered := false; ; {
		b, err := s.receive()
		if err != nil {
			return nil, fmt.Errorf("read the kernel's answer: %w", err)
		}
		if b == nil && !answered {
			return nil, errors.New("the kernel gave no answer")
		}
		if b == nil {
			return refused, nil
		}
		for _, r := range replies(b) {
			f, ok := parseRefusal(r, first)
			answered = answered || ok
			if ok && f.errno != 0 {
				refused = append(refused, f)
			}
			if ok && f.index == last {
				return refused, nil
			}
		}
	}
}

func parseRefusal(r reply, first uint32) (refusal, bool) {
	const fixed = 4 + unix.SizeofNlMsghdr
	if r.typ != unix.NLMSG_ERROR || len(r.data) < fixed || r.seq < first {
		return refusal{}, false
	}
	f := refusal{index: int(r.seq - first), errno: unix.Errno(-int32(binary.NativeEndian.Uint32(r.data)))}
	if r.flags&netlink.AcknowledgeTLVs == 0 {
		return f, true
	}
	for _, a := range attributes(r.data[fixed:]) {
		switch {
		case a.typ == errorMessage:
			f.detail = text(a.data)
		case a.typ == errorOffset && len(a.data) == 4:
			f.offset = int(binary.NativeEndian.Uint32(a.data))
		}
	}
	return f, true
}

// verbs say what a message does, by its type.
var verbs = [...]string{
	unix.NFT_MSG_NEWTABLE: "create table", unix.NFT_MSG_DELTABLE: "delete table",
	unix.NFT_MSG_NEWCHAIN: "create chain", unix.NFT_MSG_DELCHAIN: "delete chain",
	unix.NFT_MSG_NEWSET: "create set", unix.NFT_MSG_DELSET: "delete set", unix.NFT_MSG_DELRULE: "empty chain",
	unix.NFT_MSG_NEWSETELEM: "add to set", unix.NFT_MSG_DELSETELEM: "delete from set",
}

// explain makes an error of what the library's Flush gave. The first refusal tells why; those behind it often follow.
func (t *Table) explain(err error) error {
	var f *failure
	if !errors.As(err, &f) {
		return err
	}
	if f.cause != nil {
		return t.oversize(f)
	}
	first, more := f.refused[0], ""
	if n := len(f.refused); n > 1 {
		more = fmt.Sprintf(", and %d more", n-1)
	}
	if first.detail != "" {
		more = ": " + first.detail + more
	}
	if first.index <= 0 || first.index >= len(f.batch)-1 {
		return fmt.Errorf("commit %d messages: %w%s", len(f.batch)-2, first.errno, more)
	}
	m := f.batch[first.index]
	return fmt.Errorf("%s: %w%s", t.subject(m, first.offset), first.errno, more)
}

// oversize is the cause of a failure, and what to do if the batch was too large: that is one chain with very many rules,
// since all else is cut, and what makes so many is names.
func (t *Table) oversize(f *failure) error {
	if !errors.Is(f.cause, unix.EMSGSIZE) {
		return f.cause
	}
	rules, most, by := map[string]int{}, "", ""
	for _, m := range f.batch {
		if m.Header.Type != unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWRULE {
			continue
		}
		chain, rule := parseRule(m.Data[sizeofNfgenmsg:], t.sets)
		if rules[chain]++; rules[chain] > rules[most] {
			most, by = chain, ""
		}
		if chain == most && rule.Comment != "" {
			by = " (" + rule.Comment + ")"
		}
	}
	return fmt.Errorf("chain %s%s has %d rules, more than the kernel takes at once: let its policies name fewer domains: %w", most, by, rules[most], f.cause)
}

// subject says what a message does, and to what: a rule is told whole, an element if it is the one at an offset.
func (t *Table) subject(m netlink.Message, offset int) string {
	if m.Header.Type == unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWRULE {
		chain, rule := parseRule(m.Data[sizeofNfgenmsg:], t.sets)
		return fmt.Sprintf("add rule to chain %s: %s", chain, rule)
	}
	name := ruleset.Table
	for _, a := range attributes(m.Data[sizeofNfgenmsg:]) {
		if a.typ == 2 && text(a.data) != "" { // what it is about comes second everywhere, after the table
			name = text(a.data)
		}
	}
	return verbs[m.Header.Type&0xff] + " " + name + t.elementAt(m, name, offset)
}

// elementAt names the element of a set that lies at an offset of a message.
func (t *Table) elementAt(m netlink.Message, set string, offset int) string {
	at := offset - unix.SizeofNlMsghdr
	kind := m.Header.Type & 0xff
	spec, ok := t.sets[set]
	if !ok || kind != unix.NFT_MSG_NEWSETELEM && kind != unix.NFT_MSG_DELSETELEM || at < sizeofNfgenmsg || at >= len(m.Data) {
		return ""
	}
	elem := attributes(m.Data[at:])
	if len(elem) == 0 || len(operandsOf(elem[0].data)[unix.NFTA_SET_ELEM_KEY]) == 0 {
		return ""
	}
	return " element " + keyText(spec, parseElement(spec, elem[0].data).key)
}
