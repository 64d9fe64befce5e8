// Package e2e tests Kith on real clusters. Its tests need root and the build tag e2e; they share one
// quick cluster, which the first of them brings up and the last takes down.
package e2e
