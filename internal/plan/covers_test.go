package plan

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/calendar"
)

// ordered fields of a plan: Covers compares them by an order of their own, or looks into them. All others must be
// equal.
var ordered = map[string]string{
	"Plan.Periods": "windows", "Plan.Classes": "windows", "Class.Windows": "windows", "Class.Tenants": "windows",
	"Plan.Disputed": "disputed", "Plan.BrakePercent": "brake", "Plan.ValidUntil": "validity",
	"Dataset.Floor": "floor", "Dataset.Delete": "looked into", "Rule.RetainFor": "windows", "Rule.Own": "windows",
	"Deletion.RetainFor": "windows", "Deletion.Own": "windows", "Deletion.Backlog": "looked into", "Backlog.Rows": "backlog", "Backlog.Until": "backlog",
}

// equal fields of a plan: a sweep ends when one of them changes.
var equalFields = []string{
	"Plan.Format", "Plan.Store", "Plan.Target", "Plan.Tenancy", "Plan.Database", "Plan.Datasets", "Plan.Exempt", "Plan.Relations",
	"Store.Namespace", "Store.Name", "Store.UID",
	"Target.Type", "Target.Postgres", "PostgresTarget.Host", "PostgresTarget.Port", "PostgresTarget.Database", "PostgresTarget.Username", "PostgresTarget.CABundle",
	"Database.Identity", "Database.Name", "Database.Address", "Database.Seen",
	"Dataset.Name", "Dataset.DataClass", "Dataset.Place", "Place.Table", "Dataset.LegalBasis", "Dataset.Rules", "Dataset.Problem",
	"Rule.Policy", "Rule.Rule", "Rule.Mode", "Rule.DeleteWithin", "Rule.Problem",
	"Deletion.Policy", "Deletion.Rule", "Backlog.ApprovedAt",
	"Exemption.Table", "TableName.Schema", "TableName.Name",
	"Relation.Schema", "Relation.Table", "Relation.Column", "Relation.References", "Relation.ReferencesColumn", "Relation.State",
}

// TestEveryFieldIsClassified: whoever adds a field to a plan says here whether a running sweep may go on when it
// changes.
func TestEveryFieldIsClassified(t *testing.T) {
	home := reflect.TypeFor[Plan]().PkgPath()
	seen := map[string]bool{}
	var walk func(of reflect.Type)
	walk = func(of reflect.Type) {
		for of.Kind() == reflect.Pointer || of.Kind() == reflect.Slice || of.Kind() == reflect.Map {
			of = of.Elem()
		}
		if of.Kind() != reflect.Struct || of.PkgPath() != home {
			return // of the API: compared as a whole
		}
		for i := range of.NumField() {
			f := of.Field(i)
			name := of.Name() + "." + f.Name
			if seen[name] {
				continue
			}
			seen[name] = true
			if _, isOrdered := ordered[name]; isOrdered == slices.Contains(equalFields, name) {
				t.Errorf("%s: nobody has said whether a sweep may go on when it changes, or it was said twice", name)
			}
			walk(f.Type)
		}
	}
	walk(reflect.TypeFor[Plan]())
	for _, name := range append(equalFields, slices.Collect(func(yield func(string) bool) {
		for name := range ordered {
			if !yield(name) {
				return
			}
		}
	})...) {
		if !seen[name] {
			t.Errorf("%s is no field of a plan", name)
		}
	}
}

// read is a plan as a sweep has it.
func read(t interface{ Fatal(...any) }, p Plan) Plan {
	b, err := Encode(p)
	if err != nil {
		t.Fatal(err)
	}
	out, err := Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestWhatMustBeEqual changes one after the other each field of a plan that has no order, and each time the sweep ends.
func TestWhatMustBeEqual(t *testing.T) {
	in := shared(makePolicy("p", v1alpha1.PolicyEnforce, makeRule("Conversations", days(90), override("acme", days(30)))))
	in.Store.Spec.Relations = []v1alpha1.Relation{{Table: "files", Column: "message_id", References: "messages", State: v1alpha1.RelationDeclared}}
	approveAll(t, in)
	made := func() Plan {
		p := Compile(in).Plan
		p.Datasets[1].Problem, p.Datasets[1].LegalBasis, p.Datasets[1].Rules[0].Problem = "a", "b", "c"
		return read(t, p) // and so has nothing in common with another
	}
	if !Covers(made(), made()) {
		t.Fatal("a plan does not cover itself")
	}
	changed := 0
	var change func(path string, v reflect.Value, p *Plan)
	change = func(path string, v reflect.Value, p *Plan) {
		switch v.Kind() {
		case reflect.Pointer:
			if !v.IsNil() {
				change(path, v.Elem(), p)
			}
		case reflect.Struct:
			if was, ok := v.Interface().(calendar.Slack); ok {
				v.Set(reflect.ValueOf(hours(t, 25)))
				if changed++; Covers(*p, made()) || Covers(made(), *p) {
					t.Errorf("%s is another, and the sweep goes on", path)
				}
				v.Set(reflect.ValueOf(was))
				return
			}
			for i := range v.NumField() {
				name := v.Type().Name() + "." + v.Type().Field(i).Name
				if by, isOrdered := ordered[name]; isOrdered && by != "looked into" || !v.Field(i).CanSet() {
					continue
				}
				change(path+"."+v.Type().Field(i).Name, v.Field(i), p)
			}
		case reflect.Slice:
			for i := range v.Len() {
				change(fmt.Sprintf("%s[%d]", path, i), v.Index(i), p)
			}
			if v.Len() > 0 {
				was := reflect.ValueOf(v.Interface())
				v.Set(v.Slice(0, v.Len()-1))
				if changed++; Covers(*p, made()) || Covers(made(), *p) {
					t.Errorf("%s is shorter, and the sweep goes on", path)
				}
				v.Set(was)
			}
		default:
			was := reflect.New(v.Type()).Elem()
			was.Set(v)
			switch v.Kind() {
			case reflect.String:
				v.SetString(v.String() + "x")
			case reflect.Int, reflect.Int32, reflect.Int64:
				v.SetInt(v.Int() + 1)
			case reflect.Map, reflect.Bool, reflect.Uint64:
				return
			default:
				t.Fatalf("%s: a %s", path, v.Kind())
			}
			if changed++; Covers(*p, made()) || Covers(made(), *p) {
				t.Errorf("%s is another, and the sweep goes on", path)
			}
			v.Set(was)
		}
	}
	p := made()
	change("Plan", reflect.ValueOf(&p), &p)
	later := made()
	later.Datasets[1].Delete.Backlog.ApprovedAt = later.Datasets[1].Delete.Backlog.ApprovedAt.Add(time.Second)
	if Covers(later, made()) {
		t.Error("a backlog that was approved anew has another account, and the sweep goes on")
	}
	if changed < 60 {
		t.Errorf("%d fields were changed: the property was not put to the test", changed)
	}
}

func hours(t *testing.T, n int32) calendar.Slack {
	t.Helper()
	s, err := calendar.SlackOf(v1alpha1.Slack{Hours: &n})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestWhatHasAnOrder: in one direction a sweep goes on, in the other it ends.
func TestWhatHasAnOrder(t *testing.T) {
	base := func(t *testing.T) Plan {
		in := shared(makePolicy("p", v1alpha1.PolicyEnforce, makeRule("Conversations", days(90), override("acme", days(30))), makeRule("Payments", years(7))))
		approveAll(t, in)
		p := Compile(in).Plan
		p.Disputed = []string{"d-1"}
		return p
	}
	for name, more := range map[string]func(p *Plan){
		"brake":    func(p *Plan) { p.BrakePercent++ },
		"validity": func(p *Plan) { p.ValidUntil = p.ValidUntil.Add(week) },
		"base window": func(p *Plan) {
			p.Datasets[1].Delete.RetainFor, p.Datasets[1].Rules[0].RetainFor = calendar.Or(days(80)), calendar.Or(days(80))
		},
		"rule's window":     func(p *Plan) { p.Datasets[1].Rules[0].RetainFor = calendar.Or(days(80)) },
		"a tenant's window": func(p *Plan) { p.Periods[0] = calendar.Or(days(20)) },
		"floor":             func(p *Plan) { p.Datasets[2].Floor = new(calendar.Or(years(6))) },
		"no floor":          func(p *Plan) { p.Datasets[2].Floor = nil },
		"backlog":           func(p *Plan) { p.Datasets[1].Delete.Backlog.Rows++ },
		"backlog's time":    func(p *Plan) { b := p.Datasets[1].Delete.Backlog; b.Until = b.Until.Add(time.Hour) },
		"no dispute":        func(p *Plan) { p.Disputed = nil },
	} {
		few, many := base(t), base(t)
		more(&many)
		if !Covers(many, few) {
			t.Errorf("%s: more is allowed, and the sweep ends", name)
		}
		if Covers(few, many) {
			t.Errorf("%s: less is allowed, and the sweep goes on", name)
		}
	}
	// Less measured, more deleted: what was deleted goes on.
	few, many := base(t), base(t)
	few.Datasets[1].Delete = nil
	if !Covers(many, few) || Covers(few, many) {
		t.Error("a dataset that is deleted from covers one that is only measured, and not the other way")
	}
}

// model of a store: what a sweep by a plan takes from it. A column that folds case takes "A-1" and "a-1" for the
// same, and a dataset in which a tenant with a window of its own cannot be told from another is refused, as the store
// does.
type modelRow struct {
	dataset, id string
	age         time.Time
}

func sweepModel(p Plan, known []string, rows []modelRow, now time.Time, fold bool) map[modelRow]bool {
	same := func(a, b string) bool { return a == b || fold && strings.EqualFold(a, b) }
	gone := map[modelRow]bool{}
	for _, d := range p.Datasets {
		if d.Delete == nil {
			continue
		}
		refused := false
		var all []Override
		for _, r := range d.Rules {
			all = append(all, p.Overrides(r.Own)...)
		}
		for _, o := range append(all, p.Overrides(d.Delete.Own)...) {
			for _, id := range o.ExternalIDs {
				for _, other := range slices.Concat(known, p.Disputed) {
					refused = refused || same(id, other) && !slices.Contains(o.ExternalIDs, other)
				}
			}
		}
		for _, r := range rows {
			if refused || r.dataset != d.Name {
				continue
			}
			window := d.Delete.RetainFor
			for _, o := range p.Overrides(d.Delete.Own) {
				if slices.ContainsFunc(o.ExternalIDs, func(id string) bool { return same(id, r.id) }) {
					window = o.RetainFor
				}
			}
			if window.AddClamp(r.age).Before(now) && (d.Floor == nil || d.Floor.AddClamp(r.age).Before(now)) {
				gone[r] = true
			}
		}
	}
	return gone
}

// TestACoveredSweepDeletesNothingMore runs both plans over one store, whether or not its column folds case: where the
// live one covers the one that is held, every row that the held one takes would go by the live one, too.
func TestACoveredSweepDeletesNothingMore(t *testing.T) {
	now := day0.AddDate(3, 0, 0)
	var rows []modelRow
	for _, dataset := range []string{"messages", "payments"} {
		for _, id := range []string{"a-1", "A-1", "a-2", "g-1", "G-1", "i-1", "n-1", "unknown"} {
			for n := range 40 {
				rows = append(rows, modelRow{dataset, id, now.AddDate(0, 0, -n*n/2)})
			}
		}
	}
	covered, gone, apart := 0, 0, 0
	rapid.Check(t, func(t *rapid.T) {
		in := drawInput(t)
		// Names that differ in case alone, in anybody's hands.
		folded := func(label string) {
			in.Tenants = slices.Clone(in.Tenants)
			for i := range in.Tenants {
				for _, id := range []string{"A-1", "G-1"} {
					if rapid.IntRange(0, 5).Draw(t, label+in.Tenants[i].Name+id) == 0 {
						in.Tenants[i].Spec.ExternalIDs = append(slices.Clone(in.Tenants[i].Spec.ExternalIDs), v1alpha1.ExternalID{Type: "AccountID", Value: id})
					}
				}
			}
		}
		folded("then ")
		for i := range in.Policies {
			in.Policies[i].Spec.Rules = append(in.Policies[i].Spec.Rules, makeRule("Payments", years(7)))
		}
		proposeBy(t, &in, rapid.Bool().Draw(t, "by bound"))
		held := read(t, Compile(in).Plan)
		in.Store = in.Store.DeepCopy()
		for range rapid.IntRange(0, 3).Draw(t, "changes") {
			switch rapid.IntRange(0, 6).Draw(t, "change") {
			case 0:
				in.Policies = slices.Clone(in.Policies)
				p := &in.Policies[0]
				p.Spec.Rules = slices.Clone(p.Spec.Rules)
				p.Spec.Rules[0].RetainFor = drawPeriod(t, "base")
			case 1:
				in.Policies = slices.Clone(in.Policies)
				p := &in.Policies[0]
				p.Spec.Rules = slices.Clone(p.Spec.Rules)
				p.Spec.Rules[0].TenantOverrides = drawOverrides(t, "later ")
			case 2:
				in.Tenants = drawTenants(t, "later ", in.Tenants)
			case 3:
				in.Store.Spec.Brake.MaxPercentOfTable = rapid.Int32Range(10, 30).Draw(t, "brake")
			case 4:
				for i := range in.Store.Spec.Datasets {
					if f := in.Store.Spec.Datasets[i].Floor; f != nil {
						f.RetainFor = drawPeriod(t, "floor")
					}
				}
			case 5:
				folded("later ")
			default:
				proposeBy(t, &in, rapid.Bool().Draw(t, "later by bound"))
			}
		}
		compiled := Compile(in)
		live, known := compiled.Plan, compiled.Known // whoever holds the lease hears who is known now
		if !Covers(live, held) {
			return
		}
		covered++
		if live.Datasets[1].Delete != nil && held.Datasets[1].Delete != nil && !reflect.DeepEqual(live, held) {
			apart++
		}
		for _, fold := range []bool{false, true} {
			byLive := sweepModel(live, known, rows, now, fold)
			for row := range sweepModel(held, known, rows, now, fold) {
				gone++
				if !byLive[row] {
					t.Fatalf("folding %t: %+v goes by the plan that is held, and not by the live one", fold, row)
				}
			}
		}
	})
	if covered == 0 || gone == 0 || apart == 0 {
		t.Errorf("%d covered, %d rows, %d of plans that differ: the property was not put to the test", covered, gone, apart)
	}
}
