package bot

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/reconcile"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/internal/rollout"
	"github.com/lethe-dev/lethe/internal/status"
)

// Pacer gives bots their turn to be restarted because of Lethe. What it goes by stands in the objects: it remembers
// only whom it has to wake, and how many have lasted, without which it begins slowly again.
type Pacer struct {
	// Client reads what this process has written.
	Client client.Reader
	Limits rollout.Limits
	Clock  clock.PassiveClock

	wake chan event.GenericEvent

	mutex sync.Mutex
	// granted have their turn, and are not written yet.
	granted map[types.NamespacedName]bool
	// waiting are to be woken, called were and have not come yet: by their Tenants.
	waiting, called map[types.NamespacedName]string
	proven          rollout.Proven
	// generations of the Tenants that proven speaks of.
	generations map[string]int64
	// stopped are the Tenants whose bots are not restarted any more, or everybody.
	stopped map[string]bool
}

const (
	// wakeAtOnce is how many bots can be woken before the first has come.
	wakeAtOnce = 4096
	// everybody stands for all Tenants.
	everybody = ""
)

// NewPacer makes one.
func NewPacer(c client.Reader, limits rollout.Limits, now clock.PassiveClock) *Pacer {
	return &Pacer{Client: c, Limits: limits, Clock: now, wake: make(chan event.GenericEvent, wakeAtOnce), proven: rollout.Proven{Of: map[string]int{}}, generations: map[string]int64{},
		granted: map[types.NamespacedName]bool{}, waiting: map[types.NamespacedName]string{}, called: map[types.NamespacedName]string{}, stopped: map[string]bool{}}
}

// admit says whether a ready bot may be restarted now, or waits.
func (p *Pacer) admit(ctx context.Context, bot types.NamespacedName, tenant *v1alpha1.Tenant) (status.Update, error) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	delete(p.called, bot)
	if p.generations[tenant.Name] != tenant.Generation { // that its bots lasted was with another spec of the Tenant
		p.generations[tenant.Name] = tenant.Generation
		delete(p.proven.Of, tenant.Name)
	}
	state, err := p.state(ctx)
	if err != nil {
		return "", err
	}
	p.waiting[bot] = tenant.Name
	switch {
	case state.Stopped:
		return status.UpdateStopped, nil
	case state.IsStopped(tenant.Name):
		return status.UpdateStoppedInTenant, nil
	}
	turns := p.turns(state)
	if slices.Contains(turns, bot) {
		delete(p.waiting, bot)
		p.granted[bot] = true
		return status.UpToDate, nil
	}
	p.call(turns)
	return status.UpdateWaits, nil
}

// written: what was granted to a bot stands in its StatefulSet now, or never will.
func (p *Pacer) written(bot types.NamespacedName) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	delete(p.granted, bot)
}

// lasted: a bot of a Tenant was restarted, and has been ready for long enough.
func (p *Pacer) lasted(tenant string) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	p.proven.All++
	p.proven.Of[tenant]++
}

// visit is what a pass over a bot may have made otherwise.
type visit struct {
	bot    types.NamespacedName
	tenant string
	// isRolling: it is, or was, on its way because of Lethe.
	isRolling bool
	isGone    bool
}

// next wakes those whose turn it is after a pass over a bot. It says whose bots are restarted no more because of that
// one: its own Tenant's, or everybody's.
func (p *Pacer) next(ctx context.Context, v visit) (stopped bool, whose string) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if v.isGone {
		delete(p.waiting, v.bot)
	}
	_, wasCalled := p.called[v.bot]
	delete(p.called, v.bot)
	if !v.isRolling && !v.isGone && !wasCalled || len(p.waiting)+len(p.stopped)+p.proven.All == 0 {
		return false, ""
	}
	state, err := p.state(ctx)
	if err != nil {
		log.FromContext(ctx).Error(err, "Looking whose turn it is") // they look by themselves, too
		return false, ""
	}
	p.forget(state, v.tenant)
	p.call(p.turns(state))
	for _, scope := range []string{everybody, v.tenant} {
		isStopped := state.Stopped
		if scope != everybody {
			isStopped = !state.Stopped && state.IsStopped(scope)
		}
		waiting := p.waitingOf(scope)
		if isStopped == p.stopped[scope] || isStopped && (!v.isRolling || len(waiting) == 0) {
			continue // the one that ended it comes by itself; and where nobody waits there is nothing to be stopped
		}
		if delete(p.stopped, scope); isStopped {
			p.stopped[scope] = true
			if !p.isTold(ctx, scope) {
				stopped, whose = true, scope
			}
		}
		p.call(waiting) // to say so
	}
	return stopped, whose
}

// forget how many have lasted once a change has gone round.
func (p *Pacer) forget(state rollout.State, tenant string) {
	if len(p.waiting)+len(p.called)+len(p.granted) == 0 && state.IsQuiet(everybody) {
		p.proven = rollout.Proven{Of: map[string]int{}}
	}
	if len(p.waitingOf(tenant)) == 0 && !slices.Contains(slices.Collect(maps.Values(p.called)), tenant) && state.IsQuiet(tenant) {
		delete(p.proven.Of, tenant)
		delete(p.generations, tenant)
	}
}

// isTold says whether bots of a Tenant, or any, say already that they are not restarted any more: a manager that
// comes later need not tell it again.
func (p *Pacer) isTold(ctx context.Context, scope string) bool {
	bots := &v1alpha1.BotDeploymentList{}
	if err := p.Client.List(ctx, bots, client.UnsafeDisableDeepCopy); err != nil {
		return false
	}
	return slices.ContainsFunc(bots.Items, func(bot v1alpha1.BotDeployment) bool {
		if scope == everybody {
			return status.SaysStopped(bot.Status.Conditions, status.UpdateStopped)
		}
		return bot.Status.Tenant == scope && status.SaysStopped(bot.Status.Conditions, status.UpdateStoppedInTenant)
	})
}

// waitingOf are the bots of a Tenant, or everybody's, that wait.
func (p *Pacer) waitingOf(tenant string) []types.NamespacedName {
	var bots []types.NamespacedName
	for bot, of := range p.waiting {
		if tenant == everybody || of == tenant {
			bots = append(bots, bot)
		}
	}
	return bots
}

// turns are those of the waiting, and of those that were called, who may be restarted now.
func (p *Pacer) turns(state rollout.State) []types.NamespacedName {
	var waiting []rollout.Waiting
	for _, some := range []map[types.NamespacedName]string{p.waiting, p.called} {
		for bot, tenant := range some {
			waiting = append(waiting, rollout.Waiting{Tenant: tenant, Namespace: bot.Namespace, Name: bot.Name})
		}
	}
	var bots []types.NamespacedName
	for _, turn := range state.Turns(waiting) {
		bots = append(bots, types.NamespacedName{Namespace: turn.Namespace, Name: turn.Name})
	}
	return bots
}

// call wakes those that wait, and were not called already.
func (p *Pacer) call(bots []types.NamespacedName) {
	for _, bot := range bots {
		tenant, isWaiting := p.waiting[bot]
		if !isWaiting {
			continue
		}
		object := &v1alpha1.BotDeployment{ObjectMeta: metav1.ObjectMeta{Namespace: bot.Namespace, Name: bot.Name}}
		select {
		case p.wake <- event.GenericEvent{Object: object}:
			delete(p.waiting, bot)
			p.called[bot] = tenant
		default:
			return
		}
	}
}

// state of the fleet, as the objects have it.
func (p *Pacer) state(ctx context.Context) (rollout.State, error) {
	bots, err := fleetOf(ctx, p.Client, p.Limits, p.Clock.Now(), p.granted)
	if err != nil {
		return rollout.State{}, err
	}
	return rollout.Compute(bots, p.proven, p.Limits), nil
}

// fleetOf are the bots that are to run. granted count as on their way.
func fleetOf(ctx context.Context, c client.Reader, limits rollout.Limits, now time.Time, granted map[types.NamespacedName]bool) ([]rollout.Bot, error) {
	sets := &appsv1.StatefulSetList{}
	if err := c.List(ctx, sets, client.MatchingLabels(resources.Labels(resources.ComponentBot)), client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("list StatefulSets: %w", err)
	}
	var bots []rollout.Bot
	tenants := map[string]string{}
	for i := range sets.Items {
		set := &sets.Items[i]
		owner := metav1.GetControllerOf(set)
		if owner == nil || owner.Kind != resources.KindBotDeployment || !reconcile.RunsPods(set) {
			continue
		}
		if _, known := tenants[set.Namespace]; !known {
			tenants[set.Namespace] = reconcile.TenantOfNamespace(ctx, c, set.Namespace)
		}
		one := rollout.Bot{Tenant: tenants[set.Namespace]}
		name := types.NamespacedName{Namespace: set.Namespace, Name: owner.Name}
		restarted, isMarked := restartedAt(set)
		switch {
		case granted[name]:
			one.Stage = rollout.OnItsWay
		case isMarked:
			bot := &v1alpha1.BotDeployment{}
			if err := c.Get(ctx, name, bot, client.UnsafeDisableDeepCopy); client.IgnoreNotFound(err) != nil {
				return nil, fmt.Errorf("read BotDeployment %s: %w", name, err)
			}
			one.Stage = limits.Stage(restarted, now, status.IsSetDone(set), isFailing(bot.Status.Conditions))
		}
		bots = append(bots, one)
	}
	return bots, nil
}

// isFailing says whether a status tells of a bot's pod that it fails, and is not only on its way. Stalled is none of
// it: that may be for another reason, or after a time that the bot's owner has chosen.
func isFailing(conditions []metav1.Condition) bool {
	workload := meta.FindStatusCondition(conditions, v1alpha1.ConditionWorkloadReady)
	return workload != nil && workload.Status == metav1.ConditionFalse && status.IsFailing(workload.Reason)
}
