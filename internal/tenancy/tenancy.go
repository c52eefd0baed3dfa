// Package tenancy says whose a namespace is. The manager, the keyserver and the command line ask it alone, so that
// there is one answer: what runs for a tenant, and what is unsealed for it, follows the same rule.
//
// A namespace is a Tenant's when both say so: the namespace by its protected label, which names the Tenant and which
// a tenant cannot write, and the Tenant by its status, which holds the namespace's UID once it is isolated. Names
// prove nothing, since a namespace or a Tenant that is made again has the name of the one before. Nothing that stands
// in the namespace is asked. In doubt nothing runs and nothing is given away.
package tenancy

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/kube"
)

// Standing is how a namespace stands to the Tenant that its label names.
type Standing int

const (
	// Nobodys: the namespace is no Tenant's. Nothing runs there, and what does is stopped.
	Nobodys Standing = iota
	// NotIsolated: the Tenant lists the namespace and has not isolated it, or isolated another of that name. Nothing
	// is made or given away there. What runs is left: after a restore from a backup every namespace is one.
	NotIsolated
	// NamespaceEnding: the namespace is being deleted, whosever it was.
	NamespaceEnding
	// TenantEnding: the namespace is the Tenant's, which is being deleted: its pods are stopped and get nothing.
	TenantEnding
	// Held: the namespace is the Tenant's. No other standing lets anything run.
	Held
)

// Answer says whose a namespace is.
type Answer struct {
	Standing Standing
	// Tenant is whose the namespace is, with Held and TenantEnding, or will be, with NotIsolated. Otherwise it is nil.
	Tenant *v1alpha1.Tenant
	// Why says why it is not Held, and what to do: one clause without a full stop, fit for an error.
	Why string
}

// Of says whose a namespace is. named is the Tenant of the name in the namespace's label, nil when there is none; any
// other is not believed. It asks nobody: what it is given should have been read live wherever the answer gives
// something away.
func Of(namespace *corev1.Namespace, named *v1alpha1.Tenant) Answer {
	nobodys := func(format string, args ...any) Answer { return Answer{Why: fmt.Sprintf(format, args...)} }
	label := namespace.Labels[v1alpha1.LabelTenant]
	switch {
	case !namespace.DeletionTimestamp.IsZero():
		return Answer{Standing: NamespaceEnding, Why: fmt.Sprintf("namespace %s is being deleted", namespace.Name)}
	case IsReserved(namespace.Name):
		return nobodys("namespace %s is the cluster's own, and no Tenant's", namespace.Name)
	case label == "":
		return unlisted(namespace.Name)
	case named == nil || named.Name != label:
		return nobodys("namespace %s carries the label of Tenant %s, which does not exist: make that Tenant, or put the namespace into spec.namespaces of another", namespace.Name, label)
	}
	isHeld, isListed := Holds(named, namespace), Lists(named, namespace.Name)
	switch {
	case !isHeld && !isListed:
		return nobodys("namespace %s carries the label of Tenant %s, which does not list it: put it into that Tenant's spec.namespaces", namespace.Name, label)
	case !isHeld && !named.DeletionTimestamp.IsZero():
		return nobodys("namespace %s is not isolated, and Tenant %s, which lists it, is being deleted", namespace.Name, label)
	case !isHeld:
		return Answer{Standing: NotIsolated, Tenant: named, Why: fmt.Sprintf("Tenant %s has not isolated namespace %s yet: see the Tenant's conditions", label, namespace.Name)}
	case !named.DeletionTimestamp.IsZero():
		return Answer{Standing: TenantEnding, Tenant: named, Why: fmt.Sprintf("Tenant %s is being deleted", label)}
	default:
		return Answer{Standing: Held, Tenant: named}
	}
}

// unlisted is the answer for a namespace that nothing says to be a Tenant's.
func unlisted(namespace string) Answer {
	return Answer{Why: fmt.Sprintf("namespace %s belongs to no Tenant: put it into spec.namespaces of one", namespace)}
}

// Read reads a namespace, and the Tenant that its label names, and says whose it is. An error is a failure to read:
// nothing is known then. A kind that the API server does not serve is one, too, and not proof that there is no such
// Tenant.
func Read(ctx context.Context, r client.Reader, name string) (Answer, error) {
	namespace := &corev1.Namespace{}
	if err := r.Get(ctx, client.ObjectKey{Name: name}, namespace); err != nil {
		if kube.IsMissing(err, name) {
			return unlisted(name), nil // a cache of tenants' namespaces knows no other
		}
		return Answer{}, fmt.Errorf("read namespace %s: %w", name, err)
	}
	label := namespace.Labels[v1alpha1.LabelTenant]
	if label == "" || !namespace.DeletionTimestamp.IsZero() {
		return Of(namespace, nil), nil
	}
	named := &v1alpha1.Tenant{}
	if err := r.Get(ctx, client.ObjectKey{Name: label}, named); err != nil {
		if kube.IsMissing(err, label) {
			return Of(namespace, nil), nil
		}
		return Answer{}, fmt.Errorf("read the Tenant of namespace %s: %w", name, err)
	}
	return Of(namespace, named), nil
}

// Lists says whether a Tenant's spec lists a namespace of that name: that it wants it, not that it has it.
func Lists(tenant *v1alpha1.Tenant, name string) bool {
	return slices.ContainsFunc(tenant.Spec.Namespaces, func(n v1alpha1.TenantNamespace) bool { return n.Name == name })
}

// Holds says whether a Tenant's status holds a namespace, by UID: that it has isolated this one, and not another of
// the same name.
func Holds(tenant *v1alpha1.Tenant, namespace client.Object) bool {
	uid := string(namespace.GetUID())
	return uid != "" && slices.ContainsFunc(tenant.Status.Namespaces, func(n v1alpha1.TenantNamespaceStatus) bool {
		return n.Name == namespace.GetName() && n.UID == uid
	})
}

// Mentions says whether a Tenant's spec or status has a namespace of that name. It is for telling who may want to
// know, and proves nothing.
func Mentions(tenant *v1alpha1.Tenant, name string) bool {
	return Lists(tenant, name) || slices.ContainsFunc(tenant.Status.Namespaces, func(n v1alpha1.TenantNamespaceStatus) bool { return n.Name == name })
}

// IsReserved says whether a namespace can be no Tenant's: it is the cluster's, or one of those that are Lethe's own.
func IsReserved(name string, own ...string) bool {
	return strings.HasPrefix(name, "kube-") || slices.Contains(own, name)
}
