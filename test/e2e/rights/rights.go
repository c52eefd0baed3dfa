// Package rights holds the rights that Lethe's identities were granted against those that they used, by the API
// server's audit log.
package rights

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/yaml"

	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/test/stage"
)

// auditEvent is what is read of an audit event.
type auditEvent struct {
	Verb string `json:"verb"`
	User struct {
		Username string `json:"username"`
	} `json:"user"`
	ImpersonatedUser *struct{} `json:"impersonatedUser"`
	ObjectRef        struct {
		APIGroup    string `json:"apiGroup"`
		Resource    string `json:"resource"`
		Subresource string `json:"subresource"`
		Namespace   string `json:"namespace"`
	} `json:"objectRef"`
	ResponseStatus struct {
		Code int `json:"code"`
	} `json:"responseStatus"`
}

// Where a right holds: in the whole cluster, in the tenants' namespaces, or in one of Lethe's own.
const (
	// InCluster holds everywhere.
	InCluster = "the cluster"
	// InTenants holds in each namespace of a Tenant.
	InTenants = "tenants' namespaces"
)

// Use is one right: somebody, where, a verb, a resource with its group.
type Use struct{ User, Where, Verb, Group, Resource string }

func (u Use) String() string {
	return fmt.Sprintf("%s in %s: %s %s.%s", u.User, u.Where, u.Verb, u.Resource, u.Group)
}

// UsedIn is Used of a file.
func UsedIn(file string) (map[Use]bool, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("open the audit log: %w", err)
	}
	defer func() { _ = f.Close() }()
	return Used(f)
}

// Used reads from an audit log what Lethe's identities asked for and were given, those who only acted as one of them
// left out. What was refused is no use of a right: another one was missing. An object that is not there, or there
// already, or that has changed meanwhile, is an answer that needed the right.
func Used(log io.Reader) (map[Use]bool, error) {
	used := map[Use]bool{}
	lines := bufio.NewScanner(log)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var e auditEvent
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			continue // the line that is being written
		}
		name, ok := strings.CutPrefix(e.User.Username, "system:serviceaccount:"+stage.SystemNamespace+":")
		code := e.ResponseStatus.Code
		if !ok || e.ImpersonatedUser != nil || (code/100 != 2 && code != 404 && code != 409) {
			continue
		}
		r := e.ObjectRef.Resource
		if e.ObjectRef.Subresource != "" {
			r += "/" + e.ObjectRef.Subresource
		}
		where := InTenants
		switch e.ObjectRef.Namespace {
		case "":
			where = InCluster
		case stage.SystemNamespace, stage.KeysNamespace:
			where = e.ObjectRef.Namespace
		}
		used[Use{name, where, e.Verb, e.ObjectRef.APIGroup, r}] = true
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read the audit log: %w", err)
	}
	return used, nil
}

// repairs are rights that are needed only where something went wrong, or a person asked for something, that this run
// does not bring about. Each is used in a test of its own against a real API server.
var repairs = map[Use]bool{
	// TestOrphansOfEachKind
	{resources.ServiceAccountManager, InTenants, "delete", "", "pods"}:          true,
	{resources.ServiceAccountManager, InTenants, "delete", "batch", "cronjobs"}: true,
	{resources.ServiceAccountManager, InTenants, "delete", "batch", "jobs"}:     true,
	// TestGoneIsGone
	{resources.ServiceAccountManager, InCluster, "get", "lethe.dev", "tenants"}: true,
	// TestRotationWithTheRightsOfTheChart
	{resources.ServiceAccountKeyserver, stage.KeysNamespace, "update", "", "configmaps"}:  true,
	{resources.ServiceAccountKeyserver, InTenants, "list", "lethe.dev", "botdeployments"}: true,
	{resources.ServiceAccountKeyserver, InTenants, "list", "lethe.dev", "datastores"}:     true,
}

// NeverUsed are the rights that were granted and not used. A right in one place is not excused by the same one in
// another; only one in the whole cluster is used wherever it is.
func NeverUsed(granted []Use, used map[Use]bool) []string {
	var never []string
	is := func(g Use) bool {
		if used[g] || repairs[g] {
			return true
		}
		if g.Where != InCluster {
			return false
		}
		for _, where := range []string{InTenants, stage.SystemNamespace, stage.KeysNamespace} {
			elsewhere := g
			elsewhere.Where = where
			// Where a narrower role gives the same, that one was used.
			if (used[elsewhere] || repairs[elsewhere]) && !slices.Contains(granted, elsewhere) {
				return true
			}
		}
		return false
	}
	for _, g := range granted {
		// To bind a role is not a request of its own: the RoleBinding that does it is.
		if g.Verb == "bind" {
			g.Verb, g.Resource, g.Where = "create", "rolebindings", InCluster
		}
		watch := g
		watch.Verb = "watch"
		// A list that a watch begins with is a request only where the server cannot stream it; it is needed there.
		if is(g) || (g.Verb == "list" && is(watch)) {
			continue
		}
		never = append(never, g.String())
	}
	slices.Sort(never)
	return slices.Compact(never)
}

// Granted are the rights of the two ServiceAccounts, out of the roles of a checkout.
func Granted(root string) ([]Use, error) {
	files, err := os.ReadDir(root + "/config/rbac")
	if err != nil {
		return nil, fmt.Errorf("read the roles: %w", err)
	}
	var out []Use
	for _, file := range files {
		b, err := os.ReadFile(root + "/config/rbac/" + file.Name())
		if err != nil {
			return nil, fmt.Errorf("read the roles: %w", err)
		}
		for doc := range strings.SplitSeq("\n"+string(b), "\n---") {
			var role rbacv1.ClusterRole
			if err := yaml.Unmarshal([]byte(doc), &role); err != nil {
				return nil, fmt.Errorf("read %s: %w", file.Name(), err)
			}
			user, where := holder(&role)
			if user == "" {
				continue
			}
			for _, r := range role.Rules {
				for _, group := range r.APIGroups {
					for _, resource := range r.Resources {
						for _, verb := range r.Verbs {
							out = append(out, Use{user, where, verb, group, resource})
						}
					}
				}
			}
		}
	}
	if len(out) < 40 {
		return nil, fmt.Errorf("only %d rights in config/rbac", len(out))
	}
	return out, nil
}

// holder says whose a role is, of the manager and the keyserver, and where it holds.
func holder(role *rbacv1.ClusterRole) (user, where string) {
	if role.Kind != "ClusterRole" && role.Kind != "Role" {
		return "", ""
	}
	where = InCluster
	if role.Kind == "Role" {
		where = role.Namespace
	}
	for _, user := range []string{resources.ServiceAccountManager, resources.ServiceAccountKeyserver} {
		switch role.Name {
		case user + "-tenant":
			return user, InTenants // bound in each of them
		case user:
			return user, where
		}
	}
	return "", ""
}
