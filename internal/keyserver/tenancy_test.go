package keyserver

import (
	"context"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/memo"
)

// TestRememberedTenantsAreSmall: with a tenant a bot each Tenant is remembered while bots come up, and managed fields
// are the larger part of one.
func TestRememberedTenantsAreSmall(t *testing.T) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	clock := clocktesting.NewFakePassiveClock(time.Date(2026, 3, 2, 9, 30, 0, 0, time.UTC))
	base := fake.NewClientBuilder().WithScheme(scheme).WithObjects(
		&v1alpha1.Tenant{ObjectMeta: metav1.ObjectMeta{Name: "acme", UID: "t1"},
			Status: v1alpha1.TenantStatus{Namespaces: []v1alpha1.TenantNamespaceStatus{{Name: "data", UID: "n1"}}}},
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "data", UID: "n1", Labels: map[string]string{v1alpha1.LabelTenant: "acme"}}},
	).Build()
	managed := interceptor.NewClient(base, interceptor.Funcs{Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, into client.Object, o ...client.GetOption) error {
		err := c.Get(ctx, key, into, o...)
		into.SetManagedFields([]metav1.ManagedFieldsEntry{{Manager: "kubectl"}})
		return err
	}})
	s := &Server{Options: Options{Clock: clock, Client: managed}, tenants: memo.New[*v1alpha1.Tenant](clock, tenantMemory)}
	if _, err := s.tenantOfRecently(t.Context(), "data"); err != nil {
		t.Fatal(err)
	}
	kept, ok := s.tenants.Get("data")
	if !ok || kept.Name != "acme" || kept.ManagedFields != nil {
		t.Errorf("remembered: %t, %+v", ok, kept)
	}
	clock.SetTime(clock.Now().Add(tenantMemory))
	s.tenants.Sweep()
	if _, ok := s.tenants.Get("data"); ok {
		t.Error("a Tenant is remembered for longer than it may be believed")
	}
}
