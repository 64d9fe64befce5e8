package kube

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kithnet/kith/overlay"
)

const (
	firstRetry = 250 * time.Millisecond
	lastRetry  = 10 * time.Second
)

// EnforcedAnnotation holds a digest of the cluster policies that a node's kernel has.
const EnforcedAnnotation = "kith.network/cluster-policies"

// Publication is what a node says of itself on its Node object.
type Publication struct {
	SigningKey overlay.SigningKey
	Claim      []byte // sealed
}

// Publish puts what this node says of itself on its own Node object. It tries until
// it succeeds or ctx ends.
func (n *Nodes) Publish(ctx context.Context, p Publication) error {
	return n.annotate(ctx, map[string]string{
		overlay.SigningKeyAnnotation: p.SigningKey.String(),
		overlay.ClaimAnnotation:      base64.StdEncoding.EncodeToString(p.Claim),
	})
}

// PublishEnforced puts the digest of what this node enforces on its own Node object, like Publish.
func (n *Nodes) PublishEnforced(ctx context.Context, digest string) error {
	return n.annotate(ctx, map[string]string{EnforcedAnnotation: digest})
}

func (n *Nodes) annotate(ctx context.Context, want map[string]string) error {
	for delay := firstRetry; ; delay = min(2*delay, lastRetry) {
		if n.published(want) {
			return nil
		}
		err := n.patch(ctx, want)
		if err == nil {
			return nil
		}
		n.log.Warn("own node not annotated yet", "node", n.self, "retry", delay, "error", err)
		select {
		case <-ctx.Done():
			return fmt.Errorf("annotate node %s: %w", n.self, ctx.Err())
		case <-time.After(delay):
		}
	}
}

func (n *Nodes) published(want map[string]string) bool {
	object, exists, err := n.informer.GetStore().GetByKey(n.self)
	if err != nil || !exists {
		return false
	}
	node, ok := object.(*corev1.Node)
	if !ok {
		return false
	}
	for name, value := range want {
		if node.Annotations[name] != value {
			return false
		}
	}
	return true
}

func (n *Nodes) patch(ctx context.Context, annotations map[string]string) error {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": annotations}})
	if err != nil {
		return fmt.Errorf("encode patch: %w", err)
	}
	_, err = n.client.CoreV1().Nodes().Patch(ctx, n.self, types.MergePatchType, patch, metav1.PatchOptions{})
	return err
}
