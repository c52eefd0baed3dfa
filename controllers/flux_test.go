package controllers_test

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fluxcd/cli-utils/pkg/kstatus/polling"
	kstatus "github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"github.com/fluxcd/pkg/ssa"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/plan"
	"github.com/lethe-dev/lethe/internal/reconcile"
	"github.com/lethe-dev/lethe/internal/report"
	"github.com/lethe-dev/lethe/internal/resources"
	flux "github.com/lethe-dev/lethe/test/kstatus"
	"github.com/lethe-dev/lethe/test/operator"
)

// newFluxWorld has the manager's own grace.
func newFluxWorld(t *testing.T) *operator.World {
	t.Helper()
	w := operator.NewWorld(t)
	w.Stop()
	w.Grace = reconcile.ApplyGrace
	w.Start(&operator.Wire{})
	return w
}

// newKustomization is one directory as kustomize-controller applies it: Flux' own code, in its order, with its options.
type kustomization struct {
	w       *operator.World
	manager *ssa.ResourceManager
	options ssa.ApplyOptions
	known   []*unstructured.Unstructured // its inventory
	timeout time.Duration
}

func newKustomization(w *operator.World) *kustomization {
	w.T.Helper()
	poller := polling.NewStatusPoller(w.Admin, w.Admin.RESTMapper(), polling.Options{})
	options := ssa.DefaultApplyOptions()
	options.WaitInterval = 50 * time.Millisecond
	options.Cleanup = ssa.ApplyCleanupOptions{
		Annotations: []string{"kubectl.kubernetes.io/last-applied-configuration"},
		FieldManagers: []ssa.FieldManager{
			{Name: "kubectl", OperationType: metav1.ManagedFieldsOperationApply},
			{Name: "kubectl", OperationType: metav1.ManagedFieldsOperationUpdate},
			{Name: "before-first-apply", OperationType: metav1.ManagedFieldsOperationUpdate},
			{Name: "kustomize-controller", OperationType: metav1.ManagedFieldsOperationUpdate},
		},
		Exclusions: map[string]string{"kustomize.toolkit.fluxcd.io/ssa": "Merge"},
	}
	return &kustomization{w: w, options: options, timeout: operator.Patience,
		manager: ssa.NewResourceManager(w.Admin, poller, ssa.Owner{Field: "kustomize-controller", Group: "kustomize.toolkit.fluxcd.io"})}
}

// apply is a pass up to the health checks: apply in stages, prune what is no longer there.
func (k *kustomization) apply(set string) (changes string, err error) {
	k.w.T.Helper()
	var objects []*unstructured.Unstructured
	for text := range strings.SplitSeq("\n"+set, "\n---") {
		o := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(text), &o.Object); err != nil {
			k.w.T.Fatalf("%v in\n%s", err, text)
		}
		if len(o.Object) > 0 {
			objects = append(objects, o)
		}
	}
	k.manager.SetOwnerLabels(objects, "tenants", "flux-system")
	done, err := k.manager.ApplyAllStaged(context.Background(), objects, k.options)
	if err != nil {
		return "", err
	}
	var stale []*unstructured.Unstructured
	for _, o := range k.known {
		if !slices.ContainsFunc(objects, func(n *unstructured.Unstructured) bool {
			return n.GetKind() == o.GetKind() && client.ObjectKeyFromObject(n) == client.ObjectKeyFromObject(o)
		}) {
			stale = append(stale, o)
		}
	}
	prune := ssa.DefaultDeleteOptions()
	prune.Inclusions = k.manager.GetOwnerLabels("tenants", "flux-system")
	prune.Exclusions = map[string]string{"kustomize.toolkit.fluxcd.io/prune": "disabled", "kustomize.toolkit.fluxcd.io/reconcile": "disabled"}
	if _, err := k.manager.DeleteAll(context.Background(), stale, prune); err != nil {
		return "", err
	}
	k.known = objects
	var lines []string
	for _, entry := range done.Entries {
		if entry.Action != ssa.UnchangedAction {
			lines = append(lines, entry.Subject+" "+string(entry.Action))
		}
	}
	return strings.Join(lines, "\n"), nil
}

// healthy waits as kustomize-controller does with wait: true: the first object that Failed ends it.
func (k *kustomization) healthy() error {
	return k.manager.Wait(k.known, ssa.WaitOptions{Interval: 50 * time.Millisecond, Timeout: k.timeout, FailFast: true})
}

// pass is a whole one, which must succeed.
func (k *kustomization) pass(set string) (changes string) {
	k.w.T.Helper()
	changes, err := k.apply(set)
	if err == nil {
		err = k.healthy()
	}
	if err != nil {
		k.w.T.Fatalf("the pass failed: %v%s", err, k.states())
	}
	return changes
}

// states of what is applied, for the reader of a failure.
func (k *kustomization) states() string {
	var all strings.Builder
	for _, o := range k.known {
		if o.GroupVersionKind().Group != v1alpha1.GroupVersion.Group {
			continue
		}
		live := &unstructured.Unstructured{}
		live.SetGroupVersionKind(o.GroupVersionKind())
		_ = k.w.Admin.Get(context.Background(), client.ObjectKeyFromObject(o), live)
		state, _ := flux.Of(live)
		conditions, _, _ := unstructured.NestedSlice(live.Object, "status", "conditions")
		fmt.Fprintf(&all, "\n%s %s: %s %v", o.GetKind(), o.GetName(), state, conditions)
	}
	return all.String()
}

// sweeper plays the sweepers of a world: every Job ends with a report.
type sweeper struct {
	mutex sync.Mutex
	edit  func(*report.Report)
}

func (s *sweeper) says(edit func(*report.Report)) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.edit = edit
}

// play lets Kubernetes' controllers and the sweepers go on by themselves until the test ends.
func play(w *operator.World, namespaces ...string) *sweeper {
	w.T.Helper()
	s := &sweeper{}
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(25 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
			}
			_ = w.KCM.Once() // what fails is tried again
			for _, namespace := range namespaces {
				s.sweep(w, namespace)
			}
		}
	}()
	w.T.Cleanup(func() { close(stop); <-ended })
	return s
}

// identifierOf is the database server of a namespace's store: two stores on one would be told that they hold the same
// table.
func identifierOf(namespace string) string {
	return strconv.Itoa(7300 + int(crc32.ChecksumIEEE([]byte(namespace))))
}

// sweep ends the Jobs of a namespace. What fails is tried again at the next tick.
func (s *sweeper) sweep(w *operator.World, namespace string) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	ctx := context.Background()
	jobs := &batchv1.JobList{}
	if err := w.Cluster.List(ctx, jobs, client.InNamespace(namespace)); err != nil {
		return
	}
	for i := range jobs.Items {
		job := &jobs.Items[i]
		if job.DeletionTimestamp != nil || job.Status.CompletionTime != nil {
			continue
		}
		plans := &corev1.ConfigMap{}
		for _, v := range job.Spec.Template.Spec.Volumes {
			if v.ConfigMap != nil && v.Name == "plan" {
				_ = w.Cluster.Get(ctx, client.ObjectKey{Namespace: namespace, Name: v.ConfigMap.Name}, plans)
			}
		}
		p, err := plan.Decode([]byte(plans.Data[resources.PlanKey]))
		if err != nil {
			continue
		}
		r := report.Report{Plan: resources.PlanHashOf(job.Spec.Template.Spec), Outcome: report.Done, Mode: string(p.Mode()), Identity: v1alpha1.StoreIdentity{Kind: "PostgresSystemIdentifier", Value: identifierOf(namespace)}, Database: "chat"}
		for _, d := range p.Datasets {
			measured := report.Dataset{Name: d.Name, Rows: 100, Problem: v1alpha1.Problem{Reason: v1alpha1.ReasonUngoverned}}
			if len(d.Rules) > 0 {
				measured.Problem, measured.Rules = v1alpha1.Problem{}, []report.Rule{{Policy: d.Rules[0].Policy, Rule: d.Rules[0].Rule}}
			}
			r.Datasets = append(r.Datasets, measured)
		}
		if s.edit != nil {
			s.edit(&r)
		}
		text, err := report.Encode(r)
		if err != nil {
			continue
		}
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: job.Name + "-0", Labels: job.Spec.Template.Labels,
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(job, batchv1.SchemeGroupVersion.WithKind("Job"))}}, Spec: *job.Spec.Template.Spec.DeepCopy()}
		pod.Spec.PriorityClassName = "" // the class is the installation's
		if err := w.Cluster.Create(ctx, pod); err != nil {
			continue
		}
		message, err := w.Keys.Take(job, pod, text)
		if err != nil {
			continue
		}
		pod.Status.Phase = corev1.PodSucceeded
		pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: resources.ContainerSweeper, Image: "i", ImageID: "i",
			State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Message: message}}}}
		if err := w.Cluster.Status().Update(ctx, pod); err != nil {
			continue
		}
		now := metav1.NewTime(time.Now().Add(time.Second))
		started := metav1.NewTime(now.Add(-time.Second))
		job.Status.StartTime, job.Status.CompletionTime, job.Status.Succeeded = &started, &now, 1
		job.Status.UncountedTerminatedPods = &batchv1.UncountedTerminatedPods{}
		for _, c := range []batchv1.JobConditionType{batchv1.JobSuccessCriteriaMet, batchv1.JobComplete} {
			job.Status.Conditions = append(job.Status.Conditions, batchv1.JobCondition{Type: c, Status: corev1.ConditionTrue, LastTransitionTime: now, LastProbeTime: now})
		}
		_ = w.Cluster.Status().Update(ctx, job)
	}
}

// deletePolicy removes what lies in no namespace.
func deletePolicy(w *operator.World, name string) {
	w.T.Helper()
	err := w.Admin.Delete(context.Background(), &v1alpha1.DataRetentionPolicy{ObjectMeta: metav1.ObjectMeta{Name: name}})
	if client.IgnoreNotFound(err) != nil {
		w.T.Error(err)
	}
}

// fluxSet is a directory with one of everything.
func fluxSet(name string, edit ...string) string {
	set := strings.ReplaceAll(`
apiVersion: v1
kind: Namespace
metadata:
  name: NAME
  labels:
    lethe.dev/tenant: NAME
---
apiVersion: lethe.dev/v1alpha1
kind: Tenant
metadata:
  name: NAME
  annotations:
    lethe.dev/sealing-keys: New
spec:
  state: Active
  namespaces:
    - name: NAME
---
apiVersion: lethe.dev/v1alpha1
kind: BotDeployment
metadata:
  name: support
  namespace: NAME
spec:
  image: registry.example/bot:v1
  credentials:
    - name: telegram
      sealed: seal.v1.a.b.c.d.e
  egress:
    - cidr: 140.82.112.0/20
      ports:
        - port: 443
---
apiVersion: lethe.dev/v1alpha1
kind: DataStore
metadata:
  name: chat
  namespace: NAME
  labels:
    promise: NAME
spec:
  type: Postgres
  postgres:
    host: db.NAME.example.com
    database: chat
    username: sweeper
    password: seal.v1.a.b.c.d.e
  datasets:
    - name: messages
      dataClass: Conversations
      table:
        name: messages
        key: [id]
        ageColumn:
          name: created_at
          type: Timestamptz
---
apiVersion: lethe.dev/v1alpha1
kind: DataRetentionPolicy
metadata:
  name: NAME
spec:
  storeSelector:
    matchLabels:
      promise: NAME
  mode: Audit
  rules:
    - name: conversations
      dataClass: Conversations
      retainFor:
        days: 90
`, "NAME", name)
	return strings.NewReplacer(edit...).Replace(set)
}

// without leaves documents of some kinds out of a set.
func without(set string, kinds ...string) string {
	var kept []string
	for text := range strings.SplitSeq(set, "\n---") {
		if !slices.ContainsFunc(kinds, func(kind string) bool { return strings.Contains(text, "\nkind: "+kind+"\n") }) {
			kept = append(kept, text)
		}
	}
	return strings.Join(kept, "\n---")
}

// TestFluxAppliesOneSet drives Flux' own code over one directory, with the Namespace in Git.
func TestFluxAppliesOneSet(t *testing.T) {
	w := newFluxWorld(t)
	const name = "flux-one"
	sweeps := play(w, name)
	k := newKustomization(w)
	w.T.Cleanup(func() { deletePolicy(w, name) })
	store := &v1alpha1.DataStore{ObjectMeta: metav1.ObjectMeta{Namespace: name, Name: "chat"}}
	bot := &v1alpha1.BotDeployment{ObjectMeta: metav1.ObjectMeta{Namespace: name, Name: "support"}}
	ready := func(o client.Object, conditions func() []metav1.Condition, reason string) {
		t.Helper()
		w.Soon("Ready for the reason "+reason, func() error {
			if err := w.Get(o); err != nil {
				return err
			}
			if c := meta.FindStatusCondition(conditions(), v1alpha1.ConditionReady); c == nil || c.Status != metav1.ConditionTrue || c.Reason != reason {
				return fmt.Errorf("%s is %+v", o.GetName(), c)
			}
			return nil
		})
	}
	ofStore := func() []metav1.Condition { return store.Status.Conditions }
	ofBot := func() []metav1.Condition { return bot.Status.Conditions }

	k.pass(fluxSet(name)) // at once, and at the first pass
	ready(store, ofStore, "Audit")
	if changes := k.pass(fluxSet(name)); changes != "" {
		t.Errorf("the second pass changes:\n%s", changes)
	}

	t.Run("an approval by kubectl lethe survives, one under a name of kubectl's does not", func(t *testing.T) {
		for owner, survives := range map[string]bool{"lethe-approve": true, "kubectl-lethe": false} {
			patch := `[{"op":"add","path":"/spec/approvedPlan","value":{"identity":{"kind":"PostgresSystemIdentifier","value":"` + identifierOf(name) + `"},"database":"chat","address":"db.example:5432","tenancy":"Dedicated","windows":[{"dataset":"messages","placeDigest":"0123456789abcdef","retainFor":{"days":90}}]}}]`
			if err := w.Admin.Patch(t.Context(), store, client.RawPatch(types.JSONPatchType, []byte(patch)), client.FieldOwner(owner)); err != nil {
				t.Fatal(err)
			}
			k.pass(fluxSet(name))
			if err := w.Get(store); err != nil || (store.Spec.ApprovedPlan != nil) != survives {
				t.Errorf("%s: the approval is %+v, %v", owner, store.Spec.ApprovedPlan, err)
			}
			if survives {
				operator.Edit(w, store, func(s *v1alpha1.DataStore) { s.Spec.ApprovedPlan = nil })
			}
		}
	})
	t.Run("rows without a date are for Compliant to say", func(t *testing.T) {
		sweeps.says(func(r *report.Report) { r.Datasets[0].UnknownAge = 1 })
		k.pass(fluxSet(name, "days: 90", "days: 91"))
		ready(store, ofStore, "UnknownAge")
		sweeps.says(nil)
	})
	t.Run("a wrong password fails the pass", func(t *testing.T) {
		sweeps.says(func(r *report.Report) {
			*r = report.Report{Plan: r.Plan, Outcome: report.Refused, Reason: v1alpha1.ReasonWrongPassword, Message: "seal the right one", Mode: r.Mode}
		})
		if _, err := k.apply(fluxSet(name, "days: 90", "days: 92")); err != nil {
			t.Fatal(err)
		}
		w.Soon("the sweep fails", func() error {
			if err := w.Get(store); err != nil || !meta.IsStatusConditionTrue(store.Status.Conditions, v1alpha1.ConditionStalled) {
				return errors.Join(fmt.Errorf("%+v", store.Status.Conditions), err)
			}
			return nil
		})
		if err := k.healthy(); err == nil || !strings.Contains(err.Error(), "DataStore/"+name+"/chat status: 'Failed'") {
			t.Errorf("the pass ends with %v", err)
		}
		sweeps.says(nil)
		k.pass(fluxSet(name, "a.b.c.d.e\n  datasets", "a.b.c.d.f\n  datasets"))
	})
	t.Run("suspended, everything is as written", func(t *testing.T) {
		k.pass(fluxSet(name, "state: Active", "state: Suspended"))
		ready(bot, ofBot, "TenantSuspended")
		k.pass(fluxSet(name))
		ready(bot, ofBot, "Ready")
	})
	t.Run("a policy that selects nothing yet", func(t *testing.T) {
		k.pass(fluxSet(name, "\n      promise: "+name, "\n      promise: nobody"))
	})
	t.Run("pruned, and put back", func(t *testing.T) {
		for try := 0; ; try++ {
			_, err := k.apply("")
			if err == nil {
				break
			}
			if try > 20 || !strings.Contains(err.Error(), "this Tenant still has BotDeployments") {
				t.Fatalf("pruning: %v", err) // kustomize-controller repeats it
			}
			w.Calm()
		}
		w.Soon("it is gone", func() error {
			err := w.Get(&v1alpha1.Tenant{ObjectMeta: metav1.ObjectMeta{Name: name}})
			if apierrors.IsNotFound(err) {
				return nil
			}
			return errors.Join(errors.New("the Tenant is there"), err)
		})
		w.Soon("its namespace is gone", func() error { return w.IsGone(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}) })
		k.pass(fluxSet(name))
	})
	t.Run("with the manager at 0 nothing is healthy", func(t *testing.T) {
		w.Stop()
		k.timeout = 2 * time.Second
		if _, err := k.apply(fluxSet(name, "image: registry.example/bot:v1", "image: registry.example/bot:v2", "days: 90", "days: 60")); err != nil {
			t.Fatal(err)
		}
		err := k.healthy()
		for _, kind := range []string{"BotDeployment/" + name + "/support", "DataRetentionPolicy/" + name} {
			if err == nil || !strings.Contains(err.Error(), kind+" status: 'InProgress'") {
				t.Errorf("%s is not waited for: %v", kind, err)
			}
		}
		w.Start(&operator.Wire{})
		k.timeout = operator.Patience
		if err := k.healthy(); err != nil {
			t.Error(err)
		}
	})
}

// TestFluxMakesTheNamespaceByTheTenant: the set has no Namespace. Flux tries every object before it applies any, so
// that bots need their namespace first: as the documentation says, with a stage for Tenants or with a set of their own.
func TestFluxMakesTheNamespaceByTheTenant(t *testing.T) {
	w := newFluxWorld(t)
	play(w, "flux-none", "flux-stage", "flux-two")
	for _, name := range []string{"flux-none", "flux-stage", "flux-two"} {
		w.T.Cleanup(func() { deletePolicy(w, name) })
	}
	alone := newKustomization(w)
	if _, err := alone.apply(without(fluxSet("flux-none"), "Namespace")); err == nil || !strings.Contains(err.Error(), "not found") {
		t.Errorf("without a word to Flux: %v", err)
	}
	if err := w.IsGone(&v1alpha1.Tenant{ObjectMeta: metav1.ObjectMeta{Name: "flux-none"}}); err != nil {
		t.Error("the documentation says that nothing is applied:", err)
	}

	staged := newKustomization(w)
	staged.options.CustomStageKinds = map[schema.GroupKind]struct{}{{Group: "lethe.dev", Kind: "Tenant"}: {}}
	set := without(fluxSet("flux-stage"), "Namespace")
	w.Eventually("kustomize-controller's next tries", func() error {
		_, err := staged.apply(set)
		return err
	})
	staged.pass(set)

	tenants, rest := newKustomization(w), newKustomization(w)
	set = without(fluxSet("flux-two"), "Namespace")
	tenants.pass(without(set, "BotDeployment", "DataStore", "DataRetentionPolicy"))
	rest.pass(without(set, "Tenant"))
}

// TestBeforeItsTenant: what is applied together comes in any order, and is Failed for no moment.
func TestBeforeItsTenant(t *testing.T) {
	w := newFluxWorld(t)
	const name = "flux-early"
	play(w, name)
	k := newKustomization(w)
	w.T.Cleanup(func() { deletePolicy(w, name) })
	if _, err := k.apply(without(fluxSet(name), "Tenant", "DataRetentionPolicy")); err != nil {
		t.Fatal(err)
	}
	store := &v1alpha1.DataStore{ObjectMeta: metav1.ObjectMeta{Namespace: name, Name: "chat"}}
	w.Soon("the store says what it waits for", func() error {
		if err := w.Get(store); err != nil {
			return err
		}
		if c := meta.FindStatusCondition(store.Status.Conditions, v1alpha1.ConditionReconciling); c == nil || c.Reason != v1alpha1.ReasonNoTenant {
			return fmt.Errorf("%+v", store.Status.Conditions)
		}
		return nil
	})
	if state, err := flux.Of(store); err != nil || state != kstatus.InProgressStatus {
		t.Errorf("%s, %v", state, err)
	}
	k.pass(fluxSet(name))
}

// TestDeletingASet: a Tenant is not refused for bots and stores that are on their way out, and its keys outlive theirs.
func TestDeletingASet(t *testing.T) {
	w := operator.NewWorld(t)
	const name = "delete-set"
	play(w, name)
	tenant, bot := operator.MakeTenant(name, name), operator.MakeBot(name, "support")
	w.Create(tenant)
	w.Becomes(tenant, "Ready=True")
	w.Create(bot)
	w.Becomes(bot, "Ready=True")
	w.Becomes(tenant, "InUse=True")
	if err := w.Admin.Delete(t.Context(), tenant.DeepCopy()); !apierrors.IsForbidden(err) {
		t.Fatalf("a Tenant in use: %v", err)
	}
	w.Keys.Set(func(k *operator.KeyserverDouble) { k.Down = errors.New("away") })
	w.Delete(bot.DeepCopy())
	w.Becomes(tenant, "InUse=False")
	if err := w.Get(bot); err != nil || bot.DeletionTimestamp == nil {
		t.Fatalf("the bot is not on its way out: %v", err)
	}
	if err := w.Admin.Delete(t.Context(), tenant.DeepCopy()); err != nil {
		t.Fatalf("the Tenant of a bot that is going: %v", err)
	}
	w.Keys.Set(func(k *operator.KeyserverDouble) { k.Down = nil })
	w.Soon("both are gone", func() error {
		if w.Keys.IsRevoked(tenant.UID) && !w.Keys.IsRevoked(bot.UID) {
			t.Error("the Tenant's keys went before the bot's")
		}
		return errors.Join(w.IsGone(bot), w.IsGone(tenant))
	})
}

// TestPodSecurityInGit: a Namespace in Git with another Pod Security label is set back, and the Tenant says which one
// stands.
func TestPodSecurityInGit(t *testing.T) {
	w := newFluxWorld(t)
	const name = "flux-pss"
	play(w, name)
	k := newKustomization(w)
	set := without(fluxSet(name, "    lethe.dev/tenant: "+name, "    lethe.dev/tenant: "+name+"\n    pod-security.kubernetes.io/enforce: baseline"),
		"BotDeployment", "DataStore", "DataRetentionPolicy")
	k.pass(set)
	tenant := &v1alpha1.Tenant{ObjectMeta: metav1.ObjectMeta{Name: name}}
	w.Becomes(tenant, "NamespacesReady=True/PodSecurityOverruled")
	if c := meta.FindStatusCondition(tenant.Status.Conditions, v1alpha1.ConditionNamespacesReady); !strings.Contains(c.Message, name+" had pod-security.kubernetes.io/enforce=baseline") {
		t.Errorf("says %q", c.Message)
	}
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if err := w.Get(namespace); err != nil || namespace.Labels["pod-security.kubernetes.io/enforce"] != "restricted" {
		t.Errorf("the label is %v, %v", namespace.Labels, err)
	}
	k.pass(set) // it comes again, as with every interval
	w.Soon("it is set back again", func() error {
		if err := w.Get(namespace); err != nil || namespace.Labels["pod-security.kubernetes.io/enforce"] != "restricted" {
			return errors.Join(fmt.Errorf("%v", namespace.Labels), err)
		}
		return nil
	})
	if changes := k.pass(without(fluxSet(name), "BotDeployment", "DataStore", "DataRetentionPolicy")); strings.Contains(changes, "Tenant") {
		t.Errorf("without the label in Git: %s", changes)
	}
}
