package kube

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	ktesting "k8s.io/client-go/testing"

	"github.com/kithnet/kith/overlay"
)

const patience = 20 * time.Second

func object() *corev1.Node {
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{
			Name: "a", UID: "1", CreationTimestamp: metav1.Unix(100, 0),
			Annotations:   map[string]string{overlay.SigningKeyAnnotation: "key", overlay.ClaimAnnotation: "claim", "other": strings.Repeat("x", 1000)},
			Labels:        map[string]string{"other": "x"},
			ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "kubelet"}},
		},
		Spec: corev1.NodeSpec{PodCIDR: "10.244.1.0/24", PodCIDRs: []string{"10.244.1.0/24", "fd00::/64"}},
		Status: corev1.NodeStatus{
			Addresses: []corev1.NodeAddress{
				{Type: corev1.NodeHostName, Address: "a"},
				{Type: corev1.NodeInternalIP, Address: "172.18.0.1"},
				{Type: corev1.NodeExternalIP, Address: "9.9.9.9"},
				{Type: corev1.NodeInternalIP, Address: "fd00:18::1"},
			},
			Images: []corev1.ContainerImage{{Names: []string{"image"}}},
		},
	}
}

func TestTranslate(t *testing.T) {
	stripped, err := strip(object())
	if err != nil {
		t.Fatal(err)
	}
	want := overlay.Node{
		Name: "a", UID: "1", Created: time.Unix(100, 0), SigningKey: "key", Claim: "claim",
		Requested:   []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24"), netip.MustParsePrefix("fd00::/64")},
		InternalIPs: []netip.Addr{netip.MustParseAddr("172.18.0.1"), netip.MustParseAddr("fd00:18::1")},
		ExternalIPs: []netip.Addr{netip.MustParseAddr("9.9.9.9")}, Labels: map[string]string{"other": "x"},
	}
	equate := cmpopts.EquateComparable(netip.Prefix{}, netip.Addr{})
	if diff := cmp.Diff(want, Node(stripped.(*corev1.Node)), equate); diff != "" {
		t.Error(diff)
	}
	size, err := stripped.(*corev1.Node).Marshal()
	if err != nil || len(size) > 400 {
		t.Errorf("a stripped node has %d bytes (%v)", len(size), err)
	}
}

func TestTranslateOldAndBroken(t *testing.T) {
	n := object()
	n.Spec.PodCIDRs = nil
	n.Status.Addresses[1].Address = "nonsense"
	got := Node(n)
	if len(got.Requested) != 1 || len(got.InternalIPs) != 1 {
		t.Errorf("node %+v", got)
	}
}

func start(t *testing.T, client *fake.Clientset) *Nodes {
	t.Helper()
	n, err := New(client, "a", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		n.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	if err := n.WaitSynced(ctx); err != nil {
		t.Fatal(err)
	}
	return n
}

func (n *Nodes) awaitChange(t *testing.T) {
	t.Helper()
	select {
	case <-n.Changed():
	case <-time.After(patience):
		t.Fatal("nothing changed")
	}
}

func TestOnlyWhatTheCoreSeesIsAChange(t *testing.T) {
	ctx := t.Context()
	client := fake.NewClientset(object())
	n := start(t, client)
	n.awaitChange(t)
	if got := n.List(); len(got) != 1 || got[0].Name != "a" {
		t.Fatalf("nodes %+v", got)
	}
	beat := object()
	beat.Annotations["other"] = "y"
	beat.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady}}
	moved := beat.DeepCopy()
	moved.Status.Addresses[1].Address = "172.18.0.77"
	for _, o := range []*corev1.Node{beat, moved} {
		if _, err := client.CoreV1().Nodes().Update(ctx, o, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	// Events come in order, so a signal for the first would be taken here.
	n.awaitChange(t)
	if got := n.List()[0].InternalIPs[0].String(); got != "172.18.0.77" {
		t.Errorf("the heartbeat was a change; address %s", got)
	}
	if err := client.CoreV1().Nodes().Delete(ctx, "a", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	n.awaitChange(t)
	if got := n.List(); len(got) != 0 {
		t.Errorf("nodes after deletion %+v", got)
	}
}

func patches(client *fake.Clientset) (out []string) {
	for _, action := range client.Actions() {
		if p, ok := action.(ktesting.PatchAction); ok {
			out = append(out, p.GetName()+" "+string(p.GetPatch()))
		}
	}
	return out
}

func TestPublishWritesTwoAnnotationsOnce(t *testing.T) {
	ctx := t.Context()
	client := fake.NewClientset(object())
	n := start(t, client)
	n.awaitChange(t)
	p := Publication{SigningKey: overlay.SigningKey{1}, Claim: []byte("sealed")}
	if err := n.Publish(ctx, p); err != nil {
		t.Fatal(err)
	}
	want := []string{`a {"metadata":{"annotations":{"kith.network/claim":"c2VhbGVk","kith.network/signing-public-key":"` + p.SigningKey.String() + `"}}}`}
	if diff := cmp.Diff(want, patches(client)); diff != "" {
		t.Error(diff)
	}
	n.awaitChange(t)
	if err := n.Publish(ctx, p); err != nil {
		t.Fatal(err)
	}
	if got := patches(client); len(got) != 1 {
		t.Errorf("published again: %v", got)
	}
}

func TestWhatIsEnforcedIsNotTheMeshs(t *testing.T) {
	ctx := t.Context()
	client := fake.NewClientset(object())
	n := start(t, client)
	n.awaitChange(t)
	// Listed with the first, it would be told of with it or after it.
	if _, err := client.CoreV1().Nodes().Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "b"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	n.awaitChange(t)
	if got := n.Enforced(); len(got) != 0 {
		t.Errorf("nobody said %v", got)
	}
	if err := n.PublishEnforced(ctx, "digest"); err != nil {
		t.Fatal(err)
	}
	want := []string{`a {"metadata":{"annotations":{"kith.network/cluster-policies":"digest"}}}`}
	if diff := cmp.Diff(want, patches(client)); diff != "" {
		t.Error(diff)
	}
	for end := time.Now().Add(patience); n.Enforced()["a"] != "digest"; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("enforced: %v", n.Enforced())
		}
	}
	select {
	case <-n.Changed():
		t.Error("the mesh sees a change")
	default:
	}
}

func TestPublishTriesAgain(t *testing.T) {
	client := fake.NewClientset(object())
	failures := 2
	client.PrependReactor("patch", "nodes", func(ktesting.Action) (bool, runtime.Object, error) {
		failures--
		return failures >= 0, nil, errors.New("not now")
	})
	n := start(t, client)
	if err := n.Publish(t.Context(), Publication{Claim: []byte{1}}); err != nil {
		t.Fatal(err)
	}
	if failures != -1 {
		t.Errorf("%d tries left", failures+1)
	}
	failures = 1 << 30
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := n.Publish(ctx, Publication{Claim: []byte{2}}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("publish without an API server: %v", err)
	}
}
