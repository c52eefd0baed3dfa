package status_test

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/status"
)

// TestAPolicyNamesTheStoreThatItNearlySelects: a misspelt label is found where it is asked for, whichever of the two
// is misspelt.
func TestAPolicyNamesTheStoreThatItNearlySelects(t *testing.T) {
	store := func(name string, labels map[string]string) *v1alpha1.DataStore {
		return &v1alpha1.DataStore{ObjectMeta: metav1.ObjectMeta{Namespace: "data", Name: name, Labels: labels}}
	}
	published := metav1.LabelSelector{MatchLabels: map[string]string{"retention": "published"}}
	for name, tc := range map[string]struct {
		selector metav1.LabelSelector
		stores   []*v1alpha1.DataStore
		says     string
	}{
		"no store":            {published, nil, "so nothing keeps the promise: label a DataStore as the selector asks"},
		"none of those":       {published, []*v1alpha1.DataStore{store("chat", nil)}, "label a DataStore as the selector asks"},
		"a misspelt value":    {published, []*v1alpha1.DataStore{store("chat", map[string]string{"retention": "publised"}), store("a", map[string]string{"retention": "none"})}, "; data/chat has the label retention=publised, and retention=published is asked for: correct the one or the other"},
		"a capital":           {published, []*v1alpha1.DataStore{store("chat", map[string]string{"retention": "Published"})}, "data/chat has the label retention=Published"},
		"a misspelt key":      {published, []*v1alpha1.DataStore{store("chat", map[string]string{"retenton": "published"})}, "data/chat has the label retenton=published"},
		"another value":       {published, []*v1alpha1.DataStore{store("b", map[string]string{"retention": "none"}), store("a", map[string]string{"retention": "internal"})}, "data/a has the label retention=internal"},
		"one label of two":    {metav1.LabelSelector{MatchLabels: map[string]string{"retention": "published", "region": "eu"}}, []*v1alpha1.DataStore{store("chat", map[string]string{"retention": "published", "region": "ue"})}, "region=ue, and region=eu is asked for"},
		"a key of expression": {metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "retention", Operator: metav1.LabelSelectorOpExists}}}, []*v1alpha1.DataStore{store("chat", map[string]string{"retentoin": "x"})}, "the key retention is asked for"},
	} {
		t.Run(name, func(t *testing.T) {
			policy := &v1alpha1.DataRetentionPolicy{Spec: v1alpha1.DataRetentionPolicySpec{StoreSelector: tc.selector}}
			_, conditions := status.Policy(status.PolicyObserved{Policy: policy, Others: tc.stores})
			c := meta.FindStatusCondition(conditions, v1alpha1.ConditionCompliant)
			if c == nil || c.Reason != v1alpha1.ReasonNoStore || !strings.Contains(c.Message, tc.says) {
				t.Errorf("%+v, want %q in it", c, tc.says)
			}
		})
	}
}
