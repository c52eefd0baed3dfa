package kcm

import (
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

// TestBehind: a cache that is behind lets nothing be removed that is in use by now, and what is in it is not changed.
func TestBehind(t *testing.T) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	ending := func(o client.Object) client.Object {
		o.SetDeletionTimestamp(&metav1.Time{Time: time.Unix(1, 0)})
		return o
	}
	bot := &v1alpha1.BotDeployment{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "bot", UID: "u"}}
	child := func(version string, owners ...metav1.OwnerReference) client.Object {
		return &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "child", UID: "c", ResourceVersion: version, OwnerReferences: owners}}
	}
	owned := *metav1.NewControllerRef(bot, v1alpha1.GroupVersion.WithKind("BotDeployment"))
	claim := ending(&corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "data", Finalizers: []string{"kubernetes.io/pvc-protection"}}})
	set := func(replicas int32) client.Object {
		return &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "set"}, Spec: appsv1.StatefulSetSpec{Replicas: &replicas,
			Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{Volumes: []corev1.Volume{{VolumeSource: corev1.VolumeSource{
				PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"}}}}}}}}
	}
	namespace := ending(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "a", Finalizers: []string{"kubernetes"}}})

	for name, s := range map[string]struct {
		seen, is []client.Object
		step     func(*Controllers) error
		object   client.Object
		left     bool
	}{
		"a child whose owner is not seen yet":        {[]client.Object{child("1", owned)}, []client.Object{child("1", owned), bot}, (*Controllers).collect, child(""), true},
		"a child that is orphaned by now":            {[]client.Object{child("1", owned)}, []client.Object{child("2")}, (*Controllers).collect, child(""), true},
		"a child without its owner":                  {[]client.Object{child("1", owned)}, []client.Object{child("1", owned)}, (*Controllers).collect, child(""), false},
		"a claim of a pod that is not seen yet":      {[]client.Object{claim, set(0)}, []client.Object{claim, set(1)}, (*Controllers).endClaims, claim, true},
		"a claim of a pod that is still seen":        {[]client.Object{claim, set(1)}, []client.Object{claim, set(0)}, (*Controllers).endClaims, claim, true},
		"a claim of no pod":                          {[]client.Object{claim, set(0)}, []client.Object{claim, set(0)}, (*Controllers).endClaims, claim, false},
		"a namespace with a child that nobody sees":  {[]client.Object{namespace}, []client.Object{namespace, child("1")}, (*Controllers).endNamespaces, namespace, true},
		"a namespace with a child that is not there": {[]client.Object{namespace, child("1")}, []client.Object{namespace}, (*Controllers).endNamespaces, namespace, true},
	} {
		t.Run(name, func(t *testing.T) {
			builder := func(objects []client.Object) client.WithWatch {
				b := fake.NewClientBuilder().WithScheme(scheme)
				for _, o := range objects {
					b = b.WithObjects(o.DeepCopyObject().(client.Object))
				}
				return b.Build()
			}
			live := builder(s.is)
			f := &Controllers{Client: live, Reader: builder(s.seen)}
			if err := s.step(f); err != nil {
				t.Fatal(err)
			}
			object := s.object.DeepCopyObject().(client.Object)
			if err := live.Get(t.Context(), client.ObjectKeyFromObject(object), object); client.IgnoreNotFound(err) != nil || (err == nil) != s.left {
				t.Errorf("looked for: %v, want it left: %t", err, s.left)
			}
		})
	}
}
