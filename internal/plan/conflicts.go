package plan

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

// MaxDatasets is how many datasets a store has at most.
const MaxDatasets = 512

// MaxConflicts is how many conflicts a status holds: one for each dataset at least.
const MaxConflicts = MaxDatasets

// Conflicts lists, and counts, the tables of a store that another DataStore maps as well: two windows and two floors
// would hold for one table. The same table is one of the same name in the same database, and that is the same where
// host, port and name are, or where both have shown one identity. tenant is the store's own.
//
// Between two tenants a store says nothing about another's until both have logged in at the same address: whoever may
// make a store could otherwise stop another tenant's deletions by writing down where its database is. Until then it
// is the younger that waits.
func Conflicts(store *v1alpha1.DataStore, tenant string, others []v1alpha1.DataStore) (named []v1alpha1.StoreConflict, all int32) {
	here, known := TargetOf(&store.Spec)
	if !known {
		return nil, 0
	}
	mine := map[string][]string{}
	for _, d := range store.Spec.Datasets {
		at := PlaceOf(&d).Name()
		mine[at] = append(mine[at], d.Name)
	}
	var out []v1alpha1.StoreConflict
	for i := range others {
		other := &others[i]
		if other.UID == store.UID || !other.DeletionTimestamp.IsZero() || !concerns(here, store, tenant, other) {
			continue
		}
		for _, d := range other.Spec.Datasets {
			for _, name := range mine[PlaceOf(&d).Name()] {
				out = append(out, v1alpha1.StoreConflict{Dataset: name, Store: other.Namespace + "/" + other.Name, OtherDataset: d.Name})
			}
		}
	}
	slices.SortFunc(out, func(a, b v1alpha1.StoreConflict) int {
		return cmp.Or(cmp.Compare(a.Dataset, b.Dataset), cmp.Compare(a.Store, b.Store), cmp.Compare(a.OtherDataset, b.OtherDataset))
	})
	all = int32(min(len(out), 1_000_000))
	if len(out) > MaxConflicts {
		out = firstOfEach(out)
	}
	return out, all
}

// firstOfEach keeps one conflict of each dataset, which is enough to know of which nothing may be deleted: there are
// no more datasets than a status has room for.
func firstOfEach(in []v1alpha1.StoreConflict) []v1alpha1.StoreConflict {
	return slices.CompactFunc(in, func(a, b v1alpha1.StoreConflict) bool { return a.Dataset == b.Dataset })
}

// concerns says whether another store is of the same database, and of somebody whose word counts here.
func concerns(here Target, store *v1alpha1.DataStore, tenant string, other *v1alpha1.DataStore) bool {
	there, known := TargetOf(&other.Spec)
	if !known || here.Type != there.Type || here.Name() != there.Name() {
		return false
	}
	address := sameAddress(here, there, store.Namespace == other.Namespace)
	id := store.Status.Plan.Identity
	server := id != v1alpha1.StoreIdentity{} && id == other.Status.Plan.Identity
	if store.Namespace == other.Namespace || tenant != "" && other.Status.Tenant == tenant {
		return address || server
	}
	if address && server {
		return true
	}
	return (address || server) && younger(store, other)
}

// sameAddress says whether two stores name one host and port. A name of one label is another host in each namespace.
func sameAddress(a, b Target, oneNamespace bool) bool {
	for _, x := range a.Endpoints() {
		for _, y := range b.Endpoints() {
			if h := host(x.Host); h == host(y.Host) && x.Port == y.Port && (oneNamespace || strings.ContainsAny(h, ".:")) {
				return true
			}
		}
	}
	return false
}

// Places are what a store is known by: stores that share one may hold the same tables.
func Places(s *v1alpha1.DataStore) []string {
	t, known := TargetOf(&s.Spec)
	if !known {
		return nil
	}
	var out []string
	for _, e := range t.Endpoints() {
		out = append(out, fmt.Sprintf("%s:%d/%s", host(e.Host), e.Port, t.Name()))
	}
	if id := s.Status.Plan.Identity; id != (v1alpha1.StoreIdentity{}) {
		out = append(out, id.Kind+" "+id.Value+"/"+t.Name())
	}
	return out
}

// host is a name as DNS compares it.
func host(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

func younger(a, b *v1alpha1.DataStore) bool {
	if a.CreationTimestamp.Equal(&b.CreationTimestamp) {
		return a.UID > b.UID
	}
	return b.CreationTimestamp.Before(&a.CreationTimestamp)
}

// conflict of a dataset with other stores, as a problem; empty: none.
func (c *compiler) conflict(dataset string, at Place) string {
	var others []string
	for _, s := range c.in.Store.Status.Conflicts {
		if s.Dataset == dataset {
			others = append(others, "dataset "+s.OtherDataset+" of DataStore "+s.Store)
		}
	}
	if len(others) == 0 {
		return ""
	}
	return c.problem(dataset, "", "", "spec.datasets[%s]: table %s of this database is also %s, so nothing of it is deleted; map it in one DataStore, so that one window and one floor hold for it, and name it in spec.exempt of the other",
		dataset, at.Name(), strings.Join(others, " and "))
}
