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
		if r.RetainFor == nil || calendar.Validate(*r.RetainFor) != nil {
			add("", "%s.retainFor: a window in exactly one unit is needed, for example days: 90", at)
			continue
		}
		if s := slack(r.DeleteWithin); !calendar.KeptBySweeping(s) {
			add("", "%s.deleteWithin (%s): %s", at, calendar.ISOSlack(s), tooPunctual)
		}
		ord := newOrdering()
		shortest := []v1alpha1.Period{*r.RetainFor}
		for _, o := range r.TenantOverrides {
			if o.RetainFor == nil || !ord.atMost(*o.RetainFor, *r.RetainFor) {
				why := "a window in exactly one unit is needed"
				if o.RetainFor != nil {
					why = calendar.Incomparable(*o.RetainFor, *r.RetainFor)
				}
				add("", "%s.tenantOverrides[%s].retainFor: %s, so the rule's own window stays; an override can only shorten", at, o.Tenant, why)
				continue
			}
			shortest = append(shortest, *o.RetainFor)
		}
		for _, s := range selected {
			for _, d := range s.Spec.Datasets {
				if d.DataClass != r.DataClass || d.Floor == nil || d.Floor.RetainFor == nil {
					continue
				}
				for _, w := range shortest {
					if !ord.atMost(*d.Floor.RetainFor, w) {
						add(d.Name, "%s: %s is not provably as long as spec.datasets[%s].floor.retainFor (%s) of DataStore %s/%s, so nothing of that dataset is "+
							"deleted; lengthen the window, in the floor's unit", at, calendar.ISO(w), d.Name, calendar.ISO(*d.Floor.RetainFor), s.Namespace, s.Name)
						break
					}
				}
			}
		}
	}
	return out
}
