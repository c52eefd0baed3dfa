package controllers_test

import (
	"slices"
	"testing"

	"github.com/lethe-dev/lethe/test/operator"
	"github.com/lethe-dev/lethe/test/specs"
)

// TestRichUsesEveryField: what is tried on the rich ones is tried on all fields that there are, but for those that
// are named here, and who tries them instead.
func TestRichUsesEveryField(t *testing.T) {
	const before, ceiling, window = "TestForeignObjectsAtAdoption, TestForeignNetworkPolicy: what was there before", "TestEgressCeiling, TestBotsNeverReachBeyondTheCeiling", "package plan"
	for kind, tc := range map[string]struct {
		unset []string
		but   map[string]string
	}{
		"BotDeployment": {specs.Unset(specs.Fields(operator.RichBot("a", "b").Spec)), map[string]string{
			"BotClaim.existing": "TestExistingVolumeIsTakenOver: in the place of a volume of its own"}},
		"Tenant": {specs.Unset(specs.Fields(operator.RichTenant("a", "a-b").Spec)), map[string]string{
			"TenantSpec.userNamespaces": "TestEveryTenantFieldDoesSomething", "TenantSpec.retainedVolumes": "TestTenantWithRetainedVolumes",
			"EgressLimit.cidr": ceiling, "EgressPortRange.protocol": ceiling, "EgressPortRange.port": ceiling, "EgressPortRange.endPort": ceiling,
			"ForeignNetworkPolicy.group": before, "ForeignNetworkPolicy.resource": before, "ForeignNetworkPolicy.name": before, "ForeignObject.kind": before, "ForeignObject.name": before,
			"RetentionOverride.dataClass": window, "Period.hours": window, "Period.days": window, "Period.weeks": window, "Period.months": window, "Period.years": window}},
	} {
		for _, name := range tc.unset {
			if tc.but[name] == "" {
				t.Errorf("the rich %s does not use %s", kind, name)
			}
		}
		for name := range tc.but {
			if !slices.Contains(tc.unset, name) {
				t.Errorf("the rich %s is said not to use %s", kind, name)
			}
		}
	}
}
