package keyserver

import (
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

// isolated refuses while something foreign is in the Tenant's namespaces that may reach what runs there. Nothing new
// begins then; what has its credentials goes on.
func isolated(tenant *v1alpha1.Tenant) error {
	c := meta.FindStatusCondition(tenant.Status.Conditions, v1alpha1.ConditionIsolationReady)
	if c == nil || c.Status != metav1.ConditionFalse || !v1alpha1.IsForeign(c.Reason) {
		return nil
	}
	return later(v1alpha1.ReasonNotIsolated, 30, "Tenant %s is not isolated: %s", tenant.Name, c.Message)
}
