package tenant

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/selection"
	toolscache "k8s.io/client-go/tools/cache"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/reconcile"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/internal/status"
)

const (
	// kindsEvery is how often the manager looks whether the cluster has learnt one of the kinds that it did not have.
	kindsEvery = time.Minute
	// foreignNamed is how many policies a message names.
	foreignNamed = 5
	// foreignEvents is how many events wait until the Tenants' queue takes them.
	foreignEvents = 1024
)

var CorePolicies = schema.GroupResource{Group: networkingv1.GroupName, Resource: "networkpolicies"}

// ForeignPolicies knows foreign network policies, by name and namespace and no more. It holds those of the whole
// cluster that do not carry our label: a namespace that a tenant takes over later must be seen as it is at that
// moment. Those that carry it without being ours are found in the manager's own cache.
type ForeignPolicies struct {
	cache  cache.Cache
	ours   client.Reader
	mapper meta.RESTMapper
	kinds  []schema.GroupResource
	events chan event.GenericEvent

	mutex   sync.RWMutex
	watched map[schema.GroupResource]schema.GroupVersionKind
}

// NewForeignPolicies makes the cache of them, and has the manager run it.
func NewForeignPolicies(ctx context.Context, mgr ctrl.Manager, kinds []schema.GroupResource) (*ForeignPolicies, error) {
	notOurs, err := labels.NewRequirement(v1alpha1.LabelManagedBy, selection.NotIn, []string{v1alpha1.ManagedByLethe})
	if err != nil {
		return nil, fmt.Errorf("select foreign policies: %w", err)
	}
	c, err := cache.New(mgr.GetConfig(), cache.Options{
		HTTPClient: mgr.GetHTTPClient(), Scheme: mgr.GetScheme(), Mapper: mgr.GetRESTMapper(),
		ByObject:         map[client.Object]cache.ByObject{&networkingv1.NetworkPolicy{}: {Label: labels.NewSelector().Add(*notOurs)}},
		DefaultTransform: onlyName,
	})
	if err != nil {
		return nil, fmt.Errorf("make the cache of foreign policies: %w", err)
	}
	f := &ForeignPolicies{cache: c, ours: mgr.GetCache(), mapper: mgr.GetRESTMapper(), kinds: kinds,
		events: make(chan event.GenericEvent, foreignEvents), watched: map[schema.GroupResource]schema.GroupVersionKind{}}
	if err := f.watchKinds(ctx); err != nil {
		return nil, err
	}
	if err := mgr.Add(f); err != nil {
		return nil, fmt.Errorf("add the cache of foreign policies: %w", err)
	}
	return f, nil
}

// onlyName keeps out of memory what nobody asks for.
func onlyName(object any) (any, error) {
	if o, ok := object.(*metav1.PartialObjectMetadata); ok {
		o.ManagedFields, o.Labels, o.Annotations, o.OwnerReferences, o.Finalizers = nil, nil, nil, nil, nil
	}
	return object, nil
}

// GetCache makes the manager wait for it before anything is reconciled.
func (f *ForeignPolicies) GetCache() cache.Cache { return f.cache }

// Start runs the cache, and looks for kinds that come later.
func (f *ForeignPolicies) Start(ctx context.Context) error {
	go func() {
		ticker := time.NewTicker(kindsEvery)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
				if err := f.watchKinds(ctx); err != nil {
					log.FromContext(ctx).Error(err, "Looking for kinds of network policies")
				}
			}
		}
	}()
	if err := f.cache.Start(ctx); err != nil {
		return fmt.Errorf("watch foreign policies: %w", err)
	}
	return nil
}

// watchKinds begins to watch the kinds that the cluster has and that are not watched yet.
func (f *ForeignPolicies) watchKinds(ctx context.Context) error {
	for _, kind := range f.kinds {
		f.mutex.RLock()
		_, known := f.watched[kind]
		f.mutex.RUnlock()
		if known {
			continue
		}
		gvk, err := f.mapper.KindFor(kind.WithVersion(""))
		if meta.IsNoMatchError(err) {
			continue
		}
		if err != nil {
			return fmt.Errorf("look for %s: %w", kind, err)
		}
		informer, err := f.cache.GetInformer(ctx, metadataOf(gvk), cache.BlockUntilSynced(false))
		if err != nil {
			return fmt.Errorf("watch %s: %w", kind, err)
		}
		if _, err := informer.AddEventHandler(f.handler()); err != nil {
			return fmt.Errorf("watch %s: %w", kind, err)
		}
		f.mutex.Lock()
		f.watched[kind] = gvk
		f.mutex.Unlock()
	}
	return nil
}

// handler tells the Tenants' queue that a policy came or went; that one has changed is no news.
func (f *ForeignPolicies) handler() toolscache.ResourceEventHandler {
	tell := func(object any) {
		if gone, ok := object.(toolscache.DeletedFinalStateUnknown); ok {
			object = gone.Obj
		}
		if o, ok := object.(client.Object); ok {
			f.events <- event.GenericEvent{Object: o}
		}
	}
	return toolscache.ResourceEventHandlerFuncs{AddFunc: tell, DeleteFunc: tell}
}

func metadataOf(gvk schema.GroupVersionKind) *metav1.PartialObjectMetadata {
	o := &metav1.PartialObjectMetadata{}
	o.SetGroupVersionKind(gvk)
	return o
}

// find lists the foreign policies of a namespace that a Tenant does not name, each as "resource.group namespace/name".
func (f *ForeignPolicies) find(ctx context.Context, tenant *v1alpha1.Tenant, namespace string) ([]string, error) {
	var found []string
	note := func(kind schema.GroupResource, name string) {
		named := slices.ContainsFunc(tenant.Spec.ForeignNetworkPolicies, func(p v1alpha1.ForeignNetworkPolicy) bool {
			return cmp.Or(p.Group, "networking.k8s.io") == kind.Group && cmp.Or(p.Resource, "networkpolicies") == kind.Resource && p.Name == name
		})
		if !named {
			found = append(found, fmt.Sprintf("%s %s/%s", kind, namespace, name))
		}
	}
	f.mutex.RLock()
	defer f.mutex.RUnlock()
	for kind, gvk := range f.watched {
		list := &metav1.PartialObjectMetadataList{}
		list.SetGroupVersionKind(gvk.GroupVersion().WithKind(gvk.Kind + "List"))
		if err := f.cache.List(ctx, list, client.InNamespace(namespace), client.UnsafeDisableDeepCopy); err != nil {
			return nil, fmt.Errorf("list %s in namespace %s: %w", kind, namespace, err)
		}
		for i := range list.Items {
			note(kind, list.Items[i].Name)
		}
	}
	ours := &networkingv1.NetworkPolicyList{}
	if err := f.ours.List(ctx, ours, client.InNamespace(namespace), client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("list network policies in namespace %s: %w", namespace, err)
	}
	for i := range ours.Items {
		if !isOurPolicy(&ours.Items[i]) {
			note(CorePolicies, ours.Items[i].Name)
		}
	}
	slices.Sort(found)
	return found, nil
}

// isOurPolicy goes by whose a policy is and by the name that this owner's policy has. A label is anybody's to write.
// A policy of an owner that does not exist goes by garbage collection.
func isOurPolicy(policy client.Object) bool {
	owner := metav1.GetControllerOf(policy)
	if owner == nil || owner.APIVersion != v1alpha1.GroupVersion.String() || policy.GetLabels()[v1alpha1.LabelManagedBy] != v1alpha1.ManagedByLethe {
		return false
	}
	switch owner.Kind {
	case resources.KindTenant:
		return slices.Contains(resources.TenantPolicies(), policy.GetName())
	case resources.KindBotDeployment:
		return policy.GetName() == resources.BotName(owner.Name)
	case resources.KindDataStore:
		return policy.GetName() == resources.SweeperName(owner.Name)
	}
	return false
}

// observeForeign looks for foreign network policies. It only reads memory, and comes before anything that may fail:
// what it found must not be forgotten by a status that is written for something else.
func (r *Reconciler) observeForeign(ctx context.Context, s *scope) (time.Duration, error) {
	namespaces, err := r.namespacesOf(ctx, s.tenant)
	if err != nil {
		return 0, err
	}
	var found []string
	for i := range namespaces {
		here, err := r.Foreign.find(ctx, s.tenant, namespaces[i].Name)
		if err != nil {
			return 0, err
		}
		found = append(found, here...)
	}
	s.observed.Unopened = len(found) == 0
	if len(found) == 0 {
		return 0, nil
	}
	slices.Sort(found)
	more := ""
	if len(found) > foreignNamed {
		more = fmt.Sprintf(" and %d more", len(found)-foreignNamed)
		found = found[:foreignNamed]
	}
	s.addProblem(&reconcile.Problem{Problem: status.Problem{Condition: v1alpha1.ConditionIsolationReady, Reason: v1alpha1.ReasonForeignNetworkPolicy, Stalled: true,
		Message: fmt.Sprintf("Network policies that are not Lethe's may open what it closed: %s%s. No bot is started until they are deleted, or named in spec.foreignNetworkPolicies.",
			strings.Join(found, ", "), more)}})
	return 0, nil
}
