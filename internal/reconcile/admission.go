package reconcile

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/kube"
	"github.com/lethe-dev/lethe/internal/resources"
)

// AdmissionOf is how the manager takes what admission makes of its StatefulSets and CronJobs. It tells the bot or the
// store.
func AdmissionOf(settings resources.Settings, now clock.PassiveClock, recorder events.EventRecorder) *kube.Admission {
	return &kube.Admission{Annotations: settings.PodAnnotations, Clock: now, Tell: func(kind string, child client.Object, field string, tolerated bool) {
		owner := metav1.GetControllerOf(child)
		if owner == nil {
			return
		}
		about := &metav1.PartialObjectMetadata{TypeMeta: metav1.TypeMeta{APIVersion: owner.APIVersion, Kind: owner.Kind},
			ObjectMeta: metav1.ObjectMeta{Namespace: child.GetNamespace(), Name: owner.Name, UID: owner.UID}}
		if tolerated {
			recorder.Eventf(about, nil, corev1.EventTypeNormal, v1alpha1.ReasonTemplateChanged, "Reconcile",
				"a webhook or policy of this cluster changes %s of %s %s; pods may differ in that, so it stays", field, kind, child.GetName())
			return
		}
		recorder.Eventf(about, nil, corev1.EventTypeWarning, v1alpha1.ReasonTemplateChanged, "Reconcile",
			"a webhook or policy of this cluster changes %s of %s %s, and the keyserver gives such pods no credentials: exempt this namespace from it. It is written again within minutes",
			field, kind, child.GetName())
	}}
}
