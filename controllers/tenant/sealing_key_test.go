package tenant_test

import (
	"fmt"
	"strings"
	"testing"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/test/operator"
)

// TestSealingKeyIsShownInEachNamespace: the tenant's people read it there. What is shown is what the Tenant's status
// says, whoever changed the copy, and another key when the keyserver writes another one.
func TestSealingKeyIsShownInEachNamespace(t *testing.T) {
	w, tenant := operator.WithTenant(t, "shown")
	shown := resources.TenantSealingKey(tenant, "shown-a", v1alpha1.SealingKey{})
	holds := func(public string) {
		t.Helper()
		w.Eventually("the key "+public, func() error {
			if err := w.Get(shown); err != nil {
				return err
			}
			if text := shown.Data[resources.SealingKeyFile]; !strings.Contains(text, fmt.Sprintf("public: %q\n", public)) || !strings.Contains(text, "tenant: \"shown\"\n") {
				return fmt.Errorf("holds %q", text)
			}
			return nil
		})
	}
	if err := w.Get(tenant); err != nil {
		t.Fatal(err)
	}
	first := tenant.Status.SealingKeys[0].Public
	holds(first)
	manager := operator.TestEnv.As(t, operator.ManagerUser, "system:masters")
	shown.Data[resources.SealingKeyFile] = "another client's"
	if err := manager.Update(t.Context(), shown); err != nil {
		t.Fatal(err)
	}
	holds(first)
	if err := w.Get(tenant); err != nil {
		t.Fatal(err)
	}
	before := tenant.DeepCopy()
	tenant.Status.SealingKeys[0].Public = "bmV3"
	if err := w.Keys.AsKeyserver.Status().Patch(t.Context(), tenant, client.MergeFrom(before)); err != nil {
		t.Fatal(err)
	}
	holds("bmV3")
}
