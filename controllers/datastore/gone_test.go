package datastore

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/kube"
	"github.com/lethe-dev/lethe/internal/reconcile"
	"github.com/lethe-dev/lethe/internal/report"
)

// told remembers where something has gone.
type told struct {
	reconcile.Orphans
	namespaces []string
}

func (o *told) Soon(namespace string) { o.namespaces = append(o.namespaces, namespace) }

// TestNothingIsRememberedOfWhatIsGone: of a store that is gone, whoever took its finalizer off.
func TestNothingIsRememberedOfWhatIsGone(t *testing.T) {
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	nothing, orphans := fake.NewClientBuilder().WithScheme(scheme).Build(), &told{}
	r := &Reconciler{Writer: kube.Writer{Client: nothing, Live: nothing}, Clock: clock.RealClock{}, Orphans: orphans, Deleted: &DeletedRows{}}
	store := &v1alpha1.DataStore{ObjectMeta: metav1.ObjectMeta{Namespace: "nowhere", Name: "gone"}}
	for range 2 { // made again under its name: one answer, and not the other's
		store.UID = "u" + store.UID
		if _, known := r.stored.Get(store); known {
			t.Errorf("store %s is taken for the one before it", store.UID)
		}
		r.stored.Put(store, time.Now(), struct{}{})
	}
	r.Deleted.count(store, report.Report{Datasets: []report.Dataset{{Rules: []report.Rule{{Policy: "p", Rule: "r", Deleted: 3}}}}})
	if r.stored.Len() != 1 || len(r.Deleted.of) != 1 {
		t.Errorf("remembered: %d, %v", r.stored.Len(), r.Deleted.of)
	}
	if _, err := r.Reconcile(t.Context(), ctrl.Request{NamespacedName: client.ObjectKeyFromObject(store)}); err != nil {
		t.Error(err)
	}
	if r.stored.Len() != 0 || len(r.Deleted.of) != 0 {
		t.Errorf("remembered of what is gone: %d, %v", r.stored.Len(), r.Deleted.of)
	}
	if len(orphans.namespaces) != 1 || orphans.namespaces[0] != "nowhere" {
		t.Errorf("the orphan sweep was sent to %v", orphans.namespaces)
	}
}
