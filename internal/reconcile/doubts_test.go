package reconcile

import (
	"errors"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keyapi"
)

// TestWhatIsDoubtedAboutKeys: an answer about a bot wakes its Tenant where the two do not agree, once, and not
// otherwise.
func TestWhatIsDoubtedAboutKeys(t *testing.T) {
	stored := keyapi.CredentialsResponse{Items: []keyapi.CredentialResult{{Reason: v1alpha1.ReasonStored}}}
	unknown := keyapi.CredentialsResponse{Items: []keyapi.CredentialResult{{Reason: v1alpha1.ReasonStored}, {Reason: v1alpha1.ReasonUnknownKey}}}
	refused := func(reason string) error { return &answeredError{reason} }
	for name, tc := range map[string]struct {
		keys   metav1.ConditionStatus
		reason string
		answer keyapi.CredentialsResponse
		err    error
		want   bool
	}{
		"all is well":                           {keys: metav1.ConditionTrue, reason: "KeysAvailable", answer: stored},
		"keys are gone":                         {keys: metav1.ConditionTrue, reason: "KeysAvailable", err: refused(v1alpha1.ReasonKeyMissing), want: true},
		"an earlier copy":                       {keys: metav1.ConditionTrue, reason: "KeysAvailable", err: refused(v1alpha1.ReasonKeysRolledBack), want: true},
		"altered":                               {keys: metav1.ConditionTrue, reason: "KeysAvailable", err: refused(v1alpha1.ReasonKeysAltered), want: true},
		"sealed to a key that is not there":     {keys: metav1.ConditionTrue, reason: "KeysAvailable", answer: unknown, want: true},
		"the keyserver is away":                 {keys: metav1.ConditionTrue, reason: "KeysAvailable", err: errors.New("connection refused")},
		"another refusal":                       {keys: metav1.ConditionTrue, reason: "KeysAvailable", err: refused(v1alpha1.ReasonNotReady)},
		"gone, and known to be":                 {keys: metav1.ConditionFalse, reason: v1alpha1.ReasonKeyMissing, err: refused(v1alpha1.ReasonKeyMissing)},
		"back again":                            {keys: metav1.ConditionFalse, reason: v1alpha1.ReasonKeyMissing, answer: stored, want: true},
		"gone, and the keyserver is away":       {keys: metav1.ConditionFalse, reason: v1alpha1.ReasonKeyMissing, err: errors.New("connection refused")},
		"a Tenant that waits for the keyserver": {keys: metav1.ConditionFalse, reason: v1alpha1.ReasonKeyserverUnavailable, answer: stored},
	} {
		t.Run(name, func(t *testing.T) {
			doubts := NewKeyDoubts()
			tenant := &v1alpha1.Tenant{ObjectMeta: metav1.ObjectMeta{Name: "acme", UID: "1"}}
			tenant.Status.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionKeysReady, Status: tc.keys, Reason: tc.reason}}
			doubts.Weigh(t.Context(), tenant, tc.answer, tc.err)
			doubts.Weigh(t.Context(), tenant, tc.answer, tc.err)
			if woken := len(doubts.Events); woken > 1 || (woken == 1) != tc.want {
				t.Errorf("woken %d times, want it: %t", woken, tc.want)
			}
			if taken := doubts.Take(tenant); taken != tc.want || doubts.Take(tenant) {
				t.Errorf("taken: %t, want %t, and once", taken, tc.want)
			}
			if len(doubts.doubtful) != 0 {
				t.Errorf("left: %v", doubts.doubtful)
			}
		})
	}
}

// answeredError is a refusal of the keyserver.
type answeredError struct{ reason string }

func (e *answeredError) Error() string  { return "no" }
func (e *answeredError) Reason() string { return e.reason }
