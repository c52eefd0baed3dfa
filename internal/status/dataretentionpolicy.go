package status

import (
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/near"
	"github.com/lethe-dev/lethe/internal/plan"
)

// PolicyObserved is what one pass saw of a DataRetentionPolicy.
type PolicyObserved struct {
	Policy *v1alpha1.DataRetentionPolicy
	// Stores that it selects.
	Stores []*v1alpha1.DataStore
	// Others are those that it does not select: one of them may be meant where none is.
	Others []*v1alpha1.DataStore
	// Problems of its own rules.
	Problems []plan.Problem
}

// storeShare is how one store keeps one policy.
type storeShare struct {
	name    string
	overdue int64
	oldest  int64
	late    bool
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
		case s.late:
			late = append(late, s.name)
		default:
			unproven = append(unproven, s.name)
		}
		if worse(s, worst) {
			worst = s
		}
	}
	out.WorstStore = worst.name

	var unshown []string
	if len(unproven) > 0 {
		unshown = append(unshown, fmt.Sprintf("not shown by a measurement of: %s; see the conditions there", list(unproven)))
	}
	if names := nowhere(o.Policy, o.Stores); len(names) > 0 && out.Matched > 0 {
		unshown = append(unshown, fmt.Sprintf("no dataset of the stores that are selected has the dataClass of: %s; correct dataClass there or in the DataStore, map the table, or take the rule away", list(names)))
	}
	v := map[string]metav1.Condition{}
	switch {
	case out.Matched == 0:
		v[v1alpha1.ConditionCompliant] = unknown(v1alpha1.ReasonNoStore, "spec.storeSelector selects no DataStore, so nothing keeps the promise%s", nearMiss(o.Policy.Spec.StoreSelector, o.Others))
	case len(late) > 0:
		v[v1alpha1.ConditionCompliant] = no(v1alpha1.ReasonOverdue, "%s", strings.Join(append([]string{
			fmt.Sprintf("rows are past window and slack, and still there, in: %s", list(late))}, unshown...), "; "))
	case len(unshown) > 0:
		v[v1alpha1.ConditionCompliant] = unknown(v1alpha1.ReasonNotVerified, "%s", strings.Join(unshown, "; "))
	default:
		v[v1alpha1.ConditionCompliant] = yes(v1alpha1.ReasonCompliant, "each rule was measured in every store, and nothing is overdue")
	}
	compliant := v[v1alpha1.ConditionCompliant]
	out.OverdueRows = overdueRows(out.Overdue, compliant.Status)
	// The policy is in force as it is written as soon as its rules can be: whether the promise is kept is Compliant's
	// to say.
	summary := Summary(nil, false, orElse(compliantReason(compliant), v1alpha1.ReasonReady), inForce(compliant))
	if problems := messages(o.Problems); len(problems) > 0 {
		summary = Summary(&Problem{Reason: v1alpha1.ReasonRuleRefused, Message: strings.Join(problems, "; "), Stalled: true}, false, "", "")
	}
	return out, append(summary, conditions(v)...)
}

// nowhere are the rules of a policy that no dataset has: a dataClass that is misspelt, or of what nobody has mapped.
func nowhere(p *v1alpha1.DataRetentionPolicy, stores []*v1alpha1.DataStore) []string {
	has := map[v1alpha1.DataClass]bool{}
	for _, s := range stores {
		for _, d := range s.Spec.Datasets {
			has[d.DataClass] = true
		}
	}
	var names []string
	for _, r := range p.Spec.Rules {
		if !has[r.DataClass] {
			names = append(names, fmt.Sprintf("spec.rules[%s] (%s)", r.Name, r.DataClass))
		}
	}
	return names
}

// nearMiss names the store that was most likely meant by a selector that selects none, and the label by which it is
// missed.
func nearMiss(selector metav1.LabelSelector, stores []*v1alpha1.DataStore) string {
	type miss struct {
		rank        int
		store, text string
	}
	var best *miss
	consider := func(m miss) {
		if best == nil || m.rank < best.rank || (m.rank == best.rank && (m.store < best.store || (m.store == best.store && m.text < best.text))) {
			best = &m
		}
	}
	for _, s := range stores {
		name := s.Namespace + "/" + s.Name
		for key, value := range selector.MatchLabels {
			for k, v := range s.Labels {
				said := fmt.Sprintf("; %s has the label %s=%s, and %s=%s is asked for", name, k, v, key, value)
				switch {
				case k == key && v == value:
					continue // another label is what is missed
				case k == key && (strings.EqualFold(v, value) || near.Nearest(value, []string{v}) != ""), v == value && (strings.EqualFold(k, key) || near.Nearest(key, []string{k}) != ""):
					consider(miss{0, name, said})
				case k == key:
					consider(miss{1, name, said})
				}
			}
		}
		for _, e := range selector.MatchExpressions {
			for k, v := range s.Labels {
				if k != e.Key && (strings.EqualFold(k, e.Key) || near.Nearest(e.Key, []string{k}) != "") {
					consider(miss{0, name, fmt.Sprintf("; %s has the label %s=%s, and the key %s is asked for", name, k, v, e.Key)})
				}
			}
		}
	}
	switch {
	case best != nil:
		return best.text + ": correct the one or the other"
	default:
		return ": label a DataStore as the selector asks ('kubectl get datastores -A --show-labels'), or delete the policy"
	}
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

// shareOf is what a store says of a policy. It counts only where it is about the specs of both as they are now.
func shareOf(s *v1alpha1.DataStore, p *v1alpha1.DataRetentionPolicy) storeShare {
	out := storeShare{name: s.Namespace + "/" + s.Name}
	for _, m := range s.Status.Lines {
		if m.Policy == p.Name {
			out.overdue += m.Overdue
			out.oldest = max(out.oldest, m.OldestOverdueSeconds)
		}
	}
	if s.Status.ObservedGeneration != s.Generation {
		return out
	}
	for _, promise := range s.Status.Promises {
		if promise.Policy == p.Name && promise.Generation == p.Generation {
			out.kept, out.late = promise.State == v1alpha1.PromiseKept, promise.State == v1alpha1.PromiseOverdue
		}
	}
	return out
}
