package status

import (
	"fmt"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

// TenantObserved is what one pass over a Tenant found.
type TenantObserved struct {
	// Problems in the order they were met. The first that stalls, or else the first, speaks for the Tenant.
	Problems []Problem
	// Isolated says that every namespace of the spec is the tenant's and isolated.
	Isolated bool
	// Unopened says that no foreign network policy, and nothing from before the walls that may reach what runs, is in
	// the namespaces, but what the spec names.
	Unopened bool
	// KeysAvailable says that the keyserver has the tenant's keys.
	KeysAvailable bool
	// KEKGrade is Production or Evaluation, once the keys are open.
	KEKGrade string
	// InUse says that bots or stores are in the tenant's namespaces.
	InUse bool
	// Retained names volumes of bots that are gone, where they count as in use.
	Retained []string
	// Paused says that changes are refused, since more was written than the Tenant's budget.
	Paused bool
	// Overruled says which Pod Security labels another client set otherwise, of late.
	Overruled []string
	// Contested says which external identifiers another Tenant claims too, later than this one; empty when there are
	// none. It is no problem of this Tenant.
	Contested string
	// Deleting is what a deletion waits for; empty when the Tenant is not being deleted.
	Deleting string
}

// Tenant computes all conditions of a Tenant.
func Tenant(o TenantObserved) []metav1.Condition {
	if o.Deleting != "" {
		return append(deleting(o.Problems, o.Deleting), paused(o.Paused), inUse(o.InUse, o.Retained))
	}
	worst := Worst(o.Problems)
	progressing := !o.Isolated || !o.KeysAvailable || !o.Unopened
	message := "The namespaces are isolated and the keys are open."
	if progressing {
		message = "Setting up namespaces and keys."
	}
	if o.Contested != "" {
		message += " " + o.Contested
	}
	conditions := Summary(worst, progressing, v1alpha1.ReasonReady, message)
	conditions = append(conditions,
		Step(v1alpha1.ConditionNamespacesReady, first(o.Problems, v1alpha1.ConditionNamespacesReady), o.Isolated, isolatedReason(o), isolatedMessage(o)),
		Step(v1alpha1.ConditionIsolationReady, first(o.Problems, v1alpha1.ConditionIsolationReady), o.Unopened, v1alpha1.ReasonIsolated,
			"Nothing of other clients that may undo the walls is in the namespaces but what the Tenant names."),
		Step(v1alpha1.ConditionKeysReady, first(o.Problems, v1alpha1.ConditionKeysReady), o.KeysAvailable, v1alpha1.ReasonKeysAvailable, keysMessage(o.KEKGrade)),
		paused(o.Paused), inUse(o.InUse, o.Retained))
	return conditions
}

func isolatedReason(o TenantObserved) string {
	if len(o.Overruled) > 0 {
		return v1alpha1.ReasonPodSecurityOverruled
	}
	return v1alpha1.ReasonIsolated
}

func isolatedMessage(o TenantObserved) string {
	if len(o.Overruled) > 0 {
		return fmt.Sprintf("Every namespace is the tenant's and isolated. Lethe's Pod Security labels stand, restricted and latest, and another client sets others: %s. "+
			"Take them out of the manifest, or write these there.", strings.Join(o.Overruled, "; "))
	}
	return "Every namespace is the tenant's and isolated."
}

func keysMessage(grade string) string {
	if grade == "Evaluation" {
		return "The keys are open. Their key-encryption key is of evaluation grade: it lies in the cluster's own etcd, so a snapshot opens everything."
	}
	return "The keys are open."
}

func paused(now bool) metav1.Condition {
	if !now {
		return condition(v1alpha1.ConditionChangesPaused, metav1.ConditionFalse, v1alpha1.ReasonWithinBudget, "Bots and stores can be changed.")
	}
	return condition(v1alpha1.ConditionChangesPaused, metav1.ConditionTrue, v1alpha1.ReasonBudgetExceeded, "More was written to the bots and stores than one Tenant may have "+
		"written within five minutes: changes are refused until the time in the annotation "+v1alpha1.AnnotationChangesPaused+" of its namespaces. What runs goes on. "+
		"Find who writes so much; raise the manager's --changes-budget if it is meant; take the annotation away to end it at once.")
}

func inUse(used bool, retained []string) metav1.Condition {
	switch {
	case used:
		return condition(v1alpha1.ConditionInUse, metav1.ConditionTrue, v1alpha1.ReasonHoldsBots,
			"There are BotDeployments or DataStores in the namespaces; delete them before the Tenant.")
	case len(retained) > 0:
		return condition(v1alpha1.ConditionInUse, metav1.ConditionTrue, v1alpha1.ReasonHoldsVolumes, fmt.Sprintf(
			"Volumes of deleted bots are left: %s. Delete each PersistentVolumeClaim that nobody needs before the Tenant, or say "+
				"spec.retainedVolumes: Release: then those in namespaces that Lethe made are deleted with the Tenant, and the others stay.", strings.Join(retained, ", ")))
	default:
		return condition(v1alpha1.ConditionInUse, metav1.ConditionFalse, v1alpha1.ReasonEmpty, "No BotDeployment, no DataStore and no retained volume is in the namespaces, but what is being deleted.")
	}
}

// deleting are Ready, Reconciling and Stalled of an object on its way out.
func deleting(problems []Problem, message string) []metav1.Condition {
	if worst := Worst(problems); worst != nil {
		message = fmt.Sprintf("%s %s", message, worst.Message)
	}
	return []metav1.Condition{
		condition(v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonDeleting, message),
		condition(v1alpha1.ConditionReconciling, metav1.ConditionTrue, v1alpha1.ReasonDeleting, message),
	}
}

// Worst is the first problem that stalls, or else the first, or nil.
func Worst(problems []Problem) *Problem {
	for i := range problems {
		if problems[i].Stalled {
			return &problems[i]
		}
	}
	if len(problems) > 0 {
		return &problems[0]
	}
	return nil
}

func first(problems []Problem, kind string) *Problem {
	for i := range problems {
		if problems[i].Condition == kind {
			return &problems[i]
		}
	}
	return nil
}
