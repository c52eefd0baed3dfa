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
	"github.com/lethe-dev/lethe/internal/keyclient"
	"github.com/lethe-dev/lethe/internal/protocol"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/test/env"
)

// renewal is what one costs, of several in the middle.
type renewal struct {
	calls, bytes int64
	cpu          time.Duration // on average
	watches      float64       // a minute
	paths        string
}

// renew renews the lease of a sweep that goes on, as often as is asked for. Before it counts it waits until renewals
// cost what they cost in the middle of a sweep: until the keyserver has found out what it follows. The calls of the
// middle renewal are taken, so that what the keyserver does once a minute besides is not counted to a single one.
func (b *bench) renew(ctx context.Context, name string) (renewal, error) {
	one := func() (calls, bytes int64, err error) {
		calls, bytes = b.wire.calls.Load(), b.wire.bytes.Load()
		if _, err = b.lease.Lease(ctx, protocol.LeaseRequest{PlanHash: b.hash}, false); err != nil {
			return 0, 0, fmt.Errorf("renew the lease: %w", err)
		}
		return b.wire.calls.Load() - calls, b.wire.bytes.Load() - bytes, nil
	}
	least := int64(1) << 62
	for settled := 0; settled < 30; { // no better for three seconds
		_, bytes, err := one()
		if err != nil {
			return renewal{}, err
		}
		if settled++; bytes < least*9/10 {
			least, settled = bytes, 0
		}
		select {
		case <-ctx.Done():
			return renewal{}, context.Cause(ctx)
		case <-time.After(100 * time.Millisecond):
		}
	}
	b.wire.look()
	var r renewal
	if _, _, err := one(); err != nil {
		return r, err
	}
	var paths []string
	for path, n := range b.wire.look() {
		paths = append(paths, fmt.Sprintf("%d× %s", n, path))
	}
	slices.Sort(paths)
	r.paths = strings.Join(paths, ", ")
	cpu, err := b.keyserver.processor()
	if err != nil {
		return r, err
	}
	began, watches := time.Now(), b.wire.watches.Load()
	var calls, bytes []int64
	for range b.renewals {
		c, n, err := one()
		if err != nil {
			return r, err
		}
		calls, bytes = append(calls, c), append(bytes, n)
	}
	after, err := b.keyserver.processor()
	if err != nil {
		return r, err
	}
	slices.Sort(calls)
	slices.Sort(bytes)
	r.calls, r.bytes, r.cpu = calls[len(calls)/2], bytes[len(bytes)/2], (after-cpu)/time.Duration(b.renewals)
	r.watches = float64(b.wire.watches.Load()-watches) / time.Since(began).Minutes()
	b.step("%s: a renewal takes %d calls, %d bytes (at most %d), %s of a processor", name, r.calls, r.bytes, bytes[len(bytes)-1], r.cpu)
	return r, nil
}

// onboard makes a customer without a window of its own, while a sweep goes on: how often the manager writes a plan
// for that, and whether the sweep ends.
func (b *bench) onboard(ctx context.Context) (writes, stopped int, err error) {
	before, err := b.lease.Lease(ctx, protocol.LeaseRequest{PlanHash: b.hash}, false)
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
		after, err := b.lease.Lease(ctx, protocol.LeaseRequest{PlanHash: b.hash}, false)
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
