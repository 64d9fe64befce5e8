//go:build upstream

// Package cnp is upstream's conformance suite for ClusterNetworkPolicy, with shorter waits for what is denied: each
// denial is waited for twice.
package cnp

import (
	"testing"
	"time"

	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/config"

	api "sigs.k8s.io/network-policy-api/apis/v1alpha2"
	"sigs.k8s.io/network-policy-api/conformance/tests"
	timeouts "sigs.k8s.io/network-policy-api/conformance/utils/config"
	"sigs.k8s.io/network-policy-api/conformance/utils/suite"
)

func TestConformance(t *testing.T) {
	cfg, err := config.GetConfig()
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.New(cfg, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	set, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := api.Install(c.Scheme()); err != nil {
		t.Fatal(err)
	}
	s := suite.New(suite.Options{
		Client: c, ClientSet: set, KubeConfig: *cfg, CleanupBaseResources: true, EnableAllSupportedFeatures: true,
		TimeoutConfig: timeouts.TimeoutConfig{RequestTimeout: time.Second, PokeTimeout: 30 * time.Second},
	})
	s.Setup(t)
	s.Run(t, tests.ConformanceTests)
}
