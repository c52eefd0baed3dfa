// Package orphans removes what Lethe made and what nobody owns any more.
package orphans

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/util/flowcontrol"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/kube"
	owners "github.com/lethe-dev/lethe/internal/orphans"
	"github.com/lethe-dev/lethe/internal/reconcile"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/internal/tenancy"
)

// +kubebuilder:rbac:groups="",roleName=lethe-manager-tenant,resources=pods,verbs=get;list;delete
// +kubebuilder:rbac:groups="",roleName=lethe-manager-tenant,resources=serviceaccounts;configmaps;resourcequotas;limitranges,verbs=get;delete
// +kubebuilder:rbac:groups=networking.k8s.io,roleName=lethe-manager-tenant,resources=networkpolicies,verbs=get;delete
// +kubebuilder:rbac:groups=apps,roleName=lethe-manager-tenant,resources=statefulsets,verbs=get;delete
// +kubebuilder:rbac:groups=batch,roleName=lethe-manager-tenant,resources=cronjobs;jobs,verbs=get;delete

const (
	orphansEvery = 15 * time.Minute
	orphansAfter = 15 * time.Second
	// orphanRequests a second at most go to the API server.
	orphanRequests = 50
)

var (
	Removed = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "lethe_orphans_removed_total", Help: "Objects of ours that had lost their owner and were removed, by kind.",
	}, []string{"kind"})
	Left = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "lethe_orphans_left", Help: "Namespaces in which something of ours without an owner could not be removed at the last look.",
	})
)

func init() {
	// A counter that appears with its first event has not increased: it begins at 0.
	for _, kind := range []string{"StatefulSet", reconcile.KindPod, "CronJob", "Job", "NetworkPolicy", "ServiceAccount", "ConfigMap", "ResourceQuota", "LimitRange", "RoleBinding"} {
		Removed.WithLabelValues(kind)
	}
}

// Sweep removes what Lethe made and what nobody owns any more: after `--cascade=orphan`, after finalizers were taken
// off by hand, and after whatever happened while no manager led. It looks when the manager begins to lead, some
// seconds after an owner has gone, and once in a while; where nothing is wrong it only reads. Whether an owner is
// gone is asked past the cache; what is removed is read again before, and removed only as it was read.
type Sweep struct {
	writer kube.Writer
	// direct deletes past the cache: a client that shows its own writes would begin to watch every kind that it
	// writes, pods too, which nobody gave us leave to watch.
	direct   kube.Writer
	caches   cache.Cache
	recorder events.EventRecorder
	settings resources.Settings
	every    time.Duration
	after    time.Duration
	queue    workqueue.TypedDelayingInterface[string] // of namespaces
	limit    flowcontrol.RateLimiter

	mutex sync.Mutex
	left  map[string]bool // namespaces in which something could not be removed
}

// New makes one that looks so often, and so long after an owner has gone. Where that is 0, the defaults count.
func New(mgr ctrl.Manager, w kube.Writer, recorder events.EventRecorder, settings resources.Settings, every, after time.Duration) (*Sweep, error) {
	direct, err := client.New(mgr.GetConfig(), client.Options{HTTPClient: mgr.GetHTTPClient(), Scheme: mgr.GetScheme(), Mapper: mgr.GetRESTMapper()})
	if err != nil {
		return nil, fmt.Errorf("make the orphan sweep's client: %w", err)
	}
	s := &Sweep{writer: w, direct: kube.Writer{Client: direct, Live: w.Live}, caches: mgr.GetCache(), recorder: recorder, settings: settings, every: every, after: after,
		queue: workqueue.NewTypedDelayingQueue[string](), left: map[string]bool{},
		limit: flowcontrol.NewTokenBucketRateLimiter(orphanRequests, orphanRequests)}
	if s.every == 0 {
		s.every = orphansEvery
	}
	if s.after == 0 {
		s.after = orphansAfter
	}
	return s, nil
}

// NeedLeaderElection is of controller-runtime: one manager sweeps.
func (s *Sweep) NeedLeaderElection() bool { return true }

// Start runs until the manager ends.
func (s *Sweep) Start(ctx context.Context) error {
	// The controllers begin at the same time: what they watch may not be in the cache yet.
	for _, kind := range []client.Object{
		&corev1.Namespace{}, &v1alpha1.Tenant{}, &v1alpha1.BotDeployment{}, &v1alpha1.DataStore{}, &appsv1.StatefulSet{}, &batchv1.CronJob{},
		&batchv1.Job{}, &networkingv1.NetworkPolicy{}, &corev1.ServiceAccount{}, &corev1.ConfigMap{}, &corev1.ResourceQuota{},
		&corev1.LimitRange{}, &rbacv1.RoleBinding{},
	} {
		if _, err := s.caches.GetInformer(ctx, kind); err != nil {
			return fmt.Errorf("wait for the cache of %T: %w", kind, err)
		}
	}
	var work sync.WaitGroup
	work.Go(func() {
		for {
			namespace, ended := s.queue.Get()
			if ended {
				return
			}
			s.visit(ctx, namespace)
			s.queue.Done(namespace)
		}
	})
	ticker := time.NewTicker(s.every)
	defer ticker.Stop()
	for {
		if err := s.everywhere(ctx); err != nil {
			log.FromContext(ctx).Error(err, "Listing namespaces for the orphan sweep")
		}
		select {
		case <-ctx.Done():
			s.queue.ShutDown()
			work.Wait()
			return nil
		case <-ticker.C:
		}
	}
}

// Soon has a namespace looked into once garbage collection has had its time.
func (s *Sweep) Soon(namespace string) { s.queue.AddAfter(namespace, s.after) }

// SoonOf does so for the namespaces of a Tenant that has gone.
func (s *Sweep) SoonOf(ctx context.Context, tenant string) {
	namespaces := &corev1.NamespaceList{}
	if err := s.writer.Client.List(ctx, namespaces, client.MatchingFields{reconcile.IndexTenantLabel: tenant}, reconcile.StaleReadOK); err != nil {
		log.FromContext(ctx).Error(err, "Listing the namespaces of a Tenant that is gone")
		return
	}
	for i := range namespaces.Items {
		s.Soon(namespaces.Items[i].Name)
	}
}

// everywhere has each namespace looked into that is, or was, a tenant's: by its label, by a Tenant's status, or because
// something of ours is in it.
func (s *Sweep) everywhere(ctx context.Context) error {
	found := map[string]bool{}
	namespaces, tenants := &corev1.NamespaceList{}, &v1alpha1.TenantList{}
	for _, list := range []client.ObjectList{namespaces, tenants} {
		if err := s.writer.Client.List(ctx, list, client.UnsafeDisableDeepCopy, reconcile.StaleReadOK); err != nil {
			return fmt.Errorf("list %T: %w", list, err)
		}
	}
	for i := range namespaces.Items {
		found[namespaces.Items[i].Name] = true
	}
	for i := range tenants.Items {
		for _, namespace := range tenants.Items[i].Status.Namespaces {
			found[namespace.Name] = true
		}
	}
	children, err := s.children(ctx)
	if err != nil {
		return err
	}
	for _, child := range children {
		found[child.GetNamespace()] = true
	}
	for namespace := range found {
		s.queue.Add(namespace)
	}
	return nil
}

// Regain gives the manager its rights back in a namespace that carries a tenant's label and whose RoleBinding is
// gone: it went with a Tenant whose finalizer was taken off, and what ran there runs on. The binding records nobody
// who lives, so that it goes with the rest, or is taken over by the Tenant that comes next.
func (s *Sweep) Regain(ctx context.Context, namespace string, refused error) error {
	labelled := &corev1.Namespace{}
	if err := s.writer.Client.Get(ctx, client.ObjectKey{Name: namespace}, labelled); err != nil || labelled.DeletionTimestamp != nil {
		return refused
	}
	nobody := &v1alpha1.Tenant{ObjectMeta: metav1.ObjectMeta{Name: labelled.Labels[v1alpha1.LabelTenant], UID: "regained"}}
	binding := resources.TenantRoleBindings(s.settings, nobody, namespace)[0]
	binding.OwnerReferences = nil
	if err := s.writer.Client.Create(ctx, binding, kube.FieldOwner); err != nil {
		return refused
	}
	log.FromContext(ctx).Info("Took back the rights to stop what runs in a namespace whose Tenant is gone", "namespace", namespace)
	return apierrors.NewConflict(schema.GroupResource{Resource: "rolebindings"}, binding.Name, errors.New("the rights were taken back just now"))
}

// visit looks into one namespace, and has it looked into again when that went wrong.
func (s *Sweep) visit(ctx context.Context, namespace string) {
	_, err := s.Clear(ctx, namespace)
	if apierrors.IsForbidden(err) {
		err = s.Regain(ctx, namespace, err)
	}
	if ctx.Err() != nil {
		return
	}
	s.mutex.Lock()
	defer s.mutex.Unlock()
	delete(s.left, namespace)
	if err != nil {
		s.left[namespace] = true
		log.FromContext(ctx).Error(err, "Removing what has no owner any more", "namespace", namespace)
		if !apierrors.IsForbidden(err) { // without rights the next round is soon enough
			s.queue.AddAfter(namespace, s.after)
		}
	}
	Left.Set(float64(len(s.left)))
}

// Clear removes what has no owner any more from a namespace, and names what of it still runs.
func (s *Sweep) Clear(ctx context.Context, namespace string) (running []string, err error) {
	children, err := s.children(ctx, client.InNamespace(namespace))
	if err != nil {
		return nil, err
	}
	alive, err := s.cachedOwners(ctx, namespace)
	if err != nil {
		return nil, err
	}
	pods, err := s.pods(ctx, namespace)
	if apierrors.IsForbidden(err) && !slices.ContainsFunc(suspectsIn(children, alive, children), kube.Runs) {
		return nil, nil // nothing that runs is known here, and nobody gave us rights: it is no namespace of ours
	}
	if err != nil {
		return nil, err
	}
	for _, pod := range pods {
		running = append(running, nameOf(pod))
	}
	suspects := suspectsIn(slices.Concat(children, pods), alive, children)
	if len(suspects) == 0 {
		return running, nil
	}
	look := &looks{live: s.writer.Live, namespace: namespace, known: map[string]owners.Owners{}}
	slices.SortStableFunc(suspects, runningFirst)
	var removed []string
	var failed error
	for _, child := range suspects {
		gone, err := s.remove(ctx, look, child, children)
		if err != nil {
			failed = errors.Join(failed, err) // one that cannot be removed keeps none of the others
			continue
		}
		if !gone {
			continue
		}
		removed = append(removed, nameOf(child))
		if kube.Runs(child) && kindOf(child) != reconcile.KindPod {
			running = append(running, nameOf(child))
		}
	}
	if len(removed) > 0 {
		s.tell(ctx, namespace, removed)
	}
	released, err := s.release(ctx, look, suspects)
	if released && err == nil && failed == nil {
		log.FromContext(ctx).Info("Left a namespace whose Tenant is gone", "namespace", namespace)
	}
	return running, errors.Join(failed, err)
}

// Running names the pods of ours in a namespace.
func (s *Sweep) Running(ctx context.Context, namespace string) ([]string, error) {
	pods, err := s.pods(ctx, namespace)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, pod := range pods {
		names = append(names, nameOf(pod))
	}
	return names, nil
}

// suspectsIn are the children that, by what the cache knows of owners, are worth a look past it.
func suspectsIn(among []client.Object, alive map[string]owners.Owners, children []client.Object) []client.Object {
	var suspects []client.Object
	for _, child := range among {
		owner, known := owners.OwnerOf(child)
		if known && (alive[owner.Kind].Of(owner) != owners.Lives || isAdrift(child, owner, children)) {
			suspects = append(suspects, child)
		}
	}
	return suspects
}

// isAdrift says of a child whose owner lives that nothing controls it, and that nothing will: a Job that its CronJob
// left behind, and a pod whose StatefulSet or Job is gone.
func isAdrift(child client.Object, owner owners.Owner, children []client.Object) bool {
	if metav1.GetControllerOf(child) != nil {
		return false
	}
	switch kindOf(child) {
	case reconcile.KindJob:
		return true
	case reconcile.KindPod:
		return owner.Kind != resources.KindBotDeployment || !slices.ContainsFunc(children, func(other client.Object) bool {
			set, ok := other.(*appsv1.StatefulSet) // it takes the pod back by its labels
			return ok && set.DeletionTimestamp == nil && kube.IsOf(set, owner.UID)
		})
	default:
		return false
	}
}

// remove deletes one child if, read again, it still has no owner. What is the Tenant's is left to release.
func (s *Sweep) remove(ctx context.Context, look *looks, suspect client.Object, children []client.Object) (bool, error) {
	owner, _ := owners.OwnerOf(suspect)
	if owner.Kind == resources.KindTenant || suspect.GetDeletionTimestamp() != nil {
		return false, nil
	}
	if err := s.limit.Wait(ctx); err != nil {
		return false, fmt.Errorf("wait for a turn: %w", err)
	}
	child := &metav1.PartialObjectMetadata{}
	child.SetGroupVersionKind(gvkOf(suspect))
	err := s.writer.Live.Get(ctx, client.ObjectKeyFromObject(suspect), child)
	if kube.IsMissing(err, suspect.GetName()) || err == nil && child.GetUID() != suspect.GetUID() {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read %s %s: %w", kindOf(suspect), suspect.GetName(), err)
	}
	owner, known := owners.OwnerOf(child)
	if !known || child.GetDeletionTimestamp() != nil {
		return false, nil
	}
	state, err := look.at(ctx, owner)
	if err != nil {
		return false, err
	}
	// A bot that is on its way out keeps its name's objects until it is gone; what runs for it goes at once.
	if state == owners.Lives && !isAdrift(child, owner, children) || state == owners.Ending && !kube.Runs(suspect) {
		return false, nil
	}
	if err := s.direct.Delete(ctx, child); err != nil {
		if apierrors.IsConflict(err) {
			s.queue.AddAfter(child.GetNamespace(), s.after)
			return false, nil
		}
		return false, err
	}
	Removed.WithLabelValues(kindOf(suspect)).Inc()
	return true, nil
}

// release leaves a namespace whose Tenant is gone for good: walls and rights go when no bot, no store and nothing
// that runs is in it any more, our own rights last. A Tenant made again for the namespace takes them over instead.
func (s *Sweep) release(ctx context.Context, look *looks, suspects []client.Object) (bool, error) {
	var walls []client.Object
	for _, suspect := range suspects {
		owner, _ := owners.OwnerOf(suspect)
		if owner.Kind != resources.KindTenant || suspect.GetDeletionTimestamp() != nil {
			continue
		}
		state, err := look.at(ctx, owner)
		if err != nil {
			return false, err
		}
		if state == owners.Gone {
			walls = append(walls, suspect)
		}
	}
	if len(walls) == 0 {
		return false, nil
	}
	whose, err := tenancy.Read(ctx, s.writer.Live, look.namespace)
	if err != nil {
		return false, err
	}
	if whose.Standing != tenancy.Nobodys {
		return false, nil // there is a Tenant for it, or soon will be, or it goes with all that is in it
	}
	used, _, err := reconcile.LookInto(ctx, s.writer.Live, look.namespace)
	if err != nil || used {
		return false, err
	}
	pods, err := s.pods(ctx, look.namespace)
	if err != nil || len(pods) > 0 {
		return false, err
	}
	slices.SortFunc(walls, func(a, b client.Object) int { return releaseRank(a) - releaseRank(b) })
	for _, wall := range walls {
		if err := s.limit.Wait(ctx); err != nil {
			return false, fmt.Errorf("wait for a turn: %w", err)
		}
		if err := s.direct.Delete(ctx, wall); err != nil {
			return false, err
		}
		Removed.WithLabelValues(kindOf(wall)).Inc()
	}
	return true, nil
}

// releaseRank puts our own rights last.
func releaseRank(o client.Object) int {
	if _, ok := o.(*rbacv1.RoleBinding); !ok {
		return 0
	}
	if o.GetName() != resources.BindingManager {
		return 1
	}
	return 2
}

// tell sends one event for a namespace: on its Tenant if it has one, else on itself.
func (s *Sweep) tell(ctx context.Context, namespace string, removed []string) {
	about := &corev1.Namespace{}
	if err := s.writer.Client.Get(ctx, client.ObjectKey{Name: namespace}, about); err != nil {
		about = &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}
	}
	var regarding runtime.Object = about
	tenant := &v1alpha1.Tenant{}
	if err := s.writer.Client.Get(ctx, client.ObjectKey{Name: about.Labels[v1alpha1.LabelTenant]}, tenant); err == nil {
		regarding = tenant
	}
	s.recorder.Eventf(regarding, nil, corev1.EventTypeWarning, v1alpha1.ReasonOrphanRemoved, "Sweep",
		"Removed from namespace %s what belonged to no BotDeployment or DataStore any more: %s.", namespace, reconcile.CutList(removed))
}

// childKinds are the kinds of our children that the cache holds.
func childKinds() []client.ObjectList {
	return []client.ObjectList{
		&appsv1.StatefulSetList{}, &batchv1.CronJobList{}, &batchv1.JobList{}, &networkingv1.NetworkPolicyList{}, &corev1.ServiceAccountList{},
		&corev1.ConfigMapList{}, &corev1.ResourceQuotaList{}, &corev1.LimitRangeList{}, &rbacv1.RoleBindingList{},
	}
}

// children are what the cache holds of ours, with an owner on record.
func (s *Sweep) children(ctx context.Context, options ...client.ListOption) ([]client.Object, error) {
	var children []client.Object
	for _, list := range childKinds() {
		if err := s.writer.Client.List(ctx, list, append(options, reconcile.StaleReadOK)...); err != nil {
			return nil, fmt.Errorf("list %T: %w", list, err)
		}
		err := meta.EachListItem(list, func(item runtime.Object) error {
			if child, ok := item.(client.Object); ok {
				if _, known := owners.OwnerOf(child); known {
					children = append(children, child)
				}
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("read %T: %w", list, err)
		}
	}
	return children, nil
}

// pods of ours in a namespace, read past the cache, which holds none. Those that have ended are left to their
// controllers.
func (s *Sweep) pods(ctx context.Context, namespace string) ([]client.Object, error) {
	if err := s.limit.Wait(ctx); err != nil {
		return nil, fmt.Errorf("wait for a turn: %w", err)
	}
	list := &metav1.PartialObjectMetadataList{}
	list.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("PodList"))
	err := s.writer.Live.List(ctx, list, client.InNamespace(namespace), client.MatchingFieldsSelector{Selector: reconcile.NotEnded},
		client.MatchingLabels{v1alpha1.LabelManagedBy: v1alpha1.ManagedByLethe})
	if err != nil {
		return nil, fmt.Errorf("list the pods of ours in namespace %s: %w", namespace, err)
	}
	var pods []client.Object
	for i := range list.Items {
		list.Items[i].SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind(reconcile.KindPod))
		pods = append(pods, &list.Items[i])
	}
	return pods, nil
}

// cachedOwners are the owners that the cache knows for a namespace: its bots and stores, and the Tenants whose it is
// or that list it.
func (s *Sweep) cachedOwners(ctx context.Context, namespace string) (map[string]owners.Owners, error) {
	bots, stores, tenants := &v1alpha1.BotDeploymentList{}, &v1alpha1.DataStoreList{}, &v1alpha1.TenantList{}
	for _, list := range []client.ObjectList{bots, stores} {
		if err := s.writer.Client.List(ctx, list, client.InNamespace(namespace), client.UnsafeDisableDeepCopy, reconcile.StaleReadOK); err != nil {
			return nil, fmt.Errorf("list %T: %w", list, err)
		}
	}
	if err := s.writer.Client.List(ctx, tenants, client.MatchingFields{reconcile.IndexNamespace: namespace}, client.UnsafeDisableDeepCopy, reconcile.StaleReadOK); err != nil {
		return nil, fmt.Errorf("list the Tenants of namespace %s: %w", namespace, err)
	}
	labelled, tenant := &corev1.Namespace{}, v1alpha1.Tenant{}
	err := s.writer.Client.Get(ctx, client.ObjectKey{Name: namespace}, labelled)
	if err == nil {
		err = s.writer.Client.Get(ctx, client.ObjectKey{Name: labelled.Labels[v1alpha1.LabelTenant]}, &tenant)
	}
	if client.IgnoreNotFound(err) != nil {
		return nil, fmt.Errorf("read the Tenant of namespace %s: %w", namespace, err)
	}
	tenants.Items = append(tenants.Items, tenant)
	found := map[string]owners.Owners{}
	for kind, list := range map[string]client.ObjectList{
		resources.KindBotDeployment: bots, resources.KindDataStore: stores, resources.KindTenant: tenants,
	} {
		if found[kind], err = owners.Among(list); err != nil {
			return nil, fmt.Errorf("read %T: %w", list, err)
		}
	}
	return found, nil
}

// looks remembers what the API server said about owners in one namespace, for one pass.
type looks struct {
	live      client.Reader
	namespace string
	known     map[string]owners.Owners
}

func (l *looks) at(ctx context.Context, owner owners.Owner) (owners.State, error) {
	if _, ok := l.known[owner.Kind]; !ok {
		found, err := owners.List(ctx, l.live, owner.Kind, owner.Namespace)
		if err != nil {
			return "", err
		}
		l.known[owner.Kind] = found
	}
	return l.known[owner.Kind].Of(owner), nil
}

// gvkOf a child: the lists that it came in say it of each item, which the items do not.
func gvkOf(child client.Object) schema.GroupVersionKind {
	switch child.(type) {
	case *appsv1.StatefulSet:
		return appsv1.SchemeGroupVersion.WithKind("StatefulSet")
	case *batchv1.CronJob:
		return batchv1.SchemeGroupVersion.WithKind("CronJob")
	case *batchv1.Job:
		return batchv1.SchemeGroupVersion.WithKind(reconcile.KindJob)
	case *networkingv1.NetworkPolicy:
		return networkingv1.SchemeGroupVersion.WithKind("NetworkPolicy")
	case *corev1.ServiceAccount:
		return corev1.SchemeGroupVersion.WithKind("ServiceAccount")
	case *corev1.ConfigMap:
		return corev1.SchemeGroupVersion.WithKind("ConfigMap")
	case *corev1.ResourceQuota:
		return corev1.SchemeGroupVersion.WithKind("ResourceQuota")
	case *corev1.LimitRange:
		return corev1.SchemeGroupVersion.WithKind("LimitRange")
	case *rbacv1.RoleBinding:
		return rbacv1.SchemeGroupVersion.WithKind("RoleBinding")
	default:
		return child.GetObjectKind().GroupVersionKind()
	}
}

func kindOf(child client.Object) string { return gvkOf(child).Kind }

func nameOf(child client.Object) string { return kindOf(child) + " " + child.GetName() }

// runningFirst puts what runs before what is only there, and StatefulSets, which would make a pod again, before pods.
func runningFirst(a, b client.Object) int { return runningRank(a) - runningRank(b) }

func runningRank(o client.Object) int {
	switch {
	case kindOf(o) == reconcile.KindPod:
		return 1
	case kube.Runs(o):
		return 0
	default:
		return 2
	}
}
