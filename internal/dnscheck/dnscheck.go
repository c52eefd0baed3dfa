// Package dnscheck finds out whether the network policies of bots let them reach what answers DNS.
package dnscheck

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/foreign"
	"github.com/lethe-dev/lethe/internal/resources"
)

// The rights to look at the Service that answers DNS are a Role of its own in that Service's namespace:
// config/rbac/dns.yaml.

const (
	dnsEvery      = 5 * time.Minute
	dnsAgain      = 30 * time.Second // while it is not answered
	dnsTries      = 3
	dnsTryFor     = 5 * time.Second
	dnsProbedName = "kubernetes.default.svc.cluster.local."
)

var Answers = prometheus.NewGauge(prometheus.GaugeOpts{
	Name: "lethe_dns_answers", Help: "1 when the manager's last question to the cluster's DNS was answered, through the same walls as bots have; 0 when it was not.",
})

func init() { Answers.Set(1) }

// Check finds out whether the walls that the settings make let through what answers DNS. The manager's own pod has
// the same wall, so it asks a question itself. Only when that is not answered does it look why: where nothing but the
// settings stands in between, bots say so. A DNS server that is down for a while turns no bot's status.
type Check struct {
	// Settings that policies are made with.
	Settings resources.Settings
	// Live reads Services and EndpointSlices of the DNS namespace.
	Live client.Reader
	// Bots lists what is woken when the verdict changes.
	Bots client.Reader
	// Recorder tells of it on the manager's Deployment.
	Recorder events.EventRecorder
	// Answered asks the cluster's DNS something, and says whether there was any answer. Defaults to the resolver of
	// the pod.
	Answered func(ctx context.Context) bool
	// ResolvConf is the file that names what pods ask. Defaults to /etc/resolv.conf.
	ResolvConf string
	// Every and Again are between two looks, and between two while there was no answer.
	Every, Again time.Duration

	Events chan event.GenericEvent
	mutex  sync.Mutex
	closed string
}

// New makes one that asks the pod's own resolver.
func New(settings resources.Settings, live, bots client.Reader) *Check {
	return &Check{Settings: settings, Live: live, Bots: bots, Answered: resolverAnswers, ResolvConf: "/etc/resolv.conf",
		Every: dnsEvery, Again: dnsAgain, Events: make(chan event.GenericEvent)}
}

// NeedLeaderElection is of controller-runtime: the one that leads writes statuses.
func (d *Check) NeedLeaderElection() bool { return true }

// Closed says why bots reach no DNS; empty while they do, or nobody knows.
func (d *Check) Closed() string {
	if d == nil {
		return ""
	}
	d.mutex.Lock()
	defer d.mutex.Unlock()
	return d.closed
}

// Start looks until the manager ends.
func (d *Check) Start(ctx context.Context) error {
	for {
		wait := d.Every
		if !d.look(ctx) {
			wait = d.Again
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
	}
}

// look asks, and says whether there was an answer.
func (d *Check) look(ctx context.Context) bool {
	answered := false
	for range dnsTries {
		if answered = d.Answered(ctx); answered || ctx.Err() != nil {
			break
		}
	}
	if ctx.Err() != nil {
		return answered
	}
	if answered {
		Answers.Set(1)
		d.decide(ctx, "")
		return true
	}
	Answers.Set(0)
	wall, err := d.wall(ctx)
	switch {
	case err != nil:
		log.FromContext(ctx).Error(err, "The cluster's DNS does not answer the manager, and it cannot be found out why")
	case wall == "":
		log.FromContext(ctx).Info("The cluster's DNS does not answer the manager, although the network policies let it through")
		d.decide(ctx, "")
	default:
		d.decide(ctx, wall)
	}
	return false
}

// wall compares what pods ask with what policies open.
func (d *Check) wall(ctx context.Context) (string, error) {
	content, err := os.ReadFile(d.ResolvConf)
	if err != nil {
		return "", fmt.Errorf("read what pods ask: %w", err)
	}
	var services corev1.ServiceList
	if err := d.Live.List(ctx, &services, client.InNamespace(d.Settings.DNSNamespace)); err != nil {
		return "", fmt.Errorf("list the Services of %s: %w", d.Settings.DNSNamespace, err)
	}
	var slices discoveryv1.EndpointSliceList
	if err := d.Live.List(ctx, &slices, client.InNamespace(d.Settings.DNSNamespace)); err != nil {
		return "", fmt.Errorf("list the EndpointSlices of %s: %w", d.Settings.DNSNamespace, err)
	}
	return resources.DNSWall(d.Settings, resources.Nameservers(string(content)), services.Items, slices.Items), nil
}

// decide remembers a verdict, and tells of one that is another: in the log, as an event, and to every bot.
func (d *Check) decide(ctx context.Context, closed string) {
	d.mutex.Lock()
	same := d.closed == closed
	d.closed = closed
	d.mutex.Unlock()
	if same {
		return
	}
	manager := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: d.Settings.Namespace, Name: resources.ServiceAccountManager}}
	if closed == "" {
		log.FromContext(ctx).Info("The cluster's DNS is in reach of bots again")
	} else {
		log.FromContext(ctx).Error(errors.New(foreign.Text(closed)), "The cluster's DNS is out of reach of bots and sweeps")
		if d.Recorder != nil {
			d.Recorder.Eventf(manager, nil, corev1.EventTypeWarning, v1alpha1.ReasonDNSOutOfReach, "Check", "%s", closed)
		}
	}
	var bots v1alpha1.BotDeploymentList
	if err := d.Bots.List(ctx, &bots); err != nil {
		log.FromContext(ctx).Error(err, "Bots are told when they are looked at next")
		return
	}
	for i := range bots.Items {
		select {
		case d.Events <- event.GenericEvent{Object: &bots.Items[i]}:
		case <-ctx.Done():
			return
		}
	}
}

// resolverAnswers asks the pod's own resolver. That a name does not exist is an answer, and that the server has
// trouble, too.
func resolverAnswers(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, dnsTryFor)
	defer cancel()
	_, err := (&net.Resolver{PreferGo: true}).LookupNetIP(ctx, "ip", dnsProbedName)
	var refused *net.DNSError
	return err == nil || (errors.As(err, &refused) && (refused.IsNotFound || refused.Err == "server misbehaving"))
}
