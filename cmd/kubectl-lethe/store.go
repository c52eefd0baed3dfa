package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/plan"
	"github.com/lethe-dev/lethe/internal/planner"
	"github.com/lethe-dev/lethe/internal/resources"
)

// compiledStore is a store, as it is in the cluster or as a file would make it, and its plan.
type compiledStore struct {
	store    *v1alpha1.DataStore
	compiled planner.Compiled
	changed  bool // by a file: it is not what the cluster holds
}

// manifests are the objects of files that stand in for those in the cluster.
type manifests struct {
	stores   []v1alpha1.DataStore
	policies []v1alpha1.DataRetentionPolicy
	tenants  []v1alpha1.Tenant
}

// readManifests reads what -f and -k name, as the API server would have it.
func (s *shell) readManifests(ctx context.Context, c client.Client, f *genericclioptions.FileNameFlags, key client.ObjectKey) (*manifests, error) {
	m := &manifests{}
	if f == nil || !given(f) {
		return m, nil
	}
	docs, err := s.readObjects(f)
	if err != nil {
		return nil, err
	}
	for _, d := range docs {
		namespace := d.namespace
		switch {
		case clusterScoped(d.kind):
			namespace = ""
		case d.kind != resources.KindDataStore || d.name != key.Name || (namespace != "" && namespace != key.Namespace):
			continue // another one than that which is asked about
		default:
			namespace = key.Namespace
		}
		applied, err := asApplied(ctx, c, d, namespace)
		if err != nil {
			return nil, err
		}
		if err := m.add(d.kind, applied.Object); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (m *manifests) add(kind string, o map[string]any) error {
	var err error
	convert := runtime.DefaultUnstructuredConverter.FromUnstructured
	switch kind {
	case resources.KindDataStore:
		var s v1alpha1.DataStore
		err = convert(o, &s)
		m.stores = append(m.stores, s)
	case resources.KindDataRetentionPolicy:
		var p v1alpha1.DataRetentionPolicy
		err = convert(o, &p)
		m.policies = append(m.policies, p)
	case resources.KindTenant:
		var t v1alpha1.Tenant
		err = convert(o, &t)
		m.tenants = append(m.tenants, t)
	}
	if err != nil {
		return fmt.Errorf("-f: %s: this version of kubectl-lethe does not know it as the API server does: %w", kind, err)
	}
	return nil
}

// compileStore compiles the plan of one store here, as the manager and the keyserver do, from what the cluster holds.
// Objects in files take the place of those in the cluster, so that a change can be looked at before it is made.
func (s *shell) compileStore(ctx context.Context, name string, files *genericclioptions.FileNameFlags) (*compiledStore, error) {
	key, err := s.reference("the store", name)
	if err != nil {
		return nil, err
	}
	c, err := s.client()
	if err != nil {
		return nil, err
	}
	m, err := s.readManifests(ctx, c, files, key)
	if err != nil {
		return nil, err
	}
	store, err := storeFrom(ctx, c, key, m.stores)
	if err != nil {
		return nil, err
	}
	if store.Spec.Postgres == nil {
		return nil, fmt.Errorf("DataStore %s has no spec.postgres", key)
	}
	compiled, err := planner.Store(ctx, &overlay{Reader: c, manifests: m}, store, s.now())
	if err != nil {
		return nil, fmt.Errorf("plan of DataStore %s: %w", key, err)
	}
	return &compiledStore{store: store, compiled: compiled, changed: files != nil && given(files)}, nil
}

// storeFrom prefers the file's. What was measured is in it, since the API server answered with it.
func storeFrom(ctx context.Context, r client.Reader, key client.ObjectKey, files []v1alpha1.DataStore) (*v1alpha1.DataStore, error) {
	if len(files) > 0 {
		return &files[0], nil
	}
	var live v1alpha1.DataStore
	err := r.Get(ctx, key, &live)
	if apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("DataStore %s does not exist; to look at one before it does give its manifest with -f; `kubectl get datastores -A` lists those that do", key)
	}
	if err != nil {
		return nil, fmt.Errorf("read DataStore %s: %w", key, err)
	}
	return &live, nil
}

// overlay answers with objects out of files in place of those of the same name, which keep their identity and status.
type overlay struct {
	client.Reader
	*manifests
}

func (o *overlay) Get(ctx context.Context, key client.ObjectKey, obj client.Object, opts ...client.GetOption) error {
	if err := o.Reader.Get(ctx, key, obj, opts...); err != nil {
		return err
	}
	if t, ok := obj.(*v1alpha1.Tenant); ok {
		for _, f := range o.tenants {
			if f.Name == t.Name {
				t.Spec, t.Labels = f.Spec, f.Labels
			}
		}
	}
	return nil
}

func (o *overlay) List(ctx context.Context, list client.ObjectList, opts ...client.ListOption) error {
	if err := o.Reader.List(ctx, list, opts...); err != nil {
		return err
	}
	switch l := list.(type) {
	case *v1alpha1.DataRetentionPolicyList:
		for _, f := range o.policies {
			i := slices.IndexFunc(l.Items, func(p v1alpha1.DataRetentionPolicy) bool { return p.Name == f.Name })
			if i < 0 {
				l.Items = append(l.Items, f)
				continue
			}
			l.Items[i].Spec, l.Items[i].Labels = f.Spec, f.Labels
		}
	case *v1alpha1.TenantList:
		for _, f := range o.tenants {
			i := slices.IndexFunc(l.Items, func(t v1alpha1.Tenant) bool { return t.Name == f.Name })
			if i < 0 {
				l.Items = append(l.Items, f)
				continue
			}
			l.Items[i].Spec, l.Items[i].Labels = f.Spec, f.Labels
		}
	}
	return nil
}

// measured is what the last measurement said about a rule on a dataset; nil when it said nothing.
func (s *compiledStore) measured(dataset, policy, rule string) (*v1alpha1.DatasetMeasurement, *v1alpha1.RuleMeasurement) {
	return s.store.Status.Measurement(dataset, policy, rule)
}

// deletions are the windows of single tenants by which rows of a dataset go, sorted by tenant.
func (s *compiledStore) deletions(d plan.Dataset) []plan.Override {
	if d.Delete == nil {
		return nil
	}
	return s.compiled.Plan.Overrides(d.Delete.Own)
}

// fate says in a few words whether a rule deletes now.
func (s *compiledStore) fate(d plan.Dataset, r plan.Rule) string {
	switch {
	case s.guessed(d):
		return "no: undeclared relation, see explain"
	case r.Problem != "" || d.Problem != "":
		return "no: see problems"
	case r.Mode != v1alpha1.PolicyEnforce:
		return "no: Audit"
	case d.Delete == nil:
		return "no: awaits approval"
	case d.Delete.Policy != r.Policy || d.Delete.Rule != r.Rule:
		return "yes, by " + d.Delete.Policy + "/" + d.Delete.Rule
	default:
		return "yes"
	}
}

// keptLonger are the identifiers under which a tenant's rows are kept longer than its own window says, while the rule
// deletes: they were not approved for it, or it cannot be ordered. deletions are the windows of single tenants that
// rows go by.
func keptLonger(d plan.Dataset, r plan.Rule, o plan.Override, deletions []plan.Override) []string {
	if d.Delete == nil || r.Mode != v1alpha1.PolicyEnforce {
		return nil // the rule's own line says why
	}
	var kept []string
	for _, id := range o.ExternalIDs {
		window := d.Delete.RetainFor
		// An identifier is one tenant's, under whose name its window is found if it has one.
		if i, ok := slices.BinarySearchFunc(deletions, o.Tenant, func(d plan.Override, name string) int { return strings.Compare(d.Tenant, name) }); ok &&
			slices.Contains(deletions[i].ExternalIDs, id) {
			window = deletions[i].RetainFor
		}
		if !window.AtMost(o.RetainFor) {
			kept = append(kept, id)
		}
	}
	return kept
}

// problemLines says what a person must mend.
func problemLines(result plan.Result) []string {
	var out []string
	for _, p := range result.Problems {
		if p.Dataset != "" && !strings.Contains(p.Message, p.Dataset) {
			out = append(out, p.Dataset+": "+p.Message)
			continue
		}
		out = append(out, p.Message)
	}
	return out
}
