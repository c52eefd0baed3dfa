package tenant

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/foreign"
	"github.com/lethe-dev/lethe/internal/kube"
	"github.com/lethe-dev/lethe/internal/reconcile"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/internal/status"
	"github.com/lethe-dev/lethe/internal/tenancy"
)

// leaveWait is between two looks at pods that are still ending: they are not watched.
const leaveWait = 2 * time.Second

// Values of TenantNamespaceStatus.Origin.
const (
	originCreated = "Created"
	originAdopted = "Adopted"
)

// ensureNamespaces finds or makes each namespace of the spec. One that is somebody else's keeps none of the others
// back.
func (r *Reconciler) ensureNamespaces(ctx context.Context, s *scope) (time.Duration, error) {
	var wait time.Duration
	for _, wanted := range s.tenant.Spec.Namespaces {
		namespace, err := r.ensureNamespace(ctx, s, wanted.Name)
		if p := reconcile.ProblemIn(err); p != nil && p.Cause == nil {
			s.addProblem(err)
			wait = reconcile.MinNonZero(wait, p.After)
			continue
		}
		if err != nil {
			return 0, err
		}
		s.owned = append(s.owned, namespace)
	}
	return wait, r.findDropped(ctx, s)
}

func (r *Reconciler) ensureNamespace(ctx context.Context, s *scope, name string) (*corev1.Namespace, error) {
	tenant := s.tenant
	if tenancy.IsReserved(name, r.Settings.Namespace, r.KeysNamespace) {
		return nil, &reconcile.Problem{Problem: status.Problem{
			Condition: v1alpha1.ConditionNamespacesReady, Reason: v1alpha1.ReasonNamespaceReserved, Stalled: true,
			Message: fmt.Sprintf("Namespace %s is the cluster's or Lethe's own: take it off spec.namespaces.", name),
		}}
	}
	live := &corev1.Namespace{}
	key := client.ObjectKey{Name: name}
	err := r.Writer.Client.Get(ctx, key, live)
	if apierrors.IsNotFound(err) {
		// The cache holds namespaces with the label only.
		err = r.Writer.Live.Get(ctx, key, live)
	}
	if client.IgnoreNotFound(err) != nil {
		return nil, fmt.Errorf("read namespace %s: %w", name, err)
	}
	if err == nil && live.Labels[v1alpha1.LabelTenant] != tenant.Name {
		return nil, &reconcile.Problem{After: reconcile.ForeignObjectWait, Problem: status.Problem{
			Condition: v1alpha1.ConditionNamespacesReady, Reason: v1alpha1.ReasonNamespaceTaken, Stalled: true,
			Message: fmt.Sprintf("Namespace %s exists and is not this Tenant's: someone allowed the verb adopt on the Tenant must set its label %s to %s, or the Tenant must name another.",
				name, v1alpha1.LabelTenant, tenant.Name),
		}}
	}
	desired := resources.Namespace(tenant, name, apierrors.IsNotFound(err) || wasCreatedFor(live, tenant))
	r.notePodSecurity(s, live, desired)
	namespace, _, err := kube.EnsureWhere(ctx, r.Writer, desired, func(n *corev1.Namespace) bool {
		return n.Labels[v1alpha1.LabelTenant] == tenant.Name
	})
	return namespace, reconcile.ProblemFromError(v1alpha1.ConditionNamespacesReady, err)
}

// overruledFor is how long a Tenant says that somebody else set a Pod Security label otherwise: longer than GitOps
// tools wait before they set it again.
const overruledFor = time.Hour

// notePodSecurity remembers a Pod Security label that somebody else has set otherwise. Lethe's stands, and the Tenant
// says so: two that overwrite each other without a word would go on for ever.
func (r *Reconciler) notePodSecurity(s *scope, live, desired *corev1.Namespace) {
	if live.UID == "" {
		return
	}
	for _, label := range []string{"pod-security.kubernetes.io/enforce", "pod-security.kubernetes.io/enforce-version"} {
		if found, ours := live.Labels[label], desired.Labels[label]; found != "" && found != ours {
			r.overruled.Put(live, s.now, fmt.Sprintf("namespace %s had %s=%s", live.Name, label, foreign.Line(found, foreign.MaxText)))
			break
		}
	}
	if known, ok := r.overruled.Get(live); ok && s.now.Sub(known.At) < overruledFor {
		s.observed.Overruled = append(s.observed.Overruled, known.Value)
	}
}

// wasCreatedFor says whether the manager made a namespace for a Tenant. The namespace itself says so from its first
// moment; the status remembers it, should a hand take that away.
func wasCreatedFor(namespace *corev1.Namespace, tenant *v1alpha1.Tenant) bool {
	if namespace.Annotations[resources.AnnotationCreatedFor] == string(tenant.UID) {
		return true
	}
	return slices.Contains(tenant.Status.Namespaces, v1alpha1.TenantNamespaceStatus{
		Name: namespace.Name, UID: string(namespace.UID), Origin: originCreated,
	})
}

// findDropped finds the namespaces that carry the tenant's label and are not in its spec.
func (r *Reconciler) findDropped(ctx context.Context, s *scope) error {
	namespaces, err := r.namespacesOf(ctx, s.tenant)
	if err != nil {
		return err
	}
	for i := range namespaces {
		if n := &namespaces[i]; !tenancy.Lists(s.tenant, n.Name) && n.DeletionTimestamp.IsZero() {
			s.dropped = append(s.dropped, n)
		}
	}
	return nil
}

// ensureBindings gives the manager its rights in each namespace before anything that needs them.
func (r *Reconciler) ensureBindings(ctx context.Context, s *scope) (time.Duration, error) {
	var fresh bool
	for _, namespace := range s.owned {
		for _, binding := range resources.TenantRoleBindings(r.Settings, s.tenant, namespace.Name) {
			_, outcome, err := kube.Ensure(ctx, r.Writer, binding)
			if err != nil {
				return 0, reconcile.ProblemFromError(v1alpha1.ConditionNamespacesReady, err)
			}
			fresh = fresh || (outcome == kube.Created && binding.Name == resources.BindingManager)
		}
	}
	if fresh {
		return 0, &reconcile.Problem{Quiet: true, After: reconcile.RightsWait, Problem: status.Problem{Condition: v1alpha1.ConditionNamespacesReady,
			Reason: v1alpha1.ReasonProgressing, Message: "The rights in a new namespace take a moment."}}
	}
	return 0, nil
}

// ensureIsolation walls each namespace in. Only then does the status name it, and only then may anything run in it.
func (r *Reconciler) ensureIsolation(ctx context.Context, s *scope) (time.Duration, error) {
	var wait time.Duration
	for _, namespace := range s.owned {
		for _, child := range Isolation(r.Settings, s.tenant, namespace.Name) {
			if err := reconcile.EnsureChild(ctx, r.Writer, child); err != nil {
				return 0, reconcile.ProblemFromError(v1alpha1.ConditionNamespacesReady, err)
			}
		}
		counted, err := r.isCounted(ctx, s, namespace)
		if err != nil {
			return 0, err
		}
		if !counted {
			wait = reconcile.MinNonZero(wait, reconcile.RightsWait)
			s.addProblem(&reconcile.Problem{Problem: status.Problem{Condition: v1alpha1.ConditionNamespacesReady, Reason: v1alpha1.ReasonProgressing,
				Message: fmt.Sprintf("Kubernetes has not counted yet what namespace %s holds (ResourceQuota %s).", namespace.Name, resources.QuotaObjectsName)}})
			continue
		}
		if err := r.lookForForeignObjects(ctx, s, namespace); err != nil {
			return 0, err
		}
		s.isolated[namespace.Name] = true
		s.record(namespace)
	}
	return reconcile.MinNonZero(wait, s.looked()), nil
}

// countAgainAfter is how long Kubernetes' quota controller may take. A quota that was made before it knew our kinds
// it would look at again only minutes later: that one is made anew.
const countAgainAfter = 10 * time.Second

// isCounted says whether the quota of a new namespace is in force: until Kubernetes has counted, it refuses everything.
func (r *Reconciler) isCounted(ctx context.Context, s *scope, namespace *corev1.Namespace) (bool, error) {
	if tenancy.Holds(s.tenant, namespace) {
		return true, nil
	}
	quota := &corev1.ResourceQuota{}
	err := r.Writer.Client.Get(ctx, client.ObjectKey{Namespace: namespace.Name, Name: resources.QuotaObjectsName}, quota)
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read the quota of %s: %w", namespace.Name, err)
	}
	for name, hard := range quota.Spec.Hard {
		// Of a kind that the cluster does not serve nothing is counted, and nothing can be made.
		if _, counted := quota.Status.Used[name]; counted || (hard.IsZero() && len(quota.Status.Hard) > 0) {
			continue
		}
		if s.now.Sub(quota.CreationTimestamp.Time) > countAgainAfter && quota.DeletionTimestamp.IsZero() {
			return false, reconcile.ProblemFromError(v1alpha1.ConditionNamespacesReady, r.Writer.Delete(ctx, quota))
		}
		return false, nil
	}
	return true, nil
}

// record puts a namespace into the status, by UID.
func (s *scope) record(namespace *corev1.Namespace) {
	entry := v1alpha1.TenantNamespaceStatus{Name: namespace.Name, UID: string(namespace.UID), Origin: originAdopted}
	if wasCreatedFor(namespace, s.tenant) {
		entry.Origin = originCreated
	}
	s.forget(namespace.Name)
	s.tenant.Status.Namespaces = append(s.tenant.Status.Namespaces, entry)
	slices.SortFunc(s.tenant.Status.Namespaces, func(a, b v1alpha1.TenantNamespaceStatus) int { return strings.Compare(a.Name, b.Name) })
}

func (s *scope) forget(name string) {
	s.tenant.Status.Namespaces = slices.DeleteFunc(slices.Clone(s.tenant.Status.Namespaces),
		func(n v1alpha1.TenantNamespaceStatus) bool { return n.Name == name })
}

// releaseDropped leaves the namespaces that were taken off the list, unless something of ours is still in them.
func (r *Reconciler) releaseDropped(ctx context.Context, s *scope) (time.Duration, error) {
	live := map[string]types.UID{}
	for _, namespace := range append(slices.Clone(s.owned), s.dropped...) {
		live[namespace.Name] = namespace.UID
	}
	for _, known := range s.tenant.Status.Namespaces {
		uid, ours := live[known.Name]
		if uid == types.UID(known.UID) {
			continue
		}
		if !ours {
			kept, err := r.leaveUnlabelled(ctx, s.tenant, known.Name)
			if err != nil {
				return 0, err
			}
			if kept {
				continue
			}
		}
		s.forget(known.Name) // it is gone, or another namespace has its name
	}
	var wait time.Duration
	for _, namespace := range s.dropped {
		used, _, err := reconcile.LookInto(ctx, r.Writer.Live, namespace.Name)
		if err != nil {
			return 0, err
		}
		if used || s.retains(namespace.Name) {
			s.addProblem(&reconcile.Problem{Problem: status.Problem{
				Condition: v1alpha1.ConditionNamespacesReady, Reason: v1alpha1.ReasonNamespaceInUse, Stalled: true,
				Message: fmt.Sprintf("Namespace %s was taken off spec.namespaces and still holds BotDeployments, DataStores or retained volumes: delete them, or put it back.", namespace.Name),
			}})
			continue
		}
		err = reconcile.ProblemFromError(v1alpha1.ConditionNamespacesReady, r.leave(ctx, s.tenant, namespace.Name))
		if p := reconcile.ProblemIn(err); p != nil && p.Cause == nil {
			s.addProblem(err) // pods that are still ending keep the keys from nobody
			wait = reconcile.MinNonZero(wait, p.After)
			continue
		}
		if err != nil {
			return 0, err
		}
		s.forget(namespace.Name)
	}
	return wait, nil
}

// leaveUnlabelled leaves a namespace that is gone, or has lost its label, and with it the walls around our rights
// there. While bots or stores are in it what isolates them is kept.
func (r *Reconciler) leaveUnlabelled(ctx context.Context, tenant *v1alpha1.Tenant, namespace string) (kept bool, err error) {
	used, _, err := reconcile.LookInto(ctx, r.Writer.Live, namespace)
	if err != nil || used {
		return used, err
	}
	return false, reconcile.ProblemFromError(v1alpha1.ConditionNamespacesReady, r.leave(ctx, tenant, namespace))
}

// leave removes what we made in a namespace: first what has no owner any more, then, when nothing of it runs, the
// walls, and the manager's own rights last.
func (r *Reconciler) leave(ctx context.Context, tenant *v1alpha1.Tenant, namespace string) error {
	running, err := r.Orphans.Clear(ctx, namespace)
	if err != nil {
		return err
	}
	if len(running) > 0 {
		return &reconcile.Problem{After: leaveWait, Problem: status.Problem{Condition: v1alpha1.ConditionNamespacesReady, Reason: v1alpha1.ReasonTerminating,
			Message: fmt.Sprintf("Namespace %s is left when what runs in it has ended: %s.", namespace, reconcile.CutList(running))}}
	}
	children := Isolation(r.Settings, tenant, namespace)
	children = append(children, resources.TenantCABundle(tenant, namespace, "", ""), resources.TenantSealingKey(tenant, namespace, v1alpha1.SealingKey{}))
	bindings := resources.TenantRoleBindings(r.Settings, tenant, namespace)
	slices.Reverse(bindings)
	for _, binding := range bindings {
		children = append(children, binding)
	}
	for _, child := range children {
		if err := r.Writer.DeleteOwned(ctx, child); err != nil {
			return err
		}
	}
	return nil
}

// Isolation is what walls a namespace in, the closed door first.
func Isolation(s resources.Settings, tenant *v1alpha1.Tenant, namespace string) []client.Object {
	var children []client.Object
	for _, policy := range resources.TenantNetworkPolicies(s, tenant, namespace) {
		children = append(children, policy)
	}
	for _, quota := range resources.TenantResourceQuotas(tenant, namespace) {
		children = append(children, quota)
	}
	return append(children, resources.TenantLimitRange(tenant, namespace))
}

// observeUse finds out whether bots or stores are in the tenant's namespaces, and whether they can be changed.
// Admission refuses to delete a Tenant that says that they are.
func (r *Reconciler) observeUse(ctx context.Context, s *scope) (time.Duration, error) {
	namespaces, err := r.namespacesOf(ctx, s.tenant)
	if err != nil {
		return 0, err
	}
	var inUse bool
	s.observed.Paused = false
	for i := range namespaces {
		_, marked := namespaces[i].Annotations[v1alpha1.AnnotationChangesPaused]
		s.observed.Paused = s.observed.Paused || marked
		used, err := r.isUsed(ctx, namespaces[i].Name)
		if err != nil {
			return 0, err
		}
		inUse = inUse || used
	}
	s.observed.InUse = inUse
	return 0, nil
}

// namespacesOf are all namespaces with the tenant's label, in its spec or not.
func (r *Reconciler) namespacesOf(ctx context.Context, tenant *v1alpha1.Tenant) ([]corev1.Namespace, error) {
	namespaces := &corev1.NamespaceList{}
	if err := r.Writer.Client.List(ctx, namespaces, client.MatchingFields{reconcile.IndexTenantLabel: tenant.Name}); err != nil {
		return nil, fmt.Errorf("list the Tenant's namespaces: %w", err)
	}
	return namespaces.Items, nil
}

func (r *Reconciler) isUsed(ctx context.Context, namespace string) (bool, error) {
	return holdsOurs(ctx, r.Writer.Client, namespace)
}

// holdsOurs says whether a namespace holds bots or stores that are not on their way out. Those that are do not count:
// whoever deletes a bot and then its Tenant is not to be refused, and the deletion of the Tenant waits for the bot
// anyway (lookForUse).
func holdsOurs(ctx context.Context, c client.Reader, namespace string) (bool, error) {
	for _, list := range []client.ObjectList{&v1alpha1.BotDeploymentList{}, &v1alpha1.DataStoreList{}} {
		// Mostly the first of many tells; only where that one goes are all looked at.
		for _, most := range []int64{1, 0} {
			if err := c.List(ctx, list, client.InNamespace(namespace), client.Limit(most), client.UnsafeDisableDeepCopy, reconcile.StaleReadOK); err != nil {
				return false, fmt.Errorf("look into namespace %s: %w", namespace, err)
			}
			stays := false
			err := meta.EachListItem(list, func(item runtime.Object) error {
				object, err := meta.Accessor(item)
				if err != nil {
					return fmt.Errorf("read an object's metadata: %w", err)
				}
				stays = stays || object.GetDeletionTimestamp() == nil
				return nil
			})
			if err != nil {
				return false, fmt.Errorf("look into namespace %s: %w", namespace, err)
			}
			if stays {
				return true, nil
			}
			if meta.LenList(list) == 0 {
				break
			}
		}
	}
	return false, nil
}
