package controllers

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
)

// makeKeeper is a bot with a volume.
func makeKeeper(namespace, name, policy string) *v1alpha1.BotDeployment {
	bot := makeBot(namespace, name)
	bot.Spec.Storage = &v1alpha1.BotStorage{Size: resource.MustParse("1Gi"), MountPath: "/data", ReclaimPolicy: policy}
	return bot
}

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
func (w *world) notMounted(bot *v1alpha1.BotDeployment) {
	w.t.Helper()
	w.calm()
	set := setOf(bot)
	switch err := w.get(set); {
	case apierrors.IsNotFound(err):
	case err != nil:
		w.t.Fatal(err)
	case *set.Spec.Replicas != 0:
		w.t.Errorf("bot %s runs, with %v", bot.Name, set.Spec.Template.Spec.Volumes)
	}
}

// untouched fails when an object has changed since it was read.
func (w *world) untouched(object client.Object) {
	w.t.Helper()
	version := object.GetResourceVersion()
	if err := w.get(object); err != nil || object.GetResourceVersion() != version || object.GetDeletionTimestamp() != nil {
		w.t.Errorf("%s was touched: %v", object.GetName(), err)
	}
}

// TestVolumeOutlivesItsStatefulSet: data goes with the bot, as it says, and with nothing else.
func TestVolumeOutlivesItsStatefulSet(t *testing.T) {
	for _, policy := range []string{"Retain", "Delete"} {
		t.Run(policy, func(t *testing.T) {
			name := "outlive-" + strings.ToLower(policy)
			w, tenant := withTenant(t, name)
			bot := makeKeeper(name+"-a", "b", policy)
			bot.Spec.Credentials, bot.Spec.Channels = nil, nil // no key holds the bot back when it goes
			w.create(bot)
			w.becomes(bot, "Ready=True")
			claim := claimNamed(bot.Namespace, "b-data")
			if err := w.get(claim); err != nil {
				t.Fatal(err)
			}
			if !resources.IsClaimOf(claim, bot, tenant) || len(claim.OwnerReferences) > 0 || bot.Status.Claim == nil || bot.Status.Claim.UID != string(claim.UID) {
				t.Errorf("recorded %v, owned by %v, known as %+v", claim.Annotations, claim.OwnerReferences, bot.Status.Claim)
			}
			set := setOf(bot)
			if err := w.get(set); err != nil || len(set.Spec.VolumeClaimTemplates) > 0 || !mounts(set, "b-data") {
				t.Errorf("the StatefulSet makes %d claims, mounts %v: %v", len(set.Spec.VolumeClaimTemplates), set.Spec.Template.Spec.Volumes, err)
			}
			w.delete(setOf(bot))
			w.soon("made again", func() error {
				again := setOf(bot)
				if err := w.get(again); err != nil {
					return err
				}
				if again.UID == set.UID {
					return errors.New("the old one is still there")
				}
				return nil
			})
			w.untouched(claim)

			w.delete(bot)
			w.gone(bot)
			if policy == "Delete" {
				w.gone(claim)
				w.becomes(tenant, "InUse=False")
				return
			}
			w.becomes(tenant, "InUse=True/HoldsVolumes")
			w.untouched(claim)
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
	w, tenant := withTenant(t, "foreign")
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
			w := w.in(t)
			bot := makeKeeper("foreign-a", name, "Delete")
			claim := strangersClaim("foreign-a", name+"-data")
			claim.Annotations = tc.annotations
			if tc.labelled {
				claim.Labels = resources.BotLabels(name)
			}
			w.create(claim, bot)
			w.becomes(bot, "Stalled=True/"+v1alpha1.ReasonForeignVolume)
			w.becomes(bot, "WorkloadReady=False/"+v1alpha1.ReasonForeignVolume)
			w.notMounted(bot)
			w.untouched(claim)
			stalled := status.See(bot.Status.Conditions, v1alpha1.ConditionStalled)
			if !strings.Contains(stalled.Message, claim.Name) || !strings.Contains(stalled.Message, "spec.storage.claim.existing") {
				t.Errorf("says %q", stalled.Message)
			}
			w.delete(bot)
			w.gone(bot)
			w.untouched(claim)
		})
	}
}

// TestVolumeThatIsSwappedUnderARunningBot: the pod goes before anything else is mounted, and an empty one takes no lost one's place.
func TestVolumeThatIsSwappedUnderARunningBot(t *testing.T) {
	w, _ := withTenant(t, "swap")
	bot := makeKeeper("swap-a", "b", "Retain")
	w.create(bot)
	w.becomes(bot, "Ready=True")
	claim := claimNamed("swap-a", "b-data")
	if err := w.get(claim); err != nil {
		t.Fatal(err)
	}
	claim.Finalizers = nil
	if err := w.cluster.Update(context.Background(), claim); err != nil {
		t.Fatal(err)
	}
	w.delete(claim)
	w.becomes(bot, "Stalled=True/"+v1alpha1.ReasonVolumeMissing)
	w.notMounted(bot)
	if err := w.get(claimNamed("swap-a", "b-data")); !apierrors.IsNotFound(err) {
		t.Errorf("an empty volume took the place of a lost one: %v", err)
	}
	other := strangersClaim("swap-a", "b-data")
	w.create(other)
	edit(w, bot, func(b *v1alpha1.BotDeployment) { b.Spec.Image = "registry.example/bot:v2" })
	w.becomes(bot, "Stalled=True/"+v1alpha1.ReasonForeignVolume)
	w.notMounted(bot)
	w.untouched(other)
}

// TestNamespaceThatChangesHands: bob gets alice's namespace. Her volume is not his bot's by the same name, and not by naming it.
func TestNamespaceThatChangesHands(t *testing.T) {
	w, alice := withTenant(t, "alice")
	kept := makeKeeper("alice-a", "b", "Retain")
	w.create(kept)
	w.becomes(kept, "Ready=True")
	w.delete(kept)
	w.gone(kept)
	claim := claimNamed("alice-a", "b-data")
	if err := w.get(claim); err != nil {
		t.Fatal(err)
	}
	w.becomes(alice, "InUse=True/HoldsVolumes")
	// Her Tenant lets the volume go; a platform's hand keeps the namespace, and gives it to bob.
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "alice-a"}}
	edit(w, namespace, func(n *corev1.Namespace) { n.Labels[v1alpha1.LabelTenant] = "bob" })
	bob := makeTenant("bob", "alice-a")
	w.create(bob)

	w.becomes(bob, "NamespacesReady=False") // alice's walls are still there
	edit(w, alice, func(t *v1alpha1.Tenant) { t.Spec.RetainedVolumes = v1alpha1.RetainedVolumesRelease })
	edit(w, alice, func(t *v1alpha1.Tenant) { t.Spec.Namespaces = []v1alpha1.TenantNamespace{{Name: "alice-b"}} })
	w.becomes(alice, "Ready=True")
	edit(w, bob, func(t *v1alpha1.Tenant) {
		t.Labels = map[string]string{"again": "1"}
		t.Spec.Quota = &v1alpha1.TenantQuota{}
	})
	w.becomes(bob, "Ready=True")

	same, naming := makeKeeper("alice-a", "b", "Delete"), makeKeeper("alice-a", "thief", "Retain")
	storageOf(naming, "b-data")
	w.create(same, naming)
	w.becomes(same, "Stalled=True/"+v1alpha1.ReasonForeignVolume)
	w.becomes(naming, "Stalled=True/"+v1alpha1.ReasonForeignVolume)
	// Even somebody who may adopt for bob does not take what a living Tenant has on record.
	edit(w, claim, func(c *corev1.PersistentVolumeClaim) { c.Annotations[v1alpha1.AnnotationAdopt] = string(bob.UID) })
	if err := w.get(claim); err != nil {
		t.Fatal(err)
	}
	w.restart()
	w.becomes(naming, "Stalled=True/"+v1alpha1.ReasonForeignVolume)
	w.eventually("said why", func() error {
		if err := w.get(naming); err != nil {
			return err
		}
		if m := status.See(naming.Status.Conditions, v1alpha1.ConditionStalled).Message; !strings.Contains(m, "another Tenant's that exists") {
			return errors.New(m)
		}
		return nil
	})
	w.notMounted(same)
	w.notMounted(naming)
	w.untouched(claim)
	w.delete(same)
	w.delete(naming)
	w.gone(same)
	w.gone(naming)
	w.untouched(claim)
}

// TestExistingVolumeIsTakenOver: by name in the spec, and nothing else; what another Tenant left needs the word of who may adopt.
func TestExistingVolumeIsTakenOver(t *testing.T) {
	w, tenant := withTenant(t, "adopt")
	first := makeKeeper("adopt-a", "first", "Retain")
	w.create(first)
	w.becomes(first, "Ready=True")

	early := makeKeeper("adopt-a", "second", "Retain")
	storageOf(early, "first-data")
	w.create(early)
	w.becomes(early, "Stalled=True/"+v1alpha1.ReasonForeignVolume) // in use
	w.notMounted(early)
	w.delete(first)
	w.gone(first)
	w.restart() // or a minute later
	w.becomes(early, "Ready=True")
	claim := claimNamed("adopt-a", "first-data")
	if err := w.get(claim); err != nil || !resources.IsClaimOf(claim, early, tenant) {
		t.Errorf("recorded: %v, %v", claim.Annotations, err)
	}
	if set := setOf(early); w.get(set) != nil || !mounts(set, "first-data") {
		t.Error("it is not mounted")
	}
	w.becomes(tenant, "InUse=True/HoldsBotsOrStores")

	// After a disaster: the Tenant has another UID, and the claim was restored as it was, or without any record.
	for i, annotations := range []map[string]string{nil, {v1alpha1.AnnotationTenantUID: "lost", v1alpha1.AnnotationBotUID: "lost", v1alpha1.AnnotationBot: "x"}} {
		name := fmt.Sprintf("restored-%d", i)
		restored := strangersClaim("adopt-a", name)
		restored.Annotations = annotations
		bot := makeKeeper("adopt-a", name, "Retain")
		bot.Spec.Storage.Size = resource.Quantity{}
		storageOf(bot, name)
		w.create(restored, bot)
		w.becomes(bot, "Stalled=True/"+v1alpha1.ReasonForeignVolume)
		w.notMounted(bot)
		w.untouched(restored)
		message := status.See(bot.Status.Conditions, v1alpha1.ConditionStalled).Message
		if !strings.Contains(message, fmt.Sprintf("kubectl -n adopt-a annotate pvc %s lethe.dev/adopt=%s", name, tenant.UID)) {
			t.Errorf("says %q", message)
		}
		edit(w, restored, func(c *corev1.PersistentVolumeClaim) {
			if c.Annotations == nil {
				c.Annotations = map[string]string{}
			}
			c.Annotations[v1alpha1.AnnotationAdopt] = string(tenant.UID)
		})
		w.restart()
		w.becomes(bot, "Ready=True")
		if err := w.get(restored); err != nil || !resources.IsClaimOf(restored, bot, tenant) || restored.Annotations[v1alpha1.AnnotationAdopt] != "" {
			t.Errorf("recorded: %v, %v", restored.Annotations, err)
		}
	}
	missing := makeKeeper("adopt-a", "missing", "Retain")
	storageOf(missing, "nowhere")
	w.create(missing)
	w.becomes(missing, "Stalled=True/"+v1alpha1.ReasonVolumeMissing)
	w.notMounted(missing)
}

// TestVolumeThatDiffersIsNotGreen: what is there is used, and the status says what it is not.
func TestVolumeThatDiffersIsNotGreen(t *testing.T) {
	w, tenant := withTenant(t, "differs")
	claim := strangersClaim("differs-a", "small")
	claim.Annotations = map[string]string{v1alpha1.AnnotationAdopt: string(tenant.UID)}
	bot := makeKeeper("differs-a", "b", "Retain")
	fast := "fast"
	bot.Spec.Storage.Size, bot.Spec.Storage.StorageClassName = resource.MustParse("5Gi"), &fast
	storageOf(bot, "small")
	w.create(claim, bot)
	w.becomes(bot, "Stalled=True/"+v1alpha1.ReasonVolumeDiffers)
	w.becomes(bot, "Ready=False/"+v1alpha1.ReasonVolumeDiffers)
	message := meta.FindStatusCondition(bot.Status.Conditions, v1alpha1.ConditionReady).Message
	for _, want := range []string{"1Gi", "5Gi", "spec.storage.storageClassName", "small"} {
		if !strings.Contains(message, want) {
			t.Errorf("%q does not say %s", message, want)
		}
	}
	w.becomes(bot, "WorkloadReady=True")
}

// TestVolumesThatWereToGo: a bot whose finalizer a hand took off while the manager was away leaves a volume that was to go with it.
func TestVolumesThatWereToGo(t *testing.T) {
	w, tenant := withTenant(t, "leftover")
	goes, stays := makeKeeper("leftover-a", "goes", "Delete"), makeKeeper("leftover-a", "stays", "Retain")
	other := strangersClaim("leftover-a", "others")
	w.create(goes, stays)
	w.becomes(goes, "Ready=True")
	w.becomes(stays, "Ready=True")
	w.becomes(tenant, "InUse=True")
	other.Labels = resources.BotLabels("x")
	other.Annotations = map[string]string{v1alpha1.AnnotationTenantUID: "another", v1alpha1.AnnotationBotUID: "gone", v1alpha1.AnnotationReclaimPolicy: "Delete"}
	w.create(other)
	w.stop()
	for _, bot := range []*v1alpha1.BotDeployment{goes, stays} {
		if err := w.get(bot); err != nil {
			t.Fatal(err)
		}
		bot.Finalizers = nil
		if err := w.cluster.Update(context.Background(), bot); err != nil {
			t.Fatal(err)
		}
		w.delete(bot)
	}
	w.start(&wire{})
	w.gone(claimNamed("leftover-a", "goes-data"))
	w.becomes(tenant, "InUse=True/HoldsVolumes")
	w.eventually("the others are listed", func() error {
		if err := w.get(tenant); err != nil {
			return err
		}
		if kept := tenant.Status.RetainedVolumes; kept == nil || kept.Count != 2 || kept.Items[0].Name != "others" || kept.Items[1].Name != "stays-data" {
			return fmt.Errorf("%+v", kept)
		}
		return nil
	})
	w.untouched(other)
}

// TestTenantWithRetainedVolumes: it is not deleted before somebody has said what becomes of them.
func TestTenantWithRetainedVolumes(t *testing.T) {
	w, tenant := withTenant(t, "keeps")
	bot := makeKeeper("keeps-a", "b", "Retain")
	w.create(bot)
	w.becomes(bot, "Ready=True")
	w.delete(bot)
	w.gone(bot)
	w.becomes(tenant, "InUse=True/HoldsVolumes")
	if err := w.admin.Delete(context.Background(), tenant.DeepCopy()); !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "retainedVolumes") {
		t.Errorf("deleting it: %v", err)
	}
	message := meta.FindStatusCondition(tenant.Status.Conditions, v1alpha1.ConditionInUse).Message
	if !strings.Contains(message, "keeps-a/b-data") || !strings.Contains(message, "spec.retainedVolumes: Release") {
		t.Errorf("says %q", message)
	}
	edit(w, tenant, func(t *v1alpha1.Tenant) { t.Spec.RetainedVolumes = v1alpha1.RetainedVolumesRelease })
	w.becomes(tenant, "InUse=False")
	if tenant.Status.RetainedVolumes == nil {
		t.Error("they are not listed any more")
	}
	w.delete(tenant)
	w.gone(tenant)
	w.gone(claimNamed("keeps-a", "b-data"))
}

// TestWhatWasTakenOverIsKept: who writes bots takes a retained volume over and deletes the bot, and the data is still there. It goes
// with a bot only where somebody who may adopt has written so on the claim.
func TestWhatWasTakenOverIsKept(t *testing.T) {
	w, tenant := withTenant(t, "kept")
	first := makeKeeper("kept-a", "b", "Retain")
	w.create(first)
	w.becomes(first, "Ready=True")
	claim := claimNamed("kept-a", "b-data")
	take := func(bot *v1alpha1.BotDeployment, was *v1alpha1.BotDeployment) {
		t.Helper()
		w.delete(was)
		w.gone(was)
		w.becomes(tenant, "InUse=True/HoldsVolumes")
		w.create(bot)
		w.becomes(bot, "Ready=True")
		if err := w.get(claim); err != nil || claim.Annotations[v1alpha1.AnnotationReclaimPolicy] != resources.ReclaimRetain || !resources.IsClaimOf(claim, bot, tenant) {
			t.Fatalf("recorded as %v: %v", claim.Annotations, err)
		}
	}
	taker := func(name string) *v1alpha1.BotDeployment {
		bot := makeKeeper("kept-a", name, "Retain")
		storageOf(bot, "b-data")
		return bot
	}
	eve := taker("eve")
	eve.Spec.Storage.ReclaimPolicy = resources.ReclaimDelete
	if err := w.cluster.Create(t.Context(), eve); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "lethe.dev/reclaim-policy") {
		t.Fatalf("taken over to be deleted: %v", err)
	}
	eve = taker("eve")
	take(eve, first)
	eve.Spec.Storage.ReclaimPolicy = resources.ReclaimDelete
	if err := w.cluster.Update(t.Context(), eve); !apierrors.IsInvalid(err) {
		t.Errorf("changed afterwards: %v", err)
	}
	eve = taker("eve")
	last := taker("last")
	take(last, eve)
	edit(w, claim, func(c *corev1.PersistentVolumeClaim) {
		c.Annotations[v1alpha1.AnnotationReclaimPolicy] = resources.ReclaimDelete
	})
	w.calm()
	w.restart()
	w.becomes(last, "Ready=True")
	if err := w.get(claim); err != nil || claim.Annotations[v1alpha1.AnnotationReclaimPolicy] != resources.ReclaimDelete {
		t.Errorf("what somebody who may adopt wrote is gone: %v, %v", claim.Annotations, err)
	}
	w.delete(last)
	w.gone(last)
	w.gone(claim)
}

// TestVolumesThatWereToGoThroughACrash: the volume of a bot whose finalizer was taken off goes, and nothing else does, wherever the
// manager dies while it removes it.
func TestVolumesThatWereToGoThroughACrash(t *testing.T) {
	w, tenant := withTenant(t, "leftcrash")
	var points crash.Points
	for at, died := int64(1), true; died; at++ {
		died = false
		for _, landed := range []bool{true, false} {
			suffix := fmt.Sprintf("-%d-%t", at, landed)
			goes, stays := makeKeeper("leftcrash-a", "goes"+suffix, "Delete"), makeKeeper("leftcrash-a", "stays"+suffix, "Retain")
			w.create(goes, stays)
			w.becomes(goes, "Ready=True")
			w.becomes(stays, "Ready=True")
			kept := claimNamed("leftcrash-a", "stays"+suffix+"-data")
			w.calm()
			w.stop()
			for _, bot := range []*v1alpha1.BotDeployment{goes, stays} {
				edit(w, bot, func(b *v1alpha1.BotDeployment) { b.Finalizers = nil })
				w.delete(bot)
			}
			cut := &wire{cutAt: at, after: landed}
			w.start(cut)
			w.eventually("the volume that was to go is gone, the other is listed"+suffix, func() error {
				if w.wire.isDead() {
					w.restart()
				}
				if err := w.isGone(claimNamed("leftcrash-a", "goes"+suffix+"-data")); err != nil {
					return err
				}
				if err := w.get(tenant); err != nil {
					return err
				}
				volumes := tenant.Status.RetainedVolumes
				if volumes == nil || !slices.ContainsFunc(volumes.Items, func(v v1alpha1.RetainedVolume) bool { return v.Name == kept.Name }) {
					return fmt.Errorf("%s is not listed: %+v", kept.Name, volumes)
				}
				return nil
			})
			if err := w.get(kept); err != nil || kept.DeletionTimestamp != nil {
				t.Errorf("the one that was to stay: %v, %v", kept.DeletionTimestamp, err)
			}
			died = died || cut.isDead()
			w.calm()
			w.restart() // what was not cut is not cut in the next turn
			if !cut.isDead() || !points.Before(cut.kindOf(at)) {
				break
			}
		}
		if !died && at < 3 {
			t.Errorf("there were only %d writes to die at", at-1)
		}
	}
}
