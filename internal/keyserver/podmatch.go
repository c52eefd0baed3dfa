package keyserver

import (
	"context"
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
// differs from that only by what narrows it. What of Lethe's own is in them must be what this keyserver has itself, what it has
// on record for this bot, or an earlier image that it was told of. isPresent says that it is what this keyserver has.
func (s *Server) matchBot(set *appsv1.StatefulSet, pod *corev1.Pod, bot *v1alpha1.BotDeployment, tenant *v1alpha1.Tenant, recorded *resources.Helper) (isPresent bool, err error) {
	render := func(template corev1.PodTemplateSpec) corev1.PodTemplateSpec {
		settings := s.Settings.With(s.helperOf(template.Spec, recorded))
		return resources.BotPodTemplate(settings, bot, tenant, template.Annotations[v1alpha1.AnnotationCredentials])
	}
	if err := podspec.MatchTemplate(render(set.Spec.Template), set.Spec.Template); err != nil {
		return false, refuse(protocol.ReasonPodMismatch, "the StatefulSet is not the one that Lethe makes for this bot: %s", err)
	}
	want := render(corev1.PodTemplateSpec{ObjectMeta: pod.ObjectMeta, Spec: pod.Spec})
	if err := podspec.Match(want, pod, s.Settings.PodAnnotations); err != nil {
		return false, notOurPod(err)
	}
	present := s.Settings.Helper()
	return s.helperOf(set.Spec.Template.Spec, recorded) == present && s.helperOf(pod.Spec, recorded) == present, nil
}

// helperOf is the one of those that are let through that a pod has, and the present one where it has none of them.
func (s *Server) helperOf(spec corev1.PodSpec, recorded *resources.Helper) resources.Helper {
	present := s.Settings.Helper()
	if present.IsIn(spec) {
		return present
	}
	if recorded != nil && recorded.IsIn(spec) && !s.Settings.IsRetired(recorded.Image) {
		return *recorded
	}
	for _, image := range s.PreviousImages {
		earlier := present
		if earlier.Image = image; earlier.IsIn(spec) && !s.Settings.IsRetired(image) {
			return earlier
		}
	}
	return present
}

func (s *Server) presentHelper() *resources.Helper {
	present := s.Settings.Helper()
	return &present
}

// recordHelper notes down that a bot's pods are made with what this keyserver has itself: what it had before is good no more.
func (s *Server) recordHelper(ctx context.Context, sub *subject, keys *objectKeys) error {
	doc := keys.doc
	doc.Helper = s.presentHelper()
	return s.writeDocument(ctx, sub, keys, doc)
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
		if c.Name == helper && slices.Contains(s.PreviousImages, c.Image) && !s.Settings.IsRetired(c.Image) {
			settings.Image = c.Image
		}
	}
	return settings
}
