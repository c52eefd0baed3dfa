package keyserver

import (
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/internal/sealing"
)

// TestPullSecretsAreLookedFor: the manager learns by name which Secrets of those that a bot's images are to be pulled
// with are of no use, and nothing of what is in them; nobody else learns that.
func TestPullSecretsAreLookedFor(t *testing.T) {
	w := newWorld(t)
	w.tenantKeys()
	w.opts.Settings.ImagePullSecrets = []string{"installation"}
	w.restart()
	bot, _ := w.newBot("support", func(b *v1alpha1.BotDeployment) {
		b.Spec.ImagePullSecrets = []v1alpha1.ImagePullSecret{{Name: "mine"}, {Name: "opaque"}}
	})
	const canary = "hunter2-Xq7"
	for name, secret := range map[string]*corev1.Secret{
		"mine":   {Type: corev1.SecretTypeDockerConfigJson, Data: map[string][]byte{corev1.DockerConfigJsonKey: []byte(`{"auths":{"registry.example":{"auth":"` + canary + `"}}}`)}},
		"opaque": {Type: corev1.SecretTypeOpaque, Data: map[string][]byte{"x": []byte(canary)}},
	} {
		secret.ObjectMeta = metav1.ObjectMeta{Namespace: w.ns, Name: name}
		w.must(testEnv.Client.Create(t.Context(), secret))
	}
	req := keyapi.PullSecretsRequest{Object: refTo(sealing.KindBotDeployment, bot)}
	var resp keyapi.PullSecretsResponse
	w.granted(w.call(keyapi.PathPullSecrets, w.manager, req, &resp))
	if !slices.Equal(resp.Missing, []string{"installation"}) || !slices.Equal(resp.Unusable, []string{"opaque"}) {
		t.Errorf("missing %v, unusable %v", resp.Missing, resp.Unusable)
	}
	for _, name := range append(resp.Missing, resp.Unusable...) {
		if strings.Contains(name, canary) {
			t.Error("the answer holds what is in a Secret")
		}
	}
	pod := w.startPod(bot, w.storeAndRecord(bot).Secret)
	w.wantRefusal(w.call(keyapi.PathPullSecrets, w.podToken(pod), req, nil), v1alpha1.ReasonForbidden)
	req.Object.UID = "another"
	w.wantRefusal(w.call(keyapi.PathPullSecrets, w.manager, req, nil), v1alpha1.ReasonNotFound)
}

// TestUnsealOfPlacedPods: a pod that is placed by its Tenant, pulled with Secrets and annotated as the installation
// allows gets its credentials; once the Tenant says another place, one that was made for the old one does not.
func TestUnsealOfPlacedPods(t *testing.T) {
	w := newWorld(t)
	w.tenantKeys()
	w.opts.Settings.ImagePullSecrets, w.opts.Settings.BotAnnotations = []string{"installation"}, []string{"example.com/*"}
	w.restart()
	place := func(taint, apart string) {
		w.must(testEnv.Client.Get(t.Context(), types.NamespacedName{Name: w.tenant.Name}, w.tenant))
		w.tenant.Spec.Placement = &v1alpha1.TenantPlacement{
			Tolerations:    []v1alpha1.Toleration{{Key: taint, Operator: corev1.TolerationOpExists}},
			TopologySpread: []v1alpha1.TopologySpread{{TopologyKey: "topology.kubernetes.io/zone"}},
			Affinity: &v1alpha1.TenantAffinity{
				NodeAffinity: &v1alpha1.NodeAffinity{Preferred: []v1alpha1.PreferredNodes{{Weight: 1, Preference: v1alpha1.NodeTerm{
					MatchExpressions: []v1alpha1.NodeRequirement{{Key: "example.com/disk", Operator: corev1.NodeSelectorOpIn, Values: []string{"fast"}}}}}}},
				PodAntiAffinity: &v1alpha1.PodAffinity{Required: []v1alpha1.PodTerm{{TopologyKey: apart}}},
			},
		}
		w.tenant.Spec.ImagePullSecrets = []v1alpha1.ImagePullSecret{{Name: "tenant"}}
		w.must(testEnv.Client.Update(t.Context(), w.tenant))
	}
	place("example.com/pool", "kubernetes.io/hostname")
	bot, _ := w.newBot("support", func(b *v1alpha1.BotDeployment) {
		b.Spec.ImagePullSecrets = []v1alpha1.ImagePullSecret{{Name: "mine"}}
		b.Spec.PodAnnotations = map[string]string{"example.com/team": "support", "example.org/team": "not allowed"}
	})
	credentials := w.storeAndRecord(bot).Secret
	pod := w.startPod(bot, credentials)
	if len(pod.Spec.Tolerations) == 0 || len(pod.Spec.ImagePullSecrets) != 3 || pod.Annotations["example.com/team"] != "support" || pod.Annotations["example.org/team"] != "" {
		t.Fatalf("the pod is %v, %v, %v", pod.Spec.Tolerations, pod.Spec.ImagePullSecrets, pod.Annotations)
	}
	token := w.podToken(pod)
	_, refusal := w.unseal(token, string(pod.UID))
	w.granted(refusal)
	set := &appsv1.StatefulSet{}
	w.must(testEnv.Client.Get(t.Context(), types.NamespacedName{Namespace: w.ns, Name: resources.BotName(bot.Name)}, set))
	set.Spec.Template.Spec.Affinity.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution[0].NamespaceSelector = &metav1.LabelSelector{}
	w.must(w.cluster.Update(t.Context(), set))
	_, refusal = w.unseal(token, string(pod.UID))
	w.wantRefusal(refusal, v1alpha1.ReasonPodMismatch)
	if !strings.Contains(refusal.Message, "spec.affinity.podAntiAffinity") {
		t.Errorf("a set that is about other namespaces: %q", refusal.Message)
	}
	set.Spec.Template.Spec.Affinity.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution[0].NamespaceSelector = nil
	w.must(w.cluster.Update(t.Context(), set))
	_, refusal = w.unseal(token, string(pod.UID))
	w.granted(refusal)
	for field, change := range map[string][2]string{"tolerations": {"example.com/other", "kubernetes.io/hostname"}, "affinity": {"example.com/pool", "topology.kubernetes.io/zone"}} {
		place(change[0], change[1])
		_, refusal = w.unseal(token, string(pod.UID))
		w.wantRefusal(refusal, v1alpha1.ReasonPodMismatch)
		if !strings.Contains(refusal.Message, field) {
			t.Errorf("%s: says %q", field, refusal.Message)
		}
	}
}
