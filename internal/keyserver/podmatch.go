package keyserver

import (
	"context"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keystore"
	"github.com/lethe-dev/lethe/internal/podspec"
	"github.com/lethe-dev/lethe/internal/resources"
)

// notOurPod refuses a pod by the field that an error of package podspec names.
func notOurPod(err error) error {
	return refuse(v1alpha1.ReasonPodMismatch, "the pod is not the one that Lethe makes: %s", err)
}

// matchBot refuses a pod unless its StatefulSet and the pod differ from what Lethe renders for the bot as it is now
// by nothing but what narrows it. isPresent says that what of Lethe's own is in them is what this keyserver has.
func (s *Server) matchBot(set *appsv1.StatefulSet, pod *corev1.Pod, bot *v1alpha1.BotDeployment, tenant *v1alpha1.Tenant, recorded *resources.Helper) (isPresent bool, err error) {
	return s.match("StatefulSet is not the one that Lethe makes for this bot", set.Spec.Template, pod, recorded, func(h resources.Helper, metadata metav1.ObjectMeta) corev1.PodTemplateSpec {
		return resources.BotPodTemplate(s.Settings.With(h), bot, tenant, metadata.Annotations[v1alpha1.AnnotationCredentials])
	})
}

// matchSweep does the same for a Job and its pod.
func (s *Server) matchSweep(job *batchv1.Job, pod *corev1.Pod, store *v1alpha1.DataStore, tenant *v1alpha1.Tenant, planHash string, recorded *resources.Helper) (isPresent bool, err error) {
	return s.match("Job is not the one that Lethe makes for this store", job.Spec.Template, pod, recorded, func(h resources.Helper, _ metav1.ObjectMeta) corev1.PodTemplateSpec {
		return resources.SweepPodTemplate(s.Settings.With(h), store, tenant, planHash)
	})
}

// match holds a template and a pod against what is rendered. What of Lethe's own is in them must be what this
// keyserver has itself, what it has on record for the object, or an earlier image that it was told of.
func (s *Server) match(differs string, template corev1.PodTemplateSpec, pod *corev1.Pod, recorded *resources.Helper,
	render func(resources.Helper, metav1.ObjectMeta) corev1.PodTemplateSpec,
) (isPresent bool, err error) {
	helpers := s.helpersFor(template.Spec, recorded)
	// Pull secrets are of the helper too, and may be another's besides: whose they are exactly comes first.
	isTheirs := func(h resources.Helper) bool {
		return slices.Equal(render(h, template.ObjectMeta).Spec.ImagePullSecrets, template.Spec.ImagePullSecrets)
	}
	slices.SortStableFunc(helpers, func(a, b resources.Helper) int {
		switch theirs := isTheirs(a); {
		case theirs == isTheirs(b):
			return 0
		case theirs:
			return -1
		}
		return 1
	})
	ofOwner, err := firstOf(helpers, func(h resources.Helper) error {
		return podspec.MatchTemplate(render(h, template.ObjectMeta), template, s.Settings.PodAnnotations)
	})
	if err != nil {
		return false, refuse(v1alpha1.ReasonPodMismatch, "the %s: %s", differs, err)
	}
	// A pod of before, while its StatefulSet is a new one already, may have another of them.
	helpers = append([]resources.Helper{ofOwner}, s.helpersFor(pod.Spec, recorded)...)
	if !ofOwner.IsIn(pod.Spec) {
		helpers = helpers[1:]
	}
	ofPod, err := firstOf(helpers, func(h resources.Helper) error {
		return podspec.Match(render(h, pod.ObjectMeta), pod, s.Settings.PodAnnotations)
	})
	if err != nil {
		return false, notOurPod(err)
	}
	present := s.Settings.Helper()
	return ofOwner == present && ofPod == present, nil
}

// firstOf is the first helper with which something matches. Where none does, the first one finds the words.
func firstOf(helpers []resources.Helper, match func(resources.Helper) error) (resources.Helper, error) {
	var first error
	for _, h := range helpers {
		err := match(h)
		if err == nil {
			return h, nil
		}
		if first == nil {
			first = err
		}
	}
	return resources.Helper{}, first
}

// helpersFor are those that are let through for an object and that a pod can have by its image and address; the
// present one where it has none of them.
func (s *Server) helpersFor(spec corev1.PodSpec, recorded *resources.Helper) []resources.Helper {
	present := s.Settings.Helper()
	all := []resources.Helper{present}
	if recorded != nil && !s.Settings.IsRetired(recorded.Image) {
		all = append(all, *recorded)
	}
	for _, image := range s.PreviousImages {
		earlier := present
		if earlier.Image = image; !s.Settings.IsRetired(image) {
			all = append(all, earlier)
		}
	}
	all = slices.DeleteFunc(all, func(h resources.Helper) bool { return !h.IsIn(spec) })
	if len(all) == 0 {
		return []resources.Helper{present}
	}
	return all
}

func (s *Server) presentHelper() *resources.Helper {
	present := s.Settings.Helper()
	return &present
}

// recordHelper notes down that an object's pods are made with what this keyserver has itself: what it had before is
// good no more.
func (s *Server) recordHelper(ctx context.Context, sub *subject, keys *keystore.ObjectKeys) error {
	doc := keys.Doc
	doc.Helper = s.presentHelper()
	return s.writeDocument(ctx, sub, keys, doc)
}
