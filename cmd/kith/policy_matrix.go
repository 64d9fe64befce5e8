package main

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"strconv"

	"github.com/kithnet/kith/cmd/kith/manifest"
	"github.com/kithnet/kith/identity"
	"github.com/kithnet/kith/policy"
	"github.com/kithnet/kith/policy/matrix"
)

type matrixFlags struct {
	manifestFlags
	from, to selectorList
	ports    portList
	expect   string
}

// question is what a matrix is asked for.
type question struct {
	matrix   *matrix.Matrix
	from, to []matrix.End
	ports    []matrix.Port
}

func (q question) cells() iter.Seq[matrix.Cell] { return q.matrix.Cells(q.from, q.to, q.ports) }

// matrix runs `kith policy matrix`.
func (c console) matrix(args []string) int {
	const command = "policy matrix"
	f, err := c.parseMatrixFlags(command, args)
	if err != nil {
		return c.refuse(command, err)
	}
	var expected *expectation
	if f.expect != "" {
		if expected, err = readExpectation(f.expect); err != nil {
			return c.refuse(command, err)
		}
	}
	q, err := c.question(f, expected)
	if alone := policiesAlone(0); errors.As(err, &alone) {
		fmt.Fprintln(c.err, "note:", alone)
		if err = c.nothing(f.output); err == nil {
			return exitReady
		}
	}
	if err != nil {
		return c.refuse(command, err)
	}
	if expected != nil {
		different, err := c.compare(f, q, expected)
		if err != nil {
			return c.refuse(command, err)
		}
		if different {
			return exitDifferent
		}
		return exitReady
	}
	if err := c.printMatrix(f.output, q); err != nil {
		return c.refuse(command, err)
	}
	return exitReady
}

func (c console) parseMatrixFlags(command string, args []string) (matrixFlags, error) {
	var f matrixFlags
	set := c.flags(command, fmt.Sprintf("Prints who reaches whom, and why not, by manifests alone. With -expect, exits with %d if a cell differs.", exitDifferent))
	f.add(set, "table, list or json")
	set.Var(&f.from, "from", "sources, "+selectorHelp)
	set.Var(&f.to, "to", "destinations, "+selectorHelp)
	set.Var(&f.ports, "ports", "the destinations' `ports`, like 80/TCP,53/UDP; default those that the policies name")
	set.StringVar(&f.expect, "expect", "", "compare with a `file` that -o list or -o json wrote, or a person: lines FROM TO PORT allow|deny,\nin which * stands for any text; the last line that matches a cell counts")
	if err := f.parse(set, args); err != nil {
		return f, err
	}
	if f.expect != "" && f.output == "list" {
		return f, errors.New("-expect prints what differs: write -o table or json")
	}
	return f, f.manifestFlags.check("table", "list", "json")
}

// nobody is why a matrix of manifests without pods cannot be made. Policies alone are read and have no mistake then,
// which is what a person who gives nothing else may want to know.
func (f matrixFlags) nobody(found manifest.Manifests, expected *expectation) error {
	policies := len(found.Cluster.Policies)
	if policies == 0 || expected != nil || len(f.from)+len(f.to) > 0 {
		return errors.New("the manifests have no pod, and no workload that makes one: nobody can be asked about")
	}
	return policiesAlone(policies)
}

// policiesAlone is how many policies there are, and nothing that they hold for.
type policiesAlone int

func (n policiesAlone) Error() string {
	return fmt.Sprintf("no pod, and no workload that makes one, is here: nobody is asked about; policies read, without a mistake: %d", int(n))
}

// question reads the manifests and what to ask of them.
func (c console) question(f matrixFlags, expected *expectation) (question, error) {
	found, err := f.read(c.err)
	if err != nil {
		return question{}, err
	}
	if len(found.Ends) == 0 {
		return question{}, f.nobody(found, expected)
	}
	q := question{matrix: matrix.New(found.Cluster), ports: f.ports}
	if q.from, err = f.from.ends(found); err != nil {
		return q, fmt.Errorf("-from %w", err)
	}
	if q.to, err = f.to.ends(found); err != nil {
		return q, fmt.Errorf("-to %w", err)
	}
	if len(q.ports) == 0 {
		q.ports = c.defaultPorts(found.Cluster, expected)
	}
	return q, nil
}

// defaultPorts are those of the expectation, or else those that policies name.
func (c console) defaultPorts(cluster policy.Cluster, expected *expectation) portList {
	if expected != nil && len(expected.ports) > 0 {
		return expected.ports
	}
	ports := portList(matrix.Ports(cluster))
	if len(ports) == 0 {
		ports = portList{{Protocol: identity.TCP, Number: 80}}
	}
	fmt.Fprintf(c.err, "note: ports %s; -ports chooses others\n", &ports)
	return ports
}

// nothing prints a matrix without a cell.
func (c console) nothing(output string) error {
	if output == "json" {
		return writeJSON(c.out, func(func(cell) bool) {})
	}
	return nil
}

func (c console) printMatrix(output string, q question) error {
	switch output {
	case "json":
		return writeJSON(c.out, func(yield func(cell) bool) {
			for each := range q.cells() {
				if !yield(newCell(each)) {
					return
				}
			}
		})
	case "list":
		return writeList(c.out, q.cells())
	}
	return buffered(c.out, func(w io.Writer) error { return printGrids(w, q, width()) })
}

// defaultWidth is what a table may take where nothing says how wide the screen is.
const defaultWidth = 100

// width is how many columns a table may take.
func width() int {
	if n, err := strconv.Atoi(os.Getenv("COLUMNS")); err == nil && n > 0 {
		return n
	}
	if n := terminalWidth(); n > 0 {
		return n
	}
	return defaultWidth
}
