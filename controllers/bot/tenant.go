package bot

import (
	"context"
	"fmt"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/kube"
	"github.com/lethe-dev/lethe/internal/reconcile"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/internal/status"
	"github.com/lethe-dev/lethe/internal/tenancy"
)

// errForeign is the problem of a bot in whose Tenant's namespaces are foreign policies or objects, or nil.
func errForeign(tenant *v1alpha1.Tenant) error {
	c := meta.FindStatusCondition(tenant.Status.Conditions, v1alpha1.ConditionIsolationReady)
	if c == nil || c.Status != metav1.ConditionFalse || !v1alpha1.IsForeign(c.Reason) {
		return nil
	}
	return &reconcile.Problem{Problem: status.Problem{Condition: v1alpha1.ConditionIsolationReady, Reason: c.Reason, Stalled: true,
		Message: fmt.Sprintf("Tenant %s is not isolated, so that the bot is neither started nor changed: %s", tenant.Name, c.Message)}}
}

// tenantOf returns the Tenant whose namespace it is, also while that is being deleted: its bots are stopped as
// suspended ones are. Otherwise the error is a *reconcile.Problem.
func tenantOf(ctx context.Context, c client.Reader, namespace string) (*v1alpha1.Tenant, error) {
	whose, err := tenancy.Read(ctx, c, namespace)
	if err != nil {
		return nil, err
	}
	p := &reconcile.Problem{Problem: status.Problem{Condition: v1alpha1.ConditionIsolationReady, Message: sentence(whose.Why)}}
	switch whose.Standing {
	case tenancy.Held, tenancy.TenantEnding:
		return whose.Tenant, nil
	case tenancy.NamespaceEnding:
		p.Reason, p.After = v1alpha1.ReasonTerminating, reconcile.TerminatingWait
	case tenancy.NotIsolated:
		p.Reason = v1alpha1.ReasonTenantNotReady
	default:
		p.Reason, p.Stalled = v1alpha1.ReasonNoTenant, true
	}
	return nil, p
}

// sentence makes one of a clause.
func sentence(clause string) string {
	if clause == "" {
		return ""
	}
	return strings.ToUpper(clause[:1]) + clause[1:] + "."
}

// setOfBot returns a bot's StatefulSet, or nil. One that lost its owner reference is still the bot's.
func setOfBot(ctx context.Context, c client.Reader, bot *v1alpha1.BotDeployment) (*appsv1.StatefulSet, error) {
	set := &appsv1.StatefulSet{}
	err := c.Get(ctx, client.ObjectKey{Namespace: bot.Namespace, Name: resources.BotName(bot.Name)}, set)
	if client.IgnoreNotFound(err) != nil {
		return nil, fmt.Errorf("read the bot's StatefulSet: %w", err)
	}
	if err != nil || !kube.IsOf(set, bot.UID) {
		return nil, nil //nolint:nilerr // there is none, which is no error
	}
	return set, nil
}

// isUIDRangeTaken says whether the Tenant's conditions tell of another Tenant in its range.
func isUIDRangeTaken(tenant *v1alpha1.Tenant) bool {
	keys := meta.FindStatusCondition(tenant.Status.Conditions, v1alpha1.ConditionKeysReady)
	return keys != nil && keys.Reason == v1alpha1.ReasonUIDRangeTaken
}
