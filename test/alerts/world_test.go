package alerts

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"
	prom "github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/controllers"
	"github.com/lethe-dev/lethe/internal/dnscheck"
	"github.com/lethe-dev/lethe/internal/doors"
	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/internal/keyclient"
	"github.com/lethe-dev/lethe/internal/keyserver"
	"github.com/lethe-dev/lethe/internal/ledger"
	"github.com/lethe-dev/lethe/internal/plan"
	"github.com/lethe-dev/lethe/internal/report"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/internal/rollout"
	"github.com/lethe-dev/lethe/internal/sealing"
	"github.com/lethe-dev/lethe/internal/stores"
	"github.com/lethe-dev/lethe/internal/stores/postgres"
	"github.com/lethe-dev/lethe/internal/sweep"
	"github.com/lethe-dev/lethe/test/env"
	"github.com/lethe-dev/lethe/test/kcm"
	"github.com/lethe-dev/lethe/test/lease"
	"github.com/lethe-dev/lethe/test/pg"
)

var (
	testEnv  *env.Env
	database *pg.Server
)

func TestMain(m *testing.M) {
	ctrl.SetLogger(logr.Discard())
	os.Exit(pg.Main(m, pg.Options{}, func(s *pg.Server) { database = s }))
}

const (
	testRealm = "alerts"
	password  = "only-for-tests"
	// budget of changes within five minutes, for the tenant that writes without end.
	budget = 1 << 20
)

// aheadClock is the real clock, put forward or back.
type aheadClock struct{ by atomic.Int64 }

func (c *aheadClock) Now() time.Time                  { return time.Now().Add(time.Duration(c.by.Load())) }
func (c *aheadClock) Since(t time.Time) time.Duration { return c.Now().Sub(t) }

// world is a cluster with the real manager and the real keyserver, each with its own rights, a real PostgreSQL, and a
// real Prometheus that scrapes what they serve. What runs containers and Kubernetes' own controllers are played.
type world struct {
	*prometheus
	t       *testing.T
	admin   client.Client
	cluster client.Client

	managerMetrics, keyserverMetrics string // addresses
	keys                             atomic.Pointer[keyclient.Client]
	stopManager, stopKeyserver       func()
	calls                            string // address of the keyserver's door
	clock                            *aheadClock
	hold                             chan struct{} // closed: credentials of bots in the namespace slow are answered
	nameless                         atomic.Bool   // DNS does not answer
	failing                          atomic.Bool   // bots that are placed somewhere never become ready
	sweeps                           int
	replay                           bool           // the next report is found to be the first one of the store
	handedIn                         int64          // reports
	reports                          sync.Map       // the last one of each store, by its UID
	ledger                           *ledger.Ledger // of the store that is swept
	lethe                            string         // the command
}

func newWorld(t *testing.T) *world {
	t.Helper()
	testEnv = env.Start(t)
	w := &world{t: t, admin: testEnv.Client, cluster: testEnv.AsCluster(t), managerMetrics: freeAddress(t), keyserverMetrics: freeAddress(t), clock: &aheadClock{},
		hold: make(chan struct{}), ledger: ledger.New(time.Now().Add(-2 * time.Hour)), stopManager: func() {}, stopKeyserver: func() {}}
	service := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: env.SystemNamespace, Name: "lethe-keyserver"}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 8443}}}}
	w.must(w.admin.Create(t.Context(), service))
	w.must(testEnv.ApplyFile(t.Context(), filepath.Join(root, "config", "manager", "networkpolicies.yaml")))
	w.prometheus = startPrometheus(t, w.managerMetrics, w.keyserverMetrics)
	w.lethe = filepath.Join(t.TempDir(), "kubectl-lethe")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", w.lethe, "./cmd/kubectl-lethe")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	w.must(os.WriteFile(kubeconfig, testEnv.Kubeconfig(), 0o600))
	t.Setenv("KUBECONFIG", kubeconfig)
	t.Setenv("PATH", testEnv.Assets+string(os.PathListSeparator)+filepath.Dir(w.lethe)+string(os.PathListSeparator)+os.Getenv("PATH"))
	t.Cleanup(func() { w.stopManager(); w.stopKeyserver() })
	t.Cleanup(func() {
		if t.Failed() {
			out, err := exec.Command(filepath.Join(testEnv.Assets, "kubectl"), "--kubeconfig", kubeconfig, "get", "tenants,botdeployments,datastores", "-A", "-o",
				`go-template={{range .items}}{{.kind}} {{.metadata.name}}{{range .status.conditions}} {{.type}}={{.status}}/{{.reason}}{{end}}{{with .status.lastSweep}} {{.}}{{end}}{{range .status.datasets}} {{.}}{{end}}{{"\n"}}{{end}}`).CombinedOutput()
			t.Logf("%s %v", out, err)
			metrics, err := fetch("http://" + w.managerMetrics)
			t.Logf("%s %v", regexp.MustCompile(`(?m)^lethe_(queue|orphans|manager|objects).*$`).FindAllString(string(metrics), -1), err)
		}
	})
	return w
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func newKEK(t *testing.T) sealing.Key {
	t.Helper()
	secret := make([]byte, 32)
	_, err := rand.Read(secret)
	if err != nil {
		t.Fatal(err)
	}
	key, err := sealing.ParseKEK([]byte(base64.StdEncoding.EncodeToString(secret)))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func settings() resources.Settings {
	s := resources.DefaultSettings()
	s.Image = "lethe:dev"
	return s
}

// serveMetrics answers on the address that Prometheus knows, until stop.
func (w *world) serveMetrics(address string, registry *prom.Registry) (stop func()) {
	w.t.Helper()
	listener, err := net.Listen("tcp", address)
	w.must(err)
	server := &http.Server{Handler: promhttp.HandlerFor(registry, promhttp.HandlerOpts{ErrorHandling: promhttp.HTTPErrorOnError}), ReadHeaderTimeout: time.Minute}
	var work sync.WaitGroup
	work.Go(func() { _ = server.Serve(listener) })
	return func() {
		_ = server.Close()
		work.Wait()
	}
}

// startKeyserver begins one that remembers nothing, in the place of the one before.
func (w *world) startKeyserver(kek sealing.Key, previous ...sealing.Key) {
	w.t.Helper()
	w.stopKeyserver()
	registry := prom.NewRegistry()
	metrics, err := keyserver.NewMetrics(registry)
	w.must(err)
	doorMetrics, err := doors.NewMetrics("lethe_keyserver", registry)
	w.must(err)
	log := slog.New(slog.DiscardHandler)
	server, err := keyserver.New(keyserver.Options{Client: testEnv.AsServiceAccount(w.t, env.SystemNamespace, resources.ServiceAccountKeyserver), KEK: kek, KEKPrevious: previous,
		KEKGrade: keyserver.GradeProduction, Realm: testRealm, KeysNamespace: env.KeysNamespace, Hosts: []string{"127.0.0.1"}, Settings: settings(),
		Clock: w.clock, Random: rand.Reader, Log: log, Metrics: metrics})
	w.must(err)
	raw, err := net.Listen("tcp", "127.0.0.1:0")
	w.must(err)
	w.calls = raw.Addr().String()
	calls := doors.NewServer(server.Handler(), keyserver.CallRules, server.Authority().TLSConfig(), log)
	ctx, cancel := context.WithCancel(context.Background())
	var work sync.WaitGroup
	work.Go(func() {
		_ = calls.ServeTLS(doors.Listen(raw, "calls", keyserver.CallLimits, clock.RealClock{}, doorMetrics), "", "")
	})
	work.Go(func() {
		for tick := time.NewTicker(200 * time.Millisecond); ; {
			// Each says in its log what it could not do, and tries again.
			_ = server.Maintain(ctx)
			_ = server.Rotate(ctx)
			select {
			case <-ctx.Done():
				tick.Stop()
				return
			case <-tick.C:
			}
		}
	})
	stopMetrics := w.serveMetrics(w.keyserverMetrics, registry)
	w.stopKeyserver = func() {
		w.stopKeyserver = func() {}
		cancel()
		_ = calls.Close()
		stopMetrics()
		work.Wait()
	}
	token := filepath.Join(w.t.TempDir(), "token")
	text, err := testEnv.Token(w.t.Context(), env.SystemNamespace, resources.ServiceAccountManager, v1alpha1.AudienceKeyserver, nil)
	w.must(err)
	w.must(os.WriteFile(token, []byte(text), 0o600))
	keys, err := keyclient.New(keyclient.Options{URL: "https://" + w.calls, TokenFile: token, CA: func(ctx context.Context) ([]byte, error) {
		bundle := &corev1.ConfigMap{}
		err := w.admin.Get(ctx, client.ObjectKey{Namespace: env.SystemNamespace, Name: resources.CABundleName}, bundle)
		return []byte(bundle.Data[resources.CABundleKey]), err
	}})
	w.must(err)
	w.keys.Store(keys)
}

// Tenant, Credentials and Revoke ask the keyserver that runs now, as its Service does.
func (w *world) Tenant(ctx context.Context, tenant keyapi.ObjectRef) (keyapi.TenantResponse, error) {
	return w.keys.Load().Tenant(ctx, tenant)
}

func (w *world) Credentials(ctx context.Context, object keyapi.ObjectRef) (keyapi.CredentialsResponse, error) {
	if object.Namespace == "slow" {
		select {
		case <-w.hold:
		case <-ctx.Done():
		}
	}
	return w.keys.Load().Credentials(ctx, object)
}

func (w *world) PullSecrets(ctx context.Context, object keyapi.ObjectRef) (keyapi.PullSecretsResponse, error) {
	return w.keys.Load().PullSecrets(ctx, object)
}

// LastReport gives what the sweeps of the test have handed in: they run without a pod that the keyserver would know.
func (w *world) LastReport(_ context.Context, store keyapi.ObjectRef) (keyapi.LastReportResponse, error) {
	answer, _ := w.reports.Load(store.UID)
	last, _ := answer.(keyapi.LastReportResponse)
	return last, nil
}

func (w *world) Revoke(ctx context.Context, object keyapi.ObjectRef) error {
	return w.keys.Load().Revoke(ctx, object)
}

// startManager runs the manager, and what it expects of Kubernetes.
func (w *world) startManager() {
	w.t.Helper()
	config := testEnv.ServiceAccountConfig(env.SystemNamespace, resources.ServiceAccountManager)
	changes := controllers.NewChanges(budget, clock.RealClock{})
	options, err := controllers.ManagerOptions(config, 4, changes)
	w.must(err)
	again := true
	options.Scheme, options.Metrics, options.Controller.SkipNameValidation = testEnv.Scheme, metricsserver.Options{BindAddress: "0"}, &again
	manager, err := ctrl.NewManager(config, options)
	w.must(err)
	ctx, cancel := context.WithCancel(context.Background())
	registry := prom.NewRegistry()
	dns := dnscheck.New(settings(), manager.GetAPIReader(), manager.GetClient())
	dns.Answered, dns.Every, dns.Again = func(context.Context) bool { return !w.nameless.Load() }, 100*time.Millisecond, 100*time.Millisecond
	dns.ResolvConf = os.DevNull // nothing is known to stand in between, so it is only down
	w.must(controllers.Setup(ctx, manager, controllers.Options{Settings: settings(), Keys: w, DNS: dns, KeysNamespace: env.KeysNamespace, Metrics: registry, Changes: changes,
		Rollout:           rollout.Limits{Percent: rollout.DefaultPercent, StopAfter: rollout.DefaultStopAfter, Deadline: 2 * time.Second, Lasts: 300 * time.Millisecond},
		StatusGracePeriod: 300 * time.Millisecond, Pace: time.Millisecond, OrphansEvery: time.Second, OrphansAfter: 300 * time.Millisecond}))
	var work sync.WaitGroup
	work.Go(func() {
		if err := manager.Start(ctx); err != nil {
			w.t.Errorf("the manager ended with: %v", err)
		}
	})
	kubernetes := &kcm.Controllers{Client: w.cluster, Reader: testEnv.Cache(w.t), Unready: func(set *appsv1.StatefulSet) bool {
		return w.failing.Load() && set.Spec.Template.Spec.NodeSelector != nil
	}}
	work.Go(func() {
		for tick := time.NewTicker(50 * time.Millisecond); ; {
			select {
			case <-ctx.Done():
				tick.Stop()
				return
			case <-tick.C:
				_ = kubernetes.Once() // in the next round again
			}
		}
	})
	stopMetrics := w.serveMetrics(w.managerMetrics, registry)
	w.stopManager = func() {
		w.stopManager = func() {}
		cancel()
		work.Wait()
		stopMetrics()
	}
}

func (w *world) get(o client.Object) error {
	return w.admin.Get(w.t.Context(), client.ObjectKeyFromObject(o), o)
}

// becomes waits for a condition, "Type=Status".
func (w *world) becomes(o client.Object, want string) {
	w.t.Helper()
	kind, state, _ := strings.Cut(want, "=")
	w.until(fmt.Sprintf("%T %s: %s", o, o.GetName(), want), func() error {
		if err := w.get(o); err != nil {
			return err
		}
		var conditions []metav1.Condition
		switch o := o.(type) {
		case *v1alpha1.Tenant:
			conditions = o.Status.Conditions
		case *v1alpha1.BotDeployment:
			conditions = o.Status.Conditions
		case *v1alpha1.DataStore:
			conditions = o.Status.Conditions
		}
		c := meta.FindStatusCondition(conditions, kind)
		if c == nil || string(c.Status) != state || c.ObservedGeneration != o.GetGeneration() {
			return fmt.Errorf("%+v", conditions)
		}
		return nil
	})
}

// amend changes an object as somebody who may, against whatever else writes it.
func amend[T client.Object](w *world, c client.Client, o T, how func(T)) {
	w.t.Helper()
	w.until("change "+o.GetName(), func() error {
		if err := w.get(o); err != nil {
			return err
		}
		how(o)
		return c.Update(w.t.Context(), o)
	})
}

func (w *world) tenant(name string, change func(*v1alpha1.Tenant)) *v1alpha1.Tenant {
	w.t.Helper()
	tenant := &v1alpha1.Tenant{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.TenantSpec{Namespaces: []v1alpha1.TenantNamespace{{Name: name}}}}
	if change != nil {
		change(tenant)
	}
	w.must(w.admin.Create(w.t.Context(), tenant))
	return tenant
}

// seal a value for a place of a tenant.
func (w *world) seal(tenant *v1alpha1.Tenant, place sealing.Place, text string) v1alpha1.SealedValue {
	w.t.Helper()
	w.becomes(tenant, "Ready=True")
	key, err := sealing.ParsePublicKey(tenant.Status.SealingKeys[0].Suite, tenant.Status.SealingKeys[0].Public)
	w.must(err)
	place.Realm, place.Tenant, place.Version = testRealm, tenant.Name, 1
	sealed, err := sealing.Seal(key, place, []byte(text))
	w.must(err)
	return v1alpha1.SealedValue(sealed)
}

func (w *world) bot(namespace, name string, change func(*v1alpha1.BotDeployment)) *v1alpha1.BotDeployment {
	w.t.Helper()
	bot := &v1alpha1.BotDeployment{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Spec: v1alpha1.BotDeploymentSpec{Image: "registry.example/bot:1"}}
	if change != nil {
		change(bot)
	}
	w.must(w.admin.Create(w.t.Context(), bot))
	return bot
}

// sweep runs the real sweeper against the real database for the Job that waits, or for one of the CronJob, which ends
// at a time, and waits until the manager has read its report.
func (w *world) sweep(store *v1alpha1.DataStore, ended time.Time) {
	w.t.Helper()
	job := w.job(store)
	hash := resources.PlanHashOf(job.Spec.Template.Spec)
	config := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: store.Namespace, Name: resources.PlanName(store.Name, hash)}}
	w.must(w.get(config))
	p, err := plan.Decode([]byte(config.Data[resources.PlanKey]))
	w.must(err)
	ca, err := os.ReadFile(database.CAFile)
	w.must(err)
	// What the name db.example stands for, also where it is the address that was approved.
	if p.Database.Address == p.Target.Address() {
		p.Database.Address = net.JoinHostPort(database.Host, strconv.Itoa(database.Port))
	}
	p.Target.Postgres.Host, p.Target.Postgres.Port, p.Target.Postgres.CABundle = database.Host, int32(database.Port), string(ca)
	leases, err := lease.Start(w.t.TempDir(), password)
	w.must(err)
	defer leases.Close()
	leases.Ledger = w.ledger
	leases.By(&p)
	leaser, err := leases.Client()
	w.must(err)
	text, err := report.Encode(sweep.Run(w.t.Context(), sweep.Options{Plan: p, Engines: stores.Engines{postgres.Engine{}}, Hash: hash, Leaser: leaser, Budget: time.Minute, Clock: time.Now, Log: slog.New(slog.DiscardHandler)}))
	w.must(err)
	w.finish(job, text, ended)
	w.until("the report is read", func() error {
		if err := w.get(store); err != nil {
			return err
		}
		if store.Status.LastSweep == nil || store.Status.LastSweep.JobUID != string(job.UID) {
			return fmt.Errorf("last sweep %+v", store.Status.LastSweep)
		}
		return nil
	})
}

// job of a store that runs the plan in force: one out of turn that the manager has made, or else one of its CronJob.
func (w *world) job(store *v1alpha1.DataStore) *batchv1.Job {
	w.t.Helper()
	var found *batchv1.Job
	w.until("a Job", func() error {
		cron := &batchv1.CronJob{ObjectMeta: metav1.ObjectMeta{Namespace: store.Namespace, Name: resources.SweepName(store.Name)}}
		var jobs batchv1.JobList
		if err := errors.Join(w.get(store), w.get(cron), w.admin.List(w.t.Context(), &jobs, client.InNamespace(store.Namespace))); err != nil {
			return err
		}
		if store.Status.ObservedGeneration != store.Generation || resources.PlanHashOf(cron.Spec.JobTemplate.Spec.Template.Spec) != store.Status.Plan.Hash {
			return errors.New("the plan is on its way")
		}
		for i, job := range jobs.Items {
			if len(job.Status.Conditions) > 0 {
				continue
			}
			if resources.PlanHashOf(job.Spec.Template.Spec) == store.Status.Plan.Hash {
				found = &jobs.Items[i]
				return nil
			}
			// Of a plan that is no more in force: its pod would be told so.
			if err := w.cluster.Delete(w.t.Context(), &jobs.Items[i], client.PropagationPolicy(metav1.DeletePropagationBackground)); err != nil {
				return err
			}
		}
		w.sweeps++
		found = &batchv1.Job{
			ObjectMeta: metav1.ObjectMeta{Namespace: store.Namespace, Name: fmt.Sprintf("%s-%d", cron.Name, w.sweeps), Labels: cron.Spec.JobTemplate.Labels,
				OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(cron, batchv1.SchemeGroupVersion.WithKind("CronJob"))}},
			Spec: *cron.Spec.JobTemplate.Spec.DeepCopy(),
		}
		return w.cluster.Create(w.t.Context(), found)
	})
	return found
}

// finish ends a Job whose pod hands in a report, as the keyserver, the kubelet and the Job controller would.
func (w *world) finish(job *batchv1.Job, text []byte, ended time.Time) {
	w.t.Helper()
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: job.Namespace, GenerateName: job.Name + "-", Labels: job.Spec.Template.Labels,
		OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(job, batchv1.SchemeGroupVersion.WithKind("Job"))}}, Spec: *job.Spec.Template.Spec.DeepCopy()}
	pod.Spec.PriorityClassName = "" // the class is the installation's
	w.must(w.cluster.Create(w.t.Context(), pod))
	w.handedIn++
	statement := lease.StatementOf(job, pod)
	statement.Sequence = w.handedIn
	answer, message, err := lease.Signed(statement, text)
	w.must(err)
	if w.replay {
		statement.Sequence = 1
		answer, _, err = lease.Signed(statement, text)
		w.must(err)
	}
	w.reports.Store(statement.Store, answer)
	pod.Status.Phase = corev1.PodSucceeded
	pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: resources.ContainerSweeper, Image: "i", ImageID: "i",
		State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Message: message}}}}
	w.must(w.cluster.Status().Update(w.t.Context(), pod))
	w.must(w.get(job))
	now := metav1.NewTime(ended)
	started := metav1.NewTime(ended.Add(-time.Second))
	job.Status.StartTime, job.Status.CompletionTime, job.Status.Succeeded = &started, &now, 1
	job.Status.UncountedTerminatedPods = &batchv1.UncountedTerminatedPods{}
	for _, c := range []batchv1.JobConditionType{batchv1.JobSuccessCriteriaMet, batchv1.JobComplete} {
		job.Status.Conditions = append(job.Status.Conditions, batchv1.JobCondition{Type: c, Status: corev1.ConditionTrue, LastTransitionTime: now, LastProbeTime: now})
	}
	w.must(w.cluster.Status().Update(w.t.Context(), job))
}
