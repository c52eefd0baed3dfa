// Package guest plays the demo on a cluster that is somebody's: it looks before it touches anything, says what it will make and asks, marks what it
// makes, and takes away what carries its mark, and nothing else.
package guest

import (
	"slices"
	"strings"
)

const (
	// Namespace holds what is the demo's own beside Lethe: a PostgreSQL, the stand-in for Telegram. It is made first and goes last:
	// while it is there, what has the demo's names is the demo's.
	Namespace = "lethe-demo"
	// MarkLabel and MarkValue are on the namespaces that the demo makes itself.
	MarkLabel, MarkValue = "app.kubernetes.io/part-of", "lethe-demo"

	systemNamespace, keysNamespace = "lethe-system", "lethe-keys"
	release                        = "lethe"
)

// tenants are those of examples/quickstart, with their namespaces, which Lethe makes and takes away.
var tenants = map[string]string{"platform": "platform-data", "acme": "acme-bots", "globex": "globex-bots"}

// objects of Lethe's kinds that the demo applies, beside its tenants: "namespace/name" by the kind's plural.
var objects = map[string][]string{
	"botdeployments": {"acme-bots/support"}, "datastores": {"platform-data/chat"}, "dataretentionpolicies": {"/privacy-policy"},
}

// Namespaces are all that the demo makes or has made.
func Namespaces() []string {
	all := []string{Namespace, systemNamespace, keysNamespace}
	for _, ns := range tenants {
		all = append(all, ns)
	}
	slices.Sort(all)
	return all
}

// own says whether an object of one of Lethe's kinds is one that the demo applies. resource is the kind's plural.
func own(resource, namespace, name string) bool {
	if resource == "tenants" {
		_, ok := tenants[name]
		return ok
	}
	return slices.Contains(objects[resource], namespace+"/"+name)
}

// helmMade says whether the demo's release of the chart made an object: helm writes this on everything that it makes.
func helmMade(annotations map[string]string) bool {
	return annotations["meta.helm.sh/release-name"] == release && annotations["meta.helm.sh/release-namespace"] == systemNamespace
}

// lethes says whether a cluster-wide object is one of an installation of Lethe, whoever made it.
func lethes(resource, name string, labels map[string]string) bool {
	return resource == "customresourcedefinitions" && strings.HasSuffix(name, ".lethe.dev") || labels["app.kubernetes.io/name"] == "lethe"
}
