package messages

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lethe-dev/lethe/test/policies"
)

// heldElsewhere are the admission policies that an administrator's object of one of our kinds does not meet: they are
// about who asks, about other kinds, or about sizes. The test that meets them, in its file.
var heldElsewhere = map[string]string{
	"lethe-changes-paused":      "walls/mutation_test.go TestEachPolicyHoldsSomething",
	"lethe-changes-paused-mark": "walls/paused_test.go TestTheMarkOfAPause",
	"lethe-events":              "walls/editor_test.go TestEventsOfATenantsNamespace",
	"lethe-eviction":            "walls/editor_test.go TestEvictionNeedsARightInTheWholeCluster",
	"lethe-disruption-budgets":  "walls/editor_test.go TestNobodyHoldsUpDrains",
	"lethe-no-orphans":          "walls/going_test.go TestNothingIsOrphaned",
	"lethe-finalizers":          "walls/going_test.go TestFinalizersOnBotsNeedARightOnTheTenant",
	"lethe-pod-identity":        "walls/identity_test.go TestPodsOfTenantsAreSomebodyOnlyToTheKeyserver",
	"lethe-serviceaccounts":     "walls/identity_test.go TestServiceAccountsOfBots",
	"lethe-managed-by":          "walls/editor_test.go TestOnlyTheManagerGivesItsLabel",
	"lethe-own-objects":         "walls/volumes_test.go TestWhatLetheRunsIsNotDeletedByHand",
	"lethe-manager-objects":     "walls/identity_test.go TestManagerSetsNoLabelsThatOthersActOn",
	"lethe-manager-specs":       "walls/manager_test.go TestManagerChangesNoSpec",
	"lethe-manager-namespaces":  "walls/manager_test.go TestManagerKeepsPodSecurity",
	"lethe-namespace-label":     "walls/walls_test.go TestNamespaceLabelIsProtected",
	"lethe-network":             "walls/network_test.go TestOnlyTheManagerWritesNetworkPolicies",
	"lethe-object-counts":       "walls/size_test.go TestOthersFillAtMostHalf",
	"lethe-object-size":         "walls/size_test.go TestObjectsThatAreTooLarge",
	"lethe-tenant-object-size":  "walls/editor_test.go TestKindsWithoutDataAreBounded",
	"lethe-bot-plaintext":       "fields/tokens_test.go TestEveryTextIsLookedAt",
	"lethe-tenant-plaintext":    "fields/tokens_test.go TestEveryTextIsLookedAt",
	"lethe-store-plaintext":     "fields/tokens_test.go TestEveryTextIsLookedAt",
	"lethe-policy-plaintext":    "fields/tokens_test.go TestEveryTextIsLookedAt",
	"lethe-pod-access":          "walls/walls_test.go TestEnteringATenantsPodNeedsARightOnTheTenant",
	"lethe-pod-secrets":         "walls/manager_test.go TestPodsOfTenantsMountNoSecrets",
	"lethe-ca-bundle":           "walls/manager_test.go TestOnlyTheManagerWritesTheKeyserversCertificates",
	"lethe-rolebindings":        "walls/walls_test.go TestManagerBindsOnlyItsRolesInTenantNamespaces",
	"lethe-tenant-in-use":       "walls/walls_test.go TestTenantInUseIsNotDeleted",
	"lethe-tenant-keys":         "walls/keys_test.go TestWhoGetsADeletedTenantsKeys",
	"lethe-tokens":              "walls/walls_test.go TestOnlyKubeletsAskForTokens",
	"lethe-token-secrets":       "walls/editor_test.go TestNoTokensThatNeverExpire",
	"lethe-volumes":             "walls/volumes_test.go TestTheRecordOfAVolume",
	"lethe-workloads":           "walls/walls_test.go TestOnlyLetheAndKubernetesRunThingsInTenantNamespaces",
	"lethe-workload-deletion":   "walls/volumes_test.go TestWhatLetheRunsIsNotDeletedByHand",
	"lethe-uninstall":           "chart/chart_test.go TestAPIServerAcceptsEverything",
}

// validation is one of an admission policy.
type validation struct {
	policy string
	admissionv1.Validation
	met bool
}

// validationsOf walks the admission policies.
func validationsOf(t *testing.T) []*validation {
	t.Helper()
	var out []*validation
	all, err := policies.All(cluster.Root)
	if err != nil {
		t.Fatal(err)
	}
	for _, policy := range all {
		for _, v := range policy.Spec.Validations {
			out = append(out, &validation{policy: policy.Name, Validation: v})
		}
	}
	if len(out) < 80 {
		t.Fatalf("%d validations only", len(out))
	}
	return out
}

// is says whether an answer is a validation's: its message, what its expression makes of one, or the error that it
// ends in.
func (v *validation) is(cause metav1.StatusCause) bool {
	if !strings.Contains(cause.Message, "ValidatingAdmissionPolicy '"+v.policy+"'") {
		return false
	}
	if v.MessageExpression == "" && v.Message != "" && strings.Contains(cause.Message, v.Message) || strings.Contains(cause.Message, "expression '"+v.Expression+"' resulted in error") {
		return true
	}
	for _, match := range literals.FindAllStringSubmatch(v.MessageExpression, -1) {
		if text := strings.ReplaceAll(match[1], `\'`, `'`); len(text) > 30 && !strings.HasPrefix(text, "^") && strings.Contains(cause.Message, text) {
			return true
		}
	}
	return false
}

// checkPolicies says which validation no row has met, unless its policy is another test's, which must be there.
func checkPolicies(t *testing.T, all []*validation) {
	t.Helper()
	policies := map[string]bool{}
	for _, v := range all {
		if policies[v.policy] = true; !v.met && heldElsewhere[v.policy] == "" {
			t.Errorf("no row meets the validation of %s: %s%s", v.policy, v.Message, v.MessageExpression)
		}
	}
	for policy, by := range heldElsewhere {
		if !policies[policy] {
			t.Errorf("there is no policy %s", policy)
		}
		file, test, _ := strings.Cut(by, " ")
		content, err := os.ReadFile(filepath.Join(cluster.Root, "test", filepath.FromSlash(file)))
		if err != nil {
			t.Fatal(err)
		}
		if !regexp.MustCompile(`(?m)^func ` + test + `\(t \*testing\.T\) \{$`).Match(content) {
			t.Errorf("%s is held by %s, which is not in %s", policy, test, file)
		}
	}
}
