package guest

import (
	"context"
	"fmt"
	"slices"

	authorizationv1 "k8s.io/api/authorization/v1"
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

// kinds that the demo makes and takes away: those of the chart, by the group and the plural, and its own.
var (
	clusterKinds = []right{
		{group: "", resource: "namespaces"},
		{group: "apiextensions.k8s.io", resource: "customresourcedefinitions"},
		{group: "rbac.authorization.k8s.io", resource: "clusterroles"},
		{group: "rbac.authorization.k8s.io", resource: "clusterrolebindings"},
		{group: "admissionregistration.k8s.io", resource: "validatingadmissionpolicies"},
		{group: "admissionregistration.k8s.io", resource: "validatingadmissionpolicybindings"},
		{group: "scheduling.k8s.io", resource: "priorityclasses"},
		{group: "flowcontrol.apiserver.k8s.io", resource: "flowschemas"},
		{group: "flowcontrol.apiserver.k8s.io", resource: "prioritylevelconfigurations"},
		{group: "lethe.dev", resource: "tenants"},
		{group: "lethe.dev", resource: "dataretentionpolicies"},
	}
	namespacedKinds = []struct {
		right
		in []string
	}{
		{right{group: "apps", resource: "deployments"}, []string{systemNamespace}},
		{right{group: "", resource: "services"}, []string{systemNamespace}},
		{right{group: "", resource: "serviceaccounts"}, []string{systemNamespace}},
		{right{group: "", resource: "configmaps"}, []string{systemNamespace, Namespace}},
		{right{group: "", resource: "secrets"}, []string{systemNamespace, Namespace}},
		{right{group: "", resource: "pods"}, []string{systemNamespace, Namespace}},
		{right{group: "", resource: "persistentvolumeclaims"}, []string{systemNamespace}},
		{right{group: "networking.k8s.io", resource: "networkpolicies"}, []string{systemNamespace, "acme-bots", "platform-data"}},
		{right{group: "policy", resource: "poddisruptionbudgets"}, []string{systemNamespace}},
		{right{group: "rbac.authorization.k8s.io", resource: "roles"}, []string{systemNamespace, keysNamespace, "kube-system"}},
		{right{group: "rbac.authorization.k8s.io", resource: "rolebindings"}, []string{systemNamespace, keysNamespace, "kube-system"}},
		{right{group: "lethe.dev", resource: "botdeployments"}, []string{"acme-bots"}},
		{right{group: "lethe.dev", resource: "datastores"}, []string{"platform-data"}},
	}
	others = []right{
		// Kubernetes lets nobody grant what he has not, but for these two.
		{"escalate", "rbac.authorization.k8s.io", "clusterroles", "", ""},
		{"bind", "rbac.authorization.k8s.io", "clusterroles", "", ""},
		// Policies in a tenant's namespace are for whom the Tenant lets.
		{"network", "lethe.dev", "tenants", "", ""},
		{"create", "", "pods", "exec", systemNamespace},
		{"create", "", "pods", "portforward", Namespace},
		{"get", "", "pods", "log", Namespace},
		{"list", "", "persistentvolumes", "", ""},
		{"list", "", "nodes", "", ""},
		{"list", "", "secrets", "", keysNamespace},
		{"delete", "", "events", "", "default"},
	}
)

// rights are all that the demo needs.
func rights() []right {
	var all []right
	verbs := []string{"get", "list", "create", "patch", "delete"}
	for _, k := range clusterKinds {
		for _, v := range verbs {
			all = append(all, right{verb: v, group: k.group, resource: k.resource})
		}
	}
	for _, k := range namespacedKinds {
		for _, ns := range k.in {
			for _, v := range verbs {
				all = append(all, right{verb: v, group: k.group, resource: k.resource, namespace: ns})
			}
		}
	}
	return append(all, others...)
}

// missing asks the API server which of the rights are not there. Who may do everything is asked once.
func missing(ctx context.Context, c client.Client, p *Play) ([]string, error) {
	everything, err := may(ctx, c, right{verb: "*", group: "*", resource: "*"})
	if err != nil || everything {
		return nil, err
	}
	if p.Everything {
		return []string{"everything: the tests act as others, by impersonation"}, nil
	}
	var out []string
	for _, r := range rights() {
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
