package keyserver

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/lethe-dev/lethe/internal/sealing"
)

// Metrics of a keyserver. No label holds a name of a tenant, a pod or an object: paths and reasons are few and fixed.
type Metrics struct {
	requests    *prometheus.CounterVec
	duration    *prometheus.HistogramVec
	tenantKeys  prometheus.Gauge
	kekUsable   prometheus.Gauge
	pending     prometheus.Gauge
	differing   prometheus.Gauge
	certificate *prometheus.GaugeVec
	// channelsTaken counts credentials that were refused because another bot holds their channel.
	channelsTaken prometheus.Counter
	// orphans counts keys that were destroyed because their owner was gone without a word.
	orphans *prometheus.CounterVec
	// onOld and rotationPass are about rotation.
	onOld        *prometheus.GaugeVec
	rotationPass prometheus.Gauge
}

// NewMetrics registers the metrics.
func NewMetrics(into prometheus.Registerer) (*Metrics, error) {
	m := &Metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "lethe_keyserver_requests_total",
			Help: "Calls answered, by path and by the reason of the answer; OK for those that were granted."}, []string{"path", "reason"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "lethe_keyserver_request_duration_seconds",
			Help: "Time to answer, by path.", Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 15}}, []string{"path"}),
		tenantKeys: prometheus.NewGauge(prometheus.GaugeOpts{Name: "lethe_keyserver_tenant_keys_in_memory",
			Help: "Tenants whose keys are open in memory, for a minute at most after their last use."}),
		kekUsable: prometheus.NewGauge(prometheus.GaugeOpts{Name: "lethe_keyserver_kek_usable",
			Help: "1 while the key-encryption key opens its canary."}),
		pending: prometheus.NewGauge(prometheus.GaugeOpts{Name: "lethe_keyserver_pending_destructions",
			Help: "Deleted Tenants whose sealing keys wait for the end of their grace, and are destroyed then."}),
		differing: prometheus.NewGauge(prometheus.GaugeOpts{Name: "lethe_keyserver_differing_tenants",
			Help: "Tenants whose keys were not found as their status names them, at the last look; alert when it is above 0."}),
		certificate: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "lethe_keyserver_certificate_expiry_timestamp_seconds",
			Help: "When the server's certificate (leaf) and its authority (ca) end."}, []string{"certificate"}),
		onOld: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "lethe_keyserver_keys_on_old",
			Help: "What is still on an old key, by layer, as the last pass over all documents counted it: documents (kek), keys (tenant), values of live objects (sealing), objects (data)."}, []string{"layer"}),
		rotationPass: prometheus.NewGauge(prometheus.GaugeOpts{Name: "lethe_keyserver_rotation_pass_timestamp_seconds",
			Help: "When the last whole pass over all documents ended."}),
	}
	m.channelsTaken = prometheus.NewCounter(prometheus.CounterOpts{Name: "lethe_keyserver_channels_taken_total",
		Help: "Credentials that were refused because another bot holds the messenger's channel that they speak for."})
	m.orphans = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "lethe_keyserver_orphans_removed_total",
		Help: "Documents of keys that were destroyed because their owner, of that kind, was gone and nobody had revoked them."}, []string{"kind"})
	for _, kind := range []string{"Tenant", sealing.KindBotDeployment, sealing.KindDataStore} {
		m.orphans.WithLabelValues(kind)
	}
	for _, c := range []prometheus.Collector{m.channelsTaken, m.orphans, m.requests, m.duration, m.tenantKeys, m.kekUsable, m.certificate, m.pending, m.differing, m.onOld, m.rotationPass} {
		if err := into.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (m *Metrics) observe(path, reason string, took time.Duration) {
	m.requests.WithLabelValues(path, reason).Inc()
	m.duration.WithLabelValues(path).Observe(took.Seconds())
}

// kekChecked notes whether the key-encryption key opens its canary.
func (m *Metrics) kekChecked(usable bool) {
	value := 0.0
	if usable {
		value = 1
	}
	m.kekUsable.Set(value)
}

// certificateEnds notes when a certificate ends: that of the server (leaf), or that of its authority (ca).
func (m *Metrics) certificateEnds(certificate string, at time.Time) {
	m.certificate.WithLabelValues(certificate).Set(float64(at.Unix()))
}
