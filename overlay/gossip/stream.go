package gossip

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
)

// What an encrypted packet begins with, and how long an encrypted message is beyond its text: version, nonce, tag.
const (
	sealed       = 1
	sealOverhead = 1 + 12 + 16
)

// An encrypted stream begins with its type, the message's length, and then the message.
const (
	sealedStream = 10
	streamHead   = 6
)

var (
	errStreamSize = errors.New("more in one stream than it may hold")
	errNotSealed  = errors.New("not an encrypted message")
)

// stream is a conversation with another member, or with who says so. memberlist reads a message whole before it
// decrypts it, within streamTimeout. It is given only what begins as members' messages do: some that it takes besides,
// an empty one among them, end the process.
type stream struct {
	net.Conn
	toll    *toll // of who opened it; nil: this member
	head    []byte
	started bool
}

func (s *stream) Read(b []byte) (int, error) {
	if !s.started {
		s.started = true
		if err := s.start(); err != nil {
			return 0, err
		}
	}
	if len(s.head) > 0 {
		n := copy(b, s.head)
		s.head = s.head[n:]
		return n, nil
	}
	n, err := s.Conn.Read(b)
	if n > 0 && s.toll != nil && !s.toll.read(n) {
		return 0, errStreamSize
	}
	return n, err
}

func (s *stream) start() error {
	head := make([]byte, streamHead)
	if _, err := io.ReadFull(s.Conn, head); err != nil {
		return err
	}
	length := binary.BigEndian.Uint32(head[1:5])
	if head[0] != sealedStream || head[5] != sealed || length <= sealOverhead || length > maxStream {
		return errNotSealed
	}
	s.head = head
	return nil
}

func (s *stream) Close() error {
	if s.toll != nil {
		s.toll.leave()
	}
	return s.Conn.Close()
}
