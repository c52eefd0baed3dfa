package controllers

import (
	"context"
	"errors"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/kube"
	"github.com/lethe-dev/lethe/internal/protocol"
	"github.com/lethe-dev/lethe/internal/rollout"
)

// TestWhatIsDoubtedAboutKeys: an answer about a bot wakes its Tenant where the two do not agree, once, and not otherwise.
func TestWhatIsDoubtedAboutKeys(t *testing.T) {
	stored := protocol.CredentialsResponse{Items: []protocol.CredentialResult{{Reason: v1alpha1.ReasonStored}}}
	unknown := protocol.CredentialsResponse{Items: []protocol.CredentialResult{{Reason: v1alpha1.ReasonStored}, {Reason: v1alpha1.ReasonUnknownKey}}}
	refused := func(reason string) error { return &refusedError{reason, "no"} }
	for name, tc := range map[string]struct {
		keys   metav1.ConditionStatus
		reason string
		answer protocol.CredentialsResponse
		err    error
		want   bool
	}{
		"all is well":                           {keys: metav1.ConditionTrue, reason: "KeysOpen", answer: stored},
		"keys are gone":                         {keys: metav1.ConditionTrue, reason: "KeysOpen", err: refused(v1alpha1.ReasonKeyMissing), want: true},
		"an earlier copy":                       {keys: metav1.ConditionTrue, reason: "KeysOpen", err: refused(v1alpha1.ReasonKeysRolledBack), want: true},
		"altered":                               {keys: metav1.ConditionTrue, reason: "KeysOpen", err: refused(v1alpha1.ReasonKeysAltered), want: true},
		"sealed to a key that is not there":     {keys: metav1.ConditionTrue, reason: "KeysOpen", answer: unknown, want: true},
		"the keyserver is away":                 {keys: metav1.ConditionTrue, reason: "KeysOpen", err: errors.New("connection refused")},
		"another refusal":                       {keys: metav1.ConditionTrue, reason: "KeysOpen", err: refused(v1alpha1.ReasonNotReady)},
		"gone, and known to be":                 {keys: metav1.ConditionFalse, reason: v1alpha1.ReasonKeyMissing, err: refused(v1alpha1.ReasonKeyMissing)},
		"back again":                            {keys: metav1.ConditionFalse, reason: v1alpha1.ReasonKeyMissing, answer: stored, want: true},
		"gone, and the keyserver is away":       {keys: metav1.ConditionFalse, reason: v1alpha1.ReasonKeyMissing, err: errors.New("connection refused")},
		"a Tenant that waits for the keyserver": {keys: metav1.ConditionFalse, reason: v1alpha1.ReasonKeyserverUnavailable, answer: stored},
	} {
		t.Run(name, func(t *testing.T) {
			doubts := newKeyDoubts()
			tenant := &v1alpha1.Tenant{ObjectMeta: metav1.ObjectMeta{Name: "acme", UID: "1"}}
			tenant.Status.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionKeysReady, Status: tc.keys, Reason: tc.reason}}
			doubts.weigh(t.Context(), tenant, tc.answer, tc.err)
			doubts.weigh(t.Context(), tenant, tc.answer, tc.err)
			if woken := len(doubts.events); woken > 1 || (woken == 1) != tc.want {
				t.Errorf("woken %d times, want it: %t", woken, tc.want)
			}
			if taken := doubts.take(tenant); taken != tc.want || doubts.take(tenant) {
				t.Errorf("taken: %t, want %t, and once", taken, tc.want)
			}
			if len(doubts.doubtful) != 0 {
				t.Errorf("left: %v", doubts.doubtful)
			}
		})
	}
}

// noNamespaces knows no namespace of a Tenant that has gone.
type noNamespaces struct{ client.Client }

func (noNamespaces) List(context.Context, client.ObjectList, ...client.ListOption) error { return nil }

// TestNothingIsRememberedOfWhatIsGone: of an object that is gone, with credentials or without, whoever took its finalizer off.
func TestNothingIsRememberedOfWhatIsGone(t *testing.T) {
	queue := workqueue.NewTypedDelayingQueue[string]()
	t.Cleanup(queue.ShutDown)
	writer := kube.Writer{Client: testEnv.Client, Live: testEnv.Client}
	sweep := &OrphanSweep{writer: kube.Writer{Client: noNamespaces{testEnv.Client}}, queue: queue, after: time.Hour}
	now, doubts := time.Now(), newKeyDoubts()
	bots := &BotDeploymentReconciler{Writer: writer, Clock: clock.RealClock{}, Orphans: sweep, Doubts: doubts, Pace: NewPacer(writer.Client, rollout.Limits{Percent: 5, StopAfter: 3}, clock.RealClock{})}
	stores := &DataStoreReconciler{Writer: writer, Clock: clock.RealClock{}, Orphans: sweep, Doubts: doubts}
	tenants := &TenantReconciler{Writer: writer, Clock: clock.RealClock{}, Orphans: sweep, Doubts: doubts}
	bot := makeBot("nowhere", "gone")
	store := &v1alpha1.DataStore{ObjectMeta: bot.ObjectMeta}
	tenant := makeTenant("gone")
	for _, uid := range []string{"1", "2"} { // made again under its name: one answer, and not the other's
		bot.UID, store.UID, tenant.UID = "u"+bot.UID, "u"+store.UID, "u"+tenant.UID
		if _, known := bots.begun.get(bot); known {
			t.Errorf("bot %s is taken for the one before it", uid)
		}
		bots.begun.put(bot, now, struct{}{})
		bots.stored.put(bot, now, storedCredentials{})
		stores.stored.put(store, now, struct{}{})
		tenants.verified.put(tenant, now, v1alpha1.UIDRange{})
		doubts.weigh(t.Context(), tenant, protocol.CredentialsResponse{}, &refusedError{v1alpha1.ReasonKeyMissing, "gone"})
	}
	if len(bots.begun.known)+len(bots.stored.known)+len(stores.stored.known)+len(tenants.verified.known) != 4 {
		t.Errorf("remembered: %v %v %v %v", bots.begun.known, bots.stored.known, stores.stored.known, tenants.verified.known)
	}
	for _, gone := range []struct {
		object     client.Object
		reconciler interface {
			Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error)
		}
	}{{bot, bots}, {store, stores}, {tenant, tenants}} {
		if _, err := gone.reconciler.Reconcile(t.Context(), ctrl.Request{NamespacedName: client.ObjectKeyFromObject(gone.object)}); err != nil {
			t.Error(err)
		}
	}
	if left := len(bots.begun.known) + len(bots.stored.known) + len(stores.stored.known) + len(tenants.verified.known) + len(doubts.doubtful); left != 0 {
		t.Errorf("%d things are remembered of what is gone", left)
	}
}
