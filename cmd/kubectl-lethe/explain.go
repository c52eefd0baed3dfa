package main

import (
	"cmp"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericclioptions"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/plan"
)

func newExplain(s *shell) *cobra.Command {
	var files *genericclioptions.FileNameFlags
	cmd := &cobra.Command{
		Use:   "explain [NAMESPACE/]STORE",
		Short: "Say in words what will happen to a store's data",
		Long: `Say for each dataset, and for each tenant that has a window of its own, when records go, what keeps them, and whether
anything is deleted now. With -f, stores, policies and tenants out of files take the place of those in the cluster.

What -f gives is completed and checked by the API server, in a dry run that writes nothing: it needs the right to write these objects.`,
		Example: `  kubectl lethe explain platform-data/chat
  kubectl lethe explain platform-data/chat -f changed-policy.yaml`,
		Args:              oneArgument("the store"),
		ValidArgsFunction: s.completeStores,
		RunE: func(cmd *cobra.Command, args []string) error {
			st, err := s.compileStore(cmd.Context(), args[0], files)
			if err != nil {
				return err
			}
			_, err = io.WriteString(s.output(), st.words())
			return err
		},
	}
	files = addFiles(cmd, "manifests of stores, policies and tenants to use in place of those in the cluster")
	return cmd
}

// words tells the fate of every dataset.
func (s *compiledStore) words() string {
	var b strings.Builder
	say := func(format string, args ...any) { b.WriteString(sprintf(format+"\n", args...)) }
	p := s.compiled.Plan
	say("DataStore %s/%s: %s database %s at %s", s.store.Namespace, s.store.Name, engineName(p.Target.Type), p.Target.Name(), p.Target.Address())
	if p.Tenancy == v1alpha1.TenancyShared {
		say("It holds records of %s; a column of each table says whose a record is.", many(s.compiled.KnownTenants, "known tenant"))
	} else {
		say("All its records are of tenant %s.", s.compiled.Tenant.Name)
	}
	for _, d := range p.Datasets {
		say("\n%s: %s, in table %s", d.Name, d.DataClass, d.Place.Name())
		s.explainDataset(d, say)
	}
	if len(s.store.Spec.Exempt) > 0 {
		say("\nNever touched, each for a reason:")
		for _, e := range s.store.Spec.Exempt {
			say("  %s.%s: %s", cmp.Or(e.Schema, "public"), e.Table, e.Reason)
		}
	}
	s.sayRelations(say)
	say("\nAny other table of the database is not covered, and makes the store not compliant.")
	say("One sweep deletes at most %d%% of a table, unless a larger backlog was approved.", p.BrakePercent)
	for _, name := range s.compiled.Unidentified {
		say("Tenant %s has a window of its own, but no externalIDs of type %s: its records cannot be told apart, and fall under the longer window.",
			name, s.store.Spec.TenantIDType)
	}
	return b.String()
}

func (s *compiledStore) explainDataset(d plan.Dataset, say func(string, ...any)) {
	if len(d.Rules) == 0 && d.Problem == "" {
		say("  No rule of any policy governs these records: they are kept for ever, and the store is not compliant.")
	}
	for _, r := range d.Rules {
		s.explainRule(d, r, say)
	}
	if d.Floor != nil {
		say("  The law asks to keep each record for at least %s (%s). Nothing deletes one earlier, nor a record that one of them refers to.",
			d.Floor, d.LegalBasis)
	}
	if d.Problem != "" {
		say("  Nothing is deleted from this table: %s", d.Problem)
	}
	say("  A record whose %s is empty or cannot be believed is never deleted, and keeps the store from being compliant.", d.Age())
}

func (s *compiledStore) explainRule(d plan.Dataset, r plan.Rule, say func(string, ...any)) {
	who := "Each record"
	if s.compiled.Plan.Tenancy == v1alpha1.TenancyShared {
		who = "Each record of any tenant, known or not,"
		if r.Own > 0 {
			who = "Each record of any tenant, known or not, that is not named below"
		}
	}
	say("  %s may go %s after its %s, and must be gone %s later (policy %s, rule %s).",
		who, r.RetainFor, d.Age(), r.DeleteWithin, r.Policy, r.Rule)
	deletions := s.deletions(d)
	for _, o := range s.compiled.Plan.Overrides(r.Own) {
		kept := ""
		if ids := keptLonger(d, r, o, deletions); len(ids) > 0 {
			kept = "; those under " + strings.Join(ids, ", ") + " are kept longer, 'kubectl lethe plan' says why"
		}
		say("    Records of %s: %s%s.", o.Tenant, o.RetainFor, kept)
	}
	if r.Problem != "" {
		say("    This cannot be kept: %s", r.Problem)
	}
	say("    Deleted now: %s.", s.fateWords(d, r))
	if s.changed {
		return // what was measured is not what the files say
	}
	switch of, m := s.measured(d.Name, r.Policy, r.Rule); {
	case m == nil && s.hadNoRoom():
		say("    Unknown: the last report, or the status, had no room for all measurements (LimitReached).")
	case m == nil:
		say("    Not measured yet.")
	case of.ProblemOf(m).Reason != "" && of.ProblemOf(m).Message == "":
		say("    Last measurement: %s.", of.ProblemOf(m).Reason)
	case of.ProblemOf(m).Reason != "":
		say("    Last measurement: %s: %s", of.ProblemOf(m).Reason, of.ProblemOf(m).Message)
	default:
		say("    Last measurement: %s.", measurementWords(of, m))
	}
}

// hadNoRoom says whether measurements were left out of what is known of the store.
func (s *compiledStore) hadNoRoom() bool {
	now := s.store.Status
	return now.Omitted != nil && now.Omitted.Rules > 0
}

func (s *compiledStore) fateWords(d plan.Dataset, r plan.Rule) string {
	switch {
	case s.guessed(d):
		return "no, nobody has said whether rows refer to each other (below)"
	case r.Problem != "" || d.Problem != "":
		return "no, because of what stands here"
	case r.Mode != v1alpha1.PolicyEnforce:
		return "no, the policy only audits"
	case d.Delete == nil:
		return "no, it waits for approval"
	case d.Delete.Policy != r.Policy || d.Delete.Rule != r.Rule:
		return fmt.Sprintf("yes, by the shorter window of policy %s, rule %s", d.Delete.Policy, d.Delete.Rule)
	default:
		return "yes"
	}
}

func measurementWords(of *v1alpha1.DatasetMeasurement, m *v1alpha1.RuleMeasurement) string {
	parts := []string{fmt.Sprintf("about %d records, of which %d may go and %d are overdue", of.Rows, m.Eligible, m.Overdue)}
	for _, kept := range []struct {
		n    int64
		what string
	}{
		{m.KeptByFloor, "are kept since the law asks for it"},
		{m.KeptByChild, "are kept since a younger record refers to them"},
		{of.UnknownAge, "have no age that can be believed"},
		{of.UnknownTenant, "are of no known tenant"},
	} {
		if kept.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", kept.n, kept.what))
		}
	}
	if m.Capped || of.Capped {
		parts = append(parts, "and perhaps more, since counting stops at a bound")
	}
	return strings.Join(parts, "; ")
}

func many(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// engineName is what people call a type of store.
func engineName(t v1alpha1.StoreType) string {
	if t == v1alpha1.StorePostgres {
		return "PostgreSQL"
	}
	return string(t)
}
