//go:build kernel

package nft

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kithnet/kith/policy"
	"github.com/kithnet/kith/policy/random"
)

// fromEnv is a number from the environment, for longer runs and for running a failure again.
func fromEnv(t testing.TB, name string, otherwise int) int {
	t.Helper()
	s := os.Getenv(name)
	if s == "" {
		return otherwise
	}
	n, err := strconv.Atoi(s)
	must(t, "read "+name, err)
	return n
}

// TestKernelDecidesAsThePolicySays compares what real packets meet with the specification, on clusters made at
// random. KITH_CLUSTERS says how many, KITH_SEED from which seed.
func TestKernelDecidesAsThePolicySays(t *testing.T) {
	const flowsEach = 60
	l := newLab(t)
	l.serve()
	l.openNodePorts()
	seed := fromEnv(t, "KITH_SEED", int(time.Now().Unix()))
	clusters := fromEnv(t, "KITH_CLUSTERS", 8)
	allowed := 0
	for i := range clusters {
		r := chance{rand.New(rand.NewPCG(uint64(seed+i), 1))}
		c := r.cluster(l)
		l.enforce(c, l.attachments())
		flows := r.flows(l, flowsEach)
		wrong := l.mismatches(flows, func(f flow) bool { return l.allows(c, f) })
		for _, f := range flows {
			if l.allows(c, f) {
				allowed++
			}
		}
		if len(wrong) > 0 {
			pods := len(c.Pods) // without its pod an attachment is closed, which is another matter
			c = random.Shrink(c, func(c policy.Cluster) bool {
				l.enforce(c, l.attachments())
				return len(c.Pods) == pods && len(l.mismatches(wrong[:1], func(f flow) bool { return l.allows(c, f) })) > 0
			})
			t.Fatalf("KITH_SEED=%d KITH_CLUSTERS=1, shrunk for the first flow: %s", seed+i, explain(c, wrong))
		}
	}
	t.Logf("%d flows, %d of them allowed, from seed %d", clusters*flowsEach, allowed, seed)
	if allowed == 0 || allowed == clusters*flowsEach {
		t.Error("the flows were all of one kind")
	}
}

// allows is the specification as far as this node has to do with it: the other node decides for its own pods.
func (l *lab) allows(c policy.Cluster, f flow) bool {
	v := policy.Decide(c, f.Flow)
	return (v.Egress.Allowed || !l.local(f.Source)) && (v.Ingress.Allowed || !l.local(f.Destination))
}

func explain(c policy.Cluster, wrong []flow) string {
	var s strings.Builder
	for _, f := range wrong {
		v := policy.Decide(c, f.Flow)
		fmt.Fprintf(&s, "%s: specified %v (egress: %s; ingress: %s), met otherwise\n", f, v.Allowed, v.Egress.Reason, v.Ingress.Reason)
	}
	return s.String() + random.Describe(c)
}
