package kube

import (
	"context"
	"fmt"
	"sync"

	"k8s.io/apimachinery/pkg/util/resourceversion"
)

// progress is how far a kind's changes have been handed on. The API server gives them in the order of their resource
// versions, so one version stands for all objects.
type progress struct {
	mu      sync.Mutex
	version string
	moved   chan struct{} // closed when version changes
}

func newProgress() *progress { return &progress{moved: make(chan struct{})} }

func (p *progress) set(version string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.version = version
	close(p.moved)
	p.moved = make(chan struct{})
}

// wait returns when the version, or a later one, has been handed on.
func (p *progress) wait(ctx context.Context, version string) error {
	for {
		p.mu.Lock()
		have, moved := p.version, p.moved
		p.mu.Unlock()
		if reached(have, version) {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return fmt.Errorf("wait for version %s of the API, the watch is at %s: %w", version, have, context.Cause(ctx))
		}
	}
}

func reached(have, want string) bool {
	order, err := resourceversion.CompareResourceVersion(have, want)
	return err == nil && order >= 0
}
