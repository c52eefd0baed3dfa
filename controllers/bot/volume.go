package bot

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/kube"
	"github.com/lethe-dev/lethe/internal/orphans"
	"github.com/lethe-dev/lethe/internal/reconcile"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/internal/status"
)

// +kubebuilder:rbac:groups="",resources=persistentvolumeclaims,verbs=list;watch
// +kubebuilder:rbac:groups="",roleName=lethe-manager-tenant,resources=persistentvolumeclaims,verbs=get;create;update;delete

// ensureVolume has the bot's volume there before anything that could mount it, and nothing mount one that is not the
// bot's.
func (r *Reconciler) ensureVolume(ctx context.Context, s *scope) (time.Duration, error) {
	if s.bot.Spec.Storage == nil {
		s.bot.Status.Claim = nil
		return 0, nil
	}
	claim, err := r.claimOf(ctx, s)
	if p := reconcile.ProblemIn(err); p != nil && p.Stalled {
		return 0, errors.Join(err, r.stop(ctx, s))
	}
	if err != nil {
		return 0, err
	}
	s.bot.Status.Claim = &v1alpha1.BotClaimStatus{Name: claim.Name, UID: string(claim.UID)}
	if differs := claimDiffers(claim, s.bot.Spec.Storage); differs != nil {
		s.addProblem(differs)
		return reconcile.ForeignObjectWait, nil
	}
	return 0, nil
}

// claimOf makes or finds the bot's claim. What is not on record as this bot's is taken over where the spec names it
// and it is this Tenant's to take, and is a problem otherwise: never changed, never deleted.
func (r *Reconciler) claimOf(ctx context.Context, s *scope) (*corev1.PersistentVolumeClaim, error) {
	desired := resources.BotClaim(s.bot, s.tenant)
	claim, err := r.findClaim(ctx, s, desired)
	switch {
	case err != nil:
		return nil, err
	case claim.DeletionTimestamp != nil:
		return nil, &reconcile.Problem{After: reconcile.TerminatingWait, Problem: status.Problem{
			Condition: v1alpha1.ConditionWorkloadReady, Reason: v1alpha1.ReasonTerminating,
			Message: fmt.Sprintf("PersistentVolumeClaim %s is being deleted: it goes, and its data with it, as soon as no pod uses it.", claim.Name)}}
	case resources.IsClaimOf(claim, s.bot, s.tenant):
		return r.record(ctx, desired, claim, false)
	case s.bot.Spec.Storage.Claim == nil:
		return nil, foreignVolume("PersistentVolumeClaim %s %s, not this bot's, and is not mounted. To have it, name it in spec.storage.claim.existing of a bot "+
			"of the same Tenant; to start empty, delete it or give the bot another name.", claim.Name, ownerOfClaim(claim))
	default:
		if err := r.mayAdopt(ctx, s, claim); err != nil {
			return nil, err
		}
		return r.record(ctx, desired, claim, true)
	}
}

// findClaim reads the claim of that name, or makes one where there never was one. What is not as it should be is read
// live: the cache may be behind, and holds too little to be written back.
func (r *Reconciler) findClaim(ctx context.Context, s *scope, desired *corev1.PersistentVolumeClaim) (*corev1.PersistentVolumeClaim, error) {
	const condition = v1alpha1.ConditionWorkloadReady
	key := client.ObjectKeyFromObject(desired)
	claim := &corev1.PersistentVolumeClaim{}
	err := r.Writer.Client.Get(ctx, key, claim)
	if client.IgnoreNotFound(err) != nil || (err == nil && isRecorded(desired, claim)) {
		return claim, reconcile.ProblemFromError(condition, err)
	}
	cached := err == nil
	named, had := s.bot.Spec.Storage.Claim != nil, s.bot.Status.Claim != nil && s.bot.Status.Claim.Name == key.Name
	if !cached && !named && !had {
		err := r.Writer.Client.Create(ctx, desired, kube.FieldOwner)
		if err == nil {
			log.FromContext(ctx).Info("Created PersistentVolumeClaim", "object", key)
			return desired, nil
		}
		if !apierrors.IsAlreadyExists(err) {
			return nil, reconcile.ProblemFromError(condition, err)
		}
	}
	// The cache holds only what carries our label.
	err = r.Writer.Live.Get(ctx, key, claim)
	switch {
	case !apierrors.IsNotFound(err):
		return claim, reconcile.ProblemFromError(condition, err)
	case named:
		return nil, volumeMissing("PersistentVolumeClaim %s, which spec.storage.claim.existing names, does not exist: make or restore it.", key.Name)
	case had:
		return nil, volumeMissing("PersistentVolumeClaim %s, which held this bot's data, is gone, and no empty one takes its place: restore it and name it in "+
			"spec.storage.claim.existing, or make the bot anew.", key.Name)
	default:
		return nil, &reconcile.Problem{Quiet: true, After: reconcile.ConflictWait, Problem: status.Problem{Condition: condition, Reason: v1alpha1.ReasonRetrying, Message: "A claim appeared and went away."}}
	}
}

// isRecorded says whether a claim's labels and record are as they should be, and nothing is asked of it beside.
func isRecorded(desired, claim *corev1.PersistentVolumeClaim) bool {
	for key, value := range desired.Labels {
		if claim.Labels[key] != value {
			return false
		}
	}
	for key, value := range desired.Annotations {
		if claim.Annotations[key] != value {
			return false
		}
	}
	_, asked := claim.Annotations[v1alpha1.AnnotationAdopt]
	return !asked && claim.Annotations[v1alpha1.AnnotationReclaimPolicy] != "" && claim.DeletionTimestamp == nil
}

// mayAdopt says whether a claim that the spec names, and that is not on record as this bot's, may become so. A
// namespace can change hands, and a name can come back: UIDs decide. What another Tenant left, or nobody wrote down,
// needs the word of somebody who may adopt for this Tenant, and nobody's word is enough for what a living Tenant or
// bot has on record.
func (r *Reconciler) mayAdopt(ctx context.Context, s *scope, claim *corev1.PersistentVolumeClaim) error {
	record := claim.Annotations
	if tenant := record[v1alpha1.AnnotationTenantUID]; tenant != string(s.tenant.UID) {
		if record[v1alpha1.AnnotationAdopt] != string(s.tenant.UID) {
			return foreignVolume("PersistentVolumeClaim %s %s. Someone allowed the verb adopt on Tenant %s must give it to the Tenant first: "+
				"kubectl -n %s annotate pvc %s %s=%s", claim.Name, ownerOfClaim(claim), s.tenant.Name, claim.Namespace, claim.Name, v1alpha1.AnnotationAdopt, s.tenant.UID)
		}
		owners, err := orphans.List(ctx, r.Writer.Live, resources.KindTenant, "")
		if err != nil {
			return err
		}
		if tenant != "" && owners[types.UID(tenant)] != "" {
			return foreignVolume("PersistentVolumeClaim %s is on record as another Tenant's that exists: it is not this one's to take.", claim.Name)
		}
	}
	bot := record[v1alpha1.AnnotationBotUID]
	if bot == "" {
		return nil
	}
	owners, err := orphans.List(ctx, r.Writer.Live, resources.KindBotDeployment, claim.Namespace)
	if err != nil {
		return err
	}
	if owners[types.UID(bot)] != "" && bot != string(s.bot.UID) {
		return foreignVolume("PersistentVolumeClaim %s is the volume of BotDeployment %s, which exists: one volume belongs to one bot.", claim.Name, record[v1alpha1.AnnotationBot])
	}
	return nil
}

// record writes down whose a claim is, and leaves everything else of it alone. One that is taken over is kept from
// then on, until somebody who may adopt writes otherwise.
func (r *Reconciler) record(ctx context.Context, desired, live *corev1.PersistentVolumeClaim, takenOver bool) (*corev1.PersistentVolumeClaim, error) {
	if isRecorded(desired, live) {
		return live, nil
	}
	written := live.DeepCopy()
	if written.Labels == nil {
		written.Labels = map[string]string{}
	}
	if written.Annotations == nil {
		written.Annotations = map[string]string{}
	}
	maps.Copy(written.Labels, desired.Labels)
	if takenOver || written.Annotations[v1alpha1.AnnotationReclaimPolicy] == "" {
		written.Annotations[v1alpha1.AnnotationReclaimPolicy] = resources.ReclaimRetain
	}
	maps.Copy(written.Annotations, desired.Annotations)
	delete(written.Annotations, v1alpha1.AnnotationAdopt)
	// At the version that was judged.
	if err := r.Writer.Client.Update(ctx, written, kube.FieldOwner); err != nil {
		return nil, reconcile.ProblemFromError(v1alpha1.ConditionWorkloadReady, fmt.Errorf("record whose PersistentVolumeClaim %s is: %w", live.Name, err))
	}
	return written, nil
}

// ownerOfClaim says in words whose a claim is on record.
func ownerOfClaim(claim *corev1.PersistentVolumeClaim) string {
	switch record := claim.Annotations; {
	case record[v1alpha1.AnnotationTenantUID] == "" || record[v1alpha1.AnnotationBotUID] == "":
		return "is on record as nobody's"
	case record[v1alpha1.AnnotationBot] == "":
		return "is on record as that of a bot with the UID " + short(record[v1alpha1.AnnotationBotUID])
	default:
		return fmt.Sprintf("is on record as that of a bot %s with the UID %s", short(record[v1alpha1.AnnotationBot]), short(record[v1alpha1.AnnotationBotUID]))
	}
}

// short bounds what a foreign annotation puts into a message.
func short(text string) string {
	text = strings.Map(func(r rune) rune {
		if r == '-' || r == '.' || (r >= '0' && r <= '9') || (r >= 'a' && r <= 'z') {
			return r
		}
		return -1
	}, text)
	return text[:min(len(text), 63)]
}

// claimDiffers says in what a claim is not as the spec says. It is used all the same: what it holds counts more.
func claimDiffers(claim *corev1.PersistentVolumeClaim, storage *v1alpha1.BotStorage) *reconcile.Problem {
	var differs []string
	if has := claim.Spec.Resources.Requests[corev1.ResourceStorage]; !storage.Size.IsZero() && has.Cmp(storage.Size) != 0 {
		differs = append(differs, fmt.Sprintf("is of %s and not of the %s that spec.storage.size says", has.String(), storage.Size.String()))
	}
	if class := storage.StorageClassName; class != nil && (claim.Spec.StorageClassName == nil || *claim.Spec.StorageClassName != *class) {
		differs = append(differs, "is not of the class that spec.storage.storageClassName says")
	}
	if len(differs) == 0 {
		return nil
	}
	return &reconcile.Problem{Problem: status.Problem{Condition: v1alpha1.ConditionReady, Reason: v1alpha1.ReasonVolumeDiffers, Stalled: true,
		Message: fmt.Sprintf("PersistentVolumeClaim %s %s. Make the bot anew, with reclaimPolicy Retain before, and with spec.storage.claim.existing: %s "+
			"and what the claim has, or a new claim and a copy of the data.", claim.Name, strings.Join(differs, ", and "), claim.Name)}}
}

func foreignVolume(format string, args ...any) error {
	return &reconcile.Problem{After: reconcile.ForeignObjectWait, Problem: status.Problem{Condition: v1alpha1.ConditionWorkloadReady, Reason: v1alpha1.ReasonForeignVolume, Stalled: true,
		Message: fmt.Sprintf(format, args...)}}
}

func volumeMissing(format string, args ...any) error {
	return &reconcile.Problem{After: reconcile.ForeignObjectWait, Problem: status.Problem{Condition: v1alpha1.ConditionWorkloadReady, Reason: v1alpha1.ReasonVolumeMissing, Stalled: true,
		Message: fmt.Sprintf(format, args...)}}
}

// releaseVolumes lets the bot's volumes go with it, or writes down that they stay. What cannot be deleted stays, and
// does not keep the bot.
func (r *Reconciler) releaseVolumes(ctx context.Context, s *scope) (time.Duration, error) {
	if s.bot.Spec.Storage == nil {
		return 0, nil
	}
	claims, err := reconcile.ClaimsIn(ctx, r.Writer.Client, s.bot.Namespace)
	if err != nil {
		return 0, err
	}
	for i := range claims {
		claim := &claims[i]
		if claim.Annotations[v1alpha1.AnnotationBotUID] != string(s.bot.UID) || claim.DeletionTimestamp != nil {
			continue
		}
		policy := resources.ReclaimPolicyOf(s.bot)
		if s.bot.Spec.Storage.Claim != nil {
			// What was taken over goes by its record, which only the manager and who may adopt write, as it is now.
			policy, err = r.recordedPolicy(ctx, claim)
			if err != nil {
				return 0, err
			}
		}
		if policy == resources.ReclaimDelete {
			err = r.Writer.Delete(ctx, claim)
		} else if claim.Annotations[v1alpha1.AnnotationReclaimPolicy] != policy {
			err = client.IgnoreNotFound(r.keep(ctx, claim))
		}
		if apierrors.IsForbidden(err) {
			r.Recorder.Eventf(s.bot, nil, corev1.EventTypeWarning, v1alpha1.ReasonVolumeKept, "Delete",
				"PersistentVolumeClaim %s stays: the manager may not write it any more. Delete it by hand if it is to go.", claim.Name)
			err = nil
		}
		if err != nil {
			return 0, reconcile.ProblemFromError(v1alpha1.ConditionWorkloadReady, err)
		}
	}
	return 0, nil
}

// recordedPolicy is what a claim's record says becomes of it, read live. In doubt it stays.
func (r *Reconciler) recordedPolicy(ctx context.Context, cached *corev1.PersistentVolumeClaim) (string, error) {
	claim := &corev1.PersistentVolumeClaim{}
	err := r.Writer.Live.Get(ctx, client.ObjectKeyFromObject(cached), claim)
	if client.IgnoreNotFound(err) != nil {
		return "", fmt.Errorf("read PersistentVolumeClaim %s: %w", cached.Name, err)
	}
	if err == nil && claim.UID == cached.UID && claim.Annotations[v1alpha1.AnnotationReclaimPolicy] == resources.ReclaimDelete {
		return resources.ReclaimDelete, nil
	}
	return resources.ReclaimRetain, nil
}

// keep writes down that a claim stays when its bot goes, which the record did not say yet.
func (r *Reconciler) keep(ctx context.Context, cached *corev1.PersistentVolumeClaim) error {
	claim := &corev1.PersistentVolumeClaim{}
	if err := r.Writer.Live.Get(ctx, client.ObjectKeyFromObject(cached), claim); err != nil {
		return fmt.Errorf("read PersistentVolumeClaim %s: %w", cached.Name, err)
	}
	if claim.UID != cached.UID || claim.Annotations[v1alpha1.AnnotationReclaimPolicy] == resources.ReclaimRetain || claim.Annotations[v1alpha1.AnnotationBotUID] != cached.Annotations[v1alpha1.AnnotationBotUID] {
		return nil
	}
	claim.Annotations[v1alpha1.AnnotationReclaimPolicy] = resources.ReclaimRetain
	if err := r.Writer.Client.Update(ctx, claim, kube.FieldOwner); err != nil {
		return fmt.Errorf("record that PersistentVolumeClaim %s stays: %w", claim.Name, err)
	}
	return nil
}
