package nft

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/kithnet/kith/policy/ruleset"
)

// keyText is an element's key for a person to read.
func keyText(spec ruleset.SetSpec, key ruleset.Key) string {
	var fields []string
	at := 0
	for _, t := range spec.Key {
		end := at + t.Size()
		s := fieldText(t, key.Low[at:end])
		if key.High != "" && key.High[at:end] != key.Low[at:end] {
			s += "-" + fieldText(t, key.High[at:end])
		}
		fields = append(fields, s)
		at += 4 * words(t)
	}
	return strings.Join(fields, " . ")
}

func fieldText(t ruleset.Type, field string) string {
	b := []byte(field)
	switch t {
	case ruleset.TypeIfName:
		return text(b)
	case ruleset.TypeEtherAddr:
		return net.HardwareAddr(b).String()
	case ruleset.TypeIPv4Addr, ruleset.TypeIPv6Addr, ruleset.TypeQuoted4, ruleset.TypeQuoted6:
		a, _ := netip.AddrFromSlice(b)
		return a.String()
	case ruleset.TypeInetProto:
		return fmt.Sprint(b[0])
	case ruleset.TypeInetService:
		return fmt.Sprint(binary.BigEndian.Uint16(b))
	case ruleset.TypeClassID:
		return fmt.Sprintf("%x:%x", binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:]))
	}
	return fmt.Sprintf("%x", b)
}
