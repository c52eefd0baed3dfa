package bot_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/internal/status"
	"github.com/lethe-dev/lethe/test/crash"
	"github.com/lethe-dev/lethe/test/operator"
)

func claimNamed(namespace, name string) *corev1.PersistentVolumeClaim {
	return &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
}

// strangersClaim is a claim that nobody of ours made.
func strangersClaim(namespace, name string) *corev1.PersistentVolumeClaim {
	claim := claimNamed(namespace, name)
	claim.Spec = corev1.PersistentVolumeClaimSpec{AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
		Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}}}
	return claim
}

func storageOf(bot *v1alpha1.BotDeployment, existing string) {
	bot.Spec.Storage.Claim = &v1alpha1.BotClaim{Existing: existing}
}

// notMounted fails while a pod of the bot could mount anything.
func notMounted(w *operator.World, bot *v1alpha1.BotDeployment) {
	w.T.Helper()
	w.Calm()
	set := operator.SetOf(bot)
	switch err := w.Get(set); {
	case apierrors.IsNotFound(err):
	case err != nil:
		w.T.Fatal(err)
	case *set.Spec.Replicas != 0:
		w.T.Errorf("bot %s runs, with %v", bot.Name, set.Spec.Template.Spec.Volumes)
	}
}

// untouched fails when an object has changed since it was read.
func untouched(w *operator.World, object client.Object) {
	w.T.Helper()
	version := object.GetResourceVersion()
	if err := w.Get(object); err != nil || object.GetResourceVersion() != version || object.GetDeletionTimestamp() != nil {
		w.T.Errorf("%s was touched: %v", object.GetName(), err)
	}
}

// TestVolumeOutlivesItsStatefulSet: data goes with the bot, as it says, and with nothing else.
func TestVolumeOutlivesItsStatefulSet(t *testing.T) {
	for _, policy := range []string{"Retain", "Delete"} {
		t.Run(policy, func(t *testing.T) {
			name := "outlive-" + strings.ToLower(policy)
			w, tenant := operator.WithTenant(t, name)
			bot := operator.MakeKeeper(name+"-a", "b", policy)
			bot.Spec.Credentials, bot.Spec.Channels = nil, nil // no key holds the bot back when it goes
			w.Create(bot)
			w.Becomes(bot, "Ready=True")
			claim := claimNamed(bot.Namespace, "b-data")
			if err := w.Get(claim); err != nil {
				t.Fatal(err)
			}
			if !resources.IsClaimOf(claim, bot, tenant) || len(claim.OwnerReferences) > 0 || bot.Status.Claim == nil || bot.Status.Claim.UID != string(claim.UID) {
				t.Errorf("recorded %v, owned by %v, known as %+v", claim.Annotations, claim.OwnerReferences, bot.Status.Claim)
			}
			set := operator.SetOf(bot)
			if err := w.Get(set); err != nil || len(set.Spec.VolumeClaimTemplates) > 0 || !mounts(set, "b-data") {
				t.Errorf("the StatefulSet makes %d claims, mounts %v: %v", len(set.Spec.VolumeClaimTemplates), set.Spec.Template.Spec.Volumes, err)
			}
			w.Delete(operator.SetOf(bot))
			w.Soon("made again", func() error {
				again := operator.SetOf(bot)
				if err := w.Get(again); err != nil {
					return err
				}
				if again.UID == set.UID {
					return errors.New("the old one is still there")
				}
				return nil
			})
			untouched(w, claim)

			w.Delete(bot)
			w.Gone(bot)
			if policy == "Delete" {
				w.Gone(claim)
				w.Becomes(tenant, "InUse=False")
				return
			}
			w.Becomes(tenant, "InUse=True/HoldsVolumes")
			untouched(w, claim)
			if kept := tenant.Status.RetainedVolumes; kept == nil || kept.Count != 1 || kept.Items[0].Name != "b-data" {
				t.Errorf("listed: %+v", kept)
			}
		})
	}
}

func mounts(set *appsv1.StatefulSet, claim string) bool {
	for _, volume := range set.Spec.Template.Spec.Volumes {
		if volume.PersistentVolumeClaim != nil {
			return volume.PersistentVolumeClaim.ClaimName == claim
		}
	}
	return false
}

// TestForeignVolumes: what is not on record as this very bot's is not mounted, not changed and not deleted.
func TestForeignVolumes(t *testing.T) {
	w, tenant := operator.WithTenant(t, "foreign")
	record := func(tenantUID, botUID types.UID) map[string]string {
		return map[string]string{v1alpha1.AnnotationTenantUID: string(tenantUID), v1alpha1.AnnotationBotUID: string(botUID), v1alpha1.AnnotationBot: "x",
			v1alpha1.AnnotationReclaimPolicy: "Delete"}
	}
	for name, tc := range map[string]struct {
		annotations map[string]string
		labelled    bool
	}{
		"nobodys":        {nil, false},
		"nobodys-ours":   {nil, true},
		"another-tenant": {record("2d2d2d2d-0000-4000-8000-000000000000", "3e3e3e3e-0000-4000-8000-000000000000"), true},
		"an-earlier-bot": {record(tenant.UID, "3e3e3e3e-0000-4000-8000-000000000000"), false},
	} {
		t.Run(name, func(t *testing.T) {
			w := w.In(t)
			bot := operator.MakeKeeper("foreign-a", name, "Delete")
			claim := strangersClaim("foreign-a", name+"-data")
			claim.Annotations = tc.annotations
			if tc.labelled {
				claim.Labels = resources.BotLabels(name)
			}
			w.Create(claim, bot)
			w.Becomes(bot, "Stalled=True/"+v1alpha1.ReasonForeignVolume)
			w.Becomes(bot, "WorkloadReady=False/"+v1alpha1.ReasonForeignVolume)
			notMounted(w, bot)
			untouched(w, claim)
			stalled := status.See(bot.Status.Conditions, v1alpha1.ConditionStalled)
			if !strings.Contains(stalled.Message, claim.Name) || !strings.Contains(stalled.Message, "spec.storage.claim.existing") {
				t.Errorf("says %q", stalled.Message)
			}
			w.Delete(bot)
			w.Gone(bot)
			untouched(w, claim)
		})
	}
}

// TestVolumeThatIsSwappedUnderARunningBot: the pod goes before anything else is mounted, and an empty one takes no
// lost one's place.
func TestVolumeThatIsSwappedUnderARunningBot(t *testing.T) {
	w, _ := operator.WithTenant(t, "swap")
	bot := operator.MakeKeeper("swap-a", "b", "Retain")
	w.Create(bot)
	w.Becomes(bot, "Ready=True")
	claim := claimNamed("swap-a", "b-data")
	if err := w.Get(claim); err != nil {
		t.Fatal(err)
	}
	claim.Finalizers = nil
	if err := w.Cluster.Update(context.Background(), claim); err != nil {
		t.Fatal(err)
	}
	w.Delete(claim)
	w.Becomes(bot, "Stalled=True/"+v1alpha1.ReasonVolumeMissing)
	notMounted(w, bot)
	if err := w.Get(claimNamed("swap-a", "b-data")); !apierrors.IsNotFound(err) {
		t.Errorf("an empty volume took the place of a lost one: %v", err)
	}
	other := strangersClaim("swap-a", "b-data")
	w.Create(other)
	operator.Edit(w, bot, func(b *v1alpha1.BotDeployment) { b.Spec.Image = "registry.example/bot:v2" })
	w.Becomes(bot, "Stalled=True/"+v1alpha1.ReasonForeignVolume)
	notMounted(w, bot)
	untouched(w, other)
}

// TestNamespaceThatChangesHands: bob gets alice's namespace. Her volume is not his bot's by the same name, and not by
// naming it.
func TestNamespaceThatChangesHands(t *testing.T) {
	w, alice := operator.WithTenant(t, "alice")
	kept := operator.MakeKeeper("alice-a", "b", "Retain")
	w.Create(kept)
	w.Becomes(kept, "Ready=True")
	w.Delete(kept)
	w.Gone(kept)
	claim := claimNamed("alice-a", "b-data")
	if err := w.Get(claim); err != nil {
		t.Fatal(err)
	}
	w.Becomes(alice, "InUse=True/HoldsVolumes")
	// Her Tenant lets the volume go; a platform's hand keeps the namespace, and gives it to bob.
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "alice-a"}}
	operator.Edit(w, namespace, func(n *corev1.Namespace) { n.Labels[v1alpha1.LabelTenant] = "bob" })
	bob := operator.MakeTenant("bob", "alice-a")
	w.Create(bob)

	w.Becomes(bob, "NamespacesReady=False") // alice's walls are still there
	operator.Edit(w, alice, func(t *v1alpha1.Tenant) { t.Spec.RetainedVolumes = v1alpha1.RetainedVolumesRelease })
	operator.Edit(w, alice, func(t *v1alpha1.Tenant) { t.Spec.Namespaces = []v1alpha1.TenantNamespace{{Name: "alice-b"}} })
	w.Becomes(alice, "Ready=True")
	operator.Edit(w, bob, func(t *v1alpha1.Tenant) {
		t.Labels = map[string]string{"again": "1"}
		t.Spec.Quota = &v1alpha1.TenantQuota{}
	})
	w.Becomes(bob, "Ready=True")

	same, naming := operator.MakeKeeper("alice-a", "b", "Delete"), operator.MakeKeeper("alice-a", "thief", "Retain")
	storageOf(naming, "b-data")
	w.Create(same, naming)
	w.Becomes(same, "Stalled=True/"+v1alpha1.ReasonForeignVolume)
	w.Becomes(naming, "Stalled=True/"+v1alpha1.ReasonForeignVolume)
	// Even somebody who may adopt for bob does not take what a living Tenant has on record.
	operator.Edit(w, claim, func(c *corev1.PersistentVolumeClaim) { c.Annotations[v1alpha1.AnnotationAdopt] = string(bob.UID) })
	if err := w.Get(claim); err != nil {
		t.Fatal(err)
	}
	w.Restart()
	w.Becomes(naming, "Stalled=True/"+v1alpha1.ReasonForeignVolume)
	w.Eventually("said why", func() error {
		if err := w.Get(naming); err != nil {
			return err
		}
		if m := status.See(naming.Status.Conditions, v1alpha1.ConditionStalled).Message; !strings.Contains(m, "another Tenant's that exists") {
			return errors.New(m)
		}
		return nil
	})
	notMounted(w, same)
	notMounted(w, naming)
	untouched(w, claim)
	w.Delete(same)
	w.Delete(naming)
	w.Gone(same)
	w.Gone(naming)
	untouched(w, claim)
}

// TestExistingVolumeIsTakenOver: by name in the spec, and nothing else; what another Tenant left needs the word of
// who may adopt.
func TestExistingVolumeIsTakenOver(t *testing.T) {
	w, tenant := operator.WithTenant(t, "adopt")
	first := operator.MakeKeeper("adopt-a", "first", "Retain")
	w.Create(first)
	w.Becomes(first, "Ready=True")

	early := operator.MakeKeeper("adopt-a", "second", "Retain")
	storageOf(early, "first-data")
	w.Create(early)
	w.Becomes(early, "Stalled=True/"+v1alpha1.ReasonForeignVolume) // in use
	notMounted(w, early)
	w.Delete(first)
	w.Gone(first)
	w.Restart() // or a minute later
	w.Becomes(early, "Ready=True")
	claim := claimNamed("adopt-a", "first-data")
	if err := w.Get(claim); err != nil || !resources.IsClaimOf(claim, early, tenant) {
		t.Errorf("recorded: %v, %v", claim.Annotations, err)
	}
	if set := operator.SetOf(early); w.Get(set) != nil || !mounts(set, "first-data") {
		t.Error("it is not mounted")
	}
	w.Becomes(tenant, "InUse=True/HoldsBotsOrStores")

	// After a disaster: the Tenant has another UID, and the claim was restored as it was, or without any record.
	for i, annotations := range []map[string]string{nil, {v1alpha1.AnnotationTenantUID: "lost", v1alpha1.AnnotationBotUID: "lost", v1alpha1.AnnotationBot: "x"}} {
		name := fmt.Sprintf("restored-%d", i)
		restored := strangersClaim("adopt-a", name)
		restored.Annotations = annotations
		bot := operator.MakeKeeper("adopt-a", name, "Retain")
		bot.Spec.Storage.Size = resource.Quantity{}
		storageOf(bot, name)
		w.Create(restored, bot)
		w.Becomes(bot, "Stalled=True/"+v1alpha1.ReasonForeignVolume)
		notMounted(w, bot)
		untouched(w, restored)
		message := status.See(bot.Status.Conditions, v1alpha1.ConditionStalled).Message
		if !strings.Contains(message, fmt.Sprintf("kubectl -n adopt-a annotate pvc %s lethe.dev/adopt=%s", name, tenant.UID)) {
			t.Errorf("says %q", message)
		}
		operator.Edit(w, restored, func(c *corev1.PersistentVolumeClaim) {
			if c.Annotations == nil {
				c.Annotations = map[string]string{}
			}
			c.Annotations[v1alpha1.AnnotationAdopt] = string(tenant.UID)
		})
		w.Restart()
		w.Becomes(bot, "Ready=True")
		if err := w.Get(restored); err != nil || !resources.IsClaimOf(restored, bot, tenant) || restored.Annotations[v1alpha1.AnnotationAdopt] != "" {
			t.Errorf("recorded: %v, %v", restored.Annotations, err)
		}
	}
	missing := operator.MakeKeeper("adopt-a", "missing", "Retain")
	storageOf(missing, "nowhere")
	w.Create(missing)
	w.Becomes(missing, "Stalled=True/"+v1alpha1.ReasonVolumeMissing)
	notMounted(w, missing)
}

// TestVolumeThatDiffersIsNotGreen: what is there is used, and the status says what it is not.
func TestVolumeThatDiffersIsNotGreen(t *testing.T) {
	w, tenant := operator.WithTenant(t, "differs")
	claim := strangersClaim("differs-a", "small")
	claim.Annotations = map[string]string{v1alpha1.AnnotationAdopt: string(tenant.UID)}
	bot := operator.MakeKeeper("differs-a", "b", "Retain")
	fast := "fast"
	bot.Spec.Storage.Size, bot.Spec.Storage.StorageClassName = resource.MustParse("5Gi"), &fast
	storageOf(bot, "small")
	w.Create(claim, bot)
	w.Becomes(bot, "Stalled=True/"+v1alpha1.ReasonVolumeDiffers)
	w.Becomes(bot, "Ready=False/"+v1alpha1.ReasonVolumeDiffers)
	message := meta.FindStatusCondition(bot.Status.Conditions, v1alpha1.ConditionReady).Message
	for _, want := range []string{"1Gi", "5Gi", "spec.storage.storageClassName", "small"} {
		if !strings.Contains(message, want) {
			t.Errorf("%q does not say %s", message, want)
		}
	}
	w.Becomes(bot, "WorkloadReady=True")
}

// TestVolumesThatWereToGo: a bot whose finalizer a hand took off while the manager was away leaves a volume that was
// to go with it.
func TestVolumesThatWereToGo(t *testing.T) {
	w, tenant := operator.WithTenant(t, "leftover")
	goes, stays := operator.MakeKeeper("leftover-a", "goes", "Delete"), operator.MakeKeeper("leftover-a", "stays", "Retain")
	other := strangersClaim("leftover-a", "others")
	w.Create(goes, stays)
	w.Becomes(goes, "Ready=True")
	w.Becomes(stays, "Ready=True")
	w.Becomes(tenant, "InUse=True")
	other.Labels = resources.BotLabels("x")
	other.Annotations = map[string]string{v1alpha1.AnnotationTenantUID: "another", v1alpha1.AnnotationBotUID: "gone", v1alpha1.AnnotationReclaimPolicy: "Delete"}
	w.Create(other)
	w.Stop()
	for _, bot := range []*v1alpha1.BotDeployment{goes, stays} {
		if err := w.Get(bot); err != nil {
			t.Fatal(err)
		}
		bot.Finalizers = nil
		if err := w.Cluster.Update(context.Background(), bot); err != nil {
			t.Fatal(err)
		}
		w.Delete(bot)
	}
	w.Start(&operator.Wire{})
	w.Gone(claimNamed("leftover-a", "goes-data"))
	w.Becomes(tenant, "InUse=True/HoldsVolumes")
	w.Eventually("the others are listed", func() error {
		if err := w.Get(tenant); err != nil {
			return err
		}
		if kept := tenant.Status.RetainedVolumes; kept == nil || kept.Count != 2 || kept.Items[0].Name != "others" || kept.Items[1].Name != "stays-data" {
			return fmt.Errorf("%+v", kept)
		}
		return nil
	})
	untouched(w, other)
}

// TestTenantWithRetainedVolumes: it is not deleted before somebody has said what becomes of them.
func TestTenantWithRetainedVolumes(t *testing.T) {
	w, tenant := operator.WithTenant(t, "keeps")
	bot := operator.MakeKeeper("keeps-a", "b", "Retain")
	w.Create(bot)
	w.Becomes(bot, "Ready=True")
	w.Delete(bot)
	w.Gone(bot)
	w.Becomes(tenant, "InUse=True/HoldsVolumes")
	if err := w.Admin.Delete(context.Background(), tenant.DeepCopy()); !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "retainedVolumes") {
		t.Errorf("deleting it: %v", err)
	}
	message := meta.FindStatusCondition(tenant.Status.Conditions, v1alpha1.ConditionInUse).Message
	if !strings.Contains(message, "keeps-a/b-data") || !strings.Contains(message, "spec.retainedVolumes: Release") {
		t.Errorf("says %q", message)
	}
	operator.Edit(w, tenant, func(t *v1alpha1.Tenant) { t.Spec.RetainedVolumes = v1alpha1.RetainedVolumesRelease })
	w.Becomes(tenant, "InUse=False")
	if tenant.Status.RetainedVolumes == nil {
		t.Error("they are not listed any more")
	}
	w.Delete(tenant)
	w.Gone(tenant)
	w.Gone(claimNamed("keeps-a", "b-data"))
}

// TestWhatWasTakenOverIsKept: who writes bots takes a retained volume over and deletes the bot, and the data is still
// there. It goes with a bot only where somebody who may adopt has written so on the claim.
func TestWhatWasTakenOverIsKept(t *testing.T) {
	w, tenant := operator.WithTenant(t, "kept")
	first := operator.MakeKeeper("kept-a", "b", "Retain")
	w.Create(first)
	w.Becomes(first, "Ready=True")
	claim := claimNamed("kept-a", "b-data")
	take := func(bot *v1alpha1.BotDeployment, was *v1alpha1.BotDeployment) {
		t.Helper()
		w.Delete(was)
		w.Gone(was)
		w.Becomes(tenant, "InUse=True/HoldsVolumes")
		w.Create(bot)
		w.Becomes(bot, "Ready=True")
		if err := w.Get(claim); err != nil || claim.Annotations[v1alpha1.AnnotationReclaimPolicy] != resources.ReclaimRetain || !resources.IsClaimOf(claim, bot, tenant) {
			t.Fatalf("recorded as %v: %v", claim.Annotations, err)
		}
	}
	taker := func(name string) *v1alpha1.BotDeployment {
		bot := operator.MakeKeeper("kept-a", name, "Retain")
		storageOf(bot, "b-data")
		return bot
	}
	eve := taker("eve")
	eve.Spec.Storage.ReclaimPolicy = resources.ReclaimDelete
	if err := w.Cluster.Create(t.Context(), eve); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "lethe.dev/reclaim-policy") {
		t.Fatalf("taken over to be deleted: %v", err)
	}
	eve = taker("eve")
	take(eve, first)
	eve.Spec.Storage.ReclaimPolicy = resources.ReclaimDelete
	if err := w.Cluster.Update(t.Context(), eve); !apierrors.IsInvalid(err) {
		t.Errorf("changed afterwards: %v", err)
	}
	eve = taker("eve")
	last := taker("last")
	take(last, eve)
	operator.Edit(w, claim, func(c *corev1.PersistentVolumeClaim) {
		c.Annotations[v1alpha1.AnnotationReclaimPolicy] = resources.ReclaimDelete
	})
	w.Calm()
	w.Restart()
	w.Becomes(last, "Ready=True")
	if err := w.Get(claim); err != nil || claim.Annotations[v1alpha1.AnnotationReclaimPolicy] != resources.ReclaimDelete {
		t.Errorf("what somebody who may adopt wrote is gone: %v, %v", claim.Annotations, err)
	}
	w.Delete(last)
	w.Gone(last)
	w.Gone(claim)
}

// TestVolumesThatWereToGoThroughACrash: the volume of a bot whose finalizer was taken off goes, and nothing else
// does, wherever the manager dies while it removes it.
func TestVolumesThatWereToGoThroughACrash(t *testing.T) {
	w, tenant := operator.WithTenant(t, "leftcrash")
	var points crash.Points
	for at, died := int64(1), true; died; at++ {
		died = false
		for _, landed := range []bool{true, false} {
			suffix := fmt.Sprintf("-%d-%t", at, landed)
			goes, stays := operator.MakeKeeper("leftcrash-a", "goes"+suffix, "Delete"), operator.MakeKeeper("leftcrash-a", "stays"+suffix, "Retain")
			w.Create(goes, stays)
			w.Becomes(goes, "Ready=True")
			w.Becomes(stays, "Ready=True")
			kept := claimNamed("leftcrash-a", "stays"+suffix+"-data")
			w.Calm()
			w.Stop()
			for _, bot := range []*v1alpha1.BotDeployment{goes, stays} {
				operator.Edit(w, bot, func(b *v1alpha1.BotDeployment) { b.Finalizers = nil })
				w.Delete(bot)
			}
			cut := &operator.Wire{CutAt: at, After: landed}
			w.Start(cut)
			w.Eventually("the volume that was to go is gone, the other is listed"+suffix, func() error {
				if w.Wire.IsDead() {
					w.Restart()
				}
				if err := w.IsGone(claimNamed("leftcrash-a", "goes"+suffix+"-data")); err != nil {
					return err
				}
				if err := w.Get(tenant); err != nil {
					return err
				}
				volumes := tenant.Status.RetainedVolumes
				if volumes == nil || !slices.ContainsFunc(volumes.Items, func(v v1alpha1.RetainedVolume) bool { return v.Name == kept.Name }) {
					return fmt.Errorf("%s is not listed: %+v", kept.Name, volumes)
				}
				return nil
			})
			if err := w.Get(kept); err != nil || kept.DeletionTimestamp != nil {
				t.Errorf("the one that was to stay: %v, %v", kept.DeletionTimestamp, err)
			}
			died = died || cut.IsDead()
			w.Calm()
			w.Restart() // what was not cut is not cut in the next turn
			if !cut.IsDead() || !points.Before(cut.KindOf(at)) {
				break
			}
		}
		if !died && at < 3 {
			t.Errorf("there were only %d writes to die at", at-1)
		}
	}
}
