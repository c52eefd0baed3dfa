package controllers

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

// TestNamespaceThatLostItsLabel: the walls around pods select by the label, so nobody of ours keeps rights without it.
func TestNamespaceThatLostItsLabel(t *testing.T) {
	w := newWorld(t)
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "unlabelled", Labels: map[string]string{v1alpha1.LabelTenant: "loses"}}}
	w.create(namespace)
	tenant := makeTenant("loses", "unlabelled")
	w.create(tenant)
	w.becomes(tenant, "Ready=True")
	edit(w, namespace, func(n *corev1.Namespace) { delete(n.Labels, v1alpha1.LabelTenant) })
	w.becomes(tenant, "Stalled=True/"+v1alpha1.ReasonNamespaceTaken)
	w.eventually("left", func() error { return w.isEmpty("unlabelled") })
	edit(w, namespace, func(n *corev1.Namespace) { n.Labels[v1alpha1.LabelTenant] = "loses" })
	w.restart() // rather than wait for the next look
	w.becomes(tenant, "Ready=True")
}
