package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/test/stage"
)

const (
	between    = time.Second     // between two new bots of the victims'
	longest    = 3 * time.Minute // that a victim's bot is waited for
	writers    = 4               // updates at a time: more of one object only wait for each other, and give up
	etcdMost   = 512 << 20       // growth of etcd after which the updates go on with a small object: etcd's own quota would end the run
	unsealName = "unseal"        // the init container
)

// times are how long the victims' bots took.
type times struct {
	all    []time.Duration
	failed int
}

func (t times) p99() time.Duration {
	if len(t.all) == 0 {
		return 0
	}
	slices.Sort(t.all)
	return t.all[(len(t.all)*99+99)/100-1]
}

func (t times) String() string {
	if len(t.all) == 0 {
		return "none came up"
	}
	slices.Sort(t.all)
	return fmt.Sprintf("%d ready, half within %.1fs, the last after %.1fs; %d failed", len(t.all), t.all[len(t.all)/2].Seconds(), t.p99().Seconds(), t.failed)
}

// measure is the run itself.
func (b *bench) measure(ctx context.Context) error {
	looking, stop := context.WithCancel(ctx)
	defer stop()
	watched := b.watchMemory(looking)

	if err := b.prepareOrders(ctx); err != nil {
		return err
	}
	b.say("quiet: a new tenant, and a new bot of each")
	newcomer, err := b.tenant(ctx, "newcomer-quiet", nil)
	if err != nil {
		return err
	}
	quiet, err := b.newBots(ctx, append(slices.Clone(b.victims), newcomer), b.restartManager)
	if err != nil {
		return err
	}
	b.say("quiet: %s", quiet)
	if err := b.endBots(ctx); err != nil {
		return err
	}
	before, err := b.etcdBytes()
	if err != nil {
		return err
	}

	b.say("under attack from here on")
	b.orders.set(true)
	attacking, end := context.WithTimeout(ctx, b.attackTime)
	defer end()
	objects, err := b.fill(attacking)
	if err != nil {
		return err
	}
	b.say("%d suspended bots of the largest size", objects)
	var done updates
	var updating sync.WaitGroup
	updating.Go(func() { b.update(attacking, before, &done) })
	if err := stage.Until(ctx, b.attackTime, "see a backlog", func(context.Context) (string, error) {
		if n := done.made.Load() + done.refused.Load(); n < int64(min(b.updates, 200)) && attacking.Err() == nil {
			return fmt.Sprintf("%d updates", n), nil
		}
		return "", nil
	}); err != nil {
		return err
	}
	begun := time.Now()
	late, err := b.tenant(ctx, "newcomer-late", nil)
	if err != nil {
		return err
	}
	b.say("a tenant that came after the backlog was ready after %.1fs", time.Since(begun).Seconds())
	under, err := b.newBots(ctx, append(slices.Clone(b.victims), late), b.restartManager)
	if err != nil {
		return err
	}
	b.say("under attack: %s", under)
	updating.Wait()
	b.say("%s", &done)
	after, err := b.etcdBytes()
	if err != nil {
		return err
	}
	if err := watched.look(ctx); err != nil {
		return err
	}
	b.orders.set(false)
	dialled, answered := b.orders.sums()
	b.print(watched, quiet, under, after-before, objects, &done, dialled, answered)
	return nil
}

// fill makes suspended bots of the largest size until the quota ends it, or the pause of what writes too much.
func (b *bench) fill(ctx context.Context) (int, error) {
	for i := range botsOfTenant + 1 {
		err := b.operator.Create(ctx, largest(fmt.Sprintf("large-%02d", i)))
		if apierrors.IsForbidden(err) && i > 0 {
			return i, nil
		}
		if err != nil {
			return i, fmt.Errorf("make the largest bot: %w", err)
		}
	}
	return 0, errors.New("the quota has no end")
}

// updates of one object that somebody of the attacking tenant asked for.
type updates struct {
	made, refused, failed atomic.Int64 // taken, refused by the API server as too many or too much, and without such an answer
	large                 atomic.Int64 // of those made, of the largest object
}

func (u *updates) String() string {
	return fmt.Sprintf("%d updates, %d of them of the largest object; %d were refused, %d had no answer", u.made.Load(), u.large.Load(), u.refused.Load(), u.failed.Load())
}

// update changes two objects again and again: one writer the largest, which costs the API server the most for each,
// until etcd has grown too much for the run; the others an attacker's bot, as fast as they are answered. What is
// refused was asked for all the same, and counts.
func (b *bench) update(ctx context.Context, before int64, done *updates) {
	var next atomic.Int64
	var all sync.WaitGroup
	var grown atomic.Bool
	for writer := range writers {
		all.Go(func() {
			for ctx.Err() == nil {
				n := next.Add(1)
				if n > int64(b.updates) {
					return
				}
				if n%50 == 0 {
					if size, err := b.etcdBytes(); err == nil && size-before > etcdMost {
						grown.Store(true)
					}
				}
				object := &v1alpha1.BotDeployment{ObjectMeta: metav1.ObjectMeta{Namespace: attacker, Name: "attacker-00"}}
				if writer == 0 && !grown.Load() {
					object.Name = "large-00"
				}
				b.patch(ctx, object, n, done)
			}
		})
	}
	all.Wait()
}

// patch changes an object once.
func (b *bench) patch(ctx context.Context, object *v1alpha1.BotDeployment, n int64, done *updates) {
	patch := fmt.Sprintf(`{"spec":{"rollout":{"progressDeadlineSeconds":%d}}}`, 300+n%3000)
	err := b.operator.Patch(ctx, object, client.RawPatch(types.MergePatchType, []byte(patch)))
	switch {
	case err == nil:
		done.made.Add(1)
		if object.Name == "large-00" {
			done.large.Add(1)
		}
	case apierrors.IsForbidden(err), apierrors.IsTooManyRequests(err), apierrors.IsInvalid(err):
		if done.refused.Add(1) == 1 {
			b.say("the first update that was refused: %v", err)
		}
	case ctx.Err() == nil:
		if done.failed.Add(1) == 1 {
			b.say("the first update without an answer: %v", err)
		}
	}
}

// restartManager ends both of the manager's pods.
func (b *bench) restartManager(ctx context.Context) error {
	b.say("the manager is restarted")
	if err := b.admin.DeleteAllOf(ctx, &corev1.Pod{}, client.InNamespace(stage.SystemNamespace), client.MatchingLabels{"app.kubernetes.io/component": "manager"}); err != nil {
		return fmt.Errorf("restart the manager: %w", err)
	}
	return nil
}

// newBots makes a bot in each tenant's namespace, one after the other, and measures how long each takes to be Ready.
// middle is done when half of them exist.
func (b *bench) newBots(ctx context.Context, tenants []*v1alpha1.Tenant, middle func(context.Context) error) (times, error) {
	var result times
	limits := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m"), corev1.ResourceMemory: resource.MustParse("64Mi")}
	changes, err := b.admin.Watch(ctx, &v1alpha1.BotDeploymentList{}, client.HasLabels{victimLabel})
	if err != nil {
		return result, fmt.Errorf("watch the victims' bots: %w", err)
	}
	defer changes.Stop()
	created := map[string]time.Time{}
	ready := map[string]time.Duration{}
	create := time.NewTicker(between)
	defer create.Stop()
	over := time.NewTimer(longest + time.Duration(len(tenants))*between)
	defer over.Stop()
	for len(ready) < len(tenants) {
		select {
		case <-ctx.Done():
			return result, context.Cause(ctx)
		case <-create.C:
			n := len(created)
			if n == len(tenants) {
				continue
			}
			bot, err := b.bot(tenants[n], "bot", b.version(), limits, "rest")
			if err != nil {
				return result, err
			}
			bot.Labels = map[string]string{victimLabel: "yes"}
			created[bot.Namespace] = time.Now()
			if err := b.admin.Create(ctx, bot); err != nil {
				return result, fmt.Errorf("make a victim's bot: %w", err)
			}
			if n == len(tenants)/2 && middle != nil {
				if err := middle(ctx); err != nil {
					return result, err
				}
			}
		case e, ok := <-changes.ResultChan():
			if !ok {
				return result, errors.New("the watch of the victims' bots ended")
			}
			bot, isBot := e.Object.(*v1alpha1.BotDeployment)
			if !isBot || !meta.IsStatusConditionTrue(bot.Status.Conditions, v1alpha1.ConditionReady) || bot.DeletionTimestamp != nil {
				continue
			}
			if _, had := ready[bot.Namespace]; !had && !created[bot.Namespace].IsZero() {
				ready[bot.Namespace] = time.Since(created[bot.Namespace])
			}
		case <-over.C:
			result.failed += len(tenants) - len(ready)
			b.say("%d bots did not come up", len(tenants)-len(ready))
			for namespace := range created {
				if _, came := ready[namespace]; !came {
					b.say("%s", b.whyNot(ctx, namespace))
				}
			}
			for range len(tenants) - len(ready) {
				result.all = append(result.all, longest)
			}
			tenants = tenants[:len(ready)]
		}
	}
	for _, took := range ready {
		result.all = append(result.all, took)
	}
	if err := b.sayStages(ctx, created, ready); err != nil {
		return result, err
	}
	failed, err := b.failedUnseals(ctx)
	result.failed += failed
	return result, err
}

// sayStages says where the time of the victims' bots went, the slowest first. What a kubelet writes down has whole
// seconds.
func (b *bench) sayStages(ctx context.Context, created map[string]time.Time, ready map[string]time.Duration) error {
	slowest := slices.SortedFunc(maps.Keys(ready), func(x, y string) int { return cmp.Compare(ready[y], ready[x]) })
	for _, namespace := range slowest {
		var pods corev1.PodList
		if err := b.admin.List(ctx, &pods, client.InNamespace(namespace)); err != nil {
			return fmt.Errorf("list a victim's pods: %w", err)
		}
		after := func(t metav1.Time) int { return int(t.Sub(created[namespace].Truncate(time.Second)).Seconds()) }
		for i := range pods.Items {
			p := &pods.Items[i]
			text := fmt.Sprintf("%s: ready after %.1fs; pod made after %ds", namespace, ready[namespace].Seconds(), after(p.CreationTimestamp))
			for _, c := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
				switch {
				case c.State.Terminated != nil:
					text += fmt.Sprintf(", %s ran from %ds to %ds", c.Name, after(c.State.Terminated.StartedAt), after(c.State.Terminated.FinishedAt))
				case c.State.Running != nil:
					text += fmt.Sprintf(", %s runs after %ds", c.Name, after(c.State.Running.StartedAt))
				}
			}
			for _, c := range p.Status.Conditions {
				if c.Type == corev1.PodScheduled || c.Type == corev1.PodReady {
					text += fmt.Sprintf(", %s after %ds", c.Type, after(c.LastTransitionTime))
				}
			}
			b.say("%s", text)
		}
	}
	return nil
}

// whyNot says how far a victim's bot has come.
func (b *bench) whyNot(ctx context.Context, namespace string) string {
	bot := &v1alpha1.BotDeployment{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "bot"}}
	var pods corev1.PodList
	if err := errors.Join(b.admin.Get(ctx, client.ObjectKeyFromObject(bot), bot), b.admin.List(ctx, &pods, client.InNamespace(namespace))); err != nil {
		return fmt.Sprintf("%s: %v", namespace, err)
	}
	text := namespace + ":"
	for _, c := range bot.Status.Conditions {
		text += fmt.Sprintf(" %s=%s/%s", c.Type, c.Status, c.Reason)
	}
	for i := range pods.Items {
		p := &pods.Items[i]
		text += fmt.Sprintf("; pod %s since %s", p.Status.Phase, p.CreationTimestamp.Format(time.TimeOnly))
		for _, c := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
			switch {
			case c.State.Waiting != nil:
				text += fmt.Sprintf(", %s waits: %s", c.Name, c.State.Waiting.Reason)
			case c.State.Terminated != nil:
				text += fmt.Sprintf(", %s ended with %d after %s", c.Name, c.State.Terminated.ExitCode, c.State.Terminated.FinishedAt.Sub(c.State.Terminated.StartedAt.Time))
			case c.State.Running != nil:
				text += fmt.Sprintf(", %s runs since %s", c.Name, c.State.Running.StartedAt.Format(time.TimeOnly))
			}
		}
	}
	return text
}

// version is one more each time: a value that is sealed anew for a bot that was there before needs it.
func (b *bench) version() uint32 {
	b.versions++
	return b.versions
}

// failedUnseals counts the victims' pods whose unsealing ended with an error, once or more often.
func (b *bench) failedUnseals(ctx context.Context) (int, error) {
	var pods corev1.PodList
	if err := b.admin.List(ctx, &pods, client.HasLabels{v1alpha1.LabelTenant}); err != nil {
		return 0, fmt.Errorf("list the victims' pods: %w", err)
	}
	failed := 0
	for i := range pods.Items {
		if pods.Items[i].Namespace == attacker {
			continue
		}
		for _, c := range pods.Items[i].Status.InitContainerStatuses {
			if c.Name == unsealName && (c.RestartCount > 0 || c.State.Terminated != nil && c.State.Terminated.ExitCode != 0) {
				failed++
			}
		}
	}
	return failed, nil
}

// endBots deletes the victims' bots.
func (b *bench) endBots(ctx context.Context) error {
	return stage.Until(ctx, most, "end the victims' bots", func(ctx context.Context) (string, error) {
		var bots v1alpha1.BotDeploymentList
		if err := b.admin.List(ctx, &bots, client.HasLabels{victimLabel}); err != nil {
			return "", err
		}
		for i := range bots.Items {
			if bots.Items[i].DeletionTimestamp.IsZero() {
				if err := client.IgnoreNotFound(b.admin.Delete(ctx, &bots.Items[i])); err != nil {
					return "", err
				}
			}
		}
		if n := len(bots.Items); n > 0 {
			return fmt.Sprintf("%d are left", n), nil
		}
		var pods corev1.PodList
		if err := b.admin.List(ctx, &pods, client.HasLabels{v1alpha1.LabelTenant}); err != nil {
			return "", err
		}
		if n := len(pods.Items); n > b.pods {
			return fmt.Sprintf("%d pods", n), nil
		}
		return "", nil
	})
}

func (b *bench) print(w *watcher, quiet, under times, growth int64, objects int, done *updates, dialled, answered int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var restarts int32
	for key, n := range w.restarts {
		restarts += n
		if n > 0 {
			fmt.Printf("restarted: %s\n", w.why[key])
		}
	}
	ratio := 0.0
	if q := quiet.p99(); q > 0 {
		ratio = under.p99().Seconds() / q.Seconds()
	}
	const mib = 1 << 20
	fmt.Printf("attack_pods=%d\n", b.pods)
	fmt.Printf("attack_objects=%d\n", objects)
	fmt.Printf("attack_updates=%d\n", done.made.Load()+done.refused.Load())
	fmt.Printf("attack_updates_refused=%d\n", done.refused.Load())
	fmt.Printf("attack_updates_of_largest=%d\n", done.large.Load())
	fmt.Printf("attack_connections=%d\n", dialled)
	fmt.Printf("attack_calls_answered=%d\n", answered)
	for _, component := range []string{"keyserver", "manager"} {
		if n := w.group[component]; n > 0 {
			fmt.Printf("%s_cgroup_peak_mib=%d\n", component, n/mib)
		}
	}
	fmt.Printf("victim_ready_p99_quiet_s=%.1f\n", quiet.p99().Seconds())
	fmt.Printf("victim_ready_p99_attack_s=%.1f\n", under.p99().Seconds())
	fmt.Printf("keyserver_rss_peak_mib=%.1f\n", float64(w.peaks["keyserver"])/1024)
	fmt.Printf("manager_rss_peak_mib=%.1f\n", float64(w.peaks["manager"])/1024)
	fmt.Printf("restarts=%d\n", restarts)
	fmt.Printf("victim_ready_p99_ratio=%.2f\n", ratio)
	fmt.Printf("victim_unseal_failed=%d\n", under.failed)
	fmt.Printf("etcd_growth_mib=%d\n", growth/mib)
}
