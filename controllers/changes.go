package controllers

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/budget"
	"github.com/lethe-dev/lethe/internal/bulk"
	"github.com/lethe-dev/lethe/internal/reconcile"
)

const (
	// changesWindow is the time in which a tenant's bytes are counted: after as long, etcd forgets what was
	// overwritten.
	changesWindow = 5 * time.Minute
	// DefaultChangesBudget is how many bytes a tenant may have written within that time, as --changes-budget takes it.
	DefaultChangesBudget = "32Mi"
	// leastChangesBudget lets a namespace with the default quota be filled with ordinary bots at once.
	leastChangesBudget = 4 << 20
	// setWrites is how often etcd gets a StatefulSet's template once it has changed: the object itself, its
	// ControllerRevision, and two statuses.
	setWrites = 4
)

// ParseChangesBudget reads how many bytes a tenant may have written within five minutes.
func ParseChangesBudget(text string) (int64, error) {
	quantity, err := resource.ParseQuantity(text)
	if err != nil {
		return 0, fmt.Errorf("%q is no quantity of bytes such as %s", text, DefaultChangesBudget)
	}
	if quantity.Value() < leastChangesBudget {
		return 0, fmt.Errorf("%q is less than 4Mi, which a Tenant's first bots may need", text)
	}
	return quantity.Value(), nil
}

// Changes counts what is written to the objects of each tenant. The cache shows it every object before it is stripped.
type Changes struct {
	meter *budget.Meter
	limit int64
	clock clock.PassiveClock
	cache client.Reader
	// counting begins when the cache is filled: what was there already is no change.
	counting atomic.Bool
	// wake has one place: somebody has written more than it may.
	wake chan struct{}

	mutex sync.Mutex
	seen  [3]uint64 // the highest resourceVersion of each kind that counts
}

// NewChanges counts for ManagerOptions and Setup. Each Tenant may write that many bytes.
func NewChanges(limit int64, now clock.PassiveClock) *Changes {
	return &Changes{meter: budget.New(changesWindow), limit: limit, clock: now, wake: make(chan struct{}, 1)}
}

// strip counts an object as it was written, and strips it: docs/design/0007-fairness.md.
func (c *Changes) strip(o client.Object) {
	if c != nil {
		c.count(o)
	}
	bulk.Strip(o)
}

// count counts a revision once.
func (c *Changes) count(object client.Object) {
	var kind int
	writes := int64(1)
	switch o := object.(type) {
	case *v1alpha1.BotDeployment:
		kind = 0
	case *v1alpha1.DataStore:
		kind = 1
	case *appsv1.StatefulSet:
		kind, writes = 2, setWrites
		if o.Status.ObservedGeneration == o.Generation {
			writes = 0 // its pods come and go: that is no change of anybody's
		}
	default:
		return
	}
	isNew := c.isNew(kind, object.GetResourceVersion())
	// What is shown of an object that was on its way out, and that no finalizer holds, is what was deleted.
	deleted := object.GetDeletionTimestamp() != nil && len(object.GetFinalizers()) == 0
	if !isNew || deleted || writes == 0 || !c.counting.Load() {
		return
	}
	tenant := reconcile.TenantOfNamespace(context.Background(), c.cache, object.GetNamespace())
	if tenant == "" {
		return
	}
	size, err := sizeOf(object)
	if err != nil {
		return // what was decoded can be encoded
	}
	if c.meter.Add(tenant, writes*size, c.clock.Now()) > c.limit {
		c.poke()
	}
}

func sizeOf(object client.Object) (int64, error) {
	if set, ok := object.(*appsv1.StatefulSet); ok {
		return int64(set.Size()), nil // etcd keeps Kubernetes' own kinds in this form
	}
	return budget.SizeOf(object)
}

// isNew says whether a revision was not shown before. After a watch was broken everything is listed anew.
func (c *Changes) isNew(kind int, version string) bool {
	number, err := strconv.ParseUint(version, 10, 64)
	if err != nil {
		return true
	}
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if number <= c.seen[kind] {
		return false
	}
	c.seen[kind] = number
	return true
}

func (c *Changes) poke() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// Start is of controller-runtime, which calls it when the cache is filled.
func (c *Changes) Start(ctx context.Context) error {
	c.counting.Store(true)
	<-ctx.Done()
	return nil
}

// NeedLeaderElection is of controller-runtime: a manager that does not lead counts too, so that the next leader knows.
func (c *Changes) NeedLeaderElection() bool { return false }
