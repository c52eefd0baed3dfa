package reconcile

import (
	"context"
	"fmt"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/resources"
)

// Indexes of the cache.
const (
	IndexTenantLabel = "metadata.labels.tenant" // Namespaces by the value of the protected label
	IndexNamespace   = "spec.namespaces.name"   // Tenants by the namespaces that they list
	IndexExternalID  = "spec.externalIDs"       // Tenants by type/value
	IndexUIDBlock    = "status.uidRange"        // Tenants by the blocks that their range touches
)

// AddIndexes makes the indexes in a manager's cache.
func AddIndexes(ctx context.Context, mgr ctrl.Manager) error {
	indexes := []struct {
		object client.Object
		name   string
		of     client.IndexerFunc
	}{
		{&corev1.Namespace{}, IndexTenantLabel, tenantLabelOf},
		{&v1alpha1.Tenant{}, IndexNamespace, namespacesListedBy},
		{&v1alpha1.Tenant{}, IndexExternalID, ExternalIDsOf},
		{&v1alpha1.Tenant{}, IndexUIDBlock, UIDBlocksOf},
	}
	for _, index := range indexes {
		if err := mgr.GetFieldIndexer().IndexField(ctx, index.object, index.name, index.of); err != nil {
			return fmt.Errorf("index %T by %s: %w", index.object, index.name, err)
		}
	}
	return nil
}

func tenantLabelOf(object client.Object) []string {
	return []string{object.GetLabels()[v1alpha1.LabelTenant]}
}

func namespacesListedBy(object client.Object) []string {
	tenant, ok := object.(*v1alpha1.Tenant)
	if !ok {
		return nil
	}
	var names []string
	for _, namespace := range tenant.Spec.Namespaces {
		names = append(names, namespace.Name)
	}
	return names
}

// ExternalIDsOf are the identifiers that a Tenant claims, each as type/value.
func ExternalIDsOf(object client.Object) []string {
	tenant, ok := object.(*v1alpha1.Tenant)
	if !ok {
		return nil
	}
	var keys []string
	for _, id := range tenant.Spec.ExternalIDs {
		keys = append(keys, ExternalIDKey(id))
	}
	return keys
}

// ExternalIDKey is how an identifier is indexed.
func ExternalIDKey(id v1alpha1.ExternalID) string { return id.Type + "/" + id.Value }

// uidBlock is how ranges are indexed: two that share an id share a block.
const uidBlock = 1000

// UIDBlocksOf names the blocks that a Tenant's range touches.
func UIDBlocksOf(object client.Object) []string {
	tenant, ok := object.(*v1alpha1.Tenant)
	if !ok || tenant.Status.UIDRange == nil || resources.CheckUIDRange(*tenant.Status.UIDRange) != nil {
		return nil
	}
	r := *tenant.Status.UIDRange
	var blocks []string
	for block := r.First / uidBlock; block <= (r.First+r.Size-1)/uidBlock; block++ {
		blocks = append(blocks, strconv.FormatInt(block, 10))
	}
	return blocks
}
