package kube

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
)

// TestNameServers: the cluster's name servers are the addresses of the labelled Services and of what is behind them, as they
// are now; a Service without an address has none; other Services do not count.
func TestNameServers(t *testing.T) {
	meta := func(namespace, name, app string) metav1.ObjectMeta {
		return metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{"k8s-app": app}}
	}
	behind := func(addresses ...string) *discoveryv1.EndpointSlice {
		return &discoveryv1.EndpointSlice{ObjectMeta: meta("kube-system", "dns-1", "kube-dns"), Endpoints: []discoveryv1.Endpoint{{Addresses: addresses}}}
	}
	client := fake.NewClientset(
		&corev1.Service{ObjectMeta: meta("kube-system", "dns", "kube-dns"), Spec: corev1.ServiceSpec{ClusterIP: "10.96.0.10", ClusterIPs: []string{"10.96.0.10", "fd00:96::a"}}},
		&corev1.Service{ObjectMeta: meta("kube-system", "headless", "kube-dns"), Spec: corev1.ServiceSpec{ClusterIP: "None"}},
		behind("10.244.0.2", "10.244.1.2"))
	changed := make(chan struct{}, 100)
	n, err := NewNameServers(client, func() { changed <- struct{}{} })
	if err != nil {
		t.Fatal(err)
	}
	if _, known := n.Addresses(); known {
		t.Error("known before anybody was asked")
	}
	go func() { _ = n.Run(t.Context()) }()
	await := func(want ...string) {
		t.Helper()
		var all []netip.Addr
		for _, a := range want {
			all = append(all, netip.MustParseAddr(a))
		}
		hang := time.After(time.Minute)
		for {
			got, known := n.Addresses()
			if known && slices.Equal(got, all) {
				return
			}
			select {
			case <-changed:
			case <-hang:
				t.Fatalf("name servers %v (known: %t), want %v", got, known, all)
			}
		}
	}
	await("10.96.0.10", "10.244.0.2", "10.244.1.2", "fd00:96::a")
	awaitWatches(t, client.Actions, 2)
	if _, err := client.DiscoveryV1().EndpointSlices("kube-system").Update(t.Context(), behind("10.244.2.2"), metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	await("10.96.0.10", "10.244.2.2", "fd00:96::a")
	for _, name := range []string{"dns", "headless"} {
		if err := client.CoreV1().Services("kube-system").Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	await("10.244.2.2")
}
