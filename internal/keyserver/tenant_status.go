package keyserver

import (
	"context"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keyapi"
)

// fieldOwner is who the keyserver is in an object's managed fields.
const fieldOwner = client.FieldOwner("lethe-keyserver")

// publishTries is how often a status is read again because somebody wrote it at the same time.
const publishTries = 4

// publishKeys writes into a Tenant's status what only the keyserver knows: the keys to seal to, how often they were
// written, the range of user ids, and the grade of the key-encryption key. The manager writes the rest of that
// status, and the admission policy lethe-manager-specs refuses it
// these fields: one that is broken into shows nobody a key of its own. Nothing is written when nothing has changed.
func (s *Server) publishKeys(ctx context.Context, tenant *v1alpha1.Tenant, known *keyapi.TenantResponse) error {
	var keys []v1alpha1.SealingKey
	for _, k := range known.SealingKeys {
		keys = append(keys, v1alpha1.SealingKey(k))
	}
	uidRange := tenant.Status.UIDRange
	if recorded := v1alpha1.UIDRange(known.UIDRange); recorded.Size > 0 {
		uidRange = &recorded
	}
	uid := tenant.UID
	for range publishTries {
		before := tenant.DeepCopy()
		if tenant.Status.KeysGeneration > known.Generation {
			return later(v1alpha1.ReasonInternal, 1, "another replica wrote the keys at the same time")
		}
		tenant.Status.SealingKeys, tenant.Status.KEKGrade = keys, known.KEKGrade
		tenant.Status.KeysGeneration, tenant.Status.UIDRange = known.Generation, uidRange
		if equality.Semantic.DeepEqual(before.Status, tenant.Status) {
			return nil
		}
		// The lock also keeps the keys off a Tenant that was made anew under this name.
		err := s.Client.Status().Patch(ctx, tenant, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}), fieldOwner)
		if !apierrors.IsConflict(err) {
			return err
		}
		tenant = &v1alpha1.Tenant{}
		if err := s.Client.Get(ctx, client.ObjectKey{Name: before.Name}, tenant); err != nil {
			return err
		}
		if tenant.UID != uid {
			return refuse(v1alpha1.ReasonNotFound, "Tenant %s with that UID does not exist", before.Name)
		}
	}
	return later(v1alpha1.ReasonInternal, 1, "the Tenant's status was written by others at the same time")
}
