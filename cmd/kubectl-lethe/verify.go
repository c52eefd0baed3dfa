package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/plan"
	"github.com/lethe-dev/lethe/internal/planner"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/internal/status"
)

// verifyOptions say which stores are meant.
type verifyOptions struct {
	names    []string
	all      bool
	selector string
	policy   string
	maxAge   time.Duration
	output   *outputFlag
}

// storeVerdict is what verify finds of one store, for programs.
type storeVerdict struct {
	Compliant bool `json:"compliant"`
	v1alpha1.Problem
	Overdue    string       `json:"overdue"` // a number, or unknown
	Oldest     int64        `json:"oldestOverdueSeconds,omitempty"`
	MeasuredAt *metav1.Time `json:"measuredAt,omitempty"`
}

func newVerify(s *shell) *cobra.Command {
	o := &verifyOptions{maxAge: 2 * resources.SweepInterval}
	cmd := &cobra.Command{
		Use:   "verify [[NAMESPACE/]STORE...]",
		Short: "Ask whether the published promises hold now",
		Long: `Look at the DataStores that are named, or at those of the present namespace, of all namespaces (-A) or of one policy
(--policy), and print whether each is compliant: measured recently, under the spec and the rules that it has now, with nothing overdue.
The plan is compiled here, so that a change counts at once, whether the manager has seen it or not. That reads namespaces, tenants and
policies; whoever may not read them is told so, and the store counts as failing.

It ends with exit code 0 only when there is at least one and all are compliant, and with 1 otherwise. Unknown is failing.`,
		Example: `  kubectl lethe verify -A
  kubectl lethe verify --policy published-promise`,
		Args:              cobra.ArbitraryArgs,
		ValidArgsFunction: s.completeManyStores,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.output.check(); err != nil {
				return err
			}
			o.names = args
			return s.verify(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&o.all, "all-namespaces", "A", false, "look at all namespaces")
	f.StringVarP(&o.selector, "selector", "l", "", "look at stores with these labels only")
	f.StringVar(&o.policy, "policy", "", "look at the stores that a DataRetentionPolicy selects, in all namespaces")
	o.output = addOutput(cmd, "json, yaml or name (of those that are failing); left out, a table", forPrograms...)
	_ = cmd.RegisterFlagCompletionFunc("policy", s.completePolicies) // it was just added
	f.DurationVar(&o.maxAge, "max-age", o.maxAge, "a measurement older than this counts as none")
	return cmd
}

func (s *shell) verify(ctx context.Context, o *verifyOptions) error {
	if o.maxAge <= 0 {
		return errors.New("--max-age: say a length of time such as 2h")
	}
	if len(o.names) > 0 && (o.all || o.selector != "" || o.policy != "") {
		return errors.New("name stores, or say -A, -l or --policy: not both")
	}
	c, err := s.client()
	if err != nil {
		return err
	}
	stores, err := s.storesToVerify(ctx, c, o)
	if err != nil {
		return err
	}
	compareRules(ctx, c, stores, s.now())
	if len(stores) == 0 {
		hint := ""
		if len(o.names) == 0 && !o.all && o.policy == "" {
			ns, err := s.namespace()
			if err != nil {
				return err
			}
			hint = fmt.Sprintf("in namespace %s (-A looks at all namespaces)", ns)
		}
		s.note("%s: nothing is measured, so no promise is known to hold", strings.TrimSpace("no DataStore was found "+hint))
		return errFailing
	}
	return s.printVerdicts(o, stores)
}

func (s *shell) printVerdicts(o *verifyOptions, stores []v1alpha1.DataStore) error {
	now, failing := s.now(), 0
	var verdicts, failed []shown
	var rows [][]any
	for i := range stores {
		st := &stores[i]
		ok, reason, message := verdict(st, now, o.maxAge)
		v := view("StoreVerdict", storeVerdict{Compliant: ok, Problem: v1alpha1.Problem{Reason: reason, Message: message}, Overdue: overdue(st, ok), Oldest: st.Status.OldestOverdueSeconds,
			MeasuredAt: st.Status.MeasuredAt}, resources.KindDataStore, st.Namespace, st.Name)
		verdicts = append(verdicts, v)
		word := "compliant"
		if !ok {
			word = "FAILING"
			failing++
			failed = append(failed, v)
		}
		measured := "never"
		if at := st.Status.MeasuredAt; at != nil {
			measured = age(now.Sub(at.Time)) + " ago"
		}
		oldest := "-"
		if sec := st.Status.OldestOverdueSeconds; sec > 0 {
			oldest = age(time.Duration(sec) * time.Second)
		}
		rows = append(rows, []any{st.Namespace, st.Name, word, overdue(st, ok), oldest, measured, reason, message})
	}
	if err := s.writeVerdicts(o.output, rows, verdicts, failed); err != nil {
		return err
	}
	if failing > 0 {
		s.note("%d of %d stores are failing; `kubectl lethe status` says of each what to do", failing, len(stores))
		return errFailing
	}
	return nil
}

func (s *shell) writeVerdicts(o *outputFlag, rows [][]any, verdicts, failed []shown) error {
	switch o.format {
	case "":
		w := newTable(s.output(), "NAMESPACE", "NAME", "VERDICT", "OVERDUE", "OLDEST", "MEASURED", "REASON", "MESSAGE")
		for _, row := range rows {
			w.row(row...)
		}
		return w.end()
	case "name":
		return s.printList(o, failed)
	default:
		return s.printList(o, verdicts)
	}
}

// age in whole minutes, or in days where it is more than two.
func age(d time.Duration) string {
	switch {
	case d < time.Minute:
		return "under 1m"
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%dm", int(d.Hours()), int(d.Minutes())%60)
	default:
		return fmt.Sprintf("%dd", int(d.Hours())/24)
	}
}

func (s *shell) storesToVerify(ctx context.Context, c client.Client, o *verifyOptions) ([]v1alpha1.DataStore, error) {
	if len(o.names) > 0 {
		stores := make([]v1alpha1.DataStore, len(o.names))
		for i, name := range o.names {
			key, err := s.reference("the store", name)
			if err != nil {
				return nil, err
			}
			if err := c.Get(ctx, key, &stores[i]); err != nil {
				return nil, fmt.Errorf("read DataStore %s: %w", key, err)
			}
		}
		return stores, nil
	}
	var opts []client.ListOption
	if o.selector != "" {
		sel, err := labels.Parse(o.selector)
		if err != nil {
			return nil, errors.New("-l: not a label selector; say key=value,key=value")
		}
		opts = append(opts, client.MatchingLabelsSelector{Selector: sel})
	}
	if !o.all && o.policy == "" {
		ns, err := s.namespace()
		if err != nil {
			return nil, err
		}
		opts = append(opts, client.InNamespace(ns))
	}
	var list v1alpha1.DataStoreList
	if err := c.List(ctx, &list, opts...); err != nil {
		return nil, fmt.Errorf("list DataStores: %w", err)
	}
	stores := list.Items
	if o.policy != "" {
		var policy v1alpha1.DataRetentionPolicy
		if err := c.Get(ctx, client.ObjectKey{Name: o.policy}, &policy); err != nil {
			return nil, fmt.Errorf("--policy: read DataRetentionPolicy: %w", err)
		}
		stores = slices.DeleteFunc(stores, func(st v1alpha1.DataStore) bool { return !plan.Selects(&policy, st.Labels) })
	}
	slices.SortFunc(stores, func(a, b v1alpha1.DataStore) int {
		return strings.Compare(a.Namespace+"/"+a.Name, b.Namespace+"/"+b.Name)
	})
	return stores, nil
}

// verdict does not believe a condition alone: it must be of the spec as it is, and the measurement fresh.
func verdict(s *v1alpha1.DataStore, now time.Time, maxAge time.Duration) (ok bool, reason, message string) {
	c := meta.FindStatusCondition(s.Status.Conditions, v1alpha1.ConditionCompliant)
	switch {
	case c == nil || s.Status.ObservedGeneration < 1:
		return false, "NotLookedAt", "the manager has not looked at it yet"
	case c.ObservedGeneration != s.Generation:
		return false, "SpecChanged", "the condition is about an earlier spec"
	case c.Status != metav1.ConditionTrue:
		if told := status.See(s.Status.Conditions, v1alpha1.ConditionCompliant); told != nil {
			message = told.Message
		}
		return false, c.Reason, message
	case s.Status.MeasuredAt == nil:
		return false, "NotMeasured", "it was never measured"
	case now.Sub(s.Status.MeasuredAt.Time) > maxAge:
		return false, "Stale", "the last measurement is too old to count"
	case s.Status.Overdue > 0:
		return false, "Overdue", "records are overdue"
	}
	return true, c.Reason, ""
}

// compareRules takes the word compliant from a store that was measured by other rules than the live objects make: a
// policy or a Tenant may have changed since, and no manager have seen it. So it does where that cannot be told.
func compareRules(ctx context.Context, c client.Reader, stores []v1alpha1.DataStore, now time.Time) {
	all := &readOnce{Reader: c}
	for i := range stores {
		s := &stores[i]
		said := meta.FindStatusCondition(s.Status.Conditions, v1alpha1.ConditionCompliant)
		if said == nil || said.Status != metav1.ConditionTrue {
			continue
		}
		reason, message := v1alpha1.ReasonPlanChanged, "the measurement is of earlier rules"
		compiled, err := planner.Store(ctx, all, s, now)
		digest := ""
		if err == nil {
			digest, err = plan.Digest(compiled.Plan)
		}
		if err != nil {
			reason, message = v1alpha1.ReasonNotPlanned, fmt.Sprintf("the plan cannot be compiled, to compare it with what was measured: %v", err)
		}
		if err != nil || digest != s.Status.MeasuredPlanDigest {
			said.Status, said.Reason, said.Message = metav1.ConditionUnknown, reason, message
		}
	}
}

// readOnce asks for all policies and all tenants once, however many stores there are.
type readOnce struct {
	client.Reader
	policies *v1alpha1.DataRetentionPolicyList
	tenants  *v1alpha1.TenantList
}

func (r *readOnce) List(ctx context.Context, list client.ObjectList, opts ...client.ListOption) error {
	switch l := list.(type) {
	case *v1alpha1.DataRetentionPolicyList:
		if r.policies == nil {
			if err := r.Reader.List(ctx, list, opts...); err != nil {
				return err
			}
			r.policies = l.DeepCopy()
			return nil
		}
		r.policies.DeepCopyInto(l)
		return nil
	case *v1alpha1.TenantList:
		if r.tenants == nil {
			if err := r.Reader.List(ctx, list, opts...); err != nil {
				return err
			}
			r.tenants = l.DeepCopy()
			return nil
		}
		r.tenants.DeepCopyInto(l)
		return nil
	}
	return r.Reader.List(ctx, list, opts...)
}

// overdue rows: none is only where that was shown.
func overdue(s *v1alpha1.DataStore, compliant bool) string {
	if s.Status.Overdue == 0 && !compliant {
		return status.OverdueUnknown
	}
	return strconv.FormatInt(s.Status.Overdue, 10)
}
