package reconcile

import (
	"testing"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

// TestWhatWakes: what a hand has changed wakes the owner, what only Kubernetes counts does not, and a resync wakes
// each object once.
func TestWhatWakes(t *testing.T) {
	meta := func(version string, generation int64, change func(*metav1.ObjectMeta)) metav1.ObjectMeta {
		m := metav1.ObjectMeta{Name: "x", ResourceVersion: version, Generation: generation, Finalizers: []string{v1alpha1.FinalizerKeys}}
		if change != nil {
			change(&m)
		}
		return m
	}
	cron := func(version string, generation, active int, change func(*metav1.ObjectMeta)) client.Object {
		c := &batchv1.CronJob{ObjectMeta: meta(version, int64(generation), change)}
		c.Status.Active = make([]corev1.ObjectReference, active)
		return c
	}
	quota := func(version, hard, used string) client.Object {
		list := func(text string) corev1.ResourceList { return corev1.ResourceList{"pods": resource.MustParse(text)} }
		return &corev1.ResourceQuota{ObjectMeta: meta(version, 0, nil), Spec: corev1.ResourceQuotaSpec{Hard: list(hard)}, Status: corev1.ResourceQuotaStatus{Used: list(used)}}
	}
	config := func(version, value string) client.Object {
		return &corev1.ConfigMap{ObjectMeta: meta(version, 0, nil), Data: map[string]string{"k": value}}
	}
	own := func(version string, generation int64, change func(*metav1.ObjectMeta)) client.Object {
		return &v1alpha1.DataStore{ObjectMeta: meta(version, generation, change)}
	}
	label := func(m *metav1.ObjectMeta) { m.Labels = map[string]string{"a": "b"} }
	note := func(m *metav1.ObjectMeta) { m.Annotations = map[string]string{"a": "b"} }
	orphaned := func(m *metav1.ObjectMeta) { m.OwnerReferences = []metav1.OwnerReference{{Name: "other"}} }
	for name, tc := range map[string]struct {
		by       predicate.Predicate
		old, now client.Object
		want     bool
	}{
		"a CronJob has begun a Job":              {ChildChange(), cron("1", 1, 0, nil), cron("2", 1, 1, nil), false},
		"a CronJob's spec":                       {ChildChange(), cron("1", 1, 0, nil), cron("2", 2, 0, nil), true},
		"a CronJob's label":                      {ChildChange(), cron("1", 1, 0, nil), cron("2", 1, 0, label), true},
		"a CronJob's annotation":                 {ChildChange(), cron("1", 1, 0, nil), cron("2", 1, 0, note), true},
		"a CronJob's owner":                      {ChildChange(), cron("1", 1, 0, nil), cron("2", 1, 0, orphaned), true},
		"a CronJob on a resync":                  {ChildChange(), cron("1", 1, 0, nil), cron("1", 1, 0, nil), false},
		"a quota counts a pod":                   {ChildChange(), quota("1", "5", "1"), quota("2", "5", "2"), false},
		"a quota's limit":                        {ChildChange(), quota("1", "5", "1"), quota("2", "6", "1"), true},
		"a ConfigMap's content":                  {ChildChange(), config("1", "a"), config("2", "b"), true},
		"an own object's status":                 {OwnChange(), own("1", 1, nil), own("2", 1, nil), false},
		"an own object's spec":                   {OwnChange(), own("1", 1, nil), own("2", 2, nil), true},
		"an own object's finalizer is taken off": {OwnChange(), own("1", 1, nil), own("2", 1, func(m *metav1.ObjectMeta) { m.Finalizers = nil }), true},
		"an own object on a resync":              {OwnChange(), own("1", 1, nil), own("1", 1, nil), true},
	} {
		if got := tc.by.Update(event.UpdateEvent{ObjectOld: tc.old, ObjectNew: tc.now}); got != tc.want {
			t.Errorf("%s: wakes %t, want %t", name, got, tc.want)
		}
	}
	if ChildChange().Create(event.CreateEvent{Object: config("1", "a")}) {
		t.Error("a child that we made wakes its owner")
	}
	if !ChildChange().Delete(event.DeleteEvent{Object: config("1", "a")}) {
		t.Error("a child that is gone does not wake its owner")
	}
}
