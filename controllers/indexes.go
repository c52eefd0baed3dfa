package controllers

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

// Indexes of the cache.
const (
	indexTenantLabel = "metadata.labels.tenant" // Namespaces by the value of the protected label
	indexNamespace   = "spec.namespaces.name"   // Tenants by the namespaces that they list
	indexExternalID  = "spec.externalIDs"       // Tenants by type/value
	indexUIDBlock    = "status.uidRange"        // Tenants by the blocks that their range touches
)

func addIndexes(ctx context.Context, mgr ctrl.Manager) error {
	indexes := []struct {
		object client.Object
		name   string
		of     client.IndexerFunc
	}{
		{&corev1.Namespace{}, indexTenantLabel, tenantLabelOf},
		{&v1alpha1.Tenant{}, indexNamespace, namespacesListedBy},
		{&v1alpha1.Tenant{}, indexExternalID, externalIDsOf},
		{&v1alpha1.Tenant{}, indexUIDBlock, uidBlocksOf},
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

func externalIDsOf(object client.Object) []string {
	tenant, ok := object.(*v1alpha1.Tenant)
	if !ok {
		return nil
	}
	var keys []string
	for _, id := range tenant.Spec.ExternalIDs {
		keys = append(keys, externalIDKey(id))
	}
	return keys
}

func externalIDKey(id v1alpha1.ExternalID) string { return id.Type + "/" + id.Value }
