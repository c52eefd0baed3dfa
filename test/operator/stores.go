package operator

import (
	"context"
	"fmt"
	"slices"
	"strings"
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
	clocktesting "k8s.io/utils/clock/testing"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/controllers"
	storecontroller "github.com/lethe-dev/lethe/controllers/datastore"
	policycontroller "github.com/lethe-dev/lethe/controllers/retentionpolicy"
	"github.com/lethe-dev/lethe/internal/kube"
	"github.com/lethe-dev/lethe/internal/plan"
	"github.com/lethe-dev/lethe/internal/reconcile"
	"github.com/lethe-dev/lethe/internal/report"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/internal/status"
	"github.com/lethe-dev/lethe/test/env"
)

const SealedPassword = "seal.v1.a.b.c.d.e"

// StoreBench is a tenant with a namespace of its own, and the reconcilers of stores and policies that work in it as the
// manager does, with its rights. A pass is a call: nothing happens in the background.
type StoreBench struct {
	*testing.T
	Env       *env.Env
	Cluster   client.Client // acts as Kubernetes' own controllers
	Namespace string
	Tenant    string
	Keys      *StoreKeys
	Clock     *clocktesting.FakePassiveClock
	Events    *events.FakeRecorder
	Stores    *storecontroller.Reconciler
	Deleted   *storecontroller.DeletedRows
	policies  *policycontroller.Reconciler
	label     map[string]string // that the bench's policies select by
}

// NewStoreBench makes a Tenant of a class with a namespace of its own.
func NewStoreBench(t *testing.T, class v1alpha1.TenantClass) *StoreBench {
	t.Helper()
	e := TestEnv
	b := &StoreBench{
		T: t, Env: e, Cluster: e.AsCluster(t), Keys: &StoreKeys{}, Events: events.NewFakeRecorder(1000),
		Clock: clocktesting.NewFakePassiveClock(time.Now().Truncate(time.Second)),
	}
	b.Namespace = e.Namespace(t, "store", nil).Name
	b.Tenant = "t-" + b.Namespace
	b.label = map[string]string{"bench": b.Namespace}
	b.TenantWith(b.Tenant, class, b.Namespace)
	b.Deleted = &storecontroller.DeletedRows{}
	b.Use(nil)
	t.Cleanup(b.clean)
	return b
}

// Use lets the reconcilers work anew, as after a restart: they remember nothing. They write with the manager's
// rights, and read what its cache would hold; wrap may stand in between.
func (b *StoreBench) Use(wrap func(client.Client) client.Client) {
	manager := b.Env.AsServiceAccount(b.T, env.SystemNamespace, resources.ServiceAccountManager)
	var c client.Client = cachedLike{Client: manager, reads: b.Env.Client}
	if wrap != nil {
		c = wrap(c)
	}
	writer := kube.Writer{Client: c, Live: manager, Admission: reconcile.AdmissionOf(TestSettings(), b.Clock, b.Events)}
	b.Stores = &storecontroller.Reconciler{Writer: writer, Keys: b.Keys, Settings: TestSettings(), Recorder: b.Events, Clock: b.Clock, Orphans: Unheard{}, Deleted: b.Deleted}
	b.policies = &policycontroller.Reconciler{Writer: writer, Recorder: b.Events, Clock: b.Clock}
}

// Unheard is an orphan sweep that is told where to look, and does not run.
type Unheard struct{}

func (Unheard) Soon(string)                                             {}
func (Unheard) SoonOf(context.Context, string)                          {}
func (Unheard) Clear(context.Context, string) ([]string, error)         { return nil, nil }
func (Unheard) Running(context.Context, string) ([]string, error)       { return nil, nil }
func (Unheard) Regain(_ context.Context, _ string, refused error) error { return refused }

// cachedLike reads like the manager's cache, which holds of Kubernetes' kinds only what carries our label, and is
// never late.
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

// TenantWith makes a Tenant that has taken namespaces, as the Tenant controller would.
func (b *StoreBench) TenantWith(name string, class v1alpha1.TenantClass, namespaces ...string) *v1alpha1.Tenant {
	b.Helper()
	tenant := &v1alpha1.Tenant{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.TenantSpec{Class: class}}
	for _, n := range namespaces {
		tenant.Spec.Namespaces = append(tenant.Spec.Namespaces, v1alpha1.TenantNamespace{Name: n})
	}
	if len(namespaces) == 0 {
		tenant.Spec.Namespaces = []v1alpha1.TenantNamespace{{Name: name}}
	}
	b.Must(b.Env.Client.Create(b.Context(), tenant))
	for _, n := range namespaces {
		var ns corev1.Namespace
		b.Must(b.Env.Client.Get(b.Context(), client.ObjectKey{Name: n}, &ns))
		ns.Labels = map[string]string{v1alpha1.LabelTenant: name}
		b.Must(b.Env.Client.Update(b.Context(), &ns))
		tenant.Status.Namespaces = append(tenant.Status.Namespaces, v1alpha1.TenantNamespaceStatus{Name: n, UID: string(ns.UID), Origin: "Adopted"})
		for _, binding := range resources.TenantRoleBindings(resources.DefaultSettings(), tenant, n)[:1] {
			b.Must(b.Env.Client.Create(b.Context(), binding))
		}
	}
	b.Must(b.Env.Client.Status().Update(b.Context(), tenant))
	return tenant
}

// clean removes what is not in a namespace: policies of one test must not select the stores of another, and do not, but
// tenants and policies are listed by every pass.
func (b *StoreBench) clean() {
	ctx := context.Background()
	var stores v1alpha1.DataStoreList
	if err := b.Env.Client.List(ctx, &stores, client.InNamespace(b.Namespace)); err != nil {
		b.Error(err)
	}
	for _, s := range stores.Items {
		s.Finalizers = nil
		if err := b.Env.Client.Update(ctx, &s); client.IgnoreNotFound(err) != nil {
			b.Error(err)
		}
		if err := b.Env.Client.Delete(ctx, &s); client.IgnoreNotFound(err) != nil {
			b.Error(err)
		}
	}
	if err := b.Env.Client.DeleteAllOf(ctx, &v1alpha1.DataRetentionPolicy{}); err != nil {
		b.Error(err)
	}
	if err := b.Env.Client.DeleteAllOf(ctx, &v1alpha1.Tenant{}); err != nil {
		b.Error(err)
	}
	// Nor does one collect what stores leave behind: the orphan sweep of another test's manager would, among the
	// writes that it counts.
	for _, left := range []client.Object{&batchv1.CronJob{}, &batchv1.Job{}, &corev1.Pod{}, &networkingv1.NetworkPolicy{}, &corev1.ServiceAccount{},
		&corev1.ConfigMap{}, &rbacv1.RoleBinding{}} {
		if err := b.Cluster.DeleteAllOf(ctx, left, client.InNamespace(b.Namespace), client.GracePeriodSeconds(0)); err != nil {
			b.Error(err)
		}
	}
	// No controller ends namespaces here. Without its label it is no tenant's, and other tests leave it alone.
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: b.Namespace}}
	unlabel := []byte(`{"metadata":{"labels":{"` + v1alpha1.LabelTenant + `":null}}}`)
	if err := b.Env.Client.Patch(ctx, namespace, client.RawPatch(types.MergePatchType, unlabel)); err != nil {
		b.Error(err)
	}
}

// Must ends the test on an error.
func (b *StoreBench) Must(err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

// Dataset makes one of a table with an age.
func Dataset(name, class string) v1alpha1.Dataset {
	return v1alpha1.Dataset{Name: name, DataClass: v1alpha1.DataClass(class), Table: v1alpha1.Table{
		Name: v1alpha1.Identifier(name), Key: []v1alpha1.Identifier{"id"},
		AgeColumn: v1alpha1.AgeColumn{Name: "created_at", Type: v1alpha1.AgeTimestamptz},
	}}
}

// Store makes a Dedicated store with a dataset of messages, unless change makes it another.
func (b *StoreBench) Store(name string, change func(*v1alpha1.DataStore)) *v1alpha1.DataStore {
	b.Helper()
	s := &v1alpha1.DataStore{
		ObjectMeta: metav1.ObjectMeta{Namespace: b.Namespace, Name: name, Labels: b.label},
		Spec: v1alpha1.DataStoreSpec{
			Type: v1alpha1.StorePostgres, Tenancy: v1alpha1.TenancyDedicated,
			Postgres: &v1alpha1.PostgresStore{Host: "db.example", Database: name, Username: "lethe", Password: SealedPassword},
			Datasets: []v1alpha1.Dataset{Dataset("messages", "Conversations")},
		},
	}
	if change != nil {
		change(s)
	}
	unmade := s.DeepCopy()
	b.Must(b.Env.Client.Create(b.Context(), s))
	// A store's plan is renewed once a week, at a minute that its UID gives: one whose minute is near is made again,
	// since what a test moves the clock by must not decide whether it meets a renewal.
	for plan.ValidUntil(string(s.UID), b.Clock.Now()) != plan.ValidUntil(string(s.UID), b.Clock.Now().Add(noRenewalFor)) {
		b.Must(b.Env.Client.Delete(b.Context(), s))
		s = unmade.DeepCopy()
		b.Must(b.Env.Client.Create(b.Context(), s))
	}
	// Nobody looks at a store before it was made: on a busy machine the bench's clock is behind by then.
	if made := s.CreationTimestamp.Time; b.Clock.Now().Before(made) {
		b.Clock.SetTime(made)
	}
	return s
}

// noRenewalFor is longer than any test that looks at plans moves the clock, but for those that want the renewal.
const noRenewalFor = 12 * time.Hour

// Period of so many days.
func Period(days int32) *v1alpha1.Period { return &v1alpha1.Period{Days: &days} }

// Rule on a class of data.
func Rule(class string, window *v1alpha1.Period) v1alpha1.RetentionRule {
	return v1alpha1.RetentionRule{Name: strings.ToLower(class), DataClass: v1alpha1.DataClass(class), RetainFor: window}
}

// Policy makes a policy that selects the bench's stores.
func (b *StoreBench) Policy(name string, mode v1alpha1.PolicyMode, rules ...v1alpha1.RetentionRule) *v1alpha1.DataRetentionPolicy {
	b.Helper()
	p := &v1alpha1.DataRetentionPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: name + "-" + b.Namespace},
		Spec: v1alpha1.DataRetentionPolicySpec{
			StoreSelector: metav1.LabelSelector{MatchLabels: b.label}, Mode: mode, Rules: rules,
		},
	}
	b.Must(b.Env.Client.Create(b.Context(), p))
	return p
}

// Pass reconciles a store once.
func (b *StoreBench) Pass(s *v1alpha1.DataStore) (ctrl.Result, error) {
	b.Helper()
	return b.Stores.Reconcile(b.Context(), ctrl.Request{NamespacedName: client.ObjectKeyFromObject(s)})
}

// Settle reconciles a store, and reads it again.
func (b *StoreBench) Settle(s *v1alpha1.DataStore) ctrl.Result {
	b.Helper()
	result, err := b.Pass(s)
	b.Must(err)
	b.Read(s)
	return result
}

// Read reads an object again.
func (b *StoreBench) Read(o client.Object) {
	b.Helper()
	b.Must(b.Env.Client.Get(b.Context(), client.ObjectKeyFromObject(o), o))
}

// Amend changes an object as the hand that may do everything.
func Amend[T client.Object](b *StoreBench, o T, how func(T)) {
	b.Helper()
	b.Read(o)
	how(o)
	b.Must(b.Cluster.Update(b.Context(), o))
}

// jobs of the bench's namespace that have not ended.
func (b *StoreBench) Active() []batchv1.Job {
	b.Helper()
	var list batchv1.JobList
	b.Must(b.Env.Client.List(b.Context(), &list, client.InNamespace(b.Namespace)))
	return slices.DeleteFunc(list.Items, func(j batchv1.Job) bool { _, ended := reconcile.FinishedAt(&j); return ended })
}

// Job is the one that is active.
func (b *StoreBench) Job() *batchv1.Job {
	b.Helper()
	jobs := b.Active()
	if len(jobs) != 1 {
		b.Fatalf("%d active Jobs, want 1", len(jobs))
	}
	return &jobs[0]
}

// Finish ends a Job with the report that its pod hands in, or with a message that is none, as the kubelet and the Job
// controller would. An empty one leaves no pod.
func (b *StoreBench) Finish(job *batchv1.Job, text string) {
	b.Helper()
	if text != "" {
		b.Read(job)
		pod := b.Pod(job)
		message, err := b.Keys.take(job, pod, text)
		b.Must(err)
		b.Leave(pod, message)
	}
	b.End(job)
}

// End ends a Job, whatever its pods are.
func (b *StoreBench) End(job *batchv1.Job) {
	b.Helper()
	now := metav1.NewTime(b.Clock.Now())
	b.Read(job)
	started := metav1.NewTime(now.Add(-time.Second))
	job.Status.StartTime, job.Status.CompletionTime, job.Status.Succeeded = &started, &now, 1
	job.Status.UncountedTerminatedPods = &batchv1.UncountedTerminatedPods{}
	for _, c := range []batchv1.JobConditionType{batchv1.JobSuccessCriteriaMet, batchv1.JobComplete} {
		job.Status.Conditions = append(job.Status.Conditions, batchv1.JobCondition{Type: c, Status: corev1.ConditionTrue, LastTransitionTime: now, LastProbeTime: now})
	}
	b.Must(b.Cluster.Status().Update(b.Context(), job))
}

// Pod makes the pod of a Job, which runs.
func (b *StoreBench) Pod(job *batchv1.Job) *corev1.Pod {
	b.Helper()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: job.Namespace, GenerateName: job.Name + "-", Labels: job.Spec.Template.Labels,
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(job, batchv1.SchemeGroupVersion.WithKind("Job"))},
		},
		Spec: *job.Spec.Template.Spec.DeepCopy(),
	}
	pod.Spec.PriorityClassName = "" // the class is the installation's
	b.Must(b.Cluster.Create(b.Context(), pod))
	return pod
}

// Leave has a pod end with a termination message.
func (b *StoreBench) Leave(pod *corev1.Pod, message string) {
	b.Helper()
	pod.Status.Phase = corev1.PodSucceeded
	pod.Status.ContainerStatuses = []corev1.ContainerStatus{{
		Name: resources.ContainerSweeper, Image: "i", ImageID: "i",
		State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Message: message}},
	}}
	b.Must(b.Cluster.Status().Update(b.Context(), pod))
}

// WaitingPod makes the pod of a Job, which waits for its image.
func (b *StoreBench) WaitingPod(job *batchv1.Job, reason, message string) *corev1.Pod {
	b.Helper()
	b.Read(job)
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: job.Namespace, Name: job.Name + "-waits", Labels: job.Spec.Template.Labels,
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(job, batchv1.SchemeGroupVersion.WithKind("Job"))},
		},
		Spec: *job.Spec.Template.Spec.DeepCopy(),
	}
	pod.Spec.PriorityClassName = "" // the class is the installation's
	b.Must(b.Cluster.Create(b.Context(), pod))
	pod.Status.ContainerStatuses = []corev1.ContainerStatus{{
		Name: resources.ContainerSweeper, Image: pod.Spec.Containers[0].Image, ImageID: "",
		State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}},
	}}
	b.Must(b.Cluster.Status().Update(b.Context(), pod))
	return pod
}

// Told is a report of a Job's plan: every rule of every dataset measured and nothing overdue, unless edit says
// otherwise.
func (b *StoreBench) Told(job *batchv1.Job, edit func(*report.Report)) string {
	b.Helper()
	p := b.Plan(job)
	r := report.Report{Plan: resources.PlanHashOf(job.Spec.Template.Spec), Outcome: report.Done, Mode: string(p.Mode()), Identity: v1alpha1.StoreIdentity{Kind: "PostgresSystemIdentifier", Value: "7300"}, Database: "chat"}
	for _, d := range p.Datasets {
		measured := report.Dataset{Name: d.Name, Rows: 100}
		for _, rule := range d.Rules {
			measured.Rules = append(measured.Rules, report.Rule{Policy: rule.Policy, Rule: rule.Rule})
		}
		if len(d.Rules) == 0 {
			measured.Reason = v1alpha1.ReasonUngoverned
		}
		r.Datasets = append(r.Datasets, measured)
	}
	if edit != nil {
		edit(&r)
	}
	text, err := report.Encode(r)
	b.Must(err)
	return string(text)
}

// Plan that a Job was made to run, out of its ConfigMap.
func (b *StoreBench) Plan(job *batchv1.Job) plan.Plan {
	b.Helper()
	var c corev1.ConfigMap
	for _, v := range job.Spec.Template.Spec.Volumes {
		if v.ConfigMap != nil && v.Name == "plan" {
			b.Must(b.Env.Client.Get(b.Context(), client.ObjectKey{Namespace: job.Namespace, Name: v.ConfigMap.Name}, &c))
		}
	}
	p, err := plan.Decode([]byte(c.Data[resources.PlanKey]))
	b.Must(err)
	if got := plan.HashBytes([]byte(c.Data[resources.PlanKey])); got != resources.PlanHashOf(job.Spec.Template.Spec) {
		b.Fatalf("the ConfigMap holds plan %s, the Job was made to run %s", got, resources.PlanHashOf(job.Spec.Template.Spec))
	}
	return p
}

// Sweep lets the active Job end well and the store take its report.
func (b *StoreBench) Sweep(s *v1alpha1.DataStore, edit func(*report.Report)) {
	b.Helper()
	job := b.Job()
	b.Clock.SetTime(b.Clock.Now().Add(2 * time.Second))
	b.Finish(job, b.Told(job, edit))
	b.Settle(s)
}

// Want checks conditions, written as "True Reason".
func (b *StoreBench) Want(o client.Object, want map[string]string) {
	b.Helper()
	b.Read(o)
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

// Says checks that a condition's message holds a text.
func (b *StoreBench) Says(s *v1alpha1.DataStore, kind, text string) {
	b.Helper()
	c := status.See(s.Status.Conditions, kind)
	if c != nil && c.Status == metav1.ConditionTrue && c.Type == v1alpha1.ConditionReady {
		c = status.See(s.Status.Conditions, v1alpha1.ConditionCompliant) // the store is as it is written: that one says the rest
	}
	if c == nil || !strings.Contains(c.Message, text) {
		b.Errorf("%s says %+v, want %q in it", kind, c, text)
	}
}

// Children lists everything that a store owns, as kind/name.
func (b *StoreBench) Children(s *v1alpha1.DataStore) []string {
	b.Helper()
	var out []string
	for _, list := range []client.ObjectList{
		&corev1.ServiceAccountList{}, &corev1.ConfigMapList{}, &networkingv1.NetworkPolicyList{}, &batchv1.CronJobList{}, &batchv1.JobList{},
	} {
		b.Must(b.Env.Client.List(b.Context(), list, client.InNamespace(s.Namespace)))
		b.Must(meta.EachListItem(list, func(o runtimeObject) error {
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

// EventsSeen drains the events so far, as "Type Reason text".
func (b *StoreBench) EventsSeen() []string {
	var out []string
	for {
		select {
		case e := <-b.Events.Events:
			out = append(out, e)
		default:
			return out
		}
	}
}

// Writes of the manager since a time.
func (b *StoreBench) Writes(since time.Time) []string {
	b.Helper()
	writes, err := b.Env.Writes(since, ManagerUser)
	b.Must(err)
	var out []string
	for _, w := range writes {
		out = append(out, w.String())
	}
	return out
}

// StoreSeries lists the series about stores of a namespace, as name{labels} value.
func (b *StoreBench) StoreSeries() []string {
	b.Helper()
	var out []string
	for _, series := range Gathered(b.T, controllers.ObjectCollector{Cache: b.Env.Client, Deleted: b.Deleted}) {
		if series.Labels["namespace"] == b.Namespace && series.Labels["store"] != "" {
			out = append(out, fmt.Sprintf("%s %s %s/%s %g", series.Name, series.Labels["store"], series.Labels["policy"], series.Labels["rule"], series.Value))
		}
	}
	return out
}

func reconcileRequest(o client.Object) ctrl.Request {
	return ctrl.Request{NamespacedName: client.ObjectKeyFromObject(o)}
}

// Sum reconciles a policy once.
func (b *StoreBench) Sum(p *v1alpha1.DataRetentionPolicy) {
	b.Helper()
	_, err := b.policies.Reconcile(b.Context(), reconcileRequest(p))
	b.Must(err)
	b.Read(p)
}

// Until waits for a condition, which says what is missing.
func (b *StoreBench) Until(what string, condition func() error) {
	b.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.Now().Add(20 * time.Second)
	for {
		err := condition()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			b.Fatalf("%s: %v", what, err)
		}
		<-tick.C
	}
}

// AddressOf a store as approvals have it.
func AddressOf(s *v1alpha1.DataStore) string {
	t, _ := plan.TargetOf(&s.Spec)
	return t.Address()
}
