// Package controllers wires the reconcilers of all kinds into a manager. Each kind has a package of its own below;
// what several of them need is in internal/reconcile.
package controllers

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/controller"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/controllers/bot"
	"github.com/lethe-dev/lethe/controllers/datastore"
	"github.com/lethe-dev/lethe/controllers/orphans"
	"github.com/lethe-dev/lethe/controllers/retentionpolicy"
	"github.com/lethe-dev/lethe/controllers/tenant"
	"github.com/lethe-dev/lethe/internal/bulk"
	"github.com/lethe-dev/lethe/internal/dnscheck"
	"github.com/lethe-dev/lethe/internal/kube"
	"github.com/lethe-dev/lethe/internal/reconcile"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/internal/rollout"
)

// passTimeout ends a pass that hangs, for example because a watch is broken.
const passTimeout = time.Minute

// The leader's lease, and the events about it:
//
// +kubebuilder:rbac:groups=coordination.k8s.io,namespace=lethe-system,resources=leases,verbs=get;create;update
// +kubebuilder:rbac:groups="",namespace=lethe-system,resources=events,verbs=create

// Options of the reconcilers.
type Options struct {
	// Settings that pods are made with.
	Settings resources.Settings
	// Keys is the keyserver.
	Keys reconcile.Keys
	// KeysNamespace holds the wrapped keys. Like the manager's own namespace it can be no Tenant's.
	KeysNamespace string
	// PolicyKinds are the kinds of foreign network policies to look for. Defaults to Kubernetes' own.
	PolicyKinds []schema.GroupResource
	// Metrics registers what the manager shows while it leads. Left out, that is nothing.
	Metrics prometheus.Registerer
	// Changes counts what tenants write, as ManagerOptions was given it. Left out, nobody's changes are paused.
	Changes *Changes
	// DNS finds out whether bots reach what answers DNS. Left out, nobody looks.
	DNS *dnscheck.Check
	// Clock. Defaults to the real one.
	Clock clock.PassiveClock
	// OrphansEvery is between two looks for what has no owner any more, OrphansAfter how long garbage collection is
	// given when an owner has gone. They default to a quarter of an hour and to 15 seconds.
	OrphansEvery, OrphansAfter time.Duration
	// StatusGracePeriod is how long a new generation of a bot may take before a status says that it is on its way.
	// Defaults to a minute.
	StatusGracePeriod time.Duration
	// Grace is how long what was applied together may take to come right by itself. Defaults to ApplyGrace.
	Grace time.Duration
	// Rollout limits how many bots are restarted at a time because of Lethe. Left out, the defaults.
	Rollout rollout.Limits
	// Pace is the time between two passes over one object in the long run, however often it changes. Defaults to a
	// second.
	Pace time.Duration
}

// Setup adds every reconciler to a manager that was made with ManagerOptions.
func Setup(ctx context.Context, mgr ctrl.Manager, o Options) error {
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
	if o.StatusGracePeriod == 0 {
		o.StatusGracePeriod = time.Minute
	}
	if o.Grace == 0 {
		o.Grace = reconcile.ApplyGrace
	}
	if o.Pace == 0 {
		o.Pace = time.Second
	}
	if o.Rollout == (rollout.Limits{}) {
		o.Rollout = rollout.Defaults()
	}
	if o.Rollout.Lasts == 0 {
		o.Rollout.Lasts = rollout.DefaultLasts
	}
	if len(o.PolicyKinds) == 0 {
		o.PolicyKinds = []schema.GroupResource{tenant.CorePolicies}
	}
	if err := reconcile.AddIndexes(ctx, mgr); err != nil {
		return err
	}
	foreign, err := tenant.NewForeignPolicies(ctx, mgr, o.PolicyKinds)
	if err != nil {
		return err
	}
	writer := kube.Writer{Client: reconcile.WholeOnly{Client: mgr.GetClient()}, Live: mgr.GetAPIReader(), Strip: func(o client.Object) { bulk.Strip(o) }}
	recorder := reconcile.FitRecorder{EventRecorder: mgr.GetEventRecorder("lethe")}
	writer.Admission = reconcile.AdmissionOf(o.Settings, o.Clock, recorder)
	sweep, err := orphans.New(mgr, writer, recorder, o.Settings, o.OrphansEvery, o.OrphansAfter)
	if err != nil {
		return err
	}
	if err := mgr.Add(sweep); err != nil {
		return fmt.Errorf("add the orphan sweep: %w", err)
	}
	if o.Changes != nil {
		brake, err := newBrake(ctx, mgr, o.Changes)
		if err != nil {
			return err
		}
		if err := errors.Join(mgr.Add(o.Changes), mgr.Add(brake)); err != nil {
			return fmt.Errorf("add the counting of changes: %w", err)
		}
	}
	if o.DNS != nil {
		o.DNS.Recorder = recorder
		o.Keys = reconcile.NamedKeys{Keys: o.Keys, DNS: o.DNS}
		if err := mgr.Add(o.DNS); err != nil {
			return fmt.Errorf("add the check of DNS: %w", err)
		}
	}
	doubts, deleted := reconcile.NewKeyDoubts(), &datastore.DeletedRows{}
	reconcilers := []interface {
		SetupWithManager(ctrl.Manager, controller.Options) error
	}{
		&tenant.Reconciler{Writer: writer, Keys: o.Keys, Settings: o.Settings, Recorder: recorder, Clock: o.Clock, Foreign: foreign, KeysNamespace: o.KeysNamespace,
			Orphans: sweep, Doubts: doubts},
		&bot.Reconciler{Writer: writer, Keys: o.Keys, Settings: o.Settings, Recorder: recorder, Clock: o.Clock, StatusGracePeriod: o.StatusGracePeriod, Grace: o.Grace, Orphans: sweep,
			Doubts: doubts, DNS: o.DNS, Pace: bot.NewPacer(writer.Client, o.Rollout, o.Clock)},
		&datastore.Reconciler{Writer: writer, Keys: o.Keys, Settings: o.Settings, Recorder: recorder, Clock: o.Clock, Grace: o.Grace, Orphans: sweep, Doubts: doubts, Deleted: deleted},
		&retentionpolicy.Reconciler{Writer: writer, Recorder: recorder, Clock: o.Clock},
	}
	queues := newQueues(mgr.GetCache(), mgr.GetControllerOptions().MaxConcurrentReconciles, o.Pace)
	if o.Metrics != nil {
		if err := o.Metrics.Register(newFleet(mgr, deleted, queues, bot.RolloutCollector{Cache: mgr.GetCache(), Limits: o.Rollout, Clock: o.Clock})); err != nil {
			return fmt.Errorf("register metrics: %w", err)
		}
	}
	for _, r := range reconcilers {
		if err := r.SetupWithManager(mgr, queues.options()); err != nil {
			return err
		}
	}
	return nil
}

// ManagerOptions are the parts of a manager's options that the reconcilers rely on: what is cached, and how fast they
// work. Few workers without a limit of their own beat many: on a small control plane more only cause conflicts and
// repeats, and the API server has its own way of dividing itself fairly. Without changes nobody counts what tenants
// write.
func ManagerOptions(cfg *rest.Config, workers int, changes *Changes) (ctrl.Options, error) {
	watches, err := separateClient(cfg)
	if err != nil {
		return ctrl.Options{}, err
	}
	yes := true
	return ctrl.Options{
		Cache: cache.Options{
			HTTPClient:       watches,
			DefaultTransform: (&keeper{changes: changes}).keep,
			ByObject:         cachedObjects(),
			// A kind that nobody watches must not be cached by an oversight.
			ReaderFailOnMissingInformer: true,
		},
		Client: client.Options{Cache: &client.CacheOptions{EnableReadYourWritesConsistency: &yes}},
		Controller: config.Controller{
			MaxConcurrentReconciles: workers,
			ReconciliationTimeout:   passTimeout,
			EnableWarmup:            &yes,
		},
	}, nil
}

// keeper is what the cache does to each object before it keeps it.
type keeper struct {
	changes *Changes
	sharer  bulk.Sharer
}

// keep counts what tenants write, leaves out what nobody reads, and keeps once what is the same in many objects.
func (k *keeper) keep(object any) (any, error) {
	o, ok := object.(client.Object)
	// A first list is shown twice, and what others share by then is not to be written again.
	if !ok || bulk.IsStripped(o) {
		return object, nil
	}
	k.changes.strip(o)
	k.sharer.Share(o)
	return object, nil
}

// cachedObjects keeps out of memory what is not ours: a tenant, or anybody else in the cluster, must not be able to
// fill it.
func cachedObjects() map[client.Object]cache.ByObject {
	ours := cache.ByObject{Label: labels.SelectorFromSet(labels.Set{v1alpha1.LabelManagedBy: v1alpha1.ManagedByLethe})}
	objects := map[client.Object]cache.ByObject{
		&corev1.Namespace{}: {Label: tenantNamespaces()},
	}
	for _, child := range []client.Object{
		&corev1.ServiceAccount{}, &corev1.ConfigMap{}, &corev1.PersistentVolumeClaim{}, &corev1.ResourceQuota{}, &corev1.LimitRange{},
		&networkingv1.NetworkPolicy{}, &rbacv1.RoleBinding{}, &appsv1.StatefulSet{}, &batchv1.CronJob{}, &batchv1.Job{},
	} {
		objects[child] = ours
	}
	return objects
}

func tenantNamespaces() labels.Selector {
	labelled, err := labels.NewRequirement(v1alpha1.LabelTenant, selection.Exists, nil)
	if err != nil {
		return labels.Nothing() // only a malformed key is an error
	}
	return labels.NewSelector().Add(*labelled)
}

// separateClient gives watches a connection of their own, so that events do not queue behind writes.
func separateClient(cfg *rest.Config) (*http.Client, error) {
	own := rest.CopyConfig(cfg)
	if own.Dial == nil {
		own.Dial = (&net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second}).DialContext
	}
	watches, err := rest.HTTPClientFor(own)
	if err != nil {
		return nil, fmt.Errorf("make the client for watches: %w", err)
	}
	return watches, nil
}
