package postgres

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

// Know tells the store who is known, all or unread: why that is not known. What an earlier list
// showed to be unclear stays so.
func (st *Store) Know(ctx context.Context, all []string, unread string) error {
	// What has a window of its own is known in any case: it stands in the plan.
	named := map[string]bool{}
	for _, id := range all {
		named[id] = true
	}
	all = slices.Clone(all)
	for _, d := range st.datasets {
		for _, o := range d.overrides() {
			for _, id := range o.IDs {
				if !named[id] {
					named[id], all = true, append(all, id)
				}
			}
		}
	}
	if err := st.readTenants(ctx, all); err != nil {
		return err
	}
	for _, d := range st.datasets {
		if d.tenant == nil || d.unmeasurable {
			continue
		}
		d.nameless = unread
	}
	// What was compared before need not be again: a tenant that comes costs a comparison of its own names.
	fresh := slices.DeleteFunc(all, func(id string) bool { return st.compared[id] })
	disputed := slices.DeleteFunc(slices.Clone(st.disputed), func(id string) bool { return st.compared[id] })
	if err := st.checkTenants(ctx, fresh, disputed); err != nil {
		return err
	}
	for _, id := range slices.Concat(fresh, disputed) {
		st.compared[id] = true
	}
	return nil
}

// Unclear says that nothing of a dataset goes since its tenants cannot be told apart.
func (st *Store) Unclear(i int) bool { return st.datasets[i].unclear || st.datasets[i].unlisted() }

// checkTenants refuses a dataset whose tenant column cannot tell a tenant with a window of its own from another: to
// an int column "7" and "007" are the same, to a uuid column upper and lower case are, and the rows of the one would
// go by the window of the other. So would those of one tenant of whose two names only one was approved for its
// window, and those under a disputed name, of which it is not known whose they are. The column itself compares, with
// its own type and collation.
func (st *Store) checkTenants(ctx context.Context, all, disputed []string) error {
	for _, d := range st.datasets {
		if d.tenant == nil || d.unmeasurable {
			continue
		}
		owners := map[string][]Override{}
		for _, o := range d.overrides() {
			for _, id := range d.known(o.IDs) {
				owners[id] = append(owners[id], o)
			}
		}
		if len(owners) == 0 {
			continue
		}
		possible, err := st.castable(ctx, d.tenant.typ, disputed)
		if err != nil {
			return err
		}
		others := slices.AppendSeq(d.known(all), maps.Keys(possible))
		if len(others) == 0 {
			continue
		}
		if err := st.compare(ctx, d, owners, others); err != nil {
			// A table that is locked, or a comparison that does not end, is that dataset's own.
			problem, lost := split(err)
			if problem == nil {
				return lost
			}
			d.unclear = true
			d.refuse(problem.Reason, "the tenants' identifiers could not be compared: %s", problem.Message)
		}
	}
	return nil
}

// compare refuses a dataset whose tenant column takes one of the owners' identifiers, and one of the others' that has
// not the same window, for the same.
func (st *Store) compare(ctx context.Context, d *dataset, owners map[string][]Override, others []string) error {
	rows, err := st.session.conn.Query(ctx, fmt.Sprintf(`SELECT a.id, b.id FROM unnest($1::text[]) a (id) JOIN unnest($2::text[]) b (id)
		ON a.id::%[1]s = coalesce((SELECT %[2]s FROM %[3]s LIMIT 0), b.id::%[1]s) WHERE a.id <> b.id`, d.tenant.typ, ident(d.tenant.name), d.name()),
		slices.Collect(maps.Keys(owners)), others)
	if err != nil {
		return fmt.Errorf("compare the tenants' identifiers: %w", err)
	}
	for rows.Next() {
		var id, other string
		if err := rows.Scan(&id, &other); err != nil {
			rows.Close()
			return fmt.Errorf("compare the tenants' identifiers: %w", err)
		}
		for _, o := range owners[id] {
			if !slices.Contains(o.IDs, other) {
				d.unclear = true
				d.refuse(v1alpha1.ReasonUnclearTenant, "column %s of %s, which is %s, takes two externalIDs for the same that do not have one window: correct spec.externalIDs of one Tenant, or, if both are one Tenant's, approve both",
					d.tenant.name, d.table, d.tenant.typ)
			}
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("compare the tenants' identifiers: %w", err)
	}
	return nil
}

// ambiguousTenants says whether the column can hold none of what a tenant with a window of its own is called: rows of
// unknown tenants may be that tenant's then, and are kept longer than promised.
func (d *dataset) ambiguousTenants() bool {
	for _, o := range d.overrides() {
		if len(d.known(o.IDs)) == 0 {
			return true
		}
	}
	return false
}

func (d *dataset) overrides() []Override {
	var out []Override
	for _, w := range d.windows() {
		out = append(out, w.Overrides...)
	}
	if d.Delete != nil {
		out = append(out, d.Delete.Overrides...)
	}
	return out
}

// tenantsTimeout bounds finding rows of unknown tenants. Without an index on the tenant column all of the table is
// read, of tens of millions of rows for many seconds; a reader holds up nobody.
const tenantsTimeout = 2 * time.Minute

// maxUnknown is how many unknown values of a tenant column are looked for one by one.
const maxUnknown = 10_000

// findUnknownTenants looks for values of the tenant column that are no known tenant's, where an index leads from one
// value to the next, so that counting their rows need not read everybody's. It leaves the timeout at tenantsTimeout.
func (st *Store) findUnknownTenants(ctx context.Context, d *dataset) error {
	if err := st.setTimeout(ctx, tenantsTimeout); err != nil {
		return err
	}
	d.unknown = nil
	if !d.table.leads(d.tenant) {
		return nil
	}
	q := &query{}
	column := ident(d.tenant.name)
	rows, err := st.session.conn.Query(ctx, fmt.Sprintf(`WITH RECURSIVE v (id) AS (
			(SELECT %[1]s FROM %[2]s WHERE %[1]s IS NOT NULL ORDER BY %[1]s LIMIT 1)
			UNION ALL SELECT (SELECT %[1]s FROM %[2]s WHERE %[1]s > v.id ORDER BY %[1]s LIMIT 1) FROM v WHERE v.id IS NOT NULL)
		SELECT id::text FROM v WHERE id IS NOT NULL AND NOT id = ANY(%[3]s::%[4]s[]) LIMIT %[5]d`,
		column, d.name(), q.arg(d.knownIDs(), "text[]"), d.tenant.typ, maxUnknown+1), q.args...)
	if err != nil {
		return fmt.Errorf("look for unknown tenants in %s: %w", d.Name, err)
	}
	values, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("look for unknown tenants in %s: %w", d.Name, err)
	}
	if len(values) <= maxUnknown {
		d.unknown = &values
	}
	return nil
}

// ofUnknownTenant is true of rows that name no known tenant.
func (d *dataset) ofUnknownTenant(q *query, alias string) string {
	column := dotted(alias, d.tenant)
	if d.unknown != nil {
		return fmt.Sprintf("(%s IS NULL OR %s)", column, d.ofTenants(q, alias, *d.unknown))
	}
	return fmt.Sprintf("(%s IS NULL OR NOT %s)", column, d.ofTenants(q, alias, d.knownIDs()))
}

func (d *dataset) knownIDs() []string { return slices.Collect(maps.Keys(d.ids)) }

// latestOverride is the cutoff of the shortest window that a rule gives any single tenant: rows of unknown tenants
// that are older may be that tenant's. nil: no tenant has a window of its own.
func (d *dataset) latestOverride(r Rule, at time.Time) *time.Time {
	if d.tenant == nil {
		return nil
	}
	var latest *time.Time
	for _, o := range r.Windows.Overrides {
		if c := d.cutoff(o.RetainFor, at, true); latest == nil || c.After(*latest) {
			latest = &c
		}
	}
	return latest
}
