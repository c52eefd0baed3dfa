package controllers

import (
	"context"
	"fmt"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/internal/status"
)

// startsWithin is how long a sweep's pod may take to run before somebody looks why it does not.
const startsWithin = 20 * time.Second

// pullSecretsSentence says of an image that cannot be pulled which Secrets it was tried with, and which of them are of no use. It asks
// the keyserver: the manager may read no Secret. While that does not answer, the names alone are said.
func pullSecretsSentence(ctx context.Context, keys Keys, s resources.Settings, kind string, object client.Object, tenant *v1alpha1.Tenant) string {
	bot, _ := object.(*v1alpha1.BotDeployment)
	names := resources.PullSecrets(s, tenant, bot)
	if len(names) == 0 {
		return "It is pulled without a Secret: a private registry needs one, named in imagePullSecrets of the bot, of its Tenant or of the chart's image."
	}
	answer, err := keys.PullSecrets(ctx, refTo(kind, object))
	var wrong []string
	if err == nil {
		for _, name := range answer.Missing {
			wrong = append(wrong, fmt.Sprintf("Secret %s, which %s names, does not exist in namespace %s", name, whoNames(name, tenant, bot), object.GetNamespace()))
		}
		for _, name := range answer.Unusable {
			wrong = append(wrong, fmt.Sprintf("Secret %s, which %s names, is not of the type kubernetes.io/dockerconfigjson", name, whoNames(name, tenant, bot)))
		}
	}
	if len(wrong) > 0 {
		return strings.Join(wrong, "; ") + ": make it there; Lethe does not copy it."
	}
	return fmt.Sprintf("It is pulled with the Secrets %s of namespace %s: the registry may not take what is in them.", strings.Join(names, ", "), object.GetNamespace())
}

// whoNames is the field that a pull secret's name comes from.
func whoNames(name string, tenant *v1alpha1.Tenant, bot *v1alpha1.BotDeployment) string {
	in := func(secrets []v1alpha1.ImagePullSecret) bool {
		for _, secret := range secrets {
			if secret.Name == name {
				return true
			}
		}
		return false
	}
	switch {
	case bot != nil && in(bot.Spec.ImagePullSecrets):
		return "spec.imagePullSecrets"
	case in(tenant.Spec.ImagePullSecrets):
		return "Tenant " + tenant.Name + "'s spec.imagePullSecrets"
	default:
		return "the installation (chart: image.pullSecrets)"
	}
}

// explainPull adds to a bot's message what its images are pulled with, where the registry asked who it is.
func (r *BotDeploymentReconciler) explainPull(ctx context.Context, s *botScope, w *status.Workload) {
	if !w.AsksWho {
		return
	}
	w.Message += " " + pullSecretsSentence(ctx, r.Keys, r.Settings, resources.KindBotDeployment, s.bot, s.tenant)
}

// lookAtSweep finds out why a sweep's pod does not run: it would be waited for until the Job's deadline, and then leave no report.
func (r *DataStoreReconciler) lookAtSweep(ctx context.Context, s *storeScope) (time.Duration, error) {
	for i := range s.jobs {
		job := &s.jobs[i]
		if !isActive(job) || (job.Status.Ready != nil && *job.Status.Ready > 0) {
			continue
		}
		if left := job.CreationTimestamp.Add(startsWithin).Sub(s.now); left > 0 {
			return left, nil
		}
		var pods corev1.PodList
		if err := r.Writer.Live.List(ctx, &pods, client.InNamespace(job.Namespace), client.MatchingLabels{batchv1.ControllerUidLabel: string(job.UID)}); err != nil {
			return 0, explain(v1alpha1.ConditionReady, fmt.Errorf("list the pods of a Job: %w", err))
		}
		for j := range pods.Items {
			w, ok := status.Unpulled(&pods.Items[j])
			if !ok {
				continue
			}
			s.unstarted = &status.Problem{Condition: v1alpha1.ConditionReady, Reason: w.Reason, Message: "The sweep has not begun. " + w.Message}
			if w.AsksWho {
				s.unstarted.Message += " " + pullSecretsSentence(ctx, r.Keys, r.Settings, resources.KindDataStore, s.store, s.tenant)
			}
		}
		return lookEvery, nil
	}
	return 0, nil
}
