package v1alpha1

// ProblemOf is why a rule of the dataset was not measured, or why nothing of it was deleted: the rule's own problem,
// or else that of the dataset, which holds for each of its rules. A zero Problem: nothing stood in the way.
func (d *DatasetMeasurement) ProblemOf(r *RuleMeasurement) Problem {
	if r.Reason != "" {
		return r.Problem
	}
	return d.Problem
}

// Measurement of one rule on one dataset, as the status has it; nil where it says nothing of the rule. The dataset
// may be there without.
func (s *DataStoreStatus) Measurement(dataset, policy, rule string) (*DatasetMeasurement, *RuleMeasurement) {
	for i := range s.Datasets {
		d := &s.Datasets[i]
		if d.Name != dataset {
			continue
		}
		for n := range d.Rules {
			if d.Rules[n].Policy == policy && d.Rules[n].Rule == rule {
				return d, &d.Rules[n]
			}
		}
		return d, nil
	}
	return nil, nil
}

// Lines gives each rule on each dataset with what was measured of the dataset, worst first.
func (s *DataStoreStatus) Lines(yield func(*DatasetMeasurement, *RuleMeasurement) bool) {
	for i := range s.Datasets {
		for n := range s.Datasets[i].Rules {
			if !yield(&s.Datasets[i], &s.Datasets[i].Rules[n]) {
				return
			}
		}
	}
}
