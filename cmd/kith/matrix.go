package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/kithnet/kith/cmd/kith/status"
)

// pair is how one node reaches another: what `kith status -matrix -o json` prints a list of.
type pair struct {
	From   string       `json:"from"`
	To     string       `json:"to"`
	Gossip status.State `json:"gossip"`
	// LastHandshake is zero if there was none yet.
	LastHandshake time.Time `json:"lastHandshake"`
	// Probes is what probes through the tunnel say; absent while nobody probes.
	Probes *status.Way `json:"probes,omitempty"`
}

// pairs has a pair for each two nodes of which the first answers, in order.
func pairs(nodes []nodeStatus) []pair {
	out := []pair{}
	for _, n := range nodes {
		if n.Report != nil {
			out = append(out, pairsFrom(*n.Report)...)
		}
	}
	slices.SortFunc(out, func(a, b pair) int { return cmp.Or(cmp.Compare(a.From, b.From), cmp.Compare(a.To, b.To)) })
	return out
}

func pairsFrom(r status.Report) []pair {
	to := map[string]*pair{}
	reach := func(node string) *pair {
		if to[node] == nil {
			to[node] = &pair{From: r.Node, To: node, Gossip: status.Unknown}
		}
		return to[node]
	}
	for _, m := range r.Members {
		reach(m.Node).Gossip = m.State
	}
	for _, p := range r.Peers {
		if met := &reach(p.Node).LastHandshake; met.Before(p.LastHandshake) {
			*met = p.LastHandshake
		}
	}
	for _, p := range r.Ways {
		reach(p.Node).Probes = &p
	}
	delete(to, r.Node)
	var out []pair
	for _, p := range to {
		out = append(out, *p)
	}
	return out
}

// good is true for a pair that nobody need look at.
func (p pair) good() bool {
	return p.Gossip == status.Alive && p.Probes != nil && p.Probes.Loss == 0 && p.Probes.SilentSince.IsZero() && p.Probes.MTU > 0
}

// printMatrix writes a line for each pair. Of a large cluster only those that are not good are listed.
func printMatrix(w io.Writer, nodes []nodeStatus, now time.Time) {
	all := pairs(nodes)
	shown := all
	if len(all) > maxPeerLines {
		shown = slices.DeleteFunc(slices.Clone(all), pair.good)
		fmt.Fprintf(w, "%d of %d pairs are good and not listed here: see -o json, or -local on a node.\n\n", len(all)-len(shown), len(all))
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row(t, "FROM", "TO", "GOSSIP", "LAST HANDSHAKE", "ROUND TRIP", "LOSS", "PATH MTU")
	for _, p := range shown {
		row(t, p.From, p.To, p.Gossip, since(p.LastHandshake, now), p.roundTrip(now), p.loss(), p.mtu())
	}
	_ = t.Flush()
	for _, n := range nodes {
		if n.Report == nil {
			fmt.Fprintf(w, "\n%s does not answer: %s\n", n.Node, n.Error)
		}
	}
}

func (p pair) roundTrip(now time.Time) string {
	switch {
	case p.Probes == nil:
		return "-"
	case !p.Probes.SilentSince.IsZero():
		return "silent for " + lasting(p.Probes.SilentSince, now)
	case p.Probes.RoundTrip == 0:
		return "-"
	}
	return p.Probes.RoundTrip.Round(10 * time.Microsecond).String()
}

// lasting is how long ago something began.
func lasting(t, now time.Time) string { return strings.TrimSuffix(since(t, now), " ago") }

func (p pair) loss() string {
	if p.Probes == nil {
		return "-"
	}
	return fmt.Sprintf("%.0f%%", 100*p.Probes.Loss)
}

func (p pair) mtu() string {
	if p.Probes == nil || p.Probes.MTU == 0 {
		return "-"
	}
	return fmt.Sprint(p.Probes.MTU)
}

// silences tells of the nodes that gossip calls alive and that answer nothing through the tunnel.
func silences(r status.Report, now time.Time) []string {
	var lines []string
	for _, p := range pairsFrom(r) {
		if p.Gossip != status.Alive || p.Probes == nil || p.Probes.SilentSince.IsZero() {
			continue
		}
		line := fmt.Sprintf("%s has had no answer from %s through the tunnel for %s, and gossip calls it alive", r.Node, p.To, lasting(p.Probes.SilentSince, now))
		if p.Probes.PeerRemade.After(p.Probes.SilentSince) {
			line += fmt.Sprintf("; its peer was made anew %s", since(p.Probes.PeerRemade, now))
		}
		lines = append(lines, line)
	}
	slices.Sort(lines)
	return lines
}
