package e2e

import (
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/test/stage"
)

func parseGroupVersion(s string) (schema.GroupVersion, error) { return schema.ParseGroupVersion(s) }

func forbidden(t *testing.T, what string, err error) {
	t.Helper()
	if !apierrors.IsForbidden(err) {
		t.Errorf("%s: %v, want 403", what, err)
	}
}

// plainPod is a pod that restricted Pod Security lets pass, so that nothing else than the wall refuses it.
func plainPod(namespace string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "climber"},
		Spec: corev1.PodSpec{
			AutomountServiceAccountToken: ptr.To(false),
			SecurityContext:              &corev1.PodSecurityContext{RunAsNonRoot: ptr.To(true), RunAsUser: ptr.To[int64](65532), SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}},
			Containers: []corev1.Container{{
				Name: "c", Image: "lethe:build", ImagePullPolicy: corev1.PullNever,
				SecurityContext: &corev1.SecurityContext{AllowPrivilegeEscalation: ptr.To(false), Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}},
			}},
		},
	}
}

func roleBinding(namespace, role, user string) *rbacv1.RoleBinding {
	return &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "climber"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: stage.SystemNamespace, Name: user}},
	}
}

// managerIdentity: what a thief of the manager's token has.
func managerIdentity(t *testing.T, w *world) {
	m, ctx := w.serviceAccount(t, stage.SystemNamespace, "lethe-manager"), t.Context()
	if err := m.List(ctx, &v1alpha1.TenantList{}); err != nil {
		t.Fatalf("the manager reads Tenants: %v", err)
	}
	for _, ns := range []string{"kube-system", "default", stage.SystemNamespace, stage.KeysNamespace, "e2e-acme"} {
		forbidden(t, "list Secrets in "+ns, m.List(ctx, &corev1.SecretList{}, client.InNamespace(ns)))
		forbidden(t, "read a Secret in "+ns, m.Get(ctx, client.ObjectKey{Namespace: ns, Name: "tenant-e2e-acme"}, &corev1.Secret{}))
		forbidden(t, "write a Secret in "+ns, m.Create(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "climber"}}, client.DryRunAll))
	}
	forbidden(t, "list all Secrets", m.List(ctx, &corev1.SecretList{}))
	for what, o := range map[string]client.Object{
		"a RoleBinding of its own role in kube-system":        roleBinding("kube-system", "lethe-manager-tenant", "lethe-manager"),
		"a RoleBinding of its own role in lethe-keys":         roleBinding(stage.KeysNamespace, "lethe-manager-tenant", "lethe-manager"),
		"a RoleBinding to cluster-admin in a tenant's":        roleBinding("e2e-acme", "cluster-admin", "lethe-manager"),
		"a RoleBinding of its role for somebody else":         roleBinding("e2e-acme", "lethe-manager-tenant", "default"),
		"a RoleBinding of the keyserver's role for itself":    roleBinding("e2e-acme", "lethe-keyserver-tenant", "lethe-manager"),
		"a pod in kube-system":                                plainPod("kube-system"),
		"a pod in a tenant's namespace, of its own rendering": plainPod("e2e-acme"),
		"a ServiceAccount in kube-system":                     &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "climber"}},
	} {
		forbidden(t, what, m.Create(ctx, o, client.DryRunAll))
	}
	forbidden(t, "a token of the keyserver's", m.SubResource("token").Create(ctx,
		&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: stage.SystemNamespace, Name: "lethe-keyserver"}}, &authenticationv1.TokenRequest{}))
}

// tenantUser: what a tenant's own people may, and where they climb in vain.
func tenantUser(t *testing.T, w *world) {
	dev, ctx := w.as(t, "dev", "acme-developers"), t.Context()
	bot := &v1alpha1.BotDeployment{ObjectMeta: metav1.ObjectMeta{Namespace: "e2e-acme", Name: "support"}}
	if err := dev.Get(ctx, client.ObjectKeyFromObject(bot), bot); err != nil {
		t.Fatalf("Operate reads bots: %v", err)
	}
	bot.Spec.Env = []v1alpha1.EnvVar{{Name: "BY", Value: "dev"}}
	if err := dev.Update(ctx, bot, client.DryRunAll); err != nil {
		t.Fatalf("Operate writes bots: %v", err)
	}
	forbidden(t, "write another tenant's bot", dev.Create(ctx, &v1alpha1.BotDeployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: "e2e-globex", Name: "climber"}, Spec: v1alpha1.BotDeploymentSpec{Image: "x"}}, client.DryRunAll))
	forbidden(t, "make a pod", dev.Create(ctx, plainPod("e2e-acme"), client.DryRunAll))
	forbidden(t, "ask for the token of the bot's pod", dev.SubResource("token").Create(ctx,
		&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "e2e-acme", Name: "support-bot"}}, &authenticationv1.TokenRequest{}))
	forbidden(t, "read Secrets", dev.List(ctx, &corev1.SecretList{}, client.InNamespace("e2e-acme")))
	forbidden(t, "write a ConfigMap", dev.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "e2e-acme", Name: "climber"}}, client.DryRunAll))
	forbidden(t, "write a DataStore", dev.Create(ctx, &v1alpha1.DataStore{ObjectMeta: metav1.ObjectMeta{Namespace: "e2e-acme", Name: "climber"}}, client.DryRunAll))
	forbidden(t, "write a Tenant", dev.Create(ctx, &v1alpha1.Tenant{ObjectMeta: metav1.ObjectMeta{Name: "climber"}}, client.DryRunAll))
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "e2e-acme", Name: "support-bot-0"}}
	forbidden(t, "add an ephemeral container", dev.SubResource("ephemeralcontainers").Update(ctx, pod))
	exec, err := w.Kubectl(ctx, "", "-n", "e2e-acme", "exec", "support-bot-0", "--as", "dev", "--as-group", "acme-developers", "--", "/telegram-bot")
	if err == nil {
		t.Errorf("exec into the bot's pod worked: %s", exec)
	}
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "e2e-acme"}}
	label := client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"labels":{"lethe.dev/tenant":"e2e-globex"}}}`))
	forbidden(t, "set the protected label", dev.Patch(ctx, ns, label, client.DryRunAll))
	// Somebody who may edit everything in every namespace, the namespaces themselves too, still may not set it, nor
	// make a pod in a tenant's.
	editor := w.as(t, "editor", "system:masters")
	// He may indeed: were the group not his, all that follows would be forbidden for want of rights.
	if err := editor.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "e2e-nobodys"}}, client.DryRunAll); err != nil {
		t.Errorf("a member of system:masters may not make a namespace: %v", err)
	}
	forbidden(t, "make a pod in a tenant's namespace as cluster-admin", editor.Create(ctx, plainPod("e2e-acme"), client.DryRunAll))
	reader := w.as(t, "reader", "acme-readers")
	if err := reader.List(ctx, &v1alpha1.BotDeploymentList{}, client.InNamespace("e2e-acme")); err != nil {
		t.Errorf("View reads bots: %v", err)
	}
	forbidden(t, "View deletes a bot", reader.Delete(ctx, bot, client.DryRunAll))
}
