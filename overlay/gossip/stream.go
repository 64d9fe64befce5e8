package gossip

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
)

// An encrypted stream begins with its type and the length of the message that follows.
const streamHead = 5

var (
	errStreamSize = errors.New("more in one stream than it may hold")
	errStranger   = errors.New("it bears none of the cluster's keys")
	errUnreadable = errors.New("no message as members send it")
)

// stream is a conversation with another member, or with who says so. memberlist is given the other's message when it
// is there as a whole, within streamTimeout, and is one.
type stream struct {
	net.Conn
	keys    func() [][]byte
	toll    *toll // of who opened it; nil: this member
	message bytes.Buffer
	started bool
}

func (s *stream) Read(b []byte) (int, error) {
	if !s.started {
		s.started = true
		if err := s.start(); err != nil {
			return 0, err
		}
	}
	if s.message.Len() > 0 {
		return s.message.Read(b)
	}
	return charged{s}.Read(b)
}

func (s *stream) start() error {
	if _, err := io.CopyN(&s.message, charged{s}, streamHead); err != nil {
		return err
	}
	head := bytes.Clone(s.message.Bytes())
	length := binary.BigEndian.Uint32(head[1:])
	if head[0] != sealedStream || length > maxStream {
		return errStranger
	}
	if _, err := io.CopyN(&s.message, charged{s}, int64(length)); err != nil {
		return err
	}
	text, ok := open(s.keys(), s.message.Bytes()[streamHead:], head)
	if !ok {
		return errStranger
	}
	if !streamIsPlain(text) {
		return errUnreadable
	}
	return nil
}

func (s *stream) Close() error {
	if s.toll != nil {
		s.toll.leave()
	}
	return s.Conn.Close()
}

// charged reads what is on the wire, and has the sender's share charged with it.
type charged struct{ *stream }

func (c charged) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 && c.toll != nil && !c.toll.read(n) {
		return 0, errStreamSize
	}
	return n, err
}
