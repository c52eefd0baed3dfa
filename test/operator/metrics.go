package operator

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// Series is one line of what a registry shows.
type Series struct {
	Name   string
	Labels map[string]string
	Value  float64
}

func (s Series) String() string {
	text := s.Name
	for _, key := range slices.Sorted(maps.Keys(s.Labels)) {
		text += " " + key + "=" + s.Labels[key]
	}
	return fmt.Sprintf("%s %g", text, s.Value)
}

// Gathered is what a scrape of collectors shows: a registry that checks what Prometheus would refuse.
func Gathered(t *testing.T, collectors ...prometheus.Collector) []Series {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	for _, c := range collectors {
		if err := registry.Register(c); err != nil {
			t.Fatal(err)
		}
	}
	return Scraped(t, registry)
}

// Scraped is what a registry shows.
func Scraped(t *testing.T, from prometheus.Gatherer) []Series {
	t.Helper()
	families, err := from.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var out []Series
	for _, family := range families {
		for _, m := range family.GetMetric() {
			s := Series{Name: family.GetName(), Labels: map[string]string{}, Value: m.GetGauge().GetValue() + m.GetCounter().GetValue()}
			for _, label := range m.GetLabel() {
				s.Labels[label.GetName()] = label.GetValue()
			}
			out = append(out, s)
		}
	}
	return out
}
