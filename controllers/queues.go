package controllers

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/fair"
)

// queues makes the controllers' work queues, in which tenants take turns, and counts what waits in them.
type queues struct {
	cache   client.Reader
	workers int
	pace    time.Duration

	mutex sync.Mutex
	known map[string]*fair.Queue[ctrl.Request]
}

func newQueues(cache client.Reader, workers int, pace time.Duration) *queues {
	return &queues{cache: cache, workers: max(workers, 1), pace: pace, known: map[string]*fair.Queue[ctrl.Request]{}}
}

// options are those that every controller is made with.
func (q *queues) options() controller.Options {
	return controller.Options{NewQueue: func(name string, limiter workqueue.TypedRateLimiter[ctrl.Request]) workqueue.TypedRateLimitingInterface[ctrl.Request] {
		made := fair.New(fair.Options[ctrl.Request]{FlowOf: q.flowOf, Workers: q.workers, Pace: q.pace, RateLimiter: limiter})
		q.mutex.Lock()
		defer q.mutex.Unlock()
		q.known[name] = made
		return made
	}}
}

// flowOf is whose turn an object is worked on in: that of the Tenant that its namespace's protected label names.
// Namespaces of no Tenant share one, so that more of them are no more turns. What has no namespace only the
// platform's people write; each such object has turns of its own.
func (q *queues) flowOf(r ctrl.Request) string {
	if r.Namespace == "" {
		return "object/" + r.Name
	}
	namespace := &corev1.Namespace{}
	if err := q.cache.Get(context.Background(), client.ObjectKey{Name: r.Namespace}, namespace, client.UnsafeDisableDeepCopy); err != nil {
		return "" // the cache holds tenants' namespaces only
	}
	return "tenant/" + namespace.Labels[v1alpha1.LabelTenant]
}

var (
	queueDepthDesc   = prometheus.NewDesc("lethe_queue_depth", "Objects that could be worked on now, by controller.", []string{"controller"}, nil)
	queueTenantsDesc = prometheus.NewDesc("lethe_queue_tenants", "Tenants that have such objects waiting, by controller.", []string{"controller"}, nil)
	queueLongestDesc = prometheus.NewDesc("lethe_queue_longest_wait_seconds",
		"How long the object that waits longest has been ready to be worked on, by controller.", []string{"controller"}, nil)
)

// Describe is for Prometheus.
func (q *queues) Describe(descs chan<- *prometheus.Desc) {
	descs <- queueDepthDesc
	descs <- queueTenantsDesc
	descs <- queueLongestDesc
}

// Collect looks into the queues when it is asked: a series for each controller, none for a tenant.
func (q *queues) Collect(metrics chan<- prometheus.Metric) {
	q.mutex.Lock()
	defer q.mutex.Unlock()
	for name, queue := range q.known {
		state := queue.State()
		metrics <- prometheus.MustNewConstMetric(queueDepthDesc, prometheus.GaugeValue, float64(state.Depth), name)
		metrics <- prometheus.MustNewConstMetric(queueTenantsDesc, prometheus.GaugeValue, float64(state.Flows), name)
		metrics <- prometheus.MustNewConstMetric(queueLongestDesc, prometheus.GaugeValue, state.Longest.Seconds(), name)
	}
}
