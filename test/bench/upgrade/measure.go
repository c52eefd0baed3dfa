package main

import (
	"context"
	"fmt"
	"runtime"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/test/stage"
)

const (
	// watched is how long the fleet is looked at after an upgrade: a new manager has gone over all of it by then.
	watched = 90 * time.Second
	// round is how long a change may take to go round, for each bot.
	round = 40 * time.Second
	// quiet is how long nothing more may happen once it was stopped.
	quiet = 45 * time.Second
)

// run says which run of a program a pod is.
type life struct {
	uid      types.UID
	restarts int32
}

// sample is the fleet at one moment, without the broken bot.
type sample struct {
	lives    map[string]life
	notReady int
}

func (b *bench) look(ctx context.Context) (sample, error) {
	pods := &corev1.PodList{}
	s := sample{lives: map[string]life{}}
	if err := b.client.List(ctx, pods, client.InNamespace(tenantName), client.MatchingLabels(resources.Labels(resources.ComponentBot))); err != nil {
		return s, fmt.Errorf("list the bots' pods: %w", err)
	}
	ready := 0
	for i := range pods.Items {
		p := &pods.Items[i]
		if p.Labels[v1alpha1.LabelBot] == resources.LabelValue(brokenName) {
			continue
		}
		l := life{uid: p.UID}
		for _, c := range p.Status.ContainerStatuses {
			l.restarts += c.RestartCount
		}
		s.lives[p.Name] = l
		for _, c := range p.Status.Conditions {
			if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue && p.DeletionTimestamp == nil {
				ready++
			}
		}
	}
	s.notReady = b.n - ready
	return s, nil
}

// each second, something is looked at until it says that it is enough, or the time is up.
func (b *bench) each(ctx context.Context, most time.Duration, do func(sample) (enough bool, err error)) error {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		s, err := b.look(ctx)
		if ctx.Err() != nil {
			return nil // the time is up
		}
		if err != nil {
			return err
		}
		if enough, err := do(s); enough || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// newImage upgrades to another image of Lethe, with nothing else in it.
func (b *bench) newImage(ctx context.Context) error {
	before, err := b.look(ctx)
	if err != nil {
		return err
	}
	b.say("upgrading to the same bits under another tag")
	image, err := b.TagLethe(ctx, "next")
	if err != nil {
		return err
	}
	if err := b.Install(ctx, "image.tag=next"); err != nil {
		return err
	}
	b.say("%s runs; looking at the bots for %s", image, watched)
	restarted := map[string]bool{}
	err = b.each(ctx, watched, func(s sample) (bool, error) {
		for name, was := range before.lives {
			if s.lives[name] != was {
				restarted[name] = true
			}
		}
		return false, nil
	})
	if err != nil {
		return err
	}
	fmt.Printf("restarted_bots=%d\n", len(restarted))
	// One that dies is made again as it was, by the Lethe of before, and gets its credentials from the new one.
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: tenantName, Name: resources.BotPodName("bot-00")}}
	if err := b.client.Delete(ctx, pod); err != nil {
		return fmt.Errorf("end a pod: %w", err)
	}
	unsealed := 0
	err = b.each(ctx, most, func(s sample) (bool, error) {
		if s.notReady == 0 && s.lives[pod.Name].uid != before.lives[pod.Name].uid {
			unsealed = 1
		}
		return unsealed == 1, nil
	})
	fmt.Printf("old_pod_unsealed=%d\n", unsealed)
	return err
}

// place has all bots of the tenant made anew: each takes the label of a node that all nodes have.
func (b *bench) place(ctx context.Context, label, value string) error {
	return stage.Until(ctx, most, "change the Tenant", func(ctx context.Context) (string, error) {
		if err := b.client.Get(ctx, client.ObjectKeyFromObject(b.tenant), b.tenant); err != nil {
			return "", fmt.Errorf("read the Tenant: %w", err)
		}
		b.tenant.Spec.Placement = &v1alpha1.TenantPlacement{NodeSelector: map[string]string{label: value}}
		if err := b.client.Update(ctx, b.tenant); err != nil {
			return "", fmt.Errorf("change the Tenant: %w", err)
		}
		return "", nil
	})
}

// have counts the bots whose StatefulSet selects nodes by a label, and those that say that the change was stopped.
func (b *bench) have(ctx context.Context, label string) (have, stopped int, err error) {
	sets, bots := &appsv1.StatefulSetList{}, &v1alpha1.BotDeploymentList{}
	if err := b.client.List(ctx, sets, client.InNamespace(tenantName)); err != nil {
		return 0, 0, fmt.Errorf("list StatefulSets: %w", err)
	}
	if err := b.client.List(ctx, bots, client.InNamespace(tenantName)); err != nil {
		return 0, 0, fmt.Errorf("list bots: %w", err)
	}
	for i := range sets.Items {
		if sets.Items[i].Spec.Template.Spec.NodeSelector[label] != "" {
			have++
		}
	}
	for i := range bots.Items {
		c := meta.FindStatusCondition(bots.Items[i].Status.Conditions, v1alpha1.ConditionWorkloadReady)
		if c != nil && c.Reason == v1alpha1.ReasonUpdateStopped {
			stopped++
		}
	}
	return have, stopped, nil
}

// mustRoll has a change go round that restarts every bot.
func (b *bench) mustRoll(ctx context.Context) error {
	b.say("a change that must restart all bots")
	if err := b.place(ctx, corev1.LabelOSStable, "linux"); err != nil {
		return err
	}
	worst, have, begun := 0, 0, time.Now()
	err := b.each(ctx, time.Duration(b.n)*round, func(s sample) (bool, error) {
		worst = max(worst, s.notReady)
		var err error
		have, _, err = b.have(ctx, corev1.LabelOSStable)
		return have == b.n+1 && s.notReady == 0, err
	})
	b.say("it took %.0fs", time.Since(begun).Seconds())
	fmt.Printf("max_not_ready=%d\nrolled_bots=%d\n", worst, have)
	return err
}

// fails has a change go round with which the bots do not start any more.
func (b *bench) fails(ctx context.Context) error {
	b.say("a change with which bots fail")
	b.refuse.Store(true)
	if err := b.place(ctx, corev1.LabelArchStable, runtime.GOARCH); err != nil {
		return err
	}
	before, err := b.look(ctx)
	if err != nil {
		return err
	}
	said, since := 0, time.Now()
	restarted := map[string]bool{}
	err = b.each(ctx, 5*time.Minute, func(s sample) (bool, error) {
		for name, l := range s.lives {
			if l.uid != before.lives[name].uid && !restarted[name] {
				restarted[name], since = true, time.Now()
			}
		}
		var err error
		_, said, err = b.have(ctx, corev1.LabelArchStable)
		return said > 0 && time.Since(since) > quiet, err
	})
	fmt.Printf("stopped_after=%d\nsaid_stopped=%d\n", len(restarted), said)
	if err != nil {
		return err
	}
	b.say("the cause is gone")
	b.refuse.Store(false)
	have := 0
	err = b.each(ctx, 8*time.Minute, func(sample) (bool, error) {
		var err error
		have, _, err = b.have(ctx, corev1.LabelArchStable)
		return have >= len(restarted)+3, err
	})
	fmt.Printf("resumed_bots=%d\n", have)
	return err
}
