package doors

import "github.com/prometheus/client_golang/prometheus"

// Metrics of all doors of a program. Their labels are few and fixed: no address and no name.
type Metrics struct {
	connections *prometheus.GaugeVec
	refused     *prometheus.CounterVec
}

// NewMetrics registers the metrics of a program whose metrics' names begin with prefix.
func NewMetrics(prefix string, into prometheus.Registerer) (*Metrics, error) {
	m := &Metrics{
		connections: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: prefix + "_connections",
			Help: "Connections that are open, by door, and by whether they have shown whose they are: Anonymous, Known, Reserved; Waiting for their turn to begin."}, []string{"door", "state"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{Name: prefix + "_connections_refused_total",
			Help: "Connections that were turned away or closed for others, by door and reason: Source (its address had its share), Full (too many " +
				"anonymous), Name (its namespace had its share), Known (too many that are known), Wire (more was sent than a request can have), Pace (its turn to begin did not come)."},
			[]string{"door", "reason"}),
	}
	for _, c := range []prometheus.Collector{m.connections, m.refused} {
		if err := into.Register(c); err != nil {
			return nil, err //nolint:wrapcheck // it names the metric
		}
	}
	return m, nil
}

func (m *Metrics) open(door, state string, count int) {
	m.connections.WithLabelValues(door, state).Set(float64(count))
}

func (m *Metrics) closed(door, reason string) { m.refused.WithLabelValues(door, reason).Inc() }
