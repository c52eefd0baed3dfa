package keyserver

import (
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/podspec"
	"github.com/lethe-dev/lethe/internal/protocol"
	"github.com/lethe-dev/lethe/internal/resources"
)

// notOurPod refuses a pod by the field that an error of package podspec names.
func notOurPod(err error) error {
	return refuse(protocol.ReasonPodMismatch, "the pod is not the one that Lethe makes: %s", err)
}

// matchBot refuses a pod unless its StatefulSet is exactly what Lethe renders for the bot as it is now, and the pod
// differs from that only by what narrows it.
func (s *Server) matchBot(set *appsv1.StatefulSet, pod *corev1.Pod, bot *v1alpha1.BotDeployment, tenant *v1alpha1.Tenant) error {
	render := func(template corev1.PodTemplateSpec) corev1.PodTemplateSpec {
		settings := s.settingsFor(template.Spec.InitContainers, resources.ContainerUnseal)
		return resources.BotPodTemplate(settings, bot, tenant, template.Annotations[v1alpha1.AnnotationCredentials])
	}
	if err := podspec.MatchTemplate(render(set.Spec.Template), set.Spec.Template); err != nil {
		return refuse(protocol.ReasonPodMismatch, "the StatefulSet is not the one that Lethe makes for this bot: %s", err)
	}
	want := render(corev1.PodTemplateSpec{ObjectMeta: pod.ObjectMeta, Spec: pod.Spec})
	if err := podspec.Match(want, pod, s.Settings.PodAnnotations); err != nil {
		return notOurPod(err)
	}
	return nil
}

// matchSweep does the same for a Job and its pod.
func (s *Server) matchSweep(job *batchv1.Job, pod *corev1.Pod, store *v1alpha1.DataStore, tenant *v1alpha1.Tenant, planHash string) error {
	render := func(containers []corev1.Container) corev1.PodTemplateSpec {
		return resources.SweepPodTemplate(s.settingsFor(containers, resources.ContainerSweeper), store, tenant, planHash)
	}
	if err := podspec.MatchTemplate(render(job.Spec.Template.Spec.Containers), job.Spec.Template); err != nil {
		return refuse(protocol.ReasonPodMismatch, "the Job is not the one that Lethe makes for this store: %s", err)
	}
	if err := podspec.Match(render(pod.Spec.Containers), pod, s.Settings.PodAnnotations); err != nil {
		return notOurPod(err)
	}
	return nil
}

// settingsFor are those that a pod was rendered with. Its own helper image counts only where the keyserver was told of it:
// the present one, or an earlier one by its digest.
func (s *Server) settingsFor(containers []corev1.Container, helper string) resources.Settings {
	settings := s.Settings
	for _, c := range containers {
		if c.Name == helper && slices.Contains(s.PreviousImages, c.Image) {
			settings.Image = c.Image
		}
	}
	return settings
}
