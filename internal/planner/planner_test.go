package planner

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

var now = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)

// counting counts reads, and fails the n-th of them.
type counting struct {
	client.Reader
	reads  int
	failAt int
}

var errUnavailable = errors.New("etcd is away")

func (c *counting) Get(ctx context.Context, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
	if c.reads++; c.reads == c.failAt {
		return errUnavailable
	}
	return c.Reader.Get(ctx, key, o, opts...)
}

func (c *counting) List(ctx context.Context, l client.ObjectList, opts ...client.ListOption) error {
	if c.reads++; c.reads == c.failAt {
		return errUnavailable
	}
	return c.Reader.List(ctx, l, opts...)
}

// cluster is a Platform tenant with a namespace that it has taken, one other tenant and one policy. change edits what
// is in it.
type cluster struct {
	namespace *corev1.Namespace
	tenant    *v1alpha1.Tenant
	store     *v1alpha1.DataStore
}

func makeCluster(t *testing.T, change func(*cluster)) (*counting, *v1alpha1.DataStore) {
	t.Helper()
	c := &cluster{
		namespace: &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "data", UID: "n1", Labels: map[string]string{v1alpha1.LabelTenant: "platform"}}},
		tenant: &v1alpha1.Tenant{
			ObjectMeta: metav1.ObjectMeta{Name: "platform"},
			Spec:       v1alpha1.TenantSpec{Class: v1alpha1.TenantPlatform, Namespaces: []v1alpha1.TenantNamespace{{Name: "data"}}},
			Status:     v1alpha1.TenantStatus{Namespaces: []v1alpha1.TenantNamespaceStatus{{Name: "data", UID: "n1"}}},
		},
		store: &v1alpha1.DataStore{
			ObjectMeta: metav1.ObjectMeta{Namespace: "data", Name: "chat", UID: "s1", Labels: map[string]string{"data": "chat"}},
			Spec: v1alpha1.DataStoreSpec{
				Type: v1alpha1.StorePostgres, Tenancy: v1alpha1.TenancyShared, TenantIDType: "AccountID", Postgres: &v1alpha1.PostgresStore{Host: "db"},
				Datasets: []v1alpha1.Dataset{{Name: "messages", DataClass: "Conversations"}},
			},
		},
	}
	if change != nil {
		change(c)
	}
	ninety := int32(90)
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	objects := []client.Object{
		c.tenant,
		&v1alpha1.Tenant{ObjectMeta: metav1.ObjectMeta{Name: "acme"}, Spec: v1alpha1.TenantSpec{ExternalIDs: []v1alpha1.ExternalID{{Type: "AccountID", Value: "42"}}}},
		&v1alpha1.DataRetentionPolicy{ObjectMeta: metav1.ObjectMeta{Name: "privacy"}, Spec: v1alpha1.DataRetentionPolicySpec{
			StoreSelector: metav1.LabelSelector{MatchLabels: map[string]string{"data": "chat"}},
			Rules:         []v1alpha1.RetentionRule{{Name: "conversations", DataClass: "Conversations", RetainFor: &v1alpha1.Period{Days: &ninety}}},
		}},
	}
	if c.namespace != nil {
		objects = append(objects, c.namespace)
	}
	return &counting{Reader: fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).Build()}, c.store
}

func TestStore(t *testing.T) {
	tests := map[string]struct {
		change  func(*cluster)
		refused string // reason; empty: there is a plan
		says    string
		reads   int
	}{
		"a Shared store of a Platform tenant": {reads: 4},
		"a Dedicated one asks for no other tenants": {
			change: func(c *cluster) {
				c.store.Spec.Tenancy, c.tenant.Spec.Class = v1alpha1.TenancyDedicated, v1alpha1.TenantCustomer
			},
			reads: 3,
		},
		"a Shared store of a customer": {
			change:  func(c *cluster) { c.tenant.Spec.Class = v1alpha1.TenantCustomer },
			refused: v1alpha1.ReasonSharedRefused, says: "class Platform", reads: 2,
		},
		"a namespace without the label": {
			change: func(c *cluster) { c.namespace.Labels = nil }, refused: v1alpha1.ReasonNoTenant, says: "spec.namespaces", reads: 1,
		},
		"a namespace that is gone": {
			change: func(c *cluster) { c.namespace = nil }, refused: v1alpha1.ReasonNoTenant, says: "spec.namespaces", reads: 1,
		},
		"a label that names no tenant": {
			change: func(c *cluster) { c.namespace.Labels[v1alpha1.LabelTenant] = "nobody" }, refused: v1alpha1.ReasonNoTenant, says: "nobody", reads: 2,
		},
		"a label whose tenant does not list the namespace": {
			change:  func(c *cluster) { c.namespace.Labels[v1alpha1.LabelTenant] = "acme" },
			refused: v1alpha1.ReasonNoTenant, says: "acme, which does not list it", reads: 2,
		},
		"a namespace made again under the same name": {
			change:  func(c *cluster) { c.namespace.UID = types.UID("n2") },
			refused: v1alpha1.ReasonTenantNotReady, says: "has not isolated", reads: 2,
		},
		"a type that this program does not know": {
			change:  func(c *cluster) { c.store.Spec.Type, c.store.Spec.Postgres = "Punchcards", nil },
			refused: v1alpha1.ReasonUnknownStoreType, says: `type "Punchcards"`, reads: 2,
		},
		"another type, with what PostgreSQL needs": {
			change: func(c *cluster) { c.store.Spec.Type = "Punchcards" }, refused: v1alpha1.ReasonUnknownStoreType, says: `type "Punchcards"`, reads: 2,
		},
		"PostgreSQL without what it needs": {
			change: func(c *cluster) { c.store.Spec.Postgres = nil }, refused: v1alpha1.ReasonUnknownStoreType, says: "one version", reads: 2,
		},
		"a store that is being deleted": {
			change:  func(c *cluster) { c.store.DeletionTimestamp = &metav1.Time{Time: now} },
			refused: v1alpha1.ReasonDeleting, reads: 0,
		},
		"a namespace that is being deleted": {
			change: func(c *cluster) {
				c.namespace.DeletionTimestamp, c.namespace.Finalizers = &metav1.Time{Time: now}, []string{"x/y"}
			},
			refused: v1alpha1.ReasonDeleting, reads: 1,
		},
		"a Tenant that is being deleted": {
			change: func(c *cluster) {
				c.tenant.DeletionTimestamp, c.tenant.Finalizers = &metav1.Time{Time: now}, []string{"x/y"}
			},
			refused: v1alpha1.ReasonDeleting, says: "Tenant platform is being deleted", reads: 2,
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			reader, store := makeCluster(t, tc.change)
			got, err := Store(t.Context(), reader, store, now)
			refusal, refused := IsRefusal(err)
			switch {
			case refused != (tc.refused != ""):
				t.Fatalf("error %v", err)
			case refused && (refusal.Reason != tc.refused || !strings.Contains(refusal.Message, tc.says)):
				t.Errorf("refused with %s: %s", refusal.Reason, refusal.Message)
			case !refused && (len(got.Plan.Datasets) != 1 || len(got.Plan.Datasets[0].Rules) != 1):
				t.Errorf("plan %+v", got.Plan)
			case !refused && (store.Spec.Tenancy == v1alpha1.TenancyShared) != (got.KnownTenants == 1):
				t.Errorf("%d tenants", got.KnownTenants)
			}
			if reader.reads != tc.reads {
				t.Errorf("%d reads, want %d", reader.reads, tc.reads)
			}
		})
	}
}

func TestAFailedReadIsNoRefusal(t *testing.T) {
	for n := 1; n <= 4; n++ {
		reader, store := makeCluster(t, nil)
		reader.failAt = n
		_, err := Store(t.Context(), reader, store, now)
		if _, refused := IsRefusal(err); refused || !errors.Is(err, errUnavailable) {
			t.Errorf("read %d fails: error %v, want the failure itself", n, err)
		}
	}
}
