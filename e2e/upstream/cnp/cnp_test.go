//go:build upstream

// Package cnp is upstream's conformance suite for ClusterNetworkPolicy, with shorter waits for what is denied: each
// denial is waited for twice. REPORT names the file for the report in upstream's format; VERSION is Kith's.
package cnp

import (
	"cmp"
	"os"
	"testing"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/config"
	"sigs.k8s.io/yaml"

	api "sigs.k8s.io/network-policy-api/apis/v1beta1"
	report "sigs.k8s.io/network-policy-api/conformance/apis/v1alpha1"
	"sigs.k8s.io/network-policy-api/conformance/tests"
	timeouts "sigs.k8s.io/network-policy-api/conformance/utils/config"
	"sigs.k8s.io/network-policy-api/conformance/utils/suite"
)

func TestConformance(t *testing.T) {
	cfg, err := config.GetConfig()
	must(t, err)
	c, err := client.New(cfg, client.Options{})
	must(t, err)
	set, err := kubernetes.NewForConfig(cfg)
	must(t, err)
	must(t, api.Install(c.Scheme()))
	must(t, apiextensionsv1.AddToScheme(c.Scheme()))
	s, err := suite.NewConformanceProfileTestSuite(suite.ConformanceProfileOptions{
		Options: suite.Options{
			Client: c, ClientSet: set, KubeConfig: *cfg, CleanupBaseResources: true, EnableAllSupportedFeatures: true,
			TimeoutConfig: timeouts.TimeoutConfig{RequestTimeout: time.Second, PokeTimeout: 30 * time.Second},
		},
		Implementation: report.Implementation{
			Organization: "kithnet", Project: "kith", URL: "https://github.com/kithnet/kith", Version: cmp.Or(os.Getenv("VERSION"), "development"),
			Contact: []string{"https://github.com/kithnet/kith/issues/new"},
		},
		ConformanceProfiles: sets.New(suite.CNPConformanceProfileName),
	})
	must(t, err)
	s.Setup(t)
	s.Run(t, tests.ConformanceTests)
	if to := os.Getenv("REPORT"); to != "" {
		r, err := s.Report()
		must(t, err)
		text, err := yaml.Marshal(r)
		must(t, err)
		must(t, os.WriteFile(to, text, 0o644))
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
