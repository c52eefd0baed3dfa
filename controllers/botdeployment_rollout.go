package controllers

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/bulk"
	"github.com/lethe-dev/lethe/internal/kube"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/internal/rollout"
	"github.com/lethe-dev/lethe/internal/status"
)

// ReasonRolloutStopped is the reason of the event about the bot that ended a rollout.
const ReasonRolloutStopped = "RolloutStopped"

// errWaits ends the rendering of a StatefulSet that has to wait for its turn.
var errWaits = errors.New("a change of Lethe's own waits for its turn")

// renderNote is what a StatefulSet was made of, in its annotation. Nothing is trusted to it: the keyserver, which decides who gets
// credentials, has a record of its own.
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

// helper is what of Lethe's own the bot's pod is to have: what it was last made with, unless that is retired or there is no pod.
// anew asks for the present one.
func (r *BotDeploymentReconciler) helper(s *botScope, anew bool) resources.Helper {
	last, ok := renderedOf(s.running)
	resumes := s.running != nil && !runsPods(s.running) && !resources.IsSuspended(s.bot, s.tenant)
	if !ok || anew || resumes || r.Settings.IsRetired(last.Helper.Image) {
		return r.Settings.Helper()
	}
	return last.Helper
}

// ensureSet makes the StatefulSet as it should be. Where that would restart a ready bot because of Lethe or of its Tenant, and not
// because of the bot, it waits for its turn; the set then stays as it is.
func (r *BotDeploymentReconciler) ensureSet(ctx context.Context, s *botScope, anew bool) (*appsv1.StatefulSet, status.Update, error) {
	helper := r.helper(s, anew)
	sketch := resources.BotStatefulSet(r.Settings.With(helper), s.sketch, s.tenant, s.secret)
	last, known := renderedOf(s.running)
	switch {
	case known && (last.Generation == s.bot.Generation && last.Helper == helper || !runsPods(s.running) && resources.IsSuspended(s.bot, s.tenant)):
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
		switch why := whyRolls(s, desired); why {
		case rollsNothing, rollsByHand:
			return desired, nil
		case rollsOwn, rollsUnready:
			own = why == rollsOwn
			return r.render(s, whole, r.Settings.Helper()), nil
		case rollsLethe: // it waits
		}
		if turn, err = r.Pace.admit(ctx, client.ObjectKeyFromObject(s.bot)); err != nil {
			return nil, err
		}
		if turn != status.UpToDate {
			return nil, errWaits
		}
		desired = r.render(s, whole, r.Settings.Helper())
		desired.Annotations[v1alpha1.AnnotationRolling] = s.now.UTC().Format(time.RFC3339)
		return desired, nil
	})
	r.Pace.written(client.ObjectKeyFromObject(s.bot))
	if errors.Is(err, errWaits) {
		return s.running, turn, nil
	}
	if err == nil && own {
		set, err = r.unmark(ctx, set)
	}
	return set, status.UpToDate, err
}

// render makes the whole StatefulSet, with the note of what it was made of.
func (r *BotDeploymentReconciler) render(s *botScope, whole *v1alpha1.BotDeployment, helper resources.Helper) *appsv1.StatefulSet {
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
	rollsUnready why = "Unready" // Lethe or the Tenant, and the bot is not ready anyway
	rollsLethe   why = "Lethe"   // Lethe or the Tenant
)

// whyRolls compares what runs, as the cache has it, with what is to run.
func whyRolls(s *botScope, desired *appsv1.StatefulSet) why {
	if s.running == nil || !runsPods(s.running) || !templateDiffers(desired, s.running) {
		return rollsNothing
	}
	last, known := renderedOf(s.running)
	switch {
	case known && last.Template == digestOf(desired.Spec.Template):
		return rollsByHand
	case known && last.Generation != s.bot.Generation, runningSecret(s.running) != s.secret, filesDiffer(desired, s.running):
		return rollsOwn
	case s.running.Status.ReadyReplicas == 0: // one that is ready, and has not been for long, is none of these
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

// unmark takes the note off that a bot is on its way because of Lethe.
func (r *BotDeploymentReconciler) unmark(ctx context.Context, set *appsv1.StatefulSet) (*appsv1.StatefulSet, error) {
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

// Pacer gives bots their turn to be restarted because of Lethe. What it goes by stands in the objects: it remembers only whom it
// has to wake.
type Pacer struct {
	// Client reads what this process has written.
	Client client.Reader
	Limits rollout.Limits

	wake chan event.GenericEvent

	mutex sync.Mutex
	// granted have their turn, and are not written yet.
	granted map[types.NamespacedName]bool
	// waiting are to be woken, called were and have not come yet.
	waiting, called map[types.NamespacedName]bool
	stopped         bool
}

// wakeAtOnce is how many bots can be woken before the first has come.
const wakeAtOnce = 4096

// NewPacer makes one.
func NewPacer(c client.Reader, limits rollout.Limits) *Pacer {
	return &Pacer{Client: c, Limits: limits, wake: make(chan event.GenericEvent, wakeAtOnce),
		granted: map[types.NamespacedName]bool{}, waiting: map[types.NamespacedName]bool{}, called: map[types.NamespacedName]bool{}}
}

// admit says whether a ready bot may be restarted now, or waits.
func (p *Pacer) admit(ctx context.Context, bot types.NamespacedName) (status.Update, error) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	delete(p.called, bot)
	state, err := p.state(ctx)
	switch {
	case err != nil:
		return "", err
	case state.Stopped:
		p.waiting[bot] = true
		return status.UpdateStopped, nil
	case state.Room == 0:
		p.waiting[bot] = true
		return status.UpdateWaits, nil
	default:
		delete(p.waiting, bot)
		p.granted[bot] = true
		return status.UpToDate, nil
	}
}

// written: what was granted to a bot stands in its StatefulSet now, or never will.
func (p *Pacer) written(bot types.NamespacedName) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	delete(p.granted, bot)
}

// next wakes those whose turn it is after a pass over a bot. isNews says that the pass may have made room. It says whether the
// rollout has been stopped just now.
func (p *Pacer) next(ctx context.Context, bot types.NamespacedName, isNews, isGone bool) (stopped bool) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if isGone {
		delete(p.waiting, bot)
	}
	isNews = isNews || isGone || p.called[bot]
	delete(p.called, bot)
	if !isNews || len(p.waiting) == 0 {
		return false
	}
	state, err := p.state(ctx)
	if err != nil {
		log.FromContext(ctx).Error(err, "Looking whose turn it is") // they look by themselves, too
		return false
	}
	room := state.Room - len(p.called)
	if state.Stopped != p.stopped {
		p.stopped, stopped = state.Stopped, state.Stopped
		room = len(p.waiting) // to say so
	}
	for waiter := range p.waiting {
		if room--; room < 0 {
			return stopped
		}
		object := &v1alpha1.BotDeployment{ObjectMeta: metav1.ObjectMeta{Namespace: waiter.Namespace, Name: waiter.Name}}
		select {
		case p.wake <- event.GenericEvent{Object: object}:
			delete(p.waiting, waiter)
			p.called[waiter] = true
		default:
			return stopped
		}
	}
	return stopped
}

// state of the fleet, as the objects have it.
func (p *Pacer) state(ctx context.Context) (rollout.State, error) {
	bots, err := fleetOf(ctx, p.Client, p.granted)
	if err != nil {
		return rollout.State{}, err
	}
	return rollout.Compute(bots, p.Limits), nil
}

// fleetOf are the bots that are to run. granted count as on their way.
func fleetOf(ctx context.Context, c client.Reader, granted map[types.NamespacedName]bool) ([]rollout.Bot, error) {
	sets := &appsv1.StatefulSetList{}
	if err := c.List(ctx, sets, client.MatchingLabels(resources.Labels(resources.ComponentBot)), client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("list StatefulSets: %w", err)
	}
	var bots []rollout.Bot
	for i := range sets.Items {
		set := &sets.Items[i]
		owner := metav1.GetControllerOf(set)
		if owner == nil || owner.Kind != resources.KindBotDeployment || !runsPods(set) {
			continue
		}
		name := types.NamespacedName{Namespace: set.Namespace, Name: owner.Name}
		// One that is ready again is on its way no more, also where what stands before its workload keeps the mark from being taken off.
		one := rollout.Bot{Rolling: set.Annotations[v1alpha1.AnnotationRolling] != "" && !status.IsSetDone(set) || granted[name]}
		if one.Rolling && !granted[name] {
			bot := &v1alpha1.BotDeployment{}
			if err := c.Get(ctx, name, bot, client.UnsafeDisableDeepCopy); client.IgnoreNotFound(err) != nil {
				return nil, fmt.Errorf("read BotDeployment %s: %w", name, err)
			}
			one.Failing = isFailing(bot.Status.Conditions)
		}
		bots = append(bots, one)
	}
	return bots, nil
}

// isFailing says whether a status tells more of a bot than that it is on its way.
func isFailing(conditions []metav1.Condition) bool {
	workload := meta.FindStatusCondition(conditions, v1alpha1.ConditionWorkloadReady)
	return meta.IsStatusConditionTrue(conditions, v1alpha1.ConditionStalled) || workload != nil && workload.Status == metav1.ConditionFalse && status.IsFailing(workload.Reason)
}
