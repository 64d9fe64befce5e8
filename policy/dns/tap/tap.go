// Package tap hears what name servers answer to pods, before the pods do.
//
// Input: the addresses of the pods that matter. Output: a call for each answer to one of them, with what it tells; the
// answer goes on to the pod when the call returns. What is learned by it is therefore in the kernel before the pod's first
// packet to what it was told.
//
// A table of its own, inet kith_dns, takes the answers out of the way to the pods and gives a copy to a socket (nflog); a
// packet socket gives them back to the pod's veth. The table belongs to the process: when that dies the kernel removes it,
// and answers go their way unheard, as they do on a node without such pods. Answers over TCP and those that are longer
// than any path carries in one piece are not held back: there the call races with the pod, which tries again.
//
// Out of scope: what a telling is good for, and whose addresses the pods' are.
package tap

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/kithnet/kith/policy/dns"
)

// group is the number under which answers are copied to us.
const group = 7953

// What x/sys does not have of the kernel's header (linux/netfilter/nfnetlink_log.h).
const (
	logPacket, logConfig                       = 0, 1
	configCommand, configMode, configThreshold = 1, 2, 5
	commandBind, copyPacket                    = 1, 2
	attrOutInterface, attrPayload, attrPrefix  = 5, 9, 10
	socketBuffer                               = 4 << 20
	subsystem                                  = netlink.HeaderType(unix.NFNL_SUBSYS_ULOG << 8)
	sizeofNfgenmsg                             = 4
)

// Hear is called with what an answer tells a pod.
type Hear func(ctx context.Context, pod netip.Addr, told []dns.Telling)

// Tap is open until Close.
type Tap struct {
	log    *slog.Logger
	hear   Hear
	copies *netlink.Conn
	table  *table
	back   *sender
}

// Open begins to hear nobody yet.
func Open(log *slog.Logger, hear Hear) (*Tap, error) {
	t := &Tap{log: log, hear: hear}
	if err := t.open(); err != nil {
		return nil, fmt.Errorf("hear name servers: %w", errors.Join(err, t.Close()))
	}
	return t, nil
}

// open asks for copies before there are any: what is taken out of the way with nobody there is lost.
func (t *Tap) open() (err error) {
	if t.back, err = newSender(); err != nil {
		return err
	}
	if t.copies, err = netlink.Dial(unix.NETLINK_NETFILTER, nil); err != nil {
		return err
	}
	if err := t.copies.SetReadBuffer(socketBuffer); err != nil {
		return err
	}
	if err := bind(t.copies); err != nil {
		return fmt.Errorf("take copies of group %d: %w", group, err)
	}
	t.table, err = newTable()
	return err
}

// bind asks for whole packets, each at once.
func bind(c *netlink.Conn) error {
	for _, a := range []netlink.Attribute{
		{Type: configCommand, Data: []byte{commandBind}},
		{Type: configMode, Data: []byte{0, 0, 0xff, 0xff, copyPacket, 0}},
		{Type: configThreshold, Data: []byte{0, 0, 0, 1}},
	} {
		data, err := netlink.MarshalAttributes([]netlink.Attribute{a})
		if err != nil {
			return err
		}
		header := netlink.Header{Type: subsystem | logConfig, Flags: netlink.Request | netlink.Acknowledge}
		if _, err := c.Execute(netlink.Message{Header: header, Data: append([]byte{unix.AF_UNSPEC, 0, group >> 8, group & 0xff}, data...)}); err != nil {
			return err
		}
	}
	return nil
}

// Close gives the answers their way back.
func (t *Tap) Close() error {
	var err error
	if t.table != nil {
		err = t.table.close()
	}
	if t.copies != nil {
		err = errors.Join(err, t.copies.Close())
	}
	if t.back != nil {
		err = errors.Join(err, t.back.close())
	}
	return err
}

// Listen hears exactly these pods from now on.
func (t *Tap) Listen(pods []netip.Addr) error {
	if err := t.table.listen(pods); err != nil {
		return fmt.Errorf("hear name servers for %d addresses: %w", len(pods), err)
	}
	return nil
}

// Run hears until ctx ends.
func (t *Tap) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = t.copies.SetReadDeadline(time.Unix(0, 1)) })
	defer stop()
	for {
		messages, err := t.copies.Receive()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.ENOBUFS):
			t.log.Warn("more answers of name servers than can be heard: pods must ask again")
			continue
		case err != nil:
			return fmt.Errorf("hear name servers: %w", err)
		}
		for _, m := range messages {
			t.take(ctx, m)
		}
	}
}

// answer is a copy of one. Link is where it was going, if it was taken out of the way.
type answer struct {
	packet []byte
	link   int
	held   bool
}

func (t *Tap) take(ctx context.Context, m netlink.Message) {
	a, ok := parse(m)
	if !ok {
		return
	}
	pod, messages, err := dns.Unwrap(a.packet)
	for _, message := range messages {
		told, bad := dns.Read(message)
		err = errors.Join(err, bad)
		if len(told) > 0 {
			t.hear(ctx, pod, told)
		}
	}
	if err != nil {
		t.log.Debug("answer of a name server not understood", "pod", pod, "error", err)
	}
	if !a.held {
		return
	}
	if err := t.back.send(a); err != nil {
		t.log.Warn("answer of a name server lost", "pod", pod, "error", err)
	}
}

func parse(m netlink.Message) (answer, bool) {
	if m.Header.Type != subsystem|logPacket || len(m.Data) < sizeofNfgenmsg {
		return answer{}, false
	}
	d, err := netlink.NewAttributeDecoder(m.Data[sizeofNfgenmsg:])
	if err != nil {
		return answer{}, false
	}
	var a answer
	for d.Next() {
		switch b := d.Bytes(); {
		case d.Type() == attrPayload:
			a.packet = b
		case d.Type() == attrPrefix:
			a.held = string(b) == held+"\x00"
		case d.Type() == attrOutInterface && len(b) == 4:
			a.link = int(b[0])<<24 | int(b[1])<<16 | int(b[2])<<8 | int(b[3])
		}
	}
	return a, d.Err() == nil && len(a.packet) > 0
}
