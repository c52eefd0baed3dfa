package keyserver

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/resources"
)

// TestUnsealRefusesForgedUserIDs: a status that names another tenant's range, or none, renders a pod that gets nothing.
func TestUnsealRefusesForgedUserIDs(t *testing.T) {
	w := newWorld(t)
	w.tenantKeys()
	bot, _ := w.newBot("support")
	set := w.storeAndRecord(bot).Secret
	recorded := *w.tenant.Status.UIDRange
	for name, tc := range map[string]struct {
		forged *v1alpha1.UIDRange
		want   string
	}{
		"another range": {&v1alpha1.UIDRange{First: recorded.First + 500_000, Size: 1000}, v1alpha1.ReasonPodMismatch},
		"a longer one":  {&v1alpha1.UIDRange{First: recorded.First, Size: 2000}, v1alpha1.ReasonPodMismatch},
		"none":          {nil, v1alpha1.ReasonNotReady},
	} {
		w.tenant.Status.UIDRange = tc.forged
		w.must(testEnv.Client.Status().Update(w.Context(), w.tenant))
		pod := w.startPod(bot, set)
		_, refusal := w.unseal(w.podToken(pod), string(pod.UID))
		if refusal == nil || refusal.Reason != tc.want {
			t.Errorf("%s: %+v, want %s", name, refusal, tc.want)
		}
		w.must(w.cluster.Delete(w.Context(), pod))
	}
	w.tenantKeys() // the next call for the Tenant puts it right
	if *w.tenant.Status.UIDRange != recorded {
		t.Fatalf("the status says %+v", w.tenant.Status.UIDRange)
	}
	fresh, _ := w.newBot("fresh")
	pod := w.startPod(fresh, w.storeAndRecord(fresh).Secret)
	_, refusal := w.unseal(w.podToken(pod), string(pod.UID))
	w.granted(refusal)
}

// TestUnsealRefusesForeignVolumes: the record of the claim is read live, so that neither a race nor a broken-into
// manager mounts somebody else's data beside a credential.
func TestUnsealRefusesForeignVolumes(t *testing.T) {
	w := newWorld(t)
	w.tenantKeys()
	bot, _ := w.newBot("support", w.rich)
	pod := w.startPod(bot, w.storeAndRecord(bot).Secret)
	_, refusal := w.unseal(w.podToken(pod), string(pod.UID))
	w.granted(refusal)
	claim := &corev1.PersistentVolumeClaim{}
	w.must(testEnv.Client.Get(w.Context(), client.ObjectKey{Namespace: w.ns, Name: resources.BotClaimName(bot)}, claim))
	right := claim.Annotations
	for name, forge := range map[string]func(map[string]string){
		"another bot's":    func(a map[string]string) { a[v1alpha1.AnnotationBotUID] = "another" },
		"another Tenant's": func(a map[string]string) { a[v1alpha1.AnnotationTenantUID] = "another" },
		"nobody's":         func(a map[string]string) { clear(a) },
		"the bot's by name": func(a map[string]string) {
			clear(a)
			a[v1alpha1.AnnotationBot] = bot.Name
		},
	} {
		annotations := map[string]string{}
		for k, v := range right {
			annotations[k] = v
		}
		forge(annotations)
		claim.Annotations = annotations
		w.must(testEnv.Client.Update(w.Context(), claim))
		_, refusal := w.unseal(w.podToken(pod), string(pod.UID))
		if refusal == nil || refusal.Reason != v1alpha1.ReasonForeignVolume {
			t.Errorf("%s: %+v", name, refusal)
		}
	}
	claim.Annotations = right
	w.must(testEnv.Client.Update(w.Context(), claim))
	_, refusal = w.unseal(w.podToken(pod), string(pod.UID))
	w.granted(refusal)
}
