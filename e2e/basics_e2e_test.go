//go:build e2e

package e2e

import (
	"testing"

	"github.com/kithnet/kith/e2e/basics"
)

func TestBasics(t *testing.T) { basics.Run(t, shared.Cluster) }
