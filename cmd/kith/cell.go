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

// writeJSON writes a list of cells, each in a line of its own.
func writeJSON(w io.Writer, cells iter.Seq[cell]) error {
	out := bufio.NewWriter(w)
	separator := "[\n"
	for c := range cells {
		text, err := json.Marshal(c)
		if err != nil {
			return fmt.Errorf("write cell: %w", err)
		}
		_, _ = out.WriteString(separator)
		_, _ = out.Write(text)
		separator = ",\n"
	}
	if separator == "[\n" {
		_, _ = out.WriteString("[")
	}
	_, _ = out.WriteString("\n]\n")
	return out.Flush()
}

// writeList writes a line for each cell, in the form that -expect reads.
func writeList(w io.Writer, cells iter.Seq[matrix.Cell]) error {
	out := bufio.NewWriter(w)
	for c := range cells {
		_, _ = out.WriteString(line(c) + "\n")
	}
	return out.Flush()
}

func line(c matrix.Cell) string {
	p := matrix.Port{Protocol: c.Flow.Protocol, Number: c.Flow.Port}
	return strings.TrimSpace(strings.Join([]string{c.From.Name, c.To.Name, p.String(), verdict(c.Allowed).String(), c.Family}, " "))
}
