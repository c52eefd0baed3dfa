package operator

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/test/env"
	"github.com/lethe-dev/lethe/test/kcm"
	"github.com/lethe-dev/lethe/test/kstatus"
)

type runtimeObject = runtime.Object

const SealedValue = v1alpha1.SealedValue("seal.v1.a.b.c.d.e")

// MakeTenant makes a Tenant of namespaces.
func MakeTenant(name string, namespaces ...string) *v1alpha1.Tenant {
	tenant := &v1alpha1.Tenant{ObjectMeta: metav1.ObjectMeta{Name: name}}
	for _, namespace := range namespaces {
		tenant.Spec.Namespaces = append(tenant.Spec.Namespaces, v1alpha1.TenantNamespace{Name: namespace})
	}
	return tenant
}

// WithBots lets a Tenant have many bots.
func WithBots(tenant *v1alpha1.Tenant) *v1alpha1.Tenant {
	bots := int32(1000)
	tenant.Spec.Quota = &v1alpha1.TenantQuota{Bots: &bots}
	return tenant
}

// MakeBot makes a bot with one credential and one channel.
func MakeBot(namespace, name string) *v1alpha1.BotDeployment {
	return &v1alpha1.BotDeployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: v1alpha1.BotDeploymentSpec{
			Image:       "registry.example/bot:v1",
			Credentials: []v1alpha1.Credential{{Name: "telegram", Sealed: SealedValue}},
			Channels: []v1alpha1.Channel{{Name: "main", Type: v1alpha1.ChannelTelegram,
				Telegram: &v1alpha1.TelegramChannel{Credential: "telegram"}}},
		},
	}
}

// Create makes objects as the administrator, and waits for room in a quota.
func (w *World) Create(objects ...client.Object) {
	w.T.Helper()
	for _, object := range objects {
		w.poll(25*time.Millisecond, "create "+object.GetName(), func() error {
			err := w.Admin.Create(context.Background(), object)
			if apierrors.IsForbidden(err) && strings.Contains(err.Error(), "quota") {
				w.KCM.Tick(w.T) // nobody counts between the ticks
				return err
			}
			if err != nil {
				w.T.Fatal(err)
			}
			return nil
		})
	}
}

// Edit changes the present version of an object as the administrator.
func Edit[T client.Object](w *World, object T, how func(T)) {
	w.T.Helper()
	EditAs(w, w.Admin, object, how)
}

// EditAs is Edit as somebody else.
func EditAs[T client.Object](w *World, c client.Client, object T, how func(T)) {
	w.T.Helper()
	w.Eventually("edit "+object.GetName(), func() error {
		if err := c.Get(context.Background(), client.ObjectKeyFromObject(object), object); err != nil {
			return err
		}
		how(object)
		return c.Update(context.Background(), object)
	})
}

// Delete deletes an object as the cluster.
func (w *World) Delete(object client.Object) {
	w.T.Helper()
	if err := w.Cluster.Delete(context.Background(), object); err != nil {
		w.T.Fatal(err)
	}
}

// Get reads an object again; an absent one is an error.
func (w *World) Get(object client.Object) error {
	return w.Admin.Get(context.Background(), client.ObjectKeyFromObject(object), object)
}

func conditionsOf(object client.Object) (conditions []metav1.Condition, observed int64) {
	switch o := object.(type) {
	case *v1alpha1.Tenant:
		return o.Status.Conditions, o.Status.ObservedGeneration
	case *v1alpha1.BotDeployment:
		return o.Status.Conditions, o.Status.ObservedGeneration
	default:
		return nil, 0
	}
}

// IsNow says what is missing until a condition of the present generation is as wanted: "Ready=True", or
// "Stalled=True/NoTenant" with a reason.
func (w *World) IsNow(object client.Object, wanted string) error {
	if err := w.Get(object); err != nil {
		return err
	}
	conditions, observed := conditionsOf(object)
	kind, rest, _ := strings.Cut(wanted, "=")
	value, reason, _ := strings.Cut(rest, "/")
	c := meta.FindStatusCondition(conditions, kind)
	if c == nil && value == string(metav1.ConditionFalse) && observed == object.GetGeneration() && (kind == v1alpha1.ConditionStalled || kind == v1alpha1.ConditionReconciling) {
		return nil // it is there only while it is True
	}
	if c == nil || string(c.Status) != value || (reason != "" && c.Reason != reason) || c.ObservedGeneration != object.GetGeneration() ||
		observed != object.GetGeneration() {
		return fmt.Errorf("%s of %s is %+v (observed %d of %d)", wanted, object.GetName(), conditions, observed, object.GetGeneration())
	}
	return nil
}

// Becomes waits until a condition is as wanted, and checks what must hold of conditions at any time.
func (w *World) Becomes(object client.Object, wanted string) {
	w.T.Helper()
	w.Eventually(wanted, func() error { return w.IsNow(object, wanted) })
	w.checkConditions(object)
}

func (w *World) checkConditions(object client.Object) {
	w.T.Helper()
	kinds := []string{v1alpha1.ConditionReady}
	switch object.(type) {
	case *v1alpha1.Tenant:
		kinds = append(kinds, v1alpha1.ConditionNamespacesReady, v1alpha1.ConditionIsolationReady, v1alpha1.ConditionKeysReady, v1alpha1.ConditionInUse)
	case *v1alpha1.BotDeployment:
		kinds = append(kinds, v1alpha1.ConditionIsolationReady, v1alpha1.ConditionCredentialsReady, v1alpha1.ConditionWorkloadReady)
	}
	conditions, _ := conditionsOf(object)
	for _, kind := range kinds {
		c := meta.FindStatusCondition(conditions, kind)
		switch {
		case c == nil:
			w.T.Errorf("%s has no condition %s", object.GetName(), kind)
		case c.ObservedGeneration > object.GetGeneration():
			w.T.Errorf("%s speaks of a generation to come", kind)
		case c.Status != metav1.ConditionTrue && c.Message == "":
			w.T.Errorf("%s=%s says nothing", kind, c.Status)
		}
	}
	kstatus.Check(w.T, object)
}

// Gone waits until an object does not exist.
func (w *World) Gone(object client.Object) {
	w.T.Helper()
	w.Eventually("gone: "+object.GetName(), func() error {
		switch err := w.Get(object); {
		case apierrors.IsNotFound(err):
			return nil
		case err != nil:
			return err
		default:
			return errors.New("it is still there")
		}
	})
}

// PublishCA is what the keyserver does when it starts and when it rotates its CA.
func (w *World) PublishCA(bundle string) {
	w.T.Helper()
	cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: env.SystemNamespace, Name: resources.CABundleName}}
	err := w.Admin.Get(context.Background(), client.ObjectKeyFromObject(cm), cm)
	cm.Labels = resources.Labels(resources.ComponentKeyserver)
	cm.Data = map[string]string{resources.CABundleKey: bundle, resources.AddressesKey: w.Addresses}
	if apierrors.IsNotFound(err) {
		err = w.Admin.Create(context.Background(), cm)
	} else if err == nil {
		err = w.Admin.Update(context.Background(), cm)
	}
	if err != nil {
		w.T.Fatal(err)
	}
}

// clean removes what a test left, whatever state it is in.
func (w *World) clean() {
	w.Stop()
	var stuck []string
	for deadline := time.Now().Add(Patience); time.Now().Before(deadline); {
		left := 0
		stuck = nil
		for _, list := range kcm.OwnLists() {
			_ = w.KCM.Each(list, func(o client.Object) error {
				left++
				stuck = append(stuck, fmt.Sprintf("%T %s/%s %v %v", o, o.GetNamespace(), o.GetName(), o.GetFinalizers(), o.GetDeletionTimestamp()))
				if tenant, ok := o.(*v1alpha1.Tenant); ok && len(tenant.Status.Conditions) > 0 {
					tenant.Status.Conditions = nil // admission asks the status whether a Tenant may go
					_ = w.Cluster.Status().Update(context.Background(), tenant)
				}
				if len(o.GetFinalizers()) > 0 {
					o.SetFinalizers(nil)
					_ = w.Cluster.Update(context.Background(), o)
				}
				return w.ignoreRefusal(w.Cluster.Delete(context.Background(), o))
			})
		}
		_ = w.KCM.Each(&corev1.NamespaceList{}, func(o client.Object) error {
			if o.GetLabels()[v1alpha1.LabelTenant] == "" {
				return nil
			}
			left++
			stuck = append(stuck, fmt.Sprintf("Namespace %s %v", o.GetName(), o.GetDeletionTimestamp()))
			return client.IgnoreNotFound(w.Cluster.Delete(context.Background(), o))
		})
		w.KCM.Tick(w.T)
		if left == 0 {
			return
		}
	}
	w.T.Errorf("the test left something behind: %v", stuck)
}

// ignoreRefusal: a Tenant in use cannot be deleted by anyone until its status says otherwise.
func (w *World) ignoreRefusal(err error) error {
	if apierrors.IsForbidden(err) || apierrors.IsInvalid(err) || apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
