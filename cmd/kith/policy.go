package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/kithnet/kith/cmd/kith/manifest"
	"github.com/kithnet/kith/policy/matrix"
)

const policyUsage = `%[1]s policy decides flows by manifests alone, without a cluster.

Usage:
  %[1]s policy matrix -f FILE|FOLDER... [flags]
  %[1]s policy check -f FILE|FOLDER... --from NS/POD|IP --to NS/POD|IP --port 80/TCP [flags]

Commands:
  matrix     who reaches whom, and why not
  check      whether one flow is allowed, and why

%[1]s policy COMMAND -h lists a command's flags.
`

// policy runs `kith policy …`.
func (c console) policy(args []string) int {
	command := ""
	if len(args) > 0 {
		command = args[0]
	}
	switch command {
	case "matrix":
		return c.matrix(args[1:])
	case "check":
		return c.check(args[1:])
	case "help", "-h", "-help", "--help":
		fmt.Fprintf(c.out, policyUsage, c.name)
		return exitReady
	}
	fmt.Fprintf(c.err, policyUsage, c.name)
	return exitUsage
}

// manifestFlags are those of every command that reads manifests.
type manifestFlags struct {
	files     []string
	namespace string
	output    string
	podCIDRs  string
}

func (f *manifestFlags) add(set *flag.FlagSet, outputs string) {
	set.Func("f", "a manifest `file`, a folder with all below it, or - for standard input; may be given again", func(s string) error {
		f.files = append(f.files, s)
		return nil
	})
	set.StringVar(&f.namespace, "n", "default", "the `namespace` of objects that name none, as kubectl has it")
	set.StringVar(&f.output, "o", "table", "output `format`: "+outputs)
	set.StringVar(&f.podCIDRs, "pod-cidr", "10.244.0.0/16", "where pods without an address get one from: a `range`, or one for each family")
}

// parse reads the flags. What stands between them are more files, as after -f policies/*.yaml.
func (f *manifestFlags) parse(set *flag.FlagSet, args []string) error {
	for {
		if err := set.Parse(args); err != nil {
			return err
		}
		if args = set.Args(); len(args) == 0 {
			return nil
		}
		f.files = append(f.files, args[0])
		args = args[1:]
	}
}

func (f *manifestFlags) check(outputs ...string) error {
	if len(f.files) == 0 {
		return errors.New("name manifests with -f")
	}
	if !slices.Contains(outputs, f.output) {
		return fmt.Errorf("-o %s: write %s", f.output, strings.Join(outputs, ", "))
	}
	return nil
}

// read reads the manifests, and tells the notes.
func (f *manifestFlags) read(notes io.Writer) (manifest.Manifests, error) {
	if problems := validation.IsDNS1123Label(f.namespace); len(problems) > 0 {
		return manifest.Manifests{}, fmt.Errorf("-n %s: %s", f.namespace, problems[0])
	}
	source := manifest.Source{Paths: f.files, Stdin: os.Stdin, Namespace: f.namespace}
	for _, s := range strings.Split(f.podCIDRs, ",") {
		cidr, err := netip.ParsePrefix(strings.TrimSpace(s))
		if err != nil {
			return manifest.Manifests{}, fmt.Errorf("-pod-cidr %s: %w", f.podCIDRs, err)
		}
		source.PodCIDRs = append(source.PodCIDRs, cidr)
	}
	found, err := manifest.Read(source)
	if err != nil {
		return manifest.Manifests{}, err
	}
	for _, note := range found.Notes {
		fmt.Fprintln(notes, "note: "+note)
	}
	return found, nil
}

// flags makes a command's flag set.
func (c console) flags(command, what string) *flag.FlagSet {
	set := flag.NewFlagSet(command, flag.ContinueOnError)
	set.SetOutput(c.err)
	set.Usage = func() {
		fmt.Fprintf(c.err, "%s\n\nUsage:\n  %s %s [flags]\n\nFlags:\n", what, c.name, command)
		set.PrintDefaults()
	}
	return set
}

// refuse ends a command that cannot do what it was asked.
func (c console) refuse(command string, err error) int {
	if errors.Is(err, flag.ErrHelp) {
		return exitReady
	}
	var mistake *manifest.Mistake
	if errors.As(err, &mistake) {
		fmt.Fprintln(c.err, err) // each line begins with file and line, as editors and CI like it
		return exitUsage
	}
	fmt.Fprintf(c.err, "%s %s: %v\n", c.name, command, err)
	return exitUsage
}

// portList is a flag of ports, separated by commas.
type portList []matrix.Port

func (l *portList) String() string {
	words := make([]string, len(*l))
	for i, p := range *l {
		words[i] = p.String()
	}
	return strings.Join(words, ", ")
}

// Set adds ports.
func (l *portList) Set(s string) error {
	for _, word := range strings.Split(s, ",") {
		p, err := matrix.ParsePort(word)
		if err != nil {
			return err
		}
		if !slices.Contains(*l, p) {
			*l = append(*l, p)
		}
	}
	return nil
}
