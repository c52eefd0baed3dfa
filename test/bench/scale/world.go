package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/sealing"
)

// world is what the bots live in.
type world struct {
	tenants []worldTenant
}

type worldTenant struct {
	name      string // of the Tenant and of its one namespace
	key       sealing.PublicKey
	keyRealm  string
	namespace string
}

// credential is the one that every bot has.
const credential = "telegram-token"

func (b *bench) makeTenants(ctx context.Context) error {
	b.world = &world{}
	pods, bots := int32(3000), int32(1000)
	much, gigabytes, disks := resource.MustParse("100000"), resource.MustParse("100000Gi"), resource.MustParse("50Ti")
	for i := range b.tenants {
		name := fmt.Sprintf("tenant-%03d", i)
		tenant := &v1alpha1.Tenant{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.TenantSpec{
			Namespaces: []v1alpha1.TenantNamespace{{Name: name}},
			Quota:      &v1alpha1.TenantQuota{Bots: &bots, Pods: &pods, CPU: &much, Memory: &gigabytes, Storage: &gigabytes, EphemeralStorage: &disks},
		}}
		if err := b.admin.Create(ctx, tenant); err != nil {
			return fmt.Errorf("make a tenant: %w", err)
		}
		b.world.tenants = append(b.world.tenants, worldTenant{name: name, namespace: name})
	}
	for i := range b.world.tenants {
		t := &b.world.tenants[i]
		err := waitFor(ctx, "Tenant "+t.name, 5*time.Minute, 250*time.Millisecond, func(ctx context.Context) (bool, string, error) {
			var live v1alpha1.Tenant
			if err := b.admin.Get(ctx, client.ObjectKey{Name: t.name}, &live); err != nil {
				return false, "", fmt.Errorf("read it: %w", err)
			}
			if !meta.IsStatusConditionTrue(live.Status.Conditions, v1alpha1.ConditionReady) || len(live.Status.SealingKeys) == 0 {
				return false, describe(live.Status.Conditions), nil
			}
			k := live.Status.SealingKeys[0]
			var err error
			t.keyRealm = k.Realm
			t.key, err = sealing.ParsePublicKey(k.Suite, k.Public)
			return err == nil, "", err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// firstTelegramBot begins the numbers that Telegram knows the bots by: each has its own, since two that poll as one
// stop each other and are refused.
const firstTelegramBot = 8_100_000_000

// bot is one with a sealed credential, as a user would write it.
func (b *bench) bot(t worldTenant, name string) (*v1alpha1.BotDeployment, error) {
	place := sealing.Place{Realm: t.keyRealm, Tenant: t.name, Namespace: t.namespace, Kind: sealing.KindBotDeployment, Name: name, Key: credential, Version: 1}
	sealed, err := sealing.Seal(t.key, place, fmt.Appendf(nil, "%d:token-of-%s-%s", firstTelegramBot+b.sealed.Add(1), t.name, name))
	if err != nil {
		return nil, fmt.Errorf("seal a credential: %w", err)
	}
	return &v1alpha1.BotDeployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: t.namespace, Name: name},
		Spec: v1alpha1.BotDeploymentSpec{
			Image:       "registry.example/support-bot:1.0.0",
			Channels:    []v1alpha1.Channel{{Name: "telegram", Type: v1alpha1.ChannelTelegram, Telegram: &v1alpha1.TelegramChannel{Credential: credential}}},
			Credentials: []v1alpha1.Credential{{Name: credential, Sealed: v1alpha1.SealedValue(sealed)}},
		},
	}, nil
}

// bots of the whole run, spread over the tenants.
func (b *bench) allBots() ([]*v1alpha1.BotDeployment, error) {
	bots := make([]*v1alpha1.BotDeployment, b.bots)
	for i := range bots {
		var err error
		if bots[i], err = b.bot(b.world.tenants[i%len(b.world.tenants)], fmt.Sprintf("bot-%05d", i)); err != nil {
			return nil, err
		}
	}
	return bots, nil
}

// parallel does n things with some workers, and stops at the first that fails.
func parallel(ctx context.Context, workers, n int, do func(ctx context.Context, i int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	next := make(chan int)
	var group sync.WaitGroup
	for range workers {
		group.Go(func() {
			for i := range next {
				if err := do(ctx, i); err != nil {
					cancel(err)
					return
				}
			}
		})
	}
	for i := 0; i < n && ctx.Err() == nil; i++ {
		select {
		case next <- i:
		case <-ctx.Done():
		}
	}
	close(next)
	group.Wait()
	if err := context.Cause(ctx); err != nil {
		return err
	}
	return nil
}

func describe(conditions []metav1.Condition) string {
	s := ""
	for _, c := range conditions {
		if c.Status != metav1.ConditionTrue && c.Type != v1alpha1.ConditionStalled && c.Type != v1alpha1.ConditionInUse {
			s += fmt.Sprintf("%s=%s (%s: %s) ", c.Type, c.Status, c.Reason, c.Message)
		}
	}
	return s
}

// botsReady says how many bots are ready.
func (b *bench) botsReady(ctx context.Context) (int, string, error) {
	var list v1alpha1.BotDeploymentList
	if err := b.admin.List(ctx, &list); err != nil {
		return 0, "", fmt.Errorf("list the bots: %w", err)
	}
	ready, sample := 0, ""
	for i := range list.Items {
		if meta.IsStatusConditionTrue(list.Items[i].Status.Conditions, v1alpha1.ConditionReady) {
			ready++
		} else if sample == "" {
			sample = list.Items[i].Namespace + "/" + list.Items[i].Name + ": " + describe(list.Items[i].Status.Conditions)
		}
	}
	return ready, sample, nil
}

// drained waits until a manager has nothing to do for a while, and returns when it last did something. It looks once
// in an interval: a look costs the manager some milliseconds. What it looks at anew once in an hour, whose times are
// spread, is nothing to wait for.
func (b *bench) drained(ctx context.Context, p *program, interval, quiet time.Duration, atLeast float64) (time.Time, queues, error) {
	var last queues
	var changed, looked time.Time
	hourly := float64(b.bots+b.tenants) / time.Hour.Seconds()
	err := waitFor(ctx, "the manager to be done", 20*time.Minute, interval, func(ctx context.Context) (bool, string, error) {
		q, err := p.queues(ctx)
		now := time.Now()
		if err != nil {
			return false, "", err
		}
		spread := 3 + 3*hourly*now.Sub(looked).Seconds()
		if looked.IsZero() || q.passes-last.passes > spread || q.waiting > 0 {
			changed = now
		}
		last, looked = q, now
		return q.waiting == 0 && q.passes >= atLeast && now.Sub(changed) > quiet, fmt.Sprintf("%+v", q), nil
	})
	return changed, last, err
}

// caughtUp waits until a manager that has just started has looked at everything once and has nothing left to do, and
// returns when that was. It then looks on for a while: single passes are the hourly looks, whose times are spread
// over the hour; more than a few mean that it had not been done. The manager is a harness: of the manager itself each
// look is a scrape of all objects' series, and looking so often would be what is measured.
func (b *bench) caughtUp(ctx context.Context, p *program, all float64) (time.Time, error) {
	const watch = 4 * time.Second
	var then time.Time
	var at queues
	err := waitFor(ctx, "the manager to catch up", 20*time.Minute, 20*time.Millisecond, func(ctx context.Context) (bool, string, error) {
		q, err := readQueues(ctx, p.passes)
		if err != nil {
			return false, "", err
		}
		now := time.Now()
		switch {
		case q.passes < all || then.IsZero() && q.waiting > 0:
		case then.IsZero() || q.passes-at.passes > max(3, all/100):
			then, at = now, q
		case now.Sub(then) > watch:
			return true, "", nil
		}
		return false, fmt.Sprintf("%+v", q), nil
	})
	return then, err
}

// calm waits until nobody writes.
func (b *bench) calm(ctx context.Context) ([]request, error) {
	var all []request
	quietSince := time.Now()
	err := waitFor(ctx, "the cluster to be calm", 15*time.Minute, 500*time.Millisecond, func(context.Context) (bool, string, error) {
		more, err := b.audit.next()
		if err != nil {
			return false, "", err
		}
		writes := 0
		for _, r := range more {
			if r.write() && !r.review() {
				writes++
			}
		}
		all = append(all, more...)
		if writes > 0 {
			quietSince = time.Now()
		}
		return time.Since(quietSince) > 4*time.Second, fmt.Sprintf("%d writes in half a second", writes), nil
	})
	return all, err
}

var errNoChildren = errors.New("the audit log shows no child of the bot")
