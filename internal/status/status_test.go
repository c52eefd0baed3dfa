package status

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/test/kstatus"
)

// short shows conditions as type=status/reason.
func short(conditions []metav1.Condition) string {
	var parts []string
	for _, c := range conditions {
		parts = append(parts, c.Type+"="+string(c.Status)+"/"+c.Reason)
	}
	return strings.Join(parts, " ")
}

func TestBot(t *testing.T) {
	stored, _ := Credentials(keyapi.CredentialsResponse{Secret: "s", Items: []keyapi.CredentialResult{{Name: "a", Reason: v1alpha1.ReasonStored}}})
	for name, tc := range map[string]struct {
		observed BotObserved
		want     string
	}{
		"nothing is known yet": {BotObserved{},
			"Ready=False/Progressing Reconciling=True/Progressing IsolationReady=Unknown/Waiting CredentialsReady=Unknown/Waiting WorkloadReady=Unknown/Waiting"},
		"the namespace is nobody's": {BotObserved{Problem: &Problem{Condition: v1alpha1.ConditionIsolationReady, Reason: "NoTenant", Message: "m", Stalled: true}},
			"Ready=False/NoTenant Stalled=True/NoTenant IsolationReady=False/NoTenant CredentialsReady=Unknown/Waiting WorkloadReady=Unknown/Waiting"},
		"the keyserver is away": {BotObserved{Isolated: true, Problem: &Problem{Condition: v1alpha1.ConditionCredentialsReady, Reason: "KeyserverUnavailable", Message: "m"}},
			"Ready=False/KeyserverUnavailable Reconciling=True/KeyserverUnavailable IsolationReady=True/Isolated CredentialsReady=False/KeyserverUnavailable WorkloadReady=Unknown/Waiting"},
		"the pod is on its way": {BotObserved{Isolated: true, Credentials: stored, Workload: &Workload{Problem: v1alpha1.Problem{Reason: "PodNotReady", Message: "m"}}},
			"Ready=False/PodNotReady Reconciling=True/PodNotReady IsolationReady=True/Isolated CredentialsReady=True/Stored WorkloadReady=False/PodNotReady"},
		"the pod is overdue": {BotObserved{Isolated: true, Credentials: stored, Workload: &Workload{Overdue: true, Problem: v1alpha1.Problem{Reason: "CrashLoopBackOff", Message: "m"}}},
			"Ready=False/CrashLoopBackOff Stalled=True/CrashLoopBackOff IsolationReady=True/Isolated CredentialsReady=True/Stored WorkloadReady=False/CrashLoopBackOff"},
		"it runs": {BotObserved{Isolated: true, Credentials: NoCredentials(), Workload: &Workload{Done: true}},
			"Ready=True/Ready IsolationReady=True/Isolated CredentialsReady=True/NoCredentials WorkloadReady=True/Running"},
		"it is suspended": {BotObserved{Isolated: true, Credentials: stored, Workload: &Workload{Done: true}, Suspended: SuspendedBySpec},
			"Ready=True/Suspended IsolationReady=True/Isolated CredentialsReady=True/Stored WorkloadReady=False/Suspended"},
		"its tenant is suspended": {BotObserved{Isolated: true, Credentials: stored, Workload: &Workload{Done: true}, Suspended: SuspendedByTenant},
			"Ready=True/TenantSuspended IsolationReady=True/Isolated CredentialsReady=True/Stored WorkloadReady=False/Suspended"},
		"a new value was refused and the old one runs": {BotObserved{Isolated: true, Credentials: stored, Workload: &Workload{Done: true},
			Problem: &Problem{Condition: v1alpha1.ConditionCredentialsReady, Reason: v1alpha1.ReasonWrongPlace, Message: "m", Stalled: true}},
			"Ready=False/WrongPlace Stalled=True/WrongPlace IsolationReady=True/Isolated CredentialsReady=True/Stored WorkloadReady=True/Running"},
		"it is going away": {BotObserved{Deleting: "Destroying the bot's keys."},
			"Ready=False/Deleting Reconciling=True/Deleting"},
	} {
		t.Run(name, func(t *testing.T) {
			conditions := Bot(tc.observed)
			if diff := cmp.Diff(tc.want, short(conditions)); diff != "" {
				t.Error(diff)
			}
			checkKstatus(t, conditions)
		})
	}
}

// checkKstatus lets Flux' own code look at an object with these conditions.
func checkKstatus(t *testing.T, conditions []metav1.Condition) {
	t.Helper()
	o := &v1alpha1.BotDeployment{ObjectMeta: metav1.ObjectMeta{Name: "o", Generation: 1}, Status: v1alpha1.BotDeploymentStatus{ObservedGeneration: 1}}
	Apply(&o.Status.Conditions, conditions, 1, metav1.Now())
	kstatus.Check(t, o)
}

func TestTenant(t *testing.T) {
	taken := Problem{Condition: v1alpha1.ConditionNamespacesReady, Reason: "NamespaceTaken", Message: "m", Stalled: true}
	away := Problem{Condition: v1alpha1.ConditionKeysReady, Reason: "KeyserverUnavailable", Message: "m"}
	for name, tc := range map[string]struct {
		observed TenantObserved
		want     string
	}{
		"nothing is known yet": {TenantObserved{},
			"Ready=False/Progressing Reconciling=True/Progressing NamespacesReady=Unknown/Waiting IsolationReady=Unknown/Waiting KeysReady=Unknown/Waiting ChangesPaused=False/WithinBudget InUse=False/Empty"},
		"it is set up": {TenantObserved{Isolated: true, Unopened: true, KeysAvailable: true, InUse: true},
			"Ready=True/Ready NamespacesReady=True/Isolated IsolationReady=True/Isolated KeysReady=True/KeysAvailable ChangesPaused=False/WithinBudget InUse=True/HoldsBotsOrStores"},
		"what stalls speaks before what does not": {TenantObserved{Problems: []Problem{away, taken}, InUse: true},
			"Ready=False/NamespaceTaken Stalled=True/NamespaceTaken NamespacesReady=False/NamespaceTaken IsolationReady=Unknown/Waiting KeysReady=False/KeyserverUnavailable ChangesPaused=False/WithinBudget InUse=True/HoldsBotsOrStores"},
		"it is going away": {TenantObserved{Deleting: "Waiting.", Problems: []Problem{away}},
			"Ready=False/Deleting Reconciling=True/Deleting ChangesPaused=False/WithinBudget InUse=False/Empty"},
	} {
		t.Run(name, func(t *testing.T) {
			conditions := Tenant(tc.observed)
			if diff := cmp.Diff(tc.want, short(conditions)); diff != "" {
				t.Error(diff)
			}
			checkKstatus(t, conditions)
		})
	}
}

func TestEvaluationGradeIsSaid(t *testing.T) {
	c := meta.FindStatusCondition(Tenant(TenantObserved{Isolated: true, Unopened: true, KeysAvailable: true, KEKGrade: "Evaluation"}), v1alpha1.ConditionKeysReady)
	if !strings.Contains(c.Message, "evaluation") {
		t.Errorf("nobody learns of it: %s", c.Message)
	}
}

func TestCredentials(t *testing.T) {
	item := func(name, reason string) keyapi.CredentialResult {
		return keyapi.CredentialResult{Name: name, Reason: reason, Message: "seal it again"}
	}
	for name, tc := range map[string]struct {
		answer        keyapi.CredentialsResponse
		want, problem string
	}{
		"all stored":                  {keyapi.CredentialsResponse{Secret: "s", Items: []keyapi.CredentialResult{item("a", v1alpha1.ReasonStored)}}, "True/Stored", ""},
		"one older":                   {keyapi.CredentialsResponse{Secret: "s", Items: []keyapi.CredentialResult{item("a", v1alpha1.ReasonRolledBack)}}, "True/RolledBack", ""},
		"one older, and no newer one": {keyapi.CredentialsResponse{Items: []keyapi.CredentialResult{item("a", v1alpha1.ReasonRolledBack)}}, "False/RolledBack", "RolledBack"},
		"one from a Secret":           {keyapi.CredentialsResponse{Secret: "s", Items: []keyapi.CredentialResult{{Name: "a", Reason: v1alpha1.ReasonStored, Plaintext: true}}}, "True/PlaintextInSecret", ""},
		"one refused":                 {keyapi.CredentialsResponse{Secret: "s", Items: []keyapi.CredentialResult{item("a", v1alpha1.ReasonStored), item("b", v1alpha1.ReasonWrongPlace)}}, "False/WrongPlace", "WrongPlace"},
		"never stored":                {keyapi.CredentialsResponse{Items: []keyapi.CredentialResult{item("a", v1alpha1.ReasonUnknownKey)}}, "False/UnknownKey", "UnknownKey"},
		"none, and no words":          {keyapi.CredentialsResponse{}, "False/NotReady", "NotReady"},
	} {
		t.Run(name, func(t *testing.T) {
			c, problem := Credentials(tc.answer)
			if got := string(c.Status) + "/" + c.Reason; got != tc.want {
				t.Errorf("%s, want %s", got, tc.want)
			}
			got := ""
			if problem != nil {
				got = problem.Reason
			}
			if got != tc.problem {
				t.Errorf("problem %q, want %q", got, tc.problem)
			}
			if tc.answer.Secret != "" && problem != nil && !strings.Contains(c.Message, "go on being used") {
				t.Errorf("the message does not say that the values before go on: %s", c.Message)
			}
		})
	}
}

// TestPlaintextInSpec: the note comes once, first and without pushing out a reason that says more; a second pass over
// what the first made changes nothing.
func TestPlaintextInSpec(t *testing.T) {
	elements := []string{"spec.env[A].value", "spec.args[0]", "spec.args[1]", "spec.command[2]"}
	of := func(c *metav1.Condition) metav1.Condition {
		for _, made := range Bot(BotObserved{Credentials: c, Plaintext: elements, Isolated: true, Workload: &Workload{Done: true}}) {
			if made.Type == v1alpha1.ConditionStalled && made.Status == metav1.ConditionTrue || made.Type == v1alpha1.ConditionReady && made.Status != metav1.ConditionTrue {
				t.Errorf("a note stops the bot: %+v", made)
			}
			if made.Type == v1alpha1.ConditionCredentialsReady {
				return made
			}
		}
		return metav1.Condition{}
	}
	for reason, want := range map[string]string{v1alpha1.ReasonStored: v1alpha1.ReasonPlaintextInSpec, v1alpha1.ReasonNoCredentials: v1alpha1.ReasonPlaintextInSpec, v1alpha1.ReasonPlaintext: v1alpha1.ReasonPlaintext, v1alpha1.ReasonRolledBack: v1alpha1.ReasonRolledBack} {
		c := condition(v1alpha1.ConditionCredentialsReady, metav1.ConditionTrue, reason, "What was there before.")
		once := of(&c)
		if once.Reason != want || once.Status != metav1.ConditionTrue || !strings.Contains(once.Message, "spec.env[A].value, spec.args[0], spec.args[1] and 1 more") || !strings.HasSuffix(once.Message, c.Message) {
			t.Errorf("%s: %+v", reason, once)
		}
		if twice := of(&once); twice != once {
			t.Errorf("%s: a second pass makes %+v out of %+v", reason, twice, once)
		}
	}
	refused := condition(v1alpha1.ConditionCredentialsReady, metav1.ConditionFalse, v1alpha1.ReasonWrongPlace, "x")
	if got := of(&refused); got != refused {
		t.Errorf("a refusal was changed to %+v", got)
	}
}

func TestIsSetDone(t *testing.T) {
	one := int32(1)
	done := func(edit func(*appsv1.StatefulSet)) *appsv1.StatefulSet {
		set := &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Generation: 3}, Spec: appsv1.StatefulSetSpec{Replicas: &one},
			Status: appsv1.StatefulSetStatus{ObservedGeneration: 3, Replicas: 1, UpdatedReplicas: 1, AvailableReplicas: 1}}
		edit(set)
		return set
	}
	if !IsSetDone(done(func(*appsv1.StatefulSet) {})) {
		t.Error("a set that is as asked for is not done")
	}
	for name, set := range map[string]*appsv1.StatefulSet{
		"another generation": done(func(s *appsv1.StatefulSet) { s.Status.ObservedGeneration = 2 }),
		"not ready for long": done(func(s *appsv1.StatefulSet) { s.Status.ReadyReplicas, s.Status.AvailableReplicas = 1, 0 }),
		"an old revision":    done(func(s *appsv1.StatefulSet) { s.Status.UpdatedReplicas = 0 }),
		"one too many":       done(func(s *appsv1.StatefulSet) { s.Status.Replicas = 2 }),
	} {
		if IsSetDone(set) {
			t.Errorf("%s: done", name)
		}
	}
}

func TestApply(t *testing.T) {
	then, now := metav1.NewTime(time.Unix(1, 0)), metav1.NewTime(time.Unix(2, 0))
	var conditions []metav1.Condition
	ready := []metav1.Condition{condition("Ready", metav1.ConditionTrue, "Ready", "m")}
	Apply(&conditions, ready, 1, then)
	Apply(&conditions, ready, 2, now)
	if c := conditions[0]; c.ObservedGeneration != 2 || !c.LastTransitionTime.Equal(&then) {
		t.Errorf("%+v: the time moves with the status only", c)
	}
	Apply(&conditions, []metav1.Condition{condition("Ready", metav1.ConditionFalse, "Not", strings.Repeat("x", 5000))}, 2, now)
	if c := conditions[0]; !c.LastTransitionTime.Equal(&now) || len(c.Message) > messageLimit+2 {
		t.Errorf("%d characters at %s", len(c.Message), c.LastTransitionTime)
	}
}

// TestNotesOnStoredCredentials: what is stored may still have something said about it.
func TestNotesOnStoredCredentials(t *testing.T) {
	c, problem := Credentials(keyapi.CredentialsResponse{Secret: "s", Items: []keyapi.CredentialResult{{Name: "telegram", Reason: v1alpha1.ReasonStored, Message: "no token's shape"}}})
	if problem != nil || c.Status != metav1.ConditionTrue || !strings.Contains(c.Message, "telegram: no token's shape.") {
		t.Errorf("%+v, %+v", c, problem)
	}
}
