package controllers

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	toolscache "k8s.io/client-go/tools/cache"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/budget"
	"github.com/lethe-dev/lethe/internal/kube"
)

// brakeEvery is between two looks while anything is paused.
const brakeEvery = time.Second

// brake marks the namespaces of a Tenant of which more was written than its budget. Admission policy
// lethe-changes-paused then refuses what would be one more revision. It stands in no queue: a tenant's own backlog
// must not keep it waiting.
type brake struct {
	changes *Changes
	cache   client.Reader
	client  client.Client
	live    client.Reader

	mutex  sync.Mutex
	paused map[string]time.Time // until when, by Tenant; as decided, which the cache may not show yet
	lifted map[string]bool      // Tenants whose mark somebody else has taken away
}

// newBrake makes the brake, and has it told when somebody takes a mark away.
func newBrake(ctx context.Context, mgr ctrl.Manager, changes *Changes) (*brake, error) {
	changes.cache = mgr.GetCache()
	b := &brake{changes: changes, cache: mgr.GetCache(), client: mgr.GetClient(), live: mgr.GetAPIReader(),
		paused: map[string]time.Time{}, lifted: map[string]bool{}}
	namespaces, err := mgr.GetCache().GetInformer(ctx, &corev1.Namespace{})
	if err != nil {
		return nil, fmt.Errorf("watch namespaces: %w", err)
	}
	_, err = namespaces.AddEventHandler(toolscache.ResourceEventHandlerFuncs{UpdateFunc: func(before, after any) {
		old, okOld := before.(*corev1.Namespace)
		now, okNow := after.(*corev1.Namespace)
		if okOld && okNow {
			b.look(old, now)
		}
	}, AddFunc: func(any) { b.changes.poke() }})
	if err != nil {
		return nil, fmt.Errorf("watch namespaces: %w", err)
	}
	return b, nil
}

// look notices when a mark was taken away before its time: by somebody else, which begins a new count.
func (b *brake) look(before, after *corev1.Namespace) {
	_, isMarked := after.Annotations[v1alpha1.AnnotationChangesPaused]
	if isMarked || !b.markOf(before).After(b.changes.clock.Now()) {
		return
	}
	tenant := after.Labels[v1alpha1.LabelTenant]
	b.changes.meter.Forget(tenant)
	b.mutex.Lock()
	delete(b.paused, tenant)
	b.lifted[tenant] = true
	b.mutex.Unlock()
	b.changes.poke()
}

// NeedLeaderElection is of controller-runtime: one manager writes.
func (b *brake) NeedLeaderElection() bool { return true }

// Start runs until the manager ends. What a manager before it has marked goes on until its time.
func (b *brake) Start(ctx context.Context) error {
	ticker := time.NewTicker(brakeEvery)
	defer ticker.Stop()
	for {
		again, err := b.pass(ctx)
		if err != nil {
			log.FromContext(ctx).Error(err, "Pausing changes")
		}
		var tick <-chan time.Time
		if again || err != nil {
			tick = ticker.C
		}
		select {
		case <-ctx.Done():
			return nil
		case <-b.changes.wake:
		case <-tick:
		}
	}
}

// home is what the cache holds of a Tenant's namespaces.
type home struct {
	namespaces []*corev1.Namespace
	marked     bool
	until      time.Time // the furthest of the marks that hold
}

// pass marks the namespaces of those that are over their budget, and takes the marks away whose time has come. It says
// whether any is left.
func (b *brake) pass(ctx context.Context) (again bool, err error) {
	now := b.changes.clock.Now()
	list := &corev1.NamespaceList{}
	if err := b.cache.List(ctx, list, client.UnsafeDisableDeepCopy); err != nil {
		return true, fmt.Errorf("list namespaces: %w", err)
	}
	homes := map[string]*home{}
	for i := range list.Items {
		namespace := &list.Items[i]
		tenant := namespace.Labels[v1alpha1.LabelTenant]
		if homes[tenant] == nil {
			homes[tenant] = &home{}
		}
		h := homes[tenant]
		h.namespaces = append(h.namespaces, namespace)
		if _, marked := namespace.Annotations[v1alpha1.AnnotationChangesPaused]; marked {
			h.marked = true
			h.until = later(h.until, b.holding(b.markOf(namespace), now))
		}
	}
	over := b.changes.meter.Over(b.changes.limit, now)
	var errs []error
	count := 0
	for tenant, h := range homes {
		until := b.decide(tenant, h, slices.Contains(over, tenant), now)
		if until.IsZero() && !h.marked {
			continue
		}
		again = true
		mark := ""
		if !until.IsZero() {
			count++
			mark = until.Format(time.RFC3339)
		}
		for _, namespace := range h.namespaces {
			if namespace.Annotations[v1alpha1.AnnotationChangesPaused] != mark {
				errs = append(errs, b.mark(ctx, namespace, mark))
			}
		}
	}
	b.forgetExcept(homes)
	pausedNow.Set(float64(count))
	return again, errors.Join(errs...)
}

// decide says until when a Tenant's changes are paused: as was decided before, by this manager or by another; else,
// where it is over its budget, until half of the budget is free again; else not at all.
func (b *brake) decide(tenant string, h *home, isOver bool, now time.Time) time.Time {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	if b.lifted[tenant] {
		if h.marked {
			return time.Time{}
		}
		delete(b.lifted, tenant)
	}
	until := later(b.holding(b.paused[tenant], now), h.until)
	if until.IsZero() && isOver {
		until = b.changes.meter.Below(tenant, b.changes.limit/2, now)
		until = until.Add(time.Second - 1).Truncate(time.Second) // as it is written
		pausesTotal.Inc()
	}
	if until.IsZero() {
		delete(b.paused, tenant)
		return until
	}
	b.paused[tenant] = until
	return until
}

// forgetExcept forgets Tenants that have no namespace any more.
func (b *brake) forgetExcept(homes map[string]*home) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	for tenant := range b.paused {
		if homes[tenant] == nil {
			delete(b.paused, tenant)
		}
	}
	for tenant := range b.lifted {
		if homes[tenant] == nil {
			delete(b.lifted, tenant)
		}
	}
}

// holding is a time that has not come yet, and that a clock which was set wrong has not put too far away; or nothing.
func (b *brake) holding(until, now time.Time) time.Time {
	if !until.After(now) || until.After(now.Add(changesWindow+2*changesWindow/budget.Slots)) {
		return time.Time{}
	}
	return until
}

// markOf is until when a namespace says that changes are paused. What nobody can read is over.
func (b *brake) markOf(namespace *corev1.Namespace) time.Time {
	until, err := time.Parse(time.RFC3339, namespace.Annotations[v1alpha1.AnnotationChangesPaused])
	if err != nil {
		return time.Time{}
	}
	return until.UTC()
}

// mark writes the annotation, or takes it away, on a namespace that is still the Tenant's.
func (b *brake) mark(ctx context.Context, read *corev1.Namespace, mark string) error {
	const tries = 3
	var err error
	for range tries {
		namespace := &corev1.Namespace{}
		if err = b.live.Get(ctx, client.ObjectKeyFromObject(read), namespace); err != nil {
			break
		}
		if namespace.UID != read.UID || namespace.Labels[v1alpha1.LabelTenant] != read.Labels[v1alpha1.LabelTenant] ||
			namespace.Annotations[v1alpha1.AnnotationChangesPaused] == mark {
			return nil
		}
		if namespace.Annotations == nil {
			namespace.Annotations = map[string]string{}
		}
		namespace.Annotations[v1alpha1.AnnotationChangesPaused] = mark
		if mark == "" {
			delete(namespace.Annotations, v1alpha1.AnnotationChangesPaused)
		}
		if err = b.client.Update(ctx, namespace, kube.FieldOwner); !apierrors.IsConflict(err) {
			break
		}
	}
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("mark namespace %s: %w", read.Name, err)
	}
	return nil
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
