package main

import (
	"encoding/json"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericclioptions"

	"github.com/lethe-dev/lethe/internal/plan"
	"github.com/lethe-dev/lethe/internal/resources"
)

func newPlan(s *shell) *cobra.Command {
	var files *genericclioptions.FileNameFlags
	var output *outputFlag
	cmd := &cobra.Command{
		Use:   "plan [NAMESPACE/]STORE",
		Short: "Compile a store's plan here and show what it would delete",
		Long: `Compile the plan of a store as the manager and the keyserver do, from what the cluster holds now, and show each
window, how many rows it concerned at the last measurement, and whether it deletes. With -f, stores, policies and
tenants out of files take the place of those in the cluster: that shows what a change would do before it is merged.

What -f gives is completed and checked by the API server, in a dry run that writes nothing: it needs the right to write these objects.`,
		Example: `  kubectl lethe plan platform-data/chat
  kubectl lethe plan platform-data/chat -f changed-policy.yaml`,
		Args:              oneArgument("the store"),
		ValidArgsFunction: s.completeStores,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := output.check(); err != nil {
				return err
			}
			st, err := s.compileStore(cmd.Context(), args[0], files)
			if err != nil {
				return err
			}
			if output.format != "" {
				v, err := planView(st)
				if err != nil {
					return err
				}
				return s.printOne(output, v)
			}
			return s.printPlan(st)
		},
	}
	files = addFiles(cmd, "manifests of stores, policies and tenants to use in place of those in the cluster")
	output = addOutput(cmd, "json, yaml (the plan, as a sweep gets it, with its hash and what keeps it from deleting) or name; left out, a table", forPrograms...)
	return cmd
}

func (s *shell) printPlan(st *compiledStore) error {
	hash, err := plan.Hash(st.compiled.Plan)
	if err != nil {
		return err
	}
	// What changes from run to run goes to standard error: the table is what a review compares.
	s.note("plan %s, valid until %s", hash, st.compiled.Plan.ValidUntil.Format(time.RFC3339))
	if at := st.store.Status.MeasuredAt; at != nil {
		s.note("rows as measured at %s", at.UTC().Format(time.RFC3339))
	} else {
		s.note("not measured yet")
	}
	if err := planTable(s.output(), st); err != nil {
		return err
	}
	for _, section := range []struct {
		title string
		lines []string
	}{
		{"Problems:", problemLines(st.compiled.Result)},
		{"Not governed by any rule, so never deleted and never compliant:", st.compiled.Ungoverned},
		{"Beyond what is approved (kubectl lethe approve):", st.compiled.Awaiting()},
	} {
		if len(section.lines) == 0 {
			continue
		}
		if err := s.say("\n%s\n", section.title); err != nil {
			return err
		}
		for _, line := range section.lines {
			if err := s.say("  %s\n", line); err != nil {
				return err
			}
		}
	}
	return nil
}

// storePlan is a plan for programs.
type storePlan struct {
	// Hash names the plan's canonical bytes: a sweep gets the plan of that hash and no other.
	Hash string          `json:"hash"`
	Plan json.RawMessage `json:"plan"`
	// Problems, datasets that no rule governs, and what waits for approval, in words.
	Problems         []string `json:"problems,omitempty"`
	Ungoverned       []string `json:"ungoverned,omitempty"`
	AwaitingApproval []string `json:"awaitingApproval,omitempty"`
}

func planView(st *compiledStore) (shown, error) {
	hash, err := plan.Hash(st.compiled.Plan)
	if err != nil {
		return shown{}, err
	}
	b, err := plan.Encode(st.compiled.Plan)
	if err != nil {
		return shown{}, err
	}
	return view("StorePlan", storePlan{Hash: hash, Plan: b, Problems: problemLines(st.compiled.Result), Ungoverned: st.compiled.Ungoverned,
		AwaitingApproval: st.compiled.Awaiting()}, resources.KindDataStore, st.store.Namespace, st.store.Name), nil
}

func planTable(out io.Writer, st *compiledStore) error {
	w := newTable(out, "DATASET", "TABLE", "RULE", "MODE", "WINDOW", "TENANT", "ROWS", "DELETES")
	for _, d := range st.compiled.Plan.Datasets {
		if len(d.Rules) == 0 {
			why := "no: no rule governs it"
			if d.Problem != "" {
				why = "no: see problems"
			}
			w.row(d.Name, d.Place.Name(), "-", "-", "-", "-", "-", why)
		}
		deletions := st.deletions(d)
		for _, r := range d.Rules {
			w.row(d.Name, d.Place.Name(), r.Policy+"/"+r.Rule, string(r.Mode), r.RetainFor.String(), "*", st.eligible(d.Name, r), st.fate(d, r))
			for _, o := range st.compiled.Plan.Overrides(r.Own) {
				kept := ""
				if ids := keptLonger(d, r, o, deletions); len(ids) > 0 {
					kept = "kept longer: " + strings.Join(ids, ", ")
				}
				w.row("", "", "", "", o.RetainFor.String(), o.Tenant, "", kept)
			}
		}
	}
	return w.end()
}

// eligible rows of a rule as last measured. A plan out of files has not been measured.
func (s *compiledStore) eligible(dataset string, r plan.Rule) string {
	of, m := s.measured(dataset, r.Policy, r.Rule)
	switch {
	case m == nil || of.ProblemOf(m).Reason != "" || m.Window != r.RetainFor.String():
		return "unknown"
	case m.Capped:
		return strconv.FormatInt(m.Eligible, 10) + "+"
	default:
		return strconv.FormatInt(m.Eligible, 10)
	}
}
