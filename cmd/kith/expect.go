package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"slices"
	"strings"

	"github.com/kithnet/kith/policy/matrix"
)

// expectation is the table that a person keeps: lines of which the last that matches a cell says what it must be.
type expectation struct {
	file  string
	lines []expectedLine
	exact map[[4]string]int // the last line for a cell that is named whole: from, to, port, family
	wide  []int             // the lines with a *
	ports portList          // all that are named
	used  []bool            // lines that matched
}

type expectedLine struct {
	number  int
	text    string
	verdict string
	matches [4]func(string) bool // from, to, port, family
}

func readExpectation(file string) (*expectation, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read expectation: %w", err)
	}
	return parseExpectation(file, data)
}

func parseExpectation(file string, data []byte) (*expectation, error) {
	data = bytes.TrimPrefix(data, []byte("\ufeff")) // which some editors write first
	e := &expectation{file: file, exact: map[[4]string]int{}}
	parse := e.parseLines
	if begin := bytes.TrimSpace(data); len(begin) > 0 && (begin[0] == '[' || begin[0] == '{') {
		parse = e.parseJSON
	}
	if err := parse(data); err != nil {
		return nil, err
	}
	slices.SortFunc(e.ports, matrix.Port.Compare)
	e.used = make([]bool, len(e.lines))
	return e, nil
}

// parseLines reads lines FROM TO PORT allow|deny, with IPv4 or IPv6 behind where the two differ.
func (e *expectation) parseLines(data []byte) error {
	number := 0
	for text := range strings.Lines(string(data)) {
		number++
		text, _, _ = strings.Cut(text, "#")
		fields := strings.Fields(text)
		if len(fields) == 0 {
			continue
		}
		if len(fields) == 4 {
			fields = append(fields, "*")
		}
		if len(fields) != 5 {
			return fmt.Errorf("%s:%d: %q is not FROM TO PORT allow|deny, as -o list writes it", e.file, number, strings.TrimSpace(text))
		}
		if err := e.add(number, [4]string{fields[0], fields[1], fields[2], fields[4]}, fields[3]); err != nil {
			return err
		}
	}
	return nil
}

// parseJSON reads what -o json writes: a list of cells, or cells one after the other.
func (e *expectation) parseJSON(data []byte) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	for {
		var raw json.RawMessage
		err := dec.Decode(&raw)
		if errors.Is(err, io.EOF) {
			return nil
		}
		number := 1 + bytes.Count(data[:dec.InputOffset()], []byte("\n"))
		if err != nil {
			return fmt.Errorf("%s:%d: %w", e.file, number, err)
		}
		var cells []cell
		if raw[0] != '[' {
			raw = slices.Concat([]byte("["), raw, []byte("]"))
		}
		if err := json.Unmarshal(raw, &cells); err != nil {
			return fmt.Errorf("%s:%d: %s", e.file, number, cellMistake(err))
		}
		for _, c := range cells {
			family := c.Family
			if family == "" {
				family = "*"
			}
			// Cells have no lines of their own; the object itself says where to look.
			if err := e.add(0, [4]string{c.From, c.To, fmt.Sprintf("%d/%s", c.Port, c.Protocol), family}, c.Verdict); err != nil {
				return err
			}
		}
	}
}

// cellMistake says what is wrong with a cell, without the program's own types.
func cellMistake(err error) string {
	var wrong *json.UnmarshalTypeError
	if !errors.As(err, &wrong) {
		return err.Error()
	}
	if wrong.Field == "" {
		return fmt.Sprintf("is a %s, want cells as -o json writes them", wrong.Value)
	}
	return fmt.Sprintf("%s: a %s cannot stand here", wrong.Field, wrong.Value)
}

func (e *expectation) add(number int, where [4]string, verdict string) error {
	l := expectedLine{number: number, text: strings.TrimSuffix(strings.Join(where[:], " "), " *"), verdict: verdict}
	if verdict != "allow" && verdict != "deny" {
		return fmt.Errorf("%s: %q is not allow or deny", e.at(l), verdict)
	}
	if !strings.Contains(where[2], "*") {
		p, err := matrix.ParsePort(where[2])
		if err != nil {
			return fmt.Errorf("%s: %w", e.at(l), err)
		}
		where[2] = p.String()
		if !slices.Contains(e.ports, p) {
			e.ports = append(e.ports, p)
		}
	}
	if where[3] == "*" && !strings.Contains(where[0]+where[1]+where[2], "*") {
		e.exact[where] = len(e.lines)
	} else {
		e.wide = append(e.wide, len(e.lines))
		for i := range where {
			l.matches[i] = glob(where[i])
		}
	}
	e.lines = append(e.lines, l)
	return nil
}

// at is where a line stands.
func (e *expectation) at(l expectedLine) string {
	if l.number == 0 {
		return fmt.Sprintf("%s: cell %s", e.file, l.text)
	}
	return fmt.Sprintf("%s:%d", e.file, l.number)
}

// of is the line that says what a cell must be, or nil.
func (e *expectation) of(c matrix.Cell) *expectedLine {
	p := matrix.Port{Protocol: c.Flow.Protocol, Number: c.Flow.Port}
	where := [4]string{c.From.Name, c.To.Name, p.String(), c.Family}
	found := -1
	if i, ok := e.exact[[4]string{where[0], where[1], where[2], "*"}]; ok {
		e.used[i], found = true, i
	}
	for _, i := range e.wide {
		if e.lines[i].match(where) {
			e.used[i], found = true, max(found, i)
		}
	}
	if found < 0 {
		return nil
	}
	return &e.lines[found]
}

func (l expectedLine) match(where [4]string) bool {
	for i, matches := range l.matches {
		if !matches(where[i]) {
			return false
		}
	}
	return true
}

// compare prints the cells that are not as expected and says whether there are any. A line that no cell matches
// differs, too, unless flags chose only some of the cells.
func (c console) compare(f matrixFlags, q question, e *expectation) (different bool, err error) {
	all, differ := 0, 0
	differences := func(yield func(cell, string) bool) {
		for each := range q.cells() {
			all++
			l := e.of(each)
			if l != nil && l.verdict == verdict(each.Allowed).String() {
				continue
			}
			out, where := newCell(each), e.file+" has no line for it"
			out.Expected = "none"
			if l != nil {
				out.Expected, where = l.verdict, e.at(*l)
			}
			if differ++; !yield(out, where) {
				return
			}
		}
		if len(f.from)+len(f.to)+len(f.ports) > 0 {
			return
		}
		for i, l := range e.lines {
			if e.used[i] {
				continue
			}
			if differ++; !yield(l.cell(), e.at(l)) {
				return
			}
		}
	}
	if err := c.printDifferences(f.output, differences); err != nil {
		return false, err
	}
	switch {
	case all == 0:
		return false, fmt.Errorf("there is no cell to compare with %s: the ends have no address family in common", e.file)
	case f.output != "json":
		if _, err := fmt.Fprintf(c.out, "%d cells, %d differ from %s\n", all, differ, e.file); err != nil {
			return false, fmt.Errorf("write: %w", err)
		}
	}
	return differ > 0, nil
}

// printDifferences prints each when it is found: there may be many.
func (c console) printDifferences(output string, all iter.Seq2[cell, string]) error {
	if output == "json" {
		return writeJSON(c.out, func(yield func(cell) bool) {
			for each := range all {
				if !yield(each) {
					return
				}
			}
		})
	}
	return buffered(c.out, func(w io.Writer) error {
		for each, where := range all {
			printDifference(w, each, where)
		}
		return nil
	})
}

// cell is the cell that a line expects.
func (l expectedLine) cell() cell {
	fields := strings.Fields(l.text)
	out := cell{From: fields[0], To: fields[1], Expected: l.verdict}
	if p, err := matrix.ParsePort(fields[2]); err == nil {
		out.Port, out.Protocol = p.Number, p.Protocol.String()
	}
	return out
}

func printDifference(w io.Writer, c cell, where string) {
	fmt.Fprintf(w, "%s → %s", c.From, c.To)
	if c.Protocol != "" {
		fmt.Fprintf(w, " %d/%s", c.Port, c.Protocol)
	}
	switch {
	case c.Verdict == "":
		fmt.Fprintf(w, ": expected %s, but there is no such cell (%s)\n", c.Expected, where)
		return
	case c.Expected == "none":
		fmt.Fprintf(w, ": is %s, nothing expected (%s)\n", c.Verdict, where)
	default:
		fmt.Fprintf(w, ": is %s, expected %s (%s)\n", c.Verdict, c.Expected, where)
	}
	for _, d := range []*decision{c.Egress, c.Ingress} {
		fmt.Fprintf(w, "    %s\n", d.Reason)
	}
}
