package controllers

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/util/workqueue"
	clocktesting "k8s.io/utils/clock/testing"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/kube"
	"github.com/lethe-dev/lethe/internal/plan"
	"github.com/lethe-dev/lethe/internal/protocol"
	"github.com/lethe-dev/lethe/internal/report"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/internal/status"
	"github.com/lethe-dev/lethe/test/env"
)

const sealedPassword = "seal.v1.a.b.c.d.e"

// storeKeys is a keyserver that stores every credential, or answers as a test says.
type storeKeys struct {
	mu      sync.Mutex
	err     error
	answer  *protocol.CredentialsResponse
	asked   []string
	revoked []string
	pulls   protocol.PullSecretsResponse
}

func (k *storeKeys) Tenant(context.Context, protocol.ObjectRef) (protocol.TenantResponse, error) {
	return protocol.TenantResponse{}, nil
}

func (k *storeKeys) Credentials(_ context.Context, o protocol.ObjectRef) (protocol.CredentialsResponse, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.err != nil {
		return protocol.CredentialsResponse{}, k.err
	}
	k.asked = append(k.asked, o.Name)
	if k.answer != nil {
		return *k.answer, nil
	}
	return protocol.CredentialsResponse{
		Secret: resources.CredentialsName(o.Name, "0123456789abcdef"),
		Items:  []protocol.CredentialResult{{Name: "password", Reason: v1alpha1.ReasonStored, Version: 1}},
	}, nil
}

func (k *storeKeys) PullSecrets(context.Context, protocol.ObjectRef) (protocol.PullSecretsResponse, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.pulls, k.err
}

func (k *storeKeys) Revoke(_ context.Context, o protocol.ObjectRef) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.err != nil {
		return k.err
	}
	k.revoked = append(k.revoked, o.UID)
	return nil
}

// storeBench is a tenant with a namespace of its own, and the reconcilers of stores and policies that work in it as the
// manager does, with its rights. A pass is a call: nothing happens in the background.
type storeBench struct {
	*testing.T
	env       *env.Env
	cluster   client.Client // acts as Kubernetes' own controllers
	namespace string
	tenant    string
	keys      *storeKeys
	clock     *clocktesting.FakePassiveClock
	events    *events.FakeRecorder
	stores    *DataStoreReconciler
	policies  *DataRetentionPolicyReconciler
	label     map[string]string // that the bench's policies select by
}

func newStoreBench(t *testing.T, class v1alpha1.TenantClass) *storeBench {
	t.Helper()
	e := testEnv
	b := &storeBench{
		T: t, env: e, cluster: e.AsCluster(t), keys: &storeKeys{}, events: events.NewFakeRecorder(1000),
		clock: clocktesting.NewFakePassiveClock(time.Now().Truncate(time.Second)),
	}
	b.namespace = e.Namespace(t, "store", nil).Name
	b.tenant = "t-" + b.namespace
	b.label = map[string]string{"bench": b.namespace}
	b.tenantWith(b.tenant, class, b.namespace)
	b.use(nil)
	t.Cleanup(b.clean)
	return b
}

// use lets the reconcilers work anew, as after a restart: they remember nothing. They write with the manager's rights, and
// read what its cache would hold; wrap may stand in between.
func (b *storeBench) use(wrap func(client.Client) client.Client) {
	manager := b.env.AsServiceAccount(b.T, env.SystemNamespace, resources.ServiceAccountManager)
	var c client.Client = cachedLike{Client: manager, reads: b.env.Client}
	if wrap != nil {
		c = wrap(c)
	}
	writer := kube.Writer{Client: c, Live: manager, Admission: admissionOf(testSettings(), b.clock, b.events)}
	b.stores = &DataStoreReconciler{Writer: writer, Keys: b.keys, Settings: testSettings(), Recorder: b.events, Clock: b.clock, Orphans: unheard()}
	b.policies = &DataRetentionPolicyReconciler{Writer: writer, Recorder: b.events, Clock: b.clock}
}

// unheard is an orphan sweep that is told where to look, and does not run.
func unheard() *OrphanSweep {
	return &OrphanSweep{queue: workqueue.NewTypedDelayingQueue[string](), after: time.Hour}
}

// cachedLike reads like the manager's cache, which holds of Kubernetes' kinds only what carries our label, and is never late.
type cachedLike struct {
	client.Client
	reads client.Reader
}

func (c cachedLike) Get(ctx context.Context, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
	if err := c.reads.Get(ctx, key, o, opts...); err != nil {
		return err
	}
	switch o.(type) {
	case *v1alpha1.DataStore, *v1alpha1.DataRetentionPolicy, *v1alpha1.Tenant, *corev1.Namespace:
		return nil
	}
	if o.GetLabels()[v1alpha1.LabelManagedBy] != v1alpha1.ManagedByLethe {
		return apierrors.NewNotFound(schema.GroupResource{}, key.Name)
	}
	return nil
}

func (c cachedLike) List(ctx context.Context, list client.ObjectList, opts ...client.ListOption) error {
	return c.reads.List(ctx, list, opts...)
}

// tenantWith makes a Tenant that has taken namespaces, as the Tenant controller would.
func (b *storeBench) tenantWith(name string, class v1alpha1.TenantClass, namespaces ...string) *v1alpha1.Tenant {
	b.Helper()
	tenant := &v1alpha1.Tenant{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.TenantSpec{Class: class}}
	for _, n := range namespaces {
		tenant.Spec.Namespaces = append(tenant.Spec.Namespaces, v1alpha1.TenantNamespace{Name: n})
	}
	if len(namespaces) == 0 {
		tenant.Spec.Namespaces = []v1alpha1.TenantNamespace{{Name: name}}
	}
	b.must(b.env.Client.Create(b.Context(), tenant))
	for _, n := range namespaces {
		var ns corev1.Namespace
		b.must(b.env.Client.Get(b.Context(), client.ObjectKey{Name: n}, &ns))
		ns.Labels = map[string]string{v1alpha1.LabelTenant: name}
		b.must(b.env.Client.Update(b.Context(), &ns))
		tenant.Status.Namespaces = append(tenant.Status.Namespaces, v1alpha1.TenantNamespaceStatus{Name: n, UID: string(ns.UID), Origin: "Adopted"})
		for _, binding := range resources.TenantRoleBindings(resources.DefaultSettings(), tenant, n)[:1] {
			b.must(b.env.Client.Create(b.Context(), binding))
		}
	}
	b.must(b.env.Client.Status().Update(b.Context(), tenant))
	return tenant
}

// clean removes what is not in a namespace: policies of one test must not select the stores of another, and do not, but
// tenants and policies are listed by every pass.
func (b *storeBench) clean() {
	ctx := context.Background()
	var stores v1alpha1.DataStoreList
	if err := b.env.Client.List(ctx, &stores, client.InNamespace(b.namespace)); err != nil {
		b.Error(err)
	}
	for _, s := range stores.Items {
		s.Finalizers = nil
		if err := b.env.Client.Update(ctx, &s); client.IgnoreNotFound(err) != nil {
			b.Error(err)
		}
		if err := b.env.Client.Delete(ctx, &s); client.IgnoreNotFound(err) != nil {
			b.Error(err)
		}
	}
	if err := b.env.Client.DeleteAllOf(ctx, &v1alpha1.DataRetentionPolicy{}); err != nil {
		b.Error(err)
	}
	if err := b.env.Client.DeleteAllOf(ctx, &v1alpha1.Tenant{}); err != nil {
		b.Error(err)
	}
	// Nor does one collect what stores leave behind: the orphan sweep of another test's manager would, among the writes that
	// it counts.
	for _, left := range []client.Object{&batchv1.CronJob{}, &batchv1.Job{}, &corev1.Pod{}, &networkingv1.NetworkPolicy{}, &corev1.ServiceAccount{},
		&corev1.ConfigMap{}, &rbacv1.RoleBinding{}} {
		if err := b.cluster.DeleteAllOf(ctx, left, client.InNamespace(b.namespace), client.GracePeriodSeconds(0)); err != nil {
			b.Error(err)
		}
	}
	// No controller ends namespaces here. Without its label it is no tenant's, and other tests leave it alone.
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: b.namespace}}
	unlabel := []byte(`{"metadata":{"labels":{"` + v1alpha1.LabelTenant + `":null}}}`)
	if err := b.env.Client.Patch(ctx, namespace, client.RawPatch(types.MergePatchType, unlabel)); err != nil {
		b.Error(err)
	}
}

func (b *storeBench) must(err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

func dataset(name, class string) v1alpha1.Dataset {
	return v1alpha1.Dataset{Name: name, DataClass: v1alpha1.DataClass(class), Table: v1alpha1.Table{
		Name: v1alpha1.Identifier(name), Key: []v1alpha1.Identifier{"id"},
		AgeColumn: v1alpha1.AgeColumn{Name: "created_at", Type: v1alpha1.AgeTimestamptz},
	}}
}

// store makes a Dedicated store with a dataset of messages, unless change makes it another.
func (b *storeBench) store(name string, change func(*v1alpha1.DataStore)) *v1alpha1.DataStore {
	b.Helper()
	s := &v1alpha1.DataStore{
		ObjectMeta: metav1.ObjectMeta{Namespace: b.namespace, Name: name, Labels: b.label},
		Spec: v1alpha1.DataStoreSpec{
			Type: v1alpha1.StorePostgres, Tenancy: v1alpha1.TenancyDedicated,
			Postgres: &v1alpha1.PostgresStore{Host: "db.example", Database: name, Username: "lethe", Password: sealedPassword},
			Datasets: []v1alpha1.Dataset{dataset("messages", "Conversations")},
		},
	}
	if change != nil {
		change(s)
	}
	unmade := s.DeepCopy()
	b.must(b.env.Client.Create(b.Context(), s))
	// A store's plan is renewed once a week, at a minute that its UID gives: one whose minute is near is made again, since what
	// a test moves the clock by must not decide whether it meets a renewal.
	for plan.ValidUntil(string(s.UID), b.clock.Now()) != plan.ValidUntil(string(s.UID), b.clock.Now().Add(noRenewalFor)) {
		b.must(b.env.Client.Delete(b.Context(), s))
		s = unmade.DeepCopy()
		b.must(b.env.Client.Create(b.Context(), s))
	}
	return s
}

// noRenewalFor is longer than any test that looks at plans moves the clock, but for those that want the renewal.
const noRenewalFor = 12 * time.Hour

func period(days int32) *v1alpha1.Period { return &v1alpha1.Period{Days: &days} }

func rule(class string, window *v1alpha1.Period) v1alpha1.RetentionRule {
	return v1alpha1.RetentionRule{Name: strings.ToLower(class), DataClass: v1alpha1.DataClass(class), RetainFor: window}
}

// policy makes a policy that selects the bench's stores.
func (b *storeBench) policy(name string, mode v1alpha1.PolicyMode, rules ...v1alpha1.RetentionRule) *v1alpha1.DataRetentionPolicy {
	b.Helper()
	p := &v1alpha1.DataRetentionPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: name + "-" + b.namespace},
		Spec: v1alpha1.DataRetentionPolicySpec{
			StoreSelector: metav1.LabelSelector{MatchLabels: b.label}, Mode: mode, Rules: rules,
		},
	}
	b.must(b.env.Client.Create(b.Context(), p))
	return p
}

// pass reconciles a store once.
func (b *storeBench) pass(s *v1alpha1.DataStore) (ctrl.Result, error) {
	b.Helper()
	return b.stores.Reconcile(b.Context(), ctrl.Request{NamespacedName: client.ObjectKeyFromObject(s)})
}

// settle reconciles a store, and reads it again.
func (b *storeBench) settle(s *v1alpha1.DataStore) ctrl.Result {
	b.Helper()
	result, err := b.pass(s)
	b.must(err)
	b.read(s)
	return result
}

func (b *storeBench) read(o client.Object) {
	b.Helper()
	b.must(b.env.Client.Get(b.Context(), client.ObjectKeyFromObject(o), o))
}

// amend changes an object as the hand that may do everything.
func amend[T client.Object](b *storeBench, o T, how func(T)) {
	b.Helper()
	b.read(o)
	how(o)
	b.must(b.cluster.Update(b.Context(), o))
}

// jobs of the bench's namespace that have not ended.
func (b *storeBench) active() []batchv1.Job {
	b.Helper()
	var list batchv1.JobList
	b.must(b.env.Client.List(b.Context(), &list, client.InNamespace(b.namespace)))
	return slices.DeleteFunc(list.Items, func(j batchv1.Job) bool { _, ended := finishedAt(&j); return ended })
}

// job is the one that is active.
func (b *storeBench) job() *batchv1.Job {
	b.Helper()
	jobs := b.active()
	if len(jobs) != 1 {
		b.Fatalf("%d active Jobs, want 1", len(jobs))
	}
	return &jobs[0]
}

// finish ends a Job with what its pod says, as the kubelet and the Job controller would. An empty message leaves no pod.
func (b *storeBench) finish(job *batchv1.Job, message string) {
	b.Helper()
	if message != "" {
		b.pod(job, message)
	}
	now := metav1.NewTime(b.clock.Now())
	b.read(job)
	started := metav1.NewTime(now.Add(-time.Second))
	job.Status.StartTime, job.Status.CompletionTime, job.Status.Succeeded = &started, &now, 1
	job.Status.UncountedTerminatedPods = &batchv1.UncountedTerminatedPods{}
	for _, c := range []batchv1.JobConditionType{batchv1.JobSuccessCriteriaMet, batchv1.JobComplete} {
		job.Status.Conditions = append(job.Status.Conditions, batchv1.JobCondition{Type: c, Status: corev1.ConditionTrue, LastTransitionTime: now, LastProbeTime: now})
	}
	b.must(b.cluster.Status().Update(b.Context(), job))
}

// pod makes the pod of a Job, which has ended with a message.
func (b *storeBench) pod(job *batchv1.Job, message string) {
	b.Helper()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: job.Namespace, GenerateName: job.Name + "-", Labels: job.Spec.Template.Labels,
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(job, batchv1.SchemeGroupVersion.WithKind("Job"))},
		},
		Spec: *job.Spec.Template.Spec.DeepCopy(),
	}
	pod.Spec.PriorityClassName = "" // the class is the installation's
	b.must(b.cluster.Create(b.Context(), pod))
	pod.Status.Phase = corev1.PodSucceeded
	pod.Status.ContainerStatuses = []corev1.ContainerStatus{{
		Name: resources.ContainerSweeper, Image: "i", ImageID: "i",
		State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Message: message}},
	}}
	b.must(b.cluster.Status().Update(b.Context(), pod))
}

// waitingPod makes the pod of a Job, which waits for its image.
func (b *storeBench) waitingPod(job *batchv1.Job, reason, message string) *corev1.Pod {
	b.Helper()
	b.read(job)
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: job.Namespace, Name: job.Name + "-waits", Labels: job.Spec.Template.Labels,
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(job, batchv1.SchemeGroupVersion.WithKind("Job"))},
		},
		Spec: *job.Spec.Template.Spec.DeepCopy(),
	}
	pod.Spec.PriorityClassName = "" // the class is the installation's
	b.must(b.cluster.Create(b.Context(), pod))
	pod.Status.ContainerStatuses = []corev1.ContainerStatus{{
		Name: resources.ContainerSweeper, Image: pod.Spec.Containers[0].Image, ImageID: "",
		State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}},
	}}
	b.must(b.cluster.Status().Update(b.Context(), pod))
	return pod
}

// told is a report of a Job's plan: every rule of every dataset measured and nothing overdue, unless edit says otherwise.
func (b *storeBench) told(job *batchv1.Job, edit func(*report.Report)) string {
	b.Helper()
	p := b.plan(job)
	r := report.Report{Plan: planHashOf(job), Outcome: report.Done, Mode: string(p.Mode()), SystemIdentifier: "7300", Database: "chat"}
	for _, d := range p.Datasets {
		for _, rule := range d.Rules {
			r.Lines = append(r.Lines, report.Line{Dataset: d.Name, Policy: rule.Policy, Rule: rule.Rule, Rows: 100})
		}
		if len(d.Rules) == 0 {
			r.Lines = append(r.Lines, report.Line{Dataset: d.Name, Rows: 100, Reason: v1alpha1.ReasonUngoverned})
		}
	}
	if edit != nil {
		edit(&r)
	}
	text, err := report.Encode(r)
	b.must(err)
	return string(text)
}

// plan that a Job was made to run, out of its ConfigMap.
func (b *storeBench) plan(job *batchv1.Job) plan.Plan {
	b.Helper()
	var c corev1.ConfigMap
	for _, v := range job.Spec.Template.Spec.Volumes {
		if v.ConfigMap != nil && v.Name == "plan" {
			b.must(b.env.Client.Get(b.Context(), client.ObjectKey{Namespace: job.Namespace, Name: v.ConfigMap.Name}, &c))
		}
	}
	p, err := plan.Decode([]byte(c.Data[resources.PlanKey]))
	b.must(err)
	if got := plan.HashBytes([]byte(c.Data[resources.PlanKey])); got != planHashOf(job) {
		b.Fatalf("the ConfigMap holds plan %s, the Job was made to run %s", got, planHashOf(job))
	}
	return p
}

// sweep lets the active Job end well and the store take its report.
func (b *storeBench) sweep(s *v1alpha1.DataStore, edit func(*report.Report)) {
	b.Helper()
	job := b.job()
	b.clock.SetTime(b.clock.Now().Add(2 * time.Second))
	b.finish(job, b.told(job, edit))
	b.settle(s)
}

// want checks conditions, written as "True Reason".
func (b *storeBench) want(o client.Object, want map[string]string) {
	b.Helper()
	b.read(o)
	var conditions []metav1.Condition
	switch o := o.(type) {
	case *v1alpha1.DataStore:
		conditions = o.Status.Conditions
	case *v1alpha1.DataRetentionPolicy:
		conditions = o.Status.Conditions
	}
	for kind, state := range want {
		c := meta.FindStatusCondition(conditions, kind)
		if c == nil {
			b.Errorf("%s is not set, want %s", kind, state)
			continue
		}
		if got := string(c.Status) + " " + c.Reason; got != state {
			b.Errorf("%s is %s (%s), want %s", kind, got, c.Message, state)
		}
		if c.ObservedGeneration != o.GetGeneration() {
			b.Errorf("%s is of generation %d, the object of %d", kind, c.ObservedGeneration, o.GetGeneration())
		}
	}
}

func (b *storeBench) says(s *v1alpha1.DataStore, kind, text string) {
	b.Helper()
	c := status.See(s.Status.Conditions, kind)
	if c != nil && c.Status == metav1.ConditionTrue && c.Type == v1alpha1.ConditionReady {
		c = status.See(s.Status.Conditions, v1alpha1.ConditionCompliant) // the store is as it is written: that one says the rest
	}
	if c == nil || !strings.Contains(c.Message, text) {
		b.Errorf("%s says %+v, want %q in it", kind, c, text)
	}
}

// children lists everything that a store owns, as kind/name.
func (b *storeBench) children(s *v1alpha1.DataStore) []string {
	b.Helper()
	var out []string
	for _, list := range []client.ObjectList{
		&corev1.ServiceAccountList{}, &corev1.ConfigMapList{}, &networkingv1.NetworkPolicyList{}, &batchv1.CronJobList{}, &batchv1.JobList{},
	} {
		b.must(b.env.Client.List(b.Context(), list, client.InNamespace(s.Namespace)))
		b.must(meta.EachListItem(list, func(o runtimeObject) error {
			object, ok := o.(client.Object)
			if ok && metav1.IsControlledBy(object, s) {
				out = append(out, fmt.Sprintf("%T/%s", o, object.GetName()))
			}
			return nil
		}))
	}
	slices.Sort(out)
	return out
}

// eventsSeen drains the events so far, as "Type Reason text".
func (b *storeBench) eventsSeen() []string {
	var out []string
	for {
		select {
		case e := <-b.events.Events:
			out = append(out, e)
		default:
			return out
		}
	}
}

// writes of the manager since a time.
func (b *storeBench) writes(since time.Time) []string {
	b.Helper()
	writes, err := b.env.Writes(since, managerUser)
	b.must(err)
	var out []string
	for _, w := range writes {
		out = append(out, w.String())
	}
	return out
}

// storeSeries lists the series about stores of a namespace, as name{labels} value.
func (b *storeBench) storeSeries() []string {
	b.Helper()
	var out []string
	for _, series := range gathered(b.T, objectCollector{b.env.Client}) {
		if series.labels["namespace"] == b.namespace && series.labels["store"] != "" {
			out = append(out, fmt.Sprintf("%s %s %s/%s %g", series.name, series.labels["store"], series.labels["policy"], series.labels["rule"], series.value))
		}
	}
	return out
}

func reconcileRequest(o client.Object) ctrl.Request {
	return ctrl.Request{NamespacedName: client.ObjectKeyFromObject(o)}
}
