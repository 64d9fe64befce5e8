package guest

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// wanted are the modules a guest starts with; what they depend on comes by itself. A name that is built into
// the kernel is fine, one the kernel does not know is an error.
var wanted = []string{
	"crc32c_generic", "wireguard", "tun", "veth", "dummy", "bridge", "vxlan", "sctp", "sch_netem",
	"nf_tables", "nf_conntrack", "nf_conntrack_netlink", "nft_ct", "nft_nat", "nft_masq", "nft_redir", "nft_chain_nat",
	"nft_reject_inet", "nft_fib_inet", "nft_limit", "nft_log", "nft_numgen", "ip_vs", "ip_vs_rr",
}

// module is one kernel module, ready to be loaded.
type module struct {
	name string
	data []byte
}

// moduleSet finds modules in the unpacked tree of one kernel release.
type moduleSet struct {
	paths   map[string]string
	builtin map[string]bool
}

func openModules(root string) (*moduleSet, error) {
	set := &moduleSet{paths: map[string]string{}, builtin: map[string]bool{}}
	list, err := os.ReadFile(filepath.Join(root, "modules.builtin"))
	if err != nil {
		return nil, fmt.Errorf("kernel modules: %w", err)
	}
	for path := range strings.FieldsSeq(string(list)) {
		set.builtin[moduleName(path)] = true
	}
	err = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() && strings.Contains(entry.Name(), ".ko") {
			set.paths[moduleName(path)] = path
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("kernel modules: %w", err)
	}
	return set, nil
}

// moduleName turns a path into the name the kernel knows the module by.
func moduleName(path string) string {
	name, _, _ := strings.Cut(filepath.Base(path), ".ko")
	return strings.ReplaceAll(name, "-", "_")
}

// resolve reads the named modules and all they depend on, each once, in the order they must be loaded in.
func (s *moduleSet) resolve(ctx context.Context, names []string) ([]module, error) {
	var order []module
	seen := map[string]bool{}
	var visit func(name string) error
	visit = func(name string) error {
		if seen[name] || s.builtin[name] {
			return nil
		}
		seen[name] = true
		path, ok := s.paths[name]
		if !ok {
			return fmt.Errorf("module %s: not in this kernel", name)
		}
		data, err := readModule(ctx, path)
		if err != nil {
			return fmt.Errorf("module %s: %w", name, err)
		}
		needs, err := depends(data)
		if err != nil {
			return fmt.Errorf("module %s: %w", name, err)
		}
		for _, need := range needs {
			if err := visit(need); err != nil {
				return err
			}
		}
		order = append(order, module{name: name, data: unsigned(data)})
		return nil
	}
	for _, name := range names {
		if err := visit(name); err != nil {
			return nil, err
		}
	}
	return order, nil
}

func readModule(ctx context.Context, path string) ([]byte, error) {
	if !strings.HasSuffix(path, ".xz") {
		return os.ReadFile(path)
	}
	out, err := exec.CommandContext(ctx, "xz", "-dc", path).Output()
	if err != nil {
		return nil, fmt.Errorf("decompress %s: %w", path, err)
	}
	return out, nil
}

// depends reads the names of the modules that this one needs from its own module information.
func depends(data []byte) ([]string, error) {
	file, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("read module: %w", err)
	}
	section := file.Section(".modinfo")
	if section == nil {
		return nil, fmt.Errorf("read module: no .modinfo section")
	}
	info, err := section.Data()
	if err != nil {
		return nil, fmt.Errorf("read module: %w", err)
	}
	for field := range bytes.SplitSeq(info, []byte{0}) {
		if list, ok := bytes.CutPrefix(field, []byte("depends=")); ok && len(list) > 0 {
			names := strings.Split(strings.ReplaceAll(string(list), "-", "_"), ",")
			slices.Sort(names)
			return names, nil
		}
	}
	return nil, nil
}

const signatureMagic = "~Module signature appended~\n"

// unsigned cuts an appended signature off: checking one costs an emulated processor a good part of a second.
func unsigned(data []byte) []byte {
	const trailer = 12
	body, ok := bytes.CutSuffix(data, []byte(signatureMagic))
	if !ok || len(body) < trailer {
		return data
	}
	size := int(binary.BigEndian.Uint32(body[len(body)-4:]))
	if size < 0 || size > len(body)-trailer {
		return data
	}
	return body[:len(body)-trailer-size]
}
