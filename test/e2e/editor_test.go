package e2e

import (
	"bytes"
	"encoding/base64"
	"net"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/internal/resources"
)

// editorReachesNothing: a person with Kubernetes' own role edit in a tenant's namespace makes every object that could
// open a way, really and not by a dry run, then packets are sent, and all that he may read is looked through.
func editorReachesNothing(t *testing.T, w *world) {
	const ns, name = "e2e-acme", "e2e-eddy"
	w.create(t, &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name},
		RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "edit"},
		Subjects: []rbacv1.Subject{{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: name}}})
	eddy, ctx, before := w.as(t, name), t.Context(), w.running(t, ns, nil)
	if err := eddy.List(ctx, &corev1.PodList{}, client.InNamespace(ns)); err != nil {
		t.Fatalf("edit reads pods: %v", err)
	}
	meta := metav1.ObjectMeta{Namespace: ns, Name: "eddys"}
	// A pod that would read the bot's files: under its account, with its volume and with a token.
	spec := plainPod(ns).Spec
	spec.ServiceAccountName, spec.AutomountServiceAccountToken = before.Spec.ServiceAccountName, nil
	for _, v := range before.Spec.Volumes {
		if v.PersistentVolumeClaim != nil {
			spec.Volumes = append(spec.Volumes, v)
		}
	}
	labels := map[string]string{"app": "eddys"}
	template := corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: spec}
	once := template
	once.Spec.RestartPolicy = corev1.RestartPolicyNever
	selector := &metav1.LabelSelector{MatchLabels: labels}
	token := metav1.ObjectMeta{Namespace: ns, Name: "eddys", Annotations: map[string]string{corev1.ServiceAccountNameKey: before.Spec.ServiceAccountName}}
	for what, o := range map[string]client.Object{
		"a pod":                   &corev1.Pod{ObjectMeta: meta, Spec: spec},
		"a Deployment":            &appsv1.Deployment{ObjectMeta: meta, Spec: appsv1.DeploymentSpec{Selector: selector, Template: template}},
		"a StatefulSet":           &appsv1.StatefulSet{ObjectMeta: meta, Spec: appsv1.StatefulSetSpec{Selector: selector, Template: template}},
		"a DaemonSet":             &appsv1.DaemonSet{ObjectMeta: meta, Spec: appsv1.DaemonSetSpec{Selector: selector, Template: template}},
		"a ReplicaSet":            &appsv1.ReplicaSet{ObjectMeta: meta, Spec: appsv1.ReplicaSetSpec{Selector: selector, Template: template}},
		"a ReplicationController": &corev1.ReplicationController{ObjectMeta: meta, Spec: corev1.ReplicationControllerSpec{Selector: labels, Template: &template}},
		"a Job":                   &batchv1.Job{ObjectMeta: meta, Spec: batchv1.JobSpec{Template: once}},
		"a CronJob":               &batchv1.CronJob{ObjectMeta: meta, Spec: batchv1.CronJobSpec{Schedule: "@daily", JobTemplate: batchv1.JobTemplateSpec{Spec: batchv1.JobSpec{Template: once}}}},
		"a NetworkPolicy": &networkingv1.NetworkPolicy{ObjectMeta: meta, Spec: networkingv1.NetworkPolicySpec{
			PolicyTypes: []networkingv1.PolicyType{"Egress", "Ingress"}, Egress: []networkingv1.NetworkPolicyEgressRule{{}}, Ingress: []networkingv1.NetworkPolicyIngressRule{{}}}},
		"a Service":                &corev1.Service{ObjectMeta: meta, Spec: corev1.ServiceSpec{Selector: before.Labels, Ports: []corev1.ServicePort{{Port: 80}}}},
		"an EndpointSlice":         &discoveryv1.EndpointSlice{ObjectMeta: meta, AddressType: discoveryv1.AddressTypeIPv4},
		"an Ingress":               &networkingv1.Ingress{ObjectMeta: meta, Spec: networkingv1.IngressSpec{DefaultBackend: &networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{Name: "x", Port: networkingv1.ServiceBackendPort{Number: 80}}}}},
		"a token that never ends":  &corev1.Secret{ObjectMeta: token, Type: corev1.SecretTypeServiceAccountToken},
		"certificates for its pod": &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: resources.CABundleName}},
		"a PodDisruptionBudget":    &policyv1.PodDisruptionBudget{ObjectMeta: meta, Spec: policyv1.PodDisruptionBudgetSpec{Selector: selector}},
	} {
		forbidden(t, "edit makes "+what, eddy.Create(ctx, o))
	}
	pod := before.DeepCopy()
	forbidden(t, "edit evicts the bot's pod", eddy.SubResource("eviction").Create(ctx, pod, &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: pod.Name}}))
	forbidden(t, "edit deletes it", eddy.Delete(ctx, pod))
	forbidden(t, "edit labels it", eddy.Patch(ctx, pod, client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"labels":{"app":"eddys"}}}`))))
	forbidden(t, "edit asks for its token", eddy.SubResource("token").Create(ctx,
		&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: before.Spec.ServiceAccountName}}, &authenticationv1.TokenRequest{}))
	for _, command := range [][]string{{"exec", before.Name, "--", "/telegram-bot"}, {"attach", before.Name}, {"debug", before.Name, "--image=lethe:build"}} {
		if out, err := w.Kubectl(ctx, "", append([]string{"-n", ns, "--as", name}, command...)...); err == nil {
			t.Errorf("kubectl %s as edit worked: %s", strings.Join(command, " "), out)
		}
	}

	// By packet: nothing that was tried has opened a way.
	var nodes corev1.NodeList
	if err := w.client.List(ctx, &nodes); err != nil {
		t.Fatal(err)
	}
	node, inside := nodes.Items[0].Status.Addresses[0].Address, "/proc/"+processOf(t, before)+"/ns/net"
	for what, address := range map[string]string{
		"another tenant's bot": net.JoinHostPort(w.running(t, "e2e-walled", nil).Status.PodIP, "8080"),
		"the API server":       net.JoinHostPort(node, "6443"),
		"the kubelet":          net.JoinHostPort(node, "10250"),
	} {
		if got := dial(ctx, inside, address); !strings.Contains(got, "No route to host") {
			t.Errorf("after edit's tries a bot reaches %s (%s): %s", what, address, got)
		}
	}

	// By file: all that edit may read holds no secret that was ever handed in.
	for _, kind := range []string{"secrets", "configmaps", "pods", "events", "persistentvolumeclaims", "statefulsets", "jobs", "serviceaccounts", "leases"} {
		out, err := w.Kubectl(ctx, "", "-n", ns, "--as", name, "get", kind, "-o", "json")
		if err != nil {
			t.Errorf("edit reads %s: %v", kind, err)
		}
		w.holdsNoSecret(t, kind, out)
	}
	logs, err := w.Kubectl(ctx, "", "-n", ns, "--as", name, "logs", before.Name, "--all-containers")
	if err != nil {
		t.Errorf("edit reads logs: %v", err)
	}
	w.holdsNoSecret(t, "logs", logs)
	if now := w.running(t, ns, client.MatchingLabels(before.Labels)); now.UID != before.UID {
		t.Errorf("the bot's pod is another one after edit's tries")
	}
}

func (w *world) holdsNoSecret(t *testing.T, where, text string) {
	t.Helper()
	if len(w.canaries) == 0 {
		t.Fatal("no secret was handed in yet")
	}
	for name, secret := range w.canaries {
		if bytes.Contains([]byte(text), secret) || strings.Contains(text, base64.StdEncoding.EncodeToString(secret)) {
			t.Errorf("%s that edit may read hold the secret %s", where, name)
		}
	}
}
