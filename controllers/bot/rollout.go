package bot

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/bulk"
	"github.com/lethe-dev/lethe/internal/kube"
	"github.com/lethe-dev/lethe/internal/reconcile"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/internal/status"
)

// tellStopped says with a bot that its failure was the one too many.
func (r *Reconciler) tellStopped(bot *v1alpha1.BotDeployment, tenant string) {
	whose := "no more"
	if tenant != everybody {
		whose = "no more of Tenant " + tenant
	}
	r.Recorder.Eventf(bot, nil, corev1.EventTypeWarning, v1alpha1.ReasonRolloutStopped, "Reconcile",
		"bots that were ready fail since they were restarted because of Lethe or of their Tenant, this one among them: %s are restarted until they are ready again, suspended or deleted", whose)
}

// errWaits ends the rendering of a StatefulSet that has to wait for its turn.
var errWaits = errors.New("a change of Lethe's own waits for its turn")

// renderNote is what a StatefulSet was made of, in its annotation. Nothing is trusted to it: the keyserver, which
// decides who gets credentials, has a record of its own.
type renderNote struct {
	// Generation of the bot.
	Generation int64 `json:"generation"`
	// Template is a digest of what was rendered.
	Template string `json:"template"`
	// Helper that went in.
	Helper resources.Helper `json:"helper"`
}

func (r renderNote) String() string {
	text, err := json.Marshal(r)
	if err != nil {
		return ""
	}
	return string(text)
}

// renderedOf reads the annotation. One that a hand has changed, or that is not there, is none.
func renderedOf(set *appsv1.StatefulSet) (renderNote, bool) {
	var r renderNote
	if set == nil || json.Unmarshal([]byte(set.Annotations[v1alpha1.AnnotationRendered]), &r) != nil || r.Helper.Image == "" || r.Template == "" {
		return renderNote{}, false
	}
	return r, true
}

func digestOf(template corev1.PodTemplateSpec) string {
	text, err := json.Marshal(template)
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:8])
}

// helper is what of Lethe's own the bot's pod is to have: what it was last made with, unless that is retired or there
// is no pod. anew asks for the present one.
func (r *Reconciler) helper(s *scope, anew bool) resources.Helper {
	last, ok := renderedOf(s.running)
	resumes := s.running != nil && !reconcile.RunsPods(s.running) && !resources.IsSuspended(s.bot, s.tenant)
	if !ok || anew || resumes || r.Settings.IsRetired(last.Helper.Image) {
		return r.Settings.Helper()
	}
	return last.Helper
}

// ensureSet makes the StatefulSet as it should be. Where that would restart a ready bot because of Lethe or of its
// Tenant, and not because of the bot, it waits for its turn; the set then stays as it is.
func (r *Reconciler) ensureSet(ctx context.Context, s *scope, anew bool) (*appsv1.StatefulSet, status.Update, error) {
	helper := r.helper(s, anew)
	sketch := resources.BotStatefulSet(r.Settings.With(helper), s.sketch, s.tenant, s.secret)
	last, known := renderedOf(s.running)
	switch {
	case known && (last.Generation == s.bot.Generation && last.Helper == helper || !reconcile.RunsPods(s.running) && resources.IsSuspended(s.bot, s.tenant)):
		sketch.Annotations[v1alpha1.AnnotationRendered] = s.running.Annotations[v1alpha1.AnnotationRendered]
	default:
		sketch.Annotations[v1alpha1.AnnotationRendered] = renderNote{Generation: s.bot.Generation, Helper: helper}.String()
	}
	turn, own := status.UpToDate, false
	set, _, err := kube.EnsureRendered(ctx, r.Writer, sketch, func(ctx context.Context) (*appsv1.StatefulSet, error) {
		whole, err := r.whole(ctx, s)
		if err != nil {
			return nil, err
		}
		desired := r.render(s, whole, helper)
		why := whyRolls(s, desired)
		if why == rollsNothing || why == rollsByHand {
			return desired, nil
		}
		own = why == rollsOwn
		if err := r.mayStart(ctx, s, own); err != nil {
			return nil, err
		}
		if why == rollsLethe {
			if turn, err = r.Pace.admit(ctx, client.ObjectKeyFromObject(s.bot), s.tenant); err != nil {
				return nil, err
			}
			if turn != status.UpToDate {
				return nil, errWaits
			}
		}
		desired = r.render(s, whole, r.Settings.Helper())
		if why == rollsLethe {
			desired.Annotations[v1alpha1.AnnotationRolling] = s.now.UTC().Format(time.RFC3339Nano)
		}
		return desired, nil
	})
	r.Pace.written(client.ObjectKeyFromObject(s.bot))
	if errors.Is(err, errWaits) {
		return s.running, turn, nil
	}
	var held *heldBack
	if errors.As(err, &held) {
		s.keep(held)
		return s.running, status.UpdateHeld, nil
	}
	if err == nil && own {
		set, err = r.unmark(ctx, set)
	}
	return set, status.UpToDate, err
}

// render makes the whole StatefulSet, with the note of what it was made of.
func (r *Reconciler) render(s *scope, whole *v1alpha1.BotDeployment, helper resources.Helper) *appsv1.StatefulSet {
	set := resources.BotStatefulSet(r.Settings.With(helper), whole, s.tenant, s.secret)
	set.Annotations[v1alpha1.AnnotationRendered] = renderNote{Generation: whole.Generation, Template: digestOf(set.Spec.Template), Helper: helper}.String()
	return set
}

// why a StatefulSet that is written restarts its pod.
type why string

const (
	rollsNothing why = "Nothing" // or there is no pod
	rollsByHand  why = "Hand"    // a hand has changed the template: it is put right at once
	rollsOwn     why = "Own"     // the bot's own spec, credentials or files
	rollsUnready why = "Unready" // Lethe or the Tenant, and the bot is not ready anyway, or is so between two crashes
	rollsLethe   why = "Lethe"   // Lethe or the Tenant
)

// whyRolls compares what runs, as the cache has it, with what is to run.
func whyRolls(s *scope, desired *appsv1.StatefulSet) why {
	if s.running == nil || !reconcile.RunsPods(s.running) || !templateDiffers(desired, s.running) {
		return rollsNothing
	}
	last, known := renderedOf(s.running)
	switch {
	case known && last.Template == digestOf(desired.Spec.Template):
		return rollsByHand
	case known && last.Generation != s.bot.Generation, runningSecret(s.running) != s.secret, filesDiffer(desired, s.running):
		return rollsOwn
	case s.running.Status.ReadyReplicas == 0 || endedLately(s.before): // one that is ready, and has not been for long, is none of these
		return rollsUnready
	default:
		return rollsLethe
	}
}

// templateDiffers says whether the template of a set in the cache is another one.
func templateDiffers(desired, cached *appsv1.StatefulSet) bool {
	small, probe := desired.DeepCopy(), cached.DeepCopy()
	bulk.Strip(small)
	probe.Spec.Template = small.Spec.Template
	return kube.Drift(probe, cached) != ""
}

// restartedAt is when a bot was restarted because of Lethe, and whether it still has to prove itself. A note that
// nobody can read is as old as can be.
func restartedAt(set *appsv1.StatefulSet) (time.Time, bool) {
	note := set.Annotations[v1alpha1.AnnotationRolling]
	at, err := time.Parse(time.RFC3339Nano, note)
	if err != nil {
		at = time.Time{}
	}
	return at, note != ""
}

// prove takes the mark off a bot that was restarted because of Lethe once it has been ready for a while without a
// restart: healthy ones that fail half a minute after their start are to be counted, and the next manager counts on.
func (r *Reconciler) prove(ctx context.Context, s *scope, set *appsv1.StatefulSet, turn status.Update) (time.Duration, error) {
	restarted, isMarked := restartedAt(set)
	if !isMarked {
		return 0, nil
	}
	if s.observed.Suspended == status.NotSuspended {
		if left := r.Pace.Limits.Lasts - s.now.Sub(restarted); left > 0 {
			return left, nil
		}
		since, err := r.readySince(ctx, s, set, restarted)
		if err != nil {
			return 0, reconcile.ProblemFromError(v1alpha1.ConditionWorkloadReady, err)
		}
		if left := r.Pace.Limits.Lasts - s.now.Sub(since); left > 0 {
			return left, nil
		}
	}
	if _, err := r.unmark(ctx, set); err != nil {
		return 0, reconcile.ProblemFromError(v1alpha1.ConditionWorkloadReady, err)
	}
	if s.observed.Suspended == status.NotSuspended && turn == status.UpToDate {
		r.Pace.lasted(s.tenant.Name)
	}
	return 0, nil
}

// readySince is since when a restarted bot is ready: by its pod, which knows of what no manager has seen, or else by
// its status.
func (r *Reconciler) readySince(ctx context.Context, s *scope, set *appsv1.StatefulSet, restarted time.Time) (time.Time, error) {
	o, err := r.observePod(ctx, s, set)
	if err != nil {
		return s.now, err
	}
	since := s.now
	if before := meta.FindStatusCondition(s.before.Status.Conditions, v1alpha1.ConditionWorkloadReady); before != nil && before.Status == metav1.ConditionTrue {
		since = before.LastTransitionTime.Time
	}
	if o.Pod != nil {
		since = s.now
		for _, c := range o.Pod.Status.Conditions {
			if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
				since = c.LastTransitionTime.Time
			}
		}
	}
	if since.Before(restarted) {
		return restarted, nil
	}
	return since, nil
}

// endedLately says whether a bot's program has ended, and what runs now has not lasted.
func endedLately(bot *v1alpha1.BotDeployment) bool {
	workload := meta.FindStatusCondition(bot.Status.Conditions, v1alpha1.ConditionWorkloadReady)
	return workload != nil && workload.Status == metav1.ConditionFalse && status.HasEnded(workload.Reason)
}

// unmark takes the note off that a bot is on its way because of Lethe.
func (r *Reconciler) unmark(ctx context.Context, set *appsv1.StatefulSet) (*appsv1.StatefulSet, error) {
	if set.Annotations[v1alpha1.AnnotationRolling] == "" {
		return set, nil
	}
	live := &appsv1.StatefulSet{}
	if err := r.Writer.Live.Get(ctx, client.ObjectKeyFromObject(set), live); err != nil {
		return set, fmt.Errorf("read StatefulSet %s: %w", set.Name, err)
	}
	if live.UID != set.UID {
		return set, nil
	}
	delete(live.Annotations, v1alpha1.AnnotationRolling)
	if err := r.Writer.Client.Update(ctx, live, kube.FieldOwner); err != nil {
		return set, fmt.Errorf("take the mark of the rollout off StatefulSet %s: %w", set.Name, err)
	}
	return live, nil
}
