// Package guest plays on a cluster that is somebody's: it looks before it touches anything, says what it will make
// and asks, marks what it makes, and takes away what carries its mark, and nothing else.
package guest

import (
	"slices"
	"strings"
)

const (
	// Namespace holds what is our own beside Lethe: a PostgreSQL, the stand-in for Telegram. It is made first and
	// goes last: while it is there, what has our names and was made after it is ours.
	Namespace = "lethe-demo"
	// MarkLabel is on the namespaces that are made here: its value is the play's name.
	MarkLabel = "demo.lethe.dev/play"

	systemNamespace, keysNamespace = "lethe-system", "lethe-keys"
	release                        = "lethe"
)

// Play is what is done on the cluster.
type Play struct {
	// Name is what the mark says.
	Name string
	// Words for the questions: what is about to happen, what undoes it, and what is made of Lethe's kinds.
	Begins, Undo, Work string
	// Everything: it needs to be allowed everything, since it acts as others.
	Everything bool

	// tenants with their namespaces, which Lethe makes and takes away.
	tenants map[string][]string
	// objects of Lethe's other kinds, by the kind's plural: "namespace/name", or "namespace/" for all of a tenant's
	// namespace.
	objects map[string][]string
}

// The plays. The demo's objects are those of examples/quickstart; those of the tests are test/e2e's.
var (
	Demo = &Play{
		Name: "demo", Begins: "The demo is about to be played", Undo: "make demo-down CLUSTER=current removes", Work: "three Tenants and one DataRetentionPolicy",
		tenants: map[string][]string{"platform": {"platform-data"}, "acme": {"acme-bots"}, "globex": {"globex-bots"}},
		objects: map[string][]string{
			"botdeployments": {"acme-bots/support"}, "datastores": {"platform-data/chat"}, "dataretentionpolicies": {"/privacy-policy"},
		},
	}
	EndToEnd = &Play{
		Name: "end-to-end", Begins: "The end-to-end tests are about to be run", Undo: "removes at the end, as make demo-down CLUSTER=current does",
		Work: "Tenants called e2e-… and one DataRetentionPolicy, forgets", Everything: true,
		tenants: map[string][]string{
			"e2e-acme": {"e2e-acme"}, "e2e-globex": {"e2e-globex"}, "e2e-image": {"e2e-image"}, "e2e-moving": {"e2e-moving", "e2e-moving-two"},
			"e2e-gone": {"e2e-gone", "e2e-gone-two"}, "e2e-platform": {"e2e-platform"}, "e2e-data-acme": {"e2e-data-acme"}, "e2e-data-globex": {"e2e-data-globex"},
		},
		objects: map[string][]string{
			"botdeployments": {"e2e-acme/", "e2e-globex/", "e2e-image/", "e2e-gone/", "e2e-gone-two/"}, "datastores": {"e2e-platform/forgets"},
			"dataretentionpolicies": {"/forgets"},
		},
	}
)

func plays() []*Play { return []*Play{Demo, EndToEnd} }

// marked is the play that a mark names, or nil.
func marked(labels map[string]string) *Play {
	for _, p := range plays() {
		if labels[MarkLabel] == p.Name {
			return p
		}
	}
	return nil
}

// Namespaces are all that the play makes or has made.
func (p *Play) Namespaces() []string {
	all := []string{Namespace, systemNamespace, keysNamespace}
	for _, namespaces := range p.tenants {
		all = append(all, namespaces...)
	}
	slices.Sort(all)
	return all
}

// own says whether an object of one of Lethe's kinds is one that the play applies. resource is the kind's plural.
func (p *Play) own(resource, namespace, name string) bool {
	if resource == "tenants" {
		_, ok := p.tenants[name]
		return ok
	}
	return slices.Contains(p.objects[resource], namespace+"/"+name) || namespace != "" && slices.Contains(p.objects[resource], namespace+"/")
}

// helmMade says whether our release of the chart made an object: helm writes this on everything that it makes.
func helmMade(annotations map[string]string) bool {
	return annotations["meta.helm.sh/release-name"] == release && annotations["meta.helm.sh/release-namespace"] == systemNamespace
}

// lethes says whether a cluster-wide object is one of an installation of Lethe, whoever made it.
func lethes(resource, name string, labels map[string]string) bool {
	return resource == "customresourcedefinitions" && strings.HasSuffix(name, ".lethe.dev") || labels["app.kubernetes.io/name"] == "lethe"
}
