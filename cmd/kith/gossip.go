package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kithnet/kith/cmd/kith/status"
)

// The Secret with the gossip keys, one a line, and the annotation that names the new one while keys are changed.
const (
	gossipSecret = "kith-gossip"
	gossipField  = "key"
	rotateTo     = "kith.network/rotate-to"
)

// gossipRing is the Secret's content: keys in base64, the first is sent with; to is the fingerprint of the new key
// while a rotation is under way.
type gossipRing struct {
	keys []string
	to   string
}

// rotator is what a rotation needs of the cluster.
type rotator interface {
	load(context.Context) (gossipRing, error)
	save(context.Context, gossipRing) error
	// keys are the fingerprints of every node's keys; a node that does not answer is an error.
	keys(context.Context) (map[string][]string, error)
}

// rotation makes a new gossip key, and waits between the steps until every node has made the last: the new key is
// accepted by all before anybody sends with it, and sent with by all before the old one goes. Cut off anywhere, it goes
// on from what the Secret says.
type rotation struct {
	rotator
	out   io.Writer
	pause time.Duration
}

func (r rotation) run(ctx context.Context) error {
	for {
		ring, err := r.load(ctx)
		if err != nil {
			return err
		}
		next, want, err := ring.next(freshKey)
		if err != nil {
			return err
		}
		if want != nil {
			if err := r.await(ctx, want); err != nil {
				return err
			}
		}
		if err := r.save(ctx, next); err != nil {
			return err
		}
		if next.to == "" {
			fmt.Fprintln(r.out, "The old key is gone: gossip has a new key on every node.")
			return nil
		}
		fmt.Fprintf(r.out, "Key %s is %s.\n", next.to, next.state())
	}
}

func freshKey() string {
	key := make([]byte, 32)
	rand.Read(key)
	return base64.StdEncoding.EncodeToString(key)
}

// next is the ring after one step, and what the keys of every node must be like before it.
func (g gossipRing) next(fresh func() string) (gossipRing, func(keys []string) bool, error) {
	if g.to == "" {
		if len(g.keys) != 1 {
			return g, nil, fmt.Errorf("secret %s has %d keys and no rotation is under way: leave one of them", gossipSecret, len(g.keys))
		}
		key := fresh()
		return gossipRing{keys: append(slices.Clone(g.keys), key), to: fingerprint(key)}, nil, nil
	}
	at := slices.IndexFunc(g.keys, func(key string) bool { return fingerprint(key) == g.to })
	switch {
	case at < 0:
		return g, nil, fmt.Errorf("secret %s does not hold key %s, which its annotation %s names: remove the annotation", gossipSecret, g.to, rotateTo)
	case at > 0:
		keys := slices.Concat(g.keys[at:at+1], g.keys[:at], g.keys[at+1:])
		return gossipRing{keys: keys, to: g.to}, func(keys []string) bool { return slices.Contains(keys, g.to) }, nil
	}
	return gossipRing{keys: g.keys[:1]}, func(keys []string) bool { return len(keys) > 0 && keys[0] == g.to }, nil
}

func (g gossipRing) state() string {
	if len(g.keys) > 0 && fingerprint(g.keys[0]) == g.to {
		return "sent with"
	}
	return "accepted"
}

func fingerprint(key string) string {
	raw, err := base64.StdEncoding.DecodeString(key)
	if err != nil {
		return ""
	}
	return status.Fingerprint(raw)
}

// await returns when every node's keys are as wanted.
func (r rotation) await(ctx context.Context, want func([]string) bool) error {
	for {
		var missing []string
		nodes, err := r.keys(ctx)
		for node, keys := range nodes {
			if !want(keys) {
				missing = append(missing, node)
			}
		}
		if err == nil && len(missing) == 0 {
			return nil
		}
		slices.Sort(missing)
		if err == nil {
			err = fmt.Errorf("not yet on %s", strings.Join(missing, ", "))
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for every node: %w (run it again to go on)", err)
		case <-time.After(r.pause):
		}
	}
}

func (k *cluster) load(ctx context.Context) (gossipRing, error) {
	if _, err := k.locate(ctx); err != nil {
		return gossipRing{}, err
	}
	secret, err := k.core.Secrets(k.namespace).Get(ctx, gossipSecret, metav1.GetOptions{})
	if err != nil {
		return gossipRing{}, fmt.Errorf("get secret %s/%s: %w", k.namespace, gossipSecret, err)
	}
	return gossipRing{keys: strings.Fields(string(secret.Data[gossipField])), to: secret.Annotations[rotateTo]}, nil
}

func (k *cluster) save(ctx context.Context, ring gossipRing) error {
	secret, err := k.core.Secrets(k.namespace).Get(ctx, gossipSecret, metav1.GetOptions{})
	if err == nil {
		put(secret, ring)
		_, err = k.core.Secrets(k.namespace).Update(ctx, secret, metav1.UpdateOptions{})
	}
	if err != nil {
		return fmt.Errorf("change secret %s/%s: %w", k.namespace, gossipSecret, err)
	}
	return nil
}

func put(secret *corev1.Secret, ring gossipRing) {
	if secret.Data == nil {
		secret.Data = map[string][]byte{}
	}
	secret.Data[gossipField] = []byte(strings.Join(ring.keys, "\n") + "\n")
	if ring.to == "" {
		delete(secret.Annotations, rotateTo)
		return
	}
	if secret.Annotations == nil {
		secret.Annotations = map[string]string{}
	}
	secret.Annotations[rotateTo] = ring.to
}

func (k *cluster) keys(ctx context.Context) (map[string][]string, error) {
	nodes, err := k.status(ctx)
	if err != nil {
		return nil, err
	}
	out := map[string][]string{}
	for _, n := range nodes {
		if n.Report == nil {
			return nil, fmt.Errorf("%s does not answer: %s", n.Node, n.Error)
		}
		out[n.Node] = n.Report.Gossip.Keys
	}
	return out, nil
}

// gossip runs `kith gossip rotate`.
func (c console) gossip(ctx context.Context, args []string) int {
	var f statusFlags
	set := flag.NewFlagSet("gossip rotate", flag.ContinueOnError)
	set.SetOutput(c.err)
	set.StringVar(&f.kubeconfig, "kubeconfig", "", "how to reach the cluster, a `file`; default $KUBECONFIG or ~/.kube/config")
	set.StringVar(&f.kubecontext, "context", "", "the kubeconfig's context to use, a `name`")
	limit := set.Duration("timeout", 5*time.Minute, "how long to wait for all nodes")
	set.Usage = func() {
		fmt.Fprintf(c.err, "Gives gossip a new key, with no member lost. Cut off, run it again: it goes on.\n\nUsage:\n  %s gossip rotate [flags]\n\nFlags:\n", c.name)
		set.PrintDefaults()
	}
	if len(args) == 0 || args[0] != "rotate" {
		set.Usage()
		return exitUsage
	}
	if err := set.Parse(args[1:]); errors.Is(err, flag.ErrHelp) {
		return exitReady
	} else if err != nil || set.NArg() > 0 {
		return exitUsage
	}
	f.timeout = 10 * time.Second
	k, err := connect(f)
	if err == nil {
		ctx, cancel := context.WithTimeout(ctx, *limit)
		defer cancel()
		err = rotation{rotator: k, out: c.out, pause: time.Second}.run(ctx)
	}
	if err != nil {
		fmt.Fprintf(c.err, "%s gossip rotate: %v\n", c.name, err)
		return exitNotReady
	}
	return exitReady
}
