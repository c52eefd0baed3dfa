package guest

import (
	"context"
	"fmt"
	"slices"

	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// right is one thing that whoever runs the demo must be allowed.
type right struct{ verb, group, resource, subresource, namespace string }

// String says it as `kubectl auth can-i` takes it.
func (r right) String() string {
	s := r.verb + " " + r.resource
	if r.group != "" {
		s += "." + r.group
	}
	if r.subresource != "" {
		s += "/" + r.subresource
	}
	if r.namespace != "" {
		s += " in " + r.namespace
	}
	return s
}

var (
	all     = []string{"get", "list", "create", "patch", "delete"}
	reading = []string{"get", "list"}
)

// rights are all that the demo needs: on what the chart makes, on what it makes itself, and on what it looks at. dns
// is as in Guest.
func rights(dns string) []right {
	var out []right
	add := func(verbs []string, group, resource, subresource string, namespaces ...string) {
		for _, ns := range namespaces {
			for _, v := range verbs {
				if r := (right{v, group, resource, subresource, ns}); !slices.Contains(out, r) {
					out = append(out, r)
				}
			}
		}
	}
	for _, t := range charts(dns) {
		add(all, t.Group, t.Resource, "", t.namespace)
	}
	add(all, "", "namespaces", "", "")
	for _, k := range lethesClusterWide {
		add(all, k.Group, k.Resource, "", "")
	}
	for _, k := range lethesNamespaced {
		add([]string{"list"}, k.Group, k.Resource, "", "") // whether somebody else's are there
	}
	add(all, "lethe.dev", "botdeployments", "", "acme-bots")
	add(all, "lethe.dev", "datastores", "", "platform-data")
	add(all, "networking.k8s.io", "networkpolicies", "", "acme-bots", "platform-data")
	for _, resource := range []string{"configmaps", "secrets", "pods"} {
		add(all, "", resource, "", systemNamespace, Namespace)
	}
	add([]string{"update"}, "", "secrets", "", systemNamespace) // helm keeps its release there
	add(all, "", "persistentvolumeclaims", "", systemNamespace)
	add([]string{"get", "create", "update", "delete"}, "coordination.k8s.io", "leases", "", Namespace)
	for _, ns := range Demo.Namespaces() {
		for _, resource := range []string{"secrets", "configmaps", "pods", "events", "persistentvolumeclaims"} {
			add(reading, "", resource, "", ns)
		}
		add([]string{"get"}, "", "pods", "log", ns)
	}
	add([]string{"create"}, "", "events", "", Namespace)
	add([]string{"list", "delete"}, "", "events", "", metav1.NamespaceDefault)
	// Kubernetes lets nobody grant what he has not, but for these two.
	add([]string{"escalate", "bind"}, rbac, "clusterroles", "", "")
	// Policies in a tenant's namespace are for whom the Tenant lets.
	add([]string{"network"}, "lethe.dev", "tenants", "", "")
	add([]string{"create"}, "", "pods", "exec", systemNamespace)
	add([]string{"create"}, "", "pods", "portforward", Namespace)
	add([]string{"list"}, "", "persistentvolumes", "", "")
	add([]string{"list"}, "", "nodes", "", "")
	add([]string{"list"}, "storage.k8s.io", "storageclasses", "", "")
	add([]string{"list"}, "discovery.k8s.io", "endpointslices", "", metav1.NamespaceDefault)
	add([]string{"list"}, "", "pods", "", metav1.NamespaceSystem)
	return out
}

// missing asks the API server which of the rights are not there. Who may do everything is asked once.
func missing(ctx context.Context, c client.Client, p *Play, dns string) ([]string, error) {
	everything, err := may(ctx, c, right{verb: "*", group: "*", resource: "*"})
	if err != nil || everything {
		return nil, err
	}
	if p.Everything {
		return []string{"everything: the tests act as others, by impersonation"}, nil
	}
	var out []string
	for _, r := range rights(dns) {
		ok, err := may(ctx, c, r)
		if err != nil {
			return nil, err
		}
		if !ok {
			out = append(out, r.String())
		}
	}
	slices.Sort(out)
	return out, nil
}

func may(ctx context.Context, c client.Client, r right) (bool, error) {
	review := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{
		ResourceAttributes: &authorizationv1.ResourceAttributes{
			Verb: r.verb, Group: r.group, Resource: r.resource, Subresource: r.subresource, Namespace: r.namespace,
		},
	}}
	if err := c.Create(ctx, review); err != nil {
		return false, fmt.Errorf("ask what you may do: %w", err)
	}
	return review.Status.Allowed, nil
}
