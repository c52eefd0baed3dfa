package walls

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	lethev1 "github.com/lethe-dev/lethe/api/v1alpha1"
)

var updateRights = flag.Bool("update", false, "write testdata/rights.txt")

// sweepNS is the tenant's namespace in which every right is tried.
const sweepNS = "acme-sweep"

// bodies are valid objects of the kinds that the built-in roles write. A kind that is missing here fails the sweep:
// what a new server gives those roles must be tried too.
const bodies = `
configmaps: {data: {a: b}}
secrets: {stringData: {a: b}}
serviceaccounts: {}
events: {involvedObject: {namespace: acme-sweep, name: x}, reason: x, type: Normal}
events.events.k8s.io: {eventTime: "2026-01-01T00:00:00.000000Z", reportingController: x.example/y, reportingInstance: x, action: x, reason: x, type: Normal, regarding: {namespace: acme-sweep, name: x}}
endpoints: {}
endpointslices.discovery.k8s.io: {addressType: IPv4, endpoints: []}
services: {spec: {type: ExternalName, externalName: evil.example}}
persistentvolumeclaims: {spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}
limitranges: {spec: {limits: []}}
resourcequotas: {spec: {hard: {pods: "1"}}}
pods: {metadata: {labels: {app.kubernetes.io/component: bot}}, spec: {serviceAccountName: b-bot, automountServiceAccountToken: false, containers: [{name: c, image: "i:1"}]}}
podtemplates: {template: {spec: {containers: [{name: c, image: "i:1"}]}}}
replicationcontrollers: {spec: {selector: {a: b}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: "i:1"}]}}}}
deployments.apps: {spec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: "i:1"}]}}}}
daemonsets.apps: {spec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: "i:1"}]}}}}
replicasets.apps: {spec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: "i:1"}]}}}}
statefulsets.apps: {spec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: "i:1"}]}}}}
controllerrevisions.apps: {revision: 1, data: {a: b}}
horizontalpodautoscalers.autoscaling: {spec: {maxReplicas: 2, scaleTargetRef: {apiVersion: apps/v1, kind: StatefulSet, name: x}}}
jobs.batch: {spec: {template: {spec: {restartPolicy: Never, containers: [{name: c, image: "i:1"}]}}}}
cronjobs.batch: {spec: {schedule: "@daily", jobTemplate: {spec: {template: {spec: {restartPolicy: Never, containers: [{name: c, image: "i:1"}]}}}}}}
ingresses.networking.k8s.io: {spec: {defaultBackend: {service: {name: x, port: {number: 80}}}}}
networkpolicies.networking.k8s.io: {spec: {podSelector: {}, policyTypes: [Egress], egress: [{}]}}
poddisruptionbudgets.policy: {spec: {maxUnavailable: 1, selector: {matchLabels: {a: b}}}}
leases.coordination.k8s.io: {spec: {holderIdentity: x}}
roles.rbac.authorization.k8s.io: {rules: []}
rolebindings.rbac.authorization.k8s.io: {roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: there}, subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: x}]}
resourceclaims.resource.k8s.io: {spec: {devices: {requests: [{name: gpu, exactly: {deviceClassName: x}}]}}}
resourceclaimtemplates.resource.k8s.io: {spec: {spec: {devices: {requests: [{name: gpu, exactly: {deviceClassName: x}}]}}}}
botdeployments.lethe.dev: {spec: {image: "i:1"}}
datastores.lethe.dev: {spec: {type: Postgres}}
`

// closed is the promise: what nobody below the platform does in a tenant's namespace, whatever role of the namespace
// he has. Each line is a verb, or * for those that write, and a kind.
var closed = []string{
	"create pods", "update pods", "patch pods", "create pods/exec", "get pods/exec", "create pods/attach", "get pods/attach", "create pods/portforward", "get pods/portforward",
	"create pods/proxy", "get pods/proxy", "update pods/proxy", "patch pods/proxy", "delete pods/proxy",
	"create services/proxy", "get services/proxy", "update services/proxy", "patch services/proxy", "delete services/proxy",
	"create serviceaccounts/token",
	"* networkpolicies.networking.k8s.io", "* ingresses.networking.k8s.io", "* services", "* endpoints", "* endpointslices.discovery.k8s.io",
	"create deployments.apps", "update deployments.apps", "patch deployments.apps", "create daemonsets.apps", "update daemonsets.apps", "patch daemonsets.apps",
	"create replicasets.apps", "update replicasets.apps", "patch replicasets.apps", "create statefulsets.apps", "update statefulsets.apps", "patch statefulsets.apps",
	"update deployments.apps/scale", "patch deployments.apps/scale", "update statefulsets.apps/scale", "patch statefulsets.apps/scale",
	"create jobs.batch", "update jobs.batch", "patch jobs.batch", "create cronjobs.batch", "update cronjobs.batch", "patch cronjobs.batch",
	"create replicationcontrollers", "update replicationcontrollers", "patch replicationcontrollers",
}

// TestRightsSweep tries every verb and resource of the built-in roles edit and admin and of Lethe's own two, as the
// server at hand has them, in a tenant's namespace. What is closed must be refused by a policy; everything else
// stands in testdata/rights.txt, so that a right that comes with a new server, or goes, is seen.
func TestRightsSweep(t *testing.T) {
	if prepared != nil {
		t.Fatal(prepared)
	}
	s := newSweep(t)
	own := s.makeOwn()
	var lines []string
	refused := map[string]bool{}
	for _, role := range []string{"admin", "edit", "lethe-tenant-operate", "lethe-tenant-view"} {
		who := s.holder(role)
		for _, right := range s.rights(role) {
			outcome := s.try(who, right)
			if strings.HasPrefix(outcome, "refused") {
				refused[role+" "+right.String()] = true
			} else {
				lines = append(lines, fmt.Sprintf("%s: %s: %s", role, right, outcome))
			}
			if isClosed(right) && !refused[role+" "+right.String()] {
				t.Errorf("%s may %s, which is closed: %s", role, right, outcome)
			}
			s.tryOwn(who, role, right, own)
		}
	}
	s.tryAsTheBot()
	for kind := range own {
		// Quotas and limits are nobody's to write by these roles.
		if !s.tried[kind] && kind != "limitranges" && kind != "resourcequotas" {
			t.Errorf("nothing was tried on Lethe's own %s", kind)
		}
	}
	for _, must := range []string{"admin create networkpolicies.networking.k8s.io", "edit create pods/exec", "edit create serviceaccounts/token"} {
		if !refused[must] {
			t.Errorf("%s was not tried", must)
		}
	}
	slices.Sort(lines)
	got := strings.Join(slices.Compact(lines), "\n") + "\n"
	file := filepath.Join("testdata", "rights.txt")
	if *updateRights {
		if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	known := strings.Split(string(want), "\n")
	for _, line := range strings.Split(got, "\n") {
		if !slices.Contains(known, line) {
			t.Errorf("not in %s: %s", file, line)
		}
	}
	// A right that went does no harm; -update drops its line.
}

// right is a verb on a resource, with a subresource behind a slash.
type right struct{ verb, group, resource, subresource string }

func (r right) kind() string {
	return schema.GroupResource{Group: r.group, Resource: r.resource}.String()
}

func (r right) String() string {
	if r.subresource != "" {
		return r.verb + " " + r.kind() + "/" + r.subresource
	}
	return r.verb + " " + r.kind()
}

func isClosed(r right) bool {
	writes := slices.Contains([]string{"create", "update", "patch", "delete", "deletecollection"}, r.verb)
	return slices.Contains(closed, r.String()) || (r.subresource == "" && writes && slices.Contains(closed, "* "+r.kind()))
}

type sweep struct {
	t      *testing.T
	bodies map[string]map[string]any
	served map[string]schema.GroupVersionKind
	// pods of Lethe's own that are still to be made, and the kinds of its own on which something was tried.
	pods  []*unstructured.Unstructured
	tried map[string]bool
}

func newSweep(t *testing.T) *sweep {
	s := &sweep{t: t, bodies: map[string]map[string]any{}, served: map[string]schema.GroupVersionKind{}, tried: map[string]bool{}}
	if err := yaml.Unmarshal([]byte(bodies), &s.bodies); err != nil {
		t.Fatal(err)
	}
	d, err := discovery.NewDiscoveryClientForConfig(server.Config)
	if err != nil {
		t.Fatal(err)
	}
	lists, err := d.ServerPreferredNamespacedResources()
	if err != nil {
		t.Fatal(err)
	}
	for _, list := range lists {
		gv, _ := schema.ParseGroupVersion(list.GroupVersion)
		for _, r := range list.APIResources {
			s.served[schema.GroupResource{Group: gv.Group, Resource: r.Name}.String()] = gv.WithKind(r.Kind)
		}
	}
	mustCreate(t, namespace(sweepNS, map[string]string{lethev1.LabelTenant: tenant}))
	for _, name := range []string{"b-bot", "default"} {
		account := s.object("serviceaccounts", name)
		if err := cluster().Create(t.Context(), account); err != nil {
			t.Fatal(err)
		}
	}
	for kind := range s.bodies {
		if _, ok := s.served[kind]; !ok || kind == "datastores.lethe.dev" {
			continue
		}
		if err := cluster().Create(t.Context(), s.object(kind, "there")); client.IgnoreAlreadyExists(err) != nil { // one kind may be served by two groups
			t.Fatalf("make %s: %v", kind, err)
		}
	}
	return s
}

func (s *sweep) object(kind, name string) *unstructured.Unstructured {
	o := &unstructured.Unstructured{Object: map[string]any{}}
	body, err := json.Marshal(s.bodies[kind])
	if err == nil {
		err = json.Unmarshal(body, &o.Object)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	o.SetGroupVersionKind(s.served[kind])
	o.SetNamespace(sweepNS)
	o.SetName(name)
	return o
}

// rights are those of a ClusterRole, with those that it aggregates: that is a controller's work, which runs in no test.
func (s *sweep) rights(role string) []right {
	s.t.Helper()
	var rights []right
	for _, rule := range s.rules(role, map[string]bool{}) {
		for _, group := range rule.APIGroups {
			for _, name := range rule.Resources {
				for _, verb := range rule.Verbs {
					resource, sub, _ := strings.Cut(name, "/")
					r := right{verb, group, resource, sub}
					if _, ok := s.served[r.kind()]; ok && !slices.Contains(rights, r) && len(rule.ResourceNames) == 0 {
						rights = append(rights, r)
					}
				}
			}
		}
	}
	if len(rights) < 10 {
		s.t.Fatalf("%s has %d rights", role, len(rights))
	}
	return rights
}

func (s *sweep) rules(role string, seen map[string]bool) []rbacv1.PolicyRule {
	if seen[role] {
		return nil
	}
	seen[role] = true
	var r rbacv1.ClusterRole
	if err := admin.Get(s.t.Context(), client.ObjectKey{Name: role}, &r); err != nil {
		s.t.Fatal(err)
	}
	rules := r.Rules
	if r.AggregationRule == nil {
		return rules
	}
	for i := range r.AggregationRule.ClusterRoleSelectors {
		selector, err := metav1.LabelSelectorAsSelector(&r.AggregationRule.ClusterRoleSelectors[i])
		if err != nil {
			s.t.Fatal(err)
		}
		var roles rbacv1.ClusterRoleList
		if err := admin.List(s.t.Context(), &roles, client.MatchingLabelsSelector{Selector: selector}); err != nil {
			s.t.Fatal(err)
		}
		for _, part := range roles.Items {
			rules = append(rules, s.rules(part.Name, seen)...)
		}
	}
	return rules
}

// holder is somebody who has what the role gives, in the tenant's namespace.
func (s *sweep) holder(name string) *rest.RESTClient {
	s.t.Helper()
	given := role("sweep:"+name, s.rules(name, map[string]bool{})...)
	mustCreate(s.t, given)
	for _, ns := range []string{sweepNS, ownNS} {
		mustCreate(s.t, binding(ns, "sweep-"+name, given.Name, group(given.Name)))
	}
	config := server.ConfigFor("sweeper", given.Name)
	config.GroupVersion, config.NegotiatedSerializer = &schema.GroupVersion{}, scheme.Codecs.WithoutConversion()
	c, err := rest.UnversionedRESTClientFor(config)
	if err != nil {
		s.t.Fatal(err)
	}
	waitFor(s.t, "the rights of "+name, func(ctx context.Context) bool {
		return !apierrors.IsForbidden(c.Get().AbsPath("/api/v1/namespaces/" + sweepNS + "/pods").Do(ctx).Error())
	})
	return c
}

// change is a patch that says little.
const change = `{"metadata":{"labels":{"sweep":"tried"}}}`

// try makes one request on an object that is nobody's, a dry run where it writes, and says how it ended.
func (s *sweep) try(c *rest.RESTClient, r right) string {
	return s.tryOn(c, r, sweepNS, "there", change)
}

// tryOn makes one request on an object with a change of one's own.
func (s *sweep) tryOn(c *rest.RESTClient, r right, ns, name, change string) string {
	s.t.Helper()
	gvk := s.served[r.kind()]
	base := "/apis/" + gvk.Group + "/" + gvk.Version
	if gvk.Group == "" {
		base = "/api/" + gvk.Version
	}
	collection := base + "/namespaces/" + ns + "/" + r.resource
	named := collection + "/" + name
	if r.subresource != "" {
		named += "/" + r.subresource
		collection = named // a verb that a subresource does not serve is refused as such
	}
	connects := slices.Contains([]string{"attach", "exec", "portforward", "proxy"}, r.subresource)
	var request *rest.Request
	switch r.verb {
	case "get":
		request = c.Get().AbsPath(named).Param("command", "id")
	case "list", "watch":
		request = c.Get().AbsPath(collection)
	case "create":
		if r.subresource != "" {
			request = c.Post().AbsPath(named).Param("command", "id").Body([]byte(subBody(r, name)))
			break
		}
		request = c.Post().AbsPath(collection).Body(s.encoded(r, "fresh"))
	case "update", "patch":
		if r.subresource == "scale" {
			change = `{"spec":{"replicas":2}}`
		}
		// An update needs the whole object at its version, and goes through the same admission as a patch.
		request = c.Verb(http.MethodPatch).SetHeader("Content-Type", "application/merge-patch+json").AbsPath(named).Body([]byte(change))
		if r.verb == "update" {
			request = s.update(c, named, change)
		}
	case "delete":
		request = c.Delete().AbsPath(named)
	case "deletecollection":
		request = c.Delete().AbsPath(collection)
		if ns == ownNS {
			request = request.Param("labelSelector", lethev1.LabelManagedBy+"="+lethev1.ManagedByLethe)
		}
	default:
		return "not a request: " + r.verb // impersonate is tried by tryAsTheBot
	}
	if r.verb != "get" && r.verb != "list" && r.verb != "watch" && !connects {
		request = request.Param("dryRun", "All").SetHeader("Accept", "application/json")
	}
	err := request.Do(s.t.Context()).Error()
	switch {
	case apierrors.IsMethodNotSupported(err):
		return "refused: not served"
	case apierrors.IsForbidden(err):
		return "refused" + byPolicy(err)
	case apierrors.IsInvalid(err) && r.verb == "create", apierrors.IsUnsupportedMediaType(err):
		s.t.Errorf("%s was not tried: %v", r, err)
	}
	return "allowed"
}

var policyName = regexp.MustCompile(`ValidatingAdmissionPolicy '([a-z-]+)'`)

func byPolicy(err error) string {
	if match := policyName.FindStringSubmatch(err.Error()); match != nil {
		return " by " + match[1]
	}
	return " by other means"
}

func (s *sweep) encoded(r right, name string) []byte {
	if _, ok := s.bodies[r.kind()]; !ok {
		if r.kind() == "localsubjectaccessreviews.authorization.k8s.io" {
			return []byte(`{"apiVersion":"authorization.k8s.io/v1","kind":"LocalSubjectAccessReview","metadata":{"namespace":"acme-sweep"},
				"spec":{"user":"x","resourceAttributes":{"namespace":"acme-sweep","verb":"get","resource":"pods"}}}`)
		}
		s.t.Errorf("the sweep knows no object of %s: add one to its bodies", r.kind())
		return []byte(`{}`)
	}
	b, err := s.object(r.kind(), name).MarshalJSON()
	if err != nil {
		s.t.Fatal(err)
	}
	return b
}

func subBody(r right, name string) string {
	switch r.subresource {
	case "token":
		return `{"apiVersion":"authentication.k8s.io/v1","kind":"TokenRequest","spec":{"audiences":["lethe.dev/keyserver"]}}`
	case "eviction":
		return `{"apiVersion":"policy/v1","kind":"Eviction","metadata":{"name":"` + name + `"},"deleteOptions":{"dryRun":["All"]}}`
	}
	return ""
}

// update reads the object as the administrator and writes it back with the change, as the holder.
func (s *sweep) update(c *rest.RESTClient, path, change string) *rest.Request {
	all := server.ConfigFor("reader", "system:masters")
	all.GroupVersion, all.NegotiatedSerializer = &schema.GroupVersion{}, scheme.Codecs.WithoutConversion()
	reader, err := rest.UnversionedRESTClientFor(all)
	if err != nil {
		s.t.Fatal(err)
	}
	raw, err := reader.Get().AbsPath(path).Do(s.t.Context()).Raw()
	if err != nil {
		return c.Put().AbsPath(path).Body([]byte(change))
	}
	var object, wanted map[string]any
	if err := json.Unmarshal(raw, &object); err != nil {
		return c.Put().AbsPath(path).Body([]byte(change))
	}
	if err := json.Unmarshal([]byte(change), &wanted); err != nil {
		s.t.Fatal(err)
	}
	for part, fields := range wanted {
		for key, value := range fields.(map[string]any) {
			if m, ok := object[part].(map[string]any); ok {
				m[key] = value
			}
		}
	}
	b, err := json.Marshal(object)
	if err != nil {
		s.t.Fatal(err)
	}
	return c.Put().AbsPath(path).SetHeader("Content-Type", "application/json").Body(b)
}
