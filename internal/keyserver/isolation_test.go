package keyserver

import (
	"crypto/rand"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/internal/sealing"
)

// isolation writes the Tenant's condition as the manager does.
func (w *world) isolation(status metav1.ConditionStatus, reason string) {
	w.Helper()
	w.must(testEnv.Client.Get(w.Context(), client.ObjectKeyFromObject(w.tenant), w.tenant))
	meta.SetStatusCondition(&w.tenant.Status.Conditions, metav1.Condition{Type: v1alpha1.ConditionIsolationReady, Status: status, Reason: reason, Message: "policy x"})
	w.must(testEnv.Client.Status().Update(w.Context(), w.tenant))
}

// TestNoCredentialWhereItIsNotIsolated: while something foreign is in the namespace no pod gets a bot's credentials
// and no sweep a store's password; a sweep that has it may go on, and afterwards all get theirs.
func TestNoCredentialWhereItIsNotIsolated(t *testing.T) {
	w := newSweep(t)
	bot, _ := w.newBot("support")
	pod := w.startPod(bot, w.storeAndRecord(bot).Secret)
	sweep := w.sweep("chat-sweep-1")
	key, err := sealing.GeneratePrivateKey(rand.Reader)
	w.must(err)
	first := keyapi.LeaseRequest{PlanHash: w.hash, PublicKey: key.Public().String()}
	for _, reason := range []string{v1alpha1.ReasonForeignNetworkPolicy, v1alpha1.ReasonForeignObject} {
		w.isolation(metav1.ConditionFalse, reason)
		items, refusal := w.unseal(w.podToken(pod), string(pod.UID))
		w.wantRefusal(refusal, v1alpha1.ReasonNotIsolated)
		if len(items) > 0 || !strings.Contains(refusal.Message, "policy x") || refusal.RetryAfter == 0 {
			t.Errorf("%s: %d items, %+v", reason, len(items), refusal)
		}
		var answer keyapi.LeaseResponse
		refusal = w.call(keyapi.PathLease, w.podToken(sweep), first, &answer)
		w.wantRefusal(refusal, v1alpha1.ReasonNotIsolated)
		if answer.Sealed != "" || refusal.RetryAfter == 0 {
			t.Errorf("%s: the sweep got %+v, %+v", reason, answer, refusal)
		}
	}
	w.isolation(metav1.ConditionTrue, "Isolated")
	_, refusal := w.unseal(w.podToken(pod), string(pod.UID))
	w.granted(refusal)
	w.granted(w.call(keyapi.PathLease, w.podToken(sweep), first, nil))
	w.isolation(metav1.ConditionFalse, v1alpha1.ReasonForeignObject)
	_, refusal = w.lease(sweep)
	w.granted(refusal)
}
