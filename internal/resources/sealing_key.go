package resources

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

// TenantSealingKey puts the key that a tenant's credentials are sealed to where its people may read it, as the key
// file of docs/design/formats.md. They may not read the Tenant, which says more.
func TenantSealingKey(tenant *v1alpha1.Tenant, namespace string, key v1alpha1.SealingKey) *corev1.ConfigMap {
	return &corev1.ConfigMap{
		ObjectMeta: tenantMeta(tenant, namespace, SealingKeyName),
		Data: map[string]string{SealingKeyFile: fmt.Sprintf("format: %s\nkid: %q\npublic: %q\nrealm: %q\nsuite: %q\ntenant: %q\n",
			v1alpha1.KeyFileFormat, key.KID, key.Public, key.Realm, key.Suite, tenant.Name)},
	}
}
