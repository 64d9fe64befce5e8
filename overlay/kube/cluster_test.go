package kube

import (
	"errors"
	"net/netip"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/fake"
	ktesting "k8s.io/client-go/testing"
)

const clusterConfiguration = `apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
networking:
  dnsDomain: cluster.local
  podSubnet: 10.244.0.0/16,fd00:10:244::/56
  serviceSubnet: 10.96.0.0/16,fd00:10:96::/112
`

// TestReadCluster: ranges come from ServiceCIDRs and from kubeadm, once each, and servers from the Service's EndpointSlice.
func TestReadCluster(t *testing.T) {
	config := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "kubeadm-config"},
		Data:       map[string]string{"ClusterConfiguration": clusterConfiguration},
	}
	client := fake.NewClientset(config,
		&networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: "kubernetes"}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{"10.96.0.0/16"}}},
		&networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: "more"}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{"10.97.0.0/16"}}},
		&discoveryv1.EndpointSlice{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "kubernetes"},
			Endpoints:  []discoveryv1.Endpoint{{Addresses: []string{"192.0.2.7", "nonsense"}}, {Addresses: []string{"192.0.2.6"}}},
		})
	got, err := ReadCluster(t.Context(), client)
	if err != nil {
		t.Fatal(err)
	}
	prefix := netip.MustParsePrefix
	if want := []netip.Prefix{prefix("10.244.0.0/16"), prefix("fd00:10:244::/56")}; !slices.Equal(got.Pods, want) {
		t.Errorf("pods %v, want %v", got.Pods, want)
	}
	if want := []netip.Prefix{prefix("10.96.0.0/16"), prefix("10.97.0.0/16"), prefix("fd00:10:96::/112")}; !slices.Equal(got.Services, want) {
		t.Errorf("Services %v, want %v", got.Services, want)
	}
	if want := []netip.Addr{netip.MustParseAddr("192.0.2.6"), netip.MustParseAddr("192.0.2.7")}; !slices.Equal(got.Servers, want) {
		t.Errorf("servers %v, want %v", got.Servers, want)
	}
	config.Data["ClusterConfiguration"] = "networking: [\n"
	if pods, services := kubeadmRanges(config); len(pods)+len(services) > 0 {
		t.Errorf("nonsense is %v, %v", pods, services)
	}
}

// TestReadClusterWithoutObjects: what an older or another distribution does not have, or an administrator does not show,
// binds nobody; an API server that does not answer is an error.
func TestReadClusterWithoutObjects(t *testing.T) {
	answer := error(nil)
	client := fake.NewClientset()
	client.PrependReactor("*", "*", func(ktesting.Action) (bool, runtime.Object, error) { return answer != nil, nil, answer })
	resource := schema.GroupResource{Resource: "x"}
	for _, answer = range []error{nil, apierrors.NewNotFound(resource, "x"), apierrors.NewForbidden(resource, "x", errors.New("no"))} {
		got, err := ReadCluster(t.Context(), client)
		if err != nil || len(got.Pods)+len(got.Services)+len(got.Servers) > 0 {
			t.Errorf("%v: %v, %v", answer, got, err)
		}
	}
	answer = errors.New("away")
	if _, err := ReadCluster(t.Context(), client); !errors.Is(err, answer) {
		t.Errorf("error %v", err)
	}
}
