package walls

import (
	"context"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/client"

	lethev1 "github.com/lethe-dev/lethe/api/v1alpha1"
)

// attempt is one try at a wall. Everything is tried with a dry run, so that the order of the tries does not matter.
type attempt struct {
	name   string
	as     identity
	try    func(ctx context.Context, c identity) error
	denied bool
}

// climb runs the attempts. A denied one must be denied by that policy and by nothing else.
func climb(t *testing.T, policy string, attempts []attempt) {
	t.Helper()
	if prepared != nil {
		t.Fatal(prepared)
	}
	for _, tc := range attempts {
		t.Run(tc.name, func(t *testing.T) {
			err := tc.try(t.Context(), tc.as)
			switch {
			case !tc.denied && err != nil:
				t.Errorf("want it allowed, got: %v", err)
			case tc.denied && !apierrors.IsForbidden(err):
				t.Errorf("want 403, got: %v", err)
			case tc.denied && !strings.Contains(err.Error(), "'"+policy+"'"):
				t.Errorf("want it denied by the policy %s, got: %v", policy, err)
			}
		})
	}
}

func create(o client.Object) func(context.Context, identity) error {
	return func(ctx context.Context, c identity) error {
		return c.Create(ctx, o.DeepCopyObject().(client.Object), client.DryRunAll)
	}
}

func TestManagerBindsOnlyItsRolesInTenantNamespaces(t *testing.T) {
	manager, other := as(managerUser, groupMost), as("someone", groupMost)
	self, keyserver := serviceAccount("lethe-system", "lethe-manager"), serviceAccount("lethe-system", "lethe-keyserver")
	mustCreate(t, binding(tenantNS, "strange", "view", group("people")))
	mustCreate(t, binding(otherNS, "ours", "lethe-tenant-view", group("people")))
	climb(t, "lethe-rolebindings", []attempt{
		{name: "its own role, for itself", as: manager, try: create(binding(tenantNS, "a", "lethe-manager-tenant", self))},
		{name: "the keyserver's role, for the keyserver", as: manager, try: create(binding(tenantNS, "a", "lethe-keyserver-tenant", keyserver))},
		{name: "view for a group", as: manager, try: create(binding(tenantNS, "a", "lethe-tenant-view", group("people")))},
		{name: "operate for two groups", as: manager, try: create(binding(tenantNS, "a", "lethe-tenant-operate", group("people"), group("more")))},
		{name: "no subjects", as: manager, try: create(binding(tenantNS, "a", "lethe-tenant-view"))},
		{name: "somebody else binds what he likes", as: other, try: create(binding(otherNS, "a", "view", group("people")))},

		{name: "a namespace without the label", as: manager, denied: true, try: create(binding(otherNS, "a", "lethe-manager-tenant", self))},
		{name: "kube-system", as: manager, denied: true, try: create(binding("kube-system", "a", "lethe-manager-tenant", self))},
		{name: "another role", as: manager, denied: true, try: create(binding(tenantNS, "a", "cluster-admin", self))},
		{name: "a Role of that name", as: manager, denied: true, try: create(&rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Namespace: tenantNS, Name: "a"},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "lethe-manager-tenant"},
			Subjects:   []rbacv1.Subject{self},
		})},
		{name: "its role for another ServiceAccount", as: manager, denied: true, try: create(binding(tenantNS, "a", "lethe-manager-tenant", serviceAccount(tenantNS, "lethe-manager")))},
		{name: "its role for the keyserver", as: manager, denied: true, try: create(binding(tenantNS, "a", "lethe-manager-tenant", keyserver))},
		{name: "the keyserver's role for itself", as: manager, denied: true, try: create(binding(tenantNS, "a", "lethe-keyserver-tenant", self))},
		{name: "its role for itself and a group", as: manager, denied: true, try: create(binding(tenantNS, "a", "lethe-manager-tenant", self, group("people")))},
		{name: "its role for nobody", as: manager, denied: true, try: create(binding(tenantNS, "a", "lethe-manager-tenant"))},
		{name: "operate for everybody who can log in", as: manager, denied: true, try: create(binding(tenantNS, "a", "lethe-tenant-operate", group("system:authenticated")))},
		{name: "operate for a user", as: manager, denied: true, try: create(binding(tenantNS, "a", "lethe-tenant-operate", rbacv1.Subject{APIGroup: rbacv1.GroupName, Kind: "User", Name: "eve"}))},
		{name: "operate for a ServiceAccount", as: manager, denied: true, try: create(binding(tenantNS, "a", "lethe-tenant-operate", serviceAccount(tenantNS, "bot")))},
		{name: "a role in the whole cluster", as: manager, denied: true, try: create(&rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: "a"},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "lethe-manager-tenant"},
			Subjects:   []rbacv1.Subject{self},
		})},
		{name: "a role of its own making", as: manager, denied: true, try: create(role("a"))},
		{name: "a wider role", as: manager, denied: true, try: patchOf(&rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "lethe-manager-tenant"}},
			`{"rules":[{"apiGroups":["*"],"resources":["*"],"verbs":["*"]}]}`)},
		{name: "other subjects for a binding that exists", as: manager, denied: true, try: patchOf(binding(tenantNS, "lethe-operate", ""),
			`{"subjects":[{"kind":"User","apiGroup":"rbac.authorization.k8s.io","name":"eve"}]}`)},
		{name: "taking back what is ours, label or not", as: manager, try: remove(binding(otherNS, "ours", ""))},
		{name: "taking away what is not ours", as: manager, denied: true, try: remove(binding(tenantNS, "strange", ""))},
	})
}

func TestOnlyLetheAndKubernetesRunThingsInTenantNamespaces(t *testing.T) {
	manager, eve := as(managerUser, groupMost), as("eve", groupMost)
	controller := as("system:serviceaccount:kube-system:statefulset-controller", groupMost)
	addOn := as("system:serviceaccount:kube-system:fancy-controller", groupMost)
	pod := runnable("p", tenantNS)
	if err := controller.Create(t.Context(), runnable("running", tenantNS)); err != nil {
		t.Fatal(err)
	}
	if err := manager.Create(t.Context(), statefulSet("running", tenantNS)); err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"CronJob", "Job"} {
		o := workloads(tenantNS)[kind]
		o.SetName("running")
		if err := manager.Create(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	labelled := `{"metadata":{"labels":{"changed":"yes"}}}`
	attempts := []attempt{
		{name: "a pod by the controller of StatefulSets", as: controller, try: create(pod)},
		{name: "a pod by the controller of Jobs", as: as("system:serviceaccount:kube-system:job-controller", groupMost), try: create(pod)},
		{name: "a pod by a controller manager with one identity", as: as("system:kube-controller-manager", groupMost), try: create(pod)},
		{name: "a pod elsewhere, by anybody", as: eve, try: create(runnable("p", otherNS))},
		{name: "a pod by an add-on of kube-system", as: addOn, denied: true, try: create(pod)},
		{name: "a pod by the keyserver", as: as(keyserverUser, groupMost), denied: true, try: create(pod)},
		{name: "a pod by a node", as: as("system:node:n", groupMost, "system:nodes"), denied: true, try: create(pod)},
		{name: "a pod by the administrator", as: admin, denied: true, try: create(pod)},
		{name: "a change of a pod", as: eve, denied: true, try: patchOf(runnable("running", tenantNS), labelled)},
		{name: "a debug container", as: eve, denied: true, try: func(ctx context.Context, c identity) error {
			var p corev1.Pod
			if err := c.Get(ctx, client.ObjectKey{Namespace: tenantNS, Name: "running"}, &p); err != nil {
				return err
			}
			p.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{
				Name: "look", Image: "shell", ImagePullPolicy: corev1.PullAlways, TerminationMessagePolicy: corev1.TerminationMessageReadFile}}}
			return c.SubResource("ephemeralcontainers").Update(ctx, &p, client.DryRunAll)
		}},
		{name: "a StatefulSet restarted by hand", as: eve, denied: true, try: patchOf(statefulSet("running", tenantNS), labelled)},
		{name: "a StatefulSet scaled by hand", as: eve, denied: true, try: func(ctx context.Context, c identity) error {
			return c.SubResource("scale").Patch(ctx, statefulSet("running", tenantNS), client.RawPatch("application/merge-patch+json", []byte(`{"spec":{"replicas":2}}`)), client.DryRunAll)
		}},
	}
	for kind, o := range workloads(tenantNS) {
		attempts = append(attempts,
			attempt{name: kind + " by the manager", as: manager, try: create(o)},
			attempt{name: kind + " by somebody else", as: eve, denied: true, try: create(o)})
		// Of what Lethe makes, annotations are written through the status too.
		controller, ours := map[string]string{"StatefulSet": "statefulset-controller", "CronJob": "cronjob-controller", "Job": "job-controller"}[kind]
		if !ours {
			continue
		}
		there := o.DeepCopyObject().(client.Object)
		there.SetName("running")
		noted := patchStatusOf(there, `{"metadata":{"annotations":{"`+lethev1.AnnotationAdmitted+`":"x"}}}`)
		attempts = append(attempts,
			attempt{name: "the status of a " + kind + " by its controller", as: as("system:serviceaccount:kube-system:"+controller, groupMost), try: noted},
			attempt{name: "the status of a " + kind + " by a controller manager with one identity", as: as("system:kube-controller-manager", groupMost), try: noted},
			attempt{name: "the status of a " + kind + " by somebody else", as: eve, denied: true, try: noted},
			attempt{name: "the status of a " + kind + " by the administrator", as: admin, denied: true, try: noted})
	}
	attempts = append(attempts, attempt{name: "the status of a pod by a network plugin", as: as("system:serviceaccount:kube-system:calico-node", groupMost),
		try: patchStatusOf(runnable("running", tenantNS), `{"metadata":{"annotations":{"cni.projectcalico.org/podIP":"10.0.0.1/32"}}}`)})
	climb(t, "lethe-workloads", attempts)
}

func TestEnteringATenantsPodNeedsARightOnTheTenant(t *testing.T) {
	enter := func(subresource string) func(context.Context, identity) error {
		return func(ctx context.Context, c identity) error {
			err := connect(ctx, c, tenantNS, "absent", subresource)
			if apierrors.IsNotFound(err) {
				return nil // it got past admission: only the pod is missing
			}
			return err
		}
	}
	var attempts []attempt
	attempts = append(attempts, attempt{name: "a Service's proxy with every right in the namespace", as: as("eve", groupMost), denied: true, try: func(ctx context.Context, c identity) error {
		clientset, err := kubernetes.NewForConfig(c.config)
		if err != nil {
			return err
		}
		return clientset.CoreV1().RESTClient().Get().Namespace(tenantNS).Resource("services").Name("absent").SubResource("proxy").Do(ctx).Error()
	}})
	for _, subresource := range []string{"exec", "attach", "portforward", "proxy"} {
		attempts = append(attempts,
			attempt{name: subresource + " with every right in the namespace", as: as("eve", groupMost), denied: true, try: enter(subresource)},
			attempt{name: subresource + " by the manager", as: as(managerUser, groupMost), denied: true, try: enter(subresource)},
			attempt{name: subresource + " with the verb debug on the tenant", as: as("doctor", groupMost, groupDebug), try: enter(subresource)})
	}
	climb(t, "lethe-pod-access", attempts)
}

func TestNamespaceLabelIsProtected(t *testing.T) {
	manager, eve, adopter := as(managerUser, groupMost), as("eve", groupMost), as("gitops", groupMost, groupAdopt)
	mustCreate(t, namespace("acme-second", restricted(tenant)))
	mustCreate(t, namespace("globex-bots", map[string]string{lethev1.LabelTenant: "globex"}))
	acme := map[string]string{lethev1.LabelTenant: tenant}
	set := `{"metadata":{"labels":{"lethe.dev/tenant":"acme"}}}`
	empty := `{"metadata":{"labels":{"lethe.dev/tenant":""}}}`
	other := `{"metadata":{"labels":{"lethe.dev/tenant":"globex"}}}`
	drop := `{"metadata":{"labels":{"lethe.dev/tenant":null}}}`
	unrelated := `{"metadata":{"labels":{"team":"a"}}}`
	noted := `{"metadata":{"annotations":{"lethe.dev/note":"a"}}}`
	plain, ours, walled := namespace(otherNS, nil), namespace(tenantNS, nil), namespace("acme-second", nil)
	// The manager meets a second wall where the Pod Security Standard is missing: here it never is.
	standard := map[string]string{"pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/enforce-version": "latest"}
	mustCreate(t, namespace("plain-walled", standard))
	plainWalled := namespace("plain-walled", nil)
	climb(t, "lethe-namespace-label", []attempt{
		{name: "a namespace without the label, by anybody", as: eve, try: create(namespace("x", nil))},
		{name: "another label, by anybody", as: eve, try: patchOf(ours, unrelated)},
		{name: "deletion of a tenant's namespace by its administrator", as: eve, try: remove(ours)},
		{name: "created with the label by the manager", as: manager, try: create(namespace("x", restricted(tenant)))},
		{name: "changed elsewhere by the manager", as: manager, try: patchOf(walled, noted)},
		{name: "deleted by the manager", as: manager, try: remove(namespace("acme-second", nil))},
		{name: "created with the label by an adopter", as: adopter, try: create(namespace("x", acme))},
		{name: "set by an adopter", as: adopter, try: patchOf(plain, set)},
		{name: "removed by an adopter", as: adopter, try: patchOf(ours, drop)},

		{name: "created with the label", as: eve, denied: true, try: create(namespace("x", acme))},
		{name: "created with the label, empty", as: eve, denied: true, try: create(namespace("x", map[string]string{lethev1.LabelTenant: ""}))},
		{name: "set", as: eve, denied: true, try: patchOf(plain, set)},
		{name: "set to nothing", as: eve, denied: true, try: patchOf(plain, empty)},
		{name: "changed", as: eve, denied: true, try: patchOf(ours, other)},
		{name: "emptied", as: eve, denied: true, try: patchOf(ours, empty)},
		{name: "removed", as: eve, denied: true, try: patchOf(ours, drop)},
		{name: "set through status", as: eve, denied: true, try: patchStatusOf(plain, set)},
		{name: "removed through status", as: eve, denied: true, try: patchStatusOf(ours, drop)},
		{name: "set through finalize", as: eve, denied: true, try: func(ctx context.Context, c identity) error {
			var ns corev1.Namespace
			if err := c.Get(ctx, client.ObjectKey{Name: otherNS}, &ns); err != nil {
				return err
			}
			ns.Labels[lethev1.LabelTenant] = tenant
			return c.SubResource("finalize").Update(ctx, &ns, client.DryRunAll)
		}},
		{name: "taken from another tenant by an adopter of acme", as: adopter, denied: true, try: patchOf(namespace("globex-bots", nil), set)},
		{name: "given to another tenant by an adopter of acme", as: adopter, denied: true, try: patchOf(ours, other)},
		{name: "the manager creates a namespace without it", as: manager, denied: true, try: create(namespace("x", standard))},
		{name: "the manager takes a namespace that exists", as: manager, denied: true, try: patchOf(plainWalled, set)},
		{name: "the manager changes a namespace that is no tenant's", as: manager, denied: true, try: patchOf(plainWalled, noted)},
		{name: "the manager lets a namespace go, and its walls with it", as: manager, denied: true, try: patchOf(walled, drop)},
		{name: "the manager moves a namespace to another tenant", as: manager, denied: true, try: patchOf(walled, other)},
		{name: "the manager deletes a namespace that is no tenant's", as: manager, denied: true, try: remove(plain)},
	})
}

func TestTenantInUseIsNotDeleted(t *testing.T) {
	used, idle := makeTenant("used"), makeTenant("idle")
	mustCreate(t, used)
	mustCreate(t, idle)
	for o, status := range map[*lethev1.Tenant]metav1.ConditionStatus{used: metav1.ConditionTrue, idle: metav1.ConditionFalse} {
		o.Status.Conditions = []metav1.Condition{{Type: lethev1.ConditionInUse, Status: status, Reason: "Test", LastTransitionTime: metav1.Now()}}
		if err := admin.Status().Update(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	climb(t, "lethe-tenant-in-use", []attempt{
		{name: "a tenant with bots", as: admin, denied: true, try: remove(used)},
		{name: "a tenant without", as: admin, try: remove(idle)},
	})
}

func TestOnlyKubeletsAskForTokens(t *testing.T) {
	ask := func(ns string) func(context.Context, identity) error {
		return func(ctx context.Context, c identity) error {
			return requestToken(ctx, c, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "b-bot"}})
		}
	}
	climb(t, "lethe-tokens", []attempt{
		{name: "a kubelet", as: as("system:node:n", groupMost, "system:nodes"), try: ask(tenantNS)},
		{name: "somebody in a namespace of nobody", as: as("eve", groupMost), try: ask(otherNS)},
		{name: "somebody with every right in the namespace", as: as("eve", groupMost), denied: true, try: ask(tenantNS)},
		{name: "the manager", as: as(managerUser, groupMost), denied: true, try: ask(tenantNS)},
		{name: "the administrator", as: admin, denied: true, try: ask(tenantNS)},
	})
}

func mustCreate(t *testing.T, o client.Object) {
	t.Helper()
	if err := admin.Create(t.Context(), o); err != nil {
		t.Fatal(err)
	}
}

func patchOf(o client.Object, merge string) func(context.Context, identity) error {
	return func(ctx context.Context, c identity) error {
		return c.Patch(ctx, o.DeepCopyObject().(client.Object), client.RawPatch("application/merge-patch+json", []byte(merge)), client.DryRunAll)
	}
}

func patchStatusOf(o client.Object, merge string) func(context.Context, identity) error {
	return func(ctx context.Context, c identity) error {
		return c.Status().Patch(ctx, o.DeepCopyObject().(client.Object), client.RawPatch("application/merge-patch+json", []byte(merge)), client.DryRunAll)
	}
}

func remove(o client.Object) func(context.Context, identity) error {
	return func(ctx context.Context, c identity) error {
		return c.Delete(ctx, o.DeepCopyObject().(client.Object), client.DryRunAll)
	}
}

func removeAll(o client.Object, ns string) func(context.Context, identity) error {
	return func(ctx context.Context, c identity) error {
		return c.DeleteAllOf(ctx, o.DeepCopyObject().(client.Object), client.InNamespace(ns), client.DryRunAll)
	}
}

func requestToken(ctx context.Context, c identity, sa *corev1.ServiceAccount) error {
	return c.SubResource("token").Create(ctx, sa, &authenticationv1.TokenRequest{
		Spec: authenticationv1.TokenRequestSpec{Audiences: []string{lethev1.AudienceKeyserver}}})
}

// connect opens a subresource of a pod the way kubectl does, as the identity of the client.
func connect(ctx context.Context, c identity, ns, pod, subresource string) error {
	clientset, err := kubernetes.NewForConfig(c.config)
	if err != nil {
		return err
	}
	request := clientset.CoreV1().RESTClient().Post()
	if subresource == "proxy" || subresource == "log" {
		request = clientset.CoreV1().RESTClient().Get()
	}
	return request.Namespace(ns).Resource("pods").Name(pod).SubResource(subresource).Param("command", "id").Param("container", "bot").Do(ctx).Error()
}

func runnable(name, ns string) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name, Labels: botLabels()}, Spec: podSpec()}
}

func botLabels() map[string]string { return map[string]string{lethev1.LabelComponent: "bot"} }

func podSpec() corev1.PodSpec {
	return corev1.PodSpec{ServiceAccountName: "b-bot", AutomountServiceAccountToken: new(false),
		Containers: []corev1.Container{{Name: "bot", Image: "bot:1"}}}
}

func template() corev1.PodTemplateSpec {
	return corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: botLabels()}, Spec: podSpec()}
}

func statefulSet(name, ns string) *appsv1.StatefulSet {
	return &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name},
		Spec: appsv1.StatefulSetSpec{Selector: &metav1.LabelSelector{MatchLabels: template().Labels}, Template: template()}}
}

// workloads holds one of every kind that makes pods.
func workloads(ns string) map[string]client.Object {
	meta := metav1.ObjectMeta{Namespace: ns, Name: "w"}
	selector := &metav1.LabelSelector{MatchLabels: template().Labels}
	once := template()
	once.Spec.RestartPolicy = corev1.RestartPolicyNever
	return map[string]client.Object{
		"StatefulSet":           statefulSet("w", ns),
		"Deployment":            &appsv1.Deployment{ObjectMeta: meta, Spec: appsv1.DeploymentSpec{Selector: selector, Template: template()}},
		"ReplicaSet":            &appsv1.ReplicaSet{ObjectMeta: meta, Spec: appsv1.ReplicaSetSpec{Selector: selector, Template: template()}},
		"DaemonSet":             &appsv1.DaemonSet{ObjectMeta: meta, Spec: appsv1.DaemonSetSpec{Selector: selector, Template: template()}},
		"ReplicationController": &corev1.ReplicationController{ObjectMeta: meta, Spec: corev1.ReplicationControllerSpec{Selector: template().Labels, Template: new(template())}},
		"Job":                   &batchv1.Job{ObjectMeta: meta, Spec: batchv1.JobSpec{Template: once}},
		"CronJob":               &batchv1.CronJob{ObjectMeta: meta, Spec: batchv1.CronJobSpec{Schedule: "@daily", JobTemplate: batchv1.JobTemplateSpec{Spec: batchv1.JobSpec{Template: once}}}},
		"Pod":                   runnable("w", ns),
	}
}

func makeTenant(name string) *lethev1.Tenant {
	return &lethev1.Tenant{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: lethev1.TenantSpec{Namespaces: []lethev1.TenantNamespace{{Name: name}}}}
}
