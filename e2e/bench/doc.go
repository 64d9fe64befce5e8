// Package bench measures Kith on real clusters: benchmarks that need root and the build tag e2e. They use the cluster
// that KITH_E2E_CLUSTER names and leave it as it was, or bring one up and take it down.
//
// Out of scope: what needs no cluster. That is measured beside the code it measures.
package bench
