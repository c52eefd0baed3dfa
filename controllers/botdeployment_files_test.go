package controllers

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/resources"
)

// fileIs waits until a bot's StatefulSet has a content for its first file.
func (w *world) fileIs(bot *v1alpha1.BotDeployment, want string) int64 {
	w.t.Helper()
	set := setOf(bot)
	w.eventually("the file", func() error {
		if err := w.get(set); err != nil {
			return err
		}
		if got := set.Spec.Template.Annotations[v1alpha1.AnnotationFile+"0"]; got != want {
			return fmt.Errorf("it holds %.40q", got)
		}
		return nil
	})
	return set.Generation
}

// TestFileOfAConfigMap: a file that comes from a ConfigMap is opted in by whoever may write that, is part of the revision, and is read again once in a while; a change
// rolls once, and nothing in between is written.
func TestFileOfAConfigMap(t *testing.T) {
	w := newWorld(t)
	w.stop()
	fake := clocktesting.NewFakePassiveClock(time.Now())
	w.clock, w.resync = fake, resyncEvery // each pass looks at the clock
	w.start(&wire{})
	tenant := makeTenant("files", "files-a")
	w.create(tenant)
	w.becomes(tenant, "Ready=True")
	bot := makeBot("files-a", "b")
	bot.Spec.Files = []v1alpha1.BotFile{{Path: "/etc/bot/config", ConfigMapKeyRef: &v1alpha1.ConfigMapKeyRef{Name: "config", Key: "k"}}}
	w.create(bot)
	w.becomes(bot, "Stalled=True/"+v1alpha1.ReasonFileMissing)
	if err := w.get(setOf(bot)); err == nil {
		t.Error("it was started without its file")
	}
	config := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "files-a", Name: "config"}, Data: map[string]string{"k": "first"}}
	w.create(config)
	again := func() { fake.SetTime(fake.Now().Add(rereadEvery + time.Second)) }
	again()
	w.becomes(bot, "Stalled=True/"+v1alpha1.ReasonFileNotShared)
	edit(w, config, func(c *corev1.ConfigMap) { c.Annotations = map[string]string{v1alpha1.AnnotationFileFor: "b"} })
	again()
	w.becomes(bot, "Ready=True")
	first := w.fileIs(bot, "first")

	long := strings.Repeat("second ", 100)
	edit(w, config, func(c *corev1.ConfigMap) { c.Data["k"] = long })
	again()
	second := w.fileIs(bot, long)
	if second != first+1 {
		t.Errorf("generation %d became %d by one change", first, second)
	}
	w.becomes(bot, "Ready=True")
	w.calm()
	writes := w.wire.writes.Load()
	again()
	w.calm()
	if more := w.wire.writes.Load() - writes; more != 0 {
		t.Errorf("%d writes though nothing has changed: %v", more, w.wire.written()[writes:])
	}
	w.restart()
	w.calm()
	if n := w.wire.writes.Load(); n != 0 {
		t.Errorf("%d writes after a restart: %v", n, w.wire.written())
	}
	if got := w.fileIs(bot, long); got != second {
		t.Errorf("generation %d became %d by looking", second, got)
	}
	// What runs goes on running without it, and the condition says what is missing.
	w.delete(config)
	again()
	w.becomes(bot, "WorkloadReady=False/"+v1alpha1.ReasonFileMissing)
	w.hasReplicas(bot, 1)
	w.fileIs(bot, long)
}

// TestRestartedAt: another time replaces the pod once, and an event says by which name that was asked for.
func TestRestartedAt(t *testing.T) {
	w, _ := withTenant(t, "again")
	bot := makeBot("again-a", "b")
	w.create(bot)
	w.becomes(bot, "Ready=True")
	set := setOf(bot)
	if err := w.get(set); err != nil {
		t.Fatal(err)
	}
	before := set.Generation
	patch := []byte(`{"apiVersion":"lethe.dev/v1alpha1","kind":"BotDeployment","metadata":{"name":"b","namespace":"again-a"},"spec":{"restartedAt":"2026-11-26T09:30:00+01:00"}}`)
	if err := w.admin.Patch(context.Background(), bot, client.RawPatch("application/apply-patch+yaml", patch), client.FieldOwner("on-call")); err != nil {
		t.Fatal(err)
	}
	w.eventually("the restart", func() error {
		if err := w.get(set); err != nil {
			return err
		}
		if set.Spec.Template.Annotations[v1alpha1.AnnotationRestartedAt] != "2026-11-26T08:30:00Z" {
			return errors.New("not yet")
		}
		return nil
	})
	w.becomes(bot, "Ready=True")
	w.oneEvent(bot, v1alpha1.ReasonRestartRequested)
	events := &eventsv1.EventList{}
	if err := w.admin.List(context.Background(), events, client.InNamespace("again-a")); err != nil {
		t.Fatal(err)
	}
	for _, e := range events.Items {
		if e.Reason == v1alpha1.ReasonRestartRequested && (!strings.Contains(e.Note, "field manager on-call") || !strings.Contains(e.Note, "2026-11-26T08:30:00Z")) {
			t.Errorf("the event says %q", e.Note)
		}
	}
	w.calm()
	w.restart()
	w.calm()
	if err := w.get(set); err != nil || set.Generation != before+1 {
		t.Errorf("generation %d became %d, %v", before, set.Generation, err)
	}
	w.oneEvent(bot, v1alpha1.ReasonRestartRequested)
}

// TestWhatOnlyTheManagerFindsOut: a zone that its own database lacks, and more of a node's disk than the Tenant lets a container have.
func TestWhatOnlyTheManagerFindsOut(t *testing.T) {
	tenant, bot := makeTenant("t", "t-a"), makeBot("t-a", "b")
	check := func() string {
		p := problemIn(checkPod(&botScope{bot: bot, tenant: tenant}))
		if p == nil {
			return ""
		}
		if !p.Stalled || p.Condition != v1alpha1.ConditionWorkloadReady {
			t.Errorf("%+v", p)
		}
		return p.Reason + ": " + p.Message
	}
	for _, zone := range []string{"", "Europe/Berlin", "Etc/UTC"} {
		if bot.Spec.TimeZone = zone; check() != "" {
			t.Errorf("%s: %s", zone, check())
		}
	}
	bot.Spec.TimeZone = "Europe/Atlantis"
	if said := check(); !strings.Contains(said, "TimeZoneUnknown") || !strings.Contains(said, "Europe/Atlantis") {
		t.Errorf("says %q", said)
	}
	bot.Spec.TimeZone = ""
	bot.Spec.Scratch = []v1alpha1.BotScratch{{Path: "/cache", Size: *quantityOf("30Gi")}}
	if said := check(); !strings.Contains(said, "QuotaExceeded") || !strings.Contains(said, "33024Mi") || !strings.Contains(said, "20Gi") {
		t.Errorf("says %q", said)
	}
	tenant.Spec.Quota = &v1alpha1.TenantQuota{EphemeralStorage: quantityOf("64Gi")}
	if said := check(); said != "" {
		t.Errorf("says %q", said)
	}
	if got := resources.TenantLimitRange(tenant, "t-a").Spec.Limits[0].Max[corev1.ResourceEphemeralStorage]; got.Cmp(*quantityOf("64Gi")) != 0 {
		t.Errorf("the LimitRange lets a container have %s", got.String())
	}
}
