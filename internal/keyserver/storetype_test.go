package keyserver

import (
	"errors"
	"io"
	"log/slog"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/internal/sealing"
)

// TestAStoreOfAnUnknownType: the API server knows a type that this keyserver does not, since the kinds are newer. It
// neither takes the store's credentials for ones that nobody wants any more, nor gives a lease.
func TestAStoreOfAnUnknownType(t *testing.T) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	for name, spec := range map[string]v1alpha1.DataStoreSpec{
		"unknown":                     {Type: "Punchcards"},
		"another's member":            {Type: "Punchcards", Postgres: &v1alpha1.PostgresStore{Host: "db", Port: 5432}},
		"PostgreSQL without a member": {Type: v1alpha1.StorePostgres},
	} {
		store := &v1alpha1.DataStore{ObjectMeta: metav1.ObjectMeta{Namespace: "data", Name: "chat", UID: "s1"}, Spec: spec,
			Status: v1alpha1.DataStoreStatus{CredentialsSecret: "chat-0123", CredentialsGeneration: 3}}
		s := &Server{Options: Options{Client: fake.NewClientBuilder().WithScheme(scheme).WithStatusSubresource(store).WithObjects(store,
			&v1alpha1.Tenant{ObjectMeta: metav1.ObjectMeta{Name: "acme", UID: "t1"}, Spec: v1alpha1.TenantSpec{Namespaces: []v1alpha1.TenantNamespace{{Name: "data"}}},
				Status: v1alpha1.TenantStatus{Namespaces: []v1alpha1.TenantNamespaceStatus{{Name: "data", UID: "n1"}}}},
			&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "data", UID: "n1", Labels: map[string]string{v1alpha1.LabelTenant: "acme"}}},
		).Build(), Clock: clock.RealClock{}, Log: slog.New(slog.NewTextHandler(io.Discard, nil))}}
		_, err := s.credentials(t.Context(), caller{}, &keyapi.CredentialsRequest{Object: keyapi.ObjectRef{Kind: sealing.KindDataStore, Namespace: "data", Name: "chat", UID: "s1"}})
		if !refusedWith(err, v1alpha1.ReasonUnknownStoreType) {
			t.Errorf("%s, credentials: %v", name, err)
		}
		_, _, err = s.coveringPlan(t.Context(), store, &keyapi.LeaseRequest{PlanHash: "0"})
		if !refusedWith(err, v1alpha1.ReasonPlanChanged) {
			t.Errorf("%s, lease: %v", name, err)
		}
	}
}

func refusedWith(err error, reason string) bool {
	var r *refusal
	return errors.As(err, &r) && r.Reason == reason
}
