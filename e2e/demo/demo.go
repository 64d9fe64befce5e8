// Package demo shows policies at work: steps that add and remove policies, and after each the matrix of
// who reaches whom, compared with what the policies say.
//
// Input: a cluster with Kith and without policies. Output: text for people, and whether every cell was as
// expected. Invariant: what is expected is written down by hand in steps.go, not computed from policies.
// Out of scope: bringing the cluster up, the proof of encryption (the command demo does both).
package demo

import (
	"context"
	"embed"
	"fmt"
	"io"
	"strings"
	"time"
)

//go:embed manifests
var manifests embed.FS

// Cluster is how the demo reaches a cluster.
type Cluster interface {
	Kubectl(ctx context.Context, args ...string) (string, error)
	Apply(ctx context.Context, manifests string) error
}

// settle is how long a step may take to become true: an update has to reach the nodes.
const settle = 20 * time.Second

// Demo is a run of the steps.
type Demo struct {
	Cluster Cluster
	Out     io.Writer
	Paint   Paint
	targets []target
}

// Run runs all steps and returns how many cells were not as expected.
func (d *Demo) Run(ctx context.Context) (wrong int, err error) {
	d.say("\nTwo namespaces: in shop the pods api, coffee and stock; in default the pods hello and curl,\nand the Service hello, whose port 80 is the pod's port my-http (8080).")
	if err := d.apply(ctx, "workloads"); err != nil {
		return 0, err
	}
	for _, ns := range []string{"shop", "default"} {
		if _, err := d.Cluster.Kubectl(ctx, "-n", ns, "wait", "--for=condition=Ready", "pod", "--all", "--timeout=180s"); err != nil {
			return 0, err
		}
	}
	if d.targets, err = d.findTargets(ctx); err != nil {
		return 0, err
	}
	d.showPlaces()
	all := steps()
	for i, s := range all {
		n, err := d.step(ctx, fmt.Sprintf("%d/%d", i+1, len(all)), s)
		if err != nil {
			return wrong, fmt.Errorf("step %d, %s: %w", i+1, s.title, err)
		}
		wrong += n
	}
	return wrong, nil
}

func (d *Demo) say(format string, args ...any) { fmt.Fprintf(d.Out, format+"\n", args...) }

func (d *Demo) apply(ctx context.Context, name string) error {
	content, err := manifests.ReadFile("manifests/" + name + ".yaml")
	if err != nil {
		return err
	}
	return d.Cluster.Apply(ctx, string(content))
}

func (d *Demo) remove(ctx context.Context, p policy) error {
	_, err := d.Cluster.Kubectl(ctx, "-n", p.namespace, "delete", "networkpolicy", p.name)
	return err
}

// step changes policies, waits until the matrix is as expected or the time to settle is over, and shows it.
func (d *Demo) step(ctx context.Context, number string, s step) (wrong int, err error) {
	d.say("\n%s", d.Paint.Bold(fmt.Sprintf("Step %s: %s", number, s.title)))
	for _, p := range s.remove {
		d.say("  kubectl -n %s delete networkpolicy %s", p.namespace, p.name)
		if err := d.remove(ctx, p); err != nil {
			return 0, err
		}
	}
	for _, p := range s.add {
		d.say("  kubectl apply -f e2e/demo/manifests/%s.yaml", p.name)
		if err := d.apply(ctx, p.name); err != nil {
			return 0, err
		}
	}
	began := time.Now()
	for {
		got, err := d.measure(ctx)
		if err != nil {
			return 0, err
		}
		wrong := d.countWrong(s, got)
		if wrong == 0 || time.Since(began) > settle {
			d.show(s, got)
			return wrong, nil
		}
		time.Sleep(500 * time.Millisecond)
	}
}

func (d *Demo) show(s step, got matrix) {
	const column = 16
	header := fmt.Sprintf("\n    %-*s", column, `from \ to`)
	for _, to := range d.targets {
		header += fmt.Sprintf(" %-*s", column, to.name)
	}
	d.say("%s", strings.TrimRight(header, " "))
	for _, from := range d.targets {
		if from.pod == "" {
			continue
		}
		line := fmt.Sprintf("    %-*s", column, from.name)
		for _, to := range d.targets {
			cell, width := d.cell(s, got, from, to)
			line += " " + cell + strings.Repeat(" ", column-width)
		}
		d.say("%s", strings.TrimRight(line, " "))
	}
}

// cell is the text of one cell and how wide it looks.
func (d *Demo) cell(s step, got matrix, from, to target) (text string, width int) {
	if from.name == to.name {
		return "·", 1
	}
	mark := map[bool]string{true: "✓", false: "✗"}
	reached, want := got[edge{from.name, to.name}], s.opens(from.name, to.name)
	switch {
	case reached != want:
		text := mark[reached] + " want " + mark[want]
		return d.Paint.Wrong(text), len([]rune(text))
	case reached:
		return d.Paint.Open("✓"), 1
	}
	return d.Paint.Closed("✗"), 1
}

func (d *Demo) countWrong(s step, got matrix) int {
	wrong := 0
	for e, reached := range got {
		if e.from != e.to && reached != s.opens(e.from, e.to) {
			wrong++
		}
	}
	return wrong
}
