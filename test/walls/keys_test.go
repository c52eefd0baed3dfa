package walls

import (
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	lethev1 "github.com/lethe-dev/lethe/api/v1alpha1"
)

// TestWhoGetsADeletedTenantsKeys: that one annotation does not ask for new keys is what the keyserver takes for the
// right to get those of an earlier Tenant back. Only who may adopt leaves it out, names a key in it, or changes it,
// by whichever way.
func TestWhoGetsADeletedTenantsKeys(t *testing.T) {
	most, operator, manager := as("eve", groupMost), as("ann", groupMost, groupOperate), as(managerUser, groupMost)
	adopter, adopterAll := as("gitops", groupMost, groupAdopt), as("gitops", groupMost, groupAdoptAll)
	made := func(name string, annotations map[string]string) *lethev1.Tenant {
		return &lethev1.Tenant{ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: annotations},
			Spec: lethev1.TenantSpec{Namespaces: []lethev1.TenantNamespace{{Name: name + "-keys"}}}}
	}
	asks := map[string]string{lethev1.AnnotationKeys: lethev1.KeysNew}
	plain, fresh := made("keys-plain", nil), made("keys-new", asks)
	mustCreate(t, plain)
	mustCreate(t, fresh)
	const drop, set = `{"metadata":{"annotations":{"lethe.dev/sealing-keys":null}}}`, `{"metadata":{"annotations":{"lethe.dev/sealing-keys":"New"}}}`
	named := map[string]string{lethev1.AnnotationKeys: "0123456789abcdef"}
	const name = `{"metadata":{"annotations":{"lethe.dev/sealing-keys":"0123456789abcdef"}}}`
	const other = `{"metadata":{"annotations":{"team":"a"}}}`
	attempts := []attempt{
		{name: "made without it by who may adopt that one", as: adopter, try: create(made(tenant, nil))},
		{name: "made without it by who may adopt all", as: adopterAll, try: create(made("x", nil))},
		{name: "made with it by anybody", as: most, try: create(made("x", asks))},
		{name: "naming a key, by who may adopt", as: adopterAll, try: create(made("x", named))},
		{name: "changed to name a key, by who may adopt", as: adopterAll, try: patchOf(plain, name)},
		{name: "put on by who may adopt", as: adopterAll, try: patchOf(plain, set)},
		{name: "taken off by who may adopt", as: adopterAll, try: patchOf(fresh, drop)},
		{name: "another annotation", as: most, try: patchOf(fresh, other)},

		{name: "made without it", as: most, denied: true, try: create(made("x", nil))},
		{name: "naming a key", as: most, denied: true, try: create(made("x", named))},
		{name: "made without it by Operate", as: operator, denied: true, try: create(made("x", nil))},
		{name: "made without it by who may adopt another", as: adopter, denied: true, try: create(made("x", nil))},
	}
	for who, c := range map[string]identity{"anybody": most, "Operate": operator, "who may adopt another": adopter} {
		attempts = append(attempts,
			attempt{name: "changed to name a key by " + who, as: c, denied: true, try: patchOf(fresh, name)},
			attempt{name: "taken off by " + who, as: c, denied: true, try: patchOf(fresh, drop)},
			attempt{name: "put on by " + who, as: c, denied: true, try: patchOf(plain, set)})
	}
	climb(t, "lethe-tenant-keys", attempts)

	if err := create(made("x", map[string]string{lethev1.AnnotationKeys: "Old"}))(t.Context(), adopterAll); !apierrors.IsInvalid(err) {
		t.Errorf("a word that means nothing: %v", err)
	}

	// The manager meets an earlier wall too: it changes no annotation of people at all. What counts is that it cannot.
	try(t, []attempt{
		{name: "made without it by the manager", as: manager, denied: true, try: create(made("x", nil))},
		{name: "taken off by the manager", as: manager, denied: true, try: patchOf(fresh, drop)},
		{name: "a Tenant by Operate alone", as: as("ann", groupOperate), denied: true, try: create(made("x", asks))},
	})
}
