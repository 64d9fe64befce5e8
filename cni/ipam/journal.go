package ipam

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"strconv"
)

// The journal is lines: eight hex digits, the CRC-32C of the rest; a space; a JSON entry; a newline.
// The first line is a header with the format's version. A last line that is incomplete or does not
// fit its checksum is one whose write was cut short, and does not count. Any other fault is damage.

const formatVersion = 1

var errChecksum = errors.New("checksum does not fit")

func checksum(data []byte) uint32 {
	return crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli))
}

func encode(e entry) ([]byte, error) {
	body, err := json.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", e.Op, err)
	}
	return fmt.Appendf(nil, "%08x %s\n", checksum(body), body), nil
}

func decode(line []byte) (entry, error) {
	if len(line) < 10 || line[8] != ' ' {
		return entry{}, errChecksum
	}
	sum, err := strconv.ParseUint(string(line[:8]), 16, 32)
	if err != nil || uint32(sum) != checksum(line[9:]) {
		return entry{}, errChecksum
	}
	var e entry
	if err := json.Unmarshal(line[9:], &e); err != nil {
		return entry{}, fmt.Errorf("decode: %w", err)
	}
	return e, nil
}

// parse returns what a journal says.
func parse(data []byte) (*state, error) {
	st := newState()
	for n := 1; len(data) > 0; n++ {
		line, rest, whole := bytes.Cut(data, []byte("\n"))
		e, err := decode(line)
		torn := !whole || errors.Is(err, errChecksum) && len(rest) == 0
		// The header was in place before the file had its name: it cannot be torn.
		if torn && n > 1 {
			return st, nil
		}
		if err == nil {
			err = st.read(e, n)
		}
		if err != nil {
			return nil, fmt.Errorf("line %d is damaged: %w", n, err)
		}
		data = rest
	}
	return st, nil
}

func (st *state) read(e entry, n int) error {
	if n == 1 {
		if e.Op != opHeader || e.Version != formatVersion {
			return fmt.Errorf("not an address store of version %d", formatVersion)
		}
		return nil
	}
	if err := st.check(e); err != nil {
		return err
	}
	st.apply(e)
	return nil
}

// encode returns the shortest journal that says what st is.
func (st *state) encode() ([]byte, error) {
	entries := []entry{{Op: opHeader, Version: formatVersion}}
	for addrs := range slices.Chunk(st.freed.order, 256) {
		entries = append(entries, entry{Op: opQueue, Addresses: addrs})
	}
	for _, a := range st.list() {
		entries = append(entries, entry{Op: opPut, Attachment: &a})
	}
	var data []byte
	for _, e := range entries {
		line, err := encode(e)
		if err != nil {
			return nil, err
		}
		data = append(data, line...)
	}
	return data, nil
}
