package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"strings"

	"github.com/kithnet/kith/policy"
	"github.com/kithnet/kith/policy/matrix"
)

// cell is a cell of the matrix in JSON.
type cell struct {
	From     string    `json:"from"`
	To       string    `json:"to"`
	Port     uint16    `json:"port"`
	Protocol string    `json:"protocol"`
	Family   string    `json:"family,omitempty"`  // only where the two of a pair differ
	Hairpin  bool      `json:"hairpin,omitempty"` // by a Service that leads back to the pod: only where that differs
	Verdict  string    `json:"verdict,omitempty"`
	Expected string    `json:"expected,omitempty"` // only of a cell that differs: allow, deny or none
	Ingress  *decision `json:"ingress,omitempty"`
	Egress   *decision `json:"egress,omitempty"`
}

// decision is one end's part. Tier, policy and rule are null where none decided.
type decision struct {
	Verdict string  `json:"verdict"`
	Tier    *string `json:"tier"`
	Policy  *string `json:"policy"`
	Rule    *int    `json:"rule"`
	Reason  string  `json:"reason"`
}

func newCell(c matrix.Cell) cell {
	v := c.Verdict()
	ingress, egress := newDecision(v.Ingress), newDecision(v.Egress)
	return cell{
		From: c.From.Name, To: c.To.Name, Port: c.Flow.Port, Protocol: c.Flow.Protocol.String(), Family: c.Family,
		Hairpin: c.Flow.Hairpin, Verdict: verdict(c.Allowed).String(), Ingress: &ingress, Egress: &egress,
	}
}

func newDecision(d policy.Decision) decision {
	out := decision{Verdict: verdict(d.Allowed).String(), Reason: d.Reason}
	if d.Tier != "" {
		out.Tier = &d.Tier
	}
	if d.Policy != (policy.Name{}) {
		name := d.Policy.String()
		out.Policy, out.Rule = &name, &d.Rule
	}
	return out
}

// verdict is a decision's word.
type verdict bool

func (v verdict) String() string {
	if v {
		return "allow"
	}
	return "deny"
}

// buffered prints by a function, and says what became of the writing.
func buffered(w io.Writer, print func(io.Writer) error) error {
	out := bufio.NewWriter(w)
	if err := print(out); err != nil {
		return err
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	return nil
}

// writeJSON writes a list of cells, each in a line of its own.
func writeJSON(w io.Writer, cells iter.Seq[cell]) error {
	return buffered(w, func(out io.Writer) error {
		separator := "[\n"
		for c := range cells {
			text, err := json.Marshal(c)
			if err != nil {
				return fmt.Errorf("write cell: %w", err)
			}
			if _, err := fmt.Fprintf(out, "%s%s", separator, text); err != nil {
				return fmt.Errorf("write: %w", err)
			}
			separator = ",\n"
		}
		if separator == "[\n" {
			_, _ = io.WriteString(out, "[")
		}
		_, err := io.WriteString(out, "\n]\n")
		return err
	})
}

// writeList writes a line for each cell, in the form that -expect reads.
func writeList(w io.Writer, cells iter.Seq[matrix.Cell]) error {
	return buffered(w, func(out io.Writer) error {
		for c := range cells {
			if _, err := io.WriteString(out, line(c)+"\n"); err != nil {
				return fmt.Errorf("write: %w", err)
			}
		}
		return nil
	})
}

func line(c matrix.Cell) string {
	p := matrix.Port{Protocol: c.Flow.Protocol, Number: c.Flow.Port}
	return strings.TrimSpace(strings.Join([]string{c.From.Name, c.To.Name, p.String(), verdict(c.Allowed).String(), c.Family}, " "))
}
