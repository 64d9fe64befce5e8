package main

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/kithnet/kith/cmd/kith/status"
)

// maxPeerLines bounds the table of peers, which grows with the square of the number of nodes.
const maxPeerLines = 100

// printStatus writes the human form of a status.
func printStatus(w io.Writer, all clusterStatus, now time.Time) {
	printNodes(w, all.Nodes, now)
	printPeers(w, all.Nodes, now)
	printTrouble(w, all.Nodes, now)
}

func printNodes(w io.Writer, nodes []nodeStatus, now time.Time) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row(t, "NODE", "READY", "DEVICE", "MTU", "KEYS", "MEMBERS", "PEERS", "IDENTITIES", "POLICIES", "SUBJECTS", "PODS", "LAST APPLY", "VERSION")
	for _, n := range nodes {
		r := n.Report
		if r == nil {
			row(t, n.Node, "?", "-", "-", "-", "-", "-", "-", "-", "-", "-", "-", "-")
			continue
		}
		row(t, n.Node, yesNo(n), device(r.Device), r.Device.MTU, keys(r.Keys), members(r.Members), peers(r.Peers),
			r.Identities, r.Policies, r.Subjects, r.Attachments, apply(r.Apply, now), r.Version)
	}
	_ = t.Flush()
}

func printPeers(w io.Writer, nodes []nodeStatus, now time.Time) {
	lines := 0
	for _, n := range nodes {
		if n.Report != nil {
			lines += len(n.Report.Peers)
		}
	}
	switch {
	case lines == 0:
		return
	case lines > maxPeerLines:
		fmt.Fprintf(w, "\n%d tunnels are not listed here: see -o json, or -local on a node.\n", lines)
		return
	}
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row(t, "FROM", "TO", "ENDPOINT", "LANE", "PRESHARED KEY", "LAST HANDSHAKE", "RECEIVED", "SENT")
	for _, n := range nodes {
		if n.Report == nil {
			continue
		}
		for _, p := range n.Report.Peers {
			row(t, n.Node, p.Node, endpoint(p), p.Lane, cmp.Or(p.PresharedKey, "unknown"), since(p.LastHandshake, now), size(p.RxBytes), size(p.TxBytes))
		}
	}
	_ = t.Flush()
}

func printTrouble(w io.Writer, nodes []nodeStatus, now time.Time) {
	var lines []string
	for _, n := range nodes {
		if n.Report == nil {
			lines = append(lines, fmt.Sprintf("%s does not answer: %s", n.Node, n.Error))
			continue
		}
		for _, reason := range n.Report.Reasons {
			lines = append(lines, fmt.Sprintf("%s is not ready: %s", n.Node, reason))
		}
		if n.Report.Apply.Error != "" {
			lines = append(lines, fmt.Sprintf("%s could not apply its rules: %s", n.Node, n.Report.Apply.Error))
		}
		if waits := n.Report.Keys.WaitsFor; len(waits) > 0 {
			lines = append(lines, fmt.Sprintf("%s waits with new keys for %s", n.Node, strings.Join(waits, ", ")))
		}
		for _, m := range n.Report.Members {
			if m.State != status.Alive {
				lines = append(lines, fmt.Sprintf("%s sees member %s as %s", n.Node, m.Node, m.State))
			}
		}
		lines = append(lines, silences(*n.Report, now)...)
		for _, problem := range n.Report.Problems {
			lines = append(lines, fmt.Sprintf("%s: %s", n.Node, problem))
		}
	}
	if len(lines) > 0 {
		fmt.Fprintf(w, "\n%s\n", strings.Join(lines, "\n"))
	}
}

func row(w io.Writer, cells ...any) {
	text := make([]string, len(cells))
	for i, c := range cells {
		text[i] = fmt.Sprint(c)
	}
	fmt.Fprintln(w, strings.Join(text, "\t"))
}

func yesNo(n nodeStatus) string {
	if n.ready() {
		return "yes"
	}
	return "no"
}

func device(d status.Device) string {
	if d.Kind == "" {
		return "none"
	}
	return fmt.Sprintf("%s (%s)", d.Name, d.Kind)
}

// keys is the generation of a node's keys and, while it changes, the one that all traffic of the node is in.
func keys(k status.Keys) string {
	switch {
	case k.Generation == 0:
		return "none"
	case k.Settled < k.Generation:
		return fmt.Sprintf("%d, settled %d", k.Generation, k.Settled)
	}
	return fmt.Sprint(k.Generation)
}

// members is how many of all are alive.
func members(all []status.Member) string {
	alive := 0
	for _, m := range all {
		if m.State == status.Alive {
			alive++
		}
	}
	return fmt.Sprintf("%d/%d", alive, len(all))
}

// peers is how many of all had a handshake; its age says little, as an idle tunnel makes none.
func peers(all []status.Peer) string {
	met := 0
	for _, p := range all {
		if !p.LastHandshake.IsZero() {
			met++
		}
	}
	return fmt.Sprintf("%d/%d", met, len(all))
}

func endpoint(p status.Peer) string {
	if !p.Endpoint.IsValid() {
		return "unknown"
	}
	return p.Endpoint.String()
}

func apply(a status.Apply, now time.Time) string {
	switch {
	case a.Error != "":
		return "failed"
	case a.At.IsZero():
		return "nothing yet"
	}
	return fmt.Sprintf("%s, took %s", since(a.At, now), a.Duration.Round(10*time.Microsecond))
}

func since(t, now time.Time) string {
	d := now.Sub(t)
	switch {
	case t.IsZero():
		return "never"
	case d < time.Second:
		return "now"
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds ago", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm ago", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh ago", int(d.Hours()))
	}
	return fmt.Sprintf("%dd ago", int(d.Hours())/24)
}

func size(bytes int64) string {
	const unit = 1024
	if bytes < unit {
		return fmt.Sprintf("%d B", bytes)
	}
	value, units := float64(bytes)/unit, "KMGTPE"
	for value >= unit && len(units) > 1 {
		value, units = value/unit, units[1:]
	}
	return fmt.Sprintf("%.1f %ciB", value, units[0])
}
