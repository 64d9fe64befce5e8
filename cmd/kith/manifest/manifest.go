// Package manifest reads Kubernetes manifests, as they lie in a repository or as kubectl prints them, into the cluster
// that they describe.
//
// Input: files, folders (with all that is below) or standard input, each with any number of YAML or JSON documents,
// Lists among them. Output: the policy.Cluster, and all ends that a flow between its pods can have. Invariants: nothing
// that is wrong in what decides (policies, names, labels, addresses) is passed over in silence, nor what the definition of
// ClusterNetworkPolicy refuses; every Mistake names file, line and field; the order of files and objects does not change the
// result.
//
// What manifests lack is filled in, and a note says so: namespaces that only pods name, addresses of pods that have none
// yet, and for each workload (Deployment and so on) whose pods are not there a pod, or two of a workload of several.
//
// Out of scope: what the cluster's policies decide (policy, policy/matrix); rendering templates.
package manifest

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kithnet/kith/policy"
	"github.com/kithnet/kith/policy/matrix"
)

// Source is where manifests come from.
type Source struct {
	Paths []string // files and folders; - is Stdin
	Stdin io.Reader
	// Namespace is that of objects that name none; default, if it is empty.
	Namespace string
	// PodCIDRs are where pods without an address get one from, where no node says better; one of a family.
	PodCIDRs []netip.Prefix
}

// Manifests are what was read.
type Manifests struct {
	Cluster policy.Cluster
	// Ends are the pods that can send and receive, sorted by name. Hosts are those of their node's network: to policies
	// they are no pods but their node.
	Ends, Hosts []matrix.End
	// Services are those with addresses, sorted by name: an address of theirs is none that policies see.
	Services []Service
	// Notes say what was passed over and what was filled in.
	Notes []string
}

// Read reads all manifests of a source. The error joins a *Mistake for everything that is wrong in them.
func Read(s Source) (Manifests, error) {
	files, err := list(s.Paths)
	if err != nil {
		return Manifests{}, err
	}
	r := newReader(cmp.Or(s.Namespace, "default"))
	for _, f := range files {
		if err := r.file(f, s.Stdin); err != nil {
			return Manifests{}, err
		}
	}
	out := r.finish(s.PodCIDRs)
	return out, errors.Join(r.mistakes...)
}

// file is one to read. In one that was found in a folder there may be what is no manifest.
type file struct {
	name  string
	found bool
}

// list is all files to read: each once, and those of a folder by name.
func list(paths []string) ([]file, error) {
	var files []file
	var refused []error
	add := func(f file) {
		if isKustomization(f.name) {
			refused = append(refused, kustomizationMistake(f.name))
			return
		}
		f.name = filepath.Clean(f.name)
		if i := slices.IndexFunc(files, func(known file) bool { return known.name == f.name }); i >= 0 {
			files[i].found = files[i].found && f.found
			return
		}
		files = append(files, f)
	}
	for _, path := range paths {
		if path == "-" {
			add(file{name: path})
			continue
		}
		if info, err := os.Stat(path); err == nil && info.IsDir() {
			path += string(filepath.Separator) // follows a link
		}
		err := filepath.WalkDir(path, func(name string, entry fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return err
			case name == path && !entry.IsDir():
				add(file{name: name})
			case entry.IsDir() && name != path && strings.HasPrefix(entry.Name(), "."):
				return filepath.SkipDir
			case entry.IsDir() && isChart(name):
				refused = append(refused, chartMistake(filepath.Clean(name)))
				return filepath.SkipDir
			case !entry.IsDir() && (isManifest(entry.Name()) || isKustomization(entry.Name())):
				add(file{name: name, found: true})
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("read manifests: %w", err)
		}
	}
	if len(refused) > 0 {
		return nil, errors.Join(refused...)
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("read manifests: no .yaml, .yml or .json file in %s", strings.Join(paths, ", "))
	}
	return files, nil
}

func isManifest(name string) bool {
	return !strings.HasPrefix(name, ".") && slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(name))
}

func (r *reader) file(f file, stdin io.Reader) error {
	if f.name == "-" {
		return r.documents(file{name: "standard input"}, stdin)
	}
	stream, err := os.Open(f.name)
	if err != nil {
		return fmt.Errorf("read manifests: %w", err)
	}
	defer func() { _ = stream.Close() }()
	return r.documents(f, stream)
}

// byteOrderMark stands before the text that some editors write.
const byteOrderMark = "\ufeff"

// documents reads a stream. Only a stream that cannot be read is an error; mistakes in it are gathered.
func (r *reader) documents(f file, stream io.Reader) error {
	data, err := io.ReadAll(stream)
	if err != nil {
		return fmt.Errorf("read manifests: %s: %w", f.name, err)
	}
	for p := range parse(bytes.TrimPrefix(data, []byte(byteOrderMark))) {
		for _, node := range p.documents {
			at := place{file: f.name, found: f.found && p.preset == (metav1.TypeMeta{}), node: node, before: p.line}
			if bytes.Contains(p.text, []byte("<<")) {
				r.merge(at)
			}
			r.document(at, p.preset)
		}
		if p.err != nil {
			m := syntaxMistake(f.name, p.err)
			if m.Line += p.line; bytes.Contains(p.text, []byte("{{")) {
				m.Problem = templateProblem
			}
			r.mistakes = append(r.mistakes, m)
		}
	}
	return nil
}
