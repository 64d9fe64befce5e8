package conntrack

import (
	"container/heap"
	"time"
)

// Selection picks the connections that end, from all of a table: of each holder so many as were judged. T is how the
// caller names a connection.
type Selection[T any] struct {
	census *Census
	heaps  map[Holder]*ranking[T]
}

// Select is a selection of what a judgement of the census ends. It has seen no connection yet.
func Select[T any](c *Census, j Judgement) *Selection[T] {
	s := &Selection[T]{census: c, heaps: make(map[Holder]*ranking[T], len(j.End))}
	for h, n := range j.End {
		if n > 0 {
			s.heaps[h] = &ranking[T]{most: n}
		}
	}
	return s
}

// Offer takes a connection into account. The name is asked for only if the connection is picked, for now.
func (s *Selection[T]) Offer(c Connection, name func() T) {
	h, ok := s.census.addresses.Holder(c)
	if !ok {
		return
	}
	r := s.heaps[h]
	if r == nil {
		return
	}
	rank := rank{c.ends(), s.census.longest[c.Class] - c.Rest}
	if len(r.all) < r.most {
		heap.Push(r, ranked[T]{rank, name()})
		return
	}
	if r.all[0].rank.before(rank) {
		r.all[0] = ranked[T]{rank, name()}
		heap.Fix(r, 0)
	}
}

// Picked are the connections that end.
func (s *Selection[T]) Picked() []T {
	var out []T
	for _, r := range s.heaps {
		for _, x := range r.all {
			out = append(out, x.name)
		}
	}
	return out
}

// rank says how little is lost with a connection.
type rank struct {
	ends   bool
	silent time.Duration
}

// before says that more is lost with it than with the other.
func (r rank) before(other rank) bool {
	if r.ends != other.ends {
		return other.ends
	}
	return r.silent < other.silent
}

type ranked[T any] struct {
	rank rank
	name T
}

// ranking is a heap of those that are picked of one holder, with which most is lost first.
type ranking[T any] struct {
	most int
	all  []ranked[T]
}

func (r *ranking[T]) Len() int           { return len(r.all) }
func (r *ranking[T]) Less(i, j int) bool { return r.all[i].rank.before(r.all[j].rank) }
func (r *ranking[T]) Swap(i, j int)      { r.all[i], r.all[j] = r.all[j], r.all[i] }
func (r *ranking[T]) Push(x any)         { r.all = append(r.all, x.(ranked[T])) }

// Pop is heap.Interface's; nothing is popped.
func (r *ranking[T]) Pop() any {
	last := r.all[len(r.all)-1]
	r.all = r.all[:len(r.all)-1]
	return last
}
