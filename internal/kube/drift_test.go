package kube

import (
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

func ptr[T any](value T) *T { return &value }

func makeSet(edit func(*appsv1.StatefulSet)) *appsv1.StatefulSet {
	set := &appsv1.StatefulSet{
		ObjectMeta: metav1.ObjectMeta{Name: "b", Labels: map[string]string{"a": "b"},
			OwnerReferences: []metav1.OwnerReference{{Name: "owner", UID: "1", Controller: ptr(true)}}},
		Spec: appsv1.StatefulSetSpec{
			Replicas: ptr(int32(1)),
			Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{
				Containers: []corev1.Container{{
					Name: "c", Image: "i", Env: []corev1.EnvVar{{Name: "A", Value: "1"}},
					Resources: corev1.ResourceRequirements{Limits: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1000m")}},
				}},
			}},
			UpdateStrategy: appsv1.StatefulSetUpdateStrategy{RollingUpdate: &appsv1.RollingUpdateStatefulSetStrategy{MaxUnavailable: ptr(intstr.FromInt32(2))}},
		},
	}
	if edit != nil {
		edit(set)
	}
	return set
}

func container(set *appsv1.StatefulSet) *corev1.Container {
	return &set.Spec.Template.Spec.Containers[0]
}

func TestDrift(t *testing.T) {
	for name, tc := range map[string]struct {
		desired, live client.Object
		want          string
	}{
		"nothing differs": {makeSet(nil), makeSet(nil), ""},
		"the server's defaults are no drift": {makeSet(nil), makeSet(func(s *appsv1.StatefulSet) {
			s.Spec.Template.Spec.RestartPolicy = corev1.RestartPolicyAlways
			s.Spec.Template.Spec.DNSPolicy = corev1.DNSClusterFirst
			s.Spec.Template.Spec.SecurityContext = &corev1.PodSecurityContext{}
			s.Spec.Template.Spec.TerminationGracePeriodSeconds = ptr(int64(30))
			s.Spec.UpdateStrategy.RollingUpdate.Partition = ptr(int32(0))
			container(s).TerminationMessagePath = "/dev/termination-log"
		}), ""},
		"something else in the place of a default is": {makeSet(nil), makeSet(func(s *appsv1.StatefulSet) {
			s.Spec.Template.Spec.DNSPolicy = corev1.DNSDefault
		}), "spec.template.spec.dnsPolicy"},
		"a field that older servers forget": {makeSet(nil), makeSet(func(s *appsv1.StatefulSet) {
			s.Spec.UpdateStrategy.RollingUpdate = &appsv1.RollingUpdateStatefulSetStrategy{Partition: ptr(int32(0))}
		}), ""},
		"the same quantity in other words": {makeSet(nil), makeSet(func(s *appsv1.StatefulSet) {
			container(s).Resources.Limits[corev1.ResourceCPU] = resource.MustParse("1")
		}), ""},
		"another quantity": {makeSet(nil), makeSet(func(s *appsv1.StatefulSet) {
			container(s).Resources.Limits[corev1.ResourceCPU] = resource.MustParse("2")
		}), "spec.template.spec.containers[0].resources.limits[cpu]"},
		"a value of zero where one was asked for": {makeSet(nil), makeSet(func(s *appsv1.StatefulSet) { s.Spec.Replicas = ptr(int32(0)) }), "spec.replicas"},
		"a foreign variable": {makeSet(nil), makeSet(func(s *appsv1.StatefulSet) {
			container(s).Env = append(container(s).Env, corev1.EnvVar{Name: "LD_PRELOAD", Value: "x"})
		}), "spec.template.spec.containers[0].env[1]"},
		"a foreign container": {makeSet(nil), makeSet(func(s *appsv1.StatefulSet) {
			s.Spec.Template.Spec.Containers = append(s.Spec.Template.Spec.Containers, corev1.Container{Name: "x"})
		}), "spec.template.spec.containers[1]"},
		"a foreign security context": {makeSet(nil), makeSet(func(s *appsv1.StatefulSet) {
			container(s).SecurityContext = &corev1.SecurityContext{Privileged: ptr(true)}
		}), "spec.template.spec.containers[0].securityContext.privileged"},
		"a foreign annotation on the template": {makeSet(nil), makeSet(func(s *appsv1.StatefulSet) {
			s.Spec.Template.Annotations = map[string]string{"x": "y"}
		}), "spec.template.annotations"},
		"a foreign label beside ours is left": {makeSet(nil), makeSet(func(s *appsv1.StatefulSet) { s.Labels["foreign"] = "x" }), ""},
		"our label changed":                   {makeSet(nil), makeSet(func(s *appsv1.StatefulSet) { s.Labels["a"] = "c" }), "metadata.labels[a]"},
		"our label removed":                   {makeSet(nil), makeSet(func(s *appsv1.StatefulSet) { s.Labels = nil }), "metadata.labels[a]"},
		"our owner removed":                   {makeSet(nil), makeSet(func(s *appsv1.StatefulSet) { s.OwnerReferences = nil }), "metadata.ownerReferences"},
		"the status is not ours":              {makeSet(nil), makeSet(func(s *appsv1.StatefulSet) { s.Status.Replicas = 7 }), ""},
		"a foreign subject": {
			&rbacv1.RoleBinding{Subjects: []rbacv1.Subject{{Kind: "Group", Name: "a"}}},
			&rbacv1.RoleBinding{Subjects: []rbacv1.Subject{{Kind: "Group", Name: "a"}, {Kind: "User", Name: "mallory"}}},
			"subjects[1]",
		},
		"another role": {
			&rbacv1.RoleBinding{RoleRef: rbacv1.RoleRef{Name: "view"}}, &rbacv1.RoleBinding{RoleRef: rbacv1.RoleRef{Name: "admin"}}, "roleRef.name",
		},
		"a foreign peer where none was": {
			&networkingv1.NetworkPolicy{}, &networkingv1.NetworkPolicy{Spec: networkingv1.NetworkPolicySpec{Egress: []networkingv1.NetworkPolicyEgressRule{{}}}},
			"spec.egress",
		},
		"a foreign key in a ConfigMap": {
			&corev1.ConfigMap{Data: map[string]string{"a": "1"}}, &corev1.ConfigMap{Data: map[string]string{"a": "1", "b": "2"}}, "data[b]",
		},
		"a ConfigMap made immutable": {
			&corev1.ConfigMap{}, &corev1.ConfigMap{Immutable: ptr(true)}, "immutable",
		},
		"pull secrets of a ServiceAccount are left to others": {
			&corev1.ServiceAccount{AutomountServiceAccountToken: ptr(false)},
			&corev1.ServiceAccount{AutomountServiceAccountToken: ptr(false), ImagePullSecrets: []corev1.LocalObjectReference{{Name: "x"}}}, "",
		},
		"a ServiceAccount whose token is mounted": {
			&corev1.ServiceAccount{AutomountServiceAccountToken: ptr(false)},
			&corev1.ServiceAccount{AutomountServiceAccountToken: ptr(true)}, "automountServiceAccountToken",
		},
		"the spec of a namespace is not ours": {
			&corev1.Namespace{}, &corev1.Namespace{Spec: corev1.NamespaceSpec{Finalizers: []corev1.FinalizerName{"kubernetes"}}}, "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Drift(tc.desired, tc.live); got != tc.want {
				t.Errorf("drift in %q, want %q", got, tc.want)
			}
		})
	}
}

func TestMergeKeepsWhatIsNotOurs(t *testing.T) {
	live := makeSet(func(s *appsv1.StatefulSet) {
		s.ResourceVersion = "7"
		s.Labels = map[string]string{"a": "changed", "foreign": "x"}
		s.OwnerReferences = append(s.OwnerReferences, metav1.OwnerReference{Name: "other", UID: "2"})
		s.OwnerReferences[0].Name = "changed"
		container(s).Image = "changed"
		s.Status.Replicas = 3
	})
	merged := merge(makeSet(nil), live)
	if path := Drift(makeSet(nil), merged); path != "" {
		t.Errorf("still drifted in %s", path)
	}
	if merged.ResourceVersion != "7" || merged.Labels["foreign"] != "x" || len(merged.OwnerReferences) != 2 || merged.Status.Replicas != 3 {
		t.Errorf("lost what is not ours: %+v", merged)
	}
}

func BenchmarkDrift(b *testing.B) {
	desired, live := makeSet(nil), makeSet(nil)
	b.ReportAllocs()
	for b.Loop() {
		if Drift(desired, live) != "" {
			b.Fatal("drift")
		}
	}
}
