// Package kcm plays the parts of Kubernetes' controller-manager that tests with a bare API server need. As that does,
// it looks at a cache, which may be behind, and asks the API server itself before it removes anything.
package kcm

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/resources"
)

// Controllers plays the StatefulSet controller, garbage collection and the namespace controller, a step at a time.
type Controllers struct {
	// Client may do everything: env.AsCluster.
	Client client.Client
	// Reader is what is looked at in each step: env.Cache. What it hands out is shared, and copied before it is
	// changed.
	Reader client.Reader
	// Broken says of an image that its pod never becomes ready.
	Broken func(image string) bool
	// Unready says of a set that its pod is not ready yet.
	Unready func(*appsv1.StatefulSet) bool
	// Full says of a quota that nothing frees it.
	Full func(*corev1.ResourceQuota) bool
}

// ChildLists are of every kind that Lethe makes.
func ChildLists() []client.ObjectList {
	return []client.ObjectList{
		&corev1.ServiceAccountList{}, &corev1.SecretList{}, &corev1.PersistentVolumeClaimList{}, &corev1.ConfigMapList{}, &corev1.ResourceQuotaList{}, &corev1.LimitRangeList{},
		&networkingv1.NetworkPolicyList{}, &rbacv1.RoleBindingList{}, &appsv1.StatefulSetList{}, &batchv1.CronJobList{}, &batchv1.JobList{},
	}
}

// OwnLists are of Lethe's own kinds, but for policies, which own nothing.
func OwnLists() []client.ObjectList {
	return []client.ObjectList{&v1alpha1.TenantList{}, &v1alpha1.BotDeploymentList{}, &v1alpha1.DataStoreList{}}
}

// Tick plays them once.
func (f *Controllers) Tick(t testing.TB) {
	t.Helper()
	if err := f.Once(); err != nil {
		t.Logf("playing Kubernetes' controllers: %v", err)
	}
}

// Once is Tick for whoever has no test at hand.
func (f *Controllers) Once() error {
	return errors.Join(f.count(), f.runSets(), f.collect(), f.endClaims(), f.endNamespaces())
}

// count plays the controller that says how much of a quota is used. What is gone it does not notice before half is
// used.
func (f *Controllers) count() error {
	return each(f.Reader, &corev1.ResourceQuotaList{}, func(o client.Object) error {
		quota, ok := o.(*corev1.ResourceQuota)
		if !ok || quota.DeletionTimestamp != nil {
			return nil
		}
		due := !equality.Semantic.DeepEqual(quota.Status.Hard, quota.Spec.Hard)
		used := corev1.ResourceList{}
		for name, hard := range quota.Spec.Hard {
			if strings.HasSuffix(string(name), ".resource.k8s.io") {
				continue // as in a cluster that does not serve the kind
			}
			used[name] = resource.MustParse("0")
			now := quota.Status.Used[name]
			due = due || (strings.HasPrefix(string(name), "count/") && 2*now.Value() > hard.Value())
		}
		if !due || quota.Name != resources.QuotaObjectsName || f.Full != nil && f.Full(quota) {
			return nil
		}
		quota = quota.DeepCopy()
		quota.Status = corev1.ResourceQuotaStatus{Hard: quota.Spec.Hard, Used: used}
		err := f.Client.Status().Update(context.Background(), quota)
		if apierrors.IsConflict(err) {
			return nil
		}
		return client.IgnoreNotFound(err)
	})
}

// runSets reports every pod ready whose image is not broken.
func (f *Controllers) runSets() error {
	sets := &appsv1.StatefulSetList{}
	if err := f.Reader.List(context.Background(), sets, client.MatchingLabels(resources.Labels(resources.ComponentBot))); err != nil {
		return err
	}
	for i := range sets.Items {
		set := &sets.Items[i]
		ready := *set.Spec.Replicas
		if f.Broken != nil && f.Broken(set.Spec.Template.Spec.Containers[0].Image) {
			ready = 0
		}
		if f.Unready != nil && ready > 0 && f.Unready(set) {
			ready = 0
		}
		want := appsv1.StatefulSetStatus{
			ObservedGeneration: set.Generation, Replicas: *set.Spec.Replicas, UpdatedReplicas: *set.Spec.Replicas,
			CurrentReplicas: *set.Spec.Replicas, ReadyReplicas: ready, AvailableReplicas: ready,
			UpdateRevision: "revision", CurrentRevision: "revision",
		}
		if set.Status.ObservedGeneration == want.ObservedGeneration && set.Status.ReadyReplicas == want.ReadyReplicas {
			continue
		}
		set = set.DeepCopy()
		set.Status = want
		if err := f.Client.Status().Update(context.Background(), set); err != nil && !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) {
			return err
		}
	}
	return nil
}

// collect removes what is owned by nobody any more.
func (f *Controllers) collect() error {
	alive := map[types.UID]bool{}
	for _, list := range OwnLists() {
		if err := each(f.Reader, list, func(o client.Object) error { alive[o.GetUID()] = true; return nil }); err != nil {
			return err
		}
	}
	for _, list := range ChildLists() {
		err := each(f.Reader, list, func(o client.Object) error {
			owner := metav1.GetControllerOf(o)
			if owner == nil || owner.APIVersion != v1alpha1.GroupVersion.String() || alive[owner.UID] || o.GetDeletionTimestamp() != nil {
				return nil
			}
			if lives, err := f.lives(o.GetNamespace(), owner); err != nil || lives {
				return err // a child may be seen before its owner is
			}
			return f.remove(o)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// lives asks the API server itself for an owner.
func (f *Controllers) lives(namespace string, owner *metav1.OwnerReference) (bool, error) {
	found := &metav1.PartialObjectMetadata{}
	found.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind(owner.Kind))
	if owner.Kind == "Tenant" {
		namespace = ""
	}
	err := f.Client.Get(context.Background(), client.ObjectKey{Namespace: namespace, Name: owner.Name}, found)
	return err == nil && found.UID == owner.UID, client.IgnoreNotFound(err)
}

// remove deletes an object as it was seen. Where it is another by now, it is looked at again in the next step.
func (f *Controllers) remove(o client.Object) error {
	uid, version := o.GetUID(), o.GetResourceVersion()
	err := f.Client.Delete(context.Background(), o, client.PropagationPolicy(metav1.DeletePropagationBackground),
		client.Preconditions{UID: &uid, ResourceVersion: &version})
	if apierrors.IsConflict(err) {
		return nil
	}
	return client.IgnoreNotFound(err)
}

// endClaims lets go of the volumes that are being deleted and that no StatefulSet's pod uses.
func (f *Controllers) endClaims() error {
	return each(f.Reader, &corev1.PersistentVolumeClaimList{}, func(o client.Object) error {
		if o.GetDeletionTimestamp() == nil || len(o.GetFinalizers()) == 0 {
			return nil
		}
		for _, reader := range []client.Reader{f.Reader, f.Client} {
			if used, err := isUsed(reader, client.ObjectKeyFromObject(o)); err != nil || used {
				return err
			}
		}
		claim, ok := o.DeepCopyObject().(client.Object)
		if !ok {
			return fmt.Errorf("a copy of %T is no object", o)
		}
		claim.SetFinalizers(nil)
		err := f.Client.Update(context.Background(), claim)
		if apierrors.IsConflict(err) {
			return nil
		}
		return client.IgnoreNotFound(err)
	})
}

// isUsed says whether a StatefulSet has a pod with a claim.
func isUsed(reader client.Reader, claim client.ObjectKey) (bool, error) {
	used := false
	err := each(reader, &appsv1.StatefulSetList{}, func(o client.Object) error {
		set, ok := o.(*appsv1.StatefulSet)
		if !ok || *set.Spec.Replicas == 0 {
			return nil
		}
		for _, volume := range set.Spec.Template.Spec.Volumes {
			used = used || volume.PersistentVolumeClaim != nil && volume.PersistentVolumeClaim.ClaimName == claim.Name
		}
		return nil
	}, client.InNamespace(claim.Namespace))
	return used, err
}

// endNamespaces empties the namespaces that are being deleted, and lets the empty ones go.
func (f *Controllers) endNamespaces() error {
	return each(f.Reader, &corev1.NamespaceList{}, func(namespace client.Object) error {
		n, ok := namespace.(*corev1.Namespace)
		if !ok || n.DeletionTimestamp == nil {
			return nil
		}
		for _, reader := range []client.Reader{f.Reader, f.Client} { // the API server is asked once nothing is seen any more
			left, err := f.empty(reader, n.Name)
			if err != nil {
				return err
			}
			if len(left) > 0 {
				return f.sayWhatRemains(n, left)
			}
		}
		n = n.DeepCopy()
		n.Spec.Finalizers = nil
		err := f.Client.SubResource("finalize").Update(context.Background(), n)
		if apierrors.IsConflict(err) {
			return nil
		}
		return client.IgnoreNotFound(err)
	})
}

// empty deletes what is in a namespace, and says what there was, as the namespace controller does: "pods. has 1
// resource instances".
func (f *Controllers) empty(reader client.Reader, namespace string) ([]string, error) {
	var left []string
	for _, list := range append(ChildLists(), &v1alpha1.BotDeploymentList{}, &v1alpha1.DataStoreList{}, &corev1.PodList{}) {
		from := reader
		if _, ok := list.(*corev1.PodList); ok {
			from = f.Client // no cache of them is kept
		}
		count, resource := 0, schema.GroupVersionResource{}
		err := each(from, list, func(o client.Object) error {
			kind, err := apiutil.GVKForObject(o, f.Client.Scheme())
			if err != nil {
				return err
			}
			resource, _ = meta.UnsafeGuessKindToResource(kind)
			count++
			if pod, ok := o.(*corev1.Pod); ok {
				return f.endPod(pod)
			}
			if o.GetDeletionTimestamp() != nil {
				return nil
			}
			return f.remove(o)
		}, client.InNamespace(namespace))
		if err != nil {
			return left, err
		}
		if count > 0 {
			left = append(left, fmt.Sprintf("%s.%s has %d resource instances", resource.Resource, resource.Group, count))
		}
	}
	slices.Sort(left)
	return left, nil
}

// endPod deletes a pod as it goes once its kubelet has said that nothing of it runs. Whose finalizers it has keep it.
func (f *Controllers) endPod(pod *corev1.Pod) error {
	if pod.DeletionTimestamp != nil && len(pod.Finalizers) > 0 {
		return nil
	}
	err := f.Client.Delete(context.Background(), pod, client.GracePeriodSeconds(0), client.Preconditions{UID: &pod.UID})
	if apierrors.IsConflict(err) {
		return nil
	}
	return client.IgnoreNotFound(err)
}

// sayWhatRemains writes what the namespace controller writes of a namespace that does not go yet.
func (f *Controllers) sayWhatRemains(namespace *corev1.Namespace, left []string) error {
	message := "Some resources are remaining: " + strings.Join(left, ", ")
	if slices.ContainsFunc(namespace.Status.Conditions, func(c corev1.NamespaceCondition) bool { return c.Message == message }) {
		return nil
	}
	namespace = namespace.DeepCopy()
	namespace.Status.Conditions = []corev1.NamespaceCondition{
		{Type: corev1.NamespaceDeletionContentFailure, Status: corev1.ConditionFalse, Reason: "ContentDeleted"},
		{Type: corev1.NamespaceContentRemaining, Status: corev1.ConditionTrue, Reason: "SomeResourcesRemain", Message: message},
	}
	err := f.Client.Status().Update(context.Background(), namespace)
	if apierrors.IsConflict(err) {
		return nil
	}
	return client.IgnoreNotFound(err)
}

// Each does something with every object of a list, as the API server has it now.
func (f *Controllers) Each(list client.ObjectList, do func(client.Object) error, options ...client.ListOption) error {
	return each(f.Client, list, do, options...)
}

func each(reader client.Reader, list client.ObjectList, do func(client.Object) error, options ...client.ListOption) error {
	if err := reader.List(context.Background(), list, options...); err != nil {
		return err
	}
	return meta.EachListItem(list, func(item runtime.Object) error {
		object, ok := item.(client.Object)
		if !ok {
			return fmt.Errorf("%T is no object", item)
		}
		return do(object)
	})
}
