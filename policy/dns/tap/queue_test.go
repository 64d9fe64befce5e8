package tap

import (
	"math/rand/v2"
	"testing"
	"time"
)

// TestPodsAreHeardInTurn: however much waits for one pod, each other waits for one answer of it; and it has a bound.
func TestPodsAreHeardInTurn(t *testing.T) {
	q, now := newQueue(), time.Now()
	put := 0
	for q.put(answer{packet: make([]byte, longestHeld), link: 1, held: true}, now) {
		put++
	}
	if most := mostWaiting / (longestHeld + besides); put != most {
		t.Errorf("%d answers wait for one pod, want %d", put, most)
	}
	for _, link := range []int{2, 3, 2} {
		if !q.put(answer{packet: make([]byte, 100), link: link, held: true}, now) {
			t.Errorf("no room for the pod %d", link)
		}
	}
	for i, want := range []int{1, 2, 3, 1, 2, 1, 1} {
		if w := q.take(); w == nil || w.link != want {
			t.Fatalf("turn %d is %v, want the pod %d", i, w, want)
		}
	}
	if !q.put(answer{packet: make([]byte, longestHeld), link: 1}, now) {
		t.Error("no room where some was taken")
	}
}

// TestEachAnswerIsSentOnce: whatever the order in which answers are taken, heard and looked for, each that was held is sent
// once, in time.
func TestEachAnswerIsSentOnce(t *testing.T) {
	for seed := range uint64(200) {
		r, q, now := rand.New(rand.NewPCG(seed, 0)), newQueue(), time.Unix(0, 0)
		sent, total := map[*byte]int{}, 0
		send := func(a answer) { sent[&a.packet[0]]++ }
		hearing := []*waiting{}
		for range 300 {
			switch r.IntN(4) {
			case 0:
				a := answer{packet: make([]byte, 1+r.IntN(longestHeld)), link: r.IntN(3), held: r.IntN(4) > 0}
				if ok := q.put(a, now); a.held {
					if total++; !ok {
						send(a)
					}
				}
			case 1:
				if w := q.take(); w != nil {
					hearing = append(hearing, w)
				}
			case 2:
				if len(hearing) > 0 {
					if q.release(hearing[0]) {
						send(hearing[0].answer)
					}
					hearing = hearing[1:]
				}
			case 3:
				now = now.Add(time.Duration(r.IntN(1000)) * time.Millisecond)
				for _, w := range q.overdue(now.Add(-patience)) {
					if w.since.Add(patience).After(now) {
						t.Errorf("seed %d: sent after %s", seed, now.Sub(w.since))
					}
					send(w.answer)
				}
			}
		}
		for _, w := range q.overdue(now.Add(1)) {
			send(w.answer)
		}
		if len(sent) != total {
			t.Fatalf("seed %d: of %d held answers %d are sent", seed, total, len(sent))
		}
		for _, n := range sent {
			if n != 1 {
				t.Fatalf("seed %d: an answer is sent %d times", seed, n)
			}
		}
	}
}

// TestSocketHasRoom: all that may be taken out of the way between two proofs that somebody reads, and as long after the
// second as it counts, fits into the socket, with what the kernel takes for each copy.
func TestSocketHasRoom(t *testing.T) {
	const copied, doubled = 4096 + 256, 2
	if most := allBurst + allRate*int(2*listensFor/time.Second); most*copied > doubled*heldBuffer {
		t.Errorf("%d answers may wait, %d fit", most, doubled*heldBuffer/copied)
	}
}
