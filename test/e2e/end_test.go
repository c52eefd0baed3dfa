package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/test/e2e/rights"
	"github.com/lethe-dev/lethe/test/stage"
)

// uninstallRefused: removing Lethe under its tenants would orphan their credentials.
func uninstallRefused(t *testing.T, w *world) {
	out, err := w.Helm(t.Context(), "uninstall", stage.Release, "--namespace", stage.SystemNamespace, "--timeout", "2m")
	if err == nil {
		t.Fatalf("uninstalled with Tenants there: %s", out)
	}
	for _, name := range []string{"lethe-manager", "lethe-keyserver"} {
		var d appsv1.Deployment
		if err := w.client.Get(t.Context(), client.ObjectKey{Namespace: stage.SystemNamespace, Name: name}, &d); err != nil || d.DeletionTimestamp != nil {
			t.Errorf("deployment %s after the refusal: %v", name, err)
		}
	}
	w.chat(t, 5_000_001, "do you still run?")
	if err := w.AwaitInstalled(t.Context()); err != nil {
		t.Error(err)
	}
}

// children of a namespace and the keys' namespace, by kind and name, but for what is always there.
func (w *world) children(ctx context.Context, namespace string) (map[string]bool, error) {
	found := map[string]bool{}
	for _, list := range []client.ObjectList{
		&appsv1.StatefulSetList{}, &corev1.PodList{}, &corev1.SecretList{}, &corev1.ServiceAccountList{}, &corev1.ConfigMapList{},
		&corev1.PersistentVolumeClaimList{}, &networkingv1.NetworkPolicyList{}, &rbacv1.RoleBindingList{},
		listOf("batch", "v1", "CronJobList"), listOf("batch", "v1", "JobList"),
	} {
		for _, ns := range []string{namespace, stage.KeysNamespace} {
			if err := w.client.List(ctx, list, client.InNamespace(ns)); err != nil {
				return nil, err
			}
			b, err := json.Marshal(list)
			if err != nil {
				return nil, err
			}
			var l struct {
				Items []struct {
					Metadata metav1.ObjectMeta `json:"metadata"`
				} `json:"items"`
			}
			if err := json.Unmarshal(b, &l); err != nil {
				return nil, err
			}
			for _, o := range l.Items {
				found[fmt.Sprintf("%T %s/%s", list, ns, o.Metadata.Name)] = true
			}
		}
	}
	return found, nil
}

func listOf(group, version, kind string) client.ObjectList {
	l := &unstructured.UnstructuredList{}
	l.SetGroupVersionKind(schema.GroupVersionKind{Group: group, Version: version, Kind: kind})
	return l
}

// deletionLeavesNothing: of a bot, of a store, of a tenant.
func deletionLeavesNothing(t *testing.T, w *world) {
	tenant := w.tenant(t, "e2e-leaving", nil)
	before, err := w.children(t.Context(), tenant.Name)
	if err != nil {
		t.Fatal(err)
	}
	token, id := w.newToken(t, 3)
	bot := w.newBot(t, tenant, "leaving", token)
	bot.Spec.Storage = &v1alpha1.BotStorage{Size: resource.MustParse("16Mi"), MountPath: "/data", ReclaimPolicy: "Delete"}
	w.create(t, bot)
	w.awaitReady(t, bot, 2*time.Minute)
	w.chat(t, id, "last words?")

	// While it has a bot, a Tenant stays.
	err = w.client.Delete(t.Context(), tenant)
	if err == nil || !strings.Contains(err.Error(), "e2e-leaving") {
		t.Errorf("a Tenant with a bot was deleted, or refused without being named: %v", err)
	}
	if err := w.client.Delete(t.Context(), bot); err != nil {
		t.Fatal(err)
	}
	w.gone(t, bot, time.Minute)
	until(t, time.Minute, "see nothing of the bot", func(ctx context.Context) (string, error) {
		now, err := w.children(ctx, tenant.Name)
		for name := range now {
			// How far its versions got is remembered as long as the Tenant lives.
			if !before[name] && !strings.Contains(name, stage.KeysNamespace+"/versions-") {
				return name, err
			}
		}
		return "", err
	})
	// The token's consumer is gone too.
	until(t, time.Minute, "see the poll end", func(ctx context.Context) (string, error) {
		st, err := w.telegram.Control.Stats(ctx, id)
		if st.Waiting {
			return "it polls", err
		}
		return "", err
	})

	// A bot in a namespace that is deleted underneath ends too.
	token, _ = w.newToken(t, 6)
	under := w.newBot(t, tenant, "under", token)
	w.create(t, under)
	w.awaitReady(t, under, 2*time.Minute)
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: tenant.Name}}
	if err := w.client.Delete(t.Context(), ns); err != nil {
		t.Fatal(err)
	}
	w.gone(t, under, 2*time.Minute)

	for _, list := range []client.ObjectList{&v1alpha1.DataRetentionPolicyList{}, &v1alpha1.DataStoreList{}, &v1alpha1.BotDeploymentList{}, &v1alpha1.TenantList{}} {
		w.deleteAll(t, list)
	}
	until(t, 2*time.Minute, "see no namespace and no key of any tenant", func(ctx context.Context) (string, error) {
		var namespaces corev1.NamespaceList
		if err := w.client.List(ctx, &namespaces, client.HasLabels{v1alpha1.LabelTenant}); err != nil {
			return "", err
		}
		if n := len(namespaces.Items); n > 0 {
			return fmt.Sprintf("%d namespaces, the first is %s", n, namespaces.Items[0].Name), nil
		}
		var keys corev1.SecretList
		if err := w.client.List(ctx, &keys, client.InNamespace(stage.KeysNamespace)); err != nil {
			return "", err
		}
		for _, k := range keys.Items {
			if strings.HasPrefix(k.Name, "tenant-") || strings.HasPrefix(k.Name, "object-") {
				return "Secret " + k.Name, nil
			}
		}
		return "", nil
	})
}

func (w *world) deleteAll(t *testing.T, list client.ObjectList) {
	t.Helper()
	until(t, 3*time.Minute, fmt.Sprintf("delete every object of a %T", list), func(ctx context.Context) (string, error) {
		if err := w.client.List(ctx, list); err != nil {
			return "", err
		}
		left := 0
		var refused error
		each := func(o client.Object) {
			left++
			if o.GetDeletionTimestamp() == nil {
				// A Tenant is refused until the manager has noticed that it is empty.
				refused = client.IgnoreNotFound(w.client.Delete(ctx, o))
			}
		}
		switch l := list.(type) {
		case *v1alpha1.TenantList:
			for i := range l.Items {
				each(&l.Items[i])
			}
		case *v1alpha1.BotDeploymentList:
			for i := range l.Items {
				each(&l.Items[i])
			}
		case *v1alpha1.DataStoreList:
			for i := range l.Items {
				each(&l.Items[i])
			}
		case *v1alpha1.DataRetentionPolicyList:
			for i := range l.Items {
				each(&l.Items[i])
			}
		}
		if left > 0 {
			return fmt.Sprintf("%d are left", left), refused
		}
		return "", nil
	})
}

// uninstall works once nobody is there, and keeps the schemas.
func uninstall(t *testing.T, w *world) {
	if _, err := w.Helm(t.Context(), "uninstall", stage.Release, "--namespace", stage.SystemNamespace, "--timeout", "2m"); err != nil {
		t.Fatal(err)
	}
	if err := w.client.List(t.Context(), &v1alpha1.TenantList{}); err != nil {
		t.Errorf("the schemas went with the chart: %v", err)
	}
	until(t, 2*time.Minute, "see no pod of Lethe's", func(ctx context.Context) (string, error) {
		var pods corev1.PodList
		if err := w.client.List(ctx, &pods, client.InNamespace(stage.SystemNamespace)); err != nil {
			return "", err
		}
		for _, p := range pods.Items {
			if p.Status.Phase == corev1.PodRunning {
				return p.Name, nil
			}
		}
		return "", nil
	})
}

// unusedGrants reads the rights out of config/rbac, and from the audit log of the whole run which of them were ever
// used.
func unusedGrants(t *testing.T, w *world) {
	used, err := rights.UsedIn(w.info.AuditLog)
	if err != nil || len(used) < 20 {
		t.Fatalf("%d rights used (%v): is this the audit log of the run?", len(used), err)
	}
	granted, err := rights.Granted(w.Root)
	if err != nil {
		t.Fatal(err)
	}
	if never := rights.NeverUsed(granted, used); len(never) > 0 {
		t.Errorf("%d rights were granted and never used:\n%s", len(never), strings.Join(never, "\n"))
	}
}
