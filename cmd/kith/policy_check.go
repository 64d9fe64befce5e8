package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"

	"github.com/kithnet/kith/cmd/kith/manifest"
	"github.com/kithnet/kith/policy"
	"github.com/kithnet/kith/policy/matrix"
)

type checkFlags struct {
	manifestFlags
	from, to string
	ports    portList
}

// check runs `kith policy check`.
func (c console) check(args []string) int {
	const command = "policy check"
	f, err := c.parseCheckFlags(command, args)
	if err != nil {
		return c.refuse(command, err)
	}
	found, err := f.read(c.err)
	if err != nil {
		return c.refuse(command, err)
	}
	cells, err := f.cells(found)
	if err != nil {
		return c.refuse(command, err)
	}
	err = buffered(c.out, func(w io.Writer) error {
		for _, cell := range cells {
			if err := printCheck(w, f.output, cell); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return c.refuse(command, err)
	}
	return exitReady
}

func (c console) parseCheckFlags(command string, args []string) (checkFlags, error) {
	var f checkFlags
	set := c.flags(command, "Says whether a flow is allowed, and why, by manifests alone. Exits with 0 also if it is denied.")
	f.add(set, "table or json")
	set.StringVar(&f.from, "from", "", "the source: `NS/POD` or an address")
	set.StringVar(&f.to, "to", "", "the destination: `NS/POD` or an address")
	set.Var(&f.ports, "port", "the destination's `port`, like 80/TCP")
	if err := f.parse(set, args); err != nil {
		return f, err
	}
	switch {
	case f.from == "" || f.to == "":
		return f, errors.New("name both ends with -from and -to")
	case len(f.ports) == 0:
		return f, errors.New("name the port with -port, like 80/TCP")
	}
	return f, f.manifestFlags.check("table", "json")
}

func (f checkFlags) cells(found manifest.Manifests) ([]matrix.Cell, error) {
	m := matrix.New(found.Cluster)
	from, err := oneEnd(f.from, found)
	if err != nil {
		return nil, fmt.Errorf("-from %w", err)
	}
	to, err := oneEnd(f.to, found)
	if err != nil {
		return nil, fmt.Errorf("-to %w", err)
	}
	var cells []matrix.Cell
	for _, p := range f.ports {
		for _, cell := range m.Between(&from, &to, p) {
			cells = append(cells, cell)
			if other, differs := m.Hairpin(cell); differs {
				cells = append(cells, other)
			}
		}
	}
	if len(cells) == 0 {
		return nil, fmt.Errorf("%s and %s have no address family in common", from.Name, to.Name)
	}
	return cells, nil
}

// oneEnd is the pod of a name or with an address, or the address.
func oneEnd(text string, found manifest.Manifests) (matrix.End, error) {
	if a, err := netip.ParseAddr(text); err == nil {
		return endAt(a.Unmap(), found)
	}
	for _, e := range found.Ends {
		if e.Name == text {
			return e, nil
		}
	}
	return host(text, found)
}

func printCheck(w io.Writer, output string, cell matrix.Cell) error {
	if output == "json" {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(newCell(cell))
	}
	v, port := cell.Verdict(), matrix.Port{Protocol: cell.Flow.Protocol, Number: cell.Flow.Port}
	fmt.Fprintf(w, "%s: %s → %s %s", verdict(cell.Allowed), shownEnd(*cell.From, cell.Flow.Source), shownEnd(*cell.To, cell.Flow.Destination), port)
	if cell.Family != "" {
		fmt.Fprintf(w, " over %s", cell.Family)
	}
	if cell.Flow.Hairpin {
		fmt.Fprint(w, " by a Service that leads back to it")
	}
	fmt.Fprintln(w)
	printDecision(w, v.Egress)
	printDecision(w, v.Ingress)
	return nil
}

// shownEnd is a pod's name with the address that was used.
func shownEnd(e matrix.End, a netip.Addr) string {
	if e.Name == a.String() {
		return e.Name
	}
	return fmt.Sprintf("%s (%s)", e.Name, a)
}

func printDecision(w io.Writer, d policy.Decision) {
	fmt.Fprintf(w, "  %-8s %-6s", d.Direction, verdict(d.Allowed))
	if d.Tier != "" {
		fmt.Fprintf(w, " tier %s", d.Tier)
		if d.Policy != (policy.Name{}) {
			fmt.Fprintf(w, ", policy %s, rule %d", d.Policy, d.Rule)
		}
		fmt.Fprintf(w, "\n%18s", "")
	} else {
		fmt.Fprint(w, " ")
	}
	fmt.Fprintln(w, d.Reason)
}
