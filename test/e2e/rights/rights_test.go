package rights

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/lethe-dev/lethe/test/stage"
)

// TestUsedRights: what the audit log says of one right, and what excuses another.
func TestUsedRights(t *testing.T) {
	line := func(user, verb, resource, namespace string, code int, impersonated bool) string {
		extra := ""
		if impersonated {
			extra = `"impersonatedUser":{},`
		}
		return fmt.Sprintf(`{"verb":%q,"user":{"username":%q},%s"objectRef":{"resource":%q,"namespace":%q},"responseStatus":{"code":%d}}`, verb, user, extra, resource, namespace, code)
	}
	const keyserver, manager = "system:serviceaccount:lethe-system:lethe-keyserver", "system:serviceaccount:lethe-system:lethe-manager"
	used, err := Used(strings.NewReader(strings.Join([]string{
		line(keyserver, "create", "configmaps", "lethe-system", 201, false),
		line(keyserver, "create", "configmaps", "lethe-keys", 403, false), // refused
		line(keyserver, "get", "secrets", "lethe-keys", 404, false),
		line(keyserver, "update", "secrets", "lethe-keys", 409, false),
		line(keyserver, "delete", "secrets", "lethe-keys", 500, false),
		line(manager, "create", "serviceaccounts", "acme", 201, false),
		line(manager, "delete", "secrets", "acme", 200, true), // somebody acts as the manager
		line("system:serviceaccount:other:lethe-manager", "get", "pods", "acme", 200, false),
		line(manager, "list", "nodes", "", 200, false),
		line(manager, "create", "events", "acme", 201, false),
		`{"verb":"cre`,
	}, "\n")))
	if err != nil {
		t.Fatal(err)
	}
	want := func(user, where, verb, resource string) Use { return Use{user, where, verb, "", resource} }
	granted := []Use{
		want("lethe-keyserver", "lethe-system", "create", "configmaps"),
		want("lethe-keyserver", "lethe-keys", "create", "configmaps"),
		want("lethe-keyserver", "lethe-keys", "get", "secrets"),
		want("lethe-keyserver", "lethe-keys", "update", "secrets"),
		want("lethe-keyserver", "lethe-keys", "delete", "secrets"),
		want("lethe-manager", InTenants, "create", "serviceaccounts"),
		want("lethe-manager", InCluster, "create", "serviceaccounts"), // the narrower one does
		want("lethe-manager", InTenants, "delete", "secrets"),
		want("lethe-manager", InTenants, "get", "pods"),
		want("lethe-manager", InCluster, "list", "nodes"),
		want("lethe-manager", InCluster, "create", "events"), // used in a tenant's namespace
	}
	got := NeverUsed(granted, used)
	expected := []string{granted[1].String(), granted[4].String(), granted[6].String(), granted[7].String(), granted[8].String()}
	slices.Sort(expected)
	if !slices.Equal(got, expected) {
		t.Errorf("never used: %q\nwant:       %q", got, expected)
	}
}

// TestEveryRepairIsGranted: a right that is excused and no longer granted is an excuse for nothing.
func TestEveryRepairIsGranted(t *testing.T) {
	root, err := stage.RepositoryRoot()
	if err != nil {
		t.Fatal(err)
	}
	granted, err := Granted(root)
	if err != nil {
		t.Fatal(err)
	}
	for repair := range repairs {
		if !slices.Contains(granted, repair) {
			t.Errorf("%s is excused, and not granted", repair)
		}
	}
}
