package keyserver

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/sealing"
)

// remake is what somebody with every right on Secrets can do: delete one that cannot be changed, and make it again.
func (w *world) remake(secret *corev1.Secret, data map[string][]byte) {
	w.Helper()
	w.must(testEnv.Client.Delete(w.Context(), secret.DeepCopy()))
	w.must(testEnv.Client.Create(w.Context(), &corev1.Secret{Type: secret.Type, Immutable: secret.Immutable, Data: data,
		ObjectMeta: metav1.ObjectMeta{Namespace: secret.Namespace, Name: secret.Name, Labels: secret.Labels, Annotations: secret.Annotations, OwnerReferences: secret.OwnerReferences}}))
}

// TestEncryptedSecretIsOpenedWholeOrNotAtAll: whoever may write Secrets cannot bring an older value back by putting its
// ciphertext, which opens, into the present Secret; nor leave one out.
func TestEncryptedSecretIsOpenedWholeOrNotAtAll(t *testing.T) {
	w := newWorld(t)
	w.tenantKeys()
	bot, _ := w.newBot("support", func(b *v1alpha1.BotDeployment) {
		b.Spec.Credentials = append(b.Spec.Credentials, v1alpha1.Credential{Name: "openai",
			Sealed: w.seal(w.place(sealing.KindBotDeployment, b.Name, "openai", 1), w.secret())})
	})
	before := w.getSecret(w.ns, w.storeAndRecord(bot).Secret)
	leaked := before.Data["telegram"]
	renewed := w.secret()
	w.update(bot, func(b *v1alpha1.BotDeployment) {
		b.Spec.Credentials[0].Sealed = w.seal(w.place(sealing.KindBotDeployment, b.Name, "telegram", 9), renewed)
	})
	present := w.getSecret(w.ns, w.storeAndRecord(bot).Secret)
	if present.Name == before.Name {
		t.Fatal("a new value has to be a new set")
	}
	pod := w.startPod(bot, present.Name)
	token := w.podToken(pod)
	for name, data := range map[string]map[string][]byte{
		"an older value":    {"telegram": leaked, "openai": present.Data["openai"]},
		"all older values":  before.Data,
		"a value left out":  {"telegram": present.Data["telegram"]},
		"a value of a name": {"telegram": present.Data["telegram"], "openai": present.Data["telegram"]},
		"nothing":           {},
	} {
		w.remake(present, data)
		_, refusal := w.unseal(token, string(pod.UID))
		if refusal == nil || refusal.Reason != v1alpha1.ReasonForeignSecret {
			t.Errorf("%s: %+v, want %s", name, refusal, v1alpha1.ReasonForeignSecret)
		}
	}
	w.remake(present, present.Data)
	items, refusal := w.unseal(token, string(pod.UID))
	w.granted(refusal)
	if string(items["telegram"].Value) != renewed || len(items) != 2 {
		t.Errorf("got %d credentials", len(items))
	}
}

// TestSecretKeyRefReadsNoTokensAndNothingOfOurs: somebody who may write bots, and no more, must not read a
// ServiceAccount's token by naming it.
func TestSecretKeyRefReadsNoTokensAndNothingOfOurs(t *testing.T) {
	w := newWorld(t)
	w.tenantKeys()
	other, _ := w.newBot("other")
	theirs := w.storeAndRecord(other).Secret
	w.must(testEnv.Client.Create(w.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: w.ns, Name: "deployer"}}))
	for name, secret := range map[string]*corev1.Secret{
		"a ServiceAccount's token": {Type: corev1.SecretTypeServiceAccountToken, ObjectMeta: metav1.ObjectMeta{Name: "deployer",
			Annotations: map[string]string{corev1.ServiceAccountNameKey: "deployer"}}, Data: map[string][]byte{"telegram": []byte(w.secret())}},
		"a bootstrap token":    {Type: corev1.SecretTypeBootstrapToken, ObjectMeta: metav1.ObjectMeta{Name: "bootstrap"}, Data: map[string][]byte{"telegram": []byte(w.secret())}},
		"a release of Helm":    {Type: "helm.sh/release.v1", ObjectMeta: metav1.ObjectMeta{Name: "release"}, Data: map[string][]byte{"telegram": []byte(w.secret())}},
		"another bot's own":    nil,
		"a wrapped key's type": {Type: v1alpha1.SecretTypeWrappedKey, ObjectMeta: metav1.ObjectMeta{Name: "wrapped"}, Data: map[string][]byte{"telegram": []byte(w.secret())}},
	} {
		t.Run(name, func(t *testing.T) {
			w := w.in(t)
			ref := v1alpha1.SecretKeyRef{Name: theirs, Key: "telegram"}
			if secret != nil {
				secret.Namespace = w.ns
				secret.Annotations = map[string]string{corev1.ServiceAccountNameKey: "deployer", v1alpha1.AnnotationCredentialFor: "*"}
				w.createFromBefore(secret)
				ref.Name = secret.Name
			}
			bot, _ := w.newBot("thief-of-"+ref.Name, func(b *v1alpha1.BotDeployment) {
				b.Spec.Credentials = []v1alpha1.Credential{{Name: "telegram", SecretKeyRef: &ref}}
			})
			resp := w.store(bot)
			if resp.Secret != "" || resp.Items[0].Reason != v1alpha1.ReasonForeignSecret {
				t.Errorf("answered %+v", resp)
			}
		})
	}
}

// createFromBefore creates what admission refuses in a tenant's namespace: it was there before the namespace was one.
func (w *world) createFromBefore(object client.Object) {
	w.Helper()
	label := func(value string) {
		ns := &corev1.Namespace{}
		w.must(testEnv.Client.Get(w.Context(), client.ObjectKey{Name: w.ns}, ns))
		delete(ns.Labels, v1alpha1.LabelTenant)
		if value != "" {
			ns.Labels[v1alpha1.LabelTenant] = value
		}
		w.must(testEnv.Client.Update(w.Context(), ns))
	}
	label("")
	w.eventually(func() bool { // admission sees the namespace a moment later
		err := testEnv.Client.Create(w.Context(), object)
		if err != nil && !apierrors.IsForbidden(err) && !apierrors.IsInvalid(err) {
			w.Fatal(err)
		}
		return err == nil
	})
	label(w.tenant.Name)
}
