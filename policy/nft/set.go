package nft

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/kithnet/kith/policy/ruleset"
	"golang.org/x/sys/unix"
)

// What x/sys does not have of the kernel's header.
const (
	setConcat     = nftables.NFT_SET_CONCAT
	setElemKeyEnd = nftables.NFTA_SET_ELEM_KEY_END
	setElemAll    = 0x2 // NFT_SET_ELEM_CATCHALL
)

// datatype is the nft tool's description of a type.
func datatype(t ruleset.Type) nftables.SetDatatype {
	switch t {
	case ruleset.TypeIfName:
		return nftables.TypeIFName
	case ruleset.TypeEtherAddr:
		return nftables.TypeEtherAddr
	case ruleset.TypeIPv4Addr:
		return nftables.TypeIPAddr
	case ruleset.TypeIPv6Addr:
		return nftables.TypeIP6Addr
	case ruleset.TypeInetProto:
		return nftables.TypeInetProto
	case ruleset.TypeInetService:
		return nftables.TypeInetService
	case ruleset.TypeClassID:
		return nftables.TypeClassID
	case ruleset.TypeQuoted4:
		return nftables.TypeInteger
	case ruleset.TypeQuoted6:
		long := nftables.TypeInteger
		long.Bytes = 16
		return long
	case ruleset.TypeVerdict:
		return nftables.TypeVerdict
	}
	return nftables.TypeInvalid
}

func typeOf(number uint32) ruleset.Type {
	for t := ruleset.TypeIfName; t < ruleset.TypeVerdict; t++ {
		if d := datatype(t); d.GetNFTMagic() == number {
			return t
		}
	}
	if number == unix.NFT_DATA_VERDICT {
		return ruleset.TypeVerdict
	}
	return ruleset.TypeNone
}

// kernelSet is a set as the library writes it.
func kernelSet(table *nftables.Table, s ruleset.SetSpec) (*nftables.Set, error) {
	set := &nftables.Set{
		Table: table, Name: s.Name, Interval: s.Interval, Concatenation: isConcatOfIntervals(s),
		IsMap: s.Data != ruleset.TypeNone, KeyType: datatype(s.Key[0]), DataType: datatype(s.Data),
	}
	if s.Learned {
		set.HasTimeout, set.Timeout, set.Dynamic, set.Size = true, heldFor, true, ruleset.LearnedSize
	}
	switch {
	case len(s.Key) > 1:
		fields := make([]nftables.SetDatatype, len(s.Key))
		for i, t := range s.Key {
			fields[i] = datatype(t)
		}
		var err error
		if set.KeyType, err = nftables.ConcatSetType(fields...); err != nil {
			return nil, fmt.Errorf("create set %s: %w", s.Name, err)
		}
	case s.Key[0] == ruleset.TypeClassID || s.Key[0] == ruleset.TypeIfName || s.Data == ruleset.TypeClassID:
		set.KeyByteOrder = binaryutil.NativeEndian // of the data, if there is some: see putright.go
	default:
		set.KeyByteOrder = binaryutil.BigEndian
	}
	if s.Key[0] == ruleset.TypeQuoted4 || s.Key[0] == ruleset.TypeQuoted6 {
		set.Comment = strings.Repeat("?", sizeOfTypeOf-3) // see putright.go
	}
	return set, nil
}

// isConcatOfIntervals tells the sets in which the kernel compares intervals field by field.
func isConcatOfIntervals(s ruleset.SetSpec) bool { return s.Interval && len(s.Key) > 1 }

// keyLen is a key's length: fields of a concatenation fill whole words.
func keyLen(key []ruleset.Type) (n int) {
	if len(key) == 1 {
		return key[0].Size()
	}
	for _, t := range key {
		n += 4 * words(t)
	}
	return n
}

func setFlags(s ruleset.SetSpec) (flags uint32) {
	if s.Interval {
		flags |= unix.NFT_SET_INTERVAL
	}
	if isConcatOfIntervals(s) {
		flags |= setConcat
	}
	if s.Data != ruleset.TypeNone {
		flags |= unix.NFT_SET_MAP
	}
	if s.Learned {
		flags |= unix.NFT_SET_TIMEOUT | unix.NFT_SET_EVAL
	}
	return flags
}

// shownSet is a set as the kernel shows it. Anonymous sets belong to a rule and go with it.
type shownSet struct {
	table     string
	spec      ruleset.SetSpec
	anonymous bool
}

// parseSet reads a set. One that the language cannot say has no key type.
func parseSet(b []byte) shownSet {
	var s shownSet
	var flags, key, data, length uint32
	for _, a := range attributes(b) {
		switch a.typ {
		case unix.NFTA_SET_TABLE:
			s.table = text(a.data)
		case unix.NFTA_SET_NAME:
			s.spec.Name = text(a.data)
		case unix.NFTA_SET_FLAGS:
			flags = number(a.data)
		case unix.NFTA_SET_KEY_TYPE:
			key = number(a.data)
		case unix.NFTA_SET_KEY_LEN:
			length = number(a.data)
		case unix.NFTA_SET_DATA_TYPE:
			data = number(a.data)
		}
	}
	s.anonymous = flags&unix.NFT_SET_ANONYMOUS != 0
	spec := ruleset.SetSpec{Name: s.spec.Name, Key: typesOf(key), Data: typeOf(data), Interval: flags&unix.NFT_SET_INTERVAL != 0, Learned: flags&unix.NFT_SET_EVAL != 0}
	if length == 16 && slices.Equal(spec.Key, []ruleset.Type{ruleset.TypeQuoted4}) {
		spec.Key[0] = ruleset.TypeQuoted6
	}
	if setFlags(spec) == flags && !slices.Contains(spec.Key, ruleset.TypeNone) && keyLen(spec.Key) == int(length) {
		s.spec = spec
	}
	return s
}

func typesOf(number uint32) []ruleset.Type {
	var key []ruleset.Type
	for ; number != 0; number >>= nftables.SetConcatTypeBits {
		key = append(key, typeOf(number&nftables.SetConcatTypeMask))
	}
	slices.Reverse(key)
	return key
}

func native32(v uint32) string { return string(binary.NativeEndian.AppendUint32(nil, v)) }

func fromNative32(s string) uint32 { return binary.NativeEndian.Uint32([]byte(s)) }
