package keyserver

import (
	"fmt"
	"maps"
	"net/http"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/internal/keystore"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/internal/sealing"
)

func volumeNamed(pod *corev1.Pod, name string) *corev1.Volume {
	for i := range pod.Spec.Volumes {
		if pod.Spec.Volumes[i].Name == name {
			return &pod.Spec.Volumes[i]
		}
	}
	return nil
}

// rich is a bot that uses everything a bot can have.
func (w *world) rich(b *v1alpha1.BotDeployment) {
	telegram(b)
	b.Spec.Command = []string{"/bot", "$(HOME)"}
	b.Spec.Args = []string{"--x"}
	b.Spec.Env = []v1alpha1.EnvVar{{Name: "A", Value: "$b"}}
	b.Spec.Ports = []v1alpha1.ContainerPort{{Name: "http", ContainerPort: 8080}}
	b.Spec.Probes = &v1alpha1.Probes{Startup: &v1alpha1.Probe{Path: "/", Port: "http"}, Liveness: &v1alpha1.Probe{Port: "http"}, Readiness: &v1alpha1.Probe{Path: "/ready", Port: "http"}}
	b.Spec.Scratch = []v1alpha1.BotScratch{{Path: "/cache"}, {Path: "/dev/shm", Medium: v1alpha1.ScratchMemory, Size: resource.MustParse("16Mi")}}
	b.Spec.Files = []v1alpha1.BotFile{{Path: "/etc/bot/config", Content: "key: ${credential:openai}"}}
	b.Spec.TimeZone, b.Spec.RestartedAt = "Europe/Berlin", metav1.Unix(1_800_000_000, 0)
	b.Spec.Helpers = []v1alpha1.BotHelper{{Name: "helper", Image: "helper:1", Credentials: []string{"telegram", "openai"}, Mounts: []v1alpha1.HelperMount{v1alpha1.MountScratch, v1alpha1.MountStorage},
		Probes: &v1alpha1.Probes{Liveness: &v1alpha1.Probe{Type: v1alpha1.ProbeExec, Command: []string{"/check", "$(X)"}}}}}
	b.Spec.Resources = &v1alpha1.BotResources{Limits: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("64Mi")}}
	b.Spec.Storage = &v1alpha1.BotStorage{Size: resource.MustParse("1Gi"), MountPath: "/data"}
	b.Spec.Credentials = append(b.Spec.Credentials, v1alpha1.Credential{Name: "openai", Delivery: v1alpha1.DeliveryEnv, EnvName: "OPENAI_KEY",
		Sealed: w.seal(w.place(sealing.KindBotDeployment, b.Name, "openai", 7), w.secret())})
}

func TestUnseal(t *testing.T) {
	w := newWorld(t)
	w.tenantKeys()
	for name, change := range map[string]func(*v1alpha1.BotDeployment){"plain": func(*v1alpha1.BotDeployment) {}, "polling": telegram, "rich": w.rich} {
		t.Run(name, func(t *testing.T) {
			w := w.in(t)
			bot, secret := w.newBot(name, change)
			pod := w.startPod(bot, w.storeAndRecord(bot).Secret)
			w.writes.reset(0, false)
			items, refusal := w.unseal(w.podToken(pod), string(pod.UID))
			w.granted(refusal)
			if string(items["telegram"].Value) != secret || len(items) != len(bot.Spec.Credentials) {
				t.Errorf("got %d credentials", len(items))
			}
			if name == "rich" && items["openai"].EnvName != "OPENAI_KEY" {
				t.Error("the variable has lost its name")
			}
			if n, seen := w.writes.writes(); n != 0 {
				t.Errorf("%d writes: %v", n, seen)
			}
		})
	}
	if !strings.Contains(w.log.String(), "path=/v1/unseal") {
		t.Error("no line of the log tells of the access")
	}
}

func TestUnsealRefusesTokens(t *testing.T) {
	w := newWorld(t)
	w.tenantKeys()
	bot, _ := w.newBot("support")
	pod := w.startPod(bot, w.storeAndRecord(bot).Secret)
	bound := &authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: pod.Name, UID: pod.UID}
	sa := pod.Spec.ServiceAccountName
	for name, tc := range map[string]struct{ token, want string }{
		"no token":                      {"", v1alpha1.ReasonUnauthenticated},
		"rubbish":                       {"rubbish", v1alpha1.ReasonUnauthenticated},
		"another audience":              {w.token(w.ns, sa, "vault", bound), v1alpha1.ReasonUnauthenticated},
		"the API server's own audience": {w.token(w.ns, sa, "https://kubernetes.default.svc.cluster.local", bound), v1alpha1.ReasonUnauthenticated},
		"not bound to a pod":            {w.token(w.ns, sa, v1alpha1.AudienceKeyserver, nil), v1alpha1.ReasonForbidden},
		"the manager":                   {w.manager, v1alpha1.ReasonForbidden},
	} {
		_, refusal := w.unseal(tc.token, string(pod.UID))
		if refusal == nil || refusal.Reason != tc.want {
			t.Errorf("%s: %+v, want %s", name, refusal, tc.want)
		}
	}
	// An API server that knows no audiences vouches for any token, and names none.
	for name, tc := range map[string]struct {
		review func(*authenticationv1.TokenReview)
		want   string
	}{
		"no audience checked": {func(r *authenticationv1.TokenReview) { r.Status.Audiences = nil }, v1alpha1.ReasonUnauthenticated},
		"another audience":    {func(r *authenticationv1.TokenReview) { r.Status.Audiences = []string{"vault"} }, v1alpha1.ReasonUnauthenticated},
		"not authenticated":   {func(r *authenticationv1.TokenReview) { r.Status.Authenticated = false }, v1alpha1.ReasonUnauthenticated},
		"a person":            {func(r *authenticationv1.TokenReview) { r.Status.User.Username = "alice" }, v1alpha1.ReasonForbidden},
		"another ServiceAccount of the namespace": {func(r *authenticationv1.TokenReview) {
			r.Status.User.Username = serviceAccountPrefix + w.ns + ":other"
		}, v1alpha1.ReasonForbidden},
	} {
		w.writes.reviewed = tc.review
		_, refusal := w.unseal(w.podToken(pod), string(pod.UID))
		if refusal == nil || refusal.Reason != tc.want {
			t.Errorf("%s: %+v, want %s", name, refusal, tc.want)
		}
	}
	w.writes.reviewed = nil
	if refusal := w.call(keyapi.PathUnseal, w.podToken(pod), keyapi.UnsealRequest{PublicKey: "AAAA"}, nil); refusal == nil || refusal.Reason != v1alpha1.ReasonBadRequest {
		t.Errorf("a key that is none: %+v", refusal)
	}
}

func TestUnsealRefusesPodsThatAreGoneOrNew(t *testing.T) {
	w := newWorld(t)
	w.tenantKeys()
	bot, _ := w.newBot("support")
	set := w.storeAndRecord(bot).Secret
	pod := w.startPod(bot, set, func(p *corev1.Pod) { p.Finalizers = []string{"lethe.dev/test"} })
	token := w.podToken(pod)
	_, refusal := w.unseal(token, string(pod.UID))
	w.granted(refusal)

	// On its way out: the API server still vouches for the token.
	w.must(w.cluster.Delete(w.Context(), pod))
	_, refusal = w.unseal(token, string(pod.UID))
	w.wantRefusal(refusal, v1alpha1.ReasonForbidden)

	// Gone, and another one of the same name in its place: the old token is not the new pod's.
	w.must(testEnv.Client.Get(w.Context(), client.ObjectKeyFromObject(pod), pod))
	pod.Finalizers = nil
	w.must(w.cluster.Update(w.Context(), pod))
	_, refusal = w.unseal(token, string(pod.UID))
	if refusal == nil || (refusal.Reason != v1alpha1.ReasonForbidden && refusal.Reason != v1alpha1.ReasonUnauthenticated) {
		t.Errorf("gone: %+v", refusal)
	}
	again := w.startPod(bot, set)
	_, refusal = w.unseal(token, string(pod.UID))
	if refusal == nil || (refusal.Reason != v1alpha1.ReasonForbidden && refusal.Reason != v1alpha1.ReasonUnauthenticated) {
		t.Errorf("made again: %+v", refusal)
	}
	_, refusal = w.unseal(w.podToken(again), string(again.UID))
	w.granted(refusal)

	// Ended pods have no more to ask.
	again.Status.Phase = corev1.PodFailed
	w.must(w.cluster.Status().Update(w.Context(), again))
	_, refusal = w.unseal(w.podToken(again), string(again.UID))
	w.wantRefusal(refusal, v1alpha1.ReasonForbidden)
}

func TestUnsealRefusesAlteredPods(t *testing.T) {
	w := newWorld(t)
	w.tenantKeys()
	bot, _ := w.newBot("support", w.rich)
	set := w.storeAndRecord(bot).Secret
	for name, tc := range map[string]struct {
		change func(*corev1.Pod)
		says   string
	}{
		"another image":      {func(p *corev1.Pod) { p.Spec.Containers[0].Image = "evil:1" }, "spec.containers[0].image"},
		"another init image": {func(p *corev1.Pod) { p.Spec.InitContainers[0].Image = "evil:1" }, "spec.initContainers[0].image"},
		"another command":    {func(p *corev1.Pod) { p.Spec.Containers[0].Command = []string{"/bin/sh"} }, "spec.containers[0].command"},
		"more arguments":     {func(p *corev1.Pod) { p.Spec.InitContainers[0].Args = append(p.Spec.InitContainers[0].Args, "--x") }, "args"},
		"a variable": {func(p *corev1.Pod) {
			p.Spec.Containers[0].Env = append(p.Spec.Containers[0].Env, corev1.EnvVar{Name: "LD_PRELOAD", Value: "x"})
		}, "env"},
		"envFrom": {func(p *corev1.Pod) {
			p.Spec.Containers[0].EnvFrom = []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{}}}
			p.Spec.Containers[0].EnvFrom[0].ConfigMapRef.Name = "x"
		}, "envFrom"},
		"an extra container": {func(p *corev1.Pod) {
			p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "evil", Image: "evil:1"})
		}, "spec.containers"},
		"an extra init container": {func(p *corev1.Pod) {
			p.Spec.InitContainers = append(p.Spec.InitContainers, corev1.Container{Name: "evil", Image: "evil:1"})
		}, "spec.initContainers"},
		"no init container": {func(p *corev1.Pod) { p.Spec.InitContainers = nil }, "spec.initContainers"},
		"a host path": {func(p *corev1.Pod) {
			p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: "host", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/"}}})
		}, "spec.volumes"},
		"disk instead of memory": {func(p *corev1.Pod) {
			for i := range p.Spec.Volumes {
				if p.Spec.Volumes[i].EmptyDir != nil {
					p.Spec.Volumes[i].EmptyDir.Medium = ""
				}
			}
		}, "spec.volumes"},
		"another bot's claim": {func(p *corev1.Pod) { volumeNamed(p, "data").PersistentVolumeClaim.ClaimName = "other-data" }, "spec.volumes"},
		"a claim besides": {func(p *corev1.Pod) {
			p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: "more", VolumeSource: corev1.VolumeSource{
				PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "other-data"}}})
		}, "spec.volumes"},
		"a mount":            {func(p *corev1.Pod) { p.Spec.Containers[0].VolumeMounts[1].MountPath = "/elsewhere" }, "volumeMounts"},
		"a host's network":   {func(p *corev1.Pod) { p.Spec.HostNetwork = true }, "differs"},
		"a host's processes": {func(p *corev1.Pod) { p.Spec.HostPID = true }, "spec.hostPID"},
		"a host's IPC":       {func(p *corev1.Pod) { p.Spec.HostIPC = true }, "spec.hostIPC"},
		"shared processes":   {func(p *corev1.Pod) { yes := true; p.Spec.ShareProcessNamespace = &yes }, "spec.shareProcessNamespace"},
		"root": {func(p *corev1.Pod) {
			no, root := false, int64(0)
			p.Spec.SecurityContext.RunAsNonRoot, p.Spec.SecurityContext.RunAsUser = &no, &root
		}, "spec.securityContext"},
		"privilege": {func(p *corev1.Pod) {
			yes := true
			p.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{Privileged: &yes}
		}, "securityContext"},
		"a lifecycle hook": {func(p *corev1.Pod) {
			p.Spec.Containers[0].Lifecycle = &corev1.Lifecycle{PostStart: &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{"sh"}}}}
		}, "lifecycle"},
		"an exec probe": {func(p *corev1.Pod) {
			p.Spec.Containers[0].LivenessProbe.ProbeHandler = corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"sh"}}}
		}, "livenessProbe"},
		"a runtime's annotation": {func(p *corev1.Pod) {
			p.Annotations = maps.Clone(p.Annotations)
			p.Annotations["k8s.v1.cni.cncf.io/networks"] = "evil"
		}, "metadata.annotations[k8s.v1.cni.cncf.io/networks]"},
		"a projected certificate": {func(p *corev1.Pod) {
			p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: "cert", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
				Sources: []corev1.VolumeProjection{{DownwardAPI: &corev1.DownwardAPIProjection{}}}}}})
		}, "spec.volumes"},
		"another runtime's DNS": {func(p *corev1.Pod) {
			p.Spec.HostAliases = []corev1.HostAlias{{IP: "203.0.113.9", Hostnames: []string{"lethe-keyserver.lethe-system.svc"}}}
		}, "spec.hostAliases"},
		"a set that was not made": {func(p *corev1.Pod) {
			p.Annotations = map[string]string{v1alpha1.AnnotationCredentials: "support-cred-0000000000"}
		}, "annotation"},
		"the tenant's label taken": {func(p *corev1.Pod) { delete(p.Labels, v1alpha1.LabelTenant) }, "metadata.labels"},
	} {
		t.Run(name, func(t *testing.T) {
			w := w.in(t)
			pod := w.startPod(bot, set, tc.change)
			defer func() { w.must(w.cluster.Delete(w.Context(), pod)) }()
			_, refusal := w.unseal(w.podToken(pod), string(pod.UID))
			w.wantRefusal(refusal, v1alpha1.ReasonPodMismatch)
			if !strings.Contains(refusal.Message, tc.says) || strings.Contains(refusal.Message, "evil") {
				t.Errorf("says %q, want %s", refusal.Message, tc.says)
			}
		})
	}
	t.Run("an ephemeral container", func(t *testing.T) {
		w := w.in(t)
		pod := w.startPod(bot, set)
		token := w.podToken(pod)
		_, refusal := w.unseal(token, string(pod.UID))
		w.granted(refusal)
		pod.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "debug", Image: "evil:1", TerminationMessagePolicy: corev1.TerminationMessageReadFile, ImagePullPolicy: corev1.PullAlways}}}
		w.must(w.cluster.SubResource("ephemeralcontainers").Update(w.Context(), pod))
		_, refusal = w.unseal(token, string(pod.UID))
		w.wantRefusal(refusal, v1alpha1.ReasonPodMismatch)
		w.must(w.cluster.Delete(w.Context(), pod))
	})
	t.Run("an image changed in place", func(t *testing.T) {
		w := w.in(t)
		pod := w.startPod(bot, set)
		pod.Spec.Containers[0].Image = "evil:1"
		w.must(w.cluster.Update(w.Context(), pod))
		_, refusal := w.unseal(w.podToken(pod), string(pod.UID))
		w.wantRefusal(refusal, v1alpha1.ReasonPodMismatch)
		w.must(w.cluster.Delete(w.Context(), pod))
	})
}

func TestUnsealToleratesTheCluster(t *testing.T) {
	w := newWorld(t)
	w.tenantKeys()
	bot, _ := w.newBot("support", w.rich)
	set := w.storeAndRecord(bot).Secret
	pod := w.startPod(bot, set, func(p *corev1.Pod) {
		p.Spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "registry"}}
		p.Spec.Tolerations = []corev1.Toleration{{Operator: corev1.TolerationOpExists}}
		p.Spec.NodeSelector = map[string]string{"pool": "bots"}
		p.Spec.DNSConfig = &corev1.PodDNSConfig{Options: []corev1.PodDNSConfigOption{{Name: "ndots"}}}
		p.Spec.SecurityContext.SELinuxOptions = &corev1.SELinuxOptions{Level: "s0:c26,c5"}
		p.Annotations["kubernetes.io/limit-ranger"] = "LimitRanger plugin set: cpu"
		for i := range p.Spec.Containers {
			p.Spec.Containers[i].ImagePullPolicy = corev1.PullAlways
			p.Spec.Containers[i].Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("1Gi"), corev1.ResourceCPU: resource.MustParse("1")}
		}
	})
	w.must(w.cluster.SubResource("binding").Create(w.Context(), pod, &corev1.Binding{Target: corev1.ObjectReference{Kind: "Node", Name: "node-1"}}))
	_, refusal := w.unseal(w.podToken(pod), string(pod.UID))
	w.granted(refusal)
}

func TestUnsealRefusesStrangers(t *testing.T) {
	w := newWorld(t)
	w.tenantKeys()
	bot, _ := w.newBot("support")
	set := w.storeAndRecord(bot).Secret
	own := w.startPod(bot, set)
	for name, tc := range map[string]struct {
		change func(*corev1.Pod)
		want   string
	}{
		"no owner":                       {func(p *corev1.Pod) { p.OwnerReferences = nil }, v1alpha1.ReasonForbidden},
		"an owner that is no controller": {func(p *corev1.Pod) { p.OwnerReferences[0].Controller = nil }, v1alpha1.ReasonForbidden},
		"an owner with a made-up UID":    {func(p *corev1.Pod) { p.OwnerReferences[0].UID = "5d1f6d2e-0000-4000-8000-000000000001" }, v1alpha1.ReasonForbidden},
		"the bot itself as the owner": {func(p *corev1.Pod) {
			p.OwnerReferences[0].APIVersion, p.OwnerReferences[0].Kind, p.OwnerReferences[0].Name, p.OwnerReferences[0].UID = v1alpha1.GroupVersion.String(), "BotDeployment", bot.Name, bot.UID
		}, v1alpha1.ReasonForbidden},
	} {
		i := len(name)
		pod := w.startPod(bot, set, tc.change, func(p *corev1.Pod) { p.Name = fmt.Sprintf("stranger-%d", i) })
		_, refusal := w.unseal(w.podToken(pod), string(pod.UID))
		if refusal == nil || refusal.Reason != tc.want {
			t.Errorf("%s: %+v, want %s", name, refusal, tc.want)
		}
		w.must(w.cluster.Delete(w.Context(), pod))
	}
	// A StatefulSet of somebody else's, which says that the bot owns it and has another name.
	fake := resources.BotStatefulSet(w.opts.Settings, bot, w.tenant, set)
	sts := fake.DeepCopy()
	sts.Name = "fake"
	w.must(w.cluster.Create(w.Context(), sts))
	pod := w.startPod(bot, set, func(p *corev1.Pod) {
		p.Name, p.OwnerReferences[0].Name, p.OwnerReferences[0].UID = "fake-0", "fake", sts.UID
	})
	_, refusal := w.unseal(w.podToken(pod), string(pod.UID))
	w.wantRefusal(refusal, v1alpha1.ReasonForbidden)
	w.must(w.cluster.Delete(w.Context(), pod))

	// A pod in a namespace that is no tenant's.
	ns := testEnv.Namespace(t, "free", nil).Name
	sa := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: own.Spec.ServiceAccountName}}
	w.must(testEnv.Client.Create(w.Context(), sa))
	free := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: own.Name, Annotations: own.Annotations, Labels: own.Labels}, Spec: *own.Spec.DeepCopy()}
	w.must(testEnv.Client.Create(w.Context(), free))
	_, refusal = w.unseal(w.podToken(free), string(free.UID))
	w.wantRefusal(refusal, v1alpha1.ReasonNoTenant)
}

func TestUnsealGivesAPollingBotsTokenToOnePod(t *testing.T) {
	w := newWorld(t)
	w.tenantKeys()
	bot, _ := w.newBot("support", telegram)
	set := w.storeAndRecord(bot).Secret
	first := w.startPod(bot, set, func(p *corev1.Pod) { p.Finalizers = []string{"lethe.dev/test"} })
	_, refusal := w.unseal(w.podToken(first), string(first.UID))
	w.granted(refusal)
	second := w.startPod(bot, set, func(p *corev1.Pod) { p.Name = "support-bot-x"; p.Spec.Hostname = "" })
	// Labels can be changed in a pod that lives; the first one stays the bot's.
	first.Labels = map[string]string{}
	w.must(w.cluster.Update(w.Context(), first))
	_, refusal = w.unseal(w.podToken(second), string(second.UID))
	w.wantRefusal(refusal, v1alpha1.ReasonInUse)
	if refusal.RetryAfter == 0 {
		t.Error("it is not said when to ask again")
	}
	// Terminating is not gone.
	w.must(w.cluster.Delete(w.Context(), first))
	_, refusal = w.unseal(w.podToken(second), string(second.UID))
	w.wantRefusal(refusal, v1alpha1.ReasonInUse)
	w.must(testEnv.Client.Get(w.Context(), client.ObjectKeyFromObject(first), first))
	first.Finalizers = nil
	w.must(w.cluster.Update(w.Context(), first))
	_, refusal = w.unseal(w.podToken(second), string(second.UID))
	w.granted(refusal)
}

func TestUnsealWhileSuspendedOrRevoked(t *testing.T) {
	w := newWorld(t)
	w.tenantKeys()
	bot, _ := w.newBot("support", func(b *v1alpha1.BotDeployment) { b.Finalizers = []string{v1alpha1.FinalizerKeys} })
	pod := w.startPod(bot, w.storeAndRecord(bot).Secret)
	ask := func() *keyapi.Error { _, r := w.unseal(w.podToken(pod), string(pod.UID)); return r }
	w.granted(ask())

	w.tenant.Spec.State = v1alpha1.TenantSuspended
	w.must(testEnv.Client.Update(w.Context(), w.tenant))
	w.wantRefusal(ask(), v1alpha1.ReasonSuspended)
	w.tenant.Spec.State = v1alpha1.TenantActive
	w.must(testEnv.Client.Update(w.Context(), w.tenant))
	w.granted(ask())
	w.update(bot, func(b *v1alpha1.BotDeployment) { b.Spec.OperatingMode = v1alpha1.ModeSuspended })
	w.wantRefusal(ask(), v1alpha1.ReasonSuspended)
	w.update(bot, func(b *v1alpha1.BotDeployment) { b.Spec.OperatingMode = v1alpha1.ModeRunning })
	w.granted(ask())

	// A namespace that is another tenant's now, although nothing in it has changed.
	ns := &corev1.Namespace{}
	w.must(testEnv.Client.Get(w.Context(), client.ObjectKey{Name: w.ns}, ns))
	ns.Labels[v1alpha1.LabelTenant] = "somebody-else"
	w.must(testEnv.Client.Update(w.Context(), ns))
	w.wantRefusal(ask(), v1alpha1.ReasonNoTenant)
	ns.Labels[v1alpha1.LabelTenant] = w.tenant.Name
	w.must(testEnv.Client.Update(w.Context(), ns))
	w.granted(ask())

	// A live bot's keys stay, whoever asks.
	revoke := keyapi.RevokeRequest{Object: refTo(sealing.KindBotDeployment, bot)}
	w.wantRefusal(w.call(keyapi.PathRevoke, w.manager, revoke, nil), v1alpha1.ReasonForbidden)
	wrong := revoke
	wrong.Object.Name = "not-there"
	w.wantRefusal(w.call(keyapi.PathRevoke, w.manager, wrong, nil), v1alpha1.ReasonForbidden)
	w.granted(ask())

	// From the deletion on nothing is given away, before the keys are destroyed and after.
	w.must(testEnv.Client.Delete(w.Context(), bot))
	w.wantRefusal(ask(), v1alpha1.ReasonRevoked)
	w.wantRefusal(w.call(keyapi.PathCredentials, w.manager, keyapi.CredentialsRequest(revoke), nil), v1alpha1.ReasonRevoked)
	for range 2 {
		w.granted(w.call(keyapi.PathRevoke, w.manager, revoke, nil))
	}
	if !w.secretGone("lethe-keys", keystore.ObjectSecretName(string(bot.UID))) {
		t.Error("the key is still there")
	}
	w.wantRefusal(ask(), v1alpha1.ReasonRevoked)
	w.update(bot, func(b *v1alpha1.BotDeployment) { b.Finalizers = nil })
	w.granted(w.call(keyapi.PathRevoke, w.manager, revoke, nil))
}

func TestUnsealBeforeAndAfterItsSecret(t *testing.T) {
	w := newWorld(t)
	w.tenantKeys()
	bot, _ := w.newBot("support")
	early := w.startPod(bot, "support-cred-0000000000")
	_, refusal := w.unseal(w.podToken(early), string(early.UID))
	w.wantRefusal(refusal, v1alpha1.ReasonNotReady)
	if refusal.RetryAfter == 0 {
		t.Error("it is not said when to ask again")
	}
	w.must(w.cluster.Delete(w.Context(), early))
	set := w.storeAndRecord(bot).Secret
	pod := w.startPod(bot, set)
	secret := w.getSecret(w.ns, set)
	w.must(w.cluster.Delete(w.Context(), secret))
	_, refusal = w.unseal(w.podToken(pod), string(pod.UID))
	w.wantRefusal(refusal, v1alpha1.ReasonNotReady)
	// Altered in etcd: one value under another's name.
	forged := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: w.ns, Name: set, OwnerReferences: secret.OwnerReferences, Annotations: secret.Annotations},
		Type: secret.Type, Data: map[string][]byte{"openai": secret.Data["telegram"]}}
	w.must(testEnv.Client.Create(w.Context(), forged))
	_, refusal = w.unseal(w.podToken(pod), string(pod.UID))
	w.wantRefusal(refusal, v1alpha1.ReasonForeignSecret)
	w.must(w.cluster.Delete(w.Context(), forged))
	// The keys destroyed behind the bot's back.
	w.must(testEnv.Client.Delete(w.Context(), w.getSecret("lethe-keys", keystore.ObjectSecretName(string(bot.UID)))))
	_, refusal = w.unseal(w.podToken(pod), string(pod.UID))
	w.wantRefusal(refusal, v1alpha1.ReasonRevoked)
}

func TestOnlyTheManagerAsksForObjects(t *testing.T) {
	w := newWorld(t)
	w.tenantKeys()
	bot, _ := w.newBot("support")
	pod := w.startPod(bot, w.storeAndRecord(bot).Secret)
	impostor := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: w.ns, Name: "lethe-manager"}}
	w.must(testEnv.Client.Create(w.Context(), impostor))
	for path, req := range map[string]any{
		keyapi.PathTenant:      keyapi.TenantRequest{Tenant: refTo("Tenant", w.tenant)},
		keyapi.PathCredentials: keyapi.CredentialsRequest{Object: refTo(sealing.KindBotDeployment, bot)},
		keyapi.PathRevoke:      keyapi.RevokeRequest{Object: refTo(sealing.KindBotDeployment, bot)},
	} {
		for name, tc := range map[string]struct{ token, want string }{
			"nobody":                      {"", v1alpha1.ReasonUnauthenticated},
			"a pod":                       {w.podToken(pod), v1alpha1.ReasonForbidden},
			"that name elsewhere":         {w.token(w.ns, "lethe-manager", v1alpha1.AudienceKeyserver, nil), v1alpha1.ReasonForbidden},
			"the keyserver":               {w.token("lethe-system", "lethe-keyserver", v1alpha1.AudienceKeyserver, nil), v1alpha1.ReasonForbidden},
			"the manager to someone else": {w.token("lethe-system", "lethe-manager", "other", nil), v1alpha1.ReasonUnauthenticated},
		} {
			if got := w.call(path, tc.token, req, nil); got == nil || got.Reason != tc.want {
				t.Errorf("%s %s: %+v, want %s", path, name, got, tc.want)
			}
		}
	}
	resp, err := http.Get(w.http.URL + keyapi.PathTenant)
	w.must(err)
	resp.Body.Close()
	if resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("GET answers %d", resp.StatusCode)
	}
}
