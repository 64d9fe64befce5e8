package guest

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// object makes the smallest ELF file that has a .modinfo section.
func object(t *testing.T, info string) []byte {
	t.Helper()
	const headerSize, sectionSize = 64, 64
	names := "\x00.modinfo\x00.shstrtab\x00"
	infoAt := uint64(headerSize)
	namesAt := infoAt + uint64(len(info))
	header := elf.Header64{
		Ident: [16]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
		Type:  uint16(elf.ET_REL), Machine: uint16(elf.EM_X86_64), Version: uint32(elf.EV_CURRENT),
		Shoff: namesAt + uint64(len(names)), Ehsize: headerSize, Shentsize: sectionSize, Shnum: 3, Shstrndx: 2,
	}
	sections := []elf.Section64{
		{},
		{Name: 1, Type: uint32(elf.SHT_PROGBITS), Off: infoAt, Size: uint64(len(info))},
		{Name: 10, Type: uint32(elf.SHT_STRTAB), Off: namesAt, Size: uint64(len(names))},
	}
	var out bytes.Buffer
	for _, part := range []any{header, []byte(info), []byte(names), sections} {
		if err := binary.Write(&out, binary.LittleEndian, part); err != nil {
			t.Fatal(err)
		}
	}
	return out.Bytes()
}

// tree lays a kernel's module folder out: module name → what it depends on.
func tree(t *testing.T, modules map[string]string) *moduleSet {
	t.Helper()
	dir := t.TempDir()
	write := func(name string, data []byte) {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("modules.builtin", []byte("kernel/lib/crc32.ko\nkernel/net/af-unix.ko\n"))
	for name, depends := range modules {
		write(name+".ko", object(t, "license=GPL\x00depends="+depends+"\x00name="+name+"\x00"))
	}
	set, err := openModules(dir)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func TestResolve(t *testing.T) {
	set := tree(t, map[string]string{
		"wireguard": "udp_tunnel,libchacha", "udp-tunnel": "", "libchacha": "chacha-x86_64", "chacha-x86_64": "", "veth": "",
		"broken": "missing",
	})
	tests := []struct {
		name   string
		wanted []string
		want   []string
		fails  bool
	}{
		{"what it depends on comes first", []string{"wireguard"}, []string{"chacha_x86_64", "libchacha", "udp_tunnel", "wireguard"}, false},
		{"each once", []string{"veth", "libchacha", "wireguard", "veth"}, []string{"veth", "chacha_x86_64", "libchacha", "udp_tunnel", "wireguard"}, false},
		{"built in", []string{"crc32", "af_unix", "veth"}, []string{"veth"}, false},
		{"unknown", []string{"veth", "ipx"}, nil, true},
		{"unknown dependency", []string{"broken"}, nil, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			list, err := set.resolve(t.Context(), test.wanted)
			if (err != nil) != test.fails {
				t.Fatalf("error %v, want one: %v", err, test.fails)
			}
			var got []string
			for _, m := range list {
				got = append(got, m.name)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("order (-want +got):\n%s", diff)
			}
		})
	}
}

func TestUnsigned(t *testing.T) {
	signature := bytes.Repeat([]byte{9}, 300)
	trailer := append([]byte{0, 0, 2, 0, 0, 0, 0, 0}, binary.BigEndian.AppendUint32(nil, uint32(len(signature)))...)
	signed := func(body string) []byte {
		return append(append(append([]byte(body), signature...), trailer...), signatureMagic...)
	}
	tests := []struct {
		name string
		data []byte
		want string
	}{
		{"signed", signed("module"), "module"},
		{"never signed", []byte("module"), "module"},
		{"size past the start", append(append([]byte("m"), trailer...), signatureMagic...), "m" + string(trailer) + signatureMagic},
		{"magic alone", []byte(signatureMagic), signatureMagic},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, string(unsigned(test.data))); diff != "" {
				t.Errorf("module (-want +got):\n%s", diff)
			}
		})
	}
}
