package walls

import (
	"context"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"

	lethev1 "github.com/lethe-dev/lethe/api/v1alpha1"
)

func waitFor(t *testing.T, what string, ok func(context.Context) bool) {
	t.Helper()
	err := wait.PollUntilContextTimeout(t.Context(), 50*time.Millisecond, 30*time.Second, true, func(ctx context.Context) (bool, error) { return ok(ctx), nil })
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// TestPodsOfTenantsAreSomebodyOnlyToTheKeyserver: the manager makes StatefulSets and Jobs. Under an account that
// somebody gave rights to, with its token, a pod of its making would read what that account may.
func TestPodsOfTenantsAreSomebodyOnlyToTheKeyserver(t *testing.T) {
	controller := as("system:serviceaccount:kube-system:job-controller", groupMost)
	if err := cluster().Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: tenantNS, Name: "s-sweeper"}}); err != nil {
		t.Fatal(err)
	}
	mustCreate(t, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: tenantNS, Name: "deployer"}})
	pod := func(ns string, change func(*corev1.Pod)) func(context.Context, identity) error {
		p := runnable("p", ns)
		change(p)
		return create(p)
	}
	token := func(audience string, seconds int64) func(*corev1.Pod) {
		return projecting(corev1.VolumeProjection{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Audience: audience, ExpirationSeconds: &seconds, Path: "token"}})
	}
	under := func(account string, labels map[string]string) func(*corev1.Pod) {
		return func(p *corev1.Pod) { p.Spec.ServiceAccountName, p.Labels = account, labels }
	}
	sweeper := map[string]string{lethev1.LabelComponent: "sweeper"}
	climb(t, "lethe-pod-identity", []attempt{
		{name: "a bot with a token for the keyserver", as: controller, try: pod(tenantNS, token(lethev1.AudienceKeyserver, 600))},
		{name: "a sweep", as: controller, try: pod(tenantNS, under("s-sweeper", sweeper))},
		{name: "elsewhere anything", as: controller, try: pod(otherNS, token("", 7200))},

		{name: "a token for the API server", as: controller, denied: true, try: pod(tenantNS, token("", 600))},
		{name: "a token for a cloud", as: controller, denied: true, try: pod(tenantNS, token("sts.amazonaws.com", 600))},
		{name: "a token for a day", as: controller, denied: true, try: pod(tenantNS, token(lethev1.AudienceKeyserver, 86400))},
		{name: "a token mounted by itself", as: controller, denied: true, try: pod(tenantNS, func(p *corev1.Pod) { p.Spec.AutomountServiceAccountToken = nil })},
		{name: "a token asked for", as: controller, denied: true, try: pod(tenantNS, func(p *corev1.Pod) { p.Spec.AutomountServiceAccountToken = new(true) })},
		{name: "a certificate", as: controller, denied: true, try: pod(tenantNS, projecting(corev1.VolumeProjection{
			PodCertificate: &corev1.PodCertificateProjection{SignerName: "example.com/s", KeyType: "ED25519", CredentialBundlePath: "c"}}))},
		{name: "a trust bundle", as: controller, denied: true, try: pod(tenantNS, projecting(corev1.VolumeProjection{
			ClusterTrustBundle: &corev1.ClusterTrustBundleProjection{Name: new("b"), Path: "c"}}))},
		{name: "a bot under somebody's account", as: controller, denied: true, try: pod(tenantNS, under("deployer", botLabels()))},
		{name: "a bot under the account that every namespace has", as: controller, denied: true, try: pod(tenantNS, under("default", botLabels()))},
		{name: "a bot under no account that is named", as: controller, denied: true, try: pod(tenantNS, under("", botLabels()))},
		{name: "a bot as a sweep", as: controller, denied: true, try: pod(tenantNS, under("s-sweeper", botLabels()))},
		{name: "a sweep as a bot", as: controller, denied: true, try: pod(tenantNS, under("b-bot", sweeper))},
		{name: "nothing that is known, as a bot", as: controller, denied: true, try: pod(tenantNS, under("b-bot", nil))},
	})
}

func projecting(sources ...corev1.VolumeProjection) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: sources}}}}
	}
}

// TestServiceAccountsOfBots: clouds hand out rights by annotations on them, and kubelets pull images with the Secrets
// that they name.
func TestServiceAccountsOfBots(t *testing.T) {
	manager, eve := as(managerUser, groupMost), as("eve", groupMost)
	const ns = "acme-accounts"
	mustCreate(t, namespace(ns, map[string]string{lethev1.LabelTenant: tenant}))
	account := func(name string, change func(*corev1.ServiceAccount)) *corev1.ServiceAccount {
		sa := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}, AutomountServiceAccountToken: new(false)}
		if change != nil {
			change(sa)
		}
		return sa
	}
	if err := cluster().Create(t.Context(), account("there-bot", func(sa *corev1.ServiceAccount) { sa.Annotations = map[string]string{"example.com/a": "b"} })); err != nil {
		t.Fatal(err)
	}
	mustCreate(t, account("deployer", nil))
	annotated := func(key string) func(*corev1.ServiceAccount) {
		return func(sa *corev1.ServiceAccount) { sa.Annotations = map[string]string{key: "x"} }
	}
	role := `{"metadata":{"annotations":{"eks.amazonaws.com/role-arn":"x"}}}`
	climb(t, "lethe-serviceaccounts", []attempt{
		{name: "a bot's, by the manager", as: manager, try: create(account("x-bot", nil))},
		{name: "a sweep's, by the manager", as: manager, try: create(account("x-sweeper", annotated("lethe.dev/owner-uid")))},
		{name: "with what a policy of the cluster adds", as: manager, try: create(account("x-bot", annotated("example.com/cost-center")))},
		{name: "changed by the manager beside what others have set", as: manager, try: patchOf(account("there-bot", nil), `{"metadata":{"labels":{"lethe.dev/a":"b"}}}`)},
		{name: "somebody's own", as: eve, try: create(account("runner", nil))},
		{name: "taken away with its bot", as: as("system:serviceaccount:kube-system:generic-garbage-collector", groupMost), try: remove(account("there-bot", nil))},
		{name: "elsewhere", as: eve, try: create(&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: otherNS, Name: "x-bot"}})},

		{name: "a bot's, by somebody", as: eve, denied: true, try: create(account("x-bot", nil))},
		{name: "a sweep's, by somebody", as: eve, denied: true, try: create(account("x-sweeper", nil))},
		{name: "a cloud's role for a bot, by somebody", as: eve, denied: true, try: patchOf(account("there-bot", nil), role)},
		{name: "taken away by somebody", as: eve, denied: true, try: remove(account("there-bot", nil))},
		{name: "taken away with all others", as: eve, denied: true, try: removeAll(&corev1.ServiceAccount{}, ns)},
		{name: "made with a Secret for images", as: manager, denied: true, try: create(account("x-bot", func(sa *corev1.ServiceAccount) {
			sa.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "s"}}
		}))},
		{name: "made with a Secret", as: manager, denied: true, try: create(account("x-bot", func(sa *corev1.ServiceAccount) {
			sa.Secrets = []corev1.ObjectReference{{Name: "s"}}
		}))},
		{name: "made with its token mounted", as: manager, denied: true, try: create(account("x-bot", func(sa *corev1.ServiceAccount) { sa.AutomountServiceAccountToken = nil }))},
		{name: "an account of another name", as: manager, denied: true, try: create(account("runner", nil))},
		{name: "somebody's account, changed", as: manager, denied: true, try: patchOf(account("deployer", nil), `{"metadata":{"labels":{"lethe.dev/a":"b"}}}`)},
	})
	climb(t, "lethe-manager-objects", []attempt{
		{name: "a cloud's role for a bot, by the manager", as: manager, denied: true, try: patchOf(account("there-bot", nil), role)},
		{name: "made with another cloud's role", as: manager, denied: true, try: create(account("x-bot", annotated("iam.gke.io/gcp-service-account")))},
		{name: "made with a third's", as: manager, denied: true, try: create(account("x-bot", annotated("azure.workload.identity/client-id")))},
	})
}

// TestManagerSetsNoLabelsThatOthersActOn: a mesh, a network plugin or a policy engine is told by labels and
// annotations.
func TestManagerSetsNoLabelsThatOthersActOn(t *testing.T) {
	manager := as(managerUser, groupMost)
	const ns = "acme-objects"
	mustCreate(t, namespace(ns, map[string]string{lethev1.LabelTenant: tenant}))
	there := statefulSet("there", ns)
	there.Labels = map[string]string{"argocd.argoproj.io/instance": "a"}
	there.Annotations = map[string]string{"policy.example/x": "y"}
	if err := cluster().Create(t.Context(), there); err != nil {
		t.Fatal(err)
	}
	set := func(change func(o *metav1.ObjectMeta, template *metav1.ObjectMeta)) func(context.Context, identity) error {
		s := statefulSet("s", ns)
		change(&s.ObjectMeta, &s.Spec.Template.ObjectMeta)
		return create(s)
	}
	cron := func(change func(job *metav1.ObjectMeta, template *metav1.ObjectMeta)) func(context.Context, identity) error {
		c := workloads(ns)["CronJob"].(*batchv1.CronJob)
		change(&c.Spec.JobTemplate.ObjectMeta, &c.Spec.JobTemplate.Spec.Template.ObjectMeta)
		return create(c)
	}
	put := func(m *map[string]string, key string) {
		if *m == nil {
			*m = map[string]string{}
		}
		(*m)[key] = "x"
	}
	attempts := []attempt{
		{name: "Lethe's own", as: manager, try: set(func(o, template *metav1.ObjectMeta) {
			put(&o.Labels, "app.kubernetes.io/managed-by")
			put(&o.Annotations, "lethe.dev/owner-uid")
			put(&template.Labels, "lethe.dev/tenant")
			put(&template.Annotations, "lethe.dev/credentials")
		})},
		{name: "a Job", as: manager, try: create(workloads(ns)["Job"])},
		{name: "a change beside what others have set", as: manager, try: patchOf(there, `{"metadata":{"labels":{"lethe.dev/a":"b"}}}`)},

		// The policy sees what admission has added before it, and cannot tell it from what the manager says.
		{name: "what a policy of the cluster adds", as: manager, try: set(func(o, template *metav1.ObjectMeta) {
			put(&o.Labels, "team")
			put(&o.Labels, "billing.example.com/cost-center")
			put(&o.Annotations, "policies.kyverno.io/last-applied-patches")
			put(&o.Annotations, "autopilot.gke.io/resource-adjustment")
			put(&o.Annotations, "owner")
			put(&template.Labels, "team")
			put(&template.Annotations, "autopilot.gke.io/resource-adjustment")
		})},
		{name: "what it adds to a CronJob", as: manager, try: cron(func(job, template *metav1.ObjectMeta) {
			put(&job.Labels, "team")
			put(&job.Annotations, "owner")
			put(&template.Labels, "team")
		})},
		{name: "what it adds to what is there", as: manager, try: patchOf(there, `{"metadata":{"labels":{"team":"x"},"annotations":{"owner":"x"}}}`)},

		{name: "a label of others", as: manager, denied: true, try: set(func(o, _ *metav1.ObjectMeta) { put(&o.Labels, "kueue.x-k8s.io/queue-name") })},
		{name: "an annotation of others", as: manager, denied: true, try: set(func(o, _ *metav1.ObjectMeta) { put(&o.Annotations, "reloader.stakater.com/auto") })},
		{name: "another value for what others have set", as: manager, denied: true, try: patchOf(there, `{"metadata":{"labels":{"argocd.argoproj.io/instance":"b"}}}`)},
		{name: "a mesh's label on pods", as: manager, denied: true, try: set(func(_, template *metav1.ObjectMeta) { put(&template.Labels, "sidecar.istio.io/inject") })},
		{name: "another network for pods", as: manager, denied: true, try: set(func(_, template *metav1.ObjectMeta) { put(&template.Annotations, "k8s.v1.cni.cncf.io/networks") })},
		{name: "an annotation of nobody's on pods", as: manager, denied: true, try: set(func(_, template *metav1.ObjectMeta) { put(&template.Annotations, "owner") })},
		{name: "a note to a pod", as: manager, denied: true, try: func(ctx context.Context, c identity) error {
			p := runnable("p", tenantNS)
			p.Annotations = map[string]string{"example.com/runtime": "x"}
			return create(p)(ctx, c)
		}},
		{name: "another value for an annotation that others have set", as: manager, denied: true, try: patchOf(there, `{"metadata":{"annotations":{"policy.example/x":"z"}}}`)},
		{name: "a device for pods", as: manager, denied: true, try: set(func(_, template *metav1.ObjectMeta) { put(&template.Annotations, "cdi.k8s.io/x") })},
		{name: "another network for a CronJob's pods", as: manager, denied: true, try: cron(func(_, template *metav1.ObjectMeta) { put(&template.Annotations, "k8s.v1.cni.cncf.io/networks") })},
		{name: "a label on a CronJob's Jobs", as: manager, denied: true, try: cron(func(job, _ *metav1.ObjectMeta) { put(&job.Labels, "kueue.x-k8s.io/queue-name") })},
		{name: "a cluster's dashboards", as: manager, denied: true, try: create(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "x",
			Labels: map[string]string{"grafana_dashboard": "1"}}})},
		{name: "an annotation on a policy", as: manager, denied: true, try: create(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "x",
			Annotations: map[string]string{"replicator.v1.mittwald.de/replicate-to": "*"}}})},
	}
	climb(t, "lethe-manager-objects", attempts)
}
