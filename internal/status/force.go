package status

import (
	"strconv"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

// misfit is why what the spec says of a dataset cannot be true of the database, or empty: a person has to change one
// or the other.
func misfit(s v1alpha1.DataStoreStatus) string {
	for d, m := range s.Lines {
		switch reason := d.ProblemOf(m).Reason; reason {
		case v1alpha1.ReasonMissingTable, v1alpha1.ReasonMissingColumn, v1alpha1.ReasonWrongAgeType, v1alpha1.ReasonUnknownTimeZone, v1alpha1.ReasonKeyNotUnique,
			v1alpha1.ReasonMissingPrivilege, v1alpha1.ReasonUnsupportedTable, v1alpha1.ReasonUnclearTenant, v1alpha1.ReasonRelationType:
			return reason
		}
	}
	return ""
}

// storeInForce is Ready of a store that is as it is written, with the reason of what else there is to know about it.
func storeInForce(o StoreObserved, v map[string]metav1.Condition) metav1.Condition {
	approved, compliant := v[v1alpha1.ConditionApproved], v[v1alpha1.ConditionCompliant]
	switch {
	case approved.Status != metav1.ConditionTrue && o.Result.Waiting:
		return yes(approved.Reason, "in force as it is written; what waits for a person is in condition %s", v1alpha1.ConditionApproved)
	case compliant.Status != metav1.ConditionTrue:
		return yes(compliant.Reason, "%s", inForce(compliant))
	case !o.Result.Enforced:
		return yes(v1alpha1.ReasonAudit, "in force as it is written: it is measured, and nothing is deleted until a policy says spec.mode: Enforce")
	default:
		return yes(v1alpha1.ReasonReady, "%s", inForce(compliant))
	}
}

// inForce is the message of Ready of what is as it is written.
func inForce(compliant metav1.Condition) string {
	if compliant.Status == metav1.ConditionTrue {
		return "in force as it is written"
	}
	return "in force as it is written; whether the promise is kept is in condition " + v1alpha1.ConditionCompliant
}

// compliantReason is why a promise is not known to be kept, or empty when it is.
func compliantReason(compliant metav1.Condition) string {
	if compliant.Status == metav1.ConditionTrue {
		return ""
	}
	return compliant.Reason
}

// overdueRows is a number of rows in a word: none is known only where the promise is shown to be kept.
func overdueRows(overdue int64, compliant metav1.ConditionStatus) string {
	if overdue == 0 && compliant != metav1.ConditionTrue {
		return OverdueUnknown
	}
	return strconv.FormatInt(overdue, 10)
}

// OverdueRows is status.overdueRows of a store with these conditions.
func OverdueRows(overdue int64, conditions []metav1.Condition) string {
	for _, c := range conditions {
		if c.Type == v1alpha1.ConditionCompliant {
			return overdueRows(overdue, c.Status)
		}
	}
	return OverdueUnknown
}

// OverdueUnknown is what the column OVERDUE says while nothing shows how many rows are.
const OverdueUnknown = "unknown"

// toldElsewhere lets Compliant name the condition that says already why the promise is not shown to be kept. A table
// that nobody has put on the map, or a dataset that no rule governs, may hold anything.
func toldElsewhere(compliant metav1.Condition, v map[string]metav1.Condition) metav1.Condition {
	reachable, coverage, approved := v[v1alpha1.ConditionReachable], v[v1alpha1.ConditionCoverageComplete], v[v1alpha1.ConditionApproved]
	switch {
	case compliant.Status == metav1.ConditionTrue && coverage.Status == metav1.ConditionFalse:
		return unknown(coverage.Reason, "%s", see(v1alpha1.ConditionCoverageComplete))
	case compliant.Status != metav1.ConditionUnknown:
		return compliant
	case compliant.Reason == v1alpha1.ReasonUngoverned && coverage.Reason == v1alpha1.ReasonUngoverned:
		compliant.Message = see(v1alpha1.ConditionCoverageComplete)
	case compliant.Reason == v1alpha1.ReasonIdentityChanged && approved.Reason == compliant.Reason:
		compliant.Message = see(v1alpha1.ConditionApproved)
	case reachable.Status != metav1.ConditionTrue && reachable.Reason == compliant.Reason:
		compliant.Message = see(v1alpha1.ConditionReachable)
	}
	return compliant
}
