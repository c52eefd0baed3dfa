// Package kstatus is what Flux makes of our objects: its own code looks at every version of them that a test's API
// server shows, and says what is wrong with the status.
package kstatus

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"github.com/fluxcd/pkg/runtime/conditions/check"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

// Kinds of ours.
var Kinds = []string{"Tenant", "BotDeployment", "DataStore", "DataRetentionPolicy"}

// getter shows an object's conditions to Flux' checker.
type getter struct {
	*unstructured.Unstructured
	conditions []metav1.Condition
}

// GetConditions implements Flux' conditions.Getter.
func (g getter) GetConditions() []metav1.Condition { return g.conditions }

// Of is what kstatus makes of an object.
func Of(object client.Object) (status.Status, error) {
	u, _, err := read(object)
	if err != nil {
		return "", err
	}
	result, err := status.Compute(u)
	if err != nil {
		return "", fmt.Errorf("compute the status: %w", err)
	}
	return result.Status, nil
}

func read(object client.Object) (*unstructured.Unstructured, []metav1.Condition, error) {
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(object)
	if err != nil {
		return nil, nil, fmt.Errorf("read %T: %w", object, err)
	}
	var with struct {
		Status struct {
			Conditions []metav1.Condition `json:"conditions"`
		} `json:"status"`
	}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(content, &with); err != nil {
		return nil, nil, fmt.Errorf("read the conditions of %T: %w", object, err)
	}
	return &unstructured.Unstructured{Object: content}, with.Status.Conditions, nil
}

// Problems are what Flux' checker, kstatus and our own rules find wrong with the status of an object.
func Problems(object client.Object) []string {
	u, conditions, err := read(object)
	if err != nil {
		return []string{err.Error()}
	}
	var found []string
	add := func(format string, args ...any) { found = append(found, fmt.Sprintf(format, args...)) }

	observed, _, err := unstructured.NestedInt64(u.Object, "status", "observedGeneration")
	if err != nil {
		add("%v", err)
	}
	is := func(kind string) bool { return meta.IsStatusConditionTrue(conditions, kind) }
	checker := check.NewChecker(nil, &check.Conditions{NegativePolarity: []string{v1alpha1.ConditionStalled, v1alpha1.ConditionReconciling}})
	unseen := observed != u.GetGeneration()
	if unseen {
		checker = check.NewInProgressChecker(nil)
	}
	checker.DisableFetch = true
	fail, warn := checker.Check(context.Background(), getter{u, conditions})
	if fail != nil {
		add("Flux' checker: %v", fail)
	}
	// What nobody has looked at yet has conditions that are about no generation.
	if warn != nil && (!unseen || !strings.Contains(warn.Error(), "Missing ObservedGeneration")) {
		add("Flux' checker warns: %v", warn)
	}

	want := status.InProgressStatus
	switch {
	case u.GetDeletionTimestamp() != nil:
		want = status.TerminatingStatus
	case unseen, is(v1alpha1.ConditionReconciling):
	case is(v1alpha1.ConditionStalled):
		want = status.FailedStatus
	case is(v1alpha1.ConditionReady):
		want = status.CurrentStatus
	default:
		add("it is neither Ready, nor Reconciling, nor Stalled")
	}
	if got, err := status.Compute(u); err != nil || got.Status != want {
		add("kstatus: %v, %v, want %s", got, err, want)
	}
	return append(found, repeated(conditions)...)
}

// repeated finds messages that stand in two conditions, and references to conditions that are not there.
func repeated(conditions []metav1.Condition) []string {
	var found []string
	said := map[string]string{}
	for _, c := range conditions {
		if named, ok := strings.CutPrefix(c.Message, "See condition "); ok {
			named = strings.TrimSuffix(named, ".")
			if about := meta.FindStatusCondition(conditions, named); about == nil || strings.HasPrefix(about.Message, "See condition ") {
				found = append(found, fmt.Sprintf("%s names %s, which is not there to be seen", c.Type, named))
			}
			continue
		}
		if by := said[c.Message]; by != "" && c.Message != "" {
			found = append(found, fmt.Sprintf("%s and %s both say: %s", by, c.Type, c.Message))
		}
		said[c.Message] = c.Type
	}
	return found
}

// Check fails a test for each problem of an object's status.
func Check(t testing.TB, object client.Object) {
	t.Helper()
	for _, problem := range Problems(object) {
		t.Errorf("%T %s: %s", object, client.ObjectKeyFromObject(object), problem)
	}
}

// Watcher looks at every version of our objects that an API server shows.
type Watcher struct {
	mutex    sync.Mutex
	problems map[string]bool
	stop     context.CancelFunc
	running  sync.WaitGroup
}

// Watch begins to look.
func Watch(cfg *rest.Config, scheme *runtime.Scheme) (*Watcher, error) {
	c, err := client.NewWithWatch(cfg, client.Options{Scheme: scheme})
	if err != nil {
		return nil, fmt.Errorf("make a client: %w", err)
	}
	ctx, stop := context.WithCancel(context.Background())
	w := &Watcher{problems: map[string]bool{}, stop: stop}
	for _, kind := range Kinds {
		w.running.Go(func() { w.follow(ctx, c, kind) })
	}
	return w, nil
}

// follow watches a kind, anew when the API server ends a watch.
func (w *Watcher) follow(ctx context.Context, c client.WithWatch, kind string) {
	for ctx.Err() == nil {
		list := &unstructured.UnstructuredList{}
		list.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind(kind + "List"))
		watching, err := c.Watch(ctx, list)
		if err != nil {
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		for event := range watching.ResultChan() {
			if object, ok := event.Object.(*unstructured.Unstructured); ok && (event.Type == watch.Added || event.Type == watch.Modified) {
				w.look(kind, object)
			}
		}
		watching.Stop()
	}
}

func (w *Watcher) look(kind string, object *unstructured.Unstructured) {
	if _, conditions, err := read(object); err == nil && len(conditions) == 0 || !byTheManager(object) {
		return // a test took them away: a new object has some
	}
	problems := Problems(object)
	w.mutex.Lock()
	defer w.mutex.Unlock()
	for _, problem := range problems {
		w.problems[kind+": "+problem] = true
	}
}

// byTheManager says whether the manager was the last to write the status, or nobody has yet: tests write some by hand.
func byTheManager(object *unstructured.Unstructured) bool {
	var ours, others time.Time
	for _, entry := range object.GetManagedFields() {
		if entry.Subresource != "status" || entry.Time == nil {
			continue
		}
		if at := entry.Time.Time; entry.Manager == "lethe" && at.After(ours) {
			ours = at
		} else if entry.Manager != "lethe" && entry.Manager != "lethe-keyserver" && at.After(others) {
			others = at
		}
	}
	return others.IsZero() || ours.After(others) // times are whole seconds: in one of both, nobody can tell
}

// End stops looking, and returns what was wrong.
func (w *Watcher) End() []string {
	w.stop()
	w.running.Wait()
	return slices.Sorted(maps.Keys(w.problems))
}
