package bot

import (
	"context"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/kube"
	"github.com/lethe-dev/lethe/internal/reconcile"
	"github.com/lethe-dev/lethe/internal/resources"
)

// TestWhoseBotRuns: where a namespace is no tenant's, or is being deleted, what runs of a bot is stopped. One that
// its Tenant has yet to wall in stops nothing. That is asked of package tenancy, which the keyserver asks, too.
func TestWhoseBotRuns(t *testing.T) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	ends := func(o client.Object) {
		o.SetDeletionTimestamp(&metav1.Time{Time: time.Unix(1, 0)})
		o.SetFinalizers([]string{"example.com/hold"})
	}
	for name, c := range map[string]struct {
		change    func(n *corev1.Namespace, t *v1alpha1.Tenant)
		forbidden bool   // our rights in the namespace are gone
		reason    string // empty: the Tenant is found
		replicas  int32
	}{
		"the Tenant's": {replicas: 1},
		"its Tenant is being deleted, which stops it by itself": {
			change: func(_ *corev1.Namespace, t *v1alpha1.Tenant) { ends(t) }, replicas: 1,
		},
		"not isolated": {
			change: func(_ *corev1.Namespace, t *v1alpha1.Tenant) { t.Status.Namespaces = nil },
			reason: v1alpha1.ReasonTenantNotReady, replicas: 1,
		},
		"made again under its name": {
			change: func(n *corev1.Namespace, _ *v1alpha1.Tenant) { n.UID = "n2" },
			reason: v1alpha1.ReasonTenantNotReady, replicas: 1,
		},
		"without its label": {
			change: func(n *corev1.Namespace, _ *v1alpha1.Tenant) { n.Labels = nil },
			reason: v1alpha1.ReasonNoTenant,
		},
		"made again under its name, and on the list no more": {
			change: func(n *corev1.Namespace, t *v1alpha1.Tenant) { n.UID, t.Spec.Namespaces = "n2", nil },
			reason: v1alpha1.ReasonNoTenant,
		},
		"not isolated by a Tenant that is being deleted": {
			change: func(_ *corev1.Namespace, t *v1alpha1.Tenant) { t.Status.Namespaces = nil; ends(t) },
			reason: v1alpha1.ReasonNoTenant,
		},
		"being deleted": {
			change: func(n *corev1.Namespace, _ *v1alpha1.Tenant) { ends(n) },
			reason: v1alpha1.ReasonTerminating,
		},
		"being deleted, and our rights went first": {
			change:    func(n *corev1.Namespace, _ *v1alpha1.Tenant) { ends(n) },
			forbidden: true, reason: v1alpha1.ReasonTerminating, replicas: 1,
		},
	} {
		t.Run(name, func(t *testing.T) {
			namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "home", UID: "n1", Labels: map[string]string{v1alpha1.LabelTenant: "acme"}}}
			tenant := &v1alpha1.Tenant{ObjectMeta: metav1.ObjectMeta{Name: "acme"}, Spec: v1alpha1.TenantSpec{Namespaces: []v1alpha1.TenantNamespace{{Name: "home"}}}}
			tenant.Status.Namespaces = []v1alpha1.TenantNamespaceStatus{{Name: "home", UID: "n1", Origin: "Adopted"}}
			bot := &v1alpha1.BotDeployment{ObjectMeta: metav1.ObjectMeta{Namespace: "home", Name: "b", UID: "b1"}}
			one := int32(1)
			set := &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Namespace: "home", Name: resources.BotName("b"),
				OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(bot, v1alpha1.GroupVersion.WithKind(resources.KindBotDeployment))}},
				Spec: appsv1.StatefulSetSpec{Replicas: &one}}
			if c.change != nil {
				c.change(namespace, tenant)
			}
			all := fake.NewClientBuilder().WithScheme(scheme).WithObjects(namespace, tenant, bot, set).WithInterceptorFuncs(interceptor.Funcs{
				Update: func(ctx context.Context, w client.WithWatch, o client.Object, opts ...client.UpdateOption) error {
					if c.forbidden {
						return apierrors.NewForbidden(appsv1.Resource("statefulsets"), o.GetName(), nil)
					}
					return w.Update(ctx, o, opts...)
				},
			}).Build()
			writer := kube.Writer{Client: all, Live: all}
			r := &Reconciler{Writer: writer, Orphans: noOrphans{}}
			s := &scope{bot: bot, before: bot.DeepCopy(), now: time.Unix(1000, 0)}
			_, err := r.findTenant(t.Context(), s)
			reason := ""
			if p := reconcile.ProblemIn(err); p != nil {
				reason = p.Reason
			} else if err != nil {
				t.Fatal(err)
			}
			if reason != c.reason || (reason == "") != (s.tenant != nil) || (reason == "") != (bot.Status.Tenant == "acme") {
				t.Errorf("reason %q, want %q; the Tenant is %v", reason, c.reason, s.tenant)
			}
			if err := all.Get(t.Context(), client.ObjectKeyFromObject(set), set); err != nil || *set.Spec.Replicas != c.replicas {
				t.Errorf("%d replicas, want %d: %v", *set.Spec.Replicas, c.replicas, err)
			}
		})
	}
}

// noOrphans gives no rights back, and remembers nothing.
type noOrphans struct{ reconcile.Orphans }

func (noOrphans) Soon(string)                                             {}
func (noOrphans) Regain(_ context.Context, _ string, refused error) error { return refused }
