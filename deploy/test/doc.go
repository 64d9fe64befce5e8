// Package deploytest holds the rule that the three ways to install Kith make the same objects.
//
// The Helm chart deploy/helm/kith is the source; deploy/kith.yaml is the chart with its default values, and the
// kustomization builds on that file. It is a module of its own because Helm and kustomize are large.
package deploytest
