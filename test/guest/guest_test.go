package guest

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lethe-dev/lethe/test/stage"
)

// good is a cluster that the demo can be played on.
func good() Facts {
	return Facts{
		Context: "kind-shop", Server: "https://127.0.0.1:6443", User: "kind-shop", Version: "v1.36.3", Minor: 36,
		Nodes: []string{"shop-control-plane"}, Architectures: []string{"amd64"}, DefaultClass: true, DNSPods: 2, DNS: "kube-system", WasDNS: "kube-system",
	}
}

func TestClustersThatAreRefused(t *testing.T) {
	for name, tc := range map[string]struct {
		edit   func(*Facts)
		wishes Wishes
		want   []string // one of each problem
	}{
		"a good one":                     {func(*Facts) {}, Wishes{}, nil},
		"too old":                        {func(f *Facts) { f.Version, f.Minor = "v1.33.1", 33 }, Wishes{}, []string{"Kubernetes is v1.33.1, and Lethe needs 1.34"}},
		"no node":                        {func(f *Facts) { f.Nodes, f.Architectures = nil, nil }, Wishes{}, []string{"no node is ready"}},
		"two architectures":              {func(f *Facts) { f.Architectures = []string{"amd64", "arm64"} }, Wishes{}, []string{"(amd64, arm64)"}},
		"no default class":               {func(f *Facts) { f.DefaultClass = false }, Wishes{}, []string{"STORAGE_CLASS="}},
		"a class is named":               {func(f *Facts) { f.DefaultClass = false }, Wishes{StorageClass: "fast"}, nil},
		"DNS somewhere else":             {func(f *Facts) { f.DNSPods = 0 }, Wishes{}, []string{"VALUES="}},
		"DNS somewhere else, and values": {func(f *Facts) { f.DNSPods = 0 }, Wishes{Values: "/values.yaml"}, nil},
		"Lethe is there": {
			func(f *Facts) {
				f.Foreign = []string{"customresourcedefinitions/tenants.lethe.dev", "namespaces/acme-bots"}
			}, Wishes{},
			[]string{"installed here already, or something has the names that would be used: customresourcedefinitions/tenants.lethe.dev, namespaces/acme-bots"},
		},
		"the demo's Lethe is used": {
			func(f *Facts) { f.Was, f.Foreign = Demo, []string{"tenants/initech"} }, Wishes{}, []string{"has work that is not the demo's: tenants/initech"},
		},
		"a run is at work": {func(f *Facts) { f.Was, f.Busy = Demo, true }, Wishes{}, []string{"is at work on this cluster now"}},
		"an earlier demo":  {func(f *Facts) { f.Was = Demo }, Wishes{}, nil},
		// What was not looked at for want of rights is not called missing.
		"no rights": {func(f *Facts) { *f = Facts{Minor: 36, Missing: []string{"create namespaces"}} }, Wishes{}, []string{"lack: create namespaces"}},
		"two at once": {
			func(f *Facts) { f.DefaultClass, f.DNSPods = false, 0 }, Wishes{}, []string{"STORAGE_CLASS=", "VALUES="},
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := good()
			tc.edit(&f)
			got := f.Problems(tc.wishes)
			if len(got) != len(tc.want) {
				t.Fatalf("%d problems, want %d: %q", len(got), len(tc.want), got)
			}
			for i, w := range tc.want {
				if !strings.Contains(got[i], w) {
					t.Errorf("%q, want %q", got[i], w)
				}
			}
			if err := Refused(got); (err != nil) != (len(tc.want) > 0) || err != nil && !strings.Contains(err.Error(), "nothing was touched") {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestALongListIsCut(t *testing.T) {
	f := good()
	for range 100 {
		f.Foreign = append(f.Foreign, "clusterroles/lethe-x")
	}
	if got := f.Problems(Wishes{}); len(got) != 1 || !strings.Contains(got[0], "and 88 more") {
		t.Errorf("%q", got)
	}
}

func TestHowImagesComeToTheNodes(t *testing.T) {
	for name, tc := range map[string]struct {
		image, load, context string
		minikube             bool
		want, refused        string
	}{
		"kind":                        {context: "kind-shop", want: "kind load image-archive --name shop ARCHIVE"},
		"k3d":                         {context: "k3d-shop", want: "k3d image import --cluster shop ARCHIVE"},
		"minikube":                    {context: "shop", minikube: true, want: "minikube --profile shop image load ARCHIVE"},
		"a context of any other name": {context: "shop", refused: "not known: either IMAGE="},
		"kind under another name":     {context: "shop", load: "kind", want: "kind load image-archive --name shop ARCHIVE"},
		"a command":                   {context: "kind-shop", load: "  ./load.sh --all ", want: "brought to the nodes by: ./load.sh --all ARCHIVE"},
		"a blank command":             {context: "shop", load: " ", refused: "LOAD is blank"},
		"a registry":                  {context: "kind-shop", image: "registry.example.com:5000/a/b", want: "pushed to registry.example.com:5000/a/b"},
		"a registry with a tag":       {context: "shop", image: "registry.example.com/a/b:1", refused: "without a tag"},
		"no registry":                 {context: "shop", image: "lethe", refused: "with its registry"},
		"both":                        {context: "shop", image: "registry.example.com/a", load: "kind", refused: "say one of them"},
	} {
		t.Run(name, func(t *testing.T) {
			d, err := Deliver(tc.image, tc.load, tc.context, tc.minikube)
			if tc.refused != "" {
				if err == nil || !strings.Contains(err.Error(), tc.refused) {
					t.Errorf("%v, want %q", err, tc.refused)
				}
				return
			}
			if err != nil || !strings.Contains(d.String(), tc.want) {
				t.Errorf("%s %v, want %q", d, err, tc.want)
			}
			if d.Push != (tc.image != "") || !d.Push && !strings.Contains(d.Repository, ".invalid/") {
				t.Errorf("%+v: an image that is only loaded must have a name that nobody can pull", d)
			}
		})
	}
}

func TestTheQuestionNamesAllThatIsTouched(t *testing.T) {
	for _, p := range plays() {
		t.Run(p.Name, func(t *testing.T) { questionNamesAll(t, p) })
	}
	if q := good().Question(EndToEnd, Wishes{}); !strings.Contains(q, "The end-to-end tests are about to be run") || strings.Contains(q, "acme-bots") {
		t.Error(q)
	}
}

func questionNamesAll(t *testing.T, p *Play) {
	f := good()
	w := Wishes{Delivery: Delivery{Repository: nowhere, Load: []string{"kind", "load"}}}
	q := f.Question(p, w)
	for _, want := range append(p.Namespaces(),
		"kind-shop", "https://127.0.0.1:6443", "v1.36.3", "shop-control-plane", "CustomResourceDefinitions", "ValidatingAdmissionPolicies", "kube-system",
		"lethe-manager-dns", "the default class", "kind load ARCHIVE", "this machine's own PostgreSQL", "make demo-down CLUSTER=current", "view, edit and admin") {
		if !strings.Contains(q, want) {
			t.Errorf("%q is not in the question:\n%s", want, q)
		}
	}
	if strings.Contains(q, "An earlier") {
		t.Errorf("an earlier demo that is not there:\n%s", q)
	}
	f.Was = p
	w.Postgres, w.StorageClass = "registry.example.com/postgres:17", "fast"
	q = f.Question(p, w)
	for _, want := range []string{"An earlier demo, or test, is here", "registry.example.com/postgres:17", "class fast"} {
		if !strings.Contains(q, want) {
			t.Errorf("%q is not in the question:\n%s", want, q)
		}
	}
	for _, want := range append(p.Namespaces(), "kind-shop", "https://127.0.0.1:6443") {
		if !strings.Contains(f.DownQuestion(), want) {
			t.Errorf("%q is not in the question before the end", want)
		}
	}
}

func TestNothingBeginsWithoutAYes(t *testing.T) {
	for name, tc := range map[string]struct {
		answer   string
		terminal bool
		yes      string
		want     string
	}{
		"the context's name":           {"kind-shop\n", true, "", ""},
		"YES without a terminal":       {"", false, "kind-shop", ""},
		"no terminal and no YES":       {"kind-shop\n", false, "", "YES=kind-shop"},
		"YES=1":                        {"kind-shop\n", true, "1", "YES=1 is not the context's name"},
		"YES=no":                       {"", false, "no", "YES=no is not the context's name"},
		"YES of another context":       {"", false, "kind-prod", "is not the context's name"},
		"an empty line":                {"\n", true, "", "another"},
		"yes":                          {"yes\n", true, "", "another"},
		"the end of the input":         {"", true, "", "another"},
		"another context's name":       {"kind-prod\n", true, "", "another"},
		"the name without a line feed": {"kind-shop", true, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			err := Agree(strings.NewReader(tc.answer), &out, tc.terminal, tc.yes, "It would touch this.\n", "kind-shop")
			if (err == nil) != (tc.want == "") || err != nil && (!strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), "nothing was touched")) {
				t.Errorf("%v, want %q", err, tc.want)
			}
			if !strings.HasPrefix(out.String(), "It would touch this.\n") {
				t.Errorf("not said: %q", out.String())
			}
		})
	}
	if err := Agree(strings.NewReader("\n"), &bytes.Buffer{}, true, "", "", ""); err == nil {
		t.Error("a context without a name is agreed to by an empty line")
	}
}

func TestWhatIsAPlaysOwn(t *testing.T) {
	for _, tc := range []struct {
		play                      *Play
		resource, namespace, name string
		want                      bool
	}{
		{Demo, "tenants", "", "acme", true}, {Demo, "tenants", "", "initech", false}, {Demo, "tenants", "", "e2e-acme", false},
		{Demo, "botdeployments", "acme-bots", "support", true}, {Demo, "botdeployments", "acme-bots", "sales", false}, {Demo, "botdeployments", "globex-bots", "support", false},
		{Demo, "datastores", "platform-data", "chat", true}, {Demo, "dataretentionpolicies", "", "privacy-policy", true}, {Demo, "dataretentionpolicies", "", "other", false},
		{Demo, "anything", "", "acme", false}, {Demo, "anything", "", "", false},
		{EndToEnd, "tenants", "", "e2e-acme", true}, {EndToEnd, "tenants", "", "acme", false}, {EndToEnd, "tenants", "", "e2e-mine", false},
		{EndToEnd, "botdeployments", "e2e-acme", "support", true}, {EndToEnd, "botdeployments", "e2e-acme-prod", "support", false}, {EndToEnd, "botdeployments", "shop", "support", false},
		{EndToEnd, "datastores", "e2e-platform", "forgets", true}, {EndToEnd, "datastores", "e2e-platform", "chat", false},
		{EndToEnd, "dataretentionpolicies", "", "forgets", true}, {EndToEnd, "dataretentionpolicies", "", "privacy-policy", false},
	} {
		if got := tc.play.own(tc.resource, tc.namespace, tc.name); got != tc.want {
			t.Errorf("%s: %+v: %v", tc.play.Name, tc, got)
		}
	}
	ours := map[string]string{"meta.helm.sh/release-name": "lethe", "meta.helm.sh/release-namespace": "lethe-system"}
	if !helmMade(ours) || helmMade(nil) || helmMade(map[string]string{"meta.helm.sh/release-name": "lethe", "meta.helm.sh/release-namespace": "shop"}) {
		t.Error("whose release an object is of")
	}
	if !lethes("customresourcedefinitions", "tenants.lethe.dev", nil) || !lethes("clusterroles", "x", map[string]string{"app.kubernetes.io/name": "lethe"}) ||
		lethes("clusterroles", "tenants.lethe.dev", nil) || lethes("customresourcedefinitions", "widgets.example.com", nil) {
		t.Error("what is an installation of Lethe")
	}
	for o, want := range map[*corev1.ObjectReference]bool{
		{APIVersion: "lethe.dev/v1alpha1", Kind: "Tenant", Name: "acme"}: true, {APIVersion: "v1", Kind: "Namespace", Name: "acme-bots"}: true,
		{APIVersion: "v1", Kind: "Namespace", Name: "shop"}: false, {APIVersion: "v1", Kind: "Node", Name: "n"}: false,
	} {
		if Demo.oursToSay(*o) != want {
			t.Errorf("%+v", o)
		}
	}
}

// TestWhatOnlySaysThatItIsOurs: annotations and labels of ours on what is older than the mark, or where the chart has
// nothing, make nothing ours.
func TestWhatOnlySaysThatItIsOurs(t *testing.T) {
	mark := metav1.NewTime(time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC))
	ours := map[string]string{"meta.helm.sh/release-name": "lethe", "meta.helm.sh/release-namespace": "lethe-system"}
	for name, tc := range map[string]struct {
		namespace   string
		annotations map[string]string
		age         time.Duration // since the mark
		want        bool
	}{
		"cluster-wide, since the mark":             {"", ours, time.Minute, true},
		"in the same second as the mark":           {"", ours, 0, true},
		"the manager's role in kube-system":        {"kube-system", ours, time.Minute, true},
		"in lethe-system":                          {"lethe-system", ours, time.Minute, true},
		"cluster-wide, older than the mark":        {"", ours, -time.Second, false},
		"in kube-system, older than the mark":      {"kube-system", ours, -time.Hour, false},
		"without helm's annotations":               {"lethe-system", nil, time.Minute, false},
		"of another release in the same namespace": {"lethe-system", map[string]string{"meta.helm.sh/release-name": "other", "meta.helm.sh/release-namespace": "lethe-system"}, time.Minute, false},
	} {
		o := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{
			Namespace: tc.namespace, Name: "lethe-manager", Annotations: tc.annotations, CreationTimestamp: metav1.NewTime(mark.Add(tc.age)),
			Labels: map[string]string{"app.kubernetes.io/name": "lethe", "app.kubernetes.io/part-of": "lethe-demo"},
		}}
		if got := madeSince(o, mark); got != tc.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	for name, labels := range map[string]map[string]string{
		"a label of many": {"app.kubernetes.io/part-of": "lethe-demo"}, "another play": {MarkLabel: "mine"}, "no value": {MarkLabel: ""}, "none": nil,
	} {
		if marked(labels) != nil {
			t.Errorf("%s is taken for the mark", name)
		}
	}
	for _, p := range plays() {
		if marked(map[string]string{MarkLabel: p.Name}) != p {
			t.Errorf("the mark of %s is not known", p.Name)
		}
	}
}

// TestTheExamplesAreKnown: what examples/quickstart holds is what the demo calls its own, or its end would be refused.
func TestTheExamplesAreKnown(t *testing.T) {
	root, err := stage.RepositoryRoot()
	if err != nil {
		t.Fatal(err)
	}
	plurals := map[string]string{"Tenant": "tenants", "BotDeployment": "botdeployments", "DataStore": "datastores", "DataRetentionPolicy": "dataretentionpolicies"}
	head := regexp.MustCompile(`(?m)^kind: (\w+)\nmetadata:\n  name: (\S+)\n(?:  namespace: (\S+)\n)?`)
	seen := 0
	for _, file := range []string{"tenants.yaml", "bot.yaml", "store.yaml", "policy.yaml"} {
		text, err := os.ReadFile(filepath.Join(root, "examples", "quickstart", file))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range head.FindAllStringSubmatch(string(text), -1) {
			seen++
			if !Demo.own(plurals[m[1]], m[3], m[2]) {
				t.Errorf("%s: %s %s/%s is not known as the demo's", file, m[1], m[3], m[2])
			}
		}
	}
	if seen != 6 {
		t.Errorf("%d objects in the examples, want 6", seen)
	}
}

func TestRightsReadLikeKubectl(t *testing.T) {
	for r, want := range map[right]string{
		{"create", "", "pods", "exec", "lethe-system"}: "create pods/exec in lethe-system", {"delete", "lethe.dev", "tenants", "", ""}: "delete tenants.lethe.dev",
	} {
		if r.String() != want {
			t.Errorf("%q, want %q", r, want)
		}
	}
	all := rights(metav1.NamespaceSystem)
	slices.SortFunc(all, func(a, b right) int { return strings.Compare(a.String(), b.String()) })
	if n := len(slices.Compact(slices.Clone(all))); n != len(all) {
		t.Errorf("%d rights are asked for twice", len(all)-n)
	}
}

func TestWhatValuesMoveIsKnown(t *testing.T) {
	for text, want := range map[string]string{
		"": "kube-system", "image: {tag: x}": "kube-system", "dns: {namespace: openshift-dns}": "openshift-dns", "keysNamespace: lethe-keys": "kube-system",
		"keysNamespace: vault": "sets keysNamespace to vault", "dns: {namespace: lethe-demo}": "which the demo makes itself", "dns: [": "VALUES=",
	} {
		path := filepath.Join(t.TempDir(), "values.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := DNSNamespace(path)
		if err != nil {
			got = err.Error()
		}
		if (err == nil) != (got == want) || !strings.Contains(got, want) {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	f := good()
	f.DNS, f.WasDNS, f.Was = "openshift-dns", "other-dns", Demo
	if q := f.Question(Demo, Wishes{}); !strings.Contains(q, "openshift-dns  a Role") || strings.Contains(q, "kube-system") {
		t.Error(q)
	}
	if q := f.DownQuestion(); !strings.Contains(q, "other-dns") {
		t.Error(q)
	}
}

const kubeconfig = `apiVersion: v1
kind: Config
current-context: shop
contexts:
- {name: shop, context: {cluster: shop, user: clerk}}
- {name: prod, context: {cluster: prod, user: boss}}
- {name: half, context: {cluster: gone, user: boss}}
clusters:
- name: shop
  cluster:
    server: https://shop.example.com
    extensions:
    - name: cluster_info
      extension: {provider: minikube.sigs.k8s.io, version: v1.37.0}
- name: prod
  cluster: {server: https://prod.example.com}
users:
- {name: clerk, user: {token: clerks-token}}
- {name: boss, user: {token: bosss-token}}
`

func TestAContextIsPinned(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(path, []byte(kubeconfig), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("KUBECONFIG", path)
	for kubeContext, want := range map[string]Facts{
		"":     {Context: "shop", Server: "https://shop.example.com", User: "clerk", Minikube: true},
		"prod": {Context: "prod", Server: "https://prod.example.com", User: "boss"},
	} {
		cfg, err := Pinned(kubeContext)
		if err != nil {
			t.Fatal(err)
		}
		if len(cfg.Contexts) != 1 || len(cfg.Clusters) != 1 || len(cfg.AuthInfos) != 1 {
			t.Errorf("%q: other contexts are in it: %+v", kubeContext, cfg.Contexts)
		}
		var f Facts
		f.Named(cfg)
		if f.Context != want.Context || f.Server != want.Server || f.User != want.User || f.Minikube != want.Minikube {
			t.Errorf("%+v, want %+v", f, want)
		}
	}
	if _, err := Pinned("absent"); err == nil || !strings.Contains(err.Error(), "absent") {
		t.Errorf("a context that is not there: %v", err)
	}
	if _, err := Pinned("half"); err == nil || !strings.Contains(err.Error(), "gone") {
		t.Errorf("a context whose cluster is not there: %v", err)
	}
	t.Setenv("KUBECONFIG", path+".none")
	if _, err := Pinned(""); err == nil || !strings.Contains(err.Error(), "no current context") {
		t.Errorf("no kubeconfig: %v", err)
	}
}
