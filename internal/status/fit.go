package status

import (
	"encoding/json"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

// maxDatasetBytes is how much of a status its datasets take at most, as JSON. Everything else that a status holds is
// bounded by its schema and stays under 488 KiB (TestAStatusHasItsSize), so that a status is under 1000 KiB: etcd
// takes 1.5 MiB of one object, and a spec of 512 datasets is a part of that.
const maxDatasetBytes = 512 << 10

// fit leaves of datasets, which are sorted worst first, what fits into so many bytes, and says what went. Texts go
// first, those of the least bad datasets before others: notices, then messages, whose reasons stay. If that is not
// enough, measurements go: those of which nothing bad is to be told, and then the least bad. before is what was left
// out the last time: the worst that was ever seen of rules that have no room is kept for them together.
func fit(datasets []v1alpha1.DatasetMeasurement, most int, before *v1alpha1.OmittedMeasurements) ([]v1alpha1.DatasetMeasurement, *v1alpha1.OmittedMeasurements) {
	f := &fitting{datasets: datasets, most: most, sizes: make([]int, len(datasets))}
	for i := range datasets {
		f.keepFirst(i, maxRules)
		f.weigh(i)
	}
	f.each(func(d *v1alpha1.DatasetMeasurement) { f.drop(&d.Notice) })
	f.each(func(d *v1alpha1.DatasetMeasurement) {
		f.drop(&d.Message)
		for n := range d.Rules {
			f.drop(&d.Rules[n].Message)
		}
	})
	f.each(func(d *v1alpha1.DatasetMeasurement) { f.dropRules(d, clean) })
	f.each(func(d *v1alpha1.DatasetMeasurement) {
		f.dropRules(d, func(*v1alpha1.DatasetMeasurement, *v1alpha1.RuleMeasurement) bool { return true })
	})
	var out []v1alpha1.DatasetMeasurement
	for i := range f.datasets {
		if !f.gone(i) {
			out = append(out, f.datasets[i])
		}
	}
	if before != nil && before.WorstOverdueSeconds > f.out.WorstOverdueSeconds {
		f.out.WorstOverdueSeconds, f.out.WorstOverdueAt = before.WorstOverdueSeconds, before.WorstOverdueAt
	}
	if f.out == (v1alpha1.OmittedMeasurements{}) {
		return out, nil
	}
	return out, &f.out
}

// fitting is the state of fit.
type fitting struct {
	datasets []v1alpha1.DatasetMeasurement
	sizes    []int // of each dataset as JSON, with its comma
	total    int
	most     int
	out      v1alpha1.OmittedMeasurements
}

func (f *fitting) weigh(i int) {
	f.total -= f.sizes[i]
	f.sizes[i] = 0
	if !f.gone(i) {
		b, err := json.Marshal(f.datasets[i])
		if err != nil {
			b = make([]byte, f.most) // cannot be: it would not be written either
		}
		f.sizes[i] = len(b) + 1
	}
	f.total += f.sizes[i]
}

// each visits datasets from the least bad one on, as long as there is too much.
func (f *fitting) each(visit func(*v1alpha1.DatasetMeasurement)) {
	for i := len(f.datasets) - 1; i >= 0 && f.total+2 > f.most; i-- {
		if f.gone(i) {
			continue
		}
		visit(&f.datasets[i])
		f.weigh(i)
	}
}

// gone says that nothing is left of a dataset: a name that dropRules took away.
func (f *fitting) gone(i int) bool { return f.datasets[i].Name == "" }

func (f *fitting) drop(text *string) {
	if *text != "" {
		*text = ""
		f.out.Texts++
	}
}

func (f *fitting) keepFirst(i, most int) {
	d := &f.datasets[i]
	for len(d.Rules) > most {
		f.omit(d, len(d.Rules)-1)
	}
}

func (f *fitting) dropRules(d *v1alpha1.DatasetMeasurement, goes func(*v1alpha1.DatasetMeasurement, *v1alpha1.RuleMeasurement) bool) {
	if len(d.Rules) == 0 { // no rule governs it, or it could not be measured: it counts as one
		if none := (v1alpha1.RuleMeasurement{}); goes(d, &none) {
			f.out.Rules++
			*d = v1alpha1.DatasetMeasurement{}
		}
		return
	}
	for n := len(d.Rules) - 1; n >= 0; n-- {
		if goes(d, &d.Rules[n]) {
			f.omit(d, n)
		}
	}
	if len(d.Rules) == 0 {
		*d = v1alpha1.DatasetMeasurement{}
	}
}

func (f *fitting) omit(d *v1alpha1.DatasetMeasurement, n int) {
	m := &d.Rules[n]
	f.out.Rules++
	if m.WorstOverdueSeconds > f.out.WorstOverdueSeconds {
		f.out.WorstOverdueSeconds, f.out.WorstOverdueAt = m.WorstOverdueSeconds, m.WorstOverdueAt
	}
	d.Rules = append(d.Rules[:n:n], d.Rules[n+1:]...)
}

// clean says that nothing bad is to be told of a rule on a dataset, now or ever.
func clean(d *v1alpha1.DatasetMeasurement, m *v1alpha1.RuleMeasurement) bool {
	return d.ProblemOf(m).Reason == "" && m.Overdue == 0 && m.WorstOverdueSeconds == 0 && m.UnknownTenantLate == 0 && d.UnknownAge == 0
}
