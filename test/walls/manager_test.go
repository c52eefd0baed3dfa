package walls

import (
	"context"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	lethev1 "github.com/lethe-dev/lethe/api/v1alpha1"
)

// TestManagerChangesNoSpec: a manager gone bad must not have credentials handed to an image of its choice, approve a
// deletion, or let a group in.
func TestManagerChangesNoSpec(t *testing.T) {
	manager, eve := as(managerUser, groupMost), as("eve", groupMost)
	keyserver := as(keyserverUser, "system:serviceaccounts", "system:serviceaccounts:lethe-system")
	bot := &lethev1.BotDeployment{ObjectMeta: metav1.ObjectMeta{Namespace: tenantNS, Name: "support", Finalizers: []string{"example.com/other"}},
		Spec: lethev1.BotDeploymentSpec{Image: "bot:1"}}
	owner, fresh := makeTenant("specs"), makeTenant("specs-fresh")
	for _, o := range []client.Object{bot.DeepCopy(), owner, fresh} {
		mustCreate(t, o)
	}
	ours := lethev1.SealingKey{KID: "0123456789abcdef", Suite: "s", Public: "ours", Realm: "r", State: lethev1.SealingKeyActive}
	owner.Status.SealingKeys, owner.Status.KEKGrade = []lethev1.SealingKey{ours}, "Evaluation"
	owner.Status.UIDRange = &lethev1.UIDRange{First: 1_000_005_000, Size: 1000}
	if err := admin.Status().Update(t.Context(), owner); err != nil {
		t.Fatal(err)
	}
	mine := `{"kid":"fedcba9876543210","suite":"s","public":"mine","realm":"r","state":"Active"}`
	known := `{"kid":"0123456789abcdef","suite":"s","public":"ours","realm":"r","state":"Active"}`
	climb(t, "lethe-manager-specs", []attempt{
		{name: "its finalizer", as: manager, try: patchOf(bot, `{"metadata":{"finalizers":["example.com/other","lethe.dev/keys"]}}`)},
		{name: "a status", as: manager, try: patchStatusOf(bot, `{"status":{"observedGeneration":1}}`)},
		{name: "a Tenant's status with the keys as they are", as: manager, try: patchStatusOf(owner, `{"status":{"observedGeneration":1,"kekGrade":"Evaluation","sealingKeys":[`+known+`]}}`)},
		{name: "the status of a Tenant that has no keys yet", as: manager, try: patchStatusOf(fresh, `{"status":{"observedGeneration":1}}`)},
		{name: "the first keys of a Tenant, by the keyserver", as: keyserver, try: patchStatusOf(fresh, `{"status":{"kekGrade":"Production","sealingKeys":[`+mine+`]}}`)},
		{name: "an image, by somebody else", as: eve, try: patchOf(bot, `{"spec":{"image":"evil:1"}}`)},

		{name: "an image", as: manager, denied: true, try: patchOf(bot, `{"spec":{"image":"evil:1"}}`)},
		{name: "a command", as: manager, denied: true, try: patchOf(bot, `{"spec":{"command":["/bin/sh"]}}`)},
		{name: "somebody else's finalizer", as: manager, denied: true, try: patchOf(bot, `{"metadata":{"finalizers":["lethe.dev/keys"]}}`)},
		{name: "a label", as: manager, denied: true, try: patchOf(bot, `{"metadata":{"labels":{"a":"b"}}}`)},
		{name: "an annotation", as: manager, denied: true, try: patchOf(bot, `{"metadata":{"annotations":{"a":"b"}}}`)},
		{name: "a Tenant's groups", as: manager, denied: true, try: patchOf(owner, `{"spec":{"access":[{"group":"eves","role":"Operate"}]}}`)},
		{name: "a Tenant's egress", as: manager, denied: true, try: patchOf(owner, `{"spec":{"egress":[{"cidr":"10.0.0.0/8","ports":[{"port":443}]}]}}`)},
		{name: "a bot of its own", as: manager, denied: true, try: create(&lethev1.BotDeployment{
			ObjectMeta: metav1.ObjectMeta{Namespace: tenantNS, Name: "own"}, Spec: lethev1.BotDeploymentSpec{Image: "evil:1"}})},
		{name: "a bot deleted", as: manager, denied: true, try: remove(bot)},
		{name: "a Tenant of its own", as: manager, denied: true, try: create(withNewKeys(makeTenant("specs-own")))},
		{name: "the first keys of a Tenant", as: manager, denied: true, try: patchStatusOf(fresh, `{"status":{"sealingKeys":[`+mine+`]}}`)},
		{name: "a better grade than there is", as: manager, denied: true, try: patchStatusOf(owner, `{"status":{"kekGrade":"Production"}}`)},
		{name: "the first grade", as: manager, denied: true, try: patchStatusOf(fresh, `{"status":{"kekGrade":"Production"}}`)},
		{name: "the first range of user ids", as: manager, denied: true, try: patchStatusOf(fresh, `{"status":{"uidRange":{"first":1000000000,"size":1000}}}`)},
		{name: "another range of user ids", as: manager, denied: true, try: patchStatusOf(owner, `{"status":{"uidRange":{"first":1000000000,"size":1000}}}`)},
		{name: "no range of user ids", as: manager, denied: true, try: patchStatusOf(owner, `{"status":{"uidRange":null}}`)},
		{name: "the first range of user ids, by the keyserver", as: keyserver, try: patchStatusOf(fresh, `{"status":{"uidRange":{"first":1000000000,"size":1000}}}`)},
		{name: "a generation of the keys that lets an earlier copy pass", as: manager, denied: true, try: patchStatusOf(owner, `{"status":{"keysGeneration":9}}`)},
		{name: "no grade", as: manager, denied: true, try: patchStatusOf(owner, `{"status":{"kekGrade":null}}`)},
		{name: "keys of its own for a Tenant that has some", as: manager, denied: true, try: patchStatusOf(owner, `{"status":{"sealingKeys":[`+mine+`]}}`)},
		{name: "keys of its own in front", as: manager, denied: true, try: patchStatusOf(owner, `{"status":{"sealingKeys":[`+mine+`,`+known+`]}}`)},
		{name: "no keys, to begin anew", as: manager, denied: true, try: patchStatusOf(owner, `{"status":{"sealingKeys":null}}`)},
		{name: "no status, to begin anew", as: manager, denied: true, try: patchStatusOf(owner, `{"status":null}`)},
	})
}

// TestManagerKeepsPodSecurity: pods that need not meet the restricted standard own their node.
func TestManagerKeepsPodSecurity(t *testing.T) {
	manager := as(managerUser, groupMost)
	mustCreate(t, namespace("acme-kept", restricted(tenant)))
	kept, claimed := namespace("acme-kept", nil), namespace("acme-claimed", restricted(tenant))
	claimed.Labels["istio-injection"] = "disabled"
	claimed.Annotations = map[string]string{"linkerd.io/inject": "disabled", "policy.example/x": "y"}
	mustCreate(t, claimed)
	scc := namespace("x", restricted(tenant))
	scc.Annotations = map[string]string{"openshift.io/sa.scc.uid-range": "0/1"}
	added := namespace("x", restricted(tenant))
	added.Labels["team"], added.Labels["name"] = "x", "x"
	added.Annotations = map[string]string{"policies.kyverno.io/last-applied-patches": "x", "owner": "x"}
	named := namespace("x", restricted(tenant))
	named.Labels["name"] = "monitoring"
	loose := restricted(tenant)
	loose["pod-security.kubernetes.io/enforce"] = "privileged"
	climb(t, "lethe-manager-namespaces", []attempt{
		{name: "made with the standard", as: manager, try: create(namespace("x", restricted(tenant)))},
		{name: "a label of Lethe's", as: manager, try: patchOf(kept, `{"metadata":{"labels":{"lethe.dev/a":"b","app.kubernetes.io/name":"lethe"}}}`)},
		{name: "beside what others have set", as: manager, try: patchOf(claimed, `{"metadata":{"labels":{"lethe.dev/a":"b"}}}`)},
		{name: "made with what a policy of the cluster adds", as: manager, try: create(added)},
		{name: "what it adds later", as: manager, try: patchOf(kept, `{"metadata":{"labels":{"team":"x"},"annotations":{"owner":"x"}}}`)},
		{name: "loosened by an administrator", as: as("eve", groupMost), try: patchOf(kept, `{"metadata":{"labels":{"pod-security.kubernetes.io/enforce":"baseline"}}}`)},

		{name: "made without", as: manager, denied: true, try: create(namespace("x", map[string]string{lethev1.LabelTenant: tenant}))},
		{name: "made privileged", as: manager, denied: true, try: create(namespace("x", loose))},
		{name: "made privileged later", as: manager, denied: true, try: patchOf(kept, `{"metadata":{"labels":{"pod-security.kubernetes.io/enforce":"privileged"}}}`)},
		{name: "taken away", as: manager, denied: true, try: patchOf(kept, `{"metadata":{"labels":{"pod-security.kubernetes.io/enforce":null}}}`)},
		{name: "a mesh's label", as: manager, denied: true, try: patchOf(kept, `{"metadata":{"labels":{"istio-injection":"enabled"}}}`)},
		{name: "a mesh's label, changed", as: manager, denied: true, try: patchOf(claimed, `{"metadata":{"labels":{"istio-injection":"enabled"}}}`)},
		{name: "a mesh's label, taken away", as: manager, denied: true, try: patchOf(claimed, `{"metadata":{"labels":{"istio-injection":null}}}`)},
		{name: "a mesh's annotation, taken away", as: manager, denied: true, try: patchOf(claimed, `{"metadata":{"annotations":{"linkerd.io/inject":null}}}`)},
		{name: "another namespace's name", as: manager, denied: true, try: create(named)},
		{name: "another value for what others have set", as: manager, denied: true, try: patchOf(claimed, `{"metadata":{"annotations":{"policy.example/x":"z"}}}`)},
		{name: "a policy engine's exception", as: manager, denied: true, try: patchOf(kept, `{"metadata":{"labels":{"admission.gatekeeper.sh/ignore":"yes"}}}`)},
		{name: "a platform's annotation", as: manager, denied: true, try: patchOf(kept, `{"metadata":{"annotations":{"scheduler.alpha.kubernetes.io/node-selector":"a=b"}}}`)},
		{name: "made with uids of its choice", as: manager, denied: true, try: create(scc)},
		{name: "an old version of it", as: manager, denied: true, try: patchOf(kept, `{"metadata":{"labels":{"pod-security.kubernetes.io/enforce-version":"v1.22"}}}`)},
	})
}

// TestPodsOfTenantsMountNoSecrets: the manager makes StatefulSets, and must not read Secrets by way of their pods.
func TestPodsOfTenantsMountNoSecrets(t *testing.T) {
	controller := as("system:serviceaccount:kube-system:statefulset-controller", groupMost)
	pod := func(ns string, change func(*corev1.PodSpec)) func(context.Context, identity) error {
		p := runnable("p", ns)
		change(&p.Spec)
		return create(p)
	}
	name := corev1.LocalObjectReference{Name: "s"}
	volume := func(v corev1.VolumeSource) func(*corev1.PodSpec) {
		return func(s *corev1.PodSpec) { s.Volumes = []corev1.Volume{{Name: "v", VolumeSource: v}} }
	}
	mounted := volume(corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "s"}})
	token := corev1.VolumeProjection{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Audience: lethev1.AudienceKeyserver, Path: "token"}}
	variable := []corev1.EnvVar{{Name: "A", Value: "a"}, {Name: "B", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: name, Key: "k"}}}}
	climb(t, "lethe-pod-secrets", []attempt{
		{name: "none", as: controller, try: pod(tenantNS, func(*corev1.PodSpec) {})},
		{name: "what Lethe's pods mount", as: controller, try: pod(tenantNS, func(s *corev1.PodSpec) {
			s.Containers[0].Env = []corev1.EnvVar{{Name: "A", Value: "a"}}
			s.Volumes = []corev1.Volume{
				{Name: "a", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: name}}},
				{Name: "b", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory}}},
				{Name: "c", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{token}}}},
			}
		})},
		{name: "a volume elsewhere", as: controller, try: pod(otherNS, mounted)},

		{name: "a volume", as: controller, denied: true, try: pod(tenantNS, mounted)},
		{name: "a projected volume", as: controller, denied: true, try: pod(tenantNS, volume(corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
			Sources: []corev1.VolumeProjection{token, {Secret: &corev1.SecretProjection{LocalObjectReference: name}}}}}))},
		{name: "a driver's volume", as: controller, denied: true, try: pod(tenantNS, volume(corev1.VolumeSource{CSI: &corev1.CSIVolumeSource{
			Driver: "secrets.example", NodePublishSecretRef: &name}}))},
		{name: "a variable", as: controller, denied: true, try: pod(tenantNS, func(s *corev1.PodSpec) { s.Containers[0].Env = variable })},
		{name: "a variable of an init container", as: controller, denied: true, try: pod(tenantNS, func(s *corev1.PodSpec) {
			s.InitContainers = []corev1.Container{{Name: "i", Image: "i:1", Env: variable}}
		})},
		{name: "all variables", as: controller, denied: true, try: pod(tenantNS, func(s *corev1.PodSpec) {
			s.Containers[0].EnvFrom = []corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: name}}}
		})},
	})
}

// TestOnlyTheManagerWritesTheKeyserversCertificates: pods would show their tokens to whoever has put his own there.
func TestOnlyTheManagerWritesTheKeyserversCertificates(t *testing.T) {
	manager, eve := as(managerUser, groupMost), as("eve", groupMost)
	bundle := func(ns, name string) *corev1.ConfigMap {
		return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}, Data: map[string]string{"ca.crt": "x"}}
	}
	const name, keyName, change = "lethe-keyserver-ca", "lethe-sealing-key", `{"data":{"ca.crt":"mine"}}`
	mustCreate(t, namespace("acme-bundle", map[string]string{lethev1.LabelTenant: tenant}))
	if err := manager.Create(t.Context(), bundle("acme-bundle", name)); err != nil {
		t.Fatal(err)
	}
	climb(t, "lethe-ca-bundle", []attempt{
		{name: "made by the manager", as: manager, try: create(bundle(tenantNS, name))},
		{name: "changed by the manager", as: manager, try: patchOf(bundle("acme-bundle", name), change)},
		{name: "another ConfigMap", as: eve, try: create(bundle(tenantNS, "other"))},
		{name: "elsewhere", as: eve, try: create(bundle(otherNS, name))},

		{name: "made by somebody", as: eve, denied: true, try: create(bundle(tenantNS, name))},
		{name: "changed by somebody", as: eve, denied: true, try: patchOf(bundle("acme-bundle", name), change)},
		{name: "taken away by somebody", as: eve, denied: true, try: remove(bundle("acme-bundle", name))},
		{name: "taken away with all others", as: eve, denied: true, try: removeAll(&corev1.ConfigMap{}, "acme-bundle")},
		{name: "taken away by the manager", as: manager, try: remove(bundle("acme-bundle", name))},
		{name: "taken away with its namespace", as: as("system:serviceaccount:kube-system:namespace-controller", groupMost), try: removeAll(&corev1.ConfigMap{}, "acme-bundle")},
		{name: "the key to seal to, by the manager", as: manager, try: create(bundle(tenantNS, keyName))},
		{name: "the key to seal to, by somebody", as: eve, denied: true, try: create(bundle(tenantNS, keyName))},
		{name: "changed by the keyserver", as: as(keyserverUser, groupMost), denied: true, try: patchOf(bundle("acme-bundle", name), change)},
	})
}

// restricted are the labels of a tenant's namespace as the manager makes it.
func restricted(tenant string) map[string]string {
	return map[string]string{
		lethev1.LabelTenant:                          tenant,
		"pod-security.kubernetes.io/enforce":         "restricted",
		"pod-security.kubernetes.io/enforce-version": "latest",
	}
}

// withNewKeys asks for new keys, so that no verb on the Tenant is needed to make it.
func withNewKeys(tenant *lethev1.Tenant) *lethev1.Tenant {
	tenant.Annotations = map[string]string{lethev1.AnnotationKeys: lethev1.KeysNew}
	return tenant
}
