package guest

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/yaml"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/test/stage"
)

var noon = metav1.NewTime(time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC))

// on is a Guest on a cluster of some objects.
func on(t *testing.T, funcs interceptor.Funcs, objects ...client.Object) *Guest {
	t.Helper()
	scheme, err := stage.NewScheme()
	if err != nil {
		t.Fatal(err)
	}
	g := (&Guest{
		Client: fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).WithInterceptorFuncs(funcs).Build(),
		Play:   Demo, Note: t.Logf,
	}).ready()
	g.beat = 10 * time.Millisecond
	t.Cleanup(func() { g.end() })
	return g
}

func namespace(name string, uid types.UID, labels map[string]string) *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, UID: uid, Labels: labels, CreationTimestamp: noon}}
}

func markOf(name string, uid types.UID) *corev1.Namespace {
	return namespace(name, uid, map[string]string{MarkLabel: Demo.Name})
}

func volume(name, in string, claim types.UID, made metav1.Time, policy corev1.PersistentVolumeReclaimPolicy, phase corev1.PersistentVolumePhase) *corev1.PersistentVolume {
	return &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: name, CreationTimestamp: made},
		Spec: corev1.PersistentVolumeSpec{
			PersistentVolumeReclaimPolicy: policy, ClaimRef: &corev1.ObjectReference{Namespace: in, Name: "lethe-kek", UID: claim},
		},
		Status: corev1.PersistentVolumeStatus{Phase: phase, Message: "the disk is in use"},
	}
}

// TestVolumesOfEarlierClaims: a volume that an earlier Lethe left may be the last copy of its key. It is said, never
// taken for the demo's.
func TestVolumesOfEarlierClaims(t *testing.T) {
	before, after := metav1.NewTime(noon.Add(-time.Hour)), metav1.NewTime(noon.Add(time.Minute))
	const keep, drop = corev1.PersistentVolumeReclaimRetain, corev1.PersistentVolumeReclaimDelete
	for name, tc := range map[string]struct {
		volume *corev1.PersistentVolume
		want   string
	}{
		"an earlier Lethe's, kept":       {volume("v", systemNamespace, "earlier", before, keep, corev1.VolumeReleased), ""},
		"an earlier Lethe's, failed":     {volume("v", systemNamespace, "earlier", before, drop, corev1.VolumeFailed), ""},
		"somebody's, made meanwhile":     {volume("v", "shop", "theirs", after, keep, corev1.VolumeBound), ""},
		"it waits for somebody's claim":  {volume("v", systemNamespace, "", after, keep, corev1.VolumeAvailable), ""},
		"the demo's, kept":               {volume("v", systemNamespace, "the-claim", after, keep, corev1.VolumeReleased), "with the demo's key-encryption key on it"},
		"an older disk with its key":     {volume("v", systemNamespace, "the-claim", before, keep, corev1.VolumeReleased), "with the demo's key-encryption key on it"},
		"a bot's, kept, its claim gone":  {volume("v", "acme-bots", "unknown", after, keep, corev1.VolumeReleased), "with data of the demo's on it"},
		"the demo's cannot be deleted":   {volume("v", systemNamespace, "the-claim", after, drop, corev1.VolumeFailed), "cannot be deleted by its class, with the demo's key-encryption key on it: the disk is in use"},
		"a claim of the same name later": {volume("v", systemNamespace, "earlier", before, drop, corev1.VolumeReleased), ""},
	} {
		err := on(t, interceptor.Funcs{}, tc.volume).awaitVolumes(t.Context(), Demo, noon, []string{"the-claim"})
		if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
	}
	// Before anything begins: the one that is kept is named in the question, the one that a new claim would be given
	// refuses.
	g := on(t, interceptor.Funcs{}, volume("kept", systemNamespace, "earlier", before, keep, corev1.VolumeReleased), volume("waits", systemNamespace, "", before, keep, corev1.VolumeAvailable))
	f := good()
	if err := g.lookForOthers(t.Context(), &f); err != nil || !slices.Equal(f.Foreign, []string{"persistentvolumes/waits"}) {
		t.Errorf("%q %v", f.Foreign, err)
	}
	if q := f.Question(Demo, Wishes{}); !strings.Contains(q, "stay as they are: kept.") {
		t.Error(q)
	}
}

// TestOnlyWhatWasAgreedIsRemoved: what was marked since, or a mark of another run, is not what somebody said yes to.
func TestOnlyWhatWasAgreedIsRemoved(t *testing.T) {
	for name, tc := range map[string]struct {
		agreed types.UID
		want   error
	}{"none was there": {"", ErrChanged}, "it was another's": {"earlier", ErrChanged}, "this one": {"the-mark", nil}} {
		g := on(t, interceptor.Funcs{}, markOf(Namespace, "the-mark"), markOf(systemNamespace, "the-system"))
		if err := g.Remove(t.Context(), tc.agreed); !errors.Is(err, tc.want) {
			t.Fatalf("%s: %v", name, err)
		}
		for _, ns := range []string{Namespace, systemNamespace} {
			err := g.Client.Get(t.Context(), client.ObjectKey{Name: ns}, &corev1.Namespace{})
			if (err == nil) != (tc.want != nil) || client.IgnoreNotFound(err) != nil {
				t.Errorf("%s: namespace %s: %v", name, ns, err)
			}
		}
	}
}

// TestARunThatIsAtWorkIsKnown: one that renews its Lease keeps others away, one that was killed does not.
func TestARunThatIsAtWorkIsKnown(t *testing.T) {
	one := on(t, interceptor.Funcs{}, markOf(Namespace, "the-mark"))
	if err := one.hold(t.Context(), Namespace); err != nil {
		t.Fatal(err)
	}
	other := (&Guest{Client: one.Client, Play: Demo, Note: t.Logf}).ready()
	other.beat = 50 * one.beat // patient, however slow this machine is
	if err := other.Remove(t.Context(), "the-mark"); !errors.Is(err, ErrBusy) {
		t.Fatalf("beside a run that is at work: %v", err)
	}
	f := good()
	if err := other.lookForOthers(t.Context(), &f); err != nil || !f.Busy || len(f.Problems(Wishes{})) != 1 {
		t.Errorf("%v %v %q", err, f.Busy, f.Problems(Wishes{}))
	}
	one.end() // as if it were killed: the Lease stays
	other.beat = one.beat
	if err := other.Remove(t.Context(), "the-mark"); err != nil {
		t.Errorf("after a run that was killed: %v", err)
	}
	other.Release(t.Context())
}

// TestAMarkWhoseAnswerWasLost: the API server made the namespace and the answer did not come; or the second namespace
// is somebody's.
func TestAMarkWhoseAnswerWasLost(t *testing.T) {
	lost := interceptor.Funcs{Create: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.CreateOption) error {
		if ns, ok := o.(*corev1.Namespace); ok {
			ns.UID = types.UID("uid-" + ns.Name)
			if err := c.Create(ctx, o, opts...); err != nil {
				return err
			}
			return errors.New("connection reset")
		}
		return c.Create(ctx, o, opts...)
	}}
	g := on(t, lost)
	if err := g.Mark(t.Context()); err != nil || g.Begun != "uid-"+Namespace {
		t.Errorf("%q %v", g.Begun, err)
	}
	taken := interceptor.Funcs{Create: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.CreateOption) error {
		if o.GetName() == systemNamespace {
			return apierrors.NewAlreadyExists(schema.GroupResource{Resource: "namespaces"}, systemNamespace)
		}
		return c.Create(ctx, o, opts...)
	}}
	g = on(t, taken)
	if err := g.Mark(t.Context()); err == nil || g.Begun != "" {
		t.Errorf("%q %v", g.Begun, err)
	}
	if err := g.Client.Get(t.Context(), client.ObjectKey{Name: Namespace}, &corev1.Namespace{}); !apierrors.IsNotFound(err) {
		t.Errorf("the first namespace stays: %v", err)
	}
	// What came between the look and the mark refuses.
	g = on(t, interceptor.Funcs{}, namespace(systemNamespace, "somebodys", nil))
	if err := g.Mark(t.Context()); err == nil || !strings.Contains(err.Error(), "namespaces/"+systemNamespace) {
		t.Errorf("%v", err)
	}
}

// TestNothingAppliedMeanwhileIsRemoved: a Tenant that somebody applies while the removal is at work stays, with its
// finalizers.
func TestNothingAppliedMeanwhileIsRemoved(t *testing.T) {
	theirs := &v1alpha1.Tenant{ObjectMeta: metav1.ObjectMeta{Name: "initech", Finalizers: []string{"lethe.dev/keys"}}}
	demos := &v1alpha1.Tenant{ObjectMeta: metav1.ObjectMeta{Name: "acme", Finalizers: []string{"lethe.dev/keys"}}}
	g := on(t, interceptor.Funcs{}, theirs, demos)
	for name, remove := range map[string]func() error{
		"without Lethe":          func() error { return g.force(t.Context(), Demo, noon, g.DNS) },
		"with the walls":         func() error { return g.removeWork(t.Context(), Demo, noon, g.DNS) },
		"before the definitions": func() error { return g.removeInstallation(t.Context(), Demo, noon, g.DNS) },
	} {
		if err := remove(); err == nil || !strings.Contains(err.Error(), "tenants/initech") {
			t.Errorf("%s: %v", name, err)
		}
		var there v1alpha1.Tenant
		if err := g.Client.Get(t.Context(), client.ObjectKeyFromObject(theirs), &there); err != nil || there.DeletionTimestamp != nil || len(there.Finalizers) != 1 {
			t.Errorf("%s: %v %v", name, err, there.ObjectMeta)
		}
	}
}

// TestALostMarkIsKnown: Lethe's namespace has the mark too, and a release without any mark is never called nothing.
func TestALostMarkIsKnown(t *testing.T) {
	released := map[string]string{"meta.helm.sh/release-name": "lethe", "meta.helm.sh/release-namespace": "lethe-system"}
	role := func() *rbacv1.Role {
		return &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{
			Namespace: metav1.NamespaceSystem, Name: "lethe-manager-dns", Annotations: released, CreationTimestamp: noon, Labels: map[string]string{"app.kubernetes.io/managed-by": "Helm"},
		}}
	}
	g := on(t, interceptor.Funcs{}, namespace(Namespace, "unmarked", nil), markOf(systemNamespace, "the-system"), role())
	f := good()
	if err := g.lookForOthers(t.Context(), &f); err != nil || f.Mark != "the-system" || !slices.Equal(f.Foreign, []string{"namespaces/" + Namespace}) {
		t.Errorf("%v %q %q", err, f.Mark, f.Foreign)
	}
	if err := g.Remove(t.Context(), f.Mark); err != nil {
		t.Error(err)
	}
	for o, want := range map[client.Object]bool{namespace(Namespace, "", nil): true, namespace(systemNamespace, "", nil): false, role(): false} {
		if err := g.Client.Get(t.Context(), client.ObjectKeyFromObject(o), o); (err == nil) != want {
			t.Errorf("%s: %v", o.GetName(), err)
		}
	}
	// Helm would adopt a Role in kube-system that says that it is of the release: it refuses, and make demo-down does
	// not call it nothing.
	g, f = on(t, interceptor.Funcs{}, role()), good()
	want := []string{"kube-system/roles/lethe-manager-dns"}
	if err := g.lookForOthers(t.Context(), &f); err != nil || !slices.Equal(f.Foreign, want) || !slices.Equal(f.Released, want) {
		t.Errorf("%v %q %q", err, f.Foreign, f.Released)
	}
}

// TestOnlyTheChartsKindsAreListed: a kind of somebody's that cannot be listed stops nothing, and no Secret is read
// but in the play's own namespaces.
func TestOnlyTheChartsKindsAreListed(t *testing.T) {
	lists := map[string]bool{}
	funcs := interceptor.Funcs{List: func(ctx context.Context, c client.WithWatch, list client.ObjectList, opts ...client.ListOption) error {
		var o client.ListOptions
		o.ApplyOptions(opts)
		gvk, err := c.GroupVersionKindFor(list)
		if err != nil {
			return err
		}
		lists[fmt.Sprintf("%s in %q", gvk.GroupKind(), o.Namespace)] = true
		return c.List(ctx, list, opts...)
	}}
	mark := markOf(Namespace, "the-mark")
	mark.Annotations = map[string]string{dnsAnnotation: "openshift-dns"}
	g := on(t, funcs, mark)
	g.DNS = "openshift-dns"
	for _, do := range []func() error{
		func() error { return g.lookForOthers(t.Context(), &Facts{}) },
		func() error { return g.Remove(t.Context(), "the-mark") },
		func() error { return g.lookForOthers(t.Context(), &Facts{}) },
	} {
		if err := do(); err != nil {
			t.Fatal(err)
		}
	}
	allowed := map[string]bool{}
	for _, r := range rights(g.DNS) {
		if r.verb == "list" {
			allowed[fmt.Sprintf("%s %s in %q", r.group, r.resource, r.namespace)] = true
		}
	}
	if len(lists) < 20 {
		t.Errorf("only %d lists: %v", len(lists), lists)
	}
	for l := range lists {
		what, where, _ := strings.Cut(l, " in ")
		k := schema.ParseGroupKind(strings.TrimSuffix(strings.Replace(what, "List", "", 1), "."))
		if k.Kind == "Secret" {
			t.Errorf("%s: Secrets are listed to find out", l)
		}
		if !allowed[fmt.Sprintf("%s %s in %s", k.Group, plural(k.Kind), where)] {
			t.Errorf("%s: nobody is asked for the right", l)
		}
	}
}

func plural(kind string) string {
	p := strings.ToLower(kind) + "s"
	if stem, ok := strings.CutSuffix(p, "ys"); ok {
		return stem + "ies"
	}
	if strings.HasSuffix(p, "ss") {
		return p[:len(p)-1] + "es"
	}
	return p
}

// TestTheRightsAreThoseOfTheChart: what the chart makes, rendered by helm with all that can be moved, is what is
// asked for, looked at and removed.
func TestTheRightsAreThoseOfTheChart(t *testing.T) {
	root, err := stage.RepositoryRoot()
	if err != nil {
		t.Fatal(err)
	}
	helm, err := exec.CommandContext(t.Context(), filepath.Join(root, "hack", "tools", "build.sh"), "helm").Output()
	if err != nil {
		t.Fatalf("build helm: %v", err)
	}
	cmd := exec.CommandContext(t.Context(), strings.TrimSpace(string(helm)), "template", release, filepath.Join(root, "charts", "lethe"), "--namespace", systemNamespace, "--no-hooks",
		"--api-versions", "admissionregistration.k8s.io/v1/MutatingAdmissionPolicy", "--set", "realm=demo,kek.volume.persistentVolumeClaim.claimName=lethe-kek,dns.namespace=openshift-dns")
	text, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("render the chart: %v\n%s", err, text)
	}
	known := map[thing]bool{}
	for _, c := range charts("openshift-dns") {
		known[c] = false
	}
	asked := rights("openshift-dns")
	objects := 0
	for _, document := range strings.Split(string(text), "\n---") {
		var o metav1.PartialObjectMetadata
		if err := yaml.Unmarshal([]byte(document), &o); err != nil {
			t.Fatal(err)
		}
		if o.Kind == "" {
			continue
		}
		objects++
		gvk := o.GroupVersionKind()
		is := thing{of(gvk.Group, gvk.Version, plural(gvk.Kind), gvk.Kind), o.Namespace}
		for _, verb := range all {
			if !slices.Contains(asked, right{verb, is.Group, is.Resource, "", is.namespace}) {
				t.Errorf("the chart makes %s %s in %q, and nobody is asked whether he may %s it", gvk.Kind, o.Name, o.Namespace, verb)
			}
		}
		if gvk.Kind == "Namespace" {
			if o.Name != keysNamespace {
				t.Errorf("the chart makes namespace %s, which no removal knows", o.Name)
			}
			continue
		}
		if _, ok := known[is]; !ok {
			t.Errorf("the chart makes %s %s in %q, which no removal looks for", gvk.Kind, o.Name, o.Namespace)
		}
		known[is] = true
	}
	if objects < 80 {
		t.Errorf("only %d objects are rendered", objects)
	}
	for is, made := range known {
		if !made {
			t.Errorf("the chart makes no %s in %q: it is looked for in vain", is.Kind, is.namespace)
		}
	}
}
