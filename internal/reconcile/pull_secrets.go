package reconcile

import (
	"context"
	"fmt"
	"strings"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/resources"
)

// PullSecretsSentence says of an image that cannot be pulled which Secrets it was tried with, and which of them are
// of no use. It asks the keyserver: the manager may read no Secret. While that does not answer, the names alone are
// said.
func PullSecretsSentence(ctx context.Context, keys Keys, s resources.Settings, kind string, object client.Object, tenant *v1alpha1.Tenant) string {
	bot, _ := object.(*v1alpha1.BotDeployment)
	names := resources.PullSecrets(s, tenant, bot)
	if len(names) == 0 {
		return "It is pulled without a Secret: a private registry needs one, named in imagePullSecrets of the bot, of its Tenant or of the chart's image."
	}
	answer, err := keys.PullSecrets(ctx, RefTo(kind, object))
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

// LookEvery is between two looks at a pod that does not become ready, for a message that is true. What the API shows
// is told within 15 seconds, and a look, what it reads and the write of it take their part of them: also of a bot
// that has been stalled for long.
const LookEvery = 10 * time.Second
