package tenant

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/reconcile"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/internal/status"
	"github.com/lethe-dev/lethe/internal/tenancy"
)

// +kubebuilder:rbac:groups="",roleName=lethe-manager-tenant,resources=pods;services;replicationcontrollers,verbs=list
// +kubebuilder:rbac:groups=apps,roleName=lethe-manager-tenant,resources=deployments;daemonsets;replicasets,verbs=list
// +kubebuilder:rbac:groups=discovery.k8s.io,roleName=lethe-manager-tenant,resources=endpointslices,verbs=list

const (
	kindService       = "Service"
	kindEndpointSlice = "EndpointSlice"
	// labelServiceName on an EndpointSlice names the Service whose addresses it has.
	labelServiceName = "kubernetes.io/service-name"
	// foreignObjectsPage is how many objects one answer of the API server holds.
	foreignObjectsPage = 500
)

// foreignObjectKinds are what can be in a namespace from before and undo its walls from within: a Service answers a
// name that a bot looks up, a pod mounts a bot's volume, and what makes pods makes more of them, since Kubernetes'
// own controllers go on. Children come before what owns them, so that one that is made meanwhile is not taken for a
// foreign object.
var foreignObjectKinds = []schema.GroupVersionKind{
	{Version: "v1", Kind: reconcile.KindPod},
	{Group: "batch", Version: "v1", Kind: reconcile.KindJob},
	{Group: "batch", Version: "v1", Kind: "CronJob"},
	{Group: "apps", Version: "v1", Kind: "StatefulSet"},
	{Group: "apps", Version: "v1", Kind: "ReplicaSet"},
	{Group: "apps", Version: "v1", Kind: "Deployment"},
	{Group: "apps", Version: "v1", Kind: "DaemonSet"},
	{Version: "v1", Kind: "ReplicationController"},
	{Group: "discovery.k8s.io", Version: "v1", Kind: kindEndpointSlice},
	{Version: "v1", Kind: kindService},
}

// isSuspect says whether a namespace must be looked into: it was not isolated yet, or what was in it may still be.
// Afterwards nobody puts any of these kinds there but Lethe, Kubernetes' own controllers, and who has the verb
// "network" on the Tenant.
func isSuspect(s *scope, namespace client.Object) bool {
	return !tenancy.Holds(s.before, namespace) ||
		!meta.IsStatusConditionTrue(s.before.Status.Conditions, v1alpha1.ConditionIsolationReady)
}

// foreignObjectsIn lists the foreign objects in a namespace that its Tenant does not name, each as "Kind
// namespace/name". It reads past the cache, which knows of nothing that is not ours.
func (r *Reconciler) foreignObjectsIn(ctx context.Context, tenant *v1alpha1.Tenant, namespace string) ([]string, error) {
	var all []metav1.PartialObjectMetadata
	for _, kind := range foreignObjectKinds {
		for next := ""; ; {
			page := &metav1.PartialObjectMetadataList{}
			page.SetGroupVersionKind(kind.GroupVersion().WithKind(kind.Kind + "List"))
			options := []client.ListOption{client.InNamespace(namespace), client.Limit(foreignObjectsPage), client.Continue(next)}
			if kind.Kind == reconcile.KindPod {
				options = append(options, client.MatchingFieldsSelector{Selector: reconcile.NotEnded})
			}
			if err := r.Writer.Live.List(ctx, page, options...); err != nil {
				return nil, fmt.Errorf("look what %s objects were in namespace %s before: %w", kind.Kind, namespace, err)
			}
			for i := range page.Items {
				page.Items[i].SetGroupVersionKind(kind)
				page.Items[i].ManagedFields = nil
				all = append(all, page.Items[i])
			}
			if next = page.Continue; next == "" {
				break
			}
		}
	}
	known, services := map[types.UID]bool{}, map[string]bool{}
	for i := range all {
		known[all[i].UID] = true
		if all[i].Kind == kindService {
			services[all[i].Name] = true
		}
	}
	var found []string
	for i := range all {
		o := &all[i]
		owner := metav1.GetControllerOf(o)
		switch {
		case owner != nil && known[owner.UID], isOurWorkload(o), namesForeign(tenant, o):
			continue // its owner speaks for it, or it is ours, or meant
		case o.Kind == kindEndpointSlice && services[o.Labels[labelServiceName]]:
			continue
		}
		found = append(found, fmt.Sprintf("%s %s/%s", o.Kind, namespace, o.Name))
	}
	slices.Sort(found)
	return found, nil
}

// isOurWorkload goes by the owner and by the name that this owner's workload has.
func isOurWorkload(o *metav1.PartialObjectMetadata) bool {
	owner := metav1.GetControllerOf(o)
	if owner == nil || owner.APIVersion != v1alpha1.GroupVersion.String() || o.Labels[v1alpha1.LabelManagedBy] != v1alpha1.ManagedByLethe {
		return false
	}
	switch owner.Kind {
	case resources.KindBotDeployment:
		return o.Kind == "StatefulSet" && o.Name == resources.BotName(owner.Name)
	case resources.KindDataStore:
		return o.Kind == "CronJob" && o.Name == resources.SweeperName(owner.Name) || o.Kind == reconcile.KindJob
	}
	return false
}

func namesForeign(tenant *v1alpha1.Tenant, o *metav1.PartialObjectMetadata) bool {
	return slices.Contains(tenant.Spec.ForeignObjects, v1alpha1.ForeignObject{Kind: v1alpha1.ForeignObjectKind(o.Kind), Name: o.Name})
}

// lookForForeignObjects looks into a namespace that needs it, before it counts as isolated.
func (r *Reconciler) lookForForeignObjects(ctx context.Context, s *scope, namespace client.Object) error {
	if !isSuspect(s, namespace) {
		return nil
	}
	found, err := r.foreignObjectsIn(ctx, s.tenant, namespace.GetName())
	if err != nil {
		return reconcile.ProblemFromError(v1alpha1.ConditionIsolationReady, err)
	}
	s.foreign = append(s.foreign, found...)
	return nil
}

// looked ends the look into all namespaces. One that the Tenant had, and that is not to be had now, was not looked
// into.
func (s *scope) looked() time.Duration {
	for _, known := range s.before.Status.Namespaces {
		if tenancy.Lists(s.tenant, known.Name) && !slices.ContainsFunc(s.owned, func(n *corev1.Namespace) bool { return n.Name == known.Name }) {
			return 0
		}
	}
	s.suspect, s.suspicion = false, ""
	found := s.foreign
	if len(found) == 0 {
		return 0
	}
	more := ""
	if len(found) > foreignNamed {
		more = fmt.Sprintf(" and %d more", len(found)-foreignNamed)
		found = found[:foreignNamed]
	}
	s.suspect = true
	s.suspicion = fmt.Sprintf("Of before Lethe isolated the namespaces there is still %s%s: it may answer names that bots look up, or mount their volumes. "+
		"No bot is started until it is deleted, or named in spec.foreignObjects.", strings.Join(found, ", "), more)
	return reconcile.ForeignObjectWait
}

// suspicionOf is what an earlier pass found, and no pass since has found gone.
func suspicionOf(tenant *v1alpha1.Tenant) string {
	c := meta.FindStatusCondition(tenant.Status.Conditions, v1alpha1.ConditionIsolationReady)
	if c == nil || c.Status != metav1.ConditionFalse || c.Reason != v1alpha1.ReasonForeignObject {
		return ""
	}
	return c.Message
}

// noteSuspicion makes what is suspected a problem of the pass. Until a look has shown otherwise what was not isolated
// is not.
func (s *scope) noteSuspicion() {
	if s.suspect {
		s.observed.Unopened = false
	}
	if s.suspicion == "" {
		return
	}
	s.addProblem(&reconcile.Problem{Problem: status.Problem{Condition: v1alpha1.ConditionIsolationReady, Reason: v1alpha1.ReasonForeignObject, Stalled: true, Message: s.suspicion}})
}
