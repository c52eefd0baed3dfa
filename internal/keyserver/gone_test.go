package keyserver

import (
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/internal/sealing"
)

// TestNoCredentialForWhatIsGone: from the moment at which a bot, its Tenant or its namespace is no longer what it
// was, no pod of it gets a credential, although its StatefulSet and its pod are there and no manager has noticed.
// Each is asked just before, and answered.
func TestNoCredentialForWhatIsGone(t *testing.T) {
	type scene struct {
		*world
		bot *v1alpha1.BotDeployment
		set *appsv1.StatefulSet
	}
	namespace := func(s scene, change func(*corev1.Namespace)) {
		ns := &corev1.Namespace{}
		s.must(testEnv.Client.Get(s.Context(), client.ObjectKey{Name: s.ns}, ns))
		change(ns)
		s.must(testEnv.Client.Update(s.Context(), ns))
	}
	for name, how := range map[string]func(s scene){
		"the bot gone": func(s scene) { s.must(testEnv.Client.Delete(s.Context(), s.bot)) },
		"the bot being deleted": func(s scene) {
			s.update(s.bot, func(b *v1alpha1.BotDeployment) { b.Finalizers = []string{"example.com/hold"} })
			s.must(testEnv.Client.Delete(s.Context(), s.bot))
		},
		"the bot made again under its name": func(s scene) {
			s.must(testEnv.Client.Delete(s.Context(), s.bot))
			again := &v1alpha1.BotDeployment{ObjectMeta: metav1.ObjectMeta{Namespace: s.ns, Name: s.bot.Name}, Spec: s.bot.Spec}
			s.must(testEnv.Client.Create(s.Context(), again))
			s.store(again)
		},
		"the StatefulSet orphaned": func(s scene) {
			s.set.OwnerReferences = nil
			s.must(s.cluster.Update(s.Context(), s.set))
		},
		"the bot orphaned and made again": func(s scene) {
			s.set.OwnerReferences = nil
			s.must(s.cluster.Update(s.Context(), s.set))
			s.must(testEnv.Client.Delete(s.Context(), s.bot))
			again := &v1alpha1.BotDeployment{ObjectMeta: metav1.ObjectMeta{Namespace: s.ns, Name: s.bot.Name}, Spec: s.bot.Spec}
			s.must(testEnv.Client.Create(s.Context(), again))
			s.store(again)
		},
		"the StatefulSet gone": func(s scene) { s.must(s.cluster.Delete(s.Context(), s.set)) },
		"the bot suspended": func(s scene) {
			s.update(s.bot, func(b *v1alpha1.BotDeployment) { b.Spec.OperatingMode = v1alpha1.ModeSuspended })
		},
		"the Tenant suspended": func(s scene) {
			s.tenant.Spec.State = v1alpha1.TenantSuspended
			s.must(testEnv.Client.Update(s.Context(), s.tenant))
		},
		"the Tenant gone": func(s scene) { s.must(testEnv.Client.Delete(s.Context(), s.tenant)) },
		"the Tenant being deleted": func(s scene) {
			s.tenant.Finalizers = []string{"example.com/hold"}
			s.must(testEnv.Client.Update(s.Context(), s.tenant))
			s.must(testEnv.Client.Delete(s.Context(), s.tenant))
		},
		"the Tenant made again under its name": func(s scene) {
			s.must(testEnv.Client.Delete(s.Context(), s.tenant))
			again := &v1alpha1.Tenant{ObjectMeta: metav1.ObjectMeta{Name: s.tenant.Name}, Spec: s.tenant.Spec}
			s.must(testEnv.Client.Create(s.Context(), again))
		},
		"the namespace without its label": func(s scene) { namespace(s, func(n *corev1.Namespace) { delete(n.Labels, v1alpha1.LabelTenant) }) },
		"the namespace with another's label": func(s scene) {
			other, _ := s.newTenant(v1alpha1.TenantCustomer)
			namespace(s, func(n *corev1.Namespace) { n.Labels[v1alpha1.LabelTenant] = other.Name })
		},
		"the namespace being deleted": func(s scene) {
			s.must(testEnv.Client.Delete(s.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: s.ns}}))
		},
		"the namespace another of the same name": func(s scene) {
			s.tenant.Status.Namespaces[0].UID = "5d1f6d2e-0000-4000-8000-000000000009"
			s.must(testEnv.Client.Status().Update(s.Context(), s.tenant))
		},
		"the namespace let go by its Tenant": func(s scene) {
			s.tenant.Status.Namespaces = nil
			s.must(testEnv.Client.Status().Update(s.Context(), s.tenant))
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.tenantKeys()
			bot, _ := w.newBot("support")
			pod := w.startPod(bot, w.storeAndRecord(bot).Secret)
			token := w.podToken(pod)
			_, refusal := w.unseal(token, string(pod.UID))
			w.granted(refusal)
			set := &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Namespace: w.ns, Name: resources.BotName(bot.Name)}}
			w.must(testEnv.Client.Get(t.Context(), client.ObjectKeyFromObject(set), set))
			w.must(testEnv.Client.Get(t.Context(), client.ObjectKeyFromObject(w.tenant), w.tenant))
			how(scene{w, bot, set})
			items, refusal := w.unseal(token, string(pod.UID))
			if refusal == nil || len(items) > 0 {
				t.Fatalf("the pod got %d credentials", len(items))
			}
			t.Logf("%s: %s", refusal.Reason, refusal.Message)
		})
	}
}

// TestNoLeaseForWhatIsGone: the same for a sweep, whose lease is also what lets it go on.
func TestNoLeaseForWhatIsGone(t *testing.T) {
	for name, how := range map[string]func(w *sweepWorld){
		"the store gone": func(w *sweepWorld) { w.must(testEnv.Client.Delete(w.Context(), w.store)) },
		"the CronJob orphaned": func(w *sweepWorld) {
			w.must(testEnv.Client.Get(w.Context(), client.ObjectKeyFromObject(w.cron), w.cron))
			w.cron.OwnerReferences = nil
			w.must(w.cluster.Update(w.Context(), w.cron))
		},
		"the CronJob gone": func(w *sweepWorld) { w.must(w.cluster.Delete(w.Context(), w.cron)) },
		"the store made again under its name": func(w *sweepWorld) {
			w.must(testEnv.Client.Delete(w.Context(), w.store))
			w.granted(w.call(keyapi.PathCredentials, w.manager,
				keyapi.CredentialsRequest{Object: refTo(sealing.KindDataStore, w.newStore("chat", ""))}, nil))
		},
		"the Tenant being deleted": func(w *sweepWorld) {
			w.must(testEnv.Client.Get(w.Context(), client.ObjectKeyFromObject(w.tenant), w.tenant))
			w.tenant.Finalizers = []string{"example.com/hold"}
			w.must(testEnv.Client.Update(w.Context(), w.tenant))
			w.must(testEnv.Client.Delete(w.Context(), w.tenant))
		},
		"the namespace being deleted": func(w *sweepWorld) {
			w.must(testEnv.Client.Delete(w.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: w.ns}}))
		},
		"the namespace another of the same name": func(w *sweepWorld) {
			w.must(testEnv.Client.Get(w.Context(), client.ObjectKeyFromObject(w.tenant), w.tenant))
			w.tenant.Status.Namespaces[0].UID = "5d1f6d2e-0000-4000-8000-000000000009"
			w.must(testEnv.Client.Status().Update(w.Context(), w.tenant))
		},
		"the namespace without its label": func(w *sweepWorld) {
			ns := &corev1.Namespace{}
			w.must(testEnv.Client.Get(w.Context(), client.ObjectKey{Name: w.ns}, ns))
			delete(ns.Labels, v1alpha1.LabelTenant)
			w.must(testEnv.Client.Update(w.Context(), ns))
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newSweep(t)
			pod := w.sweep("chat-sweep-1")
			token := w.podToken(pod) // in a namespace that is being deleted nobody makes another
			refusal := w.call(keyapi.PathLease, token, keyapi.LeaseRequest{PlanHash: w.hash}, nil)
			w.granted(refusal)
			how(w)
			w.clock.SetTime(w.clock.Now().Add(restFor + time.Second))
			if refusal = w.call(keyapi.PathLease, token, keyapi.LeaseRequest{PlanHash: w.hash}, nil); refusal == nil {
				t.Fatal("the sweep goes on")
			}
			if strings.HasSuffix(name, "being deleted") && refusal.Reason != v1alpha1.ReasonRevoked {
				t.Errorf("what comes back no more is refused with %s", refusal.Reason)
			}
			t.Logf("%s: %s", refusal.Reason, refusal.Message)
		})
	}
}
