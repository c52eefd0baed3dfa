package status

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/plan"
)

func yes(reason, format string, args ...any) metav1.Condition {
	return metav1.Condition{Status: metav1.ConditionTrue, Reason: reason, Message: fmt.Sprintf(format, args...)}
}

func no(reason, format string, args ...any) metav1.Condition {
	return metav1.Condition{Status: metav1.ConditionFalse, Reason: reason, Message: fmt.Sprintf(format, args...)}
}

func unknown(reason, format string, args ...any) metav1.Condition {
	return metav1.Condition{Status: metav1.ConditionUnknown, Reason: reason, Message: fmt.Sprintf(format, args...)}
}

// StoreObserved is what one pass saw of a DataStore.
type StoreObserved struct {
	Now time.Time
	// Refusal says why there is no plan; nil when there is one.
	Refusal *Problem
	// Problem is what stopped this pass; nil when nothing did.
	Problem *Problem
	// Credentials is the verdict about the store's password. Retried says that it comes right by itself where it is
	// not.
	Credentials metav1.Condition
	Retried     bool
	// Result and PlanDigest of the plan in force; nil with a Refusal.
	Result     *plan.Result
	PlanDigest string
	// Measured is the status with the measurement that is known so far.
	Measured v1alpha1.DataStoreStatus
	// StaleAfter is how old a measurement may be.
	StaleAfter time.Duration
}

// Store computes a DataStore's conditions. Ready says whether the store is in force as it is written, and Compliant
// alone whether the promise is kept. Unknown is failing. Promises says the same of each policy.
func Store(o StoreObserved) []metav1.Condition {
	v := map[string]metav1.Condition{v1alpha1.ConditionCredentialsReady: o.Credentials}
	if o.Refusal != nil {
		for _, c := range []string{v1alpha1.ConditionReachable, v1alpha1.ConditionCoverageComplete, v1alpha1.ConditionApproved, v1alpha1.ConditionCompliant} {
			v[c] = unknown(v1alpha1.ReasonNotPlanned, "%s", see(v1alpha1.ConditionReady))
		}
		summaryOf(v, o.Refusal)
		return conditions(v)
	}
	v[v1alpha1.ConditionReachable] = storeReachable(o)
	v[v1alpha1.ConditionCoverageComplete] = storeCoverage(o)
	v[v1alpha1.ConditionApproved] = storeApproved(o)
	v[v1alpha1.ConditionCompliant] = toldElsewhere(storeCompliant(o), v)
	if o.Problem != nil {
		summaryOf(v, o.Problem)
		return conditions(v)
	}
	summarise(o, v)
	return conditions(v)
}

// summaryOf lets one problem name Ready, Reconciling and Stalled.
func summaryOf(v map[string]metav1.Condition, p *Problem) {
	for _, c := range Summary(p, false, "", "") {
		v[c.Type] = metav1.Condition{Status: c.Status, Reason: c.Reason, Message: c.Message}
	}
}

// conditions in the order of their names.
func conditions(v map[string]metav1.Condition) []metav1.Condition {
	var out []metav1.Condition
	for _, kind := range slices.Sorted(maps.Keys(v)) {
		out = append(out, condition(kind, v[kind].Status, v[kind].Reason, v[kind].Message))
	}
	return out
}

// reached says whether a sweep that ended with this reason, or with none, talked to the store; known is false when
// the reason does not tell.
func reached(reason string) (talked, known bool) {
	if reason == "" {
		return true, true
	}
	told := v1alpha1.FactsOf(reason).Reached
	return told == v1alpha1.TruthYes, told != v1alpha1.TruthNotTold
}

// summarise sets Ready, Reconciling and Stalled: whether the store is in force as it is written. What it measures,
// and what waits to be approved, keeps no store from being that.
func summarise(o StoreObserved, v map[string]metav1.Condition) {
	problems := messages(o.Result.Problems)
	credentials, reachable := v[v1alpha1.ConditionCredentialsReady], v[v1alpha1.ConditionReachable]
	approved, compliant := v[v1alpha1.ConditionApproved], v[v1alpha1.ConditionCompliant]
	// Nobody has looked yet at the store as it is now: no sweep of this plan has ended, or none of those that have
	// came so far.
	unseen, look := o.Measured.MeasuredPlanDigest != o.PlanDigest, compliant
	if last := o.Measured.LastSweep; last != nil && last.PlanDigest != o.PlanDigest {
		unseen, look = true, unknown(v1alpha1.ReasonPlanChanged, messagePlanChanged)
	}
	type step struct {
		failing bool
		verdict metav1.Condition
		stuck   bool // until a person changes something
	}
	steps := []step{
		{credentials.Status != metav1.ConditionTrue, credentials, credentials.Status == metav1.ConditionFalse && !o.Retried},
		{reachable.Status == metav1.ConditionFalse, reachable, v1alpha1.FactsOf(reachable.Reason).IsFinal()},
		{len(problems) > 0, no(v1alpha1.ReasonPlanProblem, "%s", joined(problems, len(problems), "; ")), true},
		{isAnother(approved.Reason), approved, true},
		{unseen && reachable.Status != metav1.ConditionTrue, reachable, false},
		{unseen, look, false},
		{misfit(o.Measured) != "", no(misfit(o.Measured), "%s", see(v1alpha1.ConditionCompliant)), true},
		{promisesOverLimit(o) != "", no(v1alpha1.ReasonLimitReached, "%s", promisesOverLimit(o)), true},
		{limitReached(o), limit(compliant), true},
	}
	i := slices.IndexFunc(steps, func(s step) bool { return s.failing })
	if i < 0 {
		v[v1alpha1.ConditionReady] = storeInForce(o, v)
		return
	}
	// The first step that fails names Ready; the first that waits for a person names Stalled.
	first := steps[i].verdict
	v[v1alpha1.ConditionReady] = no(first.Reason, "%s", first.Message)
	if j := slices.IndexFunc(steps, func(s step) bool { return s.failing && s.stuck }); j >= 0 {
		v[v1alpha1.ConditionStalled] = yes(steps[j].verdict.Reason, "%s", steps[j].verdict.Message)
		return
	}
	v[v1alpha1.ConditionReconciling] = yes(first.Reason, "%s", first.Message)
}

func storeReachable(o StoreObserved) metav1.Condition {
	last := o.Measured.LastSweep
	if last == nil {
		return unknown(v1alpha1.ReasonNotMeasured, "no sweep has ended yet")
	}
	if last.Outcome == v1alpha1.SweepLost && last.PlanDigest == o.PlanDigest {
		return unknown(orElse(last.Reason, v1alpha1.ReasonReportLost), "%s", last.Message)
	}
	talked, known := reached(last.Reason)
	switch {
	case last.PlanDigest != o.PlanDigest && (!talked || !known):
		return unknown(v1alpha1.ReasonPlanChanged, "the store, its password or its rules have changed since the last sweep failed; the next one is under way")
	case !known:
		return unknown(last.Reason, "the last sweep did not come as far as the store: %s", last.Message)
	case talked:
		return yes(v1alpha1.ReasonConnected, "the last sweep talked to the store over verified TLS")
	default:
		return no(last.Reason, "%s", last.Message)
	}
}

func storeCoverage(o StoreObserved) metav1.Condition {
	if names := o.Result.Ungoverned; len(names) > 0 {
		return no(v1alpha1.ReasonUngoverned, "no rule governs the dataset(s) %s: let a DataRetentionPolicy select the store and name their dataClass", list(names))
	}
	if left := undeclared(o); left != "" {
		return no(v1alpha1.ReasonUndeclaredRelation, "%s", left)
	}
	if names := o.Measured.Uncovered; len(names) > 0 {
		total := max(len(names), int(o.Measured.UncoveredCount))
		return no(v1alpha1.ReasonUncoveredTable, "neither a dataset nor exempt: %s; name each table in spec.datasets, or in spec.exempt with a reason%s", joined(names, total, ", "), noRoom(o, names, total))
	}
	if o.Measured.MeasuredAt == nil {
		return unknown(v1alpha1.ReasonNotMeasured, "the store's tables have not been looked at yet")
	}
	return yes(v1alpha1.ReasonComplete, "every table is a dataset that a rule governs, or exempt")
}

// undeclared says which columns wait for spec.relations, with an entry to copy; empty: none.
func undeclared(o StoreObserved) string {
	var names []string
	var first v1alpha1.UndeclaredRelation
	limits := ""
	rest := max(0, int(o.Measured.UndeclaredRelationCount)-len(o.Measured.UndeclaredRelations))
	for _, u := range o.Measured.UndeclaredRelations {
		if slices.ContainsFunc(o.Result.Plan.Relations, func(r plan.Relation) bool {
			return string(r.Schema+"."+r.Table) == u.Table && string(r.Column) == u.Column && r.References == u.References
		}) {
			continue // said since; the next sweep looks again
		}
		if len(names) == 0 {
			first = u
		}
		names = append(names, fmt.Sprintf("%s.%s (dataset %s)", u.Table, u.Column, u.References))
	}
	if len(names) == 0 {
		return ""
	}
	if i := slices.IndexFunc(o.Measured.UndeclaredRelations, func(u v1alpha1.UndeclaredRelation) bool { return !writableColumn.MatchString(u.Table + "." + u.Column) }); i >= 0 {
		u := o.Measured.UndeclaredRelations[i]
		limits = fmt.Sprintf("; %s.%s cannot be written there (letters, digits, _ and $): ALTER TABLE … RENAME, or add the foreign key", u.Table, u.Column)
	}
	if free := maxRelations - len(o.Result.Plan.Relations); len(names)+rest > free {
		limits += fmt.Sprintf("; %d of them have no room, since spec.relations holds at most %d: add foreign keys instead, or split the datasets over several DataStores", len(names)+rest-free, maxRelations)
	}
	schema, table, _ := strings.Cut(first.Table, ".")
	return fmt.Sprintf("%d column(s) are named after a dataset and no foreign key says whether they refer to it, so nothing is deleted from either: %s%s; say it, with a reason, for example "+
		"spec: {relations: [{schema: %s, table: %s, column: %s, references: %s, state: Declared, reason: …}]}, or state: Denied; 'kubectl lethe explain %s/%s' prints all of them",
		len(names)+rest, joined(names, len(names)+rest, ", "), limits, schema, table, first.Column, first.References, o.Result.Plan.Store.Namespace, o.Result.Plan.Store.Name)
}

// Bounds of a DataStore's spec, as its schema has them.
const (
	maxDatasets  = plan.MaxDatasets
	maxExempt    = 128
	maxRelations = 128
)

// noRoom says which uncovered tables cannot be covered: the lists are full, or the spec cannot hold their names.
func noRoom(o StoreObserved, names []string, total int) string {
	out := ""
	free := maxDatasets - len(o.Result.Plan.Datasets) + maxExempt - len(o.Result.Plan.Exempt)
	if total > free {
		out += fmt.Sprintf("; %d of them have no room, since a store holds at most %d datasets and %d exempt tables: move tables into a database of their own, or drop those that nobody needs", total-free, maxDatasets, maxExempt)
	}
	if odd := slices.DeleteFunc(slices.Clone(names), func(name string) bool { return writable.MatchString(name) }); len(odd) > 0 {
		out += fmt.Sprintf("; %d cannot be written there (letters, digits, _ and $): ALTER TABLE … RENAME TO …, first %s", len(odd), odd[0])
	}
	return out
}

// writable are the names that the spec can hold, as schema.table.
var writable = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_$]*[.][A-Za-z_][A-Za-z0-9_$]*$`)

var writableColumn = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_$]*[.][A-Za-z_][A-Za-z0-9_$]*[.][A-Za-z_][A-Za-z0-9_$]*$`)

func storeApproved(o StoreObserved) metav1.Condition {
	if last := o.Measured.LastSweep; last != nil && isAnother(last.Reason) && last.PlanDigest == o.PlanDigest {
		return no(last.Reason, "%s", last.Message)
	}
	switch waiting := o.Result.Awaiting(); {
	case len(waiting) > 0 && o.Result.Waiting:
		return no(v1alpha1.ReasonAwaitingApproval, "nothing of this is deleted until it is approved: %s; look at it with 'kubectl lethe plan', then run 'kubectl lethe approve'",
			joined(waiting, len(waiting), "; "))
	case len(waiting) > 0:
		return no(v1alpha1.ReasonAwaitingApproval, "in Audit; before Enforce deletes anything, approve: %s", joined(waiting, len(waiting), "; "))
	case o.Result.Plan.Deletes():
		return yes(v1alpha1.ReasonApproved, "spec.approvedPlan covers everything that sweeps may delete")
	default:
		return yes(v1alpha1.ReasonNothingToApprove, "nothing waits for approval")
	}
}

// isAnother says whether a sweep found another database than the approved one, or an earlier state of it.
func isAnother(reason string) bool {
	return reason == v1alpha1.ReasonIdentityChanged || reason == v1alpha1.ReasonRestoredFrom
}

// said is why a rule was not measured or not deleted by, in one line.
func said(of *v1alpha1.DatasetMeasurement, m *v1alpha1.RuleMeasurement) string {
	p := of.ProblemOf(m)
	if p.Reason == "" {
		return ""
	}
	return p.Reason + colon(p.Message)
}

// keptBy tells of overdue rows which other rows keep them, and what to do about it.
func keptBy(m *v1alpha1.RuleMeasurement) string {
	if m.KeptByChild == 0 {
		return ""
	}
	return fmt.Sprintf(" (%d kept by rows that refer to them and have not expired: give those a window that is not longer, or make the foreign key ON DELETE SET NULL)", m.KeptByChild)
}

func auditHint(r *plan.Result) string {
	if !r.Enforced {
		return "; no policy enforces (spec.mode: Enforce)"
	}
	return ""
}

func allUngoverned(p plan.Plan) bool {
	return !slices.ContainsFunc(p.Datasets, func(d plan.Dataset) bool { return len(d.Rules) > 0 })
}

func messages(problems []plan.Problem) []string {
	var out []string
	for _, p := range problems {
		out = append(out, p.Message)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func atLeast(capped bool) string {
	if capped {
		return "at least "
	}
	return ""
}

func colon(text string) string {
	if text == "" {
		return ""
	}
	return ": " + text
}

func orElse(text, fallback string) string {
	if text == "" {
		return fallback
	}
	return text
}

// list names the first eight and counts the rest.
func list(names []string) string { return joined(names, len(names), ", ") }

// joined names the first eight of so many, or as many as leave room in a condition for what else it says, and counts
// the rest.
func joined(names []string, total int, separator string) string {
	const most, room = 8, messageLimit / 2
	n, length := 0, 0
	for n < len(names) && n < most && (n == 0 || length+len(names[n]) <= room) {
		length += len(names[n]) + len(separator)
		n++
	}
	if n >= total {
		return strings.Join(names, separator)
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:n], separator), total-n)
}
