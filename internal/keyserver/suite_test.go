package keyserver

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/internal/keystore"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/internal/sealing"
	"github.com/lethe-dev/lethe/test/env"
)

var testEnv *env.Env

func TestMain(m *testing.M) {
	if config := os.Getenv(attackedEnv); config != "" {
		os.Exit(attacked(config))
	}
	// Fuzzing runs this program many times, and none of its targets needs an API server.
	flag.Parse()
	if fuzz := flag.Lookup("test.fuzz"); fuzz != nil && fuzz.Value.String() != "" {
		os.Exit(m.Run())
	}
	os.Exit(env.Main(m, func(e *env.Env) { testEnv = e }))
}

// sharedKEK is the one of the keys' namespace that all tests share, as one installation would.
var sharedKEK = sync.OnceValue(newKEK)

func newKEK() sealing.Key { return parseKEK(newKEKText()) }

func newKEKText() string {
	b := make([]byte, 32)
	_, _ = rand.Read(b)
	return base64.StdEncoding.EncodeToString(b)
}

func parseKEK(text string) sealing.Key {
	k, err := sealing.ParseKEK([]byte(text))
	if err != nil {
		panic(err)
	}
	return k
}

const testRealm = "test"

// canaries are every secret that a test used: none may show up in a log, an answer or an object.
type canaries struct {
	mu   sync.Mutex
	list []string
}

func (c *canaries) add(secret string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.list = append(c.list, secret)
	return secret
}

// found returns what of the canaries stands in a text: raw, base64 or hex.
func (c *canaries) found(text string) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []string
	for _, s := range c.list {
		for form, v := range map[string]string{"raw": s, "base64": strings.TrimRight(base64.StdEncoding.EncodeToString([]byte(s)), "="),
			"base64url": base64.RawURLEncoding.EncodeToString([]byte(s)), "hex": hex.EncodeToString([]byte(s))} {
			if strings.Contains(text, v) {
				out = append(out, form+" of canary "+s[:8])
			}
		}
	}
	return out
}

// lockedBuffer is a log that many write to.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// world is a tenant with a namespace, and a keyserver with the rights it has in a cluster.
type world struct {
	*testing.T
	clock    *clocktesting.FakePassiveClock
	writes   *writeHook
	opts     Options
	server   *Server
	http     *httptest.Server
	log      *lockedBuffer
	canaries *canaries
	manager  string // its token
	tenant   *v1alpha1.Tenant
	ns       string
	cluster  client.Client
	before   []sealing.Key // key-encryption keys of before
}

func newWorld(t *testing.T) *world {
	t.Helper()
	return newWorldAs(t, testEnv.AsServiceAccount(t, "lethe-system", "lethe-keyserver"), "lethe-keys", sharedKEK())
}

func newWorldAs(t *testing.T, c client.Client, keysNamespace string, kek sealing.Key) *world {
	t.Helper()
	w := &world{T: t, clock: clocktesting.NewFakePassiveClock(time.Now()), log: &lockedBuffer{}, canaries: &canaries{}, cluster: testEnv.AsCluster(t)}
	w.writes = &writeHook{Client: c}
	settings := resources.DefaultSettings()
	settings.Image = "lethe.example/lethe:test"
	metrics, err := NewMetrics(prometheus.NewRegistry())
	w.must(err)
	w.opts = Options{Client: w.writes, KEK: kek, KEKGrade: GradeProduction, Realm: testRealm, KeysNamespace: keysNamespace,
		Hosts: []string{"lethe-keyserver.lethe-system.svc", "127.0.0.1"}, Settings: settings, Clock: w.clock, Random: rand.Reader, Metrics: metrics,
		Log: slog.New(slog.NewTextHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug}))}
	w.unpublish()
	w.restart()
	w.manager = w.token("lethe-system", "lethe-manager", v1alpha1.AudienceKeyserver, nil)
	w.tenant, w.ns = w.newTenant(v1alpha1.TenantCustomer)
	t.Cleanup(func() {
		if found := w.canaries.found(w.log.String()); len(found) > 0 {
			t.Errorf("the log holds secrets: %v", found)
		}
	})
	return w
}

// unpublish forgets the key of reports that another test's installation has published in the namespace that they all
// share.
func (w *world) unpublish() {
	w.Helper()
	err := testEnv.Client.Get(w.Context(), client.ObjectKey{Namespace: w.opts.KeysNamespace, Name: keystore.ReportKeyName}, &corev1.Secret{})
	if err == nil {
		return
	}
	cm := &corev1.ConfigMap{}
	w.must(client.IgnoreNotFound(err))
	w.must(client.IgnoreNotFound(testEnv.Client.Get(w.Context(), client.ObjectKey{Namespace: w.opts.Settings.Namespace, Name: resources.CABundleName}, cm)))
	if cm.Annotations[annotationReportKey] != "" {
		delete(cm.Annotations, annotationReportKey)
		w.must(testEnv.Client.Update(w.Context(), cm))
	}
}

// restart is a new process: nothing is left in memory.
func (w *world) restart() {
	w.Helper()
	s, err := New(w.opts)
	w.must(err)
	w.server = s
	if w.http != nil {
		w.http.Close()
	}
	w.http = httptest.NewServer(s.Handler())
	w.Cleanup(w.http.Close)
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// newTenant makes a tenant that has taken one namespace, as the manager would.
func (w *world) newTenant(class v1alpha1.TenantClass) (*v1alpha1.Tenant, string) {
	w.Helper()
	name := fmt.Sprintf("t%d", time.Now().UnixNano())
	ns := testEnv.Namespace(w, "ks", map[string]string{v1alpha1.LabelTenant: name})
	tenant := &v1alpha1.Tenant{ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: v1alpha1.TenantSpec{Class: class, State: v1alpha1.TenantActive, Namespaces: []v1alpha1.TenantNamespace{{Name: ns.Name}}}}
	w.must(testEnv.Client.Create(w.Context(), tenant))
	cluster, keys := testEnv.Client, w.opts.KeysNamespace
	w.Cleanup(func() {
		// Later tests look at all Tenants and all keys that there are: these would make each of them slower. Either
		// may be gone by now, or its kind.
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = cluster.Delete(ctx, &v1alpha1.Tenant{ObjectMeta: metav1.ObjectMeta{Name: name}})
		_ = cluster.DeleteAllOf(ctx, &corev1.Secret{}, client.InNamespace(keys), client.MatchingLabels{v1alpha1.LabelTenant: name})
	})
	w.writes.mu.Lock()
	if w.writes.tenants != nil {
		w.writes.tenants[name] = true
	}
	w.writes.mu.Unlock()
	tenant.Status.Namespaces = []v1alpha1.TenantNamespaceStatus{{Name: ns.Name, UID: string(ns.UID), Origin: "Adopted"}}
	w.must(testEnv.Client.Status().Update(w.Context(), tenant))
	for _, b := range resources.TenantRoleBindings(w.opts.Settings, tenant, ns.Name) {
		if b.Name == resources.BindingKeyserver {
			w.must(testEnv.Client.Create(w.Context(), b.DeepCopy()))
		}
	}
	w.waitAllowed(ns.Name)
	return tenant, ns.Name
}

// waitAllowed waits until the API server's authorizer has seen the new RoleBinding.
func (w *world) waitAllowed(ns string) {
	w.Helper()
	keyserver := testEnv.AsServiceAccount(w, "lethe-system", "lethe-keyserver")
	w.eventually(func() bool {
		err := keyserver.Get(w.Context(), client.ObjectKey{Namespace: ns, Name: "none"}, &corev1.Secret{})
		return client.IgnoreNotFound(err) == nil
	})
}

// eventually polls with a bounded wait.
func (w *world) eventually(ok func() bool) {
	w.Helper()
	w.eventuallyWithin(10*time.Second, ok)
}

func (w *world) eventuallyWithin(most time.Duration, ok func() bool) {
	w.Helper()
	deadline := time.After(most)
	for !ok() {
		select {
		case <-deadline:
			w.Fatalf("not within %s", most)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// token is one that a kubelet would project; only nodes may ask for tokens in a tenant's namespaces.
func (w *world) token(ns, sa, audience string, bound *authenticationv1.BoundObjectReference) string {
	w.Helper()
	req := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{Audiences: []string{audience}, BoundObjectRef: bound}}
	c := testEnv.As(w, "kubelet", "system:nodes", "system:masters")
	w.must(c.SubResource("token").Create(w.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: sa}}, req))
	return w.canaries.add(req.Status.Token)
}

func (w *world) podToken(pod *corev1.Pod) string {
	w.Helper()
	return w.token(pod.Namespace, pod.Spec.ServiceAccountName, v1alpha1.AudienceKeyserver,
		&authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: pod.Name, UID: pod.UID})
}

// call posts a request. A refusal comes back as it was sent; the whole answer is searched for canaries.
func (w *world) call(path, token string, req, into any) *keyapi.Error {
	w.Helper()
	body, err := json.Marshal(req)
	w.must(err)
	r, err := http.NewRequestWithContext(w.Context(), http.MethodPost, w.http.URL+path, bytes.NewReader(body))
	w.must(err)
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := http.DefaultClient.Do(r)
	w.must(err)
	defer resp.Body.Close()
	var answer bytes.Buffer
	_, err = answer.ReadFrom(resp.Body)
	w.must(err)
	if found := w.canaries.found(answer.String()); len(found) > 0 {
		w.Errorf("the answer of %s holds secrets: %v", path, found)
	}
	if resp.StatusCode == http.StatusOK {
		if into != nil {
			w.must(json.Unmarshal(answer.Bytes(), into))
		}
		return nil
	}
	var e keyapi.Error
	w.must(json.Unmarshal(answer.Bytes(), &e))
	return &e
}

func (w *world) wantRefusal(got *keyapi.Error, reason string) {
	w.Helper()
	if got == nil {
		w.Fatalf("was granted, want %s", reason)
	}
	if got.Reason != reason {
		w.Fatalf("refused with %s (%s), want %s", got.Reason, got.Message, reason)
	}
}

func (w *world) granted(got *keyapi.Error) {
	w.Helper()
	if got != nil {
		w.Fatalf("refused: %s: %s\n%s", got.Reason, got.Message, w.log.String())
	}
}

func refTo(kind string, o client.Object) keyapi.ObjectRef {
	return keyapi.ObjectRef{Kind: kind, Namespace: o.GetNamespace(), Name: o.GetName(), UID: string(o.GetUID())}
}

// tenantKeys asks for the tenant's keys, as the manager would. The keyserver puts them into the Tenant's status.
func (w *world) tenantKeys() keyapi.TenantResponse {
	w.Helper()
	var resp keyapi.TenantResponse
	w.granted(w.call(keyapi.PathTenant, w.manager, keyapi.TenantRequest{Tenant: refTo("Tenant", w.tenant)}, &resp))
	w.must(testEnv.Client.Get(w.Context(), client.ObjectKeyFromObject(w.tenant), w.tenant))
	return resp
}

// secret makes a secret that is looked for everywhere.
func (w *world) secret() string {
	b := make([]byte, 16)
	_, _ = rand.Read(b)
	// Each of another bot of Telegram: one of them has one holder.
	return w.canaries.add(fmt.Sprintf("%d:%s", time.Now().UnixNano(), hex.EncodeToString(b)))
}

func (w *world) place(kind, name, key string, version uint32) sealing.Place {
	return sealing.Place{Realm: testRealm, Tenant: w.tenant.Name, Namespace: w.ns, Kind: kind, Name: name, Key: key, Version: version}
}

func (w *world) seal(place sealing.Place, secret string) v1alpha1.SealedValue {
	w.Helper()
	k := w.tenant.Status.SealingKeys[0]
	pub, err := sealing.ParsePublicKey(k.Suite, k.Public)
	w.must(err)
	text, err := sealing.Seal(pub, place, []byte(secret))
	w.must(err)
	return v1alpha1.SealedValue(text)
}

// newBot makes a bot with one sealed credential, telegram.
func (w *world) newBot(name string, change ...func(*v1alpha1.BotDeployment)) (*v1alpha1.BotDeployment, string) {
	w.Helper()
	secret := w.secret()
	bot := &v1alpha1.BotDeployment{ObjectMeta: metav1.ObjectMeta{Namespace: w.ns, Name: name},
		Spec: v1alpha1.BotDeploymentSpec{Image: "bot.example/bot:1",
			Credentials: []v1alpha1.Credential{{Name: "telegram", Sealed: w.seal(w.place(sealing.KindBotDeployment, name, "telegram", 1), secret)}}}}
	for _, f := range change {
		f(bot)
	}
	w.must(testEnv.Client.Create(w.Context(), bot))
	return bot, secret
}

func telegram(bot *v1alpha1.BotDeployment) {
	bot.Spec.Channels = []v1alpha1.Channel{{Name: "tg", Type: v1alpha1.ChannelTelegram, Telegram: &v1alpha1.TelegramChannel{Credential: "telegram"}}}
}

func (w *world) store(bot *v1alpha1.BotDeployment) keyapi.CredentialsResponse {
	w.Helper()
	var resp keyapi.CredentialsResponse
	w.granted(w.call(keyapi.PathCredentials, w.manager, keyapi.CredentialsRequest{Object: refTo(sealing.KindBotDeployment, bot)}, &resp))
	return resp
}

// storeAndRecord also puts the name into the bot's status, as the manager would.
func (w *world) storeAndRecord(bot *v1alpha1.BotDeployment) keyapi.CredentialsResponse {
	w.Helper()
	resp := w.store(bot)
	bot.Status.CredentialsSecret, bot.Status.CredentialsGeneration = resp.Secret, max(bot.Status.CredentialsGeneration, resp.Generation)
	w.must(testEnv.Client.Status().Update(w.Context(), bot))
	return resp
}

// update changes a bot's spec.
func (w *world) update(bot *v1alpha1.BotDeployment, change func(*v1alpha1.BotDeployment)) {
	w.Helper()
	w.must(testEnv.Client.Get(w.Context(), client.ObjectKeyFromObject(bot), bot))
	change(bot)
	w.must(testEnv.Client.Update(w.Context(), bot))
}

// startPod makes the bot's StatefulSet when it is not there, and a pod as the StatefulSet's controller would.
func (w *world) startPod(bot *v1alpha1.BotDeployment, set string, change ...func(*corev1.Pod)) *corev1.Pod {
	w.Helper()
	want := resources.BotStatefulSet(w.opts.Settings, bot, w.tenant, set)
	sts := &appsv1.StatefulSet{}
	err := testEnv.Client.Get(w.Context(), client.ObjectKeyFromObject(want), sts)
	if client.IgnoreNotFound(err) != nil {
		w.Fatal(err)
	}
	if err != nil {
		sts = want.DeepCopy()
		w.must(w.cluster.Create(w.Context(), sts))
		sa := resources.BotServiceAccount(bot)
		w.must(w.cluster.Create(w.Context(), sa.DeepCopy()))
	}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: w.ns, Name: resources.BotPodName(bot.Name), Labels: map[string]string{},
		Annotations: want.Spec.Template.Annotations}, Spec: *want.Spec.Template.Spec.DeepCopy()}
	for k, v := range want.Spec.Template.Labels {
		pod.Labels[k] = v
	}
	pod.Labels["statefulset.kubernetes.io/pod-name"] = pod.Name
	yes := true
	pod.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "StatefulSet", Name: sts.Name, UID: sts.UID, Controller: &yes}}
	pod.Spec.Hostname, pod.Spec.Subdomain = pod.Name, sts.Spec.ServiceName
	if bot.Spec.Storage != nil {
		if err := w.cluster.Create(w.Context(), resources.BotClaim(bot, w.tenant)); client.IgnoreAlreadyExists(err) != nil {
			w.Fatal(err)
		}
	}
	for _, f := range change {
		f(pod)
	}
	w.must(w.cluster.Create(w.Context(), pod))
	return pod
}

// unseal asks as a pod, and opens the answer.
func (w *world) unseal(token, podUID string) (map[string]keyapi.SecretItem, *keyapi.Error) {
	w.Helper()
	key, err := sealing.GeneratePrivateKey(rand.Reader)
	w.must(err)
	var resp keyapi.UnsealResponse
	if e := w.call(keyapi.PathUnseal, token, keyapi.UnsealRequest{PublicKey: key.Public().String()}, &resp); e != nil {
		return nil, e
	}
	b, err := sealing.OpenReply(key, keyapi.PathUnseal, podUID, resp.Sealed)
	w.must(err)
	var bundle keyapi.SecretBundle
	w.must(json.Unmarshal(b, &bundle))
	out := map[string]keyapi.SecretItem{}
	for _, i := range bundle.Items {
		out[i.Name] = i
	}
	return out, nil
}

// writeHook counts writes and can make one fail, before or after it lands.
type writeHook struct {
	client.Client
	mu     sync.Mutex
	count  int
	failAt int // 1 is the next write; 0 never
	after  bool
	dead   bool // after a crash nothing more is written
	// reviewed, when set, changes what the API server says of a token.
	reviewed func(*authenticationv1.TokenReview)
	seen     []string
	// tenants are those that a list shows; nil is all. An installation of its own would not know of the other tests'
	// tenants.
	tenants map[string]bool
}

func (h *writeHook) reset(failAt int, after bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.count, h.failAt, h.after, h.dead, h.seen = 0, failAt, after, false, nil
}

func (h *writeHook) writes() (int, []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.count, h.seen
}

var errCrash = fmt.Errorf("the process died here")

func (h *writeHook) do(what string, obj client.Object, write func() error) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if review, ok := obj.(*authenticationv1.TokenReview); ok {
		err := write()
		if h.reviewed != nil {
			h.reviewed(review)
		}
		return err
	}
	if h.dead {
		return errCrash
	}
	h.count++
	h.seen = append(h.seen, fmt.Sprintf("%s %T %s", what, obj, obj.GetName()))
	if h.count != h.failAt {
		return write()
	}
	h.dead = true
	if h.after {
		if err := write(); err != nil {
			return err
		}
	}
	return errCrash
}

func (h *writeHook) List(ctx context.Context, list client.ObjectList, opts ...client.ListOption) error {
	err := h.Client.List(ctx, list, opts...)
	if all, ok := list.(*v1alpha1.TenantList); ok && err == nil {
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.tenants != nil {
			all.Items = slices.DeleteFunc(all.Items, func(t v1alpha1.Tenant) bool { return !h.tenants[t.Name] })
		}
	}
	return err
}

func (h *writeHook) Create(ctx context.Context, obj client.Object, opts ...client.CreateOption) error {
	return h.do("create", obj, func() error { return h.Client.Create(ctx, obj, opts...) })
}

func (h *writeHook) Update(ctx context.Context, obj client.Object, opts ...client.UpdateOption) error {
	return h.do("update", obj, func() error { return h.Client.Update(ctx, obj, opts...) })
}

func (h *writeHook) Delete(ctx context.Context, obj client.Object, opts ...client.DeleteOption) error {
	return h.do("delete", obj, func() error { return h.Client.Delete(ctx, obj, opts...) })
}

// Status hooks the writes of statuses too.
func (h *writeHook) Status() client.SubResourceWriter {
	return &statusHook{SubResourceWriter: h.Client.Status(), hook: h}
}

type statusHook struct {
	client.SubResourceWriter
	hook *writeHook
}

func (h *statusHook) Patch(ctx context.Context, obj client.Object, patch client.Patch, opts ...client.SubResourcePatchOption) error {
	return h.hook.do("patch status", obj, func() error { return h.SubResourceWriter.Patch(ctx, obj, patch, opts...) })
}
