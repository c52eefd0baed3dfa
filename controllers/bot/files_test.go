package bot_test

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
	"github.com/lethe-dev/lethe/internal/reconcile"
	"github.com/lethe-dev/lethe/test/operator"
)

// fileIs waits until a bot's StatefulSet has a content for its first file.
func fileIs(w *operator.World, bot *v1alpha1.BotDeployment, want string) int64 {
	w.T.Helper()
	set := operator.SetOf(bot)
	w.Eventually("the file", func() error {
		if err := w.Get(set); err != nil {
			return err
		}
		if got := set.Spec.Template.Annotations[v1alpha1.AnnotationFile+"0"]; got != want {
			return fmt.Errorf("it holds %.40q", got)
		}
		return nil
	})
	return set.Generation
}

// TestFileOfAConfigMap: a file that comes from a ConfigMap is opted in by whoever may write that, is part of the
// revision, and is read again once in a while; a change rolls once, and nothing in between is written.
func TestFileOfAConfigMap(t *testing.T) {
	w := operator.NewWorld(t)
	w.Stop()
	fake := clocktesting.NewFakePassiveClock(time.Now())
	w.Clock, w.Resync = fake, operator.ResyncEvery // each pass looks at the clock
	w.Start(&operator.Wire{})
	tenant := operator.MakeTenant("files", "files-a")
	w.Create(tenant)
	w.Becomes(tenant, "Ready=True")
	bot := operator.MakeBot("files-a", "b")
	bot.Spec.Files = []v1alpha1.BotFile{{Path: "/etc/bot/config", ConfigMapKeyRef: &v1alpha1.ConfigMapKeyRef{Name: "config", Key: "k"}}}
	w.Create(bot)
	w.Becomes(bot, "Stalled=True/"+v1alpha1.ReasonFileMissing)
	if err := w.Get(operator.SetOf(bot)); err == nil {
		t.Error("it was started without its file")
	}
	config := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "files-a", Name: "config"}, Data: map[string]string{"k": "first"}}
	w.Create(config)
	again := func() { fake.SetTime(fake.Now().Add(reconcile.RereadEvery + time.Second)) }
	again()
	w.Becomes(bot, "Stalled=True/"+v1alpha1.ReasonFileNotShared)
	operator.Edit(w, config, func(c *corev1.ConfigMap) { c.Annotations = map[string]string{v1alpha1.AnnotationFileFor: "b"} })
	again()
	w.Becomes(bot, "Ready=True")
	first := fileIs(w, bot, "first")

	long := strings.Repeat("second ", 100)
	operator.Edit(w, config, func(c *corev1.ConfigMap) { c.Data["k"] = long })
	again()
	second := fileIs(w, bot, long)
	if second != first+1 {
		t.Errorf("generation %d became %d by one change", first, second)
	}
	w.Becomes(bot, "Ready=True")
	w.Calm()
	writes := w.Wire.Writes.Load()
	again()
	w.Calm()
	if more := w.Wire.Writes.Load() - writes; more != 0 {
		t.Errorf("%d writes though nothing has changed: %v", more, w.Wire.Written()[writes:])
	}
	w.Restart()
	w.Calm()
	if n := w.Wire.Writes.Load(); n != 0 {
		t.Errorf("%d writes after a restart: %v", n, w.Wire.Written())
	}
	if got := fileIs(w, bot, long); got != second {
		t.Errorf("generation %d became %d by looking", second, got)
	}
	// What runs goes on running without it, and the condition says what is missing.
	w.Delete(config)
	again()
	w.Becomes(bot, "WorkloadReady=False/"+v1alpha1.ReasonFileMissing)
	w.HasReplicas(bot, 1)
	fileIs(w, bot, long)
}

// TestRestartedAt: another time replaces the pod once, and an event says by which name that was asked for.
func TestRestartedAt(t *testing.T) {
	w, _ := operator.WithTenant(t, "again")
	bot := operator.MakeBot("again-a", "b")
	w.Create(bot)
	w.Becomes(bot, "Ready=True")
	set := operator.SetOf(bot)
	if err := w.Get(set); err != nil {
		t.Fatal(err)
	}
	before := set.Generation
	patch := []byte(`{"apiVersion":"lethe.dev/v1alpha1","kind":"BotDeployment","metadata":{"name":"b","namespace":"again-a"},"spec":{"restartedAt":"2026-11-26T09:30:00+01:00"}}`)
	if err := w.Admin.Patch(context.Background(), bot, client.RawPatch("application/apply-patch+yaml", patch), client.FieldOwner("on-call")); err != nil {
		t.Fatal(err)
	}
	w.Eventually("the restart", func() error {
		if err := w.Get(set); err != nil {
			return err
		}
		if set.Spec.Template.Annotations[v1alpha1.AnnotationRestartedAt] != "2026-11-26T08:30:00Z" {
			return errors.New("not yet")
		}
		return nil
	})
	w.Becomes(bot, "Ready=True")
	w.OneEvent(bot, v1alpha1.ReasonRestartRequested)
	events := &eventsv1.EventList{}
	if err := w.Admin.List(context.Background(), events, client.InNamespace("again-a")); err != nil {
		t.Fatal(err)
	}
	for _, e := range events.Items {
		if e.Reason == v1alpha1.ReasonRestartRequested && (!strings.Contains(e.Note, "field manager on-call") || !strings.Contains(e.Note, "2026-11-26T08:30:00Z")) {
			t.Errorf("the event says %q", e.Note)
		}
	}
	w.Calm()
	w.Restart()
	w.Calm()
	if err := w.Get(set); err != nil || set.Generation != before+1 {
		t.Errorf("generation %d became %d, %v", before, set.Generation, err)
	}
	w.OneEvent(bot, v1alpha1.ReasonRestartRequested)
}
