package walls

import (
	"context"
	"maps"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	lethev1 "github.com/lethe-dev/lethe/api/v1alpha1"
)

// claim is a PersistentVolumeClaim with annotations; with some it also carries the labels of a bot's.
func claim(name, ns string, record map[string]string) *corev1.PersistentVolumeClaim {
	c := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name, Annotations: record},
		Spec: corev1.PersistentVolumeClaimSpec{AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}}}}
	if record != nil {
		c.Labels = map[string]string{lethev1.LabelManagedBy: lethev1.ManagedByLethe, lethev1.LabelComponent: "bot", lethev1.LabelBot: "b", lethev1.LabelTenant: tenant}
	}
	return c
}

func recordOf(tenantUID, botUID string) map[string]string {
	return map[string]string{lethev1.AnnotationTenantUID: tenantUID, lethev1.AnnotationBotUID: botUID, lethev1.AnnotationBot: "b", lethev1.AnnotationReclaimPolicy: "Retain"}
}

// TestTheRecordOfAVolume: whose a volume is, nobody says but the manager and who may adopt, and the manager not
// across Tenants.
func TestTheRecordOfAVolume(t *testing.T) {
	manager, eve, adopter := as(managerUser, groupMost), as("eve", groupMost), as("gitops", groupMost, groupAdopt)
	operator := as("olga", groupOperate, groupMost)
	given := recordOf("former", "gone")
	given[lethev1.AnnotationAdopt] = "acme-uid"
	for name, record := range map[string]map[string]string{"ours": recordOf("acme-uid", "1"), "former": recordOf("former", "gone"), "given": given} {
		mustCreate(t, claim(name, tenantNS, record))
	}
	grows := "grows"
	mustCreate(t, &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: grows}, Provisioner: "example.com/x", AllowVolumeExpansion: new(true)})
	full := claim("full", tenantNS, recordOf("acme-uid", "3"))
	full.Spec.StorageClassName, full.Spec.VolumeName = &grows, "pv"
	mustCreate(t, full)
	full.Status.Phase = corev1.ClaimBound
	if err := admin.Status().Update(t.Context(), full); err != nil {
		t.Fatal(err)
	}
	mustCreate(t, claim("plain", tenantNS, nil))
	mustCreate(t, claim("plain", otherNS, nil))
	ours, former, theGiven, plain := claim("ours", tenantNS, nil), claim("former", tenantNS, nil), claim("given", tenantNS, nil), claim("plain", tenantNS, nil)
	write := func(key, value string) string { return `{"metadata":{"annotations":{"` + key + `":"` + value + `"}}}` }
	const take = `{"metadata":{"annotations":{"lethe.dev/tenant-uid":"acme-uid","lethe.dev/bot-uid":"2","lethe.dev/adopt":null}}}`
	const grow = `{"spec":{"resources":{"requests":{"storage":"2Gi"}}}}`
	cloned := claim("new", tenantNS, recordOf("acme-uid", "2"))
	cloned.Spec.DataSource = &corev1.TypedLocalObjectReference{Kind: "PersistentVolumeClaim", Name: "former"}
	bound := claim("new", tenantNS, recordOf("acme-uid", "2"))
	bound.Spec.VolumeName = "pv-of-former"
	climb(t, "lethe-volumes", []attempt{
		{name: "a bot's volume by the manager", as: manager, try: create(claim("new", tenantNS, recordOf("acme-uid", "2")))},
		{name: "another bot of the Tenant, by the manager", as: manager, try: patchOf(ours, write(lethev1.AnnotationBotUID, "2"))},
		{name: "what was given to the Tenant, by the manager", as: manager, try: patchOf(theGiven, take)},
		{name: "deleted by the manager", as: manager, try: remove(ours)},
		{name: "deleted with its namespace", as: as("system:serviceaccount:kube-system:namespace-controller", groupMost), try: remove(ours)},
		{name: "a volume of one's own", as: eve, try: create(claim("mine", tenantNS, nil))},
		{name: "another annotation, by a provisioner", as: eve, try: patchOf(ours, write("volume.kubernetes.io/selected-node", "n"))},
		{name: "a volume of one's own, deleted", as: eve, try: remove(plain)},
		{name: "a record in a namespace of nobody", as: eve, try: patchOf(claim("plain", otherNS, nil), write(lethev1.AnnotationTenantUID, "x"))},
		{name: "restored by who may adopt", as: adopter, try: create(claim("restored", tenantNS, recordOf("former", "gone")))},
		{name: "given by who may adopt", as: adopter, try: patchOf(former, write(lethev1.AnnotationAdopt, "acme-uid"))},
		{name: "resized by who may adopt", as: adopter, try: patchOf(claim("full", tenantNS, nil), grow)},
		{name: "deleted by who may adopt", as: adopter, try: remove(former)},

		{name: "given by who may do the rest", as: eve, denied: true, try: patchOf(former, write(lethev1.AnnotationAdopt, "acme-uid"))},
		{name: "given by the Tenant's own people", as: operator, denied: true, try: patchOf(former, write(lethev1.AnnotationAdopt, "acme-uid"))},
		{name: "a record on one's own volume", as: eve, denied: true, try: patchOf(plain, write(lethev1.AnnotationTenantUID, "acme-uid"))},
		{name: "made with a record", as: eve, denied: true, try: create(claim("new", tenantNS, recordOf("acme-uid", "1")))},
		{name: "our label on one's own volume", as: eve, denied: true, try: patchOf(plain, `{"metadata":{"labels":{"app.kubernetes.io/managed-by":"lethe"}}}`)},
		{name: "our label taken", as: eve, denied: true, try: patchOf(ours, `{"metadata":{"labels":{"app.kubernetes.io/managed-by":null}}}`)},
		{name: "the record taken", as: eve, denied: true, try: patchOf(ours, `{"metadata":{"annotations":{"lethe.dev/bot-uid":null}}}`)},
		{name: "what becomes of it changed", as: eve, denied: true, try: patchOf(ours, write(lethev1.AnnotationReclaimPolicy, "Delete"))},
		{name: "the record through status", as: eve, denied: true, try: func(ctx context.Context, c identity) error {
			live := ours.DeepCopy()
			if err := c.Get(ctx, client.ObjectKeyFromObject(ours), live); err != nil {
				return err
			}
			live.Annotations[lethev1.AnnotationBotUID] = "2"
			return c.Status().Update(ctx, live, client.DryRunAll)
		}},
		{name: "a bot's volume resized", as: eve, denied: true, try: patchOf(claim("full", tenantNS, nil), grow)},
		{name: "a bot's volume deleted", as: eve, denied: true, try: remove(ours)},
		{name: "all volumes deleted", as: eve, denied: true, try: func(ctx context.Context, c identity) error {
			return c.DeleteAllOf(ctx, &corev1.PersistentVolumeClaim{}, client.InNamespace(tenantNS), client.DryRunAll)
		}},
		{name: "another Tenant's volume by the manager", as: manager, denied: true, try: patchOf(former, take)},
		{name: "nobody's volume by the manager", as: manager, denied: true, try: patchOf(plain, take)},
		{name: "a volume that was given to another Tenant", as: manager, denied: true, try: patchOf(theGiven, write(lethev1.AnnotationTenantUID, "another"))},
		{name: "the manager gives", as: manager, denied: true, try: patchOf(former, write(lethev1.AnnotationAdopt, "acme-uid"))},
		{name: "the manager gives and takes", as: manager, denied: true, try: create(claim("new", tenantNS, maps.Clone(given)))},
		{name: "a copy of another volume by the manager", as: manager, denied: true, try: create(cloned)},
		{name: "a certain disk by the manager", as: manager, denied: true, try: create(bound)},
		{name: "a stranger's volume deleted by the manager", as: manager, denied: true, try: remove(plain)},
	})
}

// TestWhatLetheRunsIsNotDeletedByHand: as with making and changing, and Kubernetes goes on.
func TestWhatLetheRunsIsNotDeletedByHand(t *testing.T) {
	eve, doctor := as("eve", groupMost), as("doctor", groupMost, groupDebug)
	controller := as("system:kube-controller-manager", groupMost)
	ours := map[string]string{lethev1.LabelManagedBy: lethev1.ManagedByLethe, lethev1.LabelComponent: "bot"}
	var attempts []attempt
	for kind, object := range workloads(tenantNS) {
		if kind != "StatefulSet" && kind != "Job" && kind != "CronJob" && kind != "Pod" {
			continue
		}
		object.SetName("deleted")
		labels := maps.Clone(object.GetLabels())
		if labels == nil {
			labels = map[string]string{}
		}
		maps.Copy(labels, ours)
		if kind == "Pod" {
			delete(labels, lethev1.LabelManagedBy) // a StatefulSet's pods carry the template's labels
		}
		object.SetLabels(labels)
		if err := controller.Create(t.Context(), object); err != nil {
			t.Fatal(err)
		}
		attempts = append(attempts,
			attempt{name: kind + " by somebody with every right in the namespace", as: eve, denied: true, try: remove(object)},
			attempt{name: kind + " by the administrator's hand", as: admin, try: remove(object)},
			attempt{name: kind + " with the verb debug on the tenant", as: doctor, try: remove(object)},
			attempt{name: kind + " by the manager", as: as(managerUser, groupMost), try: remove(object)},
			attempt{name: kind + " by garbage collection", as: as("system:serviceaccount:kube-system:generic-garbage-collector", groupMost), try: remove(object)},
			attempt{name: kind + " with its namespace", as: as("system:serviceaccount:kube-system:namespace-controller", groupMost), try: remove(object)})
	}
	pod := runnable("deleted", tenantNS)
	for name, user := range map[string]identity{
		"a node": as("system:node:n", groupMost, "system:nodes"), "the scheduler": as("system:kube-scheduler", groupMost),
		"the controller of StatefulSets": as("system:serviceaccount:kube-system:statefulset-controller", groupMost),
	} {
		attempts = append(attempts, attempt{name: "a pod by " + name, as: user, try: remove(pod)})
	}
	stranger := statefulSet("strangers", tenantNS)
	if err := controller.Create(t.Context(), stranger); err != nil {
		t.Fatal(err)
	}
	attempts = append(attempts,
		attempt{name: "what is not Lethe's", as: eve, try: remove(stranger)},
		attempt{name: "all StatefulSets", as: eve, denied: true, try: func(ctx context.Context, c identity) error {
			return c.DeleteAllOf(ctx, &appsv1.StatefulSet{}, client.InNamespace(tenantNS), client.MatchingLabels(ours), client.DryRunAll)
		}},
		attempt{name: "a pod by force", as: eve, denied: true, try: func(ctx context.Context, c identity) error {
			return c.Delete(ctx, pod.DeepCopy(), client.GracePeriodSeconds(0), client.DryRunAll)
		}})
	climb(t, "lethe-workload-deletion", attempts)
}
