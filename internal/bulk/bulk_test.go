package bulk_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/bulk"
	"github.com/lethe-dev/lethe/internal/kube"
	"github.com/lethe-dev/lethe/internal/resources"
)

func long(c string) string { return strings.Repeat(c, 700) }

func makeBot(change func(*v1alpha1.BotDeploymentSpec)) *v1alpha1.BotDeployment {
	bot := &v1alpha1.BotDeployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "bot", UID: "1", Annotations: map[string]string{
			corev1.LastAppliedConfigAnnotation: long("x"), "lethe.dev/x": "kept"},
			Labels: map[string]string{"team": "a", v1alpha1.LabelBot: "bot"}, Finalizers: []string{"example.com/x", v1alpha1.FinalizerKeys},
			ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "m"}}},
		Spec: v1alpha1.BotDeploymentSpec{
			Image: "i", Command: []string{"/bin/sh", long("$c")}, Args: []string{"short $(X)", long("a")},
			Env: []v1alpha1.EnvVar{{Name: "A", Value: "$short"}, {Name: "B", Value: long("b$")}},
			Credentials: []v1alpha1.Credential{
				{Name: "telegram", Sealed: v1alpha1.SealedValue(long("s"))},
				{Name: strings.Repeat("n", 63), Delivery: v1alpha1.DeliveryEnv, EnvName: strings.Repeat("E", 128), Sealed: "s"}},
			Probes: &v1alpha1.Probes{Liveness: &v1alpha1.Probe{Type: v1alpha1.ProbeExec, Command: []string{"/check", long("$p")}}},
			Files: []v1alpha1.BotFile{{Path: "/a", Content: "$${credential:short"}, {Path: "/b", Content: long("$${credential:")},
				{Path: "/c", ConfigMapKeyRef: &v1alpha1.ConfigMapKeyRef{Name: "c", Key: "k"}}},
			Helpers: []v1alpha1.BotHelper{{Name: "h", Image: "h", Command: []string{long("h$")}, Args: []string{long("i")},
				Env: []v1alpha1.EnvVar{{Name: "A", Value: long("j$")}}, Probes: &v1alpha1.Probes{Startup: &v1alpha1.Probe{Type: v1alpha1.ProbeExec, Command: []string{long("k$")}}}}},
			Channels: []v1alpha1.Channel{{Name: "main", Type: v1alpha1.ChannelTelegram,
				Telegram: &v1alpha1.TelegramChannel{Credential: "telegram", APIURL: "https://" + long("u")}}},
		},
	}
	if change != nil {
		change(&bot.Spec)
	}
	return bot
}

func render(bot *v1alpha1.BotDeployment) *appsv1.StatefulSet {
	tenant := &v1alpha1.Tenant{ObjectMeta: metav1.ObjectMeta{Name: "t"}}
	return resources.BotStatefulSet(resources.DefaultSettings(), bot, tenant, "bot-cred-0123456789")
}

func stripped[T client.Object](t *testing.T, object T) T {
	t.Helper()
	small, ok := object.DeepCopyObject().(T)
	if !ok {
		t.Fatal("a copy of another type")
	}
	bulk.Strip(small)
	return small
}

// A template that is made of a stripped bot is a stripped template: what is the same is found to be the same without
// a read.
func TestRenderingCommutes(t *testing.T) {
	for name, change := range map[string]func(*v1alpha1.BotDeploymentSpec){"with credentials": nil,
		// Nothing goes through the files then, so what is escaped in them is written out where they are rendered.
		"without": func(s *v1alpha1.BotDeploymentSpec) { s.Credentials, s.Channels = nil, nil }} {
		sketch, cached := stripped(t, render(stripped(t, makeBot(change)))), stripped(t, render(makeBot(change)))
		if path := kube.Drift(sketch, cached); path != "" {
			t.Errorf("%s: differs in %s", name, path)
		}
		// What was asked for is known by the same digest to the next process, whose own digests of long texts are
		// others.
		if a, b, c := kube.Asked(sketch), kube.Asked(cached), kube.Asked(render(makeBot(change))); a != b || b != c || a == "" {
			t.Errorf("%s: what is asked for is %s, %s and %s", name, a, b, c)
		}
	}
	cached := stripped(t, render(makeBot(nil)))
	if again := stripped(t, stripped(t, cached)); kube.Drift(cached, again) != "" {
		t.Error("stripping twice is not stripping once")
	}
}

// Whatever text changes is seen, and no text can pass for the digest of another.
func TestEveryChangeIsSeen(t *testing.T) {
	digest := bulk.Text(long("a"))
	for name, change := range map[string]func(*v1alpha1.BotDeploymentSpec){
		"a long argument":                       func(s *v1alpha1.BotDeploymentSpec) { s.Args[1] = long("z") },
		"the end of a long argument":            func(s *v1alpha1.BotDeploymentSpec) { s.Args[1] += "z" },
		"a short argument":                      func(s *v1alpha1.BotDeploymentSpec) { s.Args[0] = "z" },
		"a long file":                           func(s *v1alpha1.BotDeploymentSpec) { s.Files[1].Content += "z" },
		"a short file":                          func(s *v1alpha1.BotDeploymentSpec) { s.Files[0].Content += "z" },
		"the path of a file":                    func(s *v1alpha1.BotDeploymentSpec) { s.Files[0].Path += "z" },
		"a long part of a probe's command":      func(s *v1alpha1.BotDeploymentSpec) { s.Probes.Liveness.Command[1] += "z" },
		"a helper's long argument":              func(s *v1alpha1.BotDeploymentSpec) { s.Helpers[0].Args[0] += "z" },
		"a helper's long value":                 func(s *v1alpha1.BotDeploymentSpec) { s.Helpers[0].Env[0].Value += "z" },
		"a helper's probe":                      func(s *v1alpha1.BotDeploymentSpec) { s.Helpers[0].Probes.Startup.Command[0] += "z" },
		"one argument more":                     func(s *v1alpha1.BotDeploymentSpec) { s.Args = append(s.Args, "z") },
		"a long command":                        func(s *v1alpha1.BotDeploymentSpec) { s.Command[1] = long("z") },
		"a long value":                          func(s *v1alpha1.BotDeploymentSpec) { s.Env[1].Value = long("z") },
		"a short value":                         func(s *v1alpha1.BotDeploymentSpec) { s.Env[0].Value = "z" },
		"a long text becomes short":             func(s *v1alpha1.BotDeploymentSpec) { s.Env[1].Value = "b$" },
		"a name":                                func(s *v1alpha1.BotDeploymentSpec) { s.Env[0].Name = "Z" },
		"a digest of another process":           func(s *v1alpha1.BotDeploymentSpec) { s.Args[1] = digest[:20] + other(digest[20]) + digest[21:] },
		"the address of the messenger's server": func(s *v1alpha1.BotDeploymentSpec) { s.Channels[0].Telegram.APIURL += "z" },
	} {
		if kube.Drift(stripped(t, render(stripped(t, makeBot(change)))), stripped(t, render(makeBot(nil)))) == "" {
			t.Errorf("%s was changed, and nothing differs", name)
		}
	}
	if forged := "\x00" + long("q")[:51]; bulk.Text(forged) == forged {
		t.Error("a text with the mark of a digest is taken for one")
	}
	a, b := &corev1.ConfigMap{Data: map[string]string{"k": "1"}}, &corev1.ConfigMap{Data: map[string]string{"k": "2"}}
	if kube.Drift(stripped(t, a), stripped(t, b)) == "" || kube.Drift(stripped(t, a), stripped(t, a)) != "" {
		t.Error("ConfigMaps are compared wrongly")
	}
}

func TestMetadataThatIsKept(t *testing.T) {
	bot := stripped(t, makeBot(nil))
	if !bulk.IsStripped(bot) || bulk.IsStripped(makeBot(nil)) {
		t.Error("what was stripped cannot be told")
	}
	if len(bot.Finalizers) != 2 || bot.Labels["team"] != "" || bot.Labels[v1alpha1.LabelBot] != "bot" || bot.Annotations["lethe.dev/x"] != "kept" ||
		len(bot.Annotations) != 2 || bot.ManagedFields != nil {
		t.Errorf("metadata: %+v", bot.ObjectMeta)
	}
	forger := makeBot(nil)
	forger.Annotations["lethe.dev/stripped"] = "true"
	if bulk.IsStripped(forger) {
		t.Error("an annotation that anybody can set keeps an object from being written")
	}
	store := &v1alpha1.DataStore{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"team": "a"}},
		Spec: v1alpha1.DataStoreSpec{Postgres: &v1alpha1.PostgresStore{Host: "h", Password: "seal.v1"}}}
	small := stripped(t, store)
	if small.Labels["team"] != "a" || small.Spec.Postgres.Password != "" || small.Spec.Postgres.Host != "h" || store.Spec.Postgres.Password == "" {
		t.Errorf("store: %+v", small)
	}
	bundle := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: resources.CABundleName}, Data: map[string]string{resources.CABundleKey: long("p"), resources.AddressesKey: "10.96.0.7"}}
	if stripped(t, bundle).Data[resources.CABundleKey] == "" {
		t.Error("the manager reads the CA bundle out of the cache")
	}
}

// worstBot is as large as the schema lets it be, in each field that the cache keeps something of.
func worstBot() *v1alpha1.BotDeployment {
	bot := makeBot(nil)
	spec := &bot.Spec
	fill := func(n int, add func(i int)) {
		for i := range n {
			add(i)
		}
	}
	spec.Command, spec.Args, spec.Env, spec.Credentials, spec.Channels = nil, nil, nil, nil, nil
	fill(32, func(int) { spec.Command = append(spec.Command, strings.Repeat("c", 300)) })
	fill(64, func(int) { spec.Args = append(spec.Args, strings.Repeat("a", 300)) })
	fill(64, func(i int) {
		spec.Env = append(spec.Env, v1alpha1.EnvVar{Name: fmt.Sprintf("%0128d", i), Value: strings.Repeat("v", 300)})
	})
	fill(8, func(i int) { spec.Scratch = append(spec.Scratch, v1alpha1.BotScratch{Path: fmt.Sprintf("/%0255d", i)}) })
	fill(8, func(i int) {
		spec.Files = append(spec.Files, v1alpha1.BotFile{Path: fmt.Sprintf("/%0255d", i), ConfigMapKeyRef: &v1alpha1.ConfigMapKeyRef{Name: fmt.Sprintf("%0253d", i), Key: fmt.Sprintf("%0253d", i)}})
	})
	probe := func() *v1alpha1.Probe {
		p := &v1alpha1.Probe{Type: v1alpha1.ProbeExec}
		fill(8, func(int) { p.Command = append(p.Command, strings.Repeat("p", 100)) })
		return p
	}
	spec.Probes = &v1alpha1.Probes{Startup: probe(), Liveness: probe(), Readiness: probe()}
	// Admission lets 192 variables and arguments be, 160 of which the bot has here.
	fill(2, func(i int) {
		h := v1alpha1.BotHelper{Name: fmt.Sprintf("h%039d", i), Image: strings.Repeat("i", 512), Probes: &v1alpha1.Probes{Startup: probe(), Liveness: probe(), Readiness: probe()}}
		fill(16, func(j int) {
			h.Env = append(h.Env, v1alpha1.EnvVar{Name: fmt.Sprintf("%0128d", j), Value: strings.Repeat("v", 300)})
		})
		fill(8, func(j int) { h.Credentials = append(h.Credentials, fmt.Sprintf("%063d", j)) })
		spec.Helpers = append(spec.Helpers, h)
	})
	fill(16, func(i int) {
		spec.Credentials = append(spec.Credentials, v1alpha1.Credential{Name: fmt.Sprintf("%063d", i), EnvName: fmt.Sprintf("E%0127d", i),
			Delivery: v1alpha1.DeliveryEnv, SecretKeyRef: &v1alpha1.SecretKeyRef{Name: fmt.Sprintf("%0253d", i), Key: fmt.Sprintf("%0253d", i)}})
	})
	fill(8, func(i int) {
		spec.Channels = append(spec.Channels, v1alpha1.Channel{Name: fmt.Sprintf("%063d", i), Type: v1alpha1.ChannelTelegram,
			Telegram: &v1alpha1.TelegramChannel{Credential: fmt.Sprintf("%063d", i), APIURL: fmt.Sprintf("https://%0245d", i)}})
	})
	fill(16, func(int) {
		rule := v1alpha1.EgressRule{CIDR: "1.1.1.0/24"}
		fill(16, func(i int) { rule.Ports = append(rule.Ports, v1alpha1.EgressPort{Protocol: "TCP", Port: int32(i + 1)}) })
		spec.Egress = append(spec.Egress, rule)
	})
	fill(8, func(i int) {
		bot.Status.Conditions = append(bot.Status.Conditions, metav1.Condition{Type: fmt.Sprint("Kind", i), Message: long("m")})
	})
	bot.Annotations = map[string]string{corev1.LastAppliedConfigAnnotation: strings.Repeat("x", 60<<10)}
	fill(200, func(i int) { bot.Annotations[fmt.Sprint("lethe.dev/", i)] = "x" })
	fill(60, func(i int) { bot.Labels[fmt.Sprint("example.com/", i)] = "x" })
	fill(16, func(i int) {
		bot.ManagedFields = append(bot.ManagedFields, metav1.ManagedFieldsEntry{Manager: fmt.Sprint(i),
			FieldsV1: metav1.NewFieldsV1(`{"f:spec":{"f:x":"` + long("y") + `"}}`)})
	})
	return bot
}

// The heap that one cached object takes, in bytes, at its worst. With the quotas on counts these are what a tenant
// can take of the manager's memory: docs/design/0007-fairness.md.
func TestHeapPerCachedObject(t *testing.T) {
	bot := worstBot()
	configMap := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "plan"}, Data: map[string]string{"plan.json": strings.Repeat("p", 900<<10)}}
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "a", Annotations: map[string]string{"x": strings.Repeat("x", 200<<10)}}}
	for range 2000 {
		account.ImagePullSecrets = append(account.ImagePullSecrets, corev1.LocalObjectReference{Name: long("r")[:250]})
	}
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "n", Annotations: map[string]string{"x": strings.Repeat("x", 250<<10)}}}
	binding := &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "b"}}
	for range 5000 {
		binding.Subjects = append(binding.Subjects, rbacv1.Subject{Kind: "Group", Name: long("g")[:100]})
	}
	tenant := worstTenant()
	for _, c := range []struct {
		name   string
		object client.Object
		most   int
	}{
		{"BotDeployment", bot, 88 << 10},
		{"StatefulSet of a bot", render(bot), 112 << 10},
		{"NetworkPolicy of a bot", resources.BotNetworkPolicy(resources.DefaultSettings(), bot, &v1alpha1.Tenant{}), 48 << 10},
		{"NetworkPolicy of a Tenant", resources.TenantNetworkPolicies(resources.DefaultSettings(), tenant, "n")[2], 72 << 10},
		{"ConfigMap", configMap, 4 << 10},
		{"ServiceAccount", account, 4 << 10},
		{"Namespace", namespace, 4 << 10},
		{"RoleBinding", binding, 24 << 10},
	} {
		small := stripped(t, c.object)
		if _, bulky := small.GetAnnotations()["lethe.dev/bulk"]; bulky {
			t.Errorf("of a %s only metadata is kept, though Lethe renders it", c.name)
		}
		measure(t, c.name, c.object, 64, c.most)
	}
	// What others make, and label as ours, takes no more than the heaviest of ours, whatever it is made of.
	for name, object := range foreign() {
		measure(t, name, object, 8, 112<<10)
	}
}

// worstTenant opens as much as it may.
func worstTenant() *v1alpha1.Tenant {
	tenant := &v1alpha1.Tenant{ObjectMeta: metav1.ObjectMeta{Name: "t"}}
	for range 32 {
		rule := v1alpha1.EgressRule{CIDR: "::/0"}
		for i := range 16 {
			rule.Ports = append(rule.Ports, v1alpha1.EgressPort{Protocol: "TCP", Port: int32(i + 1)})
		}
		tenant.Spec.Egress = append(tenant.Spec.Egress, rule)
	}
	return tenant
}

// foreign are objects of others, as large as the API server takes them, with our label: many small parts cost the
// most memory.
func foreign() map[string]client.Object {
	meta := func() metav1.ObjectMeta {
		return metav1.ObjectMeta{Name: "x", Namespace: "plain", UID: "1", ResourceVersion: "7", Labels: map[string]string{v1alpha1.LabelManagedBy: v1alpha1.ManagedByLethe}}
	}
	set, policy, claim := &appsv1.StatefulSet{ObjectMeta: meta()}, &networkingv1.NetworkPolicy{ObjectMeta: meta()}, &corev1.PersistentVolumeClaim{ObjectMeta: meta()}
	container := corev1.Container{Name: "c", Image: "i"}
	cron, limits, quota := &batchv1.CronJob{ObjectMeta: meta()}, &corev1.LimitRange{ObjectMeta: meta()}, &corev1.ResourceQuota{ObjectMeta: meta()}
	rule := networkingv1.NetworkPolicyEgressRule{}
	claim.Spec.Selector, quota.Spec.Hard = &metav1.LabelSelector{}, corev1.ResourceList{}
	for i := range 30000 {
		container.Env = append(container.Env, corev1.EnvVar{Name: fmt.Sprintf("E%d", i)})
		rule.To = append(rule.To, networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{CIDR: fmt.Sprintf("1.%d.%d.0/24", i/256, i%256)}})
		claim.Spec.Selector.MatchExpressions = append(claim.Spec.Selector.MatchExpressions, metav1.LabelSelectorRequirement{Key: "k", Operator: "Exists"})
		limits.Spec.Limits = append(limits.Spec.Limits, corev1.LimitRangeItem{Type: "Pod", Max: corev1.ResourceList{"cpu": resource.MustParse("1")}})
		quota.Spec.Hard[corev1.ResourceName(fmt.Sprintf("count/x%d.x", i))] = resource.MustParse("1")
	}
	set.Spec.Template.Spec.Containers = []corev1.Container{container}
	cron.Spec.JobTemplate.Spec.Template.Spec.Containers = []corev1.Container{container}
	policy.Spec.Egress = []networkingv1.NetworkPolicyEgressRule{rule}
	owned, marked := &corev1.ConfigMap{ObjectMeta: meta()}, &corev1.ConfigMap{ObjectMeta: meta()}
	for i := range 10000 {
		owned.OwnerReferences = append(owned.OwnerReferences, metav1.OwnerReference{APIVersion: "v1", Kind: "ConfigMap", Name: fmt.Sprint("o", i), UID: "1"})
		owned.Finalizers = append(owned.Finalizers, fmt.Sprint("example.com/", i))
		marked.Labels[fmt.Sprint("app.kubernetes.io/", i)] = "x"
	}
	owned.OwnerReferences = append(owned.OwnerReferences, metav1.OwnerReference{APIVersion: "lethe.dev/v1alpha1", Kind: "Tenant", UID: "2", Controller: new(true)})
	owned.Finalizers = append(owned.Finalizers, v1alpha1.FinalizerKeys)
	return map[string]client.Object{"StatefulSet of others": set, "CronJob of others": cron, "NetworkPolicy of others": policy, "claim of others": claim,
		"LimitRange of others": limits, "ResourceQuota of others": quota, "ConfigMap with owners": owned, "ConfigMap with labels": marked}
}

// What is kept of an object of others is what says whose it is, and it never passes for what is wanted.
func TestOfHeavyObjectsMetadataIsKept(t *testing.T) {
	for name, object := range foreign() {
		small := stripped(t, object)
		if small.GetUID() != "1" || small.GetLabels()[v1alpha1.LabelManagedBy] != v1alpha1.ManagedByLethe || !bulk.IsStripped(small) {
			t.Errorf("%s: %+v", name, small)
		}
		if again := stripped(t, small); kube.Drift(small, again) != "" {
			t.Errorf("%s: stripping twice is not stripping once", name)
		}
	}
	owned := stripped(t, foreign()["ConfigMap with owners"])
	if owner := metav1.GetControllerOf(owned); owner == nil || owner.UID != "2" || !slices.Contains(owned.GetFinalizers(), v1alpha1.FinalizerKeys) {
		t.Errorf("owners %v, finalizers %v", owned.GetOwnerReferences(), owned.GetFinalizers())
	}
	wanted := foreign()["StatefulSet of others"]
	wanted.SetResourceVersion("")
	if kube.Drift(stripped(t, wanted), stripped(t, foreign()["StatefulSet of others"])) == "" {
		t.Error("what is too large to be kept passes for what is wanted")
	}
}

// measure is what one cached object takes.
func measure(t *testing.T, name string, object client.Object, copies, most int) {
	t.Helper()
	encoded, err := json.Marshal(object)
	if err != nil {
		t.Fatal(err)
	}
	kept := make([]client.Object, copies)
	before := heap()
	for i := range kept {
		kept[i] = reflect.New(reflect.TypeOf(object).Elem()).Interface().(client.Object)
		if err := json.Unmarshal(encoded, kept[i]); err != nil {
			t.Fatal(err)
		}
		bulk.Strip(kept[i])
	}
	each := int(heap()-before) / copies
	runtime.KeepAlive(kept)
	runtime.KeepAlive(encoded)
	t.Logf("%-26s %7d bytes as JSON, %6d in the cache", name, len(encoded), each)
	if each > most {
		t.Errorf("a cached %s takes %d bytes, want at most %d", name, each, most)
	}
}

func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC() // what pools hold goes with the second
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// other is a character of a digest that is not this one.
func other(c byte) string {
	if c == 'x' {
		return "y"
	}
	return "x"
}
