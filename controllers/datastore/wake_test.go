package datastore_test

import (
	"context"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/event"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/test/operator"
)

// TestAPolicyWakesItsStoresAndNoOther asks the event handler itself: what is queued for an edit of a policy.
func TestAPolicyWakesItsStoresAndNoOther(t *testing.T) {
	b := operator.NewStoreBench(t, v1alpha1.TenantCustomer)
	label := func(team string) func(*v1alpha1.DataStore) {
		return func(s *v1alpha1.DataStore) { s.Labels = map[string]string{"bench": b.Namespace, "team": team} }
	}
	b.Store("a1", label("a"))
	b.Store("a2", label("a"))
	b.Store("b1", label("b"))
	b.Store("none", label("c"))
	selecting := func(team string) *v1alpha1.DataRetentionPolicy {
		p := &v1alpha1.DataRetentionPolicy{}
		if team != "" {
			p.Spec.StoreSelector.MatchLabels = map[string]string{"bench": b.Namespace, "team": team}
		}
		return p
	}
	tests := map[string]struct {
		old, now string
		want     []string
	}{
		"the stores that it selects":              {"a", "a", []string{"a1", "a2"}},
		"those that it selected until now, too":   {"a", "b", []string{"a1", "a2", "b1"}},
		"an empty selector wakes only the others": {"b", "", []string{"b1"}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			q := workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[ctrl.Request]())
			t.Cleanup(q.ShutDown)
			b.Stores.WakeSelected().Update(context.Background(), event.UpdateEvent{ObjectOld: selecting(tc.old), ObjectNew: selecting(tc.now)}, q)
			got := map[string]bool{}
			for q.Len() > 0 {
				item, _ := q.Get()
				got[item.Name] = true
			}
			want := map[string]bool{}
			for _, n := range tc.want {
				want[n] = true
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
