package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"github.com/kithnet/kith/cmd/kith/status"
	"github.com/kithnet/kith/overlay"
)

const (
	gossipSecret    = "kith-gossip"
	gossipSecretKey = "key"
	gossipKeyLength = 32
	maxGossipKeys   = 8
)

// acceptedPrefix begins the names of the Secret's entries that say which new signing keys an administrator accepts; the
// node's name follows. They are here, and not on Nodes, because who may patch Nodes may not write this Secret.
const acceptedPrefix = "node."

// gossipKeys follows the Secret with the keys that the cluster's gossip is encrypted with: those received may bear, and
// first the one that is sent with. What cannot be read changes nothing.
type gossipKeys struct {
	log       *slog.Logger
	client    kubernetes.Interface
	namespace string
	changed   chan struct{}
	accept    func(map[string]overlay.Acceptance) // receives what administrators accept

	mu      sync.Mutex
	keys    [][]byte
	problem string
}

func newGossipKeys(log *slog.Logger, client kubernetes.Interface, namespace string, remembered [][]byte) *gossipKeys {
	return &gossipKeys{
		log: log, client: client, namespace: namespace, keys: remembered, changed: make(chan struct{}, 1),
		accept: func(map[string]overlay.Acceptance) {},
	}
}

// Keys returns the keys; none if they are not known yet.
func (g *gossipKeys) Keys() ([][]byte, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.keys) == 0 {
		return nil, errors.New("the gossip key is not known yet: " + g.problem)
	}
	return slices.Clone(g.keys), nil
}

// Problem says what is wrong with the Secret; empty: nothing.
func (g *gossipKeys) Problem() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.problem
}

// Changed receives after Keys changed. It is for one consumer.
func (g *gossipKeys) Changed() <-chan struct{} { return g.changed }

func (g *gossipKeys) run(ctx context.Context) error {
	factory := informers.NewSharedInformerFactoryWithOptions(g.client, 0, informers.WithNamespace(g.namespace),
		informers.WithTweakListOptions(func(o *metav1.ListOptions) {
			o.FieldSelector = fields.OneTermEqualSelector(metav1.ObjectNameField, gossipSecret).String()
		}))
	informer := factory.Core().V1().Secrets().Informer()
	_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    g.take,
		UpdateFunc: func(_, secret any) { g.take(secret) },
	})
	if err != nil {
		return fmt.Errorf("watch secret %s: %w", gossipSecret, err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		informer.RunWithContext(ctx)
	}()
	defer func() { <-done }()
	if cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) && len(informer.GetStore().List()) == 0 {
		_, err = persist(ctx, g.log, "gossip key", func() (struct{}, error) { return struct{}{}, g.make(ctx) })
	}
	<-ctx.Done()
	return ignoreEnd(ctx, err)
}

// make makes the Secret. The first agent that finds none does; those that lose that race hear of the winner's.
func (g *gossipKeys) make(ctx context.Context) error {
	fresh := make([]byte, gossipKeyLength)
	rand.Read(fresh)
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: gossipSecret, Namespace: g.namespace},
		Data:       map[string][]byte{gossipSecretKey: []byte(base64.StdEncoding.EncodeToString(fresh))},
	}
	_, err := g.client.CoreV1().Secrets(g.namespace).Create(ctx, secret, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("make secret %s/%s: %w", g.namespace, gossipSecret, err)
	}
	return nil
}

func (g *gossipKeys) take(object any) {
	secret, ok := object.(*corev1.Secret)
	if !ok || secret.Name != gossipSecret {
		return
	}
	accepted, unread := parseAccepted(secret)
	g.accept(accepted)
	keys, err := parseGossipKeys(secret)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.problem = ""
	if both := errors.Join(err, unread); both != nil {
		g.problem = both.Error()
		g.log.Error("secret has a mistake: what it concerns is not taken", "error", both)
	}
	if err != nil {
		return
	}
	if slices.EqualFunc(keys, g.keys, slices.Equal[[]byte]) {
		return
	}
	g.keys = keys
	nudge(g.changed)
}

// parseGossipKeys reads one key a line.
func parseGossipKeys(secret *corev1.Secret) ([][]byte, error) {
	lines := strings.Fields(string(secret.Data[gossipSecretKey]))
	keys := make([][]byte, 0, len(lines))
	for _, line := range lines {
		key, err := base64.StdEncoding.DecodeString(line)
		if err != nil || len(key) != gossipKeyLength {
			lines = nil
			break
		}
		keys = append(keys, key)
	}
	if len(lines) == 0 || len(lines) > maxGossipKeys {
		return nil, fmt.Errorf("secret %s/%s: each line of %q must be the base64 of %d random bytes (head -c %d /dev/urandom | base64); 1 to %d lines, the first is sent with",
			secret.Namespace, secret.Name, gossipSecretKey, gossipKeyLength, gossipKeyLength, maxGossipKeys)
	}
	return keys, nil
}

// parseAccepted reads the accepted signing keys by node, and leaves out what is none.
func parseAccepted(secret *corev1.Secret) (map[string]overlay.Acceptance, error) {
	out := map[string]overlay.Acceptance{}
	var wrong []string
	for name, text := range secret.Data {
		node, ok := strings.CutPrefix(name, acceptedPrefix)
		if !ok {
			continue
		}
		a, err := overlay.ParseAcceptance(string(text))
		if err != nil {
			wrong = append(wrong, name)
			continue
		}
		out[node] = a
	}
	if len(wrong) == 0 {
		return out, nil
	}
	slices.Sort(wrong)
	return out, fmt.Errorf("secret %s/%s: entries %q: each must be a Node's UID and its signing key in base64, with a space between them",
		secret.Namespace, secret.Name, wrong)
}

// fingerprints name keys without telling them.
func fingerprints(keys [][]byte) []string {
	out := make([]string, 0, len(keys))
	for _, key := range keys {
		out = append(out, status.Fingerprint(key))
	}
	return out
}
