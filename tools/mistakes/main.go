// Command mistakes puts known mistakes into Kith, one at a time, and sees that the tests catch them. A mistake is a few
// words of a source file replaced by others, in a copy that only the compiler sees (go test -overlay).
//
//	go run ./mistakes [NAME...]      all of them if none is named
//
// It fails if a test does not, if the words to replace are not in the file exactly once (then the code has moved and the
// mistake must follow), and if it is given a name that no mistake has. Some mistakes show in the kernel only: their tests
// need root.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Stdout, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "mistakes:", err)
		os.Exit(1)
	}
}

// inKernel is the tag of tests that need the kernel, and root.
const inKernel = "kernel"

// mistake is one to put in.
type mistake struct {
	name         string // where it was made before, if it was
	file         string // relative to the repository
	right, wrong string
	pkg          string // whose test must fail
	test         string // or one of its subtests, behind a slash
	says         string // what the failure must say, where the test looks at several things
	tags         string
}

// all are the mistakes that are tried, those of one package together.
func all() []mistake {
	return slices.Concat(inPolicy(), inFiles(), inGuards(), inClaims(), inOldClaims(), inSigningKeys(), inAdmissionCheck(), inNews(), inSecrets(), inGrants(), inBounds(), inMesh(), inSizes(),
		inPlan(), inMesher(), inOrder(), inStakes(),
		inWrites(), inLists(), inUnknown(), inOrderAndBound(), inGuard(), inBorders(), inErrors(), inForgotten(), inOwner(), inMeshPorts(), inLives(), inNames(), inConnections(), inShares(), inProofs(), inUpkeep(), inUndone(), inEvidence())
}

func run(ctx context.Context, out io.Writer, wanted []string) error {
	root, err := filepath.Abs("..")
	if err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(root, "tools", "go.mod")); err != nil {
		return errors.New("run it in the folder tools of a checkout")
	}
	var errs []error
	for _, name := range wanted {
		if !slices.ContainsFunc(all(), func(m mistake) bool { return m.name == name }) {
			errs = append(errs, fmt.Errorf("there is no mistake %q: tools/mistakes lists them", name))
		}
	}
	var tried []mistake
	for _, m := range all() {
		if len(wanted) == 0 || slices.Contains(wanted, m.name) {
			tried = append(tried, m)
		}
	}
	return errors.Join(append(errs, tryAll(ctx, out, root, tried)...)...)
}
