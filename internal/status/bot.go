package status

import (
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/foreign"
)

// Suspension says who stopped a bot.
type Suspension string

const (
	// NotSuspended: the bot is to run.
	NotSuspended Suspension = ""
	// SuspendedBySpec: spec.operatingMode says so.
	SuspendedBySpec Suspension = "Spec"
	// SuspendedByTenant: the Tenant is suspended.
	SuspendedByTenant Suspension = "Tenant"
	// StoppedWithTenant: the Tenant is being deleted.
	StoppedWithTenant Suspension = "TenantDeleting"
)

// BotObserved is what one pass over a BotDeployment found.
type BotObserved struct {
	// Problem that stopped the pass, or that lets it go on with what was there before.
	Problem *Problem
	// Isolated says that ServiceAccount and NetworkPolicy are in place.
	Isolated bool
	// Credentials is the condition CredentialsReady as the keyserver's answer makes it; nil when it was not asked.
	Credentials *metav1.Condition
	// Plaintext names the elements of the spec that hold what looks like a credential.
	Plaintext []string
	// Workload is nil when the pass did not come that far.
	Workload *Workload
	// Suspended says who stopped the bot.
	Suspended Suspension
	// Deleting is what a deletion waits for; empty when the bot is not being deleted.
	Deleting string
}

// Workload is how the pod is.
type Workload struct {
	// Done: the pod of the present revision is ready, or gone where the bot is suspended.
	Done bool
	// Overdue: it was not done within spec.rollout.progressDeadlineSeconds.
	Overdue bool
	// Problem is what it waits for.
	v1alpha1.Problem
	// Trouble says that it is more than a step on the way: waiting alone will hardly help.
	Trouble bool
	// AsksWho: it may be otherwise for somebody else than whom the image's registry was asked as.
	AsksWho bool
	// Update is a change of Lethe's own that the pod has not got yet.
	Update Update
}

// Update is how a change of Lethe's own, which all bots take over a few at a time, stands with a bot.
type Update string

const (
	// UpToDate: there is none.
	UpToDate Update = ""
	// UpdateWaits: the bot's turn comes.
	UpdateWaits Update = "Waits"
	// UpdateStopped: bots that were ready failed with it, and no other gets it.
	UpdateStopped Update = "Stopped"
	// UpdateStoppedInTenant: bots of the same Tenant did, and others go on getting it.
	UpdateStoppedInTenant Update = "StoppedInTenant"
	// UpdateHeld: its pod could never start, so the one of before is kept. The Workload's message says what is missing.
	UpdateHeld Update = "Held"
)

const (
	stoppedMessage = "The pod is ready. A change of Lethe's or of the Tenant's would restart it, and was stopped, since bots that were ready failed with it. " +
		"It goes on when those are ready again, suspended or deleted; who operates Lethe sees which they are. A change of the bot's own is not held up."
	stoppedInTenantMessage = "The pod is ready. A change of Lethe's or of the Tenant's would restart it, and was stopped for this Tenant, since bots of its own that were ready failed with it: " +
		"kubectl lethe status shows which. It goes on when those are ready again, suspended or deleted. A change of the bot's own is not held up."
)

// SaysStopped says whether conditions tell that a change was stopped for all, or for the bot's Tenant.
func SaysStopped(conditions []metav1.Condition, u Update) bool {
	c := meta.FindStatusCondition(conditions, v1alpha1.ConditionWorkloadReady)
	message := map[Update]string{UpdateStopped: stoppedMessage, UpdateStoppedInTenant: stoppedInTenantMessage}[u]
	return c != nil && c.Reason == v1alpha1.ReasonUpdateStopped && c.Message == message
}

// Bot computes all conditions of a BotDeployment.
func Bot(o BotObserved) []metav1.Condition {
	if o.Deleting != "" {
		var problems []Problem
		if o.Problem != nil {
			problems = append(problems, *o.Problem)
		}
		return deleting(problems, o.Deleting)
	}
	conditions := botSummary(o)
	conditions = append(conditions, Step(v1alpha1.ConditionIsolationReady, o.Problem, o.Isolated, v1alpha1.ReasonIsolated,
		"ServiceAccount and NetworkPolicy are in place."))
	if o.Credentials != nil {
		conditions = append(conditions, withPlaintext(*o.Credentials, o.Plaintext))
	} else {
		conditions = append(conditions, Step(v1alpha1.ConditionCredentialsReady, o.Problem, false, "", ""))
	}
	return append(conditions, workload(o))
}

// plaintextShown is how many elements a condition names.
const plaintextShown = 3

// withPlaintext notes in CredentialsReady that credentials seem to stand in the spec. The bot runs all the same, and
// a reason that says more is kept. The note comes first, and is not added to a condition of an earlier pass that
// begins with it.
func withPlaintext(c metav1.Condition, elements []string) metav1.Condition {
	if len(elements) == 0 || c.Status != metav1.ConditionTrue {
		return c
	}
	shown := strings.Join(elements[:min(len(elements), plaintextShown)], ", ")
	if more := len(elements) - plaintextShown; more > 0 {
		shown += fmt.Sprintf(" and %d more", more)
	}
	note := "In plain text in the spec, by the look of it: " + shown + ". Put it into spec.credentials with 'kubectl lethe seal', and change it where it was issued. "
	if !strings.HasPrefix(c.Message, note) {
		c.Message = foreign.Line(note+c.Message, messageLimit)
	}
	if c.Reason == v1alpha1.ReasonStored || c.Reason == v1alpha1.ReasonNoCredentials {
		c.Reason = v1alpha1.ReasonPlaintextInSpec
	}
	return c
}

func botSummary(o BotObserved) []metav1.Condition {
	w := o.Workload
	isStopped := o.Suspended != NotSuspended && w != nil && w.Done
	switch {
	case o.Problem != nil && !isStopped:
		return Summary(o.Problem, true, "", "")
	case w == nil:
		return Summary(nil, true, "", "Waiting for the first visit to end.")
	case !w.Done && w.Overdue:
		return Summary(&Problem{Reason: w.Reason, Message: w.Message, Stalled: true}, true, "", "")
	case !w.Done:
		return Summary(&Problem{Reason: w.Reason, Message: w.Message}, true, "", "")
	case o.Suspended == SuspendedByTenant:
		return Summary(nil, false, v1alpha1.ReasonTenantSuspended, "The Tenant is suspended, and all its bots with it.")
	case o.Suspended == StoppedWithTenant:
		return Summary(&Problem{Reason: v1alpha1.ReasonTenantDeleting, Message: "The Tenant is being deleted: the bot has no pod and gets no credentials. Its own keys are destroyed when it is deleted."},
			true, "", "")
	case o.Suspended == SuspendedBySpec:
		return Summary(nil, false, v1alpha1.ReasonSuspended, "The bot is suspended: it has no pod, and keeps everything else.")
	default:
		return Summary(nil, false, v1alpha1.ReasonReady, "The bot runs as the spec asks.")
	}
}

func workload(o BotObserved) metav1.Condition {
	const kind = v1alpha1.ConditionWorkloadReady
	w := o.Workload
	switch {
	case w == nil:
		return Step(kind, o.Problem, false, "", "")
	case !w.Done:
		return condition(kind, metav1.ConditionFalse, w.Reason, w.Message)
	case o.Suspended != NotSuspended:
		return condition(kind, metav1.ConditionFalse, v1alpha1.ReasonSuspended, suspendedMessage(o))
	case w.Update == UpdateWaits:
		return condition(kind, metav1.ConditionTrue, v1alpha1.ReasonUpdateWaits, "The pod is ready. A change of Lethe's or of the Tenant's restarts it when its turn comes: that is done for a few bots at a time.")
	case w.Update == UpdateStopped:
		return condition(kind, metav1.ConditionTrue, v1alpha1.ReasonUpdateStopped, stoppedMessage)
	case w.Update == UpdateHeld:
		return condition(kind, metav1.ConditionTrue, v1alpha1.ReasonUpdateHeld, "The pod is ready, and is the one of before: a pod as it is asked for now could never start, so this one is kept. "+w.Message+".")
	case w.Update == UpdateStoppedInTenant:
		return condition(kind, metav1.ConditionTrue, v1alpha1.ReasonUpdateStopped, stoppedInTenantMessage)
	default:
		return condition(kind, metav1.ConditionTrue, v1alpha1.ReasonRunning, "The pod of the present revision is ready.")
	}
}

func suspendedMessage(o BotObserved) string {
	switch {
	case o.Suspended == StoppedWithTenant:
		return "The bot has no pod because its Tenant is being deleted."
	case o.Problem != nil && o.Problem.Condition == v1alpha1.ConditionWorkloadReady:
		return "The bot has no pod because it is suspended. When it is to run, this keeps it from it: " + o.Problem.Message
	default:
		return "The bot has no pod because it is suspended."
	}
}
