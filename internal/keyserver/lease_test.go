package keyserver

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/internal/plan"
	"github.com/lethe-dev/lethe/internal/planner"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/internal/sealing"
)

// sweepWorld is a store with a CronJob, as the manager would make it.
type sweepWorld struct {
	*world
	store *v1alpha1.DataStore
	cron  *batchv1.CronJob
	hash  string
}

func newSweep(t *testing.T, change ...func(*v1alpha1.DataStoreSpec)) *sweepWorld {
	t.Helper()
	return sweepIn(newWorld(t), t, change...)
}

func sweepIn(in *world, t *testing.T, change ...func(*v1alpha1.DataStoreSpec)) *sweepWorld {
	t.Helper()
	w := &sweepWorld{world: in}
	class := &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: resources.PriorityClassSweeper}, Value: 1000}
	if err := testEnv.Client.Create(t.Context(), class); err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	w.tenantKeys()
	w.store = w.newStore("chat", "", change...)
	w.granted(w.call(keyapi.PathCredentials, w.manager, keyapi.CredentialsRequest{Object: refTo(sealing.KindDataStore, w.store)}, nil))
	w.hash = w.planHash()
	w.cron = resources.SweepCronJob(w.opts.Settings, w.store, w.tenant, w.hash).DeepCopy()
	w.must(w.cluster.Create(t.Context(), w.cron))
	w.must(w.cluster.Create(t.Context(), resources.SweeperServiceAccount(w.store).DeepCopy()))
	return w
}

func (w *sweepWorld) planHash() string {
	w.Helper()
	compiled, err := planner.Store(w.Context(), testEnv.Client, w.store, w.clock.Now())
	w.must(err)
	hash, err := plan.Hash(compiled.Plan)
	w.must(err)
	return hash
}

// sweep makes a Job of the CronJob and its pod, as their controllers would.
func (w *sweepWorld) sweep(name string, change ...func(*corev1.Pod)) *corev1.Pod {
	w.Helper()
	job := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Namespace: w.ns, Name: name,
		OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(w.cron, batchv1.SchemeGroupVersion.WithKind("CronJob"))}}, Spec: *w.cron.Spec.JobTemplate.Spec.DeepCopy()}
	w.must(w.cluster.Create(w.Context(), job))
	return w.podOf(job, change...)
}

func (w *sweepWorld) podOf(job *batchv1.Job, change ...func(*corev1.Pod)) *corev1.Pod {
	w.Helper()
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: w.ns, Name: job.Name + "-abcde", Labels: job.Spec.Template.Labels, Annotations: job.Spec.Template.Annotations,
		OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(job, batchv1.SchemeGroupVersion.WithKind("Job"))}}, Spec: *job.Spec.Template.Spec.DeepCopy()}
	for _, f := range change {
		f(pod)
	}
	w.must(w.cluster.Create(w.Context(), pod))
	return pod
}

func (w *sweepWorld) lease(pod *corev1.Pod) (keyapi.LeaseResponse, *keyapi.Error) {
	w.Helper()
	var resp keyapi.LeaseResponse
	e := w.call(keyapi.PathLease, w.podToken(pod), keyapi.LeaseRequest{PlanHash: w.hash}, &resp)
	return resp, e
}

func (w *sweepWorld) refused(pod *corev1.Pod, reason string) {
	w.Helper()
	_, e := w.lease(pod)
	w.wantRefusal(e, reason)
}

// TestAPasswordGoesNowhereElse: who edits where a store is does not get its password sent there;
// once the store is where it was, or the password sealed for where it is now, sweeps go on.
func TestAPasswordGoesNowhereElse(t *testing.T) {
	was := newSweep(t)
	sealed := was.store.Spec.Postgres.Password
	key, err := sealing.GeneratePrivateKey(rand.Reader)
	was.must(err)
	// The sweep that the manager makes for the store as it is now.
	ask := func(name string) *keyapi.Error {
		t.Helper()
		was.hash = was.planHash()
		was.cron = resources.SweepCronJob(was.opts.Settings, was.store, was.tenant, was.hash).DeepCopy()
		was.cron.Name = name
		was.must(was.cluster.Create(t.Context(), was.cron))
		pod := was.sweep(name)
		var resp keyapi.LeaseResponse
		e := was.call(keyapi.PathLease, was.podToken(pod), keyapi.LeaseRequest{PlanHash: was.hash, PublicKey: key.Public().String()}, &resp)
		if e == nil {
			var none struct{}
			was.granted(was.call(keyapi.PathRelease, was.podToken(pod), keyapi.ReleaseRequest{}, &none))
		}
		return e
	}
	edit := func(change func(*v1alpha1.PostgresStore)) keyapi.CredentialsResponse {
		t.Helper()
		was.must(testEnv.Client.Get(t.Context(), client.ObjectKeyFromObject(was.store), was.store))
		change(was.store.Spec.Postgres)
		was.must(testEnv.Client.Update(t.Context(), was.store))
		var resp keyapi.CredentialsResponse
		was.granted(was.call(keyapi.PathCredentials, was.manager, keyapi.CredentialsRequest{Object: refTo(sealing.KindDataStore, was.store)}, &resp))
		return resp
	}
	home := *was.store.Spec.Postgres
	for name, change := range map[string]func(*v1alpha1.PostgresStore){
		"host":     func(p *v1alpha1.PostgresStore) { p.Host = "evil.example" },
		"port":     func(p *v1alpha1.PostgresStore) { p.Port = 5433 },
		"database": func(p *v1alpha1.PostgresStore) { p.Database = "other" },
		"username": func(p *v1alpha1.PostgresStore) { p.Username = "postgres" },
		"authority": func(p *v1alpha1.PostgresStore) {
			p.CABundle = "-----BEGIN CERTIFICATE-----\n" + base64.StdEncoding.EncodeToString([]byte("evil")) + "\n-----END CERTIFICATE-----\n"
		},
		// A value that says what the keyserver wants to hear, and does not open, is refused for another reason.
		"forged": func(p *v1alpha1.PostgresStore) {
			p.Host = "evil.example"
			forged := []byte(sealedFor(was.world, was.store.Name, p))
			if at := len(forged) - 10; forged[at] == 'A' {
				forged[at] = 'B'
			} else {
				forged[at] = 'A'
			}
			p.Password = v1alpha1.SealedValue(forged)
		},
	} {
		resp := edit(change)
		if resp.Secret != "" || resp.Items[0].Reason == v1alpha1.ReasonStored || strings.Contains(resp.Items[0].Message, "goes on being used") {
			t.Errorf("another %s: stored: %+v", name, resp)
		}
		was.wantRefusal(ask("to-another-"+name), v1alpha1.ReasonWrongPlace)
		if resp := edit(func(p *v1alpha1.PostgresStore) { *p = home; p.Password = sealed }); resp.Secret == "" {
			t.Errorf("back from another %s: %+v", name, resp)
		}
	}
	was.granted(ask("home"))

	moved := edit(func(p *v1alpha1.PostgresStore) {
		p.Host = "moved.example"
		p.Password = sealedFor(was.world, was.store.Name, p)
	})
	if moved.Secret == "" {
		t.Fatalf("sealed for where it is now: %+v", moved)
	}
	was.granted(ask("moved"))
}

// sealedFor seals a password for where a store is.
func sealedFor(w *world, store string, p *v1alpha1.PostgresStore) v1alpha1.SealedValue {
	w.Helper()
	place := w.place(sealing.KindDataStore, store, sealing.PasswordKey, 2)
	place.Destination = sealing.DestinationOf(&v1alpha1.DataStoreSpec{Type: v1alpha1.StorePostgres, Postgres: p})
	return w.seal(place, w.secret())
}

func TestLease(t *testing.T) {
	w := newSweep(t)
	pod := w.sweep("chat-sweep-1")
	key, err := sealing.GeneratePrivateKey(rand.Reader)
	w.must(err)
	var resp keyapi.LeaseResponse
	w.granted(w.call(keyapi.PathLease, w.podToken(pod), keyapi.LeaseRequest{PlanHash: w.hash, PublicKey: key.Public().String()}, &resp))
	if resp.Seconds != 30 || !resp.Expires.Equal(w.clock.Now().Add(30*time.Second)) {
		t.Errorf("for %d seconds, until %s", resp.Seconds, resp.Expires)
	}
	b, err := sealing.OpenReply(key, keyapi.PathLease, string(pod.UID), resp.Sealed)
	w.must(err)
	var bundle keyapi.SecretBundle
	w.must(json.Unmarshal(b, &bundle))
	if len(bundle.Items) != 1 || bundle.Items[0].Name != sealing.PasswordKey || len(w.canaries.found(string(bundle.Items[0].Value))) == 0 {
		t.Error("the store's password was not in the answer")
	}
	again, e := w.lease(pod)
	w.granted(e)
	if again.Sealed != "" {
		t.Error("the password is given again although nobody asked")
	}
	w.refused(pod2(w), v1alpha1.ReasonInUse)
}

func pod2(w *sweepWorld) *corev1.Pod { return w.sweep("chat-sweep-2") }

func TestLeaseIsHeldByOne(t *testing.T) {
	w := newSweep(t)
	first, second := w.sweep("chat-sweep-1"), w.sweep("chat-sweep-2")
	_, e := w.lease(first)
	w.granted(e)
	w.clock.SetTime(w.clock.Now().Add(29 * time.Second))
	w.refused(second, v1alpha1.ReasonInUse)
	// Its end alone is not enough while its pod is there: the clocks of replicas differ.
	w.clock.SetTime(w.clock.Now().Add(2 * time.Second))
	w.refused(second, v1alpha1.ReasonInUse)
	// The holder may go on itself.
	_, e = w.lease(first)
	w.granted(e)
	// The pod gone is not enough while the lease runs: its last transaction may.
	w.must(w.cluster.Delete(t.Context(), first))
	w.refused(second, v1alpha1.ReasonInUse)
	w.clock.SetTime(w.clock.Now().Add(31 * time.Second))
	_, e = w.lease(second)
	w.granted(e)
	// A pod that stays for ever, on a node that is cut off, holds a store up for a minute and no longer.
	third := w.sweep("chat-sweep-3")
	w.clock.SetTime(w.clock.Now().Add(30*time.Second + lostAfter))
	_, e = w.lease(third)
	w.granted(e)
	// Given back, it is free at once; somebody else cannot give it back.
	w.granted(w.call(keyapi.PathRelease, w.podToken(second), keyapi.ReleaseRequest{PlanHash: w.hash}, nil))
	w.refused(second, v1alpha1.ReasonInUse)
	w.granted(w.call(keyapi.PathRelease, w.podToken(third), keyapi.ReleaseRequest{PlanHash: w.hash}, nil))
	_, e = w.lease(second)
	w.granted(e)
	var lease coordinationv1.Lease
	w.must(testEnv.Client.Get(t.Context(), client.ObjectKey{Namespace: "lethe-keys", Name: leaseName(string(w.store.UID))}, &lease))
	if *lease.Spec.HolderIdentity != string(second.UID) || *lease.Spec.LeaseDurationSeconds != 30 {
		t.Errorf("the Lease says %+v", lease.Spec)
	}
}

func TestLeaseEndsWithItsPlan(t *testing.T) {
	w := newSweep(t)
	pod := w.sweep("chat-sweep-1")
	_, e := w.lease(pod)
	w.granted(e)
	for _, hash := range []string{"", w.hash[:63] + "0" + "0", "0000000000000000000000000000000000000000000000000000000000000000"} {
		if got := w.call(keyapi.PathLease, w.podToken(pod), keyapi.LeaseRequest{PlanHash: hash}, nil); got == nil || got.Reason != v1alpha1.ReasonPlanChanged {
			t.Errorf("hash %q: %+v", hash, got)
		}
	}
	// The store changes while the sweep runs.
	w.must(testEnv.Client.Get(t.Context(), client.ObjectKeyFromObject(w.store), w.store))
	w.store.Spec.Brake.MaxPercentOfTable = 7
	w.must(testEnv.Client.Update(t.Context(), w.store))
	w.refused(pod, v1alpha1.ReasonPlanChanged)
}

// Who is known in a Shared store comes with its lease, page by page; who comes later changes the list, and stops no
// sweep that it does not dispute.
func TestLeaseTellsWhoIsKnown(t *testing.T) {
	in := newWorld(t)
	in.tenant, in.ns = in.newTenant(v1alpha1.TenantPlatform)
	idType := "In" + strings.ReplaceAll(in.ns, "-", "")
	w := sweepIn(in, t, func(s *v1alpha1.DataStoreSpec) {
		s.Tenancy, s.TenantIDType, s.Datasets[0].Table.TenantColumn = v1alpha1.TenancyShared, idType, "account_id"
	})
	customer := func(ids ...string) {
		t.Helper()
		c, _ := w.newTenant(v1alpha1.TenantCustomer)
		for _, id := range ids {
			c.Spec.ExternalIDs = append(c.Spec.ExternalIDs, v1alpha1.ExternalID{Type: idType, Value: id})
		}
		w.must(testEnv.Client.Update(t.Context(), c))
	}
	known := func(pod *corev1.Pod) (ids []string) {
		t.Helper()
		for {
			var resp keyapi.LeaseResponse
			w.granted(w.call(keyapi.PathLease, w.podToken(pod), keyapi.LeaseRequest{PlanHash: w.hash, KnownFrom: len(ids) + 1}, &resp))
			if ids = append(ids, resp.Known...); len(resp.Known) == 0 {
				if resp.KnownDigest != plan.DigestOf(ids) {
					t.Errorf("%q is not what the digest names", ids)
				}
				return ids
			}
		}
	}
	pod := w.sweep("chat-sweep-1")
	if got := known(pod); len(got) != 0 {
		t.Errorf("known %q, want nobody", got)
	}
	customer("a-2", "a-1")
	if got := known(pod); !slices.Equal(got, []string{"a-1", "a-2"}) {
		t.Errorf("known %q", got)
	}
	resp, e := w.lease(pod)
	w.granted(e)
	if resp.KnownDigest == "" || len(resp.Known) > 0 {
		t.Errorf("unasked it says %+v", resp)
	}
	// Another one claims the same: whose the rows are is disputed, which restrains.
	customer("a-1")
	w.refused(pod, v1alpha1.ReasonPlanChanged)
}

// A sweep goes on while the live plan covers the one that it began by, and begins by the live plan alone.
func TestLeaseGoesOnWhileThePlanIsCovered(t *testing.T) {
	w := newSweep(t)
	compiled, err := planner.Store(t.Context(), testEnv.Client, w.store, w.clock.Now())
	w.must(err)
	b, err := plan.Encode(compiled.Plan)
	w.must(err)
	old := resources.PlanConfigMap(w.store, w.hash, b).DeepCopy()
	w.must(w.cluster.Create(t.Context(), old))
	brake := func(percent int32) {
		t.Helper()
		w.must(testEnv.Client.Get(t.Context(), client.ObjectKeyFromObject(w.store), w.store))
		w.store.Spec.Brake.MaxPercentOfTable = percent
		w.must(testEnv.Client.Update(t.Context(), w.store))
	}
	was := w.store.Spec.Brake.MaxPercentOfTable
	pod, next := w.sweep("chat-sweep-1"), w.sweep("chat-sweep-2")
	_, e := w.lease(pod)
	w.granted(e)

	brake(was + 1)
	_, e = w.lease(pod)
	w.granted(e)
	// It asks for the password: it would begin.
	key, err := sealing.GeneratePrivateKey(rand.Reader)
	w.must(err)
	w.wantRefusal(w.call(keyapi.PathLease, w.podToken(pod), keyapi.LeaseRequest{PlanHash: w.hash, PublicKey: key.Public().String()}, nil), v1alpha1.ReasonPlanChanged)
	_, e = w.lease(pod)
	w.granted(e)

	// What allows less ends it, and what is covered again lets it go on: it has held the lease all the time.
	brake(was - 1)
	w.refused(pod, v1alpha1.ReasonPlanChanged)
	brake(was + 2)
	_, e = w.lease(pod)
	w.granted(e)

	// A plan whose bytes are others than those that the lease was granted for is not believed, nor one that is gone.
	forged := compiled.Plan
	forged.BrakePercent = 1
	w.must(w.cluster.Delete(t.Context(), old))
	w.refused(pod, v1alpha1.ReasonPlanChanged)
	b, err = plan.Encode(forged)
	w.must(err)
	w.must(w.cluster.Create(t.Context(), resources.PlanConfigMap(w.store, w.hash, b).DeepCopy()))
	w.refused(pod, v1alpha1.ReasonPlanChanged)
	w.must(w.cluster.Delete(t.Context(), old))
	b, err = plan.Encode(compiled.Plan)
	w.must(err)
	w.must(w.cluster.Create(t.Context(), resources.PlanConfigMap(w.store, w.hash, b).DeepCopy()))
	_, e = w.lease(pod)
	w.granted(e)

	// It does not go on so for ever: what the live plan lets go besides waits for the next sweep.
	for range 2 * int(coveredMost/leaseSeconds/time.Second) {
		w.clock.SetTime(w.clock.Now().Add(leaseSeconds / 2 * time.Second))
		if _, e = w.lease(pod); e != nil {
			break
		}
	}
	w.wantRefusal(e, v1alpha1.ReasonPlanChanged)
	// The plan that it began by is in force again.
	brake(was)
	_, e = w.lease(pod)
	w.granted(e)
	brake(was + 1)
	_, e = w.lease(pod)
	w.granted(e)

	// Once it has given the lease back it would begin anew, and so would another sweep.
	w.granted(w.call(keyapi.PathRelease, w.podToken(pod), keyapi.ReleaseRequest{PlanHash: w.hash}, nil))
	w.refused(pod, v1alpha1.ReasonPlanChanged)
	w.refused(next, v1alpha1.ReasonPlanChanged)
	w.hash = w.planHash()
	w.refused(next, v1alpha1.ReasonPodMismatch)
}

func TestLeaseRefusesSuspendedSweeps(t *testing.T) {
	w := newSweep(t)
	pod := w.sweep("chat-sweep-1")
	_, e := w.lease(pod)
	w.granted(e)
	yes, no := true, false
	w.cron.Spec.Suspend = &yes
	w.must(w.cluster.Update(t.Context(), w.cron))
	w.refused(pod, v1alpha1.ReasonSuspended)
	// Giving back goes on working.
	w.granted(w.call(keyapi.PathRelease, w.podToken(pod), keyapi.ReleaseRequest{}, nil))
	w.cron.Spec.Suspend = &no
	w.must(w.cluster.Update(t.Context(), w.cron))
	_, e = w.lease(pod)
	w.granted(e)
	job := &batchv1.Job{}
	w.must(testEnv.Client.Get(t.Context(), client.ObjectKey{Namespace: w.ns, Name: "chat-sweep-1"}, job))
	job.Spec.Suspend = &yes
	w.must(w.cluster.Update(t.Context(), job))
	w.refused(pod, v1alpha1.ReasonSuspended)
}

func TestLeaseOfACatchUpJob(t *testing.T) {
	w := newSweep(t)
	job := resources.CatchUpJob(w.opts.Settings, w.store, w.tenant, w.hash, "chat-catchup-1").DeepCopy()
	w.must(w.cluster.Create(t.Context(), job))
	_, e := w.lease(w.podOf(job))
	w.granted(e)
}

func TestLeaseRefusesStrangers(t *testing.T) {
	w := newSweep(t)
	for name, tc := range map[string]struct {
		change func(*corev1.Pod)
		want   string
	}{
		"no owner":            {func(p *corev1.Pod) { p.OwnerReferences = nil }, v1alpha1.ReasonForbidden},
		"a made-up UID":       {func(p *corev1.Pod) { p.OwnerReferences[0].UID = "5d1f6d2e-0000-4000-8000-000000000001" }, v1alpha1.ReasonForbidden},
		"another image":       {func(p *corev1.Pod) { p.Spec.Containers[0].Image = "evil:1" }, v1alpha1.ReasonPodMismatch},
		"another plan's file": {func(p *corev1.Pod) { p.Spec.Volumes[0].ConfigMap.Name = "mine" }, v1alpha1.ReasonPodMismatch},
		"a variable":          {func(p *corev1.Pod) { p.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "PGHOST", Value: "evil"}} }, v1alpha1.ReasonPodMismatch},
		"a container beside it": {func(p *corev1.Pod) {
			p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "evil", Image: "evil:1"})
		}, v1alpha1.ReasonPodMismatch},
	} {
		t.Run(name, func(t *testing.T) {
			job := &batchv1.Job{}
			w.must(client.IgnoreNotFound(testEnv.Client.Get(t.Context(), client.ObjectKey{Namespace: w.ns, Name: "chat-sweep-x"}, job)))
			if job.Name == "" {
				w.must(w.cluster.Delete(t.Context(), w.sweep("chat-sweep-x")))
				w.must(testEnv.Client.Get(t.Context(), client.ObjectKey{Namespace: w.ns, Name: "chat-sweep-x"}, job))
			}
			pod := w.podOf(job, tc.change)
			w.refused(pod, tc.want)
			w.must(w.cluster.Delete(t.Context(), pod))
		})
	}
	// A bot's pod has no store, and a sweep's pod no bot.
	bot, _ := w.newBot("support")
	botPod := w.startPod(bot, w.storeAndRecord(bot).Secret)
	w.refused(botPod, v1alpha1.ReasonForbidden)
	pod := w.sweep("chat-sweep-9")
	_, e := w.unseal(w.podToken(pod), string(pod.UID))
	w.wantRefusal(e, v1alpha1.ReasonForbidden)
}

func TestRevokingAStoreEndsItsLease(t *testing.T) {
	w := newSweep(t)
	pod := w.sweep("chat-sweep-1")
	_, e := w.lease(pod)
	w.granted(e)
	w.store.Finalizers = []string{v1alpha1.FinalizerKeys}
	w.must(testEnv.Client.Update(t.Context(), w.store))
	w.must(testEnv.Client.Delete(t.Context(), w.store))
	_, e = w.lease(pod)
	if e == nil || (e.Reason != v1alpha1.ReasonRevoked && e.Reason != v1alpha1.ReasonPlanChanged) {
		t.Errorf("while being deleted: %+v", e)
	}
	w.granted(w.call(keyapi.PathRevoke, w.manager, keyapi.RevokeRequest{Object: refTo(sealing.KindDataStore, w.store)}, nil))
	err := testEnv.Client.Get(t.Context(), client.ObjectKey{Namespace: "lethe-keys", Name: leaseName(string(w.store.UID))}, &coordinationv1.Lease{})
	if !apierrors.IsNotFound(err) {
		t.Errorf("the Lease is still there: %v", err)
	}
}
