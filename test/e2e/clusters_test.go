package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	admissionv1 "k8s.io/api/admission/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/util/cert"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/internal/sealing"
	"github.com/lethe-dev/lethe/internal/status"
	"github.com/lethe-dev/lethe/test/stage"
)

// otherClusters makes the node into what other people have: admission that changes pods as OpenShift's security
// context constraints, PodNodeSelector and Kyverno do, DNS that answers on port 5353 of its pods, and a registry that
// wants a password, for the bot's image, for Lethe's helper in its pod and for the sweeper.
func otherClusters(t *testing.T, w *world) {
	private := w.privateRegistry(t)
	w.meddle(t, "e2e-elsewhere")
	for _, object := range []client.Object{
		private.secret(stage.SystemNamespace),
		&nodev1.RuntimeClass{ObjectMeta: metav1.ObjectMeta{Name: "e2e-runc"}, Handler: "runc"},
		&schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: "e2e-customers"}, Value: 1000},
	} {
		w.create(t, object)
		t.Cleanup(func() { _ = w.client.Delete(context.WithoutCancel(t.Context()), object) })
	}
	// Lethe's own programs come from the registry, too.
	elsewhere := []string{"image.repository=" + private.address + "/lethe", "image.pullPolicy=IfNotPresent", "image.pullSecrets[0].name=regcred"}
	t.Cleanup(func() {
		w.moveDNS(t, 53)
		if err := w.Install(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	if err := w.Install(t.Context(), elsewhere...); err != nil {
		t.Fatal(err)
	}
	// All that a Tenant says of where its pods run.
	tenant := w.tenant(t, "e2e-elsewhere", func(s *v1alpha1.TenantSpec) {
		s.Placement = &v1alpha1.TenantPlacement{NodeSelector: map[string]string{corev1.LabelHostname: w.info.Network.NodeName},
			Tolerations:      []v1alpha1.Toleration{{Key: "example.com/pool", Operator: corev1.TolerationOpExists}},
			RuntimeClassName: "e2e-runc", PriorityClassName: "e2e-customers", TopologySpread: []v1alpha1.TopologySpread{{TopologyKey: corev1.LabelHostname}},
			Affinity: &v1alpha1.TenantAffinity{
				NodeAffinity: &v1alpha1.NodeAffinity{Required: &v1alpha1.NodeTerms{NodeSelectorTerms: []v1alpha1.NodeTerm{{MatchExpressions: []v1alpha1.NodeRequirement{
					{Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{w.info.Network.NodeName}}}}}}},
				PodAntiAffinity: &v1alpha1.PodAffinity{Preferred: []v1alpha1.PreferredPodTerm{{Weight: 100, PodAffinityTerm: v1alpha1.PodTerm{TopologyKey: corev1.LabelHostname}}}},
			}}
		s.ImagePullSecrets = []v1alpha1.ImagePullSecret{{Name: "regcred"}}
	})
	token, id := w.newToken(t, 40)
	bot := w.newBot(t, tenant, "private", token)
	bot.Spec.Image, bot.Spec.ImagePullPolicy = private.image(w.botImage), corev1.PullIfNotPresent
	w.create(t, bot)
	// Without the Secret the bot says which one; the manager has asked the keyserver.
	w.says(t, bot, v1alpha1.ConditionReady, "Secret regcred, which Tenant e2e-elsewhere's spec.imagePullSecrets names, does not exist in namespace e2e-elsewhere")
	w.create(t, private.secret(tenant.Name))
	w.awaitReady(t, bot, 2*time.Minute)
	w.chat(t, id, "from a private registry")
	w.isMeddledWith(t, bot, private)

	// DNS goes elsewhere. A manager that begins to lead finds out through the same wall, and says which port.
	w.moveDNS(t, 5353)
	if err := w.client.DeleteAllOf(t.Context(), &corev1.Pod{}, client.InNamespace(stage.SystemNamespace), client.MatchingLabels{"app.kubernetes.io/component": "manager"}); err != nil {
		t.Fatal(err)
	}
	w.says(t, bot, v1alpha1.ConditionIsolationReady, "which is answered on port 5353, and dns.ports opens 53")
	if reason := meta.FindStatusCondition(bot.Status.Conditions, v1alpha1.ConditionIsolationReady).Reason; reason != v1alpha1.ReasonDNSOutOfReach {
		t.Errorf("the reason is %s", reason)
	}
	if err := w.Install(t.Context(), append(elsewhere, "dns.ports={5353}")...); err != nil {
		t.Fatal(err)
	}
	w.awaitReady(t, bot, time.Minute)
	var pod corev1.Pod
	if err := w.client.Get(t.Context(), client.ObjectKey{Namespace: tenant.Name, Name: resources.BotPodName(bot.Name)}, &pod); err != nil {
		t.Fatal(err)
	}
	// What enforces network policies on a node takes a moment to hear of one that has changed.
	dns := net.JoinHostPort(w.running(t, "kube-system", client.MatchingLabels{"k8s-app": "kube-dns"}).Status.PodIP, "5353")
	until(t, 15*time.Second, "let the bot reach DNS on its port", func(ctx context.Context) (string, error) {
		return dial(ctx, "/proc/"+processOf(t, &pod)+"/ns/net", dns), nil
	})
	w.sweepsFrom(t, tenant, private) // and finds the keyserver by its name
	if err := w.client.Delete(t.Context(), bot); err != nil {
		t.Fatal(err)
	}
	w.gone(t, bot, time.Minute)
}

// says waits until a condition, or the one that it names, has a text in its message.
func (w *world) says(t *testing.T, bot *v1alpha1.BotDeployment, kind, text string) {
	t.Helper()
	until(t, 2*time.Minute, "see it said that "+text, func(ctx context.Context) (string, error) {
		if err := w.client.Get(ctx, client.ObjectKeyFromObject(bot), bot); err != nil {
			return "", err
		}
		if c := status.See(bot.Status.Conditions, kind); c == nil || !strings.Contains(c.Message, text) {
			return fmt.Sprintf("it says %+v", c), nil
		}
		return "", nil
	})
}

// isMeddledWith: admission did change the pod that was given its credentials, and what the Tenant says of it is so.
func (w *world) isMeddledWith(t *testing.T, bot *v1alpha1.BotDeployment, private *privateRegistry) {
	t.Helper()
	var pod corev1.Pod
	var set appsv1.StatefulSet
	if err := errors.Join(w.client.Get(t.Context(), client.ObjectKey{Namespace: bot.Namespace, Name: resources.BotPodName(bot.Name)}, &pod),
		w.client.Get(t.Context(), client.ObjectKey{Namespace: bot.Namespace, Name: resources.BotName(bot.Name)}, &set)); err != nil {
		t.Fatal(err)
	}
	for what, ok := range map[string]bool{
		"ndots of the template":                set.Spec.Template.Spec.DNSConfig != nil && set.Annotations[v1alpha1.AnnotationAdmitted] != "",
		"the template's label":                 pod.Labels["team"] == "platform",
		"Autopilot's resources":                pod.Spec.Containers[0].Resources.Requests.Cpu().String() == "15m",
		"the helper's image is the registry's": strings.HasPrefix(pod.Spec.InitContainers[0].Image, private.address+"/lethe:"),
		"OpenShift's level":                    pod.Spec.SecurityContext.SELinuxOptions != nil && pod.Spec.SecurityContext.SELinuxOptions.Level == "s0:c26,c5",
		"OpenShift's annotation":               pod.Annotations["openshift.io/scc"] == "nonroot-v2",
		"PodNodeSelector's key":                pod.Spec.NodeSelector["kubernetes.io/os"] == "linux",
		"Kyverno's ndots":                      pod.Spec.DNSConfig != nil && len(pod.Spec.DNSConfig.Options) == 1,
		"the priority":                         pod.Spec.Priority != nil && *pod.Spec.Priority == 1000,
		"the runtime class":                    pod.Spec.RuntimeClassName != nil && *pod.Spec.RuntimeClassName == "e2e-runc",
		"the affinity to a node": pod.Spec.Affinity != nil && pod.Spec.Affinity.NodeAffinity != nil &&
			pod.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms[0].MatchExpressions[0].Key == corev1.LabelHostname,
		"the distance from other bots": pod.Spec.Affinity != nil && pod.Spec.Affinity.PodAntiAffinity != nil &&
			len(pod.Spec.Affinity.PodAntiAffinity.PreferredDuringSchedulingIgnoredDuringExecution) == 1,
	} {
		if !ok {
			t.Errorf("%s: not so, and the bot was tried without it", what)
		}
	}
}

// sweepsFrom: a sweep's image is pulled with the Tenant's Secret, and its pod, changed by admission like the bot's,
// is given its password: the database is not there, which is as far as it has to come.
func (w *world) sweepsFrom(t *testing.T, tenant *v1alpha1.Tenant, private *privateRegistry) {
	t.Helper()
	store := example[v1alpha1.DataStore](t, w, "store.yaml")
	store.Namespace, store.Name, store.Labels = tenant.Name, "nowhere", nil
	store.Spec.Tenancy, store.Spec.TenantIDType = v1alpha1.TenancyDedicated, ""
	for i := range store.Spec.Datasets {
		store.Spec.Datasets[i].Table.TenantColumn = ""
	}
	store.Spec.Postgres.Host, store.Spec.Postgres.Port = w.telegram.Host, 5433 // nobody listens there
	key := tenant.Status.SealingKeys[0]
	public, err := sealing.ParsePublicKey(key.Suite, key.Public)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := sealing.Seal(public, sealing.Place{Realm: key.Realm, Tenant: tenant.Name, Namespace: store.Namespace, Kind: sealing.KindDataStore, Name: store.Name,
		Key: sealing.PasswordKey, Version: 1, Destination: sealing.DestinationOf(&store.Spec)}, []byte(stage.Random()))
	if err != nil {
		t.Fatal(err)
	}
	store.Spec.Postgres.Password = v1alpha1.SealedValue(sealed)
	w.create(t, store)
	until(t, 2*time.Minute, "see a sweep that came as far as the database", func(ctx context.Context) (string, error) {
		if err := w.client.Get(ctx, client.ObjectKeyFromObject(store), store); err != nil {
			return "", err
		}
		reachable := meta.FindStatusCondition(store.Status.Conditions, v1alpha1.ConditionReachable)
		if reachable != nil && reachable.Status == metav1.ConditionFalse && reachable.Reason == "Unreachable" {
			return "", nil
		}
		return fmt.Sprintf("it says %+v", store.Status.Conditions), nil
	})
	var pods corev1.PodList
	if err := w.client.List(t.Context(), &pods, client.InNamespace(store.Namespace), client.MatchingLabels(resources.StoreLabels(store.Name, resources.ComponentSweeper))); err != nil {
		t.Fatal(err)
	}
	var cron batchv1.CronJob
	if err := w.client.Get(t.Context(), client.ObjectKey{Namespace: store.Namespace, Name: resources.SweepName(store.Name)}, &cron); err != nil {
		t.Fatal(err)
	}
	if cron.Spec.JobTemplate.Spec.Template.Spec.DNSConfig == nil || cron.Annotations[v1alpha1.AnnotationAdmitted] == "" {
		t.Errorf("the CronJob was not changed, and the store was tried without: %+v", cron.ObjectMeta)
	}
	for _, pod := range pods.Items {
		if !strings.HasPrefix(pod.Spec.Containers[0].Image, private.address+"/lethe:") || pod.Spec.RuntimeClassName == nil {
			t.Errorf("the sweep ran %s under %v", pod.Spec.Containers[0].Image, pod.Spec.RuntimeClassName)
		}
	}
	if err := w.client.Delete(t.Context(), store); err != nil {
		t.Fatal(err)
	}
	w.gone(t, store, time.Minute)
}

// privateRegistry gives images to who has its password.
type privateRegistry struct{ address, password string }

func (w *world) privateRegistry(t *testing.T) *privateRegistry {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", net.JoinHostPort(w.info.Network.HostIP, "0"))
	if err != nil {
		t.Fatal(err)
	}
	r := &privateRegistry{address: listener.Addr().String(), password: stage.Random()}
	images := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(out http.ResponseWriter, in *http.Request) {
		if user, password, ok := in.BasicAuth(); !ok || user != "lethe" || password != r.password {
			out.Header().Set("WWW-Authenticate", `Basic realm="private"`)
			http.Error(out, `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`, http.StatusUnauthorized)
			return
		}
		images.ServeHTTP(out, in)
	})}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })
	// The node may speak to this one without TLS. The folder's name is the address as containerd looks for it.
	folder := filepath.Join(w.info.Dir, "containerd", "certs.d", strings.ReplaceAll(r.address, ":", "_")+"_")
	if err := os.MkdirAll(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	hosts := fmt.Sprintf("server = %[1]q\n\n[host.%[1]q]\n  capabilities = [\"pull\", \"resolve\"]\n", "http://"+r.address)
	if err := os.WriteFile(filepath.Join(folder, "hosts.toml"), []byte(hosts), 0o644); err != nil {
		t.Fatal(err)
	}
	lethe, err := w.LetheImage()
	if err != nil {
		t.Fatal(err)
	}
	for _, full := range []string{lethe, w.botImage} {
		base, _, _ := strings.Cut(full, ":")
		_, tag, _ := strings.Cut(full, ":")
		r.fill(t, images, base, tag, w.Path("images", base+".tar"))
	}
	return r
}

// fill puts an image into the registry, past its password: the test holds no client of registries.
func (r *privateRegistry) fill(t *testing.T, images http.Handler, repository, tag, archive string) {
	t.Helper()
	put := func(method, path, kind string, content []byte) {
		request := httptest.NewRequestWithContext(t.Context(), method, "/v2/"+repository+"/"+path, bytes.NewReader(content))
		request.Header.Set("Content-Type", kind)
		answer := httptest.NewRecorder()
		images.ServeHTTP(answer, request)
		if answer.Code/100 != 2 {
			t.Fatalf("%s %s: %d %s", method, path, answer.Code, answer.Body)
		}
	}
	blob := func(content []byte) {
		put(http.MethodPost, fmt.Sprintf("blobs/uploads/?digest=sha256:%x", sha256.Sum256(content)), "application/octet-stream", content)
	}
	image, err := tarball.ImageFromPath(archive, nil)
	if err != nil {
		t.Fatal(err)
	}
	// Another image than the one that is on the node already: a kubelet that has pulled one with a password gives it,
	// under whichever name, to nobody without.
	known, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	other := known.DeepCopy()
	other.Config.Labels = map[string]string{"e2e": "private"}
	if image, err = mutate.ConfigFile(image, other); err != nil {
		t.Fatal(err)
	}
	layers, err := image.Layers()
	if err != nil {
		t.Fatal(err)
	}
	for _, layer := range layers {
		from, err := layer.Compressed()
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(from)
		if err := errors.Join(err, from.Close()); err != nil {
			t.Fatal(err)
		}
		blob(content)
	}
	config, err := image.RawConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	blob(config)
	manifest, err := image.RawManifest()
	if err != nil {
		t.Fatal(err)
	}
	kind, err := image.MediaType()
	if err != nil {
		t.Fatal(err)
	}
	put(http.MethodPut, "manifests/"+tag, string(kind), manifest)
}

func (r *privateRegistry) image(full string) string { return r.address + "/" + full }

func (r *privateRegistry) secret(namespace string) *corev1.Secret {
	config, _ := json.Marshal(map[string]any{"auths": map[string]any{r.address: map[string]string{"username": "lethe", "password": r.password}}})
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "regcred"}, Type: corev1.SecretTypeDockerConfigJson,
		Data: map[string][]byte{corev1.DockerConfigJsonKey: config}}
}

// meddle changes each pod of a namespace at its creation, and the template of each StatefulSet and CronJob whenever
// one is written, as others' clusters do.
func (w *world) meddle(t *testing.T, namespace string) {
	t.Helper()
	host := w.info.Network.HostIP
	certificate, key, err := cert.GenerateSelfSignedCertKey(host, []net.IP{net.ParseIP(host)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := tls.Listen("tcp", net.JoinHostPort(host, "0"), &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12})
	if err != nil {
		t.Fatal(err)
	}
	ndots := map[string]any{"options": []map[string]string{{"name": "ndots", "value": "1"}}}
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(out http.ResponseWriter, in *http.Request) {
		var review admissionv1.AdmissionReview
		var pod corev1.Pod
		if json.NewDecoder(in.Body).Decode(&review) != nil || json.Unmarshal(review.Request.Object.Raw, &pod) != nil {
			http.Error(out, "no review", http.StatusBadRequest)
			return
		}
		nodes := map[string]string{"kubernetes.io/os": "linux"}
		for k, v := range pod.Spec.NodeSelector {
			nodes[k] = v
		}
		changes := []map[string]any{
			{"op": "add", "path": "/metadata/annotations/openshift.io~1scc", "value": "nonroot-v2"},
			{"op": "add", "path": "/metadata/annotations/security.openshift.io~1validated-scc-subject-type", "value": "serviceaccount"},
			{"op": "add", "path": "/spec/securityContext/seLinuxOptions", "value": map[string]string{"level": "s0:c26,c5"}},
			{"op": "add", "path": "/spec/nodeSelector", "value": nodes},
			{"op": "add", "path": "/spec/dnsConfig", "value": ndots},
		}
		// Kyverno's rules for pods are written out for templates, too, and GKE Autopilot sets the resources of
		// workloads.
		if template := map[string]string{"StatefulSet": "/spec/template", "CronJob": "/spec/jobTemplate/spec/template"}[review.Request.Kind.Kind]; template != "" {
			changes = []map[string]any{
				{"op": "add", "path": template + "/spec/dnsConfig", "value": ndots},
				{"op": "add", "path": template + "/metadata/labels/team", "value": "platform"},
				{"op": "add", "path": template + "/metadata/annotations/policies.kyverno.io~1last-applied-patches", "value": "ndots"},
				{"op": "add", "path": template + "/spec/containers/0/resources/requests/cpu", "value": "15m"},
			}
		}
		patch, _ := json.Marshal(changes)
		kind := admissionv1.PatchTypeJSONPatch
		review.Response = &admissionv1.AdmissionResponse{UID: review.Request.UID, Allowed: true, Patch: patch, PatchType: &kind}
		review.Request = nil
		out.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(out).Encode(review)
	})}
	go func() { _ = server.Serve(listener) }()
	url, none, fail := "https://"+listener.Addr().String()+"/", admissionregistrationv1.SideEffectClassNone, admissionregistrationv1.Fail
	hook := &admissionregistrationv1.MutatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "e2e-meddles"}, Webhooks: []admissionregistrationv1.MutatingWebhook{{
		Name: "meddles.example.com", AdmissionReviewVersions: []string{"v1"}, SideEffects: &none, FailurePolicy: &fail,
		ClientConfig:      admissionregistrationv1.WebhookClientConfig{URL: &url, CABundle: certificate},
		NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: namespace}},
		Rules: []admissionregistrationv1.RuleWithOperations{{Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Create},
			Rule: admissionregistrationv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"pods"}}},
			{Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Create, admissionregistrationv1.Update},
				Rule: admissionregistrationv1.Rule{APIGroups: []string{"apps", "batch"}, APIVersions: []string{"v1"}, Resources: []string{"statefulsets", "cronjobs"}}}},
	}}}
	w.create(t, hook)
	t.Cleanup(func() {
		_ = w.client.Delete(context.WithoutCancel(t.Context()), hook)
		_ = server.Close()
	})
}

// moveDNS has the cluster's DNS answer on another port of its pods, behind the same port of its Service.
func (w *world) moveDNS(t *testing.T, port int32) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	was := map[int32]string{5353: ":53 ", 53: ":5353 "}[port]
	config := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "coredns"}}
	service := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "kube-dns"}}
	pods := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "coredns"}}
	for _, o := range []client.Object{config, service, pods} {
		if err := w.client.Get(ctx, client.ObjectKeyFromObject(o), o); err != nil {
			t.Error(err)
			return
		}
	}
	config.Data["Corefile"] = strings.ReplaceAll(config.Data["Corefile"], was, fmt.Sprintf(":%d ", port))
	for i := range service.Spec.Ports {
		service.Spec.Ports[i].TargetPort = intstr.FromInt32(port)
	}
	template := &pods.Spec.Template
	template.Annotations = map[string]string{"e2e/port": fmt.Sprint(port)}
	for i := range template.Spec.Containers[0].Ports {
		if p := &template.Spec.Containers[0].Ports[i]; strings.HasPrefix(p.Name, "dns") {
			p.ContainerPort = port
		}
	}
	for _, o := range []client.Object{config, service, pods} {
		if err := w.client.Update(ctx, o); err != nil {
			t.Error(err)
			return
		}
	}
	err := stage.Until(ctx, time.Minute, "wait for DNS on its new port", func(ctx context.Context) (string, error) {
		if err := w.client.Get(ctx, client.ObjectKeyFromObject(pods), pods); err != nil {
			return "", err
		}
		if s := pods.Status; s.ObservedGeneration < pods.Generation || s.UpdatedReplicas != 1 || s.AvailableReplicas != 1 || s.Replicas != 1 {
			return "it is not ready", nil
		}
		return "", nil
	})
	if err != nil {
		t.Error(err)
	}
}
