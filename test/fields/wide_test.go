package fields

import (
	"fmt"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

// TestAStoreOf512DatasetsIsTaken with an approval for each, and with the status that 2048 rules on them make: the API
// server and etcd have room for it.
func TestAStoreOf512DatasetsIsTaken(t *testing.T) {
	o := kinds()["DataStore"].build(t)
	var s v1alpha1.DataStore
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, &s); err != nil {
		t.Fatal(err)
	}
	s.Namespace, s.Name = cluster.Namespace(t, "wide", nil).Name, "wide"
	first, window := s.Spec.Datasets[0], s.Spec.ApprovedPlan.Windows[0]
	s.Spec.Datasets, s.Spec.Relations, s.Spec.ApprovedPlan.Windows = nil, nil, nil
	var measured []v1alpha1.DatasetMeasurement
	at := metav1.NewTime(time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC))
	for i := range 512 {
		d, w := *first.DeepCopy(), *window.DeepCopy()
		d.Name, d.Table.Name, w.Dataset = fmt.Sprintf("messages-of-feature-%03d", i), v1alpha1.Identifier(fmt.Sprintf("messages_of_feature_%03d", i)), fmt.Sprintf("messages-of-feature-%03d", i)
		s.Spec.Datasets, s.Spec.ApprovedPlan.Windows = append(s.Spec.Datasets, d), append(s.Spec.ApprovedPlan.Windows, w)
		m := v1alpha1.DatasetMeasurement{Name: d.Name, Rows: 123456789, UnknownTenant: 12}
		for n := range 4 {
			m.Rules = append(m.Rules, v1alpha1.RuleMeasurement{Policy: fmt.Sprintf("published-promise-%d", n), Rule: "conversations", Window: "P90D", Eligible: 123456, Deleted: 12345,
				WorstOverdueSeconds: 123456, WorstOverdueAt: &at})
		}
		measured = append(measured, m)
	}
	if err := cluster.Client.Create(t.Context(), &s); err != nil {
		t.Fatalf("512 datasets: %v", err)
	}
	before := s.DeepCopy()
	s.Status.Datasets = measured
	if err := cluster.Client.Status().Patch(t.Context(), &s, client.MergeFrom(before)); err != nil {
		t.Fatalf("512 datasets in the status: %v", err)
	}
	lines := 0
	for range s.Status.Lines {
		lines++
	}
	if lines != 2048 {
		t.Errorf("%d measurements came back", lines)
	}
	s.Spec.Datasets = append(s.Spec.Datasets, first)
	if err := cluster.Client.Update(t.Context(), &s); err == nil {
		t.Error("513 datasets are taken")
	}
}
