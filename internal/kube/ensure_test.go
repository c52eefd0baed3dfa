package kube

import (
	"context"
	"errors"
	"os"
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/lethe-dev/lethe/test/env"
)

var testEnv *env.Env

func TestMain(m *testing.M) {
	os.Exit(env.Main(m, func(e *env.Env) { testEnv = e }))
}

// writerIn counts writes. blind makes the reads that stand for the cache's find nothing.
func writerIn(t *testing.T, writes *int, blind *bool) Writer {
	t.Helper()
	base, err := client.NewWithWatch(testEnv.Config, client.Options{Scheme: testEnv.Scheme})
	if err != nil {
		t.Fatal(err)
	}
	counting := interceptor.NewClient(base, interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
			if *blind {
				return apierrors.NewNotFound(corev1.Resource("configmaps"), key.Name)
			}
			return c.Get(ctx, key, o, opts...)
		},
		Create: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.CreateOption) error {
			*writes++
			return c.Create(ctx, o, opts...)
		},
		Update: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.UpdateOption) error {
			*writes++
			return c.Update(ctx, o, opts...)
		},
		Delete: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.DeleteOption) error {
			*writes++
			return c.Delete(ctx, o, opts...)
		},
	})
	return Writer{Client: counting, Live: base}
}

func configMap(namespace, owner, value string) *corev1.ConfigMap {
	yes := true
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "c", OwnerReferences: []metav1.OwnerReference{
			{APIVersion: "v1", Kind: "Owner", Name: "o", UID: types.UID(owner), Controller: &yes}}},
		Data: map[string]string{"key": value},
	}
}

func TestEnsure(t *testing.T) {
	var writes int
	var blind bool
	w := writerIn(t, &writes, &blind)
	namespace := testEnv.Namespace(t, "ensure", nil).Name
	step := func(what string, desired *corev1.ConfigMap, wantOutcome Outcome, wantWrites int) *corev1.ConfigMap {
		t.Helper()
		writes = 0
		live, outcome, err := Ensure(t.Context(), w, desired)
		if err != nil || outcome != wantOutcome || writes != wantWrites {
			t.Fatalf("%s: %s with %d writes, %v; want %s with %d", what, outcome, writes, err, wantOutcome, wantWrites)
		}
		return live
	}
	created := step("missing", configMap(namespace, "1", "a"), Created, 1)
	step("equal", configMap(namespace, "1", "a"), Unchanged, 0)
	step("changed", configMap(namespace, "1", "b"), Updated, 1)
	blind = true
	if live := step("not in the cache", configMap(namespace, "1", "c"), Updated, 2); live.UID != created.UID {
		t.Error("it is another object")
	}
	blind = false

	var foreign *ForeignError
	writes = 0
	_, _, err := Ensure(t.Context(), w, configMap(namespace, "2", "x"))
	if !errors.As(err, &foreign) || writes != 0 {
		t.Errorf("another owner's object: %v, %d writes", err, writes)
	}
	orphan := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "d"}}
	if err := testEnv.Client.Create(t.Context(), orphan); err != nil {
		t.Fatal(err)
	}
	nobodys := configMap(namespace, "1", "x")
	nobodys.Name = "d"
	if _, _, err = Ensure(t.Context(), w, nobodys); !errors.As(err, &foreign) || writes != 0 {
		t.Errorf("nobody's object: %v, %d writes", err, writes)
	}

	created.Finalizers = []string{"example.com/held"}
	edit := configMap(namespace, "1", "c")
	if err := testEnv.Client.Get(t.Context(), client.ObjectKeyFromObject(created), edit); err != nil {
		t.Fatal(err)
	}
	edit.Finalizers = created.Finalizers
	if err := errors.Join(testEnv.Client.Update(t.Context(), edit), testEnv.Client.Delete(t.Context(), edit)); err != nil {
		t.Fatal(err)
	}
	var terminating *TerminatingError
	if _, _, err = Ensure(t.Context(), w, configMap(namespace, "1", "c")); !errors.As(err, &terminating) || writes != 0 {
		t.Errorf("an object on its way out: %v, %d writes", err, writes)
	}
	if _, _, err = Ensure(t.Context(), w, orphan); err == nil {
		t.Error("an object without a controller was accepted")
	}
}

// TestEnsureRoleBinding: a role can never be changed, so a binding to another one is replaced.
func TestEnsureRoleBinding(t *testing.T) {
	var writes int
	var blind bool
	w := writerIn(t, &writes, &blind)
	namespace := testEnv.Namespace(t, "binding", nil).Name
	binding := func(role string) *rbacv1.RoleBinding {
		return &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "b", OwnerReferences: configMap("", "1", "").OwnerReferences},
			RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role}}
	}
	for _, role := range []string{"view", "edit"} {
		if _, outcome, err := Ensure(t.Context(), w, binding(role)); err != nil || outcome != Created {
			t.Fatalf("%s: %s %v", role, outcome, err)
		}
	}
	live := binding("")
	if err := testEnv.Client.Get(t.Context(), client.ObjectKeyFromObject(live), live); err != nil || live.RoleRef.Name != "edit" {
		t.Errorf("bound to %s, %v", live.RoleRef.Name, err)
	}
}

func TestDeleteIsGuarded(t *testing.T) {
	var writes int
	var blind bool
	w := writerIn(t, &writes, &blind)
	namespace := testEnv.Namespace(t, "delete", nil).Name
	read, _, err := Ensure(t.Context(), w, configMap(namespace, "1", "a"))
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := Ensure(t.Context(), w, configMap(namespace, "1", "b")); err != nil {
		t.Fatal(err)
	}
	if err := w.Delete(t.Context(), read); !apierrors.IsConflict(err) {
		t.Errorf("deleting what has changed since it was read: %v", err)
	}
	writes = 0
	if err := w.DeleteOwned(t.Context(), configMap(namespace, "2", "")); err != nil || writes != 0 {
		t.Errorf("deleting another owner's: %v, %d writes", err, writes)
	}
	if err := w.DeleteOwned(t.Context(), configMap(namespace, "1", "")); err != nil || writes != 1 {
		t.Errorf("deleting our own: %v, %d writes", err, writes)
	}
	if err := w.DeleteOwned(t.Context(), configMap(namespace, "1", "")); err != nil || writes != 1 {
		t.Errorf("deleting what is gone: %v, %d writes", err, writes)
	}
	if err := w.Delete(t.Context(), read); err != nil {
		t.Errorf("deleting what is gone already: %v", err)
	}
}
