// Package planner reads the live objects that a store's plan is made of and calls package plan. The manager and the
// keyserver both use it, so that they get the same plan; it writes nothing.
package planner

import (
	"context"
	"errors"
	"fmt"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/plan"
	"github.com/lethe-dev/lethe/internal/tenancy"
)

// Refusal says why a store gets no plan. It is no failure to read: asking again changes nothing until a person acts.
type Refusal struct{ v1alpha1.Problem }

func (r *Refusal) Error() string { return r.Message }

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

// Store compiles the plan of a store that the caller has read. It takes three reads for a Dedicated store (namespace,
// tenant, policies) and a fourth for a Shared one (tenants). The error is a *Refusal when the store may have no plan.
func Store(ctx context.Context, r client.Reader, store *v1alpha1.DataStore, now time.Time) (Compiled, error) {
	in, err := Read(ctx, r, store, now)
	if err != nil {
		return Compiled{Tenant: in.StoreTenant}, err
	}
	return Compiled{Result: plan.Compile(in), Tenant: in.StoreTenant}, nil
}

// Read reads what Store compiles, and compiles nothing. Where the store may have no plan the error is a *Refusal, and
// of the input only the tenant is there, if it is known.
func Read(ctx context.Context, r client.Reader, store *v1alpha1.DataStore, now time.Time) (plan.Input, error) {
	if !store.DeletionTimestamp.IsZero() {
		return plan.Input{}, &Refusal{Problem: v1alpha1.Problem{Reason: v1alpha1.ReasonDeleting, Message: "the store is being deleted"}}
	}
	whose, err := tenancy.Read(ctx, r, store.Namespace)
	if err != nil {
		return plan.Input{}, err
	}
	if whose.Standing != tenancy.Held {
		return plan.Input{StoreTenant: whose.Tenant}, &Refusal{Problem: v1alpha1.Problem{Reason: refusals[whose.Standing], Message: whose.Why}}
	}
	tenant := whose.Tenant
	if _, known := plan.TargetOf(&store.Spec); !known {
		return plan.Input{StoreTenant: tenant}, &Refusal{Problem: v1alpha1.Problem{Reason: v1alpha1.ReasonUnknownStoreType, Message: plan.UnknownType(store.Spec.Type)}}
	}
	in := plan.Input{Store: store, StoreTenant: tenant, Now: now}
	if store.Spec.Tenancy == v1alpha1.TenancyShared {
		if tenant.Spec.Class != v1alpha1.TenantPlatform {
			return plan.Input{StoreTenant: tenant}, &Refusal{Problem: v1alpha1.Problem{Reason: v1alpha1.ReasonSharedRefused, Message: fmt.Sprintf(
				"spec.tenancy: Shared needs a namespace of a Tenant with class Platform, and %s belongs to %s, a %s; put the store there, or make it Dedicated",
				store.Namespace, tenant.Name, tenant.Spec.Class)}}
		}
		var tenants v1alpha1.TenantList
		if err := r.List(ctx, &tenants, client.UnsafeDisableDeepCopy, client.DisableReadYourWritesConsistency); err != nil {
			return plan.Input{}, fmt.Errorf("list tenants: %w", err)
		}
		in.Tenants = tenants.Items
	}
	var policies v1alpha1.DataRetentionPolicyList
	if err := r.List(ctx, &policies, client.UnsafeDisableDeepCopy, client.DisableReadYourWritesConsistency); err != nil {
		return plan.Input{}, fmt.Errorf("list policies: %w", err)
	}
	in.Policies = policies.Items
	return in, nil
}

// refusals are the reasons for which a store gets no plan where its namespace is not held.
var refusals = map[tenancy.Standing]string{
	tenancy.Nobodys: v1alpha1.ReasonNoTenant, tenancy.NotIsolated: v1alpha1.ReasonTenantNotReady, tenancy.NamespaceEnding: v1alpha1.ReasonDeleting, tenancy.TenantEnding: v1alpha1.ReasonDeleting,
}
