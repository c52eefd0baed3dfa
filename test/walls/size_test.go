package walls

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	lethev1 "github.com/lethe-dev/lethe/api/v1alpha1"
)

const (
	specBytes       = 98304
	sealedBytes     = 131072
	annotationBytes = 65536
	// A stored byte of text is at most six of JSON.
	largestBot = 1280 << 10
)

// filled is metadata as large as it may be, in characters that JSON writes with one byte or, at worst, with six.
func filled(ns, name, character string) metav1.ObjectMeta {
	m := metav1.ObjectMeta{Namespace: ns, Name: name, Labels: map[string]string{}, Annotations: map[string]string{"a": strings.Repeat(character, annotationBytes-1)}}
	for i := range 32 {
		m.Labels[fmt.Sprintf("%s.example/%063d", strings.Repeat("l", 63), i)] = strings.Repeat("v", 63)
	}
	for i := range 8 {
		m.Finalizers = append(m.Finalizers, fmt.Sprintf("example.com/%060d", i))
		m.OwnerReferences = append(m.OwnerReferences, metav1.OwnerReference{APIVersion: "v1", Kind: "ConfigMap", Name: strings.Repeat("o", 150), UID: types.UID(fmt.Sprint(i))})
	}
	return m
}

// largestBotOf is a bot as large as it may be.
func largestBotOf(ns, name, character string) *lethev1.BotDeployment {
	b := &lethev1.BotDeployment{ObjectMeta: filled(ns, name, character), Spec: lethev1.BotDeploymentSpec{Image: "registry.example/bot:v1"}}
	left := specBytes
	for i := range 64 {
		b.Spec.Env = append(b.Spec.Env, lethev1.EnvVar{Name: fmt.Sprintf("E%0127d", i), Value: "x"})
		left -= 129
	}
	for left > 0 {
		n := min(left, 1024)
		if len(b.Spec.Args) == 64 {
			break
		}
		b.Spec.Args = append(b.Spec.Args, strings.Repeat(character, n))
		left -= n
	}
	if left > 0 {
		b.Spec.Files = []lethev1.BotFile{{Path: "/config", Content: strings.Repeat(character, left)}}
	}
	for i := range 2 {
		b.Spec.Credentials = append(b.Spec.Credentials, lethev1.Credential{Name: fmt.Sprint("c", i),
			Sealed: lethev1.SealedValue("seal.v1.a.b.c.d." + strings.Repeat("x", sealedBytes/2-16))})
	}
	return b
}

// TestLargestObject: the largest bot that is accepted, and that one byte more of anything is not.
func TestLargestObject(t *testing.T) {
	if prepared != nil {
		t.Fatal(prepared)
	}
	most := as("someone", groupMost, groupAdoptAll)
	for name, character := range map[string]string{"plain": "x", "each byte six in JSON": "<"} {
		bot := largestBotOf(tenantNS, "largest", character)
		if err := most.Create(t.Context(), bot); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		// Every manager of fields that is let in owns everything.
		for i := range 20 {
			again := largestBotOf(tenantNS, "largest", character)
			again.TypeMeta = metav1.TypeMeta{APIVersion: lethev1.GroupVersion.String(), Kind: "BotDeployment"}
			//nolint:staticcheck // the object is applied as it is
			err := most.Patch(t.Context(), again, client.Apply, client.ForceOwnership, client.FieldOwner(fmt.Sprintf("%0127d", i)))
			if err != nil && !strings.Contains(err.Error(), "more than 10 field managers") {
				t.Fatalf("%s, manager %d: %v", name, i, err)
			}
			if err != nil && i < 6 {
				t.Fatalf("%s: only %d managers were let in", name, i)
			}
		}
		if err := admin.Get(t.Context(), client.ObjectKeyFromObject(bot), bot); err != nil {
			t.Fatal(err)
		}
		if n := len(bot.ManagedFields); n > 10 {
			t.Errorf("%s: %d managers of fields", name, n)
		}
		stored, err := json.Marshal(bot)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("largest BotDeployment, %s: %d bytes", name, len(stored))
		if len(stored) > largestBot {
			t.Errorf("%s: %d bytes, want at most %d", name, len(stored), largestBot)
		}
		patch := client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`))
		if err := client.IgnoreNotFound(admin.Patch(t.Context(), bot, patch)); err != nil {
			t.Fatal(err)
		}
		if err := client.IgnoreNotFound(admin.Delete(t.Context(), bot)); err != nil {
			t.Fatal(err)
		}
	}
}

// TestObjectsThatAreTooLarge: each bound, one step past it, on each kind that has it; beside it the same object within.
func TestObjectsThatAreTooLarge(t *testing.T) {
	if prepared != nil {
		t.Fatal(prepared)
	}
	most := as("someone", groupMost, groupAdoptAll)
	days := int32(30)
	policy := func() client.Object {
		return &lethev1.DataRetentionPolicy{ObjectMeta: metav1.ObjectMeta{Name: "sized"}, Spec: lethev1.DataRetentionPolicySpec{
			StoreSelector: metav1.LabelSelector{MatchLabels: map[string]string{"a": "b"}},
			Rules:         []lethev1.RetentionRule{{Name: "r", DataClass: "Conversations", RetainFor: &lethev1.Period{Days: &days}}}}}
	}
	kinds := map[string]func() client.Object{
		"BotDeployment": func() client.Object {
			return &lethev1.BotDeployment{ObjectMeta: metav1.ObjectMeta{Namespace: tenantNS, Name: "sized"}, Spec: lethev1.BotDeploymentSpec{Image: "i"}}
		},
		"DataStore": func() client.Object {
			return sampleStore(t)
		},
		"Tenant": func() client.Object {
			return &lethev1.Tenant{ObjectMeta: metav1.ObjectMeta{Name: "sized"}, Spec: lethev1.TenantSpec{Namespaces: []lethev1.TenantNamespace{{Name: "sized"}}}}
		},
		"DataRetentionPolicy": policy,
		"ConfigMap": func() client.Object {
			return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: tenantNS, Name: "sized"}}
		},
		"Secret": func() client.Object {
			return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: tenantNS, Name: "sized"}}
		},
	}
	bounds := map[string]struct {
		over   func(client.Object)
		says   string
		kinds  []string
		within func(client.Object)
	}{
		"labels": {over: func(o client.Object) { o.SetLabels(numbered(33)) }, within: func(o client.Object) { o.SetLabels(numbered(32)) }, says: "32 labels"},
		"annotations": {over: func(o client.Object) { o.SetAnnotations(map[string]string{"a": strings.Repeat("x", 262144)}) },
			within: func(o client.Object) { o.SetAnnotations(map[string]string{"a": strings.Repeat("x", 60000)}) }, says: "annotations"},
		"annotations in bytes, not in characters": {over: func(o client.Object) { o.SetAnnotations(map[string]string{"a": strings.Repeat("ü", 140000)}) },
			within: func(o client.Object) { o.SetAnnotations(map[string]string{"a": strings.Repeat("ü", 30000)}) }, says: ""},
		"finalizers": {over: func(o client.Object) { o.SetFinalizers(finalizers(9)) }, within: func(o client.Object) { o.SetFinalizers(nil) }, says: "8 finalizers"},
		"owners":     {over: func(o client.Object) { o.SetOwnerReferences(owners(9)) }, within: func(o client.Object) { o.SetOwnerReferences(owners(2)) }, says: "8 ownerReferences"},
		"env": {kinds: []string{"BotDeployment"}, says: "98304 bytes together", over: func(o client.Object) { variables(o, specBytes+1) },
			within: func(o client.Object) { variables(o, specBytes) }},
		"overrides": {kinds: []string{"DataRetentionPolicy"}, says: "1024 tenantOverrides", over: func(o client.Object) { overrides(o, 5) },
			within: func(o client.Object) { overrides(o, 4) }},
		"data": {kinds: []string{"ConfigMap"}, says: "262144 bytes", over: func(o client.Object) { data(o, 262145) }, within: func(o client.Object) { data(o, 262000) }},
	}
	for name, b := range bounds {
		for kind, make := range kinds {
			if b.kinds != nil && b.kinds[0] != kind {
				continue
			}
			over, within := make(), make()
			b.over(over)
			b.within(within)
			for _, o := range []client.Object{over, within} {
				if kind == "Tenant" {
					// Who may not adopt asks for new keys.
					annotations := map[string]string{lethev1.AnnotationKeys: lethev1.KeysNew}
					maps.Copy(annotations, o.GetAnnotations())
					o.SetAnnotations(annotations)
				}
			}
			if err := most.Create(t.Context(), over, client.DryRunAll); err == nil || !strings.Contains(err.Error(), b.says) {
				t.Errorf("%s, too many %s: %v", kind, name, err)
			}
			if err := most.Create(t.Context(), within, client.DryRunAll); err != nil {
				t.Errorf("%s, %s within bounds: %v", kind, name, err)
			}
		}
	}
	// Lethe's own programs write to what is there, whatever its size.
	manager := as(managerUser, "system:serviceaccounts", "system:serviceaccounts:lethe-system")
	large := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: tenantNS, Name: "plan"}}
	data(large, 900<<10)
	if err := manager.Create(t.Context(), large, client.DryRunAll); err != nil && strings.Contains(err.Error(), "262144") {
		t.Errorf("a plan of the manager: %v", err)
	}
}

// sampleStore is the sample of a store, in the tests' namespace.
func sampleStore(t *testing.T) *lethev1.DataStore {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(server.Root, "config/samples/lethe_v1alpha1_datastore_dedicated.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	store := &lethev1.DataStore{}
	if err := yaml.Unmarshal(content, store); err != nil {
		t.Fatal(err)
	}
	store.ObjectMeta = metav1.ObjectMeta{Namespace: tenantNS, Name: "sized"}
	store.Spec.Postgres.Password = "seal.v1.a.b.c.d.e"
	return store
}

func numbered(n int) map[string]string {
	m := map[string]string{}
	for i := range n {
		m[fmt.Sprint("example.com/", i)] = "x"
	}
	return m
}

func finalizers(n int) (list []string) {
	for i := range n {
		list = append(list, fmt.Sprint("example.com/", i))
	}
	return list
}

func owners(n int) (list []metav1.OwnerReference) {
	for i := range n {
		list = append(list, metav1.OwnerReference{APIVersion: "v1", Kind: "ConfigMap", Name: fmt.Sprint("o", i), UID: types.UID(fmt.Sprint(i))})
	}
	return list
}

func variables(o client.Object, total int) {
	b, ok := o.(*lethev1.BotDeployment)
	if !ok {
		return
	}
	for i := 0; total > 0; i++ {
		n := min(total, 4096)
		b.Spec.Env = append(b.Spec.Env, lethev1.EnvVar{Name: fmt.Sprintf("E%07d", i), Value: strings.Repeat("x", max(n-8, 0))})
		total -= n
	}
}

func overrides(o client.Object, rules int) {
	p, ok := o.(*lethev1.DataRetentionPolicy)
	if !ok {
		return
	}
	first := p.Spec.Rules[0]
	p.Spec.Rules = nil
	for r := range rules {
		rule := first
		rule.Name = fmt.Sprint("r", r)
		rule.DataClass = lethev1.DataClass(fmt.Sprint("Class", r))
		days := int32(7)
		for i := range 256 {
			rule.TenantOverrides = append(rule.TenantOverrides, lethev1.TenantOverride{Tenant: fmt.Sprint("t", i), RetainFor: &lethev1.Period{Days: &days}})
		}
		p.Spec.Rules = append(p.Spec.Rules, rule)
	}
}

func data(o client.Object, n int) {
	if m, ok := o.(*corev1.ConfigMap); ok {
		m.Data = map[string]string{"k": strings.Repeat("x", n-1)}
	}
}

// TestOthersFillAtMostHalf: of what Lethe needs too, people with other roles make no more than half of what the quota
// counts, and Lethe and Kubernetes' own controllers go on.
func TestOthersFillAtMostHalf(t *testing.T) {
	if prepared != nil {
		t.Fatal(prepared)
	}
	ns := server.Namespace(t, "half", map[string]string{lethev1.LabelTenant: tenant}).Name
	count := resource.MustParse("10")
	quota := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "lethe-objects"},
		Spec: corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{"count/configmaps": count}}}
	if err := admin.Create(t.Context(), quota); err != nil {
		t.Fatal(err)
	}
	quota.Status = corev1.ResourceQuotaStatus{Hard: quota.Spec.Hard, Used: corev1.ResourceList{"count/configmaps": resource.MustParse("0")}}
	if err := server.AsCluster(t).Status().Update(t.Context(), quota); err != nil {
		t.Fatal(err)
	}
	someone := as("someone", groupMost, groupAdoptAll)
	made := 0
	// The policy reads the quota from a cache, so a few more may slip through than half.
	err := wait.PollUntilContextTimeout(t.Context(), 100*time.Millisecond, 30*time.Second, true, func(ctx context.Context) (bool, error) {
		err := someone.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: fmt.Sprint("c", made)}})
		if err == nil {
			made++
			return made > 10, nil
		}
		if apierrors.IsForbidden(err) && strings.Contains(err.Error(), "as many configmaps as others than Lethe may fill") {
			return true, nil
		}
		return false, nil
	})
	if err != nil || made < 3 || made > 7 {
		t.Errorf("somebody made %d ConfigMaps of 10, %v", made, err)
	}
	for _, user := range []string{managerUser, "system:serviceaccount:kube-system:root-ca-cert-publisher"} {
		own := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: ns, GenerateName: "own-"}}
		if err := as(user, "system:masters").Create(t.Context(), own); err != nil {
			t.Errorf("%s: %v", user, err)
		}
	}
}

// TestFlowControl: what people write to our kinds goes through a priority level of its own, and what Lethe's programs
// do through another, as the API server itself says.
func TestFlowControl(t *testing.T) {
	if prepared != nil {
		t.Fatal(prepared)
	}
	flow := func(name string) string {
		schema := &flowcontrolv1.FlowSchema{}
		if err := admin.Get(t.Context(), client.ObjectKey{Name: name}, schema); err != nil {
			t.Fatal(err)
		}
		return string(schema.UID)
	}
	bots := "/apis/lethe.dev/v1alpha1/namespaces/" + tenantNS + "/botdeployments"
	manager := server.ServiceAccountConfig("lethe-system", "lethe-manager")
	operator := server.ConfigFor("someone", groupOperate)
	for name, c := range map[string]struct {
		config       *rest.Config
		method, path string
		want         string
	}{
		"a tenant's user makes a bot":     {operator, http.MethodPost, bots, flow("lethe-tenants")},
		"a tenant's user deletes bots":    {operator, http.MethodDelete, bots + "?dryRun=All", flow("lethe-tenants")},
		"somebody writes an event":        {operator, http.MethodPost, "/api/v1/namespaces/" + tenantNS + "/events?dryRun=All", flow("lethe-tenants")},
		"somebody writes one the new way": {operator, http.MethodPost, "/apis/events.k8s.io/v1/namespaces/" + tenantNS + "/events?dryRun=All", flow("lethe-tenants")},
		"somebody claims a device":        {operator, http.MethodPost, "/apis/resource.k8s.io/v1/namespaces/" + tenantNS + "/resourceclaims?dryRun=All", flow("lethe-tenants")},
		"a tenant's user reads bots":      {operator, http.MethodGet, bots, ""},
		"the manager reads bots":          {manager, http.MethodGet, bots, flow("lethe")},
		"the manager writes a status":     {manager, http.MethodPatch, bots + "/x/status", flow("lethe")},
		"the keyserver writes its record": {server.ServiceAccountConfig("lethe-system", "lethe-keyserver"), http.MethodPost, "/api/v1/namespaces/lethe-keys/secrets?dryRun=All", flow("lethe")},
	} {
		httpClient, err := rest.HTTPClientFor(c.config)
		if err != nil {
			t.Fatal(err)
		}
		var got string
		err = wait.PollUntilContextTimeout(t.Context(), 100*time.Millisecond, 20*time.Second, true, func(ctx context.Context) (bool, error) {
			request, err := http.NewRequestWithContext(ctx, c.method, c.config.Host+c.path, strings.NewReader("{}"))
			if err != nil {
				return false, err
			}
			request.Header.Set("Content-Type", "application/json")
			answer, err := httpClient.Do(request)
			if err != nil {
				return false, err
			}
			got = answer.Header.Get("X-Kubernetes-PF-FlowSchema-UID")
			return c.want == "" || got == c.want, answer.Body.Close()
		})
		if err != nil || got == "" || (c.want == "" && (got == flow("lethe-tenants") || got == flow("lethe"))) {
			t.Errorf("%s: flow %q, want %q (%v)", name, got, c.want, err)
		}
	}
}
