package keyserver

import (
	"fmt"
	"testing"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/internal/keyapi"
)

// TestOnlyTheKeyserverPublishesATenantsKeys: the status has them before the manager could write any, whenever the
// keyserver dies on the way, and a repeat writes nothing.
func TestOnlyTheKeyserverPublishesATenantsKeys(t *testing.T) {
	for failAt := range 5 {
		for _, after := range []bool{false, true} {
			t.Run(fmt.Sprintf("write %d, landed %t", failAt, after), func(t *testing.T) {
				w := newWorld(t)
				w.writes.reset(failAt, after)
				first := w.askTenant(nil)
				if crashed := first != nil; crashed != (failAt >= 1 && failAt <= 3) {
					t.Fatalf("answered %v, and makes three writes: the counter of user ids, the keys, and the status", first)
				}
				w.restart()
				w.writes.reset(0, false)
				var answer keyapi.TenantResponse
				w.granted(w.askTenant(&answer))
				w.must(testEnv.Client.Get(t.Context(), client.ObjectKeyFromObject(w.tenant), w.tenant))
				status := w.tenant.Status
				if len(status.SealingKeys) != 1 || status.SealingKeys[0].KID != answer.SealingKeys[0].KID || status.KEKGrade != GradeProduction {
					t.Errorf("the status says %+v, the answer %+v", status, answer)
				}
				if len(status.Namespaces) != 1 {
					t.Error("what the manager wrote is gone")
				}
				w.writes.reset(0, false)
				w.granted(w.askTenant(nil))
				if n, seen := w.writes.writes(); n != 0 {
					t.Errorf("a repeat made %d writes: %v", n, seen)
				}
			})
		}
	}
}

// TestForgedGradeIsPutRight: whoever may write a Tenant's status and is not the manager can lie there until the next
// call.
func TestForgedGradeIsPutRight(t *testing.T) {
	w := newWorld(t)
	w.tenantKeys()
	right := w.tenant.Status.SealingKeys[0].Public
	w.tenant.Status.KEKGrade, w.tenant.Status.SealingKeys[0].Public = GradeEvaluation, "forged"
	w.must(testEnv.Client.Status().Update(t.Context(), w.tenant))
	w.tenantKeys()
	if w.tenant.Status.KEKGrade != GradeProduction || w.tenant.Status.SealingKeys[0].Public != right {
		t.Errorf("the status says %+v", w.tenant.Status)
	}
}
