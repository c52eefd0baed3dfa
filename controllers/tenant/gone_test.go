package tenant

import (
	"context"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/internal/kube"
	"github.com/lethe-dev/lethe/internal/reconcile"
)

// told remembers which Tenants have gone.
type told struct {
	reconcile.Orphans
	tenants []string
}

func (o *told) SoonOf(_ context.Context, tenant string) { o.tenants = append(o.tenants, tenant) }

// keysMissing is the keyserver's refusal.
type keysMissing struct{}

func (keysMissing) Error() string  { return "gone" }
func (keysMissing) Reason() string { return v1alpha1.ReasonKeyMissing }

// TestNothingIsRememberedOfWhatIsGone: of a Tenant that is gone, whoever took its finalizer off.
func TestNothingIsRememberedOfWhatIsGone(t *testing.T) {
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	nothing, orphans, doubts := fake.NewClientBuilder().WithScheme(scheme).Build(), &told{}, reconcile.NewKeyDoubts()
	r := &Reconciler{Writer: kube.Writer{Client: nothing, Live: nothing}, Clock: clock.RealClock{}, Orphans: orphans, Doubts: doubts}
	tenant := &v1alpha1.Tenant{ObjectMeta: metav1.ObjectMeta{Name: "gone"}}
	for range 2 { // made again under its name: one answer, and not the other's
		tenant.UID = "u" + tenant.UID
		if _, known := r.verified.Get(tenant); known {
			t.Errorf("Tenant %s is taken for the one before it", tenant.UID)
		}
		r.verified.Put(tenant, time.Now(), v1alpha1.UIDRange{})
		doubts.Weigh(t.Context(), tenant, keyapi.CredentialsResponse{}, keysMissing{})
	}
	if r.verified.Len() != 1 {
		t.Errorf("remembered: %d", r.verified.Len())
	}
	if _, err := r.Reconcile(t.Context(), ctrl.Request{NamespacedName: client.ObjectKeyFromObject(tenant)}); err != nil {
		t.Error(err)
	}
	if r.verified.Len() != 0 || doubts.Take(tenant) {
		t.Errorf("remembered of what is gone: %d answers, or a doubt", r.verified.Len())
	}
	if len(orphans.tenants) != 1 || orphans.tenants[0] != "gone" {
		t.Errorf("the orphan sweep was sent to %v", orphans.tenants)
	}
}
