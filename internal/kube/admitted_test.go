package kube

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

// admitting changes pod templates as a cluster's admission does: on the way to the API server, whenever one is written.
type admitting struct {
	client.Client
	change func(*corev1.PodTemplateSpec)
	// before, where it is set, is done before each write.
	before func()
}

func (a *admitting) admit(object client.Object) {
	if a.before != nil {
		a.before()
	}
	if template := templateOf(object); template != nil && a.change != nil {
		a.change(template)
	}
}

func (a *admitting) Create(ctx context.Context, object client.Object, opts ...client.CreateOption) error {
	a.admit(object)
	return a.Client.Create(ctx, object, opts...)
}

func (a *admitting) Update(ctx context.Context, object client.Object, opts ...client.UpdateOption) error {
	a.admit(object)
	return a.Client.Update(ctx, object, opts...)
}

func ndots(t *corev1.PodTemplateSpec) {
	t.Spec.DNSConfig = &corev1.PodDNSConfig{Options: []corev1.PodDNSConfigOption{{Name: "ndots", Value: ptr("1")}}}
}

func sidecar(t *corev1.PodTemplateSpec) {
	ndots(t)
	if len(t.Spec.Containers) == 1 {
		t.Spec.Containers = append(t.Spec.Containers, corev1.Container{Name: "mesh", Image: "mesh", ImagePullPolicy: corev1.PullAlways})
	}
}

// workload is a StatefulSet, or a CronJob, as a builder would make it.
func workload(kind, namespace string) client.Object {
	meta := metav1.ObjectMeta{Namespace: namespace, Name: "w", Labels: map[string]string{"a": "b"}, OwnerReferences: configMap("", "1", "").OwnerReferences}
	template := corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"a": "b"}}, Spec: corev1.PodSpec{
		NodeSelector: map[string]string{"region": "eu"},
		Containers:   []corev1.Container{{Name: "c", Image: "i", ImagePullPolicy: corev1.PullAlways, Args: []string{strings.Repeat("long ", 30)}}}}}
	if kind == "CronJob" {
		template.Spec.RestartPolicy = corev1.RestartPolicyNever
		return &batchv1.CronJob{ObjectMeta: meta, Spec: batchv1.CronJobSpec{Schedule: "0 0 1 1 *", JobTemplate: batchv1.JobTemplateSpec{Spec: batchv1.JobSpec{Template: template}}}}
	}
	return &appsv1.StatefulSet{ObjectMeta: meta, Spec: appsv1.StatefulSetSpec{Replicas: ptr(int32(0)), Selector: &metav1.LabelSelector{MatchLabels: template.Labels},
		PodManagementPolicy: appsv1.OrderedReadyPodManagement, RevisionHistoryLimit: ptr(int32(10)),
		UpdateStrategy: appsv1.StatefulSetUpdateStrategy{Type: appsv1.RollingUpdateStatefulSetStrategyType,
			RollingUpdate: &appsv1.RollingUpdateStatefulSetStrategy{MaxUnavailable: ptr(intstr.FromInt32(2))}}, Template: template}}
}

// TestAdmission: what admission makes of a template is noted down with one write more, told once, and costs nothing
// afterwards. A hand is told from it, whatever it changes; what is asked for anew is written; what no pod gets
// credentials for is asked for again at times.
func TestAdmission(t *testing.T) {
	for _, kind := range []string{"StatefulSet", "CronJob"} {
		t.Run(kind, func(t *testing.T) {
			var writes int
			var blind bool
			var told []string
			now := clocktesting.NewFakePassiveClock(time.Now())
			w := writerIn(t, &writes, &blind)
			cluster := &admitting{Client: w.Client, change: ndots}
			w.Client = cluster
			w.Admission = &Admission{Clock: now, Tell: func(kind string, child client.Object, field string, tolerated bool) {
				told = append(told, fmt.Sprint(kind, " ", child.GetName(), " ", field[strings.LastIndex(field, ".")+1:], " ", tolerated))
			}}
			namespace := testEnv.Namespace(t, "admission", nil).Name
			desired := workload(kind, namespace)
			step := func(what string, wantOutcome Outcome, wantWrites int, wantTold ...string) client.Object {
				t.Helper()
				writes, told = 0, nil
				live, outcome, err := Ensure(t.Context(), w, copyOf(desired))
				if err != nil || outcome != wantOutcome || writes != wantWrites || fmt.Sprint(told) != fmt.Sprint(wantTold) {
					t.Fatalf("%s: %s with %d writes, told %v, %v; want %s with %d, told %v", what, outcome, writes, told, err, wantOutcome, wantWrites, wantTold)
				}
				return live
			}
			hand := func(change func(*corev1.PodTemplateSpec)) {
				t.Helper()
				live := emptyLike(desired)
				if err := testEnv.Client.Get(t.Context(), client.ObjectKeyFromObject(desired), live); err != nil {
					t.Fatal(err)
				}
				change(templateOf(live))
				if err := testEnv.Client.Update(t.Context(), live); err != nil {
					t.Fatal(err)
				}
			}
			step("it is made", Created, 2, kind+" w options true")
			step("it is there", Unchanged, 0)
			for what, change := range map[string]func(*corev1.PodTemplateSpec){
				"another image":                  func(p *corev1.PodTemplateSpec) { p.Spec.Containers[0].Image = "evil" },
				"another long argument":          func(p *corev1.PodTemplateSpec) { p.Spec.Containers[0].Args[0] += "x" },
				"what pods may differ by":        func(p *corev1.PodTemplateSpec) { p.Spec.NodeSelector["pool"] = "evil" },
				"what admission adds, otherwise": func(p *corev1.PodTemplateSpec) { p.Spec.DNSConfig.Options[0].Value = ptr("7") },
			} {
				hand(change)
				live := step("a hand: "+what, Updated, 2)
				if got := templateOf(live); got.Spec.Containers[0].Image != "i" || len(got.Spec.NodeSelector) != 1 || *got.Spec.DNSConfig.Options[0].Value != "1" {
					t.Errorf("%s: not put right: %+v", what, got.Spec)
				}
				step("after a hand: "+what, Unchanged, 0)
			}
			hand(func(p *corev1.PodTemplateSpec) { p.Spec.DNSConfig = nil })
			step("a hand takes away what nobody asked for", Unchanged, 0)
			templateOf(desired).Spec.NodeSelector["region"] = "us"
			step("something else is asked for, where pods may differ", Updated, 2)
			templateOf(desired).Spec.Containers[0].Args[0] += "y"
			step("another long text is asked for", Updated, 2)
			desired.SetLabels(map[string]string{"a": "c"})
			step("another label of the object itself", Updated, 2)
			step("that is there", Unchanged, 0)

			// Somebody writes other parts of the object at the same moment: the note is made all the same. Somebody
			// writes its spec: it would not be true.
			meanwhile := func(change func(live client.Object)) {
				cluster.before = func() {
					if writes != 1 {
						return
					}
					cluster.before = nil
					live := emptyLike(desired)
					if err := testEnv.Client.Get(t.Context(), client.ObjectKeyFromObject(desired), live); err != nil {
						t.Fatal(err)
					}
					change(live)
					if err := testEnv.Client.Update(t.Context(), live); err != nil {
						t.Fatal(err)
					}
				}
			}
			hand(func(p *corev1.PodTemplateSpec) { p.Spec.Containers[0].Image = "evil" })
			meanwhile(func(live client.Object) { live.SetLabels(map[string]string{"a": "c", "other": "hand"}) })
			step("another writer", Updated, 3)
			step("after another writer", Unchanged, 0)
			hand(func(p *corev1.PodTemplateSpec) { p.Spec.Containers[0].Image = "evil" })
			meanwhile(func(live client.Object) { templateOf(live).Spec.NodeSelector["pool"] = "evil" })
			step("a hand in between", Updated, 2)
			step("it is put right", Updated, 2)
			step("and remains so", Unchanged, 0)

			// What no pod gets credentials for.
			cluster.change = sidecar
			hand(func(p *corev1.PodTemplateSpec) { p.Spec.Containers[0].Image = "evil" })
			step("a container is injected", Updated, 2, kind+" w containers[1] false")
			step("it is left", Unchanged, 0)
			now.SetTime(now.Now().Add(askAgainAfter))
			step("it is time to ask again", Updated, 2)
			step("it is left again", Unchanged, 0)
			cluster.change = nil
			step("nobody knows yet that the rule is gone", Unchanged, 0)
			now.SetTime(now.Now().Add(askAgainAfter))
			live := step("it is asked for again", Updated, 2)
			if got := templateOf(live); len(got.Spec.Containers) != 1 || got.Spec.DNSConfig != nil || live.GetAnnotations()[v1alpha1.AnnotationAdmitted] != "" {
				t.Errorf("is %+v, note %q", got.Spec, live.GetAnnotations()[v1alpha1.AnnotationAdmitted])
			}
			step("a cluster that changes nothing", Unchanged, 0)
			hand(func(p *corev1.PodTemplateSpec) { p.Spec.Containers[0].Image = "evil" })
			step("and costs nothing", Updated, 1)
		})
	}
}
