package walls

import (
	"context"
	"fmt"
	"strings"
	"testing"

	batchv1 "k8s.io/api/batch/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	lethev1 "github.com/lethe-dev/lethe/api/v1alpha1"
)

// editorOf is somebody who has what the built-in role edit gives, in one namespace and nowhere else.
func editorOf(t *testing.T, ns string) identity {
	t.Helper()
	if prepared != nil {
		t.Fatal(prepared)
	}
	s := &sweep{t: t}
	name := "walls:edit-" + ns
	given := role(name, append(s.rules("edit", map[string]bool{}), s.rules("view", map[string]bool{})...)...)
	for _, o := range []client.Object{given, binding(ns, "walls-edit", name, group(name))} {
		if err := admin.Create(t.Context(), o); err != nil && !apierrors.IsAlreadyExists(err) {
			t.Fatal(err)
		}
	}
	editor := as("eddy", name)
	waitFor(t, "the rights of edit in "+ns, func(ctx context.Context) bool {
		return editor.List(ctx, &corev1.PodList{}, client.InNamespace(ns)) == nil
	})
	return editor
}

func evict(ns, name string) func(context.Context, identity) error {
	return func(ctx context.Context, c identity) error {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}}
		zero := int64(0)
		return c.SubResource("eviction").Create(ctx, pod, &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name},
			DeleteOptions: &metav1.DeleteOptions{GracePeriodSeconds: &zero, DryRun: []string{metav1.DryRunAll}}})
	}
}

// TestEvictionNeedsARightInTheWholeCluster: evicting is deleting; who drains nodes goes on.
func TestEvictionNeedsARightInTheWholeCluster(t *testing.T) {
	editor, elsewhere := editorOf(t, tenantNS), editorOf(t, otherNS)
	drains := role("walls:drains", rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"pods/eviction"}, Verbs: []string{"create"}})
	mustCreate(t, drains)
	mustCreate(t, bindCluster(drains.Name))
	for _, ns := range []string{tenantNS, otherNS} {
		pod := runnable("evicted", ns)
		pod.Spec.NodeName = "n"
		if err := cluster().Create(t.Context(), pod); err != nil {
			t.Fatal(err)
		}
	}
	drainer := as("autoscaler", drains.Name)
	waitFor(t, "the right to evict", func(ctx context.Context) bool { return evict(otherNS, "evicted")(ctx, drainer) == nil })
	climb(t, "lethe-eviction", []attempt{
		{name: "who drains nodes", as: drainer, try: evict(tenantNS, "evicted")},
		{name: "the administrator", as: admin, try: evict(tenantNS, "evicted")},
		{name: "edit with the verb debug on the Tenant", as: as("eddy", "walls:edit-"+tenantNS, groupDebug), try: evict(tenantNS, "evicted")},
		{name: "edit in a namespace of nobody", as: elsewhere, try: evict(otherNS, "evicted")},
		{name: "edit", as: editor, denied: true, try: evict(tenantNS, "evicted")},
	})
}

// TestNobodyHoldsUpDrains: a budget over a bot's one pod would keep its node from being drained.
func TestNobodyHoldsUpDrains(t *testing.T) {
	editor, elsewhere := editorOf(t, tenantNS), editorOf(t, otherNS)
	budget := func(ns, name string, labels map[string]string) *policyv1.PodDisruptionBudget {
		return &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name},
			Spec: policyv1.PodDisruptionBudgetSpec{Selector: &metav1.LabelSelector{MatchLabels: labels}}}
	}
	mustCreate(t, budget(tenantNS, "walls-there", map[string]string{"a": "b"}))
	climb(t, "lethe-disruption-budgets", []attempt{
		{name: "the administrator", as: admin, try: create(budget(tenantNS, "x", botLabels()))},
		{name: "edit with the verb debug on the Tenant", as: as("eddy", "walls:edit-"+tenantNS, groupDebug), try: create(budget(tenantNS, "x", botLabels()))},
		{name: "edit in a namespace of nobody", as: elsewhere, try: create(budget(otherNS, "x", botLabels()))},
		{name: "edit takes one away", as: editor, try: remove(budget(tenantNS, "walls-there", nil))},
		{name: "edit, over bots", as: editor, denied: true, try: create(budget(tenantNS, "x", botLabels()))},
		{name: "edit, over everything", as: editor, denied: true, try: create(budget(tenantNS, "x", nil))},
		{name: "edit changes one", as: editor, denied: true, try: patchOf(budget(tenantNS, "walls-there", nil), `{"spec":{"maxUnavailable":0}}`)},
	})
}

// TestEventsOfATenantsNamespace: no quota counts Events, so who holds a namespace alone writes none, and nobody large
// ones.
func TestEventsOfATenantsNamespace(t *testing.T) {
	editor, elsewhere := editorOf(t, tenantNS), editorOf(t, otherNS)
	writes := role("walls:events", rbacv1.PolicyRule{APIGroups: []string{"", "events.k8s.io"}, Resources: []string{"events"}, Verbs: []string{"create", "patch", "update"}})
	mustCreate(t, writes)
	mustCreate(t, bindCluster(writes.Name))
	core := func(ns string, message int, annotation string) *corev1.Event {
		return &corev1.Event{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "e", Annotations: map[string]string{"a": annotation}},
			InvolvedObject: corev1.ObjectReference{Namespace: ns, Name: "x"}, Message: strings.Repeat("m", message)}
	}
	about := func(name string) *corev1.Event {
		e := core(tenantNS, 1, "")
		e.InvolvedObject.Name = name
		return e
	}
	events := func(ns string, annotation string) *eventsv1.Event {
		return &eventsv1.Event{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "e", Annotations: map[string]string{"a": annotation}},
			EventTime: metav1.NowMicro(), ReportingController: "x.example/y", ReportingInstance: "x", Action: "x", Reason: "x", Type: "Normal",
			Regarding: corev1.ObjectReference{Namespace: ns, Name: "x"}, Note: strings.Repeat("n", 1000)}
	}
	addon := as("addon", writes.Name)
	waitFor(t, "the right to write events", func(ctx context.Context) bool { return create(core(otherNS, 1, ""))(ctx, addon) == nil })
	climb(t, "lethe-events", []attempt{
		{name: "an add-on", as: addon, try: create(core(tenantNS, 4000, "x"))},
		{name: "an add-on, the new way", as: addon, try: create(events(tenantNS, "x"))},
		{name: "the manager", as: as(managerUser, "system:serviceaccounts"), try: create(events(tenantNS, "x"))},
		{name: "edit in a namespace of nobody", as: elsewhere, try: create(core(otherNS, 20000, "x"))},
		{name: "edit", as: editor, denied: true, try: create(core(tenantNS, 10, ""))},
		{name: "edit, the new way", as: editor, denied: true, try: create(events(tenantNS, ""))},
		{name: "a long message", as: addon, denied: true, try: create(core(tenantNS, 8193, ""))},
		{name: "a long annotation", as: addon, denied: true, try: create(core(tenantNS, 10, strings.Repeat("a", 4097)))},
		{name: "a long annotation, the new way", as: addon, denied: true, try: create(events(tenantNS, strings.Repeat("a", 4097)))},
		{name: "a long name of what it is about", as: addon, denied: true, try: create(about(strings.Repeat("n", 3000)))},
	})
}

// TestNoTokensThatNeverExpire: a Secret of that type is filled with one.
func TestNoTokensThatNeverExpire(t *testing.T) {
	editor, elsewhere := editorOf(t, tenantNS), editorOf(t, otherNS)
	token := func(ns string) *corev1.Secret {
		return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "token", Annotations: map[string]string{corev1.ServiceAccountNameKey: "b-bot"}},
			Type: corev1.SecretTypeServiceAccountToken}
	}
	plain := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: tenantNS, Name: "plain", Annotations: map[string]string{corev1.ServiceAccountNameKey: "b-bot"}}}
	// One that was there when the namespace was taken over.
	const ns = "acme-before"
	mustCreate(t, namespace(ns, nil))
	for _, name := range []string{"b-bot", "other"} {
		mustCreate(t, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}})
	}
	before := token(ns)
	before.Annotations[corev1.ServiceAccountNameKey] = "other"
	mustCreate(t, before)
	if err := admin.Patch(t.Context(), namespace(ns, nil), client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"labels":{"lethe.dev/tenant":"acme"}}}`))); err != nil {
		t.Fatal(err)
	}
	climb(t, "lethe-token-secrets", []attempt{
		{name: "edit in a namespace of nobody", as: elsewhere, try: create(token(otherNS))},
		{name: "another type", as: editor, try: create(plain)},
		{name: "a label on one that was there", as: admin, try: patchOf(before, `{"metadata":{"labels":{"a":"b"}}}`)},
		{name: "edit", as: editor, denied: true, try: create(token(tenantNS))},
		{name: "the administrator", as: admin, denied: true, try: create(token(tenantNS))},
		{name: "one that was there, for a bot", as: admin, denied: true, try: patchOf(before, `{"metadata":{"annotations":{"kubernetes.io/service-account.name":"b-bot"}}}`)},
	})
}

// labelled are objects of every kind that the manager caches by its label.
func labelled(ns, name string) map[string]client.Object {
	meta := metav1.ObjectMeta{Namespace: ns, Name: name, Labels: map[string]string{lethev1.LabelManagedBy: lethev1.ManagedByLethe}}
	set := statefulSet(name, ns)
	job, cron := workloads(ns)["Job"].(*batchv1.Job), workloads(ns)["CronJob"].(*batchv1.CronJob)
	set.ObjectMeta, job.ObjectMeta, cron.ObjectMeta = meta, meta, meta
	set.Spec.Replicas = new(int32)
	plainClaim := claim(name, ns, nil)
	plainClaim.ObjectMeta = meta
	return map[string]client.Object{
		"statefulsets": set, "jobs": job, "cronjobs": cron, "persistentvolumeclaims": plainClaim,
		"configmaps":      &corev1.ConfigMap{ObjectMeta: meta},
		"serviceaccounts": &corev1.ServiceAccount{ObjectMeta: meta},
		"resourcequotas":  &corev1.ResourceQuota{ObjectMeta: meta},
		"limitranges":     &corev1.LimitRange{ObjectMeta: meta},
		"networkpolicies": &networkingv1.NetworkPolicy{ObjectMeta: meta},
		"rolebindings":    &rbacv1.RoleBinding{ObjectMeta: meta, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "view"}},
	}
}

// TestOnlyTheManagerGivesItsLabel: what carries it the manager keeps in memory, in the whole cluster, so nobody else
// gives it, above all where no quota and no bound on sizes holds.
func TestOnlyTheManagerGivesItsLabel(t *testing.T) {
	elsewhere, editor := editorOf(t, otherNS), editorOf(t, tenantNS)
	most, adopter, adoptAll := as("eve", groupMost), as("velero", groupMost, groupAdopt), as("restorer", groupMost, groupAdoptAll)
	const add, off = `{"metadata":{"labels":{"app.kubernetes.io/managed-by":"lethe"}}}`, `{"metadata":{"labels":{"app.kubernetes.io/managed-by":null}}}`
	const grow = `{"metadata":{"annotations":{"a":"b"}}}`
	var attempts []attempt
	for kind, object := range labelled(otherNS, "fresh") {
		plain, left := labelled(otherNS, "unlabelled")[kind], labelled(otherNS, "left")[kind]
		plain.SetLabels(nil)
		mustCreate(t, plain)
		mustCreate(t, left) // as what is left where a namespace lost its label
		other := labelled(otherNS, "helms")[kind]
		other.SetLabels(map[string]string{lethev1.LabelManagedBy: "Helm"})
		attempts = append(attempts,
			attempt{name: kind + " by the administrator", as: admin, try: create(object)},
			attempt{name: kind + " restored by who may adopt every Tenant", as: adoptAll, try: create(object)},
			attempt{name: kind + " by Kubernetes", as: cluster(), try: create(object)},
			attempt{name: kind + " of another client's label", as: most, try: create(other)},
			attempt{name: kind + ", the label taken off", as: most, try: patchOf(left, off)},
			attempt{name: kind + ", changed with a right in the whole cluster", as: most, try: patchOf(left, grow)},
			attempt{name: kind + " by somebody", as: most, denied: true, try: create(object)},
			attempt{name: kind + ", labelled by somebody", as: most, denied: true, try: patchOf(plain, add)},
			attempt{name: kind + " by who may adopt another namespace's Tenant", as: adopter, denied: true, try: create(object)},
		)
	}
	for _, kind := range []string{"statefulsets", "configmaps", "persistentvolumeclaims", "networkpolicies", "jobs", "serviceaccounts"} {
		attempts = append(attempts,
			attempt{name: kind + " by edit", as: elsewhere, denied: true, try: create(labelled(otherNS, "fresh")[kind])},
			attempt{name: kind + " labelled by edit", as: elsewhere, denied: true, try: patchOf(labelled(otherNS, "unlabelled")[kind], add)},
			attempt{name: kind + " that is left, made larger by edit", as: elsewhere, denied: true, try: patchOf(labelled(otherNS, "left")[kind], grow)})
	}
	inTenants := labelled(tenantNS, "labelled-walls")
	attempts = append(attempts,
		attempt{name: "a ConfigMap in a Tenant's namespace by edit", as: editor, denied: true, try: create(inTenants["configmaps"])},
		attempt{name: "a ServiceAccount in a Tenant's namespace by edit", as: editor, denied: true, try: create(inTenants["serviceaccounts"])},
		attempt{name: "a ConfigMap in a Tenant's namespace by who may adopt it", as: adopter, try: create(inTenants["configmaps"])},
		attempt{name: "its certificates by the keyserver", as: as(keyserverUser, "system:serviceaccounts"), try: create(labelled("lethe-system", "walls")["configmaps"])},
		attempt{name: "a ConfigMap in a Tenant's namespace by the manager", as: as(managerUser, groupMost), try: create(inTenants["configmaps"])})
	// Without them no keyserver is ever ready.
	attempts = append(attempts,
		attempt{name: "the keyserver's certificates", as: as(keyserverUser, groupMost), try: create(labelled(otherNS, "certificates")["configmaps"])})
	climb(t, "lethe-managed-by", attempts)
}

// TestManagerMakesNoClaimsByTemplates: Kubernetes would make them, with any label and on any disk.
func TestManagerMakesNoClaimsByTemplates(t *testing.T) {
	manager := as(managerUser, groupMost)
	bound := claim("data", "", nil)
	bound.Namespace, bound.Spec.VolumeName = "", "pv-of-former"
	bound.Labels = map[string]string{"velero.io/exclude-from-backup": "true"}
	ephemeral := corev1.Volume{Name: "e", VolumeSource: corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{
		VolumeClaimTemplate: &corev1.PersistentVolumeClaimTemplate{ObjectMeta: metav1.ObjectMeta{Labels: bound.Labels}, Spec: bound.Spec}}}}
	templates, pods := statefulSet("x", tenantNS), statefulSet("x", tenantNS)
	templates.Spec.VolumeClaimTemplates = []corev1.PersistentVolumeClaim{*bound}
	pods.Spec.Template.Spec.Volumes = []corev1.Volume{ephemeral}
	job, cron := workloads(tenantNS)["Job"].(*batchv1.Job), workloads(tenantNS)["CronJob"].(*batchv1.CronJob)
	job.Spec.Template.Spec.Volumes = []corev1.Volume{ephemeral}
	cron.Spec.JobTemplate.Spec.Template.Spec.Volumes = []corev1.Volume{ephemeral}
	theirs := statefulSet("theirs", tenantNS)
	theirs.Labels = map[string]string{"policy.example/x": "y", "app.kubernetes.io/part-of": "z", "lethe.dev/a": "b"}
	theirs.Annotations = map[string]string{"policy.example/x": "y", "lethe.dev/a": "b"}
	if err := cluster().Create(t.Context(), theirs); err != nil {
		t.Fatal(err)
	}
	own := `"app.kubernetes.io/part-of":null,"lethe.dev/a":null`
	climb(t, "lethe-manager-objects", []attempt{
		{name: "a StatefulSet without", as: manager, try: create(statefulSet("x", tenantNS))},
		{name: "Lethe's own labels taken away", as: manager, try: patchOf(theirs, `{"metadata":{"labels":{`+own+`},"annotations":{"lethe.dev/a":null}}}`)},
		{name: "by somebody else", as: cluster(), try: create(templates)},

		{name: "a StatefulSet's templates", as: manager, denied: true, try: create(templates)},
		{name: "a StatefulSet's pods", as: manager, denied: true, try: create(pods)},
		{name: "a Job's pods", as: manager, denied: true, try: create(job)},
		{name: "a CronJob's pods", as: manager, denied: true, try: create(cron)},
		{name: "others' label taken away", as: manager, denied: true, try: patchOf(theirs, `{"metadata":{"labels":{"policy.example/x":null}}}`)},
		{name: "others' annotation taken away", as: manager, denied: true, try: patchOf(theirs, `{"metadata":{"annotations":{"policy.example/x":null}}}`)},
		{name: "all labels taken away", as: manager, denied: true, try: patchOf(theirs, `{"metadata":{"labels":null}}`)},
	})
}

// TestAVolumeIsChangedByNobodyElse: where a claim is bound, what holds it and what it goes with.
func TestAVolumeIsChangedByNobodyElse(t *testing.T) {
	editor, most, manager := editorOf(t, tenantNS), as("eve", groupMost), as(managerUser, groupMost)
	adopter := as("gitops", groupMost, groupAdopt)
	mustCreate(t, claim("pending-walls", tenantNS, recordOf("acme-uid", "9")))
	mustCreate(t, claim("free-walls", tenantNS, nil))
	ours, free := claim("pending-walls", tenantNS, nil), claim("free-walls", tenantNS, nil)
	disk, held, note := `{"spec":{"volumeName":"pv-of-globex"}}`, `{"metadata":{"finalizers":["x.example/held"]}}`, `{"metadata":{"annotations":{"volume.kubernetes.io/selected-node":"n"}}}`
	label := `{"metadata":{"labels":{"velero.io/exclude-from-backup":"true"}}}`
	owned := `{"metadata":{"ownerReferences":[{"apiVersion":"v1","kind":"ConfigMap","name":"x","uid":"1"}]}}`
	climb(t, "lethe-volumes", []attempt{
		{name: "bound by Kubernetes", as: as("system:serviceaccount:kube-system:persistent-volume-binder", groupMost), try: patchOf(ours, disk)},
		{name: "bound by who may adopt", as: adopter, try: patchOf(ours, disk)},
		{name: "placed by the scheduler", as: as("system:kube-scheduler", groupMost), try: patchOf(ours, note)},
		{name: "protected by a driver", as: most, try: patchOf(ours, held)},
		{name: "one's own bound", as: editor, try: patchOf(free, disk)},
		{name: "one's own held", as: editor, try: patchOf(free, held)},

		{name: "bound by edit", as: editor, denied: true, try: patchOf(ours, disk)},
		{name: "bound with every right in the cluster", as: most, denied: true, try: patchOf(ours, disk)},
		{name: "bound by the manager", as: manager, denied: true, try: patchOf(ours, disk)},
		{name: "held by edit", as: editor, denied: true, try: patchOf(ours, held)},
		{name: "placed by edit", as: editor, denied: true, try: patchOf(ours, note)},
		{name: "left out of backups by edit", as: editor, denied: true, try: patchOf(ours, label)},
		{name: "given an owner that goes, by edit", as: editor, denied: true, try: patchOf(ours, owned)},
	})
}

// TestKindsWithoutDataAreBounded: what somebody with edit or admin may make has room for little, in every text that
// Kubernetes does not bound.
func TestKindsWithoutDataAreBounded(t *testing.T) {
	most := as("someone", groupMost, groupAdoptAll, "walls:leases")
	mustCreate(t, role("walls:leases", rbacv1.PolicyRule{APIGroups: []string{"coordination.k8s.io"}, Resources: []string{"leases"}, Verbs: []string{"*"}}))
	mustCreate(t, bindCluster("walls:leases"))
	meta := func() metav1.ObjectMeta { return metav1.ObjectMeta{Namespace: tenantNS, Name: "sized-x"} }
	text := func(n int) string { return strings.Repeat("x", n) }
	for name, make := range map[string]func(n int) client.Object{
		"Secrets of a ServiceAccount": func(n int) client.Object {
			sa := &corev1.ServiceAccount{ObjectMeta: meta()}
			for range n / 250 {
				sa.ImagePullSecrets = append(sa.ImagePullSecrets, corev1.LocalObjectReference{Name: text(250)})
			}
			return sa
		},
		"rules of a Role": func(n int) client.Object {
			return &rbacv1.Role{ObjectMeta: meta(), Rules: []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: []string{"get"}, ResourceNames: []string{text(n)}}}}
		},
		"subjects of a RoleBinding": func(n int) client.Object { return binding(tenantNS, "sized-x", "view", group(text(n))) },
		"the holder of a Lease": func(n int) client.Object {
			return &coordinationv1.Lease{ObjectMeta: meta(), Spec: coordinationv1.LeaseSpec{HolderIdentity: new(text(n))}}
		},
		"the selector of a claim": func(n int) client.Object {
			c := claim("sized-x", tenantNS, nil)
			c.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{}}
			for i := range n / 60 {
				c.Spec.Selector.MatchLabels[fmt.Sprintf("l%07d", i)] = text(52)
			}
			return c
		},
	} {
		if err := most.Create(t.Context(), make(20000), client.DryRunAll); err == nil || !strings.Contains(err.Error(), "16384 bytes") {
			t.Errorf("20000 bytes of %s: %v", name, err)
		}
		if err := most.Create(t.Context(), make(12000), client.DryRunAll); err != nil {
			t.Errorf("12000 bytes of %s: %v", name, err)
		}
	}
}
