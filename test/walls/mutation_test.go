package walls

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	lethev1 "github.com/lethe-dev/lethe/api/v1alpha1"
)

// warned makes errors of warnings.
type warned struct {
	mutex sync.Mutex
	texts []string
}

// HandleWarningHeader keeps a warning.
func (w *warned) HandleWarningHeader(_ int, _, text string) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	w.texts = append(w.texts, text)
}

func (w *warned) all() error {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	defer func() { w.texts = nil }()
	return errors.New(strings.Join(w.texts, "; "))
}

// openings are, for each admission policy, something that it alone keeps closed.
func openings(t *testing.T) map[string]func(context.Context) error {
	t.Helper()
	editor, most, manager, operator := editorOf(t, tenantNS), as("eve", groupMost), as(managerUser, groupMost), as("ann", groupOperate)
	by := func(who identity, try func(context.Context, identity) error) func(context.Context) error {
		return func(ctx context.Context) error { return try(ctx, who) }
	}
	bot := func(change func(*lethev1.BotDeployment)) *lethev1.BotDeployment {
		b := goingBot(tenantNS, "mutated")
		change(b)
		return b
	}
	pod := func(change func(*corev1.PodSpec)) *corev1.Pod {
		p := runnable("mutated", tenantNS)
		change(&p.Spec)
		return p
	}
	config := func(name string, bytes int) *corev1.ConfigMap {
		return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: tenantNS, Name: name}, Data: map[string]string{"k": strings.Repeat("x", bytes)}}
	}
	there, used, ours := goingBot(tenantNS, "mutation-there"), makeTenant("mutation-used"), statefulSet("mutation", tenantNS)
	volume := claim("mutation", tenantNS, recordOf("acme-uid", "77"))
	ours.Labels = map[string]string{lethev1.LabelManagedBy: lethev1.ManagedByLethe}
	plan, plain := config("mutation-plan", 1), namespace("mutation-plain", nil)
	plan.Labels = ours.Labels
	running := runnable("mutation", tenantNS)
	running.Spec.NodeName = "n"
	half := namespace("acme-mutation-half", map[string]string{lethev1.LabelTenant: tenant})
	for _, o := range []client.Object{there, used, volume, plain, half} {
		mustCreate(t, o)
	}
	for _, o := range []client.Object{ours, plan, running} {
		if err := cluster().Create(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	used.Status.Conditions = []metav1.Condition{{Type: lethev1.ConditionInUse, Status: metav1.ConditionTrue, Reason: "Test", LastTransitionTime: metav1.Now()}}
	if err := admin.Status().Update(t.Context(), used); err != nil {
		t.Fatal(err)
	}
	counts := corev1.ResourceList{"count/configmaps": resource.MustParse("4")}
	quota := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Namespace: half.Name, Name: "lethe-objects"}, Spec: corev1.ResourceQuotaSpec{Hard: counts}}
	mustCreate(t, quota)
	quota.Status = corev1.ResourceQuotaStatus{Hard: counts, Used: corev1.ResourceList{"count/configmaps": resource.MustParse("2")}}
	if err := server.AsCluster(t).Status().Update(t.Context(), quota); err != nil {
		t.Fatal(err)
	}
	paused := namespace("acme-mutation-paused", restricted(tenant))
	paused.Annotations = map[string]string{"lethe.dev/changes-paused-until": "2126-01-01T00:00:00Z"}
	if err := as(managerUser, "system:masters").Create(t.Context(), paused); err != nil {
		t.Fatal(err)
	}
	halfMap := config("x", 1)
	halfMap.Namespace = half.Name
	warnings := &warned{}
	hears := server.ConfigFor("eve", groupMost)
	hears.WarningHandler = warnings
	listener, err := client.New(hears, client.Options{Scheme: server.Scheme, Mapper: admin.RESTMapper()})
	if err != nil {
		t.Fatal(err)
	}
	labelledMap := labelled(otherNS, "mutation")["configmaps"]
	annotated := statefulSet("mutation-x", tenantNS)
	annotated.Annotations = map[string]string{"reloader.stakater.com/auto": "true"}
	placed := withNewKeys(makeTenant("mutation-placed"))
	placed.Spec.Placement = &lethev1.TenantPlacement{NodeSelector: map[string]string{"a b": "c"}}
	looksSecret, days := "AKIA"+strings.Repeat("A1", 8), int32(30)
	called, store := withNewKeys(makeTenant("mutation-called")), sampleStore(t)
	called.Spec.ExternalIDs = []lethev1.ExternalID{{Type: "AccountID", Value: looksSecret}}
	store.Spec.Postgres.Database = looksSecret
	warnedOf := func(o client.Object) func(context.Context) error {
		return func(ctx context.Context) error {
			if err := listener.Create(ctx, o.DeepCopyObject().(client.Object), client.DryRunAll); err != nil {
				return err
			}
			return warnings.all()
		}
	}
	token := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: tenantNS, Name: "mutation", Annotations: map[string]string{corev1.ServiceAccountNameKey: "b-bot"}},
		Type: corev1.SecretTypeServiceAccountToken}
	return map[string]func(context.Context) error{
		"lethe-bot-fields": by(most, create(bot(func(b *lethev1.BotDeployment) {
			b.Spec.Credentials = []lethev1.Credential{{Name: "telegram", SecretKeyRef: &lethev1.SecretKeyRef{Name: "s", Key: "k"}}}
			b.Spec.Channels = []lethev1.Channel{{Name: "main", Type: lethev1.ChannelTelegram,
				Telegram: &lethev1.TelegramChannel{Credential: "telegram", APIURL: "https://127.0.0.1"}}}
		}))),
		"lethe-bot-plaintext":       warnedOf(bot(func(b *lethev1.BotDeployment) { b.Spec.Env = []lethev1.EnvVar{{Name: "A", Value: looksSecret}} })),
		"lethe-ca-bundle":           by(editor, create(config("lethe-keyserver-ca", 1))),
		"lethe-changes-paused":      by(most, create(goingBot(paused.Name, "x"))),
		"lethe-changes-paused-mark": by(most, patchOf(plain, `{"metadata":{"annotations":{"lethe.dev/changes-paused-until":"2126-01-01T00:00:00Z"}}}`)),
		"lethe-disruption-budgets":  by(editor, create(&policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Namespace: tenantNS, Name: "mutation"}})),
		"lethe-events":              by(editor, create(&corev1.Event{ObjectMeta: metav1.ObjectMeta{Namespace: tenantNS, Name: "mutation"}, InvolvedObject: corev1.ObjectReference{Namespace: tenantNS, Name: "x"}})),
		"lethe-eviction":            by(editor, evict(tenantNS, "mutation")),
		"lethe-finalizers":          by(operator, create(goingBot(tenantNS, "x", "example.com/hold"))),
		"lethe-managed-by":          by(most, create(labelledMap)),
		"lethe-manager-namespaces":  by(manager, create(namespace("mutation-x", map[string]string{lethev1.LabelTenant: tenant}))),
		"lethe-manager-objects":     by(manager, create(annotated)),
		"lethe-manager-specs":       by(manager, create(bot(func(*lethev1.BotDeployment) {}))),
		"lethe-namespace-label":     by(most, patchOf(plain, `{"metadata":{"labels":{"lethe.dev/tenant":"acme"}}}`)),
		"lethe-network":             by(most, create(service(tenantNS, "mutation"))),
		"lethe-no-orphans":          by(operator, removeWith(there, client.PropagationPolicy(metav1.DeletePropagationOrphan))),
		"lethe-object-counts":       by(most, create(halfMap)),
		"lethe-object-size":         by(most, create(bot(func(b *lethev1.BotDeployment) { b.Labels = numbered(33) }))),
		"lethe-own-objects":         by(editor, remove(plan)),
		"lethe-policy-plaintext": warnedOf(&lethev1.DataRetentionPolicy{ObjectMeta: metav1.ObjectMeta{Name: "mutation"}, Spec: lethev1.DataRetentionPolicySpec{
			StoreSelector: metav1.LabelSelector{MatchLabels: map[string]string{"a": looksSecret}},
			Rules:         []lethev1.RetentionRule{{Name: "r", DataClass: "Conversations", RetainFor: &lethev1.Period{Days: &days}}}}}),
		"lethe-store-plaintext":  warnedOf(store),
		"lethe-tenant-plaintext": warnedOf(called),
		"lethe-pod-access":       by(most, func(ctx context.Context, c identity) error { return connect(ctx, c, tenantNS, "absent", "exec") }),
		"lethe-pod-identity":     by(cluster(), create(pod(func(s *corev1.PodSpec) { s.AutomountServiceAccountToken = nil }))),
		"lethe-pod-secrets": by(cluster(), create(pod(func(s *corev1.PodSpec) {
			s.Volumes = []corev1.Volume{{Name: "s", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "s"}}}}
		}))),
		"lethe-rolebindings":       by(manager, create(binding(otherNS, "mutation", "view", group("x")))),
		"lethe-serviceaccounts":    by(editor, create(&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: tenantNS, Name: "mutation-bot"}})),
		"lethe-tenant-fields":      by(most, create(placed)),
		"lethe-tenant-in-use":      by(admin, remove(used)),
		"lethe-tenant-keys":        by(most, create(makeTenant("mutation-keys"))),
		"lethe-tenant-object-size": by(most, create(config("mutation", 300000))),
		"lethe-token-secrets":      by(editor, create(token)),
		"lethe-tokens": by(most, func(ctx context.Context, c identity) error {
			return requestToken(ctx, c, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: tenantNS, Name: "b-bot"}})
		}),
		"lethe-volumes":           by(editor, patchOf(volume, `{"spec":{"volumeName":"pv-of-globex"}}`)),
		"lethe-workload-deletion": by(editor, remove(ours)),
		"lethe-workloads":         by(most, create(statefulSet("mutation-made", tenantNS))),
	}
}

// TestEachPolicyHoldsSomething: each admission policy of config/admission is unbound, and what it alone keeps closed
// is open then. One that no test would miss, or that stands behind another, is seen here.
func TestEachPolicyHoldsSomething(t *testing.T) {
	if prepared != nil {
		t.Fatal(prepared)
	}
	tries := openings(t)
	names := regexp.MustCompile(`(?m)^kind: ValidatingAdmissionPolicy\nmetadata:\n  name: (\S+)`)
	files, err := filepath.Glob(filepath.Join(server.Root, "config/admission/*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, match := range names.FindAllStringSubmatch(string(content), -1) {
			found++
			name := match[1]
			try, ok := tries[name]
			if !ok {
				t.Errorf("nothing is known that %s keeps closed: add it to openings", name)
				continue
			}
			t.Run(name, func(t *testing.T) { unbind(t, name, try) })
		}
	}
	if found != len(tries) {
		t.Errorf("%d policies in config/admission, and openings for %d", found, len(tries))
	}
}

// unbind takes a policy's binding away and puts it back.
func unbind(t *testing.T, policy string, try func(context.Context) error) {
	says := func(ctx context.Context) bool {
		err := try(ctx)
		return err != nil && strings.Contains(err.Error(), "'"+policy+"'")
	}
	if !says(t.Context()) {
		t.Fatalf("it refuses nothing here: %v", try(t.Context()))
	}
	binding := &admissionv1.ValidatingAdmissionPolicyBinding{}
	if err := admin.Get(t.Context(), client.ObjectKey{Name: policy}, binding); err != nil {
		t.Fatal(err)
	}
	if err := admin.Delete(t.Context(), binding); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		again := &admissionv1.ValidatingAdmissionPolicyBinding{ObjectMeta: metav1.ObjectMeta{Name: policy, Labels: binding.Labels}, Spec: binding.Spec}
		ctx := context.WithoutCancel(t.Context())
		if err := admin.Create(ctx, again); err != nil {
			t.Fatal(err)
		}
		err := wait.PollUntilContextTimeout(ctx, 50*time.Millisecond, 30*time.Second, true, func(ctx context.Context) (bool, error) { return says(ctx), nil })
		if err != nil {
			t.Fatalf("the wall is not there again: %v", err)
		}
	})
	waitFor(t, "something opens", func(ctx context.Context) bool { return !says(ctx) })
	if last := try(t.Context()); last != nil && strings.Contains(last.Error(), "ValidatingAdmissionPolicy") {
		t.Errorf("another policy refuses it too, so this one may hold nothing: %v", last)
	}
}
