package guest

import (
	"context"
	"fmt"
	"slices"

	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// rolesThatKnowLethe says which of Kubernetes' own roles still name Lethe's kinds, or "".
func (g *Guest) rolesThatKnowLethe(ctx context.Context) (string, error) {
	for _, name := range []string{"view", "edit", "admin"} {
		var role rbacv1.ClusterRole
		if err := g.Client.Get(ctx, client.ObjectKey{Name: name}, &role); err != nil {
			if client.IgnoreNotFound(err) == nil {
				continue // a cluster without it
			}
			return "", fmt.Errorf("look at ClusterRole %s: %w", name, err)
		}
		// A role that aggregates nothing is somebody's own text.
		if role.AggregationRule == nil {
			continue
		}
		if slices.ContainsFunc(role.Rules, func(r rbacv1.PolicyRule) bool { return slices.Contains(r.APIGroups, "lethe.dev") }) {
			return "the end of Lethe's rules in ClusterRole " + name, nil
		}
	}
	return "", nil
}
