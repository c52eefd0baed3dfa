package guest

import (
	"fmt"
	"os"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

// kind of objects.
type kind struct {
	schema.GroupVersionResource
	Kind string
}

func (k kind) group() string { return k.Group }

// thing is a kind, and where the chart or Lethe has objects of it. Nothing else is ever listed on the cluster: a kind
// of somebody's that cannot be listed must not stop the removal, and Secrets of other namespaces are nobody's to read.
type thing struct {
	kind
	namespace string // empty: cluster-wide, or in every namespace
}

func of(group, version, resource, kindName string) kind {
	return kind{schema.GroupVersionResource{Group: group, Version: version, Resource: resource}, kindName}
}

const rbac, admission, flow = "rbac.authorization.k8s.io", "admissionregistration.k8s.io", "flowcontrol.apiserver.k8s.io"

var (
	roles, bindings = of(rbac, "v1", "roles", "Role"), of(rbac, "v1", "rolebindings", "RoleBinding")

	// chartsClusterWide are the kinds of what the chart makes beside its namespaces.
	chartsClusterWide = []kind{
		of(admission, "v1", "validatingadmissionpolicies", "ValidatingAdmissionPolicy"), of(admission, "v1", "validatingadmissionpolicybindings", "ValidatingAdmissionPolicyBinding"),
		of(admission, "v1", "mutatingadmissionpolicies", "MutatingAdmissionPolicy"), of(admission, "v1", "mutatingadmissionpolicybindings", "MutatingAdmissionPolicyBinding"),
		of(rbac, "v1", "clusterroles", "ClusterRole"), of(rbac, "v1", "clusterrolebindings", "ClusterRoleBinding"),
		of("scheduling.k8s.io", "v1", "priorityclasses", "PriorityClass"),
		of(flow, "v1", "flowschemas", "FlowSchema"), of(flow, "v1", "prioritylevelconfigurations", "PriorityLevelConfiguration"),
		of("apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition"),
	}
	// chartsInSystem are those in Lethe's own namespace.
	chartsInSystem = []kind{
		of("apps", "v1", "deployments", "Deployment"), of("", "v1", "services", "Service"), of("", "v1", "serviceaccounts", "ServiceAccount"),
		of("", "v1", "configmaps", "ConfigMap"), of("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy"),
		of("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget"), roles, bindings,
	}
	lethesNamespaced = []kind{letheKind("botdeployments", "BotDeployment"), letheKind("datastores", "DataStore")}
	// lethesClusterWide has tenants last: they go when what is in them has gone.
	lethesClusterWide = []kind{letheKind("dataretentionpolicies", "DataRetentionPolicy"), letheKind("tenants", "Tenant")}
)

func letheKind(resource, kindName string) kind {
	return of(v1alpha1.GroupVersion.Group, v1alpha1.GroupVersion.Version, resource, kindName)
}

// charts are the places of what the chart makes. dns is the namespace in which it lets the manager look at DNS.
func charts(dns string) []thing {
	var all []thing
	for _, k := range chartsClusterWide {
		all = append(all, thing{k, ""})
	}
	for _, k := range chartsInSystem {
		all = append(all, thing{k, systemNamespace})
	}
	for _, namespace := range []string{keysNamespace, dns} {
		if namespace != systemNamespace {
			all = append(all, thing{roles, namespace}, thing{bindings, namespace})
		}
	}
	return all
}

// ours are the kinds in which Lethe, or its pods, can say something: a search that cannot read one of them has failed.
func ours() []kind {
	return slices.Concat(chartsInSystem, lethesKinds(), []kind{
		of("", "v1", "secrets", "Secret"), of("", "v1", "pods", "Pod"), of("", "v1", "events", "Event"), of("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim"),
		of("apps", "v1", "statefulsets", "StatefulSet"), of("batch", "v1", "jobs", "Job"), of("batch", "v1", "cronjobs", "CronJob"),
	})
}

// lethesKinds are all of Lethe's, tenants last.
func lethesKinds() []kind { return slices.Concat(lethesNamespaced, lethesClusterWide) }

// DNSNamespace reads a file of values for what moves the chart's objects to other namespaces. The file may be "".
func DNSNamespace(values string) (string, error) {
	if values == "" {
		return metav1.NamespaceSystem, nil
	}
	text, err := os.ReadFile(values)
	if err != nil {
		return "", fmt.Errorf("VALUES: %w", err)
	}
	var v struct {
		KeysNamespace string `json:"keysNamespace"`
		DNS           struct {
			Namespace string `json:"namespace"`
		} `json:"dns"`
	}
	if err := yaml.Unmarshal(text, &v); err != nil {
		return "", fmt.Errorf("VALUES=%s: %w", values, err)
	}
	if v.KeysNamespace != "" && v.KeysNamespace != keysNamespace {
		return "", fmt.Errorf("VALUES=%s sets keysNamespace to %s, and the demo's keys are in %s, where its end looks for them: leave keysNamespace out", values, v.KeysNamespace, keysNamespace)
	}
	if slices.Contains(slices.Concat(Demo.Namespaces(), EndToEnd.Namespaces()), v.DNS.Namespace) {
		return "", fmt.Errorf("VALUES=%s sets dns.namespace to %s, which the demo makes itself: name the one where the cluster's DNS runs", values, v.DNS.Namespace)
	}
	if v.DNS.Namespace == "" {
		return metav1.NamespaceSystem, nil
	}
	return v.DNS.Namespace, nil
}

// called is how an object is named in messages.
func called(k kind, o *metav1.PartialObjectMetadata) string {
	return strings.TrimPrefix(o.Namespace+"/", "/") + k.Resource + "/" + o.Name
}
