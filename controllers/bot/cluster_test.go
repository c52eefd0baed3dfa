package bot_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/dnscheck"
	"github.com/lethe-dev/lethe/internal/status"
	"github.com/lethe-dev/lethe/test/operator"
)

func messageOf(conditions []metav1.Condition, kind string) string {
	if c := status.See(conditions, kind); c != nil {
		return c.Message
	}
	return ""
}

func dnsGauge(t *testing.T) float64 {
	t.Helper()
	series := operator.Gathered(t, dnscheck.Answers)
	if len(series) != 1 {
		t.Fatalf("%d series", len(series))
	}
	return series[0].Value
}

// TestPullSecretIsMissing: a bot whose image cannot be pulled says which Secrets it was tried with, which are missing
// or of another type, and whose field names them. The manager itself reads no Secret.
func TestPullSecretIsMissing(t *testing.T) {
	w, tenant := operator.WithTenant(t, "pull")
	operator.Edit(w, tenant, func(t *v1alpha1.Tenant) {
		t.Spec.ImagePullSecrets = []v1alpha1.ImagePullSecret{{Name: "tenant-registry"}}
	})
	names := []string{"bot-registry", "tenant-registry", "installation-registry"}
	w.Keys.Set(func(k *operator.KeyserverDouble) { k.Pulls = names })
	put := func(name string, kind corev1.SecretType, data map[string][]byte) {
		if err := w.Admin.Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "pull-a", Name: name}, Type: kind, Data: data}); err != nil {
			t.Fatal(err)
		}
	}
	config := map[string][]byte{corev1.DockerConfigJsonKey: []byte("{}")}
	put("tenant-registry", corev1.SecretTypeOpaque, nil)
	put("installation-registry", corev1.SecretTypeDockerConfigJson, config)
	w.KCM.Broken = func(image string) bool { return strings.Contains(image, "private") }
	bot := operator.MakeBot("pull-a", "b")
	bot.Spec.Image = "registry.example/private:v1"
	bot.Spec.ImagePullSecrets = []v1alpha1.ImagePullSecret{{Name: "bot-registry"}}
	w.Create(bot)
	w.Becomes(bot, "Reconciling=True/PodMissing")
	set := operator.SetOf(bot)
	if err := w.Get(set); err != nil {
		t.Fatal(err)
	}
	var in []string
	for _, secret := range set.Spec.Template.Spec.ImagePullSecrets {
		in = append(in, secret.Name)
	}
	if strings.Join(in, " ") != strings.Join(names, " ") {
		t.Errorf("the pod is pulled with %v", in)
	}
	// What no pull secret helps against has nothing to say of them.
	says := func(message string) func(*corev1.Pod) {
		return func(p *corev1.Pod) { p.Status.ContainerStatuses[0].State.Waiting.Message = message }
	}
	podOf(w, bot, set, "ErrImagePull", says("rpc error: code = NotFound desc = registry.example/private:v1: not found"))
	w.Restart() // rather than wait a minute for the next look
	w.Becomes(bot, "Ready=False/ImageNotFound")
	if got := messageOf(bot.Status.Conditions, v1alpha1.ConditionReady); strings.Contains(got, "Secret") {
		t.Errorf("says %q", got)
	}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: bot.Namespace, Name: set.Name + "-0"}}
	if err := w.Get(pod); err != nil {
		t.Fatal(err)
	}
	says("rpc error: code = Unknown desc = 401 Unauthorized")(pod)
	if err := w.Cluster.Status().Update(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	w.Restart()
	w.Becomes(bot, "Ready=False/ImagePullUnauthorized")
	for _, want := range []string{"Secret bot-registry, which spec.imagePullSecrets names, does not exist in namespace pull-a",
		"Secret tenant-registry, which Tenant pull's spec.imagePullSecrets names, is not of the type kubernetes.io/dockerconfigjson"} {
		if got := messageOf(bot.Status.Conditions, v1alpha1.ConditionReady); !strings.Contains(got, want) || strings.Contains(got, "installation-registry") {
			t.Errorf("says %q, want %q", got, want)
		}
	}

	// With all of them there, it is what is in them.
	if err := w.Admin.Delete(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "pull-a", Name: "tenant-registry"}}); err != nil {
		t.Fatal(err)
	}
	put("tenant-registry", corev1.SecretTypeDockerConfigJson, config)
	put("bot-registry", corev1.SecretTypeDockerConfigJson, config)
	w.Restart()
	w.Eventually("says that the registry refuses", func() error {
		if err := w.IsNow(bot, "Ready=False/ImagePullUnauthorized"); err != nil {
			return err
		}
		if got := messageOf(bot.Status.Conditions, v1alpha1.ConditionReady); !strings.Contains(got, "Secrets bot-registry, tenant-registry, installation-registry of namespace pull-a: the registry may not take") {
			return fmt.Errorf("says %q", got)
		}
		return nil
	})

	// The Tenant's list is part of the revision, as is its placement.
	operator.Edit(w, tenant, func(t *v1alpha1.Tenant) { t.Spec.ImagePullSecrets = nil })
	w.Eventually("the Tenant's Secret goes", func() error {
		if err := w.Get(set); err != nil {
			return err
		}
		if secrets := set.Spec.Template.Spec.ImagePullSecrets; len(secrets) != 2 || secrets[1].Name != "installation-registry" {
			return fmt.Errorf("pulled with %v", secrets)
		}
		return nil
	})
}

// TestClassThatIsMissing: a Tenant whose placement names what the cluster does not have says so, and is well when it
// is there. Asked only while the spec is new or something was missing. Pods that run are not thrown away for such
// that can never start, neither for the Tenant's change nor for one of the bot's own.
func TestClassThatIsMissing(t *testing.T) {
	w, tenant := operator.WithTenant(t, "classes")
	kept, changed := operator.MakeBot("classes-a", "kept"), operator.MakeBot("classes-a", "changed")
	for _, bot := range []*v1alpha1.BotDeployment{kept, changed} {
		w.Create(bot)
		w.Becomes(bot, "Ready=True")
	}
	w.Becomes(tenant, "InUse=True")
	w.Calm()
	operator.Edit(w, tenant, func(t *v1alpha1.Tenant) {
		t.Spec.Placement = &v1alpha1.TenantPlacement{RuntimeClassName: "classes-sandbox", PriorityClassName: "classes-gold"}
	})
	w.Becomes(tenant, "Stalled=True/"+v1alpha1.ReasonClassMissing)
	want := "spec.placement.runtimeClassName: there is no RuntimeClass classes-sandbox; spec.placement.priorityClassName: there is no PriorityClass classes-gold"
	if got := messageOf(tenant.Status.Conditions, v1alpha1.ConditionReady); !strings.Contains(got, want) {
		t.Errorf("says %q, want %q", got, want)
	}
	w.Becomes(kept, "WorkloadReady=True/"+v1alpha1.ReasonUpdateHeld)
	w.Becomes(kept, "Ready=True/Ready")
	if got := messageOf(kept.Status.Conditions, v1alpha1.ConditionWorkloadReady); !strings.Contains(got, "the Tenant's "+want[:30]) {
		t.Errorf("says %q", got)
	}
	operator.Edit(w, changed, func(b *v1alpha1.BotDeployment) { b.Spec.Image = "registry.example/bot:v2" })
	w.Becomes(changed, "Stalled=True/"+v1alpha1.ReasonClassMissing)
	w.Becomes(changed, "WorkloadReady=True/"+v1alpha1.ReasonUpdateHeld)
	templates := func() (classes, images []string) {
		for _, bot := range []*v1alpha1.BotDeployment{kept, changed} {
			set := setOf(w, bot)
			class := "none"
			if c := set.Spec.Template.Spec.RuntimeClassName; c != nil {
				class = *c
			}
			classes, images = append(classes, class), append(images, set.Spec.Template.Spec.Containers[0].Image)
		}
		return classes, images
	}
	w.Calm()
	if classes, images := templates(); fmt.Sprint(classes, images) != "[none none] [registry.example/bot:v1 registry.example/bot:v1]" {
		t.Errorf("the pods that run were thrown away: %v %v", classes, images)
	}
	// The walls stand all the same.
	if !meta.IsStatusConditionTrue(tenant.Status.Conditions, v1alpha1.ConditionNamespacesReady) {
		t.Error("the namespaces are not isolated")
	}
	for _, class := range []client.Object{
		&nodev1.RuntimeClass{ObjectMeta: metav1.ObjectMeta{Name: "classes-sandbox"}, Handler: "runsc"},
		&schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: "classes-gold"}, Value: 7},
	} {
		if err := w.Admin.Create(t.Context(), class); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = w.Admin.Delete(context.Background(), class) })
	}
	w.Restart() // rather than wait a minute
	w.Becomes(tenant, "Ready=True")
	w.Eventually("both get what they waited for", func() error {
		if classes, images := templates(); fmt.Sprint(classes, images) != "[classes-sandbox classes-sandbox] [registry.example/bot:v1 registry.example/bot:v2]" {
			return fmt.Errorf("they have %v %v", classes, images)
		}
		if setOf(w, kept).Annotations[v1alpha1.AnnotationRolling] != "" {
			return errors.New("it has not lasted")
		}
		return errors.Join(w.IsNow(kept, "WorkloadReady=True/Running"), w.IsNow(changed, "Ready=True/Ready"))
	})
	w.Calm()
	w.Restart()
	w.Calm()
	if reads, written := w.Wire.Reads.Load(), w.Wire.Written(); reads > 0 || len(written) > 0 {
		t.Errorf("a restart read %d objects past the cache and wrote %v", reads, written)
	}
}

// TestAnnotationsThatNobodyAllowed: a bot that asks for one runs without it, and says which.
func TestAnnotationsThatNobodyAllowed(t *testing.T) {
	w, _ := operator.WithTenant(t, "notes")
	bot := operator.MakeBot("notes-a", "b")
	bot.Spec.PodAnnotations = map[string]string{"example.org/team": "support"}
	w.Create(bot)
	w.Becomes(bot, "IsolationReady=False/"+v1alpha1.ReasonAnnotationNotAllowed)
	w.Becomes(bot, "WorkloadReady=True")
	if got := messageOf(bot.Status.Conditions, v1alpha1.ConditionReady); !strings.Contains(got, "spec.podAnnotations[example.org/team]") || !strings.Contains(got, "pods.botAnnotations") {
		t.Errorf("says %q", got)
	}
	set := operator.SetOf(bot)
	if err := w.Get(set); err != nil || set.Spec.Template.Annotations["example.org/team"] != "" {
		t.Errorf("the template has %v, %v", set.Spec.Template.Annotations, err)
	}
	operator.Edit(w, bot, func(b *v1alpha1.BotDeployment) { b.Spec.PodAnnotations = nil })
	w.Becomes(bot, "Ready=True")
}

// TestDNSOutOfReach: where the walls that the settings make are why DNS does not answer, bots that look up names say
// so, with what to set; those without DNS do not; and when it answers again nobody does. A server that is only down
// turns no status.
func TestDNSOutOfReach(t *testing.T) {
	var answers atomic.Bool
	resolvConf := filepath.Join(t.TempDir(), "resolv.conf")
	write := func(text string) {
		if err := os.WriteFile(resolvConf, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("nameserver 169.254.20.10\n")
	w, _ := operator.WithTenant(t, "resolve")
	asks, silent := operator.MakeBot("resolve-a", "asks"), operator.MakeBot("resolve-a", "silent")
	silent.Spec.Channels, silent.Spec.Egress = nil, nil
	w.Create(asks, silent)
	w.Becomes(asks, "Ready=True")
	w.Becomes(silent, "Ready=True")

	w.Dns = dnscheck.New(operator.TestSettings(), nil, nil)
	w.Dns.Answered, w.Dns.ResolvConf = func(context.Context) bool { return answers.Load() }, resolvConf
	w.Dns.Every, w.Dns.Again = 20*time.Millisecond, 20*time.Millisecond
	w.Restart()
	w.Becomes(asks, "IsolationReady=False/"+v1alpha1.ReasonDNSOutOfReach)
	w.Becomes(asks, "WorkloadReady=True")
	if got := messageOf(asks.Status.Conditions, v1alpha1.ConditionReady); !strings.Contains(got, "pods ask 169.254.20.10") || !strings.Contains(got, "dns.blocks") || !strings.Contains(got, "docs/platforms.md") {
		t.Errorf("says %q", got)
	}
	if gauge := dnsGauge(t); gauge != 0 {
		t.Errorf("lethe_dns_answers is %v", gauge)
	}
	w.OneEvent(asks, v1alpha1.ReasonDNSOutOfReach)
	// The keyserver has a name too, so whoever waits for it is told the same: a Tenant, and a bot without DNS of its
	// own.
	w.Keys.Set(func(k *operator.KeyserverDouble) { k.Down = errors.New("lookup lethe-keyserver: i/o timeout") })
	nameless, waits := operator.MakeTenant("resolve-not", "resolve-b"), operator.MakeBot("resolve-a", "waits")
	waits.Spec.Channels, waits.Spec.Egress = nil, nil
	w.Create(nameless, waits)
	w.Becomes(nameless, "KeysReady=False/"+v1alpha1.ReasonDNSOutOfReach)
	w.Becomes(waits, "CredentialsReady=False/"+v1alpha1.ReasonDNSOutOfReach)
	for _, conditions := range [][]metav1.Condition{nameless.Status.Conditions, waits.Status.Conditions} {
		if told := fmt.Sprint(conditions); !strings.Contains(told, "dns.blocks") {
			t.Errorf("says %s", told)
		}
	}
	w.Keys.Set(func(k *operator.KeyserverDouble) { k.Down = nil })
	w.Restart() // rather than wait for the next question
	w.Becomes(nameless, "Ready=True")
	if err := w.IsNow(silent, "Ready=True"); err != nil {
		t.Errorf("a bot without DNS: %v", err)
	}
	answers.Store(true)
	w.Becomes(asks, "Ready=True")

	// Nothing answers, and nothing is known to stand in between.
	w.Calm()
	before := len(w.Wire.Written())
	write("# no name server\n")
	answers.Store(false)
	w.Eventually("noticed", func() error {
		if dnsGauge(t) != 0 {
			return errors.New("not yet")
		}
		return nil
	})
	w.Calm()
	if written := w.Wire.Written()[before:]; len(written) > 0 {
		t.Errorf("a DNS server that is down wrote %v", written)
	}
}
