package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/test/stage"
)

// botAnswers: the bot comes up with its token, answers, and through rollouts of every kind no second consumer ever
// polls.
func botAnswers(t *testing.T, w *world) {
	acme := w.tenant(t, "e2e-acme", func(s *v1alpha1.TenantSpec) {
		s.Access = []v1alpha1.TenantAccess{{Group: "acme-developers", Role: v1alpha1.AccessOperate}, {Group: "acme-readers", Role: v1alpha1.AccessView}}
	})
	token, id := w.newToken(t, 1)
	bot := w.newBot(t, acme, "support", token)
	w.create(t, bot)
	w.awaitReady(t, bot, 2*time.Minute)
	w.chat(t, id, "hello")

	for i, edit := range []func(*v1alpha1.BotDeployment){
		func(b *v1alpha1.BotDeployment) {
			b.Spec.Env = append(b.Spec.Env, v1alpha1.EnvVar{Name: "ROUND", Value: "1"})
		},
		func(b *v1alpha1.BotDeployment) { b.Spec.Env[len(b.Spec.Env)-1].Value = "2" },
		// A token that was sealed again: a new set of credentials is a new revision too.
		func(b *v1alpha1.BotDeployment) {
			b.Spec.Credentials[0].Sealed = w.seal(t, acme, acme.Name, "support", "telegram-token", 2, token)
		},
		func(b *v1alpha1.BotDeployment) { b.Spec.OperatingMode = v1alpha1.ModeSuspended },
		func(b *v1alpha1.BotDeployment) { b.Spec.OperatingMode = v1alpha1.ModeRunning },
		func(b *v1alpha1.BotDeployment) { b.Spec.OperatingMode = v1alpha1.ModeSuspended },
		func(b *v1alpha1.BotDeployment) { b.Spec.OperatingMode = v1alpha1.ModeRunning },
	} {
		change(t, w.client, bot, edit)
		w.awaitReady(t, bot, 2*time.Minute)
		if bot.Spec.OperatingMode != v1alpha1.ModeSuspended {
			w.chat(t, id, fmt.Sprint("after change ", i))
		}
	}
	st, err := w.telegram.Control.Stats(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	if st.Conflicts != 0 || st.Polls < 5 {
		t.Errorf("%d polls and %d conflicts through seven changes: two pods held the token at a time", st.Polls, st.Conflicts)
	}
	var pod corev1.Pod
	if err := w.client.Get(t.Context(), client.ObjectKey{Namespace: acme.Name, Name: "support-bot-0"}, &pod); err != nil {
		t.Fatal(err)
	}
	for _, v := range pod.Spec.Volumes {
		if v.Projected == nil {
			continue
		}
		for _, s := range v.Projected.Sources {
			if s.ServiceAccountToken != nil && s.ServiceAccountToken.Audience != v1alpha1.AudienceKeyserver {
				t.Errorf("the bot's pod has a token for %q", s.ServiceAccountToken.Audience)
			}
		}
	}
}

// badImage sets two traps: a revision that never starts, and a token that is nobody's. What they do to the status is
// looked at later, in goodImage: a bot may take a minute before its status says that it is on its way.
func badImage(t *testing.T, w *world) {
	bot := &v1alpha1.BotDeployment{ObjectMeta: metav1.ObjectMeta{Namespace: "e2e-acme", Name: "support"}}
	change(t, w.client, bot, func(b *v1alpha1.BotDeployment) { b.Spec.Image = w.noImage() })
	until(t, time.Minute, "see the bad revision's pod", func(ctx context.Context) (string, error) {
		var pod corev1.Pod
		if err := w.client.Get(ctx, client.ObjectKey{Namespace: "e2e-acme", Name: "support-bot-0"}, &pod); err != nil {
			return "", err
		}
		for _, cs := range pod.Status.ContainerStatuses {
			if cs.State.Waiting != nil && strings.Contains(cs.State.Waiting.Reason, "Image") {
				return "", nil
			}
		}
		return "a container that waits for its image", nil
	})
	var acme v1alpha1.Tenant
	if err := w.client.Get(t.Context(), client.ObjectKey{Name: "e2e-acme"}, &acme); err != nil {
		t.Fatal(err)
	}
	token := "5999999:AA" + stage.Random()
	w.canaries["token of nobody"] = []byte(token)
	w.create(t, w.newBot(t, &acme, "wrong-token", token))
}

// goodImage: a revision that never starts must not block its own fix, nor one of its credentials.
func goodImage(t *testing.T, w *world) {
	bot := &v1alpha1.BotDeployment{ObjectMeta: metav1.ObjectMeta{Namespace: "e2e-acme", Name: "support"}}
	nobody := &v1alpha1.BotDeployment{ObjectMeta: metav1.ObjectMeta{Namespace: "e2e-acme", Name: "wrong-token"}}
	for _, b := range []*v1alpha1.BotDeployment{bot, nobody} {
		w.awaitCondition(t, b, v1alpha1.ConditionWorkloadReady, metav1.ConditionFalse, "", 2*time.Minute)
	}
	if err := w.client.Delete(t.Context(), nobody); err != nil {
		t.Fatal(err)
	}
	var acme v1alpha1.Tenant
	if err := w.client.Get(t.Context(), client.ObjectKey{Name: "e2e-acme"}, &acme); err != nil {
		t.Fatal(err)
	}
	token := "5000001:" + string(w.canaries["token 1"])
	// A new value while the bad revision is stuck, and another one with the good image.
	change(t, w.client, bot, func(b *v1alpha1.BotDeployment) {
		b.Spec.Credentials[0].Sealed = w.seal(t, &acme, acme.Name, "support", "telegram-token", 3, token)
	})
	until(t, time.Minute, "see the new value stored", func(ctx context.Context) (string, error) {
		before := bot.Status.CredentialsSecret
		var set appsv1.StatefulSet
		if err := w.client.Get(ctx, client.ObjectKey{Namespace: "e2e-acme", Name: "support-bot"}, &set); err != nil {
			return "", err
		}
		if set.Spec.Template.Annotations[v1alpha1.AnnotationCredentials] == before {
			return "the template has the value of before", nil
		}
		return "", nil
	})
	change(t, w.client, bot, func(b *v1alpha1.BotDeployment) {
		b.Spec.Image = w.botImage
		b.Spec.Credentials[0].Sealed = w.seal(t, &acme, acme.Name, "support", "telegram-token", 4, token)
	})
	w.awaitReady(t, bot, 2*time.Minute)
	w.chat(t, 5_000_001, "are you back?")
	w.gone(t, nobody, time.Minute)
}

// wrongPlace: a sealed value opens in one place only; a plaintext is not even taken.
func wrongPlace(t *testing.T, w *world) {
	globex := w.tenant(t, "e2e-globex", nil)
	var acme v1alpha1.Tenant
	if err := w.client.Get(t.Context(), client.ObjectKey{Name: "e2e-acme"}, &acme); err != nil {
		t.Fatal(err)
	}
	token, id := w.newToken(t, 2)
	stolen := w.newBot(t, globex, "support", token)
	stolen.Spec.Credentials[0].Sealed = w.seal(t, &acme, "e2e-acme", "support", "telegram-token", 1, token)
	w.create(t, stolen)
	w.awaitCondition(t, stolen, v1alpha1.ConditionCredentialsReady, metav1.ConditionFalse, "", time.Minute)
	var sets appsv1.StatefulSetList
	if err := w.client.List(t.Context(), &sets, client.InNamespace(globex.Name)); err != nil || len(sets.Items) != 0 {
		t.Errorf("a bot without its credential has %d workloads (%v)", len(sets.Items), err)
	}
	for _, c := range stolen.Status.Conditions {
		if strings.Contains(c.Message, token) || strings.Contains(c.Message, string(stolen.Spec.Credentials[0].Sealed)) {
			t.Errorf("condition %s repeats the value", c.Type)
		}
	}
	// Sealed for the right place, it works: nothing else was wrong. Somebody who tries again is told again, and the
	// bot goes on with the value that it has.
	wrong := stolen.Spec.Credentials[0].Sealed
	for round := range 2 {
		change(t, w.client, stolen, func(b *v1alpha1.BotDeployment) {
			b.Spec.Credentials[0].Sealed = w.seal(t, globex, globex.Name, "support", "telegram-token", uint32(round+1), token)
		})
		w.awaitReady(t, stolen, 2*time.Minute)
		change(t, w.client, stolen, func(b *v1alpha1.BotDeployment) { b.Spec.Credentials[0].Sealed = wrong })
		w.awaitCondition(t, stolen, v1alpha1.ConditionCredentialsReady, metav1.ConditionFalse, "", time.Minute)
		w.chat(t, id, "still there?")
	}

	canary := "plain-" + stage.Random()
	w.canaries["plaintext pasted by mistake"] = []byte(canary)
	plain := w.newBot(t, globex, "plain", token)
	plain.Spec.Credentials[0].Sealed = v1alpha1.SealedValue(canary)
	err := w.client.Create(t.Context(), plain)
	if !apierrors.IsInvalid(err) {
		t.Fatalf("a plaintext in sealed: %v", err)
	}
	if strings.Contains(err.Error(), canary) || !strings.Contains(err.Error(), "kubectl lethe seal") {
		t.Errorf("the refusal repeats the value, or names no remedy: %v", err)
	}
}
