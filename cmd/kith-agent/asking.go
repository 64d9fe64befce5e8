package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	policykube "github.com/kithnet/kith/policy/kube"
	"github.com/kithnet/kith/policy/ruleset"
)

// policySource, clusterPolicySource and namespaceSource are watches. Each function returns when the enforcer has been handed
// what the API server had when it was called.
type policySource interface {
	CatchUpIn(ctx context.Context, namespace string) error
	CatchUpAll(context.Context) error
}

type clusterPolicySource interface {
	CatchUpAll(context.Context) error
}

type namespaceSource interface {
	CatchUpNamespace(ctx context.Context, name string) error
	CatchUpNamespaces(context.Context) error
}

type orderSources struct {
	policies   policySource
	cluster    clusterPolicySource
	namespaces namespaceSource
}

const (
	// orderLimit bounds how long a change of labels is held. An API server that answers at all answers within it; after
	// it the change takes effect under the policies that are known.
	orderLimit = 5 * time.Second
	// startLimit bounds the same for an agent that starts.
	startLimit = 30 * time.Second
	// severalSpaces is from how many namespaces on all are asked about at once.
	severalSpaces = 8
	// perQuestion and perNode space the questions: a node asks at most 20 a second, and a cluster begins to ask at
	// most 500 times a second.
	perQuestion = 50 * time.Millisecond
	perNode     = 2 * time.Millisecond
	askRetry    = 200 * time.Millisecond
)

// run asks about what is held until ctx ends. All that came while it paused is asked about at once.
func (o *order) run(ctx context.Context) error {
	var asking errgroup.Group
	for {
		select {
		case <-ctx.Done():
			return asking.Wait()
		case <-o.came:
		}
		now := o.newInquiry(o.ask())
		for _, g := range now.groups {
			asking.Go(func() error { o.settle(ctx, g); return nil })
		}
		select {
		case <-ctx.Done():
		case <-time.After(max(time.Duration(len(now.questions))*perQuestion, time.Duration(o.nodes())*perNode)):
		}
	}
}

// inquiry is what is asked at once: each question once, however many changes wait for it.
type inquiry struct {
	groups    map[string]*group
	questions map[string]*question
}

// group is the objects whose changes wait for the same answers.
type group struct {
	keys  []labelled
	needs []*question
}

type question struct {
	ask    func(context.Context) error
	once   sync.Once
	answer error
}

// newInquiry finds what is to be asked. About many namespaces it asks at once: that costs less than one by one.
func (o *order) newInquiry(changes map[labelled]heldChange) *inquiry {
	r := &inquiry{groups: map[string]*group{}, questions: map[string]*question{}}
	policies, spaces := map[string]bool{}, map[string]bool{}
	for k, c := range changes {
		spaces[k.Namespace] = true
		for _, n := range c.stake.Namespaces {
			policies[n] = true
		}
	}
	for k, c := range changes {
		needs := []string{r.question("cluster network policies", o.sources.cluster.CatchUpAll)}
		if c.pod != nil {
			needs = append(needs, o.aboutNamespace(r, k.Namespace, spaces))
		}
		for _, n := range c.stake.Namespaces {
			needs = append(needs, o.aboutPolicies(r, n, policies))
		}
		r.wait(k, needs)
	}
	return r
}

func (o *order) aboutNamespace(r *inquiry, name string, of map[string]bool) string {
	if len(of) > severalSpaces {
		return r.question("namespaces", o.sources.namespaces.CatchUpNamespaces)
	}
	return r.question("namespace "+name, func(ctx context.Context) error { return o.sources.namespaces.CatchUpNamespace(ctx, name) })
}

func (o *order) aboutPolicies(r *inquiry, namespace string, of map[string]bool) string {
	if len(of) > severalSpaces {
		return r.question("network policies", o.sources.policies.CatchUpAll)
	}
	return r.question("network policies of "+namespace, func(ctx context.Context) error { return o.sources.policies.CatchUpIn(ctx, namespace) })
}

// question enters a question, unless it is there, and returns its name.
func (r *inquiry) question(name string, ask func(context.Context) error) string {
	if r.questions[name] == nil {
		r.questions[name] = &question{ask: ask}
	}
	return name
}

// wait enters an object under the questions that its change waits for.
func (r *inquiry) wait(k labelled, needs []string) {
	slices.Sort(needs)
	needs = slices.Compact(needs)
	key := strings.Join(needs, "\n")
	if r.groups[key] == nil {
		r.groups[key] = &group{}
		for _, name := range needs {
			r.groups[key].needs = append(r.groups[key].needs, r.questions[name])
		}
	}
	r.groups[key].keys = append(r.groups[key].keys, k)
}

// settle hands on a group's changes when all its questions are answered, or the time for it is over: an agent that cannot
// ask enforces what it knows. Other groups do not wait for this one.
func (o *order) settle(ctx context.Context, g *group) {
	all, cancel := context.WithTimeout(ctx, orderLimit)
	defer cancel()
	var answers errgroup.Group
	for _, q := range g.needs {
		answers.Go(func() error { return q.get(all) })
	}
	err := answers.Wait()
	if ctx.Err() != nil {
		return
	}
	o.say(len(g.keys), err)
	o.enforcer.Update(func(r *ruleset.Compiler) { o.release(g.keys, r) })
}

// get asks until there is an answer, for all groups that need it.
func (q *question) get(ctx context.Context) error {
	q.once.Do(func() {
		for {
			q.answer = q.ask(ctx)
			if q.answer == nil {
				return
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(askRetry):
			}
		}
	})
	return q.answer
}

// say logs what could not be asked, when that begins and ends.
func (o *order) say(changes int, err error) {
	o.mu.Lock()
	before := o.doubt
	o.doubt = ""
	if err != nil {
		o.doubt = err.Error()
	}
	o.mu.Unlock()
	switch {
	case err != nil && before == "":
		o.log.Warn("changes of labels take effect before it is certain which policies were made before them", "changes", changes, "after", orderLimit, "error", err)
	case err == nil && before != "":
		o.log.Info("changes of labels wait for earlier policies again")
	}
}

// complete lets the enforcer write: the lists that the watches began with are not of one moment, and what was made between
// them must be known, too. Until then the table stays as it was found. Where a watch does not bring what is there, which is
// no matter of the API server's being away, it is not waited for.
func (o *order) complete(ctx context.Context) error {
	o.enforcer.Update(func(*ruleset.Compiler) { o.begin() })
	_, err := persist(ctx, o.log, "all policies", func() (struct{}, error) {
		err := o.sources.catchUp(ctx)
		if errors.Is(err, policykube.ErrBehind) && ctx.Err() == nil {
			o.log.Warn("policy is written before it is certain that it is complete", "after", startLimit, "error", err)
			err = nil
		}
		return struct{}{}, err
	})
	if err == nil {
		o.enforcer.Complete()
	}
	return ignoreEnd(ctx, err)
}

// catchUp returns when the enforcer has been handed all policies and namespaces that the API server has, so that an agent
// that starts does not write pods of one moment with policies of a moment before.
func (s orderSources) catchUp(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.policies.CatchUpAll(ctx) })
	g.Go(func() error { return s.cluster.CatchUpAll(ctx) })
	g.Go(func() error { return s.namespaces.CatchUpNamespaces(ctx) })
	if err := g.Wait(); err != nil {
		return fmt.Errorf("catch up with the API server: %w", err)
	}
	return nil
}
