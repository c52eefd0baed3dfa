package plan

import (
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/calendar"
)

// Input is everything that a plan is made of.
type Input struct {
	// Store to plan for, and the tenant that its namespace belongs to. Of its status the conflicts with other stores
	// count, which the manager finds: whoever compiles a plan need not read all stores.
	Store       *v1alpha1.DataStore
	StoreTenant *v1alpha1.Tenant
	// Policies of the cluster; those that do not select the store, or are being deleted, are left out here.
	Policies []v1alpha1.DataRetentionPolicy
	// Tenants of the cluster, for a Shared store. A Dedicated one needs none.
	Tenants []v1alpha1.Tenant
	Now     time.Time
}

// Problem is something that a person must mend. Its message names the field and the remedy, and never a value out of
// a store.
type Problem struct {
	Dataset string
	Policy  string // empty when no single policy is at fault
	Rule    string
	Message string
}

// Result is a plan and what is to be said about it.
type Result struct {
	Plan     Plan
	Problems []Problem
	// AwaitingApproval says, one window each, what the rules would delete beyond spec.approvedPlan: of the rules that
	// enforce, or where none does, of those in Audit, so that it can be approved before it matters.
	AwaitingApproval []v1alpha1.AwaitedApproval
	// AwaitingDatasets are those that AwaitingApproval speaks of, sorted.
	AwaitingDatasets []string
	// Waiting is set when a rule that enforces is among them: deletion waits for a person.
	Waiting bool
	// Enforced is set when at least one rule that governs a dataset enforces.
	Enforced bool
	// Governed lists the policies that select the store, sorted, and Generations says which spec of each was compiled.
	Governed    []string
	Generations map[string]int64
	// Ungoverned lists the datasets that no rule governs, sorted.
	Ungoverned []string
	// Unidentified lists tenants that a rule gives a shorter window, and whose rows cannot be told apart in a Shared
	// store since the tenant has no externalIDs of its type. Rows of unknown tenants may be theirs.
	Unidentified []string

	// KnownTenants is how many tenants a Shared store can tell by an identifier that nobody else claims, and Known
	// are all those identifiers, sorted. They are no part of the plan: a customer that comes, and has no window of
	// its own, changes none.
	KnownTenants int
	Known        []string

	// wanted is what each dataset would delete if all of it were approved.
	wanted map[string]*wanted
}

// wanted is what a dataset would delete by its rules, with the windows of single tenants.
type wanted struct {
	Policy, Rule string
	RetainFor    calendar.Window
	own          *sheet
}

// Compile makes the plan of a store. It never fails: what cannot be planned is measured and named as a problem.
func Compile(in Input) Result {
	spec := in.Store.Spec
	c := &compiler{
		in: in, ord: newOrdering(), res: Result{wanted: map[string]*wanted{}, Generations: map[string]int64{}},
		sheets: map[ruleKey]*sheet{}, combined: map[string]*sheet{}, verdicts: map[string]*verdict{},
		bound: binder{known: map[*sheet]int{}, same: map[string]int{}},
	}
	target, known := TargetOf(&spec)
	if !known {
		c.untargeted = c.problem("", "", "", "%s", UnknownType(spec.Type))
	}
	c.res.Plan = Plan{
		Format:       Format,
		Store:        Store{Namespace: in.Store.Namespace, Name: in.Store.Name, UID: string(in.Store.UID)},
		Target:       target,
		Tenancy:      spec.Tenancy,
		Exempt:       exemptions(spec.Exempt),
		BrakePercent: spec.Brake.MaxPercentOfTable,
		ValidUntil:   ValidUntil(string(in.Store.UID), in.Now),
	}
	if spec.Tenancy == v1alpha1.TenancyShared {
		c.identify()
	}
	c.res.Plan.Relations = c.relations()
	policies := c.selected()
	datasets := slices.Clone(spec.Datasets)
	slices.SortFunc(datasets, func(a, b v1alpha1.Dataset) int { return strings.Compare(a.Name, b.Name) })
	named := placesOf(datasets)
	for _, d := range datasets {
		c.res.Plan.Datasets = append(c.res.Plan.Datasets, c.dataset(d, policies, named))
	}
	if c.res.Plan.Deletes() {
		c.res.Plan.Database = identity(spec.ApprovedPlan)
	}
	c.bound.bind(&c.res.Plan)
	sort.SliceStable(c.res.Problems, func(i, j int) bool { return c.res.Problems[i].Message < c.res.Problems[j].Message })
	c.res.Problems = slices.Compact(c.res.Problems)
	slices.Sort(c.res.Unidentified)
	c.res.Unidentified = slices.Compact(c.res.Unidentified)
	return c.res
}

// Approval says whether deletion waits for a person.
func (r *Result) Approval() v1alpha1.ApprovalState {
	switch {
	case r.Waiting:
		return v1alpha1.ApprovalPending
	case len(r.AwaitingApproval) > 0:
		return v1alpha1.ApprovalAudit
	default:
		return v1alpha1.ApprovalNone
	}
}

// compiler holds one compilation.
type compiler struct {
	in  Input
	ord *ordering
	res Result
	// untargeted says why nothing of the store can be deleted whatever the datasets are; empty: it can.
	untargeted string
	// unkept says of datasets why spec.relations cannot be kept.
	unkept map[string]string
	// ids are the external identifiers of each tenant that nobody else claims.
	ids map[string][]string

	// What several datasets have in common is worked out once: the windows of single tenants under one rule and under
	// several together, and what of them is approved.
	sheets   map[ruleKey]*sheet
	combined map[string]*sheet
	verdicts map[string]*verdict
	bound    binder
}

// ruleKey is a rule of a policy that selects the store, by place.
type ruleKey struct{ policy, rule int }

// governing is a rule on a dataset, and the windows of single tenants that it gives.
type governing struct {
	Rule
	key ruleKey
	own *sheet
}

// problem notes something to mend. A policy's name is empty when no single policy is at fault.
func (c *compiler) problem(dataset, policy, rule, format string, args ...any) string {
	p := Problem{Dataset: dataset, Policy: policy, Rule: rule, Message: fmt.Sprintf(format, args...)}
	c.res.Problems = append(c.res.Problems, p)
	return p.Message
}

// identify finds what each tenant is called in a Shared store. What two tenants claim is nobody's: its rows then fall
// under the base window, which is the longest.
func (c *compiler) identify() {
	claims := map[string][]string{}
	for _, t := range c.in.Tenants {
		for _, id := range t.Spec.ExternalIDs {
			if id.Type == c.in.Store.Spec.TenantIDType && !slices.Contains(claims[id.Value], t.Name) {
				claims[id.Value] = append(claims[id.Value], t.Name)
			}
		}
	}
	c.ids = map[string][]string{}
	clashes := map[string]int{}
	for value, names := range claims {
		if len(names) == 1 {
			c.ids[names[0]] = append(c.ids[names[0]], value)
			continue
		}
		slices.Sort(names)
		clashes[strings.Join(names, ", ")]++
		c.res.Plan.Disputed = append(c.res.Plan.Disputed, value)
	}
	slices.Sort(c.res.Plan.Disputed)
	for names, n := range clashes {
		c.problem("", "", "", "Tenants %s: %d value(s) of type %s in spec.externalIDs are claimed by each of them, so their rows are "+
			"treated as an unknown tenant's; leave each value with one Tenant", names, n, c.in.Store.Spec.TenantIDType)
	}
	for _, ids := range c.ids {
		slices.Sort(ids)
		c.res.Known = append(c.res.Known, ids...)
	}
	slices.Sort(c.res.Known)
	c.res.KnownTenants = len(c.ids)
}

// selected returns the policies that select the store, sorted by name.
func (c *compiler) selected() []v1alpha1.DataRetentionPolicy {
	var out []v1alpha1.DataRetentionPolicy
	for _, p := range c.in.Policies {
		if p.DeletionTimestamp.IsZero() && Selects(&p, c.in.Store.Labels) {
			out = append(out, p)
			c.res.Governed = append(c.res.Governed, p.Name)
			c.res.Generations[p.Name] = p.Generation
		}
	}
	slices.SortFunc(out, func(a, b v1alpha1.DataRetentionPolicy) int { return strings.Compare(a.Name, b.Name) })
	slices.Sort(c.res.Governed)
	return out
}

// Selects says whether a policy selects a store with these labels. An empty selector, and one that cannot be read,
// selects nothing.
func Selects(p *v1alpha1.DataRetentionPolicy, storeLabels map[string]string) bool {
	return Selector(p).Matches(labels.Set(storeLabels))
}

// Selector of a policy's stores: Nothing where Selects could never be true.
func Selector(p *v1alpha1.DataRetentionPolicy) labels.Selector {
	s := p.Spec.StoreSelector
	if len(s.MatchLabels) == 0 && len(s.MatchExpressions) == 0 {
		return labels.Nothing()
	}
	sel, err := metav1.LabelSelectorAsSelector(&s)
	if err != nil {
		return labels.Nothing()
	}
	return sel
}

// dataset plans one of the store's.
func (c *compiler) dataset(d v1alpha1.Dataset, policies []v1alpha1.DataRetentionPolicy, named map[string][]string) Dataset {
	out := Dataset{Name: d.Name, DataClass: d.DataClass, Place: PlaceOf(&d)}
	if d.Floor != nil {
		out.LegalBasis = d.Floor.LegalBasis
		if d.Floor.RetainFor != nil {
			out.Floor = new(calendar.Or(d.Floor.RetainFor))
		}
	}
	var enforce, audit []governing
	blocked := ""
	for n := range policies {
		p := &policies[n]
		for m, r := range p.Spec.Rules {
			if r.DataClass != d.DataClass {
				continue
			}
			rule, usable := c.rule(d, p, r, ruleKey{n, m})
			if usable {
				rule.Own = c.bound.column(rule.own)
				out.Rules = append(out.Rules, rule.Rule)
			}
			switch {
			case p.Spec.Mode != v1alpha1.PolicyEnforce:
				if usable && rule.Problem == "" {
					audit = append(audit, rule)
				}
				continue
			case !usable || rule.Problem != "":
				// One rule that enforces and cannot be kept blocks the table: which rows it would have spared is not
				// known.
				blocked = rule.Problem
			default:
				enforce = append(enforce, rule)
			}
			c.res.Enforced = true
		}
	}
	if len(out.Rules) == 0 && blocked == "" {
		c.res.Ungoverned = append(c.res.Ungoverned, d.Name)
	}
	if others := named[out.Place.Name()]; len(others) > 1 {
		blocked = c.problem(d.Name, "", "", "spec.datasets: %s are all the table %s; name it once, so that one window and one floor hold for it",
			strings.Join(others, ", "), out.Place.Name())
	}
	if why := c.conflict(d.Name, out.Place); why != "" {
		blocked = why
	}
	if why := c.unkept[d.Name]; why != "" {
		blocked = why
	}
	if c.untargeted != "" {
		blocked = c.untargeted
	}
	if blocked != "" {
		out.Problem = blocked
		return out
	}

	enforced := len(enforce) > 0
	rules := enforce
	if !enforced {
		rules = audit
	}
	if len(rules) == 0 {
		return out
	}
	want, why := c.combine(d.Name, rules)
	if why != "" {
		out.Problem = c.problem(d.Name, "", "", "%s: %s", d.Name, why)
		return out
	}
	c.res.wanted[d.Name] = want
	missing, allowed := c.judge(d, want)
	c.res.AwaitingApproval = append(c.res.AwaitingApproval, missing...)
	if len(missing) > 0 {
		c.res.AwaitingDatasets = append(c.res.AwaitingDatasets, d.Name)
	}
	if !enforced {
		return out
	}
	c.res.Waiting = c.res.Waiting || len(missing) > 0
	if allowed != nil {
		out.Delete = c.approve(d.Name, allowed)
	}
	return out
}

// tooPunctual is what is wrong with a slack that is shorter than the interval. It keeps nothing from being deleted:
// later is better than never.
const tooPunctual = "a store is swept and measured once in an hour, so that no shorter time can be promised; write hours: 1 or more"

// rule works out which windows one rule gives a dataset. Not usable: it has no window at all.
func (c *compiler) rule(d v1alpha1.Dataset, p *v1alpha1.DataRetentionPolicy, r v1alpha1.RetentionRule, key ruleKey) (governing, bool) {
	at := fmt.Sprintf("DataRetentionPolicy %s: spec.rules[%s]", p.Name, r.Name)
	out := governing{key: key, own: noOverrides, Rule: Rule{Policy: p.Name, Rule: r.Name, Mode: p.Spec.Mode}}
	if out.Mode != v1alpha1.PolicyEnforce {
		out.Mode = v1alpha1.PolicyAudit
	}
	base := calendar.Or(r.RetainFor)
	if base.IsZero() {
		out.Problem = c.problem(d.Name, p.Name, r.Name, "%s.retainFor: a window in exactly one unit is needed, for example days: 90", at)
		return out, false
	}
	within, err := slack(r.DeleteWithin)
	if err != nil {
		out.Problem = c.problem(d.Name, p.Name, r.Name, "%s.deleteWithin: %v, so nothing of this dataset is deleted", at, err)
		return out, false
	}
	if !within.KeptBySweeping() {
		c.problem("", p.Name, r.Name, "%s.deleteWithin (%s): %s", at, within, tooPunctual)
	}
	out.RetainFor, out.DeleteWithin = base, within
	if c.in.Store.Spec.Tenancy != v1alpha1.TenancyShared {
		w, said := c.window(p.Name, r, base, c.in.StoreTenant)
		c.say(d.Name, p.Name, r.Name, said)
		out.RetainFor = w
	} else {
		if c.sheets[key] == nil {
			c.sheets[key] = c.overrides(p.Name, r, base)
		}
		out.own = c.sheets[key]
		c.say(d.Name, p.Name, r.Name, out.own.said)
	}
	if d.Floor == nil || d.Floor.RetainFor == nil {
		return out, true
	}
	floor := calendar.Or(d.Floor.RetainFor)
	if !c.ord.atMost(floor, out.RetainFor) {
		out.Problem = c.problem(d.Name, p.Name, r.Name, "%s.retainFor (%s) is not provably as long as spec.datasets[%s].floor.retainFor (%s), so "+
			"nothing of this dataset is deleted; lengthen the window, in the floor's unit", at, out.RetainFor, d.Name, floor)
	}
	for _, i := range out.own.firsts {
		o := out.own.overrides[i]
		if out.Problem == "" && !c.ord.atMost(floor, o.RetainFor) {
			out.Problem = c.problem(d.Name, p.Name, r.Name, "%s: the window of tenant %s (%s) is not provably as long as spec.datasets[%s].floor.retainFor (%s), "+
				"so nothing of this dataset is deleted; take the override away", at, o.Tenant, o.RetainFor, d.Name, floor)
		}
	}
	return out, true
}

// say notes what came up about a rule, of one of the datasets that it governs.
func (c *compiler) say(dataset, policy, rule string, said []string) {
	for _, m := range said {
		c.res.Problems = append(c.res.Problems, Problem{Dataset: dataset, Policy: policy, Rule: rule, Message: m})
	}
}

// overrides returns the shorter windows of single tenants in a Shared store.
func (c *compiler) overrides(policy string, r v1alpha1.RetentionRule, base calendar.Window) *sheet {
	var out []Override
	var said []string
	byPolicy := map[string]bool{}
	for _, o := range r.TenantOverrides {
		byPolicy[o.Tenant] = true
	}
	for i := range c.in.Tenants {
		t := &c.in.Tenants[i]
		if len(t.Spec.RetentionOverrides) == 0 && !byPolicy[t.Name] {
			continue
		}
		w, problems := c.window(policy, r, base, t)
		said = append(said, problems...)
		if c.ord.atMost(base, w) {
			continue
		}
		ids := c.ids[t.Name]
		if len(ids) == 0 {
			c.res.Unidentified = append(c.res.Unidentified, t.Name)
			continue
		}
		out = append(out, Override{Tenant: t.Name, ExternalIDs: ids, RetainFor: w})
	}
	if len(byPolicy) > 0 {
		known := make(map[string]bool, len(c.in.Tenants))
		for i := range c.in.Tenants {
			known[c.in.Tenants[i].Name] = true
		}
		for _, o := range r.TenantOverrides {
			if !known[o.Tenant] {
				said = append(said, fmt.Sprintf("DataRetentionPolicy %s: spec.rules[%s].tenantOverrides[%s]: there is no Tenant of that name; correct it or take it away",
					policy, r.Name, o.Tenant))
			}
		}
	}
	slices.SortFunc(out, func(a, b Override) int { return strings.Compare(a.Tenant, b.Tenant) })
	return newSheet(out, said...)
}

// window is the one that a rule gives the rows of one tenant: its own or a provably shorter one of that tenant. said
// are problems.
func (c *compiler) window(policy string, r v1alpha1.RetentionRule, base calendar.Window, t *v1alpha1.Tenant) (w calendar.Window, said []string) {
	var offered []calendar.Window
	offer := func(p *v1alpha1.Period, field func() string) {
		switch own := calendar.Or(p); {
		case p == nil:
		case !c.ord.atMost(own, base):
			said = append(said, fmt.Sprintf("%s: %s, so the rule's own window stays; an override can only shorten", field(), own.Incomparable(base)))
		default:
			offered = append(offered, own)
		}
	}
	for _, o := range r.TenantOverrides {
		if o.Tenant == t.Name {
			offer(o.RetainFor, func() string {
				return fmt.Sprintf("DataRetentionPolicy %s: spec.rules[%s].tenantOverrides[%s].retainFor", policy, r.Name, o.Tenant)
			})
		}
	}
	for _, o := range t.Spec.RetentionOverrides {
		if o.DataClass == r.DataClass {
			offer(o.RetainFor, func() string {
				return fmt.Sprintf("Tenant %s: spec.retentionOverrides[%s].retainFor", t.Name, o.DataClass)
			})
		}
	}
	if len(offered) == 0 {
		return base, said
	}
	i := c.ord.shortest(offered)
	if i < 0 {
		return base, append(said, fmt.Sprintf("Tenant %s: spec.retentionOverrides[%s].retainFor (%s) and the override of DataRetentionPolicy %s, rule %s (%s) cannot be "+
			"ordered, so neither holds; write both in one unit", t.Name, r.DataClass, offered[1], policy, r.Name, offered[0]))
	}
	return offered[i], said
}

// combine takes the shortest window of several rules, for the base and for each tenant. Where two of the base cannot be
// ordered it says why, and nothing may be deleted. Those of one tenant hold up nobody else: the base, which one of
// the rules gives on its own, is for its rows then.
func (c *compiler) combine(dataset string, rules []governing) (*wanted, string) {
	bases := make([]calendar.Window, 0, len(rules))
	for _, r := range rules {
		bases = append(bases, r.RetainFor)
	}
	i := c.ord.shortest(bases)
	if i < 0 {
		return nil, fmt.Sprintf("the windows of %s cannot be ordered, so nothing is deleted; write them in one unit", ruleNames(rules))
	}
	out := &wanted{Policy: rules[i].Policy, Rule: rules[i].Rule.Rule, RetainFor: bases[i], own: rules[i].own}
	if len(rules) == 1 {
		return out, ""
	}
	var key strings.Builder
	for _, r := range rules {
		fmt.Fprint(&key, r.key)
	}
	if c.combined[key.String()] == nil {
		c.combined[key.String()] = c.shortestOfEach(bases[i], rules)
	}
	out.own = c.combined[key.String()]
	for _, m := range out.own.said {
		c.problem(dataset, "", "", "%s: %s", dataset, m)
	}
	return out, ""
}

// shortestOfEach tenant's windows under several rules.
func (c *compiler) shortestOfEach(base calendar.Window, rules []governing) *sheet {
	ids := map[string][]string{}
	for _, r := range rules {
		for _, o := range r.own.overrides {
			ids[o.Tenant] = o.ExternalIDs
		}
	}
	names := make([]string, 0, len(ids))
	for n := range ids {
		names = append(names, n)
	}
	slices.Sort(names)
	var out []Override
	var said []string
	for _, n := range names {
		windows := make([]calendar.Window, 0, len(rules))
		for _, r := range rules {
			windows = append(windows, r.own.windowOf(n, r.RetainFor))
		}
		i := c.ord.shortest(windows)
		if i < 0 {
			said = append(said, fmt.Sprintf("the windows that %s give tenant %s cannot be ordered, so the one for everybody (%s) holds for it; write them in one unit",
				ruleNames(rules), n, base))
			continue
		}
		if w := windows[i]; !c.ord.atMost(base, w) {
			out = append(out, Override{Tenant: n, ExternalIDs: ids[n], RetainFor: w})
		}
	}
	return newSheet(out, said...)
}

func ruleNames(rules []governing) string {
	names := make([]string, 0, len(rules))
	for _, r := range rules {
		names = append(names, fmt.Sprintf("%s/%s (%s)", r.Policy, r.Rule.Rule, r.RetainFor))
	}
	return strings.Join(names, ", ")
}

// slack fills in the default of deleteWithin.
func slack(s *v1alpha1.Slack) (calendar.Slack, error) {
	if s == nil {
		s = &v1alpha1.Slack{Hours: new(int32(24))}
	}
	return calendar.SlackOf(*s)
}

func exemptions(in []v1alpha1.Exemption) []Exemption {
	out := make([]Exemption, 0, len(in))
	for _, e := range in {
		out = append(out, exemptionOf(&e))
	}
	slices.SortFunc(out, func(a, b Exemption) int { return strings.Compare(a.Name(), b.Name()) })
	return slices.CompactFunc(out, func(a, b Exemption) bool { return a.Name() == b.Name() })
}

// placesOf lists the datasets of each place.
func placesOf(datasets []v1alpha1.Dataset) map[string][]string {
	out := map[string][]string{}
	for _, d := range datasets {
		at := PlaceOf(&d).Name()
		out[at] = append(out[at], d.Name)
	}
	return out
}
