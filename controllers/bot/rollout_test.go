package bot_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/test/crash"
	"github.com/lethe-dev/lethe/test/operator"
)

// fleet is a Tenant with bots that are ready.
func fleet(w *operator.World, name string, n int) []*v1alpha1.BotDeployment {
	w.T.Helper()
	tenant := operator.WithBots(operator.MakeTenant(name, name))
	w.Create(tenant)
	w.Becomes(tenant, "Ready=True")
	bots := w.CreateBots(name, n)
	w.Eventually("all Ready", func() error {
		for _, bot := range bots {
			if err := w.IsNow(bot, "Ready=True"); err != nil {
				return err
			}
		}
		return w.IsNow(tenant, "InUse=True")
	})
	w.Calm()
	return bots
}

func setOf(w *operator.World, bot *v1alpha1.BotDeployment) *appsv1.StatefulSet {
	w.T.Helper()
	set := &appsv1.StatefulSet{}
	if err := w.Admin.Get(context.Background(), client.ObjectKey{Namespace: bot.Namespace, Name: resources.BotName(bot.Name)}, set); err != nil {
		w.T.Fatal(err)
	}
	return set
}

func helperImage(set *appsv1.StatefulSet) string {
	return set.Spec.Template.Spec.InitContainers[0].Image
}

// upgrade starts another Lethe.
func upgrade(w *operator.World, image string, retired ...string) {
	w.T.Helper()
	w.Stop()
	w.Image, w.Retired = image, retired
	w.Start(&operator.Wire{})
}

const image2, image3 = "registry.example/lethe:v2", "registry.example/lethe:v3"

// TestANewLetheRollsNoBot: another image of Lethe, and twice, is no reason to restart anything. A bot takes it over
// when it is restarted for a reason of its own.
func TestANewLetheRollsNoBot(t *testing.T) {
	w := operator.NewWorld(t)
	bots := fleet(w, "upgraded", 6)
	operator.Edit(w, bots[5], func(b *v1alpha1.BotDeployment) { b.Spec.OperatingMode = v1alpha1.ModeSuspended })
	w.Becomes(bots[5], "Ready=True/Suspended")
	w.Calm()
	versions := w.Versions()
	for _, image := range []string{image2, image3} {
		upgrade(w, image)
		begin := operator.Passes(t, "botdeployment")
		w.Eventually("a pass over each", func() error {
			if n := operator.Passes(t, "botdeployment") - begin; n < len(bots) {
				return fmt.Errorf("%d passes", n)
			}
			return nil
		})
		w.Calm()
		if written := w.Wire.Written(); len(written) > 0 {
			t.Errorf("%s: wrote\n%s", image, strings.Join(written, "\n"))
		}
	}
	if after := w.Versions(); fmt.Sprint(after) != fmt.Sprint(versions) {
		t.Errorf("versions moved from %v to %v", versions, after)
	}
	// What does not reach the pod is no reason either.
	operator.Edit(w, bots[0], func(b *v1alpha1.BotDeployment) {
		b.Spec.Egress = []v1alpha1.EgressRule{{CIDR: "93.184.216.0/24", Ports: []v1alpha1.EgressPort{{Port: 443}}}}
	})
	w.Becomes(bots[0], "Ready=True")
	w.Calm()
	operator.Edit(w, bots[1], func(b *v1alpha1.BotDeployment) { b.Spec.Image = "registry.example/bot:v2" })
	w.Becomes(bots[1], "Ready=True")
	operator.Edit(w, bots[5], func(b *v1alpha1.BotDeployment) { b.Spec.OperatingMode = v1alpha1.ModeRunning })
	w.Becomes(bots[5], "Ready=True/Ready")
	for i, want := range []string{operator.TestImage, image3, operator.TestImage, operator.TestImage, operator.TestImage, image3} {
		set := setOf(w, bots[i])
		if got := helperImage(set); got != want {
			t.Errorf("bot %d has %s, want %s", i, got, want)
		}
		if set.Annotations[v1alpha1.AnnotationRolling] != "" {
			t.Errorf("bot %d is marked as on its way because of Lethe", i)
		}
	}
	// A hand at the helper, and at the note of it, is put right with what was there.
	hand := setOf(w, bots[2])
	was := hand.DeepCopy()
	hand.Spec.Template.Spec.InitContainers[0].Image = "evil.example/lethe:v1"
	if err := w.Cluster.Update(context.Background(), hand); err != nil {
		t.Fatal(err)
	}
	w.Eventually("put right", func() error {
		if got := helperImage(setOf(w, bots[2])); got != operator.TestImage {
			return fmt.Errorf("it is %s", got)
		}
		return nil
	})
	if now := setOf(w, bots[2]).Annotations[v1alpha1.AnnotationRendered]; now != was.Annotations[v1alpha1.AnnotationRendered] {
		t.Errorf("the note was %s, and is %s", was.Annotations[v1alpha1.AnnotationRendered], now)
	}
}

// slow plays pods that take some ticks until they are ready, and watches how many are not at a time.
type slow struct {
	mutex  sync.Mutex
	seen   map[string]int // ticks, by name and generation
	ticks  int
	broken string         // never ready
	late   map[string]int // by namespace: unready again after so many more ticks
}

func (s *slow) unready(set *appsv1.StatefulSet) bool {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if set.Name == s.broken {
		return true
	}
	if spec := set.Spec.Template.Spec; helperImage(set) == operator.TestImage && spec.NodeSelector == nil && spec.Affinity == nil {
		return false
	}
	key := fmt.Sprint(set.Name, set.Generation)
	s.seen[key]++
	late, isLate := s.late[set.Namespace]
	return s.seen[key] < s.ticks || isLate && s.seen[key] > s.ticks+late
}

// unreadyNow are the bots that are not ready, but for some.
func unreadyNow(w *operator.World, bots []*v1alpha1.BotDeployment, but ...string) int {
	w.T.Helper()
	n := 0
	for _, bot := range bots {
		if set := setOf(w, bot); !slices.Contains(but, bot.Name) && (set.Status.AvailableReplicas == 0 || set.Status.ObservedGeneration != set.Generation) {
			n++
		}
	}
	return n
}

// TestRolloutIsPaced: what must restart bots because of Lethe, or of their Tenant, has one of 20 unready at a time,
// and no more than three that have not lasted, from the first to the last of them. Those that are broken anyway get
// it at once, and neither count nor hold anybody up, and who changes his own bot does not wait. TestWhatIsPromised
// holds the same for fleets of all sizes.
func TestRolloutIsPaced(t *testing.T) {
	for name, begin := range map[string]func(*operator.World){
		"a retired image": func(w *operator.World) { upgrade(w, image2, operator.TestImage) },
		"a Tenant's placement": func(w *operator.World) {
			tenant := operator.MakeTenant("paced", "paced")
			operator.Edit(w, tenant, func(t *v1alpha1.Tenant) {
				t.Spec.Placement = &v1alpha1.TenantPlacement{Affinity: &v1alpha1.TenantAffinity{PodAntiAffinity: &v1alpha1.PodAffinity{Required: []v1alpha1.PodTerm{{TopologyKey: corev1.LabelHostname}}}}}
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := operator.NewWorld(t)
			bots := fleet(w, "paced", 12)
			s := &slow{seen: map[string]int{}, ticks: 4}
			w.KCM.Unready = s.unready
			broken, but := bots[7], []string{bots[7].Name}
			s.broken = resources.BotName(broken.Name)
			operator.Edit(w, broken, func(b *v1alpha1.BotDeployment) { b.Spec.Env = []v1alpha1.EnvVar{{Name: "A", Value: "b"}} })
			w.Becomes(broken, "Ready=False")
			w.Calm()
			begin(w)
			most, unproven, own := 0, 0, false
			has := func(bot *v1alpha1.BotDeployment) bool {
				set := setOf(w, bot)
				return helperImage(set) != operator.TestImage || set.Spec.Template.Spec.Affinity != nil
			}
			w.Eventually("everybody has it", func() error {
				most = max(most, unreadyNow(w, bots, but...))
				var without []string
				marked := 0
				for _, bot := range bots {
					if !has(bot) {
						without = append(without, bot.Name)
					}
					if setOf(w, bot).Annotations[v1alpha1.AnnotationRolling] != "" {
						marked++
					}
				}
				unproven = max(unproven, marked)
				if n := len(without); !own && n > 0 && n < 8 {
					own = true // one of those that wait is changed by its owner, while another is on its way
					last := &v1alpha1.BotDeployment{ObjectMeta: metav1.ObjectMeta{Namespace: "paced", Name: without[n-1]}}
					but = append(but, last.Name)
					operator.Edit(w, last, func(b *v1alpha1.BotDeployment) { b.Spec.Image = "registry.example/bot:v2" })
					w.Soon("its own change is not held up", func() error {
						if !has(last) {
							return fmt.Errorf("it waits")
						}
						return nil
					})
					if setOf(w, last).Annotations[v1alpha1.AnnotationRolling] != "" {
						t.Error("its own change counts as Lethe's")
					}
				}
				if len(without) > 0 {
					return fmt.Errorf("%v have not", without)
				}
				if set := setOf(w, broken); !has(broken) || set.Annotations[v1alpha1.AnnotationRolling] != "" {
					return fmt.Errorf("the broken one waits, or counts: %q", set.Annotations[v1alpha1.AnnotationRolling])
				}
				for _, bot := range bots {
					if bot == broken {
						continue
					}
					if set := setOf(w, bot); set.Annotations[v1alpha1.AnnotationRolling] != "" {
						return fmt.Errorf("%s is still marked", bot.Name)
					}
					if err := w.IsNow(bot, "WorkloadReady=True/Running"); err != nil {
						return err
					}
				}
				return nil
			})
			if most != 1 || !own || unproven > 3 {
				t.Errorf("%d were not ready at a time because of it, want 1; %d not proven, want at most 3; an own change was seen: %v", most, unproven, own)
			}
			w.Calm()
		})
	}
}

// aNode is the name of a node that is there and answers.
func aNode(w *operator.World) string {
	w.T.Helper()
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node"}}
	if err := w.Cluster.Create(context.Background(), node); apierrors.IsAlreadyExists(err) {
		return node.Name
	} else if err != nil {
		w.T.Fatal(err)
	}
	node.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
	if err := w.Cluster.Status().Update(context.Background(), node); err != nil {
		w.T.Fatal(err)
	}
	return node.Name
}

// failingPod is the pod of a bot, whose image is not there.
func failingPod(w *operator.World, bot *v1alpha1.BotDeployment) *corev1.Pod {
	w.T.Helper()
	set := setOf(w, bot)
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: bot.Namespace, Name: resources.BotPodName(bot.Name),
		Labels: set.Spec.Template.Labels, Annotations: set.Spec.Template.Annotations}, Spec: *set.Spec.Template.Spec.DeepCopy()}
	pod.Labels[appsv1.ControllerRevisionHashLabelKey] = "revision"
	pod.Spec.NodeName = aNode(w)
	if err := w.Cluster.Create(context.Background(), pod); err != nil {
		w.T.Fatal(err)
	}
	pod.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: resources.ContainerUnseal, State: corev1.ContainerState{
		Waiting: &corev1.ContainerStateWaiting{Reason: "ErrImagePull", Message: "rpc error: code = NotFound desc = not found"}}}}
	if err := w.Cluster.Status().Update(context.Background(), pod); err != nil {
		w.T.Fatal(err)
	}
	return pod
}

// toldStopped are the events in a namespace that a rollout was stopped.
func toldStopped(w *operator.World, namespace string) []string {
	w.T.Helper()
	events := &corev1.EventList{}
	if err := w.Admin.List(context.Background(), events, client.InNamespace(namespace)); err != nil {
		w.T.Fatal(err)
	}
	var told []string
	for i := range events.Items {
		if events.Items[i].Reason == v1alpha1.ReasonRolloutStopped {
			told = append(told, events.Items[i].Message)
		}
	}
	return told
}

// TestOneTenantStopsItsOwn: bots of one Tenant that are healthy again after a change, and fail a while later, are
// counted, over a restart of the manager too. The third stops the Tenant's own; all other bots get the change. A bot
// that crashes anyway, and is ready between two crashes, is none of them.
func TestOneTenantStopsItsOwn(t *testing.T) {
	w := operator.NewWorld(t)
	w.Rollout.Lasts = 2 * time.Second
	w.Restart()
	noisy, quiet := fleet(w, "noisy", 6), fleet(w, "quiet", 5)
	for _, bot := range noisy {
		failingPod(w, bot)
	}
	s := &slow{seen: map[string]int{}, ticks: 2, late: map[string]int{"noisy": 12}}
	w.KCM.Unready = s.unready
	crashes := noisy[0]
	w.Stop()
	if err := w.Cluster.Get(t.Context(), client.ObjectKeyFromObject(crashes), crashes); err != nil {
		t.Fatal(err)
	}
	meta.SetStatusCondition(&crashes.Status.Conditions, metav1.Condition{Type: v1alpha1.ConditionWorkloadReady, Status: metav1.ConditionFalse, Reason: v1alpha1.ReasonCrashLoopBackOff, Message: "It ended."})
	if err := w.Admin.Status().Update(t.Context(), crashes); err != nil {
		t.Fatal(err)
	}
	w.Image, w.Retired = image2, []string{"*"}
	w.Start(&operator.Wire{})
	restarted := false
	isOver := func() error {
		taken, marked := map[string]int{}, map[string]int{}
		for _, bot := range append(noisy[1:len(noisy):len(noisy)], quiet...) {
			set := setOf(w, bot)
			if helperImage(set) == image2 {
				taken[bot.Namespace]++
			}
			if set.Annotations[v1alpha1.AnnotationRolling] != "" {
				marked[bot.Namespace]++
			}
		}
		if taken["noisy"] > 3 {
			t.Fatalf("%d of the Tenant's bots that were healthy were restarted", taken["noisy"])
		}
		if !restarted && taken["noisy"] == 2 {
			restarted = true
			w.Restart()
		}
		if fmt.Sprint(taken, marked) != "map[noisy:3 quiet:5] map[noisy:3]" {
			return fmt.Errorf("%v have it, %v are marked", taken, marked)
		}
		stopped := 0
		for _, bot := range noisy[1:] {
			if w.IsNow(bot, "WorkloadReady=True/UpdateStopped") == nil && strings.Contains(messageOf(bot.Status.Conditions, v1alpha1.ConditionWorkloadReady), "for this Tenant") {
				stopped++
			}
		}
		if stopped != 2 {
			return fmt.Errorf("%d say that it was stopped for their Tenant", stopped)
		}
		return nil
	}
	w.Eventually("the noisy Tenant is stopped, and nobody else", isOver)
	if set := setOf(w, crashes); helperImage(set) != image2 || set.Annotations[v1alpha1.AnnotationRolling] != "" {
		t.Errorf("the one that crashes anyway has %s and is marked %q", helperImage(set), set.Annotations[v1alpha1.AnnotationRolling])
	}
	w.Calm()
	w.Restart()
	w.Calm()
	if err := isOver(); err != nil {
		t.Errorf("after a restart: %v", err)
	}
	if told := toldStopped(w, "noisy"); len(told) != 1 || !strings.Contains(told[0], "of Tenant noisy") {
		t.Errorf("told %q", told)
	}
	if told := toldStopped(w, "quiet"); len(told) > 0 {
		t.Errorf("told others %q", told)
	}
}

// TestRolloutStops: three that were ready and fail end it, over a restart of the manager too. Those that wait say so,
// and when the cause is gone it goes on by itself.
func TestRolloutStops(t *testing.T) {
	w := operator.NewWorld(t)
	bots := fleet(w, "stopped", 7)
	var pods []*corev1.Pod
	for _, bot := range bots {
		pods = append(pods, failingPod(w, bot))
	}
	s := &slow{seen: map[string]int{}, ticks: 1 << 30}
	w.KCM.Unready = s.unready
	upgrade(w, image2, "*")
	state := func() (taken []string, stopped int) {
		for _, bot := range bots {
			if helperImage(setOf(w, bot)) == image2 {
				taken = append(taken, bot.Name)
			}
			if err := w.Get(bot); err != nil {
				w.T.Fatal(err)
			}
			if c := meta.FindStatusCondition(bot.Status.Conditions, v1alpha1.ConditionWorkloadReady); c != nil && c.Reason == "UpdateStopped" {
				stopped++
				if err := w.IsNow(bot, "Ready=True"); err != nil {
					w.T.Error(err)
				}
			}
		}
		return taken, stopped
	}
	isStopped := func() error {
		if taken, stopped := state(); len(taken) != 3 || stopped != len(bots)-3 {
			return fmt.Errorf("%v have it, %d say that it is stopped", taken, stopped)
		}
		return nil
	}
	w.Eventually("three fail, and it stops", isStopped)
	w.Calm()
	first, _ := state()
	w.Soon("an event", func() error {
		if told := toldStopped(w, "stopped"); len(told) != 1 {
			return fmt.Errorf("events %v", told)
		}
		return nil
	})
	for range 2 {
		w.Restart()
		w.Calm()
		if err := isStopped(); err != nil {
			t.Errorf("after a restart %v", err)
		}
	}
	if told := toldStopped(w, "stopped"); len(told) != 1 {
		t.Errorf("two restarts later it was told again: %v", told)
	}
	if again, _ := state(); fmt.Sprint(again) != fmt.Sprint(first) {
		t.Errorf("after a restart %v have it, before it %v", again, first)
	}
	// The cause is gone.
	s.mutex.Lock()
	s.ticks = 1
	s.mutex.Unlock()
	for _, pod := range pods {
		if err := w.Cluster.Delete(context.Background(), pod, client.GracePeriodSeconds(0)); err != nil && !apierrors.IsNotFound(err) {
			t.Fatal(err)
		}
	}
	begun := time.Now()
	w.Eventually("it goes on", func() error {
		if taken, stopped := state(); len(taken) != len(bots) || stopped > 0 {
			return fmt.Errorf("%v have it, %d say that it is stopped", taken, stopped)
		}
		for _, bot := range bots {
			if setOf(w, bot).Annotations[v1alpha1.AnnotationRolling] != "" {
				return fmt.Errorf("%s is marked", bot.Name)
			}
		}
		return nil
	})
	t.Logf("it went on within %s", time.Since(begun))
}

// TestRolloutHealsAfterACrash: after whatever write the manager dies, and before the first of each kind, the next one
// goes on: everybody gets it, one at a time.
func TestRolloutHealsAfterACrash(t *testing.T) {
	w := operator.NewWorld(t)
	bots := fleet(w, "crashed", 3)
	s := &slow{seen: map[string]int{}, ticks: 2}
	w.KCM.Unready = s.unready
	images := []string{image2, image3}
	var points crash.Points
	for at := int64(1); ; at++ {
		died := false
		for _, after := range []bool{true, false} {
			image := images[0]
			images[0], images[1] = images[1], images[0]
			w.Stop()
			w.Image, w.Retired = image, []string{"*"}
			cut := &operator.Wire{CutAt: at, After: after}
			w.Start(cut)
			w.Eventually(fmt.Sprintf("cut at %d, after %v", at, after), func() error {
				if w.Wire.IsDead() {
					died = true
					w.Restart()
				}
				if n := unreadyNow(w, bots); n > 1 {
					w.T.Errorf("cut at %d, after %v: %d are not ready", at, after, n)
				}
				for _, bot := range bots {
					if set := setOf(w, bot); helperImage(set) != image || set.Annotations[v1alpha1.AnnotationRolling] != "" {
						return fmt.Errorf("%s has %s, mark %q", bot.Name, helperImage(set), set.Annotations[v1alpha1.AnnotationRolling])
					}
					if err := w.IsNow(bot, "WorkloadReady=True/Running"); err != nil {
						return err
					}
				}
				return nil
			})
			w.Calm()
			if !died || !points.Before(cut.KindOf(at)) {
				break
			}
		}
		if !died {
			if at < 6 {
				t.Errorf("only %d writes were cut", at-1)
			}
			return
		}
	}
}
