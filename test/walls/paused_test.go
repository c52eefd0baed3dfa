package walls

import (
	"testing"

	lethev1 "github.com/lethe-dev/lethe/api/v1alpha1"
)

// TestTheMarkOfAPause: the manager alone sets the annotation by which changes are paused. Who may update the Tenant
// takes it off; nobody else, and nobody hands it on with a namespace.
func TestTheMarkOfAPause(t *testing.T) {
	labels := restricted(tenant)
	marked := namespace("acme-paused", labels)
	marked.Annotations = map[string]string{lethev1.AnnotationChangesPaused: "2026-01-01T00:00:00Z"}
	manager := as(managerUser, groupMost)
	if prepared != nil {
		t.Fatal(prepared)
	}
	if err := manager.Create(t.Context(), marked.DeepCopy()); err != nil {
		t.Fatal(err)
	}
	mustCreate(t, namespace("acme-not-paused", restricted(tenant)))
	most, adopter := as("someone", groupMost), as("gitops", groupNamespaces, groupAdopt)
	namespaces := as("someone", groupNamespaces)
	set, later, off := `{"metadata":{"annotations":{"lethe.dev/changes-paused-until":"2026-01-01T00:00:00Z"}}}`,
		`{"metadata":{"annotations":{"lethe.dev/changes-paused-until":"2036-01-01T00:00:00Z"}}}`, `{"metadata":{"annotations":{"lethe.dev/changes-paused-until":null}}}`
	empty := `{"metadata":{"annotations":{"lethe.dev/changes-paused-until":""}}}`
	free, paused := namespace("acme-not-paused", nil), namespace("acme-paused", nil)
	fresh := namespace("x", nil)
	fresh.Annotations = marked.Annotations
	climb(t, "lethe-changes-paused-mark", []attempt{
		{name: "set by the manager", as: manager, try: patchOf(free, set)},
		{name: "another time by the manager", as: manager, try: patchOf(paused, later)},
		{name: "taken off by the manager", as: manager, try: patchOf(paused, off)},
		{name: "taken off by who may update the Tenant", as: most, try: patchOf(paused, off)},
		{name: "something else of a marked namespace", as: namespaces, try: patchOf(paused, `{"metadata":{"labels":{"team":"a"}}}`)},
		{name: "label and mark taken off together", as: as("gitops", groupMost, groupAdopt), try: patchOf(paused,
			`{"metadata":{"labels":{"lethe.dev/tenant":null},"annotations":{"lethe.dev/changes-paused-until":null}}}`)},

		{name: "set", as: most, denied: true, try: patchOf(free, set)},
		{name: "set to nothing", as: most, denied: true, try: patchOf(free, empty)},
		{name: "emptied", as: most, denied: true, try: patchOf(paused, empty)},
		{name: "put off", as: most, denied: true, try: patchOf(paused, later)},
		{name: "made with it", as: most, denied: true, try: create(fresh)},
		{name: "taken off by who may only write namespaces", as: namespaces, denied: true, try: patchOf(paused, off)},
		{name: "set through the status", as: most, denied: true, try: patchStatusOf(free, set)},
		{name: "the label taken off a marked namespace", as: adopter, denied: true, try: patchOf(paused, `{"metadata":{"labels":{"lethe.dev/tenant":null}}}`)},
	})
}
