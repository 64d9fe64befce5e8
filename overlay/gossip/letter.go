package gossip

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"slices"
)

// memberlist's types of messages.
const (
	pingLetter byte = iota
	indirectPingLetter
	ackLetter
	suspectLetter
	aliveLetter
	deadLetter
	stateLetter
	compoundLetter
	userLetter
	_ // compressed: members do not, and a small one can be very large
	sealedStream
	nackLetter
	checkedLetter
	errorLetter
)

// What an encrypted message begins with, and its parts besides the text.
const (
	sealed       = 1
	nonceLength  = 12
	tagLength    = 16
	sealOverhead = 1 + nonceLength + tagLength
)

const (
	checksumLength = 4
	leastState     = 20 // bytes of one member's state in an exchange
)

// open decrypts a message with any of the keys.
func open(keys [][]byte, message, header []byte) ([]byte, bool) {
	if len(message) <= sealOverhead || message[0] != sealed {
		return nil, false
	}
	nonce, text := message[1:1+nonceLength], message[1+nonceLength:]
	for _, key := range keys {
		block, err := aes.NewCipher(key)
		if err != nil {
			continue
		}
		aead, err := cipher.NewGCM(block)
		if err != nil {
			continue
		}
		if plain, err := aead.Open(nil, nonce, text, header); err == nil {
			return plain, true
		}
	}
	return nil, false
}

// packetIsPlain tells whether a packet's text is a message as members send them, or a flat heap of such. memberlist
// would unpack messages within messages without end.
func packetIsPlain(text []byte) bool {
	if text[0] == checkedLetter && len(text) > 1+checksumLength {
		text = text[1+checksumLength:]
	}
	if text[0] != compoundLetter {
		return single(text)
	}
	if len(text) < 2 || len(text) < 2+2*int(text[1]) {
		return false
	}
	count := int(text[1])
	lengths, parts := text[2:2+2*count], text[2+2*count:]
	for i := range count {
		length := int(binary.BigEndian.Uint16(lengths[2*i:]))
		if length > len(parts) || length == 0 || !single(parts[:length]) {
			return false
		}
		parts = parts[length:]
	}
	return true
}

func single(text []byte) bool {
	return slices.Contains([]byte{
		pingLetter, indirectPingLetter, ackLetter, suspectLetter, aliveLetter, deadLetter, userLetter, nackLetter,
	}, text[0])
}

// streamIsPlain tells the same of a stream's text. memberlist makes room for as much as the head of an exchange or of a
// letter announces; with an exchange, members send nothing besides themselves.
func streamIsPlain(text []byte) bool {
	switch text[0] {
	case stateLetter:
		head, ok := announced(text[1:], "Nodes", "UserStateLen", "Join")
		return ok && head["Nodes"] <= len(text)/leastState && head["UserStateLen"] == 0
	case userLetter:
		head, ok := announced(text[1:], "UserMsgLen")
		return ok && head["UserMsgLen"] <= len(text)
	}
	return slices.Contains([]byte{pingLetter, ackLetter, errorLetter}, text[0])
}

// announced reads the head of an exchange or a letter: a MessagePack map of a few small fields, each once.
func announced(b []byte, names ...string) (head map[string]int, ok bool) {
	const mapOfNone, text, textMask = 0x80, 0xa0, 0xe0
	if len(b) == 0 || int(b[0]) != mapOfNone+len(names) {
		return nil, false
	}
	b = b[1:]
	head = make(map[string]int, len(names))
	for range names {
		if len(b) == 0 || b[0]&textMask != text || len(b) < 1+int(b[0]&^textMask) {
			return nil, false
		}
		length := int(b[0] &^ textMask)
		name := string(b[1 : 1+length])
		value, size := number(b[1+length:])
		if size == 0 || !slices.Contains(names, name) {
			return nil, false
		}
		head[name] = value
		b = b[1+length+size:]
	}
	return head, len(head) == len(names)
}

// number reads a number or truth value, and says how long it is; zero: it is another thing.
func number(b []byte) (value, size int) {
	const false_, true_, uint8_, uint16_, uint32_, int8_, int16_, int32_ = 0xc2, 0xc3, 0xcc, 0xcd, 0xce, 0xd0, 0xd1, 0xd2
	if len(b) == 0 {
		return 0, 0
	}
	length := 0
	switch kind := b[0]; {
	case kind < 0x80:
		return int(kind), 1
	case kind == false_ || kind == true_:
		return 0, 1
	case kind == uint8_ || kind == int8_:
		length = 1
	case kind == uint16_ || kind == int16_:
		length = 2
	case kind == uint32_ || kind == int32_:
		length = 4
	}
	if length == 0 || len(b) < 1+length {
		return 0, 0
	}
	for _, x := range b[1 : 1+length] {
		value = value<<8 | int(x)
	}
	return value, 1 + length
}
