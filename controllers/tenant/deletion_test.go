package tenant

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// TestHasNoPods: only what Kubernetes has said of the whole namespace counts. In doubt a pod may run.
func TestHasNoPods(t *testing.T) {
	const bots, pods = "botdeployments.lethe.dev has 1 resource instances", "pods. has 1 resource instances"
	remaining := func(status corev1.ConditionStatus, message string) corev1.NamespaceCondition {
		return corev1.NamespaceCondition{Type: corev1.NamespaceContentRemaining, Status: status, Message: message}
	}
	failure := func(kind corev1.NamespaceConditionType, status corev1.ConditionStatus) corev1.NamespaceCondition {
		return corev1.NamespaceCondition{Type: kind, Status: status}
	}
	held := remaining(corev1.ConditionTrue, "Some resources are remaining: "+bots)
	for name, c := range map[string]struct {
		conditions []corev1.NamespaceCondition
		want       bool
	}{
		"nothing is said yet":      {nil, false},
		"only that nothing failed": {[]corev1.NamespaceCondition{failure(corev1.NamespaceDeletionContentFailure, corev1.ConditionFalse)}, false},
		"a bot":                    {[]corev1.NamespaceCondition{failure(corev1.NamespaceDeletionContentFailure, corev1.ConditionFalse), held}, true},
		"a pod alone":              {[]corev1.NamespaceCondition{remaining(corev1.ConditionTrue, "Some resources are remaining: "+pods)}, false},
		"a bot and a pod":          {[]corev1.NamespaceCondition{remaining(corev1.ConditionTrue, "Some resources are remaining: "+bots+", "+pods)}, false},
		"pods of metrics, no pods": {[]corev1.NamespaceCondition{remaining(corev1.ConditionTrue, "Some resources are remaining: "+bots+", pods.metrics.k8s.io has 1 resource instances")}, true},
		"everything is gone":       {[]corev1.NamespaceCondition{remaining(corev1.ConditionFalse, "All content successfully removed")}, true},
		"it is not known":          {[]corev1.NamespaceCondition{remaining(corev1.ConditionUnknown, "")}, false},
		"not all was deleted":      {[]corev1.NamespaceCondition{held, failure(corev1.NamespaceDeletionContentFailure, corev1.ConditionTrue)}, false},
		"not all was found":        {[]corev1.NamespaceCondition{held, failure(corev1.NamespaceDeletionDiscoveryFailure, corev1.ConditionTrue)}, false},
		"not all was read":         {[]corev1.NamespaceCondition{failure(corev1.NamespaceDeletionGVParsingFailure, corev1.ConditionTrue), held}, false},
	} {
		namespace := &corev1.Namespace{Status: corev1.NamespaceStatus{Conditions: c.conditions}}
		if got := hasNoPods(namespace); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}
