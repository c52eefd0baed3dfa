package keyserver

import (
	"crypto/rand"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/internal/keystore"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/internal/sealing"
)

// newInstallation is a keys' namespace of its own, so that nothing else gives user ids in it.
func newInstallation(t *testing.T) *world {
	t.Helper()
	w := newWorldAs(t, testEnv.As(t, "admin", "system:masters"), testEnv.Namespace(t, "keys", nil).Name, newKEK())
	w.writes.tenants = map[string]bool{w.tenant.Name: true}
	return w
}

// askRange is the range that a tenant is answered, which is also in its status.
func (w *world) askRange() keyapi.UIDRange {
	w.Helper()
	resp := w.tenantKeys()
	if w.tenant.Status.UIDRange == nil || keyapi.UIDRange(*w.tenant.Status.UIDRange) != resp.UIDRange {
		w.Errorf("the status says %+v, the answer %+v", w.tenant.Status.UIDRange, resp.UIDRange)
	}
	if err := resources.CheckUIDRange(v1alpha1.UIDRange(resp.UIDRange)); err != nil {
		w.Error(err)
	}
	return resp.UIDRange
}

// TestTenantsNeverShareUserIDs, however many replicas give them at the same time, wherever they die, and a range stays.
func TestTenantsNeverShareUserIDs(t *testing.T) {
	w := newInstallation(t)
	const tenants = 6
	var all []*v1alpha1.Tenant
	for range tenants {
		tenant, _ := w.newTenant(v1alpha1.TenantCustomer)
		all = append(all, tenant)
	}
	var replicas []*Server
	for range 2 {
		s, err := New(w.opts)
		w.must(err)
		replicas = append(replicas, s)
	}
	var mu sync.Mutex
	given := map[int64]string{}
	var wg sync.WaitGroup
	for i, tenant := range all {
		for _, s := range []*Server{replicas[i%2], replicas[(i+1)%2]} {
			wg.Add(1)
			go func() {
				defer wg.Done()
				var resp *keyapi.TenantResponse
				var err error
				for range 20 { // as the manager asks again
					resp, err = s.tenant(t.Context(), caller{}, &keyapi.TenantRequest{Tenant: refTo("Tenant", tenant)})
					if err == nil || asRefusal(err).RetryAfter == 0 {
						break
					}
				}
				if err != nil {
					t.Errorf("%s: %v", tenant.Name, err)
					return
				}
				mu.Lock()
				defer mu.Unlock()
				if other := given[resp.UIDRange.First]; other != "" && other != tenant.Name {
					t.Errorf("%s and %s have ids from %d on", other, tenant.Name, resp.UIDRange.First)
				}
				given[resp.UIDRange.First] = tenant.Name
				if resp.UIDRange.Size != 1000 || resp.UIDRange.First%1000 != 0 {
					t.Errorf("range %+v", resp.UIDRange)
				}
			}()
		}
	}
	wg.Wait()
	if len(given) != tenants {
		t.Errorf("%d ranges for %d tenants: %v", len(given), tenants, given)
	}
}

// TestUserIDsSurviveACrash: a block may be lost, and is never given twice.
func TestUserIDsSurviveACrash(t *testing.T) {
	w := newInstallation(t)
	given := map[int64]bool{}
	for _, after := range []bool{false, true} {
		for at := 1; at <= 3; at++ {
			w.tenant, w.ns = w.newTenant(v1alpha1.TenantCustomer)
			w.writes.reset(at, after)
			crashed := w.askTenant(nil) != nil
			w.writes.reset(0, false)
			w.restart()
			first, again := w.askRange(), w.askRange()
			if first != again || given[first.First] {
				t.Errorf("dead at write %d (landed: %t): ids from %d on, then %d, given before: %t", at, after, first.First, again.First, given[first.First])
			}
			if !crashed {
				t.Errorf("there was no write %d to die at", at)
			}
			given[first.First] = true
		}
	}
}

// TestLostCounterOfUserIDs: without the counter, or with an earlier copy of it, ids begin behind all that are known.
func TestLostCounterOfUserIDs(t *testing.T) {
	w := newInstallation(t)
	first := w.askRange()
	early := w.getSecret(w.opts.KeysNamespace, keystore.UIDsName)
	w.tenant, w.ns = w.newTenant(v1alpha1.TenantCustomer)
	second := w.askRange()
	w.must(testEnv.Client.Delete(t.Context(), w.getSecret(w.opts.KeysNamespace, keystore.UIDsName)))
	w.restart()
	w.tenant, w.ns = w.newTenant(v1alpha1.TenantCustomer)
	third := w.askRange()
	if second.First != first.First+first.Size || third.First < second.First+second.Size {
		t.Errorf("ids from %d, %d and, without the counter, %d on", first.First, second.First, third.First)
	}
	now := w.getSecret(w.opts.KeysNamespace, keystore.UIDsName)
	now.Data = early.Data
	w.must(testEnv.Client.Update(t.Context(), now))
	w.tenant, w.ns = w.newTenant(v1alpha1.TenantCustomer)
	w.restart()
	if fourth := w.askRange(); fourth.First < third.First+third.Size {
		t.Errorf("after the earlier copy: ids from %d on", fourth.First)
	}
}

func TestUserIDsRunOut(t *testing.T) {
	w := newInstallation(t)
	w.must(w.server.keys.CheckKEK(t.Context()))
	last, err := keystore.NewDocument(w.opts.KeysNamespace, keystore.UIDsName, "", keystore.FormatUIDs, 1, w.server.keys.KEKs(), keystore.UIDsDoc{Realm: testRealm, Next: 2_147_483_000})
	w.must(err)
	w.must(testEnv.Client.Create(t.Context(), last))
	refusal := w.askTenant(nil)
	w.wantRefusal(refusal, v1alpha1.ReasonNoUIDRange)
	if !w.secretGone(w.opts.KeysNamespace, keystore.TenantSecretName(w.tenant.Name)) {
		t.Error("keys were made without user ids")
	}
}

// TestRestoreKeepsUserIDs, and brings back none that another tenant has by now.
func TestRestoreKeepsUserIDs(t *testing.T) {
	w := newInstallation(t)
	w.must(w.server.keys.CheckKEK(t.Context()))
	before := w.askRange()
	kek := sealing.Ring{w.opts.KEK}
	d := &drill{world: w, kek: w.opts.KEK}
	b := d.backup()
	live := func() keystore.Live {
		var list corev1.SecretList
		w.must(testEnv.Client.List(t.Context(), &list, client.InNamespace(w.opts.KeysNamespace)))
		return keystore.Live{Secrets: list.Items, Tenants: map[string]keystore.LiveTenant{w.tenant.Name: {UID: string(w.tenant.UID)}}}
	}
	for _, s := range d.list() {
		w.must(testEnv.Client.Delete(t.Context(), &s))
	}
	// Made anew, with new UIDs; an empty cluster knows of no ids.
	lost := w.tenant
	w.must(testEnv.Client.Delete(t.Context(), lost))
	w.restart()
	w.tenant, w.ns = w.newTenant(v1alpha1.TenantCustomer)
	newcomer := w.tenant
	if taken := w.askRange(); taken != before {
		t.Fatalf("the test wants a tenant with ids from %d on, and has %d", before.First, taken.First)
	}
	w.tenant = &v1alpha1.Tenant{ObjectMeta: metav1.ObjectMeta{Name: lost.Name}, Spec: lost.Spec}
	w.must(testEnv.Client.Create(t.Context(), w.tenant))
	plan, err := b.Restore(w.opts.KeysNamespace, live(), keystore.RestoreOptions{KEK: kek, Adopt: true}, rand.Reader)
	w.must(err)
	if len(plan.Problems) == 0 || !strings.Contains(plan.Problems[0], newcomer.Name) {
		t.Fatalf("brings back ids that %s has: %+v", newcomer.Name, plan)
	}
	// As the message says.
	w.must(testEnv.Client.Delete(t.Context(), w.getSecret(w.opts.KeysNamespace, keystore.TenantSecretName(newcomer.Name))))
	w.must(testEnv.Client.Delete(t.Context(), w.getSecret(w.opts.KeysNamespace, keystore.UIDsName)))
	plan, err = b.Restore(w.opts.KeysNamespace, live(), keystore.RestoreOptions{KEK: kek, Adopt: true}, rand.Reader)
	w.must(err)
	d.write(plan)
	if got := w.askRange(); got != before {
		t.Errorf("ids from %d on, before the restore from %d", got.First, before.First)
	}
	w.tenant, w.ns = w.newTenant(v1alpha1.TenantCustomer)
	if next := w.askRange(); next.First < before.First+before.Size {
		t.Errorf("a later tenant has ids from %d on", next.First)
	}
}

// TestALostCounterKnowsWhatWaits: the ids of a deleted Tenant whose keys wait are no other customer's, although the
// counter is an earlier copy: should it come back, it has them again.
func TestALostCounterKnowsWhatWaits(t *testing.T) {
	w := newInstallation(t)
	w.askRange()
	early := w.getSecret(w.opts.KeysNamespace, keystore.UIDsName)
	w.tenant, w.ns = w.newTenant(v1alpha1.TenantCustomer)
	w.identify()
	waiting, former := w.askRange(), w.tenant
	w.deleteTenant()
	now := w.getSecret(w.opts.KeysNamespace, keystore.UIDsName)
	now.Data = early.Data
	w.must(testEnv.Client.Update(t.Context(), now))
	w.tenant, w.ns = w.newTenant(v1alpha1.TenantCustomer)
	w.restart()
	next := w.askRange()
	if next.First < waiting.First+waiting.Size {
		t.Errorf("the next customer has ids from %d on, what waits has %+v", next.First, waiting)
	}
	w.tenant = former
	w.tenantAgain()
	if again := w.tenantKeys().UIDRange; again != waiting {
		t.Errorf("the former customer has %+v and had %+v", again, waiting)
	}
}
