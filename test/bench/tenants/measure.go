package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/internal/keyclient"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/internal/sweep"
	"github.com/lethe-dev/lethe/test/env"
)

// renewal is what one costs, on average.
type renewal struct {
	calls, bytes float64
	cpu          time.Duration
	every        time.Duration // one renewal after the other
	perMinute    float64       // calls and watches of all kinds, also those of no renewal
	watches      float64       // a minute
	paths        string
}

// settling is for how long a sweep goes on before its renewals are counted: until the keyserver follows Tenants.
const settling = 45 * time.Second

// renew renews the lease of a sweep that goes on, as often as is asked for and as a sweeper does: when a third of it
// is over, and every ten seconds at least. To a renewal belongs what the keyserver asks, and what it works, until it
// has answered. One beside which it read keys, for the manager or on its regular way over all documents, tells
// nothing of renewals and is repeated. By the minute everything is counted that it asks meanwhile.
func (b *bench) renew(ctx context.Context, name string) (renewal, error) {
	var calls, bytes int64
	var cpu time.Duration
	renewed, repeated := 0, 0
	paths := map[string]int{}
	one := func() error {
		b.wire.look()
		before, beforeBytes := b.wire.calls.Load(), b.wire.bytes.Load()
		used, err := b.keyserver.processor()
		if err != nil {
			return err
		}
		lease, err := b.lease.Lease(ctx, keyapi.LeaseRequest{PlanHash: b.hash}, false)
		if err != nil {
			return fmt.Errorf("renew the lease: %w", err)
		}
		now, err := b.keyserver.processor()
		if err != nil {
			return err
		}
		asked := b.wire.look()
		if readsKeys(asked) {
			repeated++
		} else {
			renewed++
			calls, bytes, cpu = calls+b.wire.calls.Load()-before, bytes+b.wire.bytes.Load()-beforeBytes, cpu+now-used
			for path, n := range asked {
				paths[path] += n
			}
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(sweep.Renewal(lease.For)):
			return nil
		}
	}
	var r renewal
	for begun := time.Now(); time.Since(begun) < settling; {
		if err := one(); err != nil {
			return r, err
		}
	}
	began, called, watched := time.Now(), b.wire.calls.Load(), b.wire.watches.Load()
	calls, bytes, cpu, renewed, repeated = 0, 0, 0, 0, 0
	clear(paths)
	for renewed < b.renewals {
		if repeated > 10*b.renewals {
			return r, fmt.Errorf("the keyserver reads keys all the time: %d of %d renewals tell nothing", repeated, renewed+repeated)
		}
		if err := one(); err != nil {
			return r, err
		}
	}
	took, n := time.Since(began), float64(renewed)
	called, watched = b.wire.calls.Load()-called, b.wire.watches.Load()-watched
	r.calls, r.bytes, r.cpu, r.every = float64(calls)/n, float64(bytes)/n, cpu/time.Duration(renewed), took/time.Duration(renewed+repeated)
	r.watches, r.perMinute = float64(watched)/took.Minutes(), float64(called+watched)/took.Minutes()
	var all []string
	for path, n := range paths {
		all = append(all, fmt.Sprintf("%d× %s", n, path))
	}
	slices.Sort(all)
	r.paths = strings.Join(all, ", ")
	b.step("%s: %d renewals and %d beside the reading of keys, one every %s: %.1f calls, %.0f bytes, %s of a processor each", name, renewed, repeated, r.every.Round(100*time.Millisecond),
		r.calls, r.bytes, r.cpu)
	return r, nil
}

// readsKeys says whether something of keys was among what was asked: no renewal does that.
func readsKeys(asked map[string]int) bool {
	for path := range asked {
		if strings.HasPrefix(path, "GET /api/v1/namespaces/"+env.KeysNamespace+"/secrets") {
			return true
		}
	}
	return false
}

// quiet waits until every tenant has its keys: until then the keyserver works for the manager.
func (b *bench) quiet(ctx context.Context) error {
	const look, page = 20 * time.Second, 500 // a look at ten thousand Tenants costs the API server seconds
	return until(ctx, "the keys of all tenants", 60*time.Minute, func() (bool, error) {
		select {
		case <-ctx.Done():
			return false, context.Cause(ctx)
		case <-time.After(look):
		}
		for next := ""; ; {
			var tenants v1alpha1.TenantList
			if err := b.admin.List(ctx, &tenants, client.Limit(page), client.Continue(next)); err != nil {
				return false, err
			}
			if slices.ContainsFunc(tenants.Items, func(t v1alpha1.Tenant) bool { return len(t.Status.SealingKeys) == 0 }) {
				return false, nil
			}
			if next = tenants.Continue; next == "" {
				return true, nil
			}
		}
	})
}

// onboard makes a customer without a window of its own, while a sweep goes on: how often the manager writes a plan
// for that, and whether the sweep ends.
func (b *bench) onboard(ctx context.Context) (writes, stopped int, err error) {
	before, err := b.lease.Lease(ctx, keyapi.LeaseRequest{PlanHash: b.hash}, false)
	if err != nil {
		return 0, 0, fmt.Errorf("renew the lease: %w", err)
	}
	since := time.Now()
	newcomer := tenant(0, "newcomer")
	if err := b.makeTenant(ctx, &newcomer, true); err != nil {
		return 0, 0, err
	}
	err = until(ctx, "the newcomer", 10*time.Minute, func() (bool, error) {
		var live v1alpha1.Tenant
		if err := b.admin.Get(ctx, client.ObjectKeyFromObject(&newcomer), &live); err != nil {
			return false, err
		}
		return meta.IsStatusConditionTrue(live.Status.Conditions, v1alpha1.ConditionReady), nil
	})
	if err != nil {
		return 0, 0, err
	}
	// It is known for as long as a lease lasts, and some more: by then the sweep has heard of it.
	began := time.Now()
	err = until(ctx, "half a minute with the newcomer", 5*time.Minute, func() (bool, error) {
		after, err := b.lease.Lease(ctx, keyapi.LeaseRequest{PlanHash: b.hash}, false)
		if keyclient.IsRetryable(err) && ctx.Err() == nil {
			return false, nil // a sweeper asks again, too
		}
		if err != nil {
			stopped = 1
			b.step("the sweep ended: %v", err)
			return true, ctx.Err()
		}
		return after.KnownDigest != before.KnownDigest && time.Since(began) > 30*time.Second, nil
	})
	if err != nil {
		return 0, 0, err
	}
	all, err := b.env.Writes(since, "system:serviceaccount:"+env.SystemNamespace+":"+resources.ServiceAccountManager)
	if err != nil {
		return 0, 0, err
	}
	for _, w := range all {
		if w.Verb != "delete" && w.Resource == "configmaps" && strings.HasPrefix(w.Object, b.store.Namespace+"/") {
			writes++
			b.step("a plan was written: %s", w)
		}
	}
	return writes, stopped, nil
}
