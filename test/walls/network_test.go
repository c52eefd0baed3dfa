package walls

import (
	"context"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"sigs.k8s.io/controller-runtime/pkg/client"

	lethev1 "github.com/lethe-dev/lethe/api/v1alpha1"
)

// ciliumPolicies is a kind of policy that a cluster may have, and that ours learns of after the admission policies.
var ciliumPolicies = schema.GroupVersionResource{Group: "cilium.io", Version: "v2", Resource: "ciliumnetworkpolicies"}

func policy(ns, name string) *networkingv1.NetworkPolicy {
	return &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}, Spec: networkingv1.NetworkPolicySpec{
		PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeEgress}, Egress: []networkingv1.NetworkPolicyEgressRule{{}}}}
}

// TestOnlyTheManagerWritesNetworkPolicies: policies add up, so that one more opens everything, and one fewer what it
// closed.
func TestOnlyTheManagerWritesNetworkPolicies(t *testing.T) {
	manager, eve, netop := as(managerUser, groupMost), as("eve", groupMost), as("netop", groupMost, groupNetwork)
	const ns = "acme-net"
	mustCreate(t, namespace(ns, map[string]string{lethev1.LabelTenant: tenant}))
	for _, o := range []client.Object{policy(ns, "there"), service(ns, "there"), endpoints(ns, "there"), slice(ns, "there"), ingress(ns, "there")} {
		if err := cluster().Create(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	other := `{"spec":{"podSelector":{"matchLabels":{"a":"b"}}}}`
	label := `{"metadata":{"labels":{"a":"b"}}}`
	attempts := []attempt{
		{name: "made by the manager", as: manager, try: create(policy(ns, "x"))},
		{name: "changed by the manager", as: manager, try: patchOf(policy(ns, "there"), other)},
		{name: "made by the administrator, who has every verb", as: admin, try: create(policy(ns, "x"))},
		{name: "made with the verb network on the tenant", as: netop, try: create(policy(ns, "x"))},
		{name: "taken away with the verb network on the tenant", as: netop, try: remove(policy(ns, "there"))},
		{name: "taken away with its owner", as: as("system:serviceaccount:kube-system:generic-garbage-collector", groupMost), try: remove(policy(ns, "there"))},
		{name: "taken away with its namespace", as: as("system:serviceaccount:kube-system:namespace-controller", groupMost), try: removeAll(&networkingv1.NetworkPolicy{}, ns)},
		{name: "elsewhere", as: eve, try: create(policy(otherNS, "x"))},
		{name: "slices by their controller", as: as("system:serviceaccount:kube-system:endpointslice-controller", groupMost), try: create(slice(ns, "x"))},

		{name: "made", as: eve, denied: true, try: create(policy(ns, "x"))},
		{name: "made by the keyserver", as: as(keyserverUser, groupMost), denied: true, try: create(policy(ns, "x"))},
		{name: "made with the verb on another tenant", as: as("netop", groupMost, groupNetwork), denied: true, try: create(policy("globex-net", "x"))},
		{name: "changed", as: eve, denied: true, try: patchOf(policy(ns, "there"), other)},
		{name: "labelled", as: eve, denied: true, try: patchOf(policy(ns, "there"), label)},
		{name: "taken away", as: eve, denied: true, try: remove(policy(ns, "there"))},
		{name: "taken away with all others", as: eve, denied: true, try: removeAll(&networkingv1.NetworkPolicy{}, ns)},
		{name: "a status, and a label with it", as: eve, denied: true, try: func(ctx context.Context, c identity) error {
			o := ingress(ns, "there")
			if err := c.Get(ctx, client.ObjectKeyFromObject(o), o); err != nil {
				return err
			}
			o.Labels = map[string]string{"a": "b"}
			return c.Status().Update(ctx, o, client.DryRunAll)
		}},
	}
	mustCreate(t, namespace("globex-net", map[string]string{lethev1.LabelTenant: "globex"}))
	for kind, make := range map[string]func(ns, name string) client.Object{
		"Service":       func(ns, name string) client.Object { return service(ns, name) },
		"Endpoints":     func(ns, name string) client.Object { return endpoints(ns, name) },
		"EndpointSlice": func(ns, name string) client.Object { return slice(ns, name) },
		"Ingress":       func(ns, name string) client.Object { return ingress(ns, name) },
	} {
		attempts = append(attempts,
			attempt{name: kind + " with the verb", as: netop, try: create(make(ns, "x"))},
			attempt{name: kind + " elsewhere", as: eve, try: create(make(otherNS, "x"))},
			attempt{name: kind + " made", as: eve, denied: true, try: create(make(ns, "x"))},
			attempt{name: kind + " changed", as: eve, denied: true, try: patchOf(make(ns, "there"), label)},
			attempt{name: kind + " taken away", as: eve, denied: true, try: remove(make(ns, "there"))})
	}
	climb(t, "lethe-network", attempts)
}

// TestPoliciesOfKindsThatComeLater: a network plugin's kinds are installed after the walls, and are behind them all
// the same.
func TestPoliciesOfKindsThatComeLater(t *testing.T) {
	installCiliumPolicies(t)
	write := func(user string, groups ...string) func(context.Context, identity) error {
		return func(ctx context.Context, _ identity) error {
			c, err := dynamic.NewForConfig(server.ConfigFor(user, groups...))
			if err != nil {
				return err
			}
			object := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy",
				"metadata": map[string]any{"name": "open"}, "spec": map[string]any{}}}
			_, err = c.Resource(ciliumPolicies).Namespace(tenantNS).Create(ctx, object, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
			return err
		}
	}
	climb(t, "lethe-network", []attempt{
		{name: "with the verb network", try: write("netop", groupMost, groupNetwork)},
		{name: "without", denied: true, try: write("eve", groupMost)},
	})
}

// installCiliumPolicies makes the kind known, with nothing in it but a name.
func installCiliumPolicies(t *testing.T) {
	t.Helper()
	anything := true
	crd := &apiextensionsv1.CustomResourceDefinition{ObjectMeta: metav1.ObjectMeta{Name: "ciliumnetworkpolicies.cilium.io"},
		Spec: apiextensionsv1.CustomResourceDefinitionSpec{Group: ciliumPolicies.Group, Scope: apiextensionsv1.NamespaceScoped,
			Names: apiextensionsv1.CustomResourceDefinitionNames{Plural: ciliumPolicies.Resource, Kind: "CiliumNetworkPolicy"},
			Versions: []apiextensionsv1.CustomResourceDefinitionVersion{{Name: ciliumPolicies.Version, Served: true, Storage: true,
				Schema: &apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: &apiextensionsv1.JSONSchemaProps{Type: "object", XPreserveUnknownFields: &anything}}}}}}
	raw, err := runtime.DefaultUnstructuredConverter.ToUnstructured(crd)
	if err != nil {
		t.Fatal(err)
	}
	object := &unstructured.Unstructured{Object: raw}
	object.SetGroupVersionKind(apiextensionsv1.SchemeGroupVersion.WithKind("CustomResourceDefinition"))
	if err := admin.Create(t.Context(), object); err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	c, err := dynamic.NewForConfig(server.Config)
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the kind is served", func(ctx context.Context) bool {
		_, err := c.Resource(ciliumPolicies).Namespace(tenantNS).List(ctx, metav1.ListOptions{})
		return err == nil || (!apierrors.IsNotFound(err) && !meta.IsNoMatchError(err) && !strings.Contains(err.Error(), "could not find"))
	})
}

func service(ns, name string) *corev1.Service {
	return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}, Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "evil.example"}}
}

func endpoints(ns, name string) *corev1.Endpoints { //nolint:staticcheck // they still count
	return &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}} //nolint:staticcheck // the same
}

func slice(ns, name string) *discoveryv1.EndpointSlice {
	return &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}, AddressType: discoveryv1.AddressTypeIPv4}
}

func ingress(ns, name string) *networkingv1.Ingress {
	return &networkingv1.Ingress{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}, Spec: networkingv1.IngressSpec{
		DefaultBackend: &networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{Name: "x", Port: networkingv1.ServiceBackendPort{Number: 80}}}}}
}
