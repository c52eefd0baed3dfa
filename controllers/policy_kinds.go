package controllers

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/lethe-dev/lethe/controllers/tenant"
)

// DefaultPolicyKinds are those of the chart's networkPolicy.kinds, as --network-policy-kinds takes them.
const DefaultPolicyKinds = "networkpolicies.networking.k8s.io"

// ParsePolicyKinds reads resource.group,resource.group.
func ParsePolicyKinds(text string) ([]schema.GroupResource, error) {
	var kinds []schema.GroupResource
	for part := range strings.SplitSeq(text, ",") {
		kind := schema.ParseGroupResource(strings.TrimSpace(part))
		if kind.Group == "" || kind.Resource == "" {
			return nil, fmt.Errorf("%q is not of the form networkpolicies.networking.k8s.io", part)
		}
		kinds = append(kinds, kind)
	}
	if !slices.Contains(kinds, tenant.CorePolicies) {
		return nil, fmt.Errorf("%s is missing: every cluster has it", tenant.CorePolicies)
	}
	return kinds, nil
}
