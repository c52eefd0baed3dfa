package status

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/plan"
	"github.com/lethe-dev/lethe/internal/report"
)

// names are so many words that begin with a prefix.
func manyNames(n int, format string) []string {
	var out []string
	for i := range n {
		out = append(out, fmt.Sprintf(format, i))
	}
	return out
}

// wide is a store of n datasets under two policies, compiled.
func wide(t *testing.T, n int, change func(*plan.Input)) plan.Result {
	t.Helper()
	in := plan.Input{Now: storeNow, StoreTenant: &v1alpha1.Tenant{ObjectMeta: metav1.ObjectMeta{Name: "acme"}}, Store: &v1alpha1.DataStore{
		ObjectMeta: metav1.ObjectMeta{Namespace: "acme", Name: "chat", UID: "u", Labels: map[string]string{"a": "b"}},
		Spec: v1alpha1.DataStoreSpec{Type: v1alpha1.StorePostgres, Tenancy: v1alpha1.TenancyDedicated,
			Postgres: &v1alpha1.PostgresStore{Host: "db.example", Port: 5432, Database: "chat", Username: "u"}},
	}}
	for _, name := range manyNames(n, "dataset-%02d") {
		in.Store.Spec.Datasets = append(in.Store.Spec.Datasets, v1alpha1.Dataset{Name: name, DataClass: "Conversations", Table: v1alpha1.Table{Schema: "public",
			Name: v1alpha1.Identifier(strings.ReplaceAll(name, "-", "_")), Key: []v1alpha1.Identifier{"id"}, AgeColumn: v1alpha1.AgeColumn{Name: "at", Type: v1alpha1.AgeTimestamptz}}})
	}
	window := storeDays(90).Period()
	for _, name := range []string{"one", "two"} {
		in.Policies = append(in.Policies, v1alpha1.DataRetentionPolicy{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.DataRetentionPolicySpec{
			StoreSelector: metav1.LabelSelector{MatchLabels: map[string]string{"a": "b"}}, Mode: v1alpha1.PolicyAudit,
			Rules: []v1alpha1.RetentionRule{{Name: "conversations", DataClass: "Conversations", RetainFor: &window}}}})
	}
	if change != nil {
		change(&in)
	}
	return plan.Compile(in)
}

// told lets a store take over a report as it comes out of a pod.
func told(t *testing.T, o *StoreObserved, r report.Report) {
	t.Helper()
	r.Plan, r.Outcome, r.Identity = "hash", report.Done, v1alpha1.StoreIdentity{Kind: "PostgresSystemIdentifier", Value: "7300"}
	b, err := report.Encode(r)
	if err != nil {
		t.Fatal(err)
	}
	got, err := report.Read(string(b), "hash")
	if err != nil {
		t.Fatal(err)
	}
	o.Measured = Measure(o.Measured, Sweep{JobUID: "j", FinishedAt: storeNow, Report: got, Current: true}, o.Result.Plan, o.PlanDigest)
}

// swept lets a store take over a report that a channel has carried whole.
func swept(o *StoreObserved, r report.Report) {
	r.Plan, r.Outcome, r.Identity = "hash", report.Done, v1alpha1.StoreIdentity{Kind: "PostgresSystemIdentifier", Value: "7300"}
	o.Measured = Measure(o.Measured, Sweep{JobUID: "j", FinishedAt: storeNow, Report: r, Current: true}, o.Result.Plan, o.PlanDigest)
}

// measuredAll measures each rule of a plan.
func measuredAll(p plan.Plan, padding string) report.Report {
	var r report.Report
	for i, d := range p.Datasets {
		m := report.Dataset{Name: d.Name, Rows: int64(i*1_000_003) + 1, OldestAgeSeconds: int64(i * 77_773), Notice: padding}
		for _, rule := range d.Rules {
			m.Rules = append(m.Rules, report.Rule{Policy: rule.Policy, Rule: rule.Rule})
		}
		r.Datasets = append(r.Datasets, m)
	}
	return r
}

// TestEveryLimitIsLoud meets each limit of a store and of what is known about it: a condition says so at once, with
// the number and what to do. The names of the cases are those that limits refers to.
func TestEveryLimitIsLoud(t *testing.T) {
	for name, tc := range loud {
		t.Run(name, func(t *testing.T) {
			o := makeObserved()
			tc.meet(t, &o)
			for _, c := range Store(o) {
				if c.Type != tc.condition {
					continue
				}
				if c.Status == metav1.ConditionTrue || c.Reason != tc.reason {
					t.Errorf("%s is %s %s: %s", c.Type, c.Status, c.Reason, c.Message)
				}
				for _, text := range tc.says {
					if !strings.Contains(c.Message, text) {
						t.Errorf("%s says %q, want %q in it", c.Type, c.Message, text)
					}
				}
				if len(c.Message) > messageLimit {
					t.Errorf("%d bytes", len(c.Message))
				}
				return
			}
			t.Errorf("no condition %s", tc.condition)
		})
	}
}

var loud = map[string]struct {
	meet      func(*testing.T, *StoreObserved)
	condition string
	reason    string
	says      []string // the number, and the way on
}{
	"more bytes of measurements than a status holds": {func(t *testing.T, o *StoreObserved) {
		r := wide(t, plan.MaxDatasets, func(in *plan.Input) {
			for i := range in.Policies {
				in.Policies[i].Name = strings.Repeat(in.Policies[i].Name[:1], 253)
			}
			for _, letter := range []string{"x", "y", "z"} {
				p := in.Policies[0].DeepCopy()
				p.Name = strings.Repeat(letter, 253)
				in.Policies = append(in.Policies, *p)
			}
		})
		o.Result, o.PlanDigest = &r, "digest"
		swept(o, measuredAll(r.Plan, ""))
	}, "Compliant", v1alpha1.ReasonLimitReached, []string{"of 2560 measurements are unknown", "status.datasets holds 524288 bytes", "split the datasets"}},
	"more rules on a dataset than a status holds": {func(_ *testing.T, o *StoreObserved) {
		d := &o.Result.Plan.Datasets[0]
		for _, name := range manyNames(300, "rule-%03d") {
			rule := d.Rules[0]
			rule.Rule = name
			d.Rules = append(d.Rules, rule)
		}
		swept(o, measuredAll(o.Result.Plan, ""))
	}, "Compliant", v1alpha1.ReasonLimitReached, []string{"45 of 302 measurements are unknown", "256 rules each"}},
	"more measurements than a report holds": {func(_ *testing.T, o *StoreObserved) {
		o.Measured = Measure(o.Measured, Sweep{JobUID: "j", FinishedAt: storeNow, Current: true, Report: report.Report{Plan: "hash", Outcome: report.Failed, Identity: v1alpha1.StoreIdentity{Kind: "PostgresSystemIdentifier", Value: "7300"},
			Reason: v1alpha1.ReasonLimitReached, Message: "the sweep ended Done, and its 9000 measurements do not fit into a report of 1048576 bytes: split the datasets"}}, o.Result.Plan, o.PlanDigest)
	}, "Compliant", v1alpha1.ReasonLimitReached, []string{"9000 measurements", "1048576 bytes", "split the datasets"}},
	"more tables than the lists of a spec hold": {func(t *testing.T, o *StoreObserved) {
		told(t, o, report.Report{Datasets: measuredAll(o.Result.Plan, "").Datasets, Uncovered: manyNames(16, "public.t%d"), UncoveredCount: 1000})
	}, "CoverageComplete", v1alpha1.ReasonUncoveredTable, []string{"and 992 more", "362 of them have no room", "512 datasets and 128 exempt tables", "a database of their own"}},
	"a table whose name the spec cannot hold": {func(t *testing.T, o *StoreObserved) {
		told(t, o, report.Report{Datasets: measuredAll(o.Result.Plan, "").Datasets, Uncovered: []string{"public.user-sessions"}, UncoveredCount: 1})
	}, "CoverageComplete", v1alpha1.ReasonUncoveredTable, []string{"1 cannot be written there", "first public.user-sessions", "ALTER TABLE … RENAME TO"}},
	"more undeclared relations than a report names": {func(t *testing.T, o *StoreObserved) {
		told(t, o, report.Report{Datasets: measuredAll(o.Result.Plan, "").Datasets, Undeclared: relationsNamed("message_id", 16), UndeclaredCount: 40})
	}, "CoverageComplete", v1alpha1.ReasonUndeclaredRelation, []string{"40 column(s)", "and 32 more", "spec: {relations: [{schema: public, table: t0, column: message_id, references: messages, state: Declared", "kubectl lethe explain"}},
	"more undeclared relations than a spec holds": {func(t *testing.T, o *StoreObserved) {
		told(t, o, report.Report{Datasets: measuredAll(o.Result.Plan, "").Datasets, Undeclared: relationsNamed("message_id", 16), UndeclaredCount: 140})
	}, "CoverageComplete", v1alpha1.ReasonUndeclaredRelation, []string{"140 column(s)", "12 of them have no room", "at most 128", "add foreign keys instead"}},
	"a column whose name the spec cannot hold": {func(t *testing.T, o *StoreObserved) {
		told(t, o, report.Report{Datasets: measuredAll(o.Result.Plan, "").Datasets, Undeclared: relationsNamed("message-id", 1), UndeclaredCount: 1})
	}, "CoverageComplete", v1alpha1.ReasonUndeclaredRelation, []string{"public.t0.message-id cannot be written there", "RENAME"}},
	"more lines for approval than a status and a condition hold": {func(_ *testing.T, o *StoreObserved) {
		o.Result.Waiting = true
		for _, text := range manyNames(300, "rows of tenant-%03d older than P30D (approved: nothing)") {
			o.Result.AwaitingApproval = append(o.Result.AwaitingApproval, v1alpha1.AwaitedApproval{Dataset: "messages", Message: text})
		}
	}, "Approved", v1alpha1.ReasonAwaitingApproval, []string{"and 293 more", "kubectl lethe plan"}},
	"more policies than a status holds promises of": {func(t *testing.T, o *StoreObserved) {
		d := &o.Result.Plan.Datasets[0]
		rule := d.Rules[0]
		for _, name := range manyNames(300, "policy-%03d") {
			rule.Policy, o.Result.Governed = name, append(o.Result.Governed, name)
			d.Rules = append(d.Rules, rule)
		}
		told(t, o, measuredAll(o.Result.Plan, ""))
		named, all := Promises(*o)
		if len(named) != maxPromises || int(all) != 301 {
			t.Errorf("%d promises of %d", len(named), all)
		}
	}, "Ready", v1alpha1.ReasonLimitReached, []string{"45 of 301 policies", "status.promises holds 256 entries", "let fewer policies govern"}},
	"more problems than a condition holds": {func(_ *testing.T, o *StoreObserved) {
		for _, text := range manyNames(200, "spec.rules[%03d] cannot be kept; lengthen the window") {
			o.Result.Problems = append(o.Result.Problems, plan.Problem{Message: text})
		}
	}, "Ready", v1alpha1.ReasonPlanProblem, []string{"and 192 more", "lengthen the window"}},
	"more rows than are counted": {func(t *testing.T, o *StoreObserved) {
		r := measuredAll(o.Result.Plan, "")
		r.Datasets[0].Rules[0].Overdue, r.Datasets[0].Rules[0].Capped = 1_000_001, true
		told(t, o, r)
	}, "Compliant", v1alpha1.ReasonOverdue, []string{"at least 1000001 row(s)"}},
	"more conflicts than a status holds": {func(t *testing.T, o *StoreObserved) {
		r := wide(t, 2, func(in *plan.Input) {
			var others []v1alpha1.DataStore
			for i := range 300 {
				other := in.Store.DeepCopy()
				other.UID, other.Name = "other", fmt.Sprintf("other-%03d", i)
				other.UID += other.UID + "x"
				others = append(others, *other)
			}
			named, all := plan.Conflicts(in.Store, "acme", others)
			in.Store.Status.Conflicts, in.Store.Status.ConflictCount = named, all
			if len(named) != 2 || all != 600 {
				t.Errorf("%d conflicts of %d, want one for each dataset, and all counted", len(named), all)
			}
		})
		o.Result = &r
	}, "Ready", v1alpha1.ReasonPlanProblem, []string{"spec.datasets[dataset-00]", "and 1 more", "map it in one DataStore"}},
}

func relationsNamed(column string, n int) []report.Relation {
	var out []report.Relation
	for _, table := range manyNames(n, "public.t%d") {
		out = append(out, report.Relation{Table: table, Column: column, References: "messages"})
	}
	return out
}

// limits are the lists of all kinds that have a bound. Of a spec the API server refuses more, by the list's name and
// its bound. What a status holds no more of is told by a case of TestEveryLimitIsLoud, counted beside, or cannot be
// more.
var limits = map[string]string{
	"DataStore status.conditions":            "as many as there are types",
	"DataStore status.datasets":              "as many as spec.datasets; more bytes of them than a status holds are counted in status.omitted",
	"DataStore status.datasets.rules":        "more rules on a dataset than a status holds",
	"DataStore status.uncovered":             "more tables than the lists of a spec hold",
	"DataStore status.undeclaredRelations":   "more undeclared relations than a report names",
	"DataStore status.filePointers":          "counted in status.filePointerCount",
	"DataStore status.conflicts":             "more conflicts than a status holds",
	"DataStore status.promises":              "more policies than a status holds promises of",
	"DataStore status.plan.awaitingApproval": "more lines for approval than a status and a condition hold",
	"DataRetentionPolicy status.conditions":  "as many as there are types",
	"BotDeployment status.conditions":        "as many as there are types",
	"Tenant status.conditions":               "as many as there are types",
	"Tenant status.namespaces":               "as many as spec.namespaces, and those that are being given back",
	"Tenant status.externalIDs":              "as many as spec.externalIDs",
	"Tenant status.sealingKeys":              "as many as the keyserver keeps, which refuses another with the number and the command",
	"Tenant status.retainedVolumes.items":    "counted in status.retainedVolumes.count",
}

func TestEveryListWithABoundIsKnown(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("..", "..", "config", "crd", "bases", "*.yaml"))
	if err != nil || len(files) != 4 {
		t.Fatal(files, err)
	}
	seen := map[string]bool{}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var crd apiextensionsv1.CustomResourceDefinition
		if err := yaml.Unmarshal(b, &crd); err != nil {
			t.Fatal(err)
		}
		status := crd.Spec.Versions[0].Schema.OpenAPIV3Schema.Properties["status"]
		lists(&status, crd.Spec.Names.Kind+" status", func(path string) {
			seen[path] = true
			said, known := limits[path]
			if _, isCase := loud[said]; !known || !isCase && !strings.HasPrefix(said, "as many as") && !strings.HasPrefix(said, "counted") {
				t.Errorf("%s has a bound, and nothing says what happens beyond it: %q", path, said)
			}
		})
		spec := crd.Spec.Versions[0].Schema.OpenAPIV3Schema.Properties["spec"]
		lists(&spec, crd.Spec.Names.Kind+" spec", func(path string) { seen[path] = true })
	}
	for path := range limits {
		if !seen[path] {
			t.Errorf("%s has no bound any more", path)
		}
	}
	if len(seen) < 30 {
		t.Errorf("%d lists only", len(seen))
	}
}

// lists visits the lists of a schema, and complains through visit alone about those with a bound.
func lists(s *apiextensionsv1.JSONSchemaProps, path string, visit func(string)) {
	if s.MaxItems != nil {
		visit(path)
	}
	for name := range s.Properties {
		property := s.Properties[name]
		lists(&property, path+"."+name, visit)
	}
	if s.Items != nil && s.Items.Schema != nil {
		lists(s.Items.Schema, path, visit)
	}
}

// Bounds that a message speaks of are those of the schema.
func TestBoundsOfTheSpec(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("..", "..", "config", "crd", "bases", "lethe.dev_datastores.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var crd apiextensionsv1.CustomResourceDefinition
	if err := yaml.Unmarshal(b, &crd); err != nil {
		t.Fatal(err)
	}
	schema := crd.Spec.Versions[0].Schema.OpenAPIV3Schema
	for path, want := range map[string]int64{"spec.datasets": maxDatasets, "spec.exempt": maxExempt, "spec.relations": maxRelations,
		"status.datasets": maxDatasets, "status.uncovered": maxUncovered, "status.undeclaredRelations": maxUndeclared, "status.filePointers": maxPointers, "status.conflicts": plan.MaxConflicts, "status.promises": maxPromises} {
		at := *schema
		for name := range strings.SplitSeq(path, ".") {
			at = at.Properties[name]
		}
		if at.MaxItems == nil || *at.MaxItems != want {
			t.Errorf("%s: the schema says %v, the code %d", path, at.MaxItems, want)
		}
	}
	if slices.Max([]int{report.MaxUncovered, report.MaxUndeclared, report.MaxPointers}) > 32 {
		t.Error("a report names more than a status holds")
	}
}
