package reconcile

import (
	"context"
	"sync"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/event"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keyapi"
)

// KeyDoubts are Tenants whose condition KeysReady may not be so any more, since the keyserver said something about
// one of their bots or stores that does not agree with it. The Tenant is looked at now, and the keyserver asked about
// it.
type KeyDoubts struct {
	Events chan event.GenericEvent

	mutex    sync.Mutex
	doubtful map[string]types.UID // of the Tenant of that name
}

// NewKeyDoubts makes them; nothing is doubted yet.
func NewKeyDoubts() *KeyDoubts {
	return &KeyDoubts{Events: make(chan event.GenericEvent, 1024), doubtful: map[string]types.UID{}}
}

// Weigh compares the keyserver's answer about a bot or a store with what its Tenant says.
func (d *KeyDoubts) Weigh(ctx context.Context, tenant *v1alpha1.Tenant, answer keyapi.CredentialsResponse, err error) {
	differs := speaksOfKeys(reasonOf(err))
	for _, item := range answer.Items {
		differs = differs || speaksOfKeys(item.Reason)
	}
	keys := meta.FindStatusCondition(tenant.Status.Conditions, v1alpha1.ConditionKeysReady)
	lost := keys != nil && keys.Status == metav1.ConditionFalse && speaksOfKeys(keys.Reason)
	if differs == lost || (err != nil && !differs) {
		return // they agree, or nothing was learnt
	}
	d.mutex.Lock()
	_, waits := d.doubtful[tenant.Name]
	d.doubtful[tenant.Name] = tenant.UID
	d.mutex.Unlock()
	if waits {
		return // it has been told already
	}
	select {
	case d.Events <- event.GenericEvent{Object: tenant}:
	case <-ctx.Done():
		d.Forget(tenant.Name) // so that the next one tells it
	}
}

// speaksOfKeys says whether a reason of the keyserver means that a tenant's keys are not those that were known.
func speaksOfKeys(reason string) bool {
	switch reason {
	case v1alpha1.ReasonKeyMissing, v1alpha1.ReasonKeysAltered, v1alpha1.ReasonKeysRolledBack, v1alpha1.ReasonUnknownKey:
		return true
	}
	return false
}

// Take says whether there was a doubt about a Tenant, and is over it: the keyserver is asked next.
func (d *KeyDoubts) Take(tenant *v1alpha1.Tenant) bool {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	uid, ok := d.doubtful[tenant.Name]
	delete(d.doubtful, tenant.Name)
	return ok && uid == tenant.UID
}

// Forget a Tenant that is gone.
func (d *KeyDoubts) Forget(name string) {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	delete(d.doubtful, name)
}
