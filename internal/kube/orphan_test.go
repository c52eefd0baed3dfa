package kube

import (
	"context"
	"errors"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/resources"
)

// TestEnsureAfterOrphaning: a bot that is made again under its name is not stuck on what the one before left behind,
// and a record in an object of somebody else's gives nobody anything.
func TestEnsureAfterOrphaning(t *testing.T) {
	var writes int
	var blind bool
	w := writerIn(t, &writes, &blind)
	namespace := testEnv.Namespace(t, "orphaned", nil).Name
	bot := func(name string) *v1alpha1.BotDeployment {
		b := &v1alpha1.BotDeployment{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Spec: v1alpha1.BotDeploymentSpec{Image: "bot:1"}}
		if err := testEnv.Client.Create(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		return b
	}
	other := bot("other")
	tenant := &v1alpha1.Tenant{ObjectMeta: metav1.ObjectMeta{Name: "t"}}
	set := func(b *v1alpha1.BotDeployment) client.Object {
		return resources.BotStatefulSet(resources.DefaultSettings(), b, tenant, "")
	}
	account := func(b *v1alpha1.BotDeployment) client.Object { return resources.BotServiceAccount(b) }
	policy := func(b *v1alpha1.BotDeployment) client.Object {
		return resources.BotNetworkPolicy(resources.DefaultSettings(), b, tenant)
	}
	for name, tc := range map[string]struct {
		child func(*v1alpha1.BotDeployment) client.Object
		// after the bot has gone, and another has its name:
		left    func(child client.Object) // what happened to the child
		same    bool                      // the new bot's child is the old object
		foreign bool
	}{
		"an account without owner is taken over":     {child: account, left: withoutOwner, same: true},
		"a policy without owner is taken over":       {child: policy, left: withoutOwner, same: true},
		"a StatefulSet without owner is made anew":   {child: set, left: withoutOwner},
		"an account still owned by the gone one too": {child: account, left: func(client.Object) {}},
		"a StatefulSet still owned by the gone one":  {child: set, left: func(client.Object) {}},
		"a child of a bot that lives is not touched": {child: account, foreign: true, left: func(c client.Object) {
			withoutOwner(c)
			c.SetAnnotations(map[string]string{v1alpha1.AnnotationOwnerUID: string(other.UID)})
		}},
		"nor one without a record": {child: account, foreign: true, left: func(c client.Object) {
			withoutOwner(c)
			c.SetAnnotations(nil)
		}},
		"nor one of another part": {child: account, foreign: true, left: func(c client.Object) {
			withoutOwner(c)
			c.GetLabels()[v1alpha1.LabelComponent] = resources.ComponentSweeper
		}},
		"nor one without our label": {child: account, foreign: true, left: func(c client.Object) {
			withoutOwner(c)
			delete(c.GetLabels(), v1alpha1.LabelManagedBy)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			before := bot("b")
			child := tc.child(before)
			tc.left(child)
			if err := testEnv.Client.Create(t.Context(), child); err != nil {
				t.Fatal(err)
			}
			if err := testEnv.Client.Delete(t.Context(), before); err != nil {
				t.Fatal(err)
			}
			again := bot("b")
			t.Cleanup(func() {
				ctx := context.Background()
				if err := errors.Join(testEnv.Client.Delete(ctx, again), client.IgnoreNotFound(testEnv.Client.Delete(ctx, tc.child(again)))); err != nil {
					t.Error(err)
				}
			})
			made, err := ensureTwice(t, w, tc.child(again))
			var foreign *ForeignError
			if tc.foreign {
				if !errors.As(err, &foreign) {
					t.Fatalf("want it refused as foreign, got %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if (made.GetUID() == child.GetUID()) != tc.same {
				t.Errorf("the same object: %v, want %v", made.GetUID() == child.GetUID(), tc.same)
			}
			if owner := metav1.GetControllerOf(made); owner == nil || owner.UID != again.UID || made.GetAnnotations()[v1alpha1.AnnotationOwnerUID] != string(again.UID) {
				t.Errorf("it belongs to %+v", owner)
			}
		})
	}
}

// ensureTwice asks again after a conflict, as a reconciler does.
func ensureTwice(t *testing.T, w Writer, child client.Object) (client.Object, error) {
	t.Helper()
	made, _, err := Ensure(t.Context(), w, child)
	if apierrors.IsConflict(err) {
		made, _, err = Ensure(t.Context(), w, child)
	}
	return made, err
}

func withoutOwner(child client.Object) { child.SetOwnerReferences(nil) }

// TestEnsureGivesAnOwnChildItsReferenceBack: a child that lost its owner reference is still its owner's.
func TestEnsureGivesAnOwnChildItsReferenceBack(t *testing.T) {
	var writes int
	var blind bool
	w := writerIn(t, &writes, &blind)
	namespace := testEnv.Namespace(t, "reference", nil).Name
	bot := &v1alpha1.BotDeployment{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "b", UID: types.UID("1")}}
	stripped := resources.BotServiceAccount(bot)
	withoutOwner(stripped)
	if err := testEnv.Client.Create(t.Context(), stripped); err != nil {
		t.Fatal(err)
	}
	made, outcome, err := Ensure(t.Context(), w, resources.BotServiceAccount(bot))
	if err != nil || outcome != Updated || !metav1.IsControlledBy(made, bot) || made.UID != stripped.UID {
		t.Errorf("%s %v, owners %v", outcome, err, made.OwnerReferences)
	}
}
