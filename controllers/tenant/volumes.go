package tenant

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/orphans"
	"github.com/lethe-dev/lethe/internal/reconcile"
	"github.com/lethe-dev/lethe/internal/resources"
)

// retainedListed is how many retained volumes the status lists, and retainedNamed how many a message does.
const (
	retainedListed = 32
	retainedNamed  = 5
)

// observeVolumes finds the volumes whose bots are gone. Those that were to go with their bot, and were left because its
// finalizer was taken off or the manager was down, go now; the others are listed and count as in use.
func (r *Reconciler) observeVolumes(ctx context.Context, s *scope) (time.Duration, error) {
	namespaces, err := r.namespacesOf(ctx, s.tenant)
	if err != nil {
		return 0, err
	}
	var retained []v1alpha1.RetainedVolume
	var wait time.Duration
	for i := range namespaces {
		left, again, err := r.retainedIn(ctx, s.tenant, namespaces[i].Name)
		if err != nil {
			return 0, err
		}
		retained = append(retained, left...)
		wait = reconcile.MinNonZero(wait, again)
	}
	slices.SortFunc(retained, func(a, b v1alpha1.RetainedVolume) int {
		return strings.Compare(a.Namespace+"/"+a.Name, b.Namespace+"/"+b.Name)
	})
	s.observed.Retained = nil
	s.tenant.Status.RetainedVolumes = nil
	if len(retained) == 0 {
		return wait, nil
	}
	s.tenant.Status.RetainedVolumes = &v1alpha1.RetainedVolumes{Count: int32(len(retained)), Items: retained[:min(len(retained), retainedListed)]}
	if s.tenant.Spec.RetainedVolumes != v1alpha1.RetainedVolumesRelease {
		s.observed.Retained = namesOf(retained)
	}
	return wait, nil
}

// retains says whether volumes of a namespace keep it from being left or deleted.
func (s *scope) retains(namespace string) bool {
	known := s.tenant.Status.RetainedVolumes
	if known == nil || s.tenant.Spec.RetainedVolumes == v1alpha1.RetainedVolumesRelease {
		return false
	}
	return int(known.Count) > len(known.Items) || slices.ContainsFunc(known.Items, func(v v1alpha1.RetainedVolume) bool { return v.Namespace == namespace })
}

// namesOf lists the first volumes for a message.
func namesOf(retained []v1alpha1.RetainedVolume) []string {
	var names []string
	for _, volume := range retained[:min(len(retained), retainedNamed)] {
		names = append(names, volume.Namespace+"/"+volume.Name)
	}
	if more := len(retained) - len(names); more > 0 {
		names = append(names, fmt.Sprintf("%d more", more))
	}
	return names
}

// retainedIn removes what was to go, and returns the volumes of a namespace whose bots are gone.
func (r *Reconciler) retainedIn(ctx context.Context, tenant *v1alpha1.Tenant, namespace string) ([]v1alpha1.RetainedVolume, time.Duration, error) {
	claims, err := reconcile.ClaimsIn(ctx, r.Writer.Client, namespace)
	if err != nil || len(claims) == 0 {
		return nil, 0, err
	}
	bots := &v1alpha1.BotDeploymentList{}
	if err := r.Writer.Client.List(ctx, bots, client.InNamespace(namespace), reconcile.StaleReadOK, client.UnsafeDisableDeepCopy); err != nil {
		return nil, 0, fmt.Errorf("list the bots of namespace %s: %w", namespace, err)
	}
	live := map[string]bool{}
	for i := range bots.Items {
		live[string(bots.Items[i].UID)] = true
	}
	var retained []v1alpha1.RetainedVolume
	var wait time.Duration
	for i := range claims {
		claim := &claims[i]
		if live[claim.Annotations[v1alpha1.AnnotationBotUID]] || claim.DeletionTimestamp != nil {
			continue
		}
		gone, err := r.sweepVolume(ctx, tenant, claim)
		if err != nil { // in doubt it stays, and is looked at again
			log.FromContext(ctx).Error(err, "Removing the volume of a bot that is gone", "object", client.ObjectKeyFromObject(claim))
			wait = reconcile.TerminatingWait
		}
		if !gone {
			retained = append(retained, v1alpha1.RetainedVolume{Namespace: namespace, Name: claim.Name})
		}
	}
	return retained, wait, nil
}

// sweepVolume deletes a volume that was to go with its bot, and whose bot is gone: by its record, which only the
// manager and who may adopt can write, and by the API server's own list of bots, taken after the claim was read. In
// doubt it stays.
func (r *Reconciler) sweepVolume(ctx context.Context, tenant *v1alpha1.Tenant, claim *corev1.PersistentVolumeClaim) (bool, error) {
	record := claim.Annotations
	bot := types.UID(record[v1alpha1.AnnotationBotUID])
	if bot == "" || record[v1alpha1.AnnotationTenantUID] != string(tenant.UID) || record[v1alpha1.AnnotationReclaimPolicy] != resources.ReclaimDelete {
		return false, nil
	}
	state, err := orphans.Look(ctx, r.Writer.Live, orphans.Owner{Kind: resources.KindBotDeployment, Namespace: claim.Namespace, UID: bot})
	if err != nil {
		return false, err
	}
	if state != orphans.Gone {
		return false, nil
	}
	if err := r.Writer.Delete(ctx, claim); err != nil {
		return false, err
	}
	return true, nil
}
