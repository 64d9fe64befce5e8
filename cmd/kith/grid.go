package main

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/kithnet/kith/policy"
	"github.com/kithnet/kith/policy/matrix"
)

// maxGrid bounds the cells of a table: what is larger nobody reads.
const maxGrid = 250_000

// grid is the matrix for people: pods that no policy can tell apart share a row and a column.
type grid struct {
	matrix   *matrix.Matrix
	from, to []matrix.Group
	width    int
}

func newGrid(q question, width int) grid {
	return grid{matrix: q.matrix, from: q.matrix.Groups(q.from, q.to), to: q.matrix.Groups(q.to, q.from), width: width}
}

// printGrids prints a grid for each port, ports with equal grids together, and then why the denied are.
func printGrids(w io.Writer, q question, width int) error {
	g := newGrid(q, width)
	if size := len(g.from) * len(g.to) * len(q.ports); size > maxGrid {
		return fmt.Errorf("a table of %d cells: choose pods with -from and -to, or write -o list or json", size)
	}
	reasons := newReasons()
	var titles []string
	var bodies [][][]string
	for _, p := range q.ports {
		body := g.body(p, reasons)
		same := slices.IndexFunc(bodies, func(b [][]string) bool { return slices.EqualFunc(b, body, slices.Equal[[]string]) })
		if same >= 0 {
			titles[same] += ", " + p.String()
			continue
		}
		titles, bodies = append(titles, p.String()), append(bodies, body)
	}
	for i := range bodies {
		fmt.Fprintln(w, titles[i])
		g.print(w, bodies[i])
		fmt.Fprintln(w)
	}
	reasons.print(w, width)
	return nil
}

// body is the marks of a port, row by row.
func (g grid) body(p matrix.Port, r *reasons) [][]string {
	rows := make([][]string, len(g.from))
	for i := range g.from {
		for j := range g.to {
			cells := g.between(&g.from[i], &g.to[j], p)
			rows[i] = append(rows[i], mark(cells))
			for _, cell := range cells {
				if !cell.Allowed {
					r.add(cell, g.from[i].Name, g.to[j].Name, p)
				}
			}
		}
	}
	return rows
}

// between asks about a member of each group: where both begin with the same pod about two of them, if there are two.
func (g grid) between(from, to *matrix.Group, p matrix.Port) []matrix.Cell {
	src, dst := &from.Ends[0], &to.Ends[0]
	if same := src.Name == dst.Name; same && len(to.Ends) > 1 {
		dst = &to.Ends[1]
	} else if same && len(from.Ends) > 1 {
		src = &from.Ends[1]
	}
	return g.matrix.Between(src, dst, p)
}

func mark(cells []matrix.Cell) string {
	switch {
	case len(cells) == 0:
		return "-"
	case len(cells) == 2 && cells[0].Allowed:
		return cells[0].Family[len("IPv"):]
	case len(cells) == 2:
		return cells[1].Family[len("IPv"):]
	case cells[0].Allowed:
		return "✓"
	}
	return "✗"
}

// print prints the marks with their rows' and columns' names; where the names of the columns need too much room,
// numbers stand for them.
func (g grid) print(w io.Writer, body [][]string) {
	const corner = `from \ to`
	first := len(corner)
	for _, row := range g.from {
		first = max(first, utf8.RuneCountInString(title(row)))
	}
	heads := make([]string, len(g.to))
	total := first
	for i, column := range g.to {
		heads[i] = title(column)
		total += 2 + utf8.RuneCountInString(heads[i])
	}
	if total > g.width {
		for i := range heads {
			fmt.Fprintf(w, "%4d  %s\n", i+1, heads[i])
			heads[i] = strconv.Itoa(i + 1)
		}
	}
	for begin := 0; begin < len(heads); {
		end := fit(heads, begin, g.width-first)
		printRow(w, first, corner, heads[begin:end], heads[begin:end])
		for i, row := range g.from {
			printRow(w, first, title(row), heads[begin:end], body[i][begin:end])
		}
		begin = end
	}
}

// title is a group's name, with how many it has.
func title(g matrix.Group) string {
	if len(g.Ends) == 1 {
		return g.Name
	}
	return fmt.Sprintf("%s (%d)", g.Name, len(g.Ends))
}

// fit is the end of the columns that have room.
func fit(heads []string, begin, room int) int {
	end := begin
	for end < len(heads) && room >= 2+utf8.RuneCountInString(heads[end]) {
		room -= 2 + utf8.RuneCountInString(heads[end])
		end++
	}
	return max(end, begin+1)
}

func printRow(w io.Writer, first int, name string, heads, cells []string) {
	var b strings.Builder
	fmt.Fprintf(&b, "%-*s", first, name)
	for i, cell := range cells {
		fmt.Fprintf(&b, "  %-*s", utf8.RuneCountInString(heads[i]), cell)
	}
	fmt.Fprintln(w, strings.TrimRight(b.String(), " "))
}

// reasons are why flows are denied, each with the pairs that it denies.
type reasons struct {
	all   []*reason
	texts map[string]*reason
}

type reason struct {
	text  string
	pairs []*deniedPair
	known map[[2]string]*deniedPair
}

type deniedPair struct {
	from, to string
	ports    portList
}

func newReasons() *reasons { return &reasons{texts: map[string]*reason{}} }

func (r *reasons) add(c matrix.Cell, from, to string, p matrix.Port) {
	_, source, _ := strings.Cut(from, "/")
	_, destination, _ := strings.Cut(to, "/")
	v := c.VerdictAs(source, destination)
	for _, d := range []policy.Decision{v.Egress, v.Ingress} {
		if !d.Allowed {
			r.note(d.Reason, from, to, p)
		}
	}
}

func (r *reasons) note(text, from, to string, p matrix.Port) {
	found := r.texts[text]
	if found == nil {
		found = &reason{text: text, known: map[[2]string]*deniedPair{}}
		r.texts[text] = found
		r.all = append(r.all, found)
	}
	pair := found.known[[2]string{from, to}]
	if pair == nil {
		pair = &deniedPair{from: from, to: to}
		found.known[[2]string{from, to}] = pair
		found.pairs = append(found.pairs, pair)
	}
	if !slices.Contains(pair.ports, p) {
		pair.ports = append(pair.ports, p)
	}
}

// print prints each reason and below it whom it denies.
func (r reasons) print(w io.Writer, width int) {
	for _, each := range r.all {
		wrap(w, "", "✗ "+each.text, width)
		for _, line := range each.lines() {
			wrap(w, "    ", line, width)
		}
	}
}

// lines are the pairs, put together: all destinations of a source, then all sources with the same destinations.
func (r *reason) lines() []string {
	type group struct {
		ports    string
		from, to []string
	}
	var bySource, all []group
	for _, d := range r.pairs {
		ports := d.ports.String()
		i := slices.IndexFunc(bySource, func(g group) bool { return g.from[0] == d.from && g.ports == ports })
		if i < 0 {
			i = len(bySource)
			bySource = append(bySource, group{ports: ports, from: []string{d.from}})
		}
		bySource[i].to = append(bySource[i].to, d.to)
	}
	for _, g := range bySource {
		i := slices.IndexFunc(all, func(known group) bool { return known.ports == g.ports && slices.Equal(known.to, g.to) })
		if i < 0 {
			all = append(all, g)
			continue
		}
		all[i].from = append(all[i].from, g.from...)
	}
	lines := make([]string, len(all))
	for i, g := range all {
		lines[i] = fmt.Sprintf("%s from %s to %s", g.ports, few(g.from), few(g.to))
	}
	return lines
}

// few is the first of many names.
func few(names []string) string {
	const most = 12
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d others", strings.Join(names[:most], ", "), len(names)-most)
}

// wrap prints words in lines that fit, each with a beginning.
func wrap(w io.Writer, begin, text string, width int) {
	line := begin
	for _, word := range strings.Fields(text) {
		if len(line) > len(begin) && len(line)+len(word) > width {
			fmt.Fprintln(w, strings.TrimRight(line, " "))
			line = begin + "    "
		}
		line += word + " "
	}
	fmt.Fprintln(w, strings.TrimRight(line, " "))
}
