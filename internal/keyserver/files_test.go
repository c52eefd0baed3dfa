package keyserver

import (
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/internal/sealing"
)

// withConfig gives a bot one file in place and one out of a ConfigMap.
func withConfig(b *v1alpha1.BotDeployment) {
	b.Spec.Files = []v1alpha1.BotFile{{Path: "/etc/bot/inline", Content: "token: ${credential:telegram}"},
		{Path: "/etc/bot/config", ConfigMapKeyRef: &v1alpha1.ConfigMapKeyRef{Name: "config", Key: "k"}}}
}

// TestUnsealRefusesAlteredFiles: what a bot reads its settings from is its program as much as its image is. A manager
// that puts another file into the pod, or a ConfigMap that is another one by now, ends with no credentials.
func TestUnsealRefusesAlteredFiles(t *testing.T) {
	w := newWorld(t)
	w.tenantKeys()
	bot, secret := w.newBot("support", withConfig)
	config := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: w.ns, Name: "config", Annotations: map[string]string{v1alpha1.AnnotationFileFor: "other, support"}},
		Data: map[string]string{"k": "relay: https://right.example"}}
	w.must(testEnv.Client.Create(w.Context(), config))
	whole, err := resources.WithFiles(bot, map[string]*corev1.ConfigMap{"config": config})
	w.must(err)
	credentials := w.storeAndRecord(bot).Secret
	pod := w.startPod(whole, credentials)
	token := w.podToken(pod)
	items, refusal := w.unseal(token, string(pod.UID))
	w.granted(refusal)
	if string(items["telegram"].Value) != secret {
		t.Error("another value")
	}
	for name, tc := range map[string]struct {
		change func(*corev1.ConfigMap)
		reason string
		says   string
	}{
		"another content": {func(c *corev1.ConfigMap) { c.Data["k"] = "relay: https://evil.example" }, v1alpha1.ReasonPodMismatch, "annotations[lethe.dev/file-1]"},
		"no key":          {func(c *corev1.ConfigMap) { delete(c.Data, "k") }, v1alpha1.ReasonFileMissing, "no key k"},
		"not shared":      {func(c *corev1.ConfigMap) { c.Annotations[v1alpha1.AnnotationFileFor] = "other" }, v1alpha1.ReasonFileNotShared, "kubectl annotate configmap"},
		"too large":       {func(c *corev1.ConfigMap) { c.Data["k"] = strings.Repeat("x", resources.MaxFile+1) }, v1alpha1.ReasonFileRefused, "65537 bytes"},
		"a credential that the bot does not have": {func(c *corev1.ConfigMap) { c.Data["k"] = "${credential:other}" }, v1alpha1.ReasonFileRefused, "credential other"},
	} {
		changed := config.DeepCopy()
		tc.change(changed)
		w.must(testEnv.Client.Update(w.Context(), changed))
		_, refusal := w.unseal(token, string(pod.UID))
		w.wantRefusal(refusal, tc.reason)
		if !strings.Contains(refusal.Message, tc.says) || strings.Contains(refusal.Message, "evil") {
			t.Errorf("%s: says %q", name, refusal.Message)
		}
		config.ResourceVersion = changed.ResourceVersion
		w.must(testEnv.Client.Update(w.Context(), config))
	}
	_, refusal = w.unseal(token, string(pod.UID))
	w.granted(refusal)
	// The manager puts another content into what is in place.
	set := &appsv1.StatefulSet{}
	w.must(testEnv.Client.Get(t.Context(), client.ObjectKey{Namespace: w.ns, Name: resources.BotName(bot.Name)}, set))
	set.Spec.Template.Annotations[v1alpha1.AnnotationFile+"0"] = "token: ${credential:telegram} evil"
	w.must(w.cluster.Update(t.Context(), set))
	_, refusal = w.unseal(token, string(pod.UID))
	w.wantRefusal(refusal, v1alpha1.ReasonPodMismatch)
	if !strings.Contains(refusal.Message, "annotations[lethe.dev/file-0]") || strings.Contains(refusal.Message, "evil") {
		t.Errorf("says %q", refusal.Message)
	}
	w.must(testEnv.Client.Delete(w.Context(), config))
	_, refusal = w.unseal(token, string(pod.UID))
	w.wantRefusal(refusal, v1alpha1.ReasonFileMissing)
}

// TestWhatCannotBeAVariable: a value that delivery Env cannot deliver is refused while a person looks, and not by a
// pod that does not start. What runs keeps what it has.
func TestWhatCannotBeAVariable(t *testing.T) {
	w := newWorld(t)
	w.tenantKeys()
	env := func(b *v1alpha1.BotDeployment, value string, version uint32) {
		b.Spec.Credentials = []v1alpha1.Credential{{Name: "key", Delivery: v1alpha1.DeliveryEnv, EnvName: "KEY",
			Sealed: w.seal(w.place(sealing.KindBotDeployment, b.Name, "key", version), value)}}
	}
	for name, value := range map[string]string{"lines": "canary-a\nb", "quote": "canary'", "nul": "canary\x00", "long": "canary" + strings.Repeat("x", 32<<10)} {
		bot, _ := w.newBot(name, func(b *v1alpha1.BotDeployment) { env(b, value, 1) })
		resp := w.store(bot)
		if item := resp.Items[0]; resp.Secret != "" || item.Reason != v1alpha1.ReasonNoVariable || strings.Contains(item.Message, "canary") || !strings.Contains(item.Message, "delivery File") {
			t.Errorf("%s: %+v", name, resp)
		}
	}
	bot, _ := w.newBot("rotated", func(b *v1alpha1.BotDeployment) { env(b, "good", 1) })
	first := w.storeAndRecord(bot)
	env(bot, "canary\n", 2)
	w.must(testEnv.Client.Update(w.Context(), bot))
	resp := w.store(bot)
	if resp.Secret != first.Secret || resp.Items[0].Reason != v1alpha1.ReasonNoVariable || !strings.Contains(resp.Items[0].Message, "goes on being used") {
		t.Errorf("after a bad rotation: %+v", resp)
	}
	// What was stored as a file becomes a variable.
	file, _ := w.newBot("moved", func(b *v1alpha1.BotDeployment) {
		env(b, "canary\n", 1)
		b.Spec.Credentials[0].Delivery, b.Spec.Credentials[0].EnvName = "", ""
	})
	if stored := w.storeAndRecord(file); stored.Items[0].Reason != v1alpha1.ReasonStored {
		t.Fatalf("%+v", stored)
	}
	file.Spec.Credentials[0].Delivery, file.Spec.Credentials[0].EnvName = v1alpha1.DeliveryEnv, "KEY"
	w.must(testEnv.Client.Update(w.Context(), file))
	if resp := w.store(file); resp.Secret != "" || resp.Items[0].Reason != v1alpha1.ReasonNoVariable {
		t.Errorf("a file that becomes a variable: %+v", resp)
	}
}

// TestLargeCredentials: a credential of 64 KiB goes all the way, and what is too much together is said by name.
func TestLargeCredentials(t *testing.T) {
	w := newWorld(t)
	w.tenantKeys()
	large := strings.Repeat("k", sealing.MaxPlaintext)
	sealed := func(b *v1alpha1.BotDeployment, name string) v1alpha1.Credential {
		return v1alpha1.Credential{Name: name, Sealed: w.seal(w.place(sealing.KindBotDeployment, b.Name, name, 1), large)}
	}
	bot, _ := w.newBot("large", func(b *v1alpha1.BotDeployment) { b.Spec.Credentials = []v1alpha1.Credential{sealed(b, "one")} })
	pod := w.startPod(bot, w.storeAndRecord(bot).Secret)
	items, refusal := w.unseal(w.podToken(pod), string(pod.UID))
	w.granted(refusal)
	if string(items["one"].Value) != large {
		t.Error("another value")
	}
	source := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: w.ns, Name: "source", Annotations: map[string]string{v1alpha1.AnnotationCredentialFor: "*"}},
		Data: map[string][]byte{"k": []byte(large)}}
	w.must(testEnv.Client.Create(w.Context(), source))
	for _, n := range []int{2, 3} {
		bot, _ := w.newBot("many", func(b *v1alpha1.BotDeployment) {
			b.Spec.Credentials = nil
			for i := range n {
				b.Spec.Credentials = append(b.Spec.Credentials, v1alpha1.Credential{Name: string(rune('a' + i)), SecretKeyRef: &v1alpha1.SecretKeyRef{Name: "source", Key: "k"}})
			}
		})
		resp := w.storeAndRecord(bot)
		if n == 3 {
			if resp.Secret != "" || resp.Items[1].Reason != v1alpha1.ReasonStored || resp.Items[2].Reason != v1alpha1.ReasonTooLarge || !strings.Contains(resp.Items[2].Message, "131072 together") {
				t.Errorf("three: %+v", resp)
			}
			break
		}
		pod := w.startPod(bot, resp.Secret)
		items, refusal := w.unseal(w.podToken(pod), string(pod.UID))
		w.granted(refusal)
		if len(items) != 2 || string(items["b"].Value) != large {
			t.Errorf("two: %d items", len(items))
		}
		w.must(testEnv.Client.Delete(w.Context(), bot))
	}
}
