package status

import (
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/plan"
)

// Reasons of a DataRetentionPolicy's conditions.
const (
	ReasonNoStore     = "NoStore"
	ReasonUnproven    = "Unproven"
	ReasonRuleRefused = "RuleRefused"
)

// PolicyObserved is what one pass saw of a DataRetentionPolicy.
type PolicyObserved struct {
	Policy string
	// Stores that it selects.
	Stores []*v1alpha1.DataStore
	// Problems of its own rules.
	Problems []plan.Problem
}

// storeShare is how one store keeps one policy.
type storeShare struct {
	name    string
	overdue int64
	oldest  int64
	kept    bool // measured, and nothing of this policy is overdue there
}

// Policy sums up over the stores, and says whether the promise is kept now.
func Policy(o PolicyObserved) (v1alpha1.DataRetentionPolicyStatus, []metav1.Condition) {
	var out v1alpha1.DataRetentionPolicyStatus
	var late, unproven []string
	worst := storeShare{kept: true}
	shares := make([]storeShare, 0, len(o.Stores))
	for _, s := range o.Stores {
		shares = append(shares, shareOf(s, o.Policy))
	}
	slices.SortFunc(shares, func(a, b storeShare) int { return strings.Compare(a.name, b.name) })
	for _, s := range shares {
		out.Matched++
		out.Overdue += s.overdue
		out.OldestOverdueSeconds = max(out.OldestOverdueSeconds, s.oldest)
		switch {
		case s.kept:
			out.Compliant++
		case s.overdue > 0:
			late = append(late, s.name)
		default:
			unproven = append(unproven, s.name)
		}
		if worse(s, worst) {
			worst = s
		}
	}
	out.WorstStore = worst.name

	v := map[string]Verdict{}
	switch {
	case out.Matched == 0:
		v[v1alpha1.ConditionCompliant] = unknown(ReasonNoStore, "spec.storeSelector selects no DataStore")
	case len(late) > 0:
		v[v1alpha1.ConditionCompliant] = no(ReasonOverdue, "rows are past window and slack, and still there, in: %s", list(late))
	case len(unproven) > 0:
		v[v1alpha1.ConditionCompliant] = unknown(ReasonUnproven, "not shown by a measurement of: %s; see the conditions there", list(unproven))
	default:
		v[v1alpha1.ConditionCompliant] = yes(ReasonCompliant, "measured in every store, and nothing is overdue")
	}
	compliant := v[v1alpha1.ConditionCompliant]
	out.OverdueRows = overdueRows(out.Overdue, compliant.Status)
	// The policy is in force as it is written as soon as its rules can be: whether the promise is kept is Compliant's to say.
	summary := Summary(nil, false, orElse(compliantReason(compliant), ReasonReady), inForce(compliant))
	if problems := messages(o.Problems); len(problems) > 0 {
		summary = Summary(&Problem{Reason: ReasonRuleRefused, Message: strings.Join(problems, "; "), Stalled: true}, false, "", "")
	}
	return out, append(summary, conditions(v)...)
}

// worse orders stores: what is overdue longest, then most, then what is not shown to be kept, then by name.
func worse(a, b storeShare) bool {
	switch {
	case b.name == "":
		return !a.kept
	case a.oldest != b.oldest:
		return a.oldest > b.oldest
	case a.overdue != b.overdue:
		return a.overdue > b.overdue
	case a.kept != b.kept:
		return b.kept
	default:
		return false
	}
}

// shareOf looks at the measurements of one policy in a store. A store that is not compliant because of another policy still
// keeps this one when all its measurements are there and good.
func shareOf(s *v1alpha1.DataStore, policy string) storeShare {
	out := storeShare{name: s.Namespace + "/" + s.Name}
	measured, good := 0, true
	for _, m := range s.Status.Rules {
		if m.Policy != policy {
			continue
		}
		measured++
		out.overdue += m.Overdue
		out.oldest = max(out.oldest, m.OldestOverdueSeconds)
		good = good && m.Overdue == 0 && m.UnknownAge == 0 && m.UnknownTenantLate == 0 && m.Reason == ""
	}
	c := meta.FindStatusCondition(s.Status.Conditions, v1alpha1.ConditionCompliant)
	switch {
	case c == nil:
	case c.Status == metav1.ConditionTrue:
		out.kept = measured > 0
	default:
		out.kept = (c.Status == metav1.ConditionFalse && c.Reason == ReasonOverdue || c.Reason == ReasonUngoverned || c.Reason == ReasonUncoveredTable) && measured > 0 && good
	}
	return out
}
