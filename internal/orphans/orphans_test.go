package orphans

import (
	"context"
	"errors"
	"os"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/test/env"
)

var testEnv *env.Env

func TestMain(m *testing.M) {
	os.Exit(env.Main(m, func(e *env.Env) { testEnv = e }))
}

// TestOwnerOf: a record is believed where our label is, and where nobody else controls the object.
func TestOwnerOf(t *testing.T) {
	bot := &v1alpha1.BotDeployment{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "b", UID: "1"}}
	tenant := &v1alpha1.Tenant{ObjectMeta: metav1.ObjectMeta{Name: "t", UID: "2"}}
	store := &v1alpha1.DataStore{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "s", UID: "3"}}
	ofBot := func(change func(*corev1.ServiceAccount)) client.Object {
		child := resources.BotServiceAccount(bot)
		if change != nil {
			change(child)
		}
		return child
	}
	yes := true
	for name, tc := range map[string]struct {
		child client.Object
		want  Owner
		ok    bool
	}{
		"a bot's":            {ofBot(nil), Owner{resources.KindBotDeployment, "n", "1"}, true},
		"a tenant's":         {resources.TenantLimitRange(tenant, "n"), Owner{resources.KindTenant, "", "2"}, true},
		"a store's identity": {resources.SweeperServiceAccount(store), Owner{resources.KindDataStore, "n", "3"}, true},
		"a store's plan":     {resources.PlanConfigMap(store, "0123456789abcdef", nil), Owner{resources.KindDataStore, "n", "3"}, true},
		"orphaned": {ofBot(func(c *corev1.ServiceAccount) { c.OwnerReferences = nil }),
			Owner{resources.KindBotDeployment, "n", "1"}, true},
		"orphaned before there was a record": {ofBot(func(c *corev1.ServiceAccount) { c.OwnerReferences, c.Annotations = nil, nil }), Owner{}, false},
		"without a record, and owned": {ofBot(func(c *corev1.ServiceAccount) { c.Annotations = nil }),
			Owner{resources.KindBotDeployment, "n", "1"}, true},
		"whose record was changed by hand": {ofBot(func(c *corev1.ServiceAccount) { c.Annotations[v1alpha1.AnnotationOwnerUID] = "9" }),
			Owner{resources.KindBotDeployment, "n", "1"}, true},
		"without our label": {ofBot(func(c *corev1.ServiceAccount) { delete(c.Labels, v1alpha1.LabelManagedBy) }), Owner{}, false},
		"of an unknown part": {ofBot(func(c *corev1.ServiceAccount) { c.Labels[v1alpha1.LabelComponent] = "else" }), Owner{},
			false},
		"that somebody else controls": {ofBot(func(c *corev1.ServiceAccount) {
			c.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "StatefulSet", Name: "x", UID: "7", Controller: &yes}}
		}), Owner{}, false},
		"of a kind that makes no such child": {ofBot(func(c *corev1.ServiceAccount) { c.OwnerReferences[0].Kind = resources.KindDataStore }), Owner{},
			false},
	} {
		t.Run(name, func(t *testing.T) {
			if got, ok := OwnerOf(tc.child); got != tc.want || ok != tc.ok {
				t.Errorf("OwnerOf = %+v %v, want %+v %v", got, ok, tc.want, tc.ok)
			}
		})
	}
}

// TestLook: an owner is known by its UID, not by its name, and lives until its deletion begins.
func TestLook(t *testing.T) {
	live := testEnv.Client
	namespace := testEnv.Namespace(t, "look", nil).Name
	look := func(owner Owner, want State) {
		t.Helper()
		if got, err := Look(t.Context(), live, owner); err != nil || got != want {
			t.Errorf("Look(%+v) = %s %v, want %s", owner, got, err, want)
		}
	}
	bot := func() *v1alpha1.BotDeployment {
		return &v1alpha1.BotDeployment{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "b"}, Spec: v1alpha1.BotDeploymentSpec{Image: "bot:1"}}
	}
	first := bot()
	first.Finalizers = []string{"example.com/hold"}
	if err := live.Create(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	owner := Owner{Kind: resources.KindBotDeployment, Namespace: namespace, UID: first.UID}
	look(owner, Lives)
	look(Owner{Kind: resources.KindBotDeployment, Namespace: namespace, UID: "another"}, Gone)
	look(Owner{Kind: resources.KindDataStore, Namespace: namespace, UID: first.UID}, Gone)
	if err := live.Delete(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	look(owner, Ending)
	if err := live.Get(t.Context(), client.ObjectKeyFromObject(first), first); err != nil {
		t.Fatal(err)
	}
	first.Finalizers = nil
	if err := live.Update(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	second := bot()
	if err := live.Create(t.Context(), second); err != nil {
		t.Fatal(err)
	}
	look(owner, Gone) // of the same name, and another object
	look(Owner{Kind: resources.KindBotDeployment, Namespace: namespace, UID: second.UID}, Lives)

	tenant := &v1alpha1.Tenant{ObjectMeta: metav1.ObjectMeta{Name: "looked-at"}, Spec: v1alpha1.TenantSpec{Namespaces: []v1alpha1.TenantNamespace{{Name: "looked-at"}}}}
	if err := live.Create(t.Context(), tenant); err != nil {
		t.Fatal(err)
	}
	look(Owner{Kind: resources.KindTenant, UID: tenant.UID}, Lives)
	look(Owner{Kind: resources.KindTenant, UID: types.UID("x")}, Gone)
}

// TestListReadsEveryPage: what is on the second page is not gone. A page that cannot be read is no empty one.
func TestListReadsEveryPage(t *testing.T) {
	namespace := testEnv.Namespace(t, "pages", nil).Name
	const bots = pageSize + 3
	for range bots {
		bot := &v1alpha1.BotDeployment{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, GenerateName: "b-"}, Spec: v1alpha1.BotDeploymentSpec{Image: "bot:1"}}
		if err := testEnv.Client.Create(t.Context(), bot); err != nil {
			t.Fatal(err)
		}
	}
	owners, err := List(t.Context(), testEnv.Client, resources.KindBotDeployment, namespace)
	if err != nil || len(owners) != bots {
		t.Errorf("%d of %d bots, %v", len(owners), bots, err)
	}
	base, err := client.NewWithWatch(testEnv.Config, client.Options{Scheme: testEnv.Scheme})
	if err != nil {
		t.Fatal(err)
	}
	asked := 0
	failing := interceptor.NewClient(base, interceptor.Funcs{List: func(ctx context.Context, c client.WithWatch, list client.ObjectList, o ...client.ListOption) error {
		if asked++; asked == 2 {
			return errors.New("connection refused")
		}
		return c.List(ctx, list, o...)
	}})
	if owners, err := List(t.Context(), failing, resources.KindBotDeployment, namespace); err == nil || owners != nil {
		t.Errorf("half a list was believed: %d owners", len(owners))
	}
}
