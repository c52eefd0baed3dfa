package tenant_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/test/operator"
)

// TestNamespaceThatLostItsLabel: the walls around pods select by the label, so nobody of ours keeps rights without it.
func TestNamespaceThatLostItsLabel(t *testing.T) {
	w := operator.NewWorld(t)
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "unlabelled", Labels: map[string]string{v1alpha1.LabelTenant: "loses"}}}
	w.Create(namespace)
	tenant := operator.MakeTenant("loses", "unlabelled")
	w.Create(tenant)
	w.Becomes(tenant, "Ready=True")
	operator.Edit(w, namespace, func(n *corev1.Namespace) { delete(n.Labels, v1alpha1.LabelTenant) })
	w.Becomes(tenant, "Stalled=True/"+v1alpha1.ReasonNamespaceTaken)
	w.Eventually("left", func() error { return w.IsEmpty("unlabelled") })
	operator.Edit(w, namespace, func(n *corev1.Namespace) { n.Labels[v1alpha1.LabelTenant] = "loses" })
	w.Restart() // rather than wait for the next look
	w.Becomes(tenant, "Ready=True")
}
