package e2e

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/sealing"
	"github.com/lethe-dev/lethe/test/stage"
)

func hashed(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// anyImage: a program that nobody here wrote finds a home, room, its files with the credentials in them, its zone,
// memory as it asked for, and a helper beside it that sees no more than it names. restartedAt replaces its pod.
func anyImage(t *testing.T, w *world) {
	const program = "anybody"
	image := w.image(t, program, "./test/e2e/program")
	tenant := w.tenant(t, "e2e-image", nil)
	token, large := stage.Random(), strings.Repeat(stage.Random(), sealing.MaxPlaintext)[:sealing.MaxPlaintext]
	w.canaries["a token in a file"], w.canaries["a large credential"] = []byte(token), []byte(large[:64])
	config := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: tenant.Name, Name: "config", Annotations: map[string]string{v1alpha1.AnnotationFileFor: "anybody"}},
		Data: map[string]string{"settings": "token = ${credential:token}\nprice = $5 $${credential:token}\n"}}
	w.create(t, config)
	inline := strings.Repeat("a line of settings\n", 2000)
	prompt := strings.Repeat("p", 30_000)
	zone := &v1alpha1.Probes{Readiness: &v1alpha1.Probe{Type: v1alpha1.ProbeExec, Command: []string{"/" + program, "alive"}, PeriodSeconds: 1, TimeoutSeconds: 10}}
	bot := &v1alpha1.BotDeployment{ObjectMeta: metav1.ObjectMeta{Namespace: tenant.Name, Name: "anybody"}, Spec: v1alpha1.BotDeploymentSpec{
		Image: image, ImagePullPolicy: w.pull(), TimeZone: "Europe/Berlin", Probes: zone,
		Env: []v1alpha1.EnvVar{{Name: "PROMPT", Value: prompt}},
		Args: []string{"find", "TZ:Europe/Berlin", "PROMPT:" + hashed(prompt), "/var/run/lethe/credentials/large=" + hashed(large),
			"/etc/anybody/settings.d/own=" + hashed("token = "+token+"\nprice = $5 ${credential:token}\n"), "/etc/anybody/plain=" + hashed(inline), "/var/cache/anybody=writable"},
		Files: []v1alpha1.BotFile{{Path: "/etc/anybody/plain", Content: inline},
			{Path: "/etc/anybody/settings.d/own", ConfigMapKeyRef: &v1alpha1.ConfigMapKeyRef{Name: "config", Key: "settings"}}},
		Scratch:   []v1alpha1.BotScratch{{Path: "/var/cache/anybody", Size: resource.MustParse("200Mi")}, {Path: "/dev/shm", Medium: v1alpha1.ScratchMemory, Size: resource.MustParse("8Mi")}},
		Resources: &v1alpha1.BotResources{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("5m"), corev1.ResourceMemory: resource.MustParse("300Mi")}},
		Credentials: []v1alpha1.Credential{{Name: "token", Sealed: w.seal(t, tenant, tenant.Name, "anybody", "token", 1, token)},
			{Name: "large", Sealed: w.seal(t, tenant, tenant.Name, "anybody", "large", 1, large)}},
		Helpers: []v1alpha1.BotHelper{{Name: "beside", Image: image, ImagePullPolicy: w.pull(), Probes: zone, Credentials: []string{"token"}, Mounts: []v1alpha1.HelperMount{v1alpha1.MountScratch},
			Resources: &v1alpha1.BotResources{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("5m"), corev1.ResourceMemory: resource.MustParse("32Mi")}},
			Args: []string{"find", "TZ:Europe/Berlin", "/var/run/lethe/credentials/token=" + hashed(token), "/var/run/lethe/credentials/large=absent",
				"/etc/anybody/plain=absent", "/var/run/lethe/keyserver/token=absent", "/var/cache/anybody=writable"}}},
		Rollout: v1alpha1.BotRollout{TerminationGracePeriodSeconds: 5, ProgressDeadlineSeconds: 120},
	}}
	w.create(t, bot)
	w.awaitReady(t, bot, 2*time.Minute)
	pod := w.botsPod(t, bot)
	if limit := pod.Spec.Containers[0].Resources.Limits[corev1.ResourceMemory]; limit.Cmp(resource.MustParse("300Mi")) != 0 {
		t.Errorf("a request of 300Mi has a limit of %s", limit.String())
	}
	if limit := pod.Spec.Containers[1].Resources.Limits[corev1.ResourceMemory]; limit.Cmp(resource.MustParse("256Mi")) != 0 {
		t.Errorf("a request of 32Mi has a limit of %s", limit.String())
	}

	change(t, w.client, bot, func(b *v1alpha1.BotDeployment) { b.Spec.RestartedAt = metav1.NewTime(time.Now()) })
	until(t, 2*time.Minute, "see the bot restarted", func(context.Context) (string, error) {
		again := &corev1.Pod{}
		if err := w.client.Get(t.Context(), client.ObjectKeyFromObject(pod), again); err != nil || again.UID == pod.UID {
			return fmt.Sprintf("the same pod (%v)", err), nil
		}
		return "", nil
	})
	w.awaitReady(t, bot, 2*time.Minute)
}

// botsPod is the pod of a bot that is ready.
func (w *world) botsPod(t *testing.T, bot *v1alpha1.BotDeployment) *corev1.Pod {
	t.Helper()
	pod := &corev1.Pod{}
	if err := w.client.Get(t.Context(), client.ObjectKey{Namespace: bot.Namespace, Name: bot.Name + "-bot-0"}, pod); err != nil {
		t.Fatal(err)
	}
	return pod
}
