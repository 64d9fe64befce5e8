// Package deploy gives programs what is installed with Kith: the files of this folder say it, here once more for who
// must agree with them.
package deploy

import _ "embed"

//go:embed helm/kith/crds/clusternetworkpolicies.yaml
var clusterNetworkPolicies string

// ClusterNetworkPolicies is the definition of ClusterNetworkPolicy by which the API server accepts or refuses one.
func ClusterNetworkPolicies() string { return clusterNetworkPolicies }
