// Package compile reads the live objects that a store's plan is made of and calls package plan. The manager and the
// keyserver both use it, so that they get the same plan; it writes nothing.
package compile

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/kube"
	"github.com/lethe-dev/lethe/internal/plan"
	"github.com/lethe-dev/lethe/internal/protocol"
)

// Refusal says why a store gets no plan. It is no failure to read: asking again changes nothing until a person acts.
type Refusal struct {
	Reason  string // one word, for a condition
	Message string // names the field and the remedy
}

func (r *Refusal) Error() string { return r.Message }

// Reasons of a Refusal.
const (
	// ReasonNoTenant: the store's namespace belongs to no tenant.
	ReasonNoTenant = protocol.ReasonNoTenant
	// ReasonTenantNotReady: the namespace's Tenant has not walled it in yet.
	ReasonTenantNotReady = "TenantNotReady"
	// ReasonSharedRefused: a Shared store outside the namespaces of a Platform tenant.
	ReasonSharedRefused = "SharedRefused"
	// ReasonDeleting: the store, or its namespace, is being deleted.
	ReasonDeleting = "Deleting"
)

// IsRefusal returns the refusal in an error's chain.
func IsRefusal(err error) (*Refusal, bool) {
	var r *Refusal
	ok := errors.As(err, &r)
	return r, ok
}

// Compiled is a store's plan and the tenant it is of.
type Compiled struct {
	plan.Result
	Tenant *v1alpha1.Tenant
}

// Store compiles the plan of a store that the caller has read. It takes three reads for a Dedicated store (namespace, tenant,
// policies) and a fourth for a Shared one (tenants). The error is a *Refusal when the store may have no plan.
func Store(ctx context.Context, r client.Reader, store *v1alpha1.DataStore, now time.Time) (Compiled, error) {
	if !store.DeletionTimestamp.IsZero() {
		return Compiled{}, &Refusal{Reason: ReasonDeleting, Message: "the store is being deleted"}
	}
	tenant, err := TenantOf(ctx, r, store.Namespace)
	if err != nil {
		return Compiled{}, err
	}
	in := plan.Input{Store: store, StoreTenant: tenant, Now: now}
	if store.Spec.Tenancy == v1alpha1.TenancyShared {
		if tenant.Spec.Class != v1alpha1.TenantPlatform {
			return Compiled{Tenant: tenant}, &Refusal{Reason: ReasonSharedRefused, Message: fmt.Sprintf(
				"spec.tenancy: Shared needs a namespace of a Tenant with class Platform, and %s belongs to %s, a %s; put the store there, or make it Dedicated",
				store.Namespace, tenant.Name, tenant.Spec.Class)}
		}
		var tenants v1alpha1.TenantList
		if err := r.List(ctx, &tenants, client.UnsafeDisableDeepCopy, client.DisableReadYourWritesConsistency); err != nil {
			return Compiled{}, fmt.Errorf("list tenants: %w", err)
		}
		in.Tenants = tenants.Items
	}
	var policies v1alpha1.DataRetentionPolicyList
	if err := r.List(ctx, &policies, client.UnsafeDisableDeepCopy, client.DisableReadYourWritesConsistency); err != nil {
		return Compiled{}, fmt.Errorf("list policies: %w", err)
	}
	in.Policies = policies.Items
	return Compiled{Result: plan.Compile(in), Tenant: tenant}, nil
}

const notListed = "namespace %s belongs to no Tenant; list it in a Tenant's spec.namespaces"

// TenantOf returns the tenant that a namespace belongs to: the one that its protected label names and whose status lists
// the namespace by UID. Neither alone is believed. The error is a *Refusal when there is none.
func TenantOf(ctx context.Context, r client.Reader, namespace string) (*v1alpha1.Tenant, error) {
	none := func(format string, args ...any) (*v1alpha1.Tenant, error) {
		return nil, &Refusal{Reason: ReasonNoTenant, Message: fmt.Sprintf(format, args...)}
	}
	var ns corev1.Namespace
	if err := r.Get(ctx, client.ObjectKey{Name: namespace}, &ns); err != nil {
		if kube.IsMissing(err, namespace) {
			// A cache of tenants' namespaces knows no other.
			return none(notListed, namespace)
		}
		return nil, fmt.Errorf("get namespace %s: %w", namespace, err)
	}
	if !ns.DeletionTimestamp.IsZero() {
		return nil, &Refusal{Reason: ReasonDeleting, Message: fmt.Sprintf("namespace %s is being deleted", namespace)}
	}
	name := ns.Labels[v1alpha1.LabelTenant]
	if name == "" {
		return none(notListed, namespace)
	}
	var tenant v1alpha1.Tenant
	if err := r.Get(ctx, client.ObjectKey{Name: name}, &tenant); err != nil {
		if kube.IsMissing(err, name) {
			return none("namespace %s belongs to Tenant %s, which does not exist", namespace, name)
		}
		return nil, fmt.Errorf("get tenant %s: %w", name, err)
	}
	for _, n := range tenant.Status.Namespaces {
		if n.Name == namespace && n.UID == string(ns.UID) {
			return &tenant, nil
		}
	}
	for _, n := range tenant.Spec.Namespaces {
		if n.Name == namespace {
			return nil, &Refusal{Reason: ReasonTenantNotReady, Message: fmt.Sprintf("Tenant %s has not walled in namespace %s yet: see the Tenant's conditions", name, namespace)}
		}
	}
	return none("namespace %s carries the label of Tenant %s, which does not list it; put it into that Tenant's spec.namespaces", namespace, name)
}
