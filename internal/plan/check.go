package plan

import (
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/calendar"
)

// Check says what is wrong with a policy: with itself, and with the floors of the stores that it selects.
func Check(p *v1alpha1.DataRetentionPolicy, selected []*v1alpha1.DataStore) []Problem {
	var out []Problem
	if _, err := metav1.LabelSelectorAsSelector(&p.Spec.StoreSelector); err != nil {
		out = append(out, Problem{Policy: p.Name, Message: fmt.Sprintf("spec.storeSelector selects nothing, since it cannot be read: %v", err)})
	}
	for _, r := range p.Spec.Rules {
		at := fmt.Sprintf("spec.rules[%s]", r.Name)
		add := func(dataset, format string, args ...any) {
			out = append(out, Problem{Policy: p.Name, Rule: r.Name, Dataset: dataset, Message: fmt.Sprintf(format, args...)})
		}
		base := calendar.Or(r.RetainFor)
		if base.IsZero() {
			add("", "%s.retainFor: a window in exactly one unit is needed, for example days: 90", at)
			continue
		}
		if s, err := slack(r.DeleteWithin); err != nil {
			add("", "%s.deleteWithin: %v, so nothing is deleted by this rule", at, err)
		} else if !s.KeptBySweeping() {
			add("", "%s.deleteWithin (%s): %s", at, s, tooPunctual)
		}
		ord := newOrdering()
		shortest := []calendar.Window{base}
		for _, o := range r.TenantOverrides {
			own := calendar.Or(o.RetainFor)
			if !ord.atMost(own, base) {
				add("", "%s.tenantOverrides[%s].retainFor: %s, so the rule's own window stays; an override can only shorten", at, o.Tenant, own.Incomparable(base))
				continue
			}
			shortest = append(shortest, own)
		}
		for _, s := range selected {
			for _, d := range s.Spec.Datasets {
				if d.DataClass != r.DataClass || d.Floor == nil || d.Floor.RetainFor == nil {
					continue
				}
				floor := calendar.Or(d.Floor.RetainFor)
				for _, w := range shortest {
					if !ord.atMost(floor, w) {
						add(d.Name, "%s: %s is not provably as long as spec.datasets[%s].floor.retainFor (%s) of DataStore %s/%s, so nothing of that dataset is "+
							"deleted; lengthen the window, in the floor's unit", at, w, d.Name, floor, s.Namespace, s.Name)
						break
					}
				}
			}
		}
	}
	return out
}
