package keyserver

import (
	"crypto/rand"
	"fmt"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/internal/keystore"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/internal/sealing"
)

// TestUnsealRefusesAlteredSets: the pod may be as rendered and its StatefulSet not, and the next pod would be the
// StatefulSet's.
func TestUnsealRefusesAlteredSets(t *testing.T) {
	w := newWorld(t)
	w.tenantKeys()
	bot, _ := w.newBot("support", telegram)
	credentials := w.storeAndRecord(bot).Secret
	pod := w.startPod(bot, credentials)
	token := w.podToken(pod)
	_, refusal := w.unseal(token, string(pod.UID))
	w.granted(refusal)
	set := &appsv1.StatefulSet{}
	key := client.ObjectKey{Namespace: w.ns, Name: resources.BotName(bot.Name)}
	for field, change := range map[string]func(*corev1.PodTemplateSpec){
		"spec.containers[0].image": func(p *corev1.PodTemplateSpec) { p.Spec.Containers[0].Image = "evil:1" },
		"spec.volumes":             func(p *corev1.PodTemplateSpec) { p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: "evil"}) },
		"metadata.annotations[k8s.v1.cni.cncf.io/networks]": func(p *corev1.PodTemplateSpec) {
			p.Annotations["k8s.v1.cni.cncf.io/networks"] = "evil"
		},
		"metadata.labels[lethe.dev/store]": func(p *corev1.PodTemplateSpec) { p.Labels["lethe.dev/store"] = "evil" },
		"spec.containers": func(p *corev1.PodTemplateSpec) {
			sidecar := p.Spec.Containers[0].DeepCopy()
			sidecar.Name = "evil"
			p.Spec.Containers = append(p.Spec.Containers, *sidecar)
		},
		"spec.dnsConfig": func(p *corev1.PodTemplateSpec) {
			p.Spec.DNSConfig = &corev1.PodDNSConfig{Nameservers: []string{"203.0.113.9"}}
		},
	} {
		t.Run(field, func(t *testing.T) {
			w := w.in(t)
			w.must(testEnv.Client.Get(t.Context(), key, set))
			right := set.Spec.Template.DeepCopy()
			change(&set.Spec.Template)
			w.must(w.cluster.Update(t.Context(), set))
			_, refusal := w.unseal(token, string(pod.UID))
			w.wantRefusal(refusal, v1alpha1.ReasonPodMismatch)
			if !strings.Contains(refusal.Message, "StatefulSet") || !strings.Contains(refusal.Message, field) || strings.Contains(refusal.Message, "evil") {
				t.Errorf("says %q, want %s", refusal.Message, field)
			}
			set.Spec.Template = *right
			w.must(w.cluster.Update(t.Context(), set))
			_, refusal = w.unseal(token, string(pod.UID))
			w.granted(refusal)
		})
	}
	// What the cluster's admission does to pods it may do to the template that they are made of.
	w.must(testEnv.Client.Get(t.Context(), key, set))
	likeAPlatform(&set.Spec.Template)
	w.must(w.cluster.Update(t.Context(), set))
	_, refusal = w.unseal(token, string(pod.UID))
	w.granted(refusal)
}

// likeAPlatform does to a template what Kyverno and GKE Autopilot do.
func likeAPlatform(p *corev1.PodTemplateSpec) {
	one := "1"
	p.Labels["team"], p.Annotations["policies.kyverno.io/last-applied-patches"] = "platform", "ndots"
	p.Spec.DNSConfig = &corev1.PodDNSConfig{Options: []corev1.PodDNSConfigOption{{Name: "ndots", Value: &one}}}
	p.Spec.Tolerations = append(p.Spec.Tolerations, corev1.Toleration{Key: "example.com/pool", Operator: corev1.TolerationOpExists})
	p.Spec.Containers[0].Resources = corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("250m")},
		Limits: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("250m")}}
}

// TestPreviousImages: a pod that was made with an earlier image of Lethe still gets its credentials, where the
// keyserver's own configuration names that image by its digest.
func TestPreviousImages(t *testing.T) {
	w := newWorld(t)
	w.tenantKeys()
	earlier := "lethe.example/lethe@sha256:" + strings.Repeat("ab", 32)
	other := "lethe.example/lethe@sha256:" + strings.Repeat("cd", 32)
	bot, _ := w.newBot("support")
	credentials := w.storeAndRecord(bot).Secret
	present := w.opts.Settings.Image
	w.opts.Settings.Image = earlier
	pod := w.startPod(bot, credentials)
	w.opts.Settings.Image = present
	w.restart()
	token := w.podToken(pod)
	_, refusal := w.unseal(token, string(pod.UID))
	w.wantRefusal(refusal, v1alpha1.ReasonPodMismatch)
	if !strings.Contains(refusal.Message, "initContainers[0].image") {
		t.Errorf("says %q", refusal.Message)
	}
	w.opts.PreviousImages = []string{other, earlier}
	w.restart()
	_, refusal = w.unseal(token, string(pod.UID))
	w.granted(refusal)
	// The bot's own container is not a helper.
	evil := w.startPod(bot, credentials, func(p *corev1.Pod) {
		p.Name, p.Spec.Hostname, p.Spec.Containers[0].Image = "support-bot-1", "support-bot-1", other
		p.Spec.InitContainers[0].Image = earlier
	})
	_, refusal = w.unseal(w.podToken(evil), string(evil.UID))
	w.wantRefusal(refusal, v1alpha1.ReasonPodMismatch)

	for _, image := range []string{"lethe:v1", "lethe@sha256:abc", "lethe@sha256:" + strings.Repeat("AB", 32), "@sha256:" + strings.Repeat("ab", 32), ""} {
		o := w.opts
		o.PreviousImages = []string{image}
		if _, err := New(o); err == nil || !strings.Contains(err.Error(), "--previous-image") {
			t.Errorf("%q: %v", image, err)
		}
	}
}

// TestLeaseRefusesAlteredJobs is the same for a sweep.
func TestLeaseRefusesAlteredJobs(t *testing.T) {
	w := newSweep(t)
	for field, change := range map[string]func(*batchv1.Job){
		"spec.containers[0].image": func(j *batchv1.Job) { j.Spec.Template.Spec.Containers[0].Image = "evil:1" },
		"metadata.annotations[k8s.v1.cni.cncf.io/networks]": func(j *batchv1.Job) {
			j.Spec.Template.Annotations["k8s.v1.cni.cncf.io/networks"] = "evil"
		},
		"spec.dnsConfig": func(j *batchv1.Job) {
			j.Spec.Template.Spec.DNSConfig = &corev1.PodDNSConfig{Nameservers: []string{"203.0.113.9"}}
		},
	} {
		right := resources.CatchUpJob(w.opts.Settings, w.store, w.tenant, w.hash, fmt.Sprintf("chat-catchup-%d", len(field)))
		job := right.DeepCopy()
		change(job)
		w.must(w.cluster.Create(t.Context(), job))
		asked := job.DeepCopy()
		asked.Spec.Template = *right.Spec.Template.DeepCopy()
		pod := w.podOf(asked)
		_, e := w.lease(pod)
		w.wantRefusal(e, v1alpha1.ReasonPodMismatch)
		if !strings.Contains(e.Message, "Job") || !strings.Contains(e.Message, field) || strings.Contains(e.Message, "evil") {
			t.Errorf("says %q, want %s", e.Message, field)
		}
		w.must(w.cluster.Delete(t.Context(), pod))
		w.must(w.cluster.Delete(t.Context(), job))
	}
	job := resources.CatchUpJob(w.opts.Settings, w.store, w.tenant, w.hash, "chat-catchup-platform")
	likeAPlatform(&job.Spec.Template)
	w.must(w.cluster.Create(t.Context(), job))
	_, e := w.lease(w.podOf(job))
	w.granted(e)
}

// TestANewImageRollsNoBot: a pod keeps the helper that it was made with, whatever Lethe comes after it, and only that
// one: what the keyserver had itself when it gave that bot's pod its credentials. Nobody else's word counts, and
// there is no way back.
func TestANewImageRollsNoBot(t *testing.T) {
	w := newWorld(t)
	w.tenantKeys()
	first := w.opts.Settings
	bot, _ := w.newBot("support")
	credentials := w.storeAndRecord(bot).Secret
	pod := w.startPod(bot, credentials)
	token := w.podToken(pod)
	_, refusal := w.unseal(token, string(pod.UID))
	w.granted(refusal)
	before := w.objectDocument(bot)
	if before.Helper == nil || *before.Helper != first.Helper() {
		t.Fatalf("the record is %+v", before.Helper)
	}

	// One input after the other changes, and then all of them at once, twice.
	for name, change := range map[string]func(*resources.Settings){
		"policy": func(s *resources.Settings) { s.ImagePullPolicy = corev1.PullAlways }, "address": func(s *resources.Settings) { s.KeyserverURL = "https://other.lethe-system.svc:8443" },
		"secrets": func(s *resources.Settings) { s.ImagePullSecrets = []string{"registry", "mirror"} }, "image": func(s *resources.Settings) { s.Image = "lethe.example/lethe:v2" },
	} {
		w.opts.Settings = first
		change(&w.opts.Settings)
		w.restart()
		_, refusal = w.unseal(token, string(pod.UID))
		w.granted(refusal)
		if doc := w.objectDocument(bot); *doc.Helper != first.Helper() {
			t.Fatalf("%s: the record became %+v without a new pod", name, *doc.Helper)
		}
	}
	for _, image := range []string{"lethe.example/lethe:v2", "lethe.example/lethe:v3"} {
		w.opts.Settings.Image, w.opts.Settings.KeyserverURL, w.opts.Settings.ImagePullPolicy = image, "https://other.lethe-system.svc:8443", corev1.PullAlways
		w.opts.Settings.ImagePullSecrets = []string{"registry"}
		w.restart()
		_, refusal = w.unseal(token, string(pod.UID))
		w.granted(refusal)
		if doc := w.objectDocument(bot); *doc.Helper != first.Helper() {
			t.Fatalf("the record became %+v without a new pod", *doc.Helper)
		}
	}
	third := w.opts.Settings

	// A bot that is made under the new one has no claim to the old one, and none of them to one that this keyserver
	// never had.
	other, _ := w.newBot("other")
	othersSet := w.storeAndRecord(other).Secret
	w.opts.Settings = first
	old := w.startPod(other, othersSet)
	w.opts.Settings = third
	_, refusal = w.unseal(w.podToken(old), string(old.UID))
	w.wantRefusal(refusal, v1alpha1.ReasonPodMismatch)
	set := &appsv1.StatefulSet{}
	w.must(testEnv.Client.Get(t.Context(), client.ObjectKey{Namespace: w.ns, Name: resources.BotName(bot.Name)}, set))
	template := func(settings resources.Settings) {
		w.must(testEnv.Client.Get(t.Context(), client.ObjectKeyFromObject(set), set))
		set.Spec.Template = resources.BotPodTemplate(settings, bot, w.tenant, credentials)
		w.must(w.cluster.Update(t.Context(), set))
	}
	evil := first
	evil.Image = "evil.example/lethe:v1"
	template(evil)
	_, refusal = w.unseal(token, string(pod.UID))
	w.wantRefusal(refusal, v1alpha1.ReasonPodMismatch)

	// The bot is rolled: the new pod gets its credentials, and what was before is good no more.
	template(third)
	_, refusal = w.unseal(token, string(pod.UID))
	w.granted(refusal) // it has not been replaced yet
	w.must(w.cluster.Delete(t.Context(), pod))
	pod = w.startPod(bot, credentials)
	token = w.podToken(pod)
	_, refusal = w.unseal(token, string(pod.UID))
	w.granted(refusal)
	after := w.objectDocument(bot)
	if *after.Helper != third.Helper() {
		t.Errorf("the record is %+v", *after.Helper)
	}
	version := w.getSecret(w.opts.KeysNamespace, keystore.ObjectSecretName(string(bot.UID))).ResourceVersion
	_, refusal = w.unseal(token, string(pod.UID))
	w.granted(refusal)
	if again := w.getSecret(w.opts.KeysNamespace, keystore.ObjectSecretName(string(bot.UID))).ResourceVersion; again != version {
		t.Error("the same helper is recorded again")
	}
	template(first)
	_, refusal = w.unseal(token, string(pod.UID))
	w.wantRefusal(refusal, v1alpha1.ReasonPodMismatch)
}

// TestASweepOutlivesAnUpgrade: a sweep that is under way while Lethe is upgraded goes on with the image that it was
// started with, and one that was made a moment before the upgrade begins; nothing that this keyserver never had
// itself is let through, nor what is retired, and once a sweep of the present image had its credentials, nothing of
// before.
func TestASweepOutlivesAnUpgrade(t *testing.T) {
	w := newSweep(t)
	key, err := sealing.GeneratePrivateKey(rand.Reader)
	w.must(err)
	begin := func(pod *corev1.Pod) *keyapi.Error {
		return w.call(keyapi.PathLease, w.podToken(pod), keyapi.LeaseRequest{PlanHash: w.hash, PublicKey: key.Public().String()}, nil)
	}
	goesOn := func(pod *corev1.Pod) *keyapi.Error {
		_, e := w.lease(pod)
		return e
	}
	release := func(pod *corev1.Pod) {
		w.granted(w.call(keyapi.PathRelease, w.podToken(pod), keyapi.ReleaseRequest{}, nil))
	}
	first := w.opts.Settings
	running := w.sweep("chat-sweep-1")
	w.granted(begin(running))
	upgraded := func(change func(*resources.Settings)) {
		w.opts.Settings = first
		change(&w.opts.Settings)
		w.restart()
	}
	for name, change := range map[string]func(*resources.Settings){
		"policy":  func(s *resources.Settings) { s.ImagePullPolicy = corev1.PullAlways },
		"address": func(s *resources.Settings) { s.KeyserverURL = "https://other.lethe-system.svc:8443" },
		"secrets": func(s *resources.Settings) { s.ImagePullSecrets = []string{"registry", "mirror"} },
		"image":   func(s *resources.Settings) { s.Image = "lethe.example/lethe:v2" },
	} {
		upgraded(change)
		if e := goesOn(running); e != nil {
			t.Errorf("another %s: %+v", name, e)
		}
	}
	upgraded(func(s *resources.Settings) { s.Image, s.RetiredImages = "lethe.example/lethe:v2", []string{"*"} })
	w.wantRefusal(goesOn(running), v1alpha1.ReasonPodMismatch)
	upgraded(func(s *resources.Settings) { s.Image = "lethe.example/lethe:v2" })
	w.granted(goesOn(running))
	release(running)
	// One that the CronJob of before made, while the manager has not changed it yet.
	old := w.sweep("chat-sweep-2")
	w.granted(begin(old))
	release(old)
	cronOf := func(settings resources.Settings, name string) {
		w.cron = resources.SweepCronJob(settings, w.store, w.tenant, w.hash).DeepCopy()
		w.cron.Name = name
		w.must(w.cluster.Create(t.Context(), w.cron))
	}
	evil := first
	evil.Image = "evil.example/lethe:v1"
	cronOf(evil, "evil")
	w.wantRefusal(begin(w.sweep("evil-1")), v1alpha1.ReasonPodMismatch)
	// What is on record moves forward only, and is written once.
	cronOf(w.opts.Settings, "new")
	present := w.sweep("new-1")
	w.granted(begin(present))
	document := func() string {
		return w.getSecret(w.opts.KeysNamespace, keystore.ObjectSecretName(string(w.store.UID))).ResourceVersion
	}
	version := document()
	w.granted(goesOn(present))
	w.granted(begin(present))
	if document() != version {
		t.Error("the same helper is recorded again")
	}
	release(present)
	w.wantRefusal(begin(old), v1alpha1.ReasonPodMismatch)
}

// TestRetiredImages: what has a hole gets nothing, on record or not.
func TestRetiredImages(t *testing.T) {
	w := newWorld(t)
	w.tenantKeys()
	bot, _ := w.newBot("support")
	pod := w.startPod(bot, w.storeAndRecord(bot).Secret)
	token := w.podToken(pod)
	_, refusal := w.unseal(token, string(pod.UID))
	w.granted(refusal)
	holed := w.opts.Settings.Image
	w.opts.Settings.Image = "lethe.example/lethe:v2"
	for _, retired := range [][]string{{holed}, {"*"}} {
		w.opts.Settings.RetiredImages = retired
		w.restart()
		_, refusal = w.unseal(token, string(pod.UID))
		w.wantRefusal(refusal, v1alpha1.ReasonPodMismatch)
	}
	w.opts.Settings.RetiredImages = []string{"lethe.example/lethe:v0"}
	w.restart()
	_, refusal = w.unseal(token, string(pod.UID))
	w.granted(refusal)
	o := w.opts
	o.Settings.RetiredImages = []string{o.Settings.Image}
	if _, err := New(o); err == nil || !strings.Contains(err.Error(), "--retired-images") {
		t.Errorf("the present image is retired: %v", err)
	}
}
