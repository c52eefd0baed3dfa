package keyserver

import (
	"context"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/protocol"
	"github.com/lethe-dev/lethe/internal/sealing"
)

// empty is an answer that says nothing more.
type empty struct{}

// revoke destroys the keys of an object that is being deleted, or is gone. It needs nothing of the object's namespace and
// may be repeated. An object that lives is refused: a caller that went wrong must not be able to destroy every key.
//
// From the object's deletionTimestamp on no pod gets its credentials, on any replica: unseal and lease read the object
// live. Destroying the key makes every copy of the ciphertext useless.
func (s *Server) revoke(ctx context.Context, _ caller, req *protocol.RevokeRequest) (*empty, error) {
	if req.Object.Name == "" || req.Object.UID == "" {
		return nil, refuse(protocol.ReasonBadRequest, "name and UID are needed")
	}
	var err error
	if req.Object.Kind == "Tenant" {
		err = s.revokeTenant(ctx, req.Object)
	} else {
		err = s.revokeObject(ctx, req.Object)
	}
	if err != nil {
		return nil, err
	}
	s.keys.flush()
	s.tenants.flush()
	return &empty{}, nil
}

func stillLives(ref protocol.ObjectRef) error {
	return refuse(protocol.ReasonForbidden, "%s %s is not being deleted: its keys stay", ref.Kind, ref.Name)
}

func (s *Server) revokeObject(ctx context.Context, ref protocol.ObjectRef) error {
	sub, err := s.find(ctx, ref)
	if r := asRefusal(err); err != nil && r.Reason != protocol.ReasonNotFound {
		return err
	}
	if err == nil && sub.alive() == nil {
		return stillLives(ref)
	}
	var secret corev1.Secret
	err = s.Client.Get(ctx, client.ObjectKey{Namespace: s.KeysNamespace, Name: objectSecretName(ref.UID)}, &secret)
	if client.IgnoreNotFound(err) != nil {
		return err
	}
	if err == nil {
		var doc objectDoc
		if _, err := readDocument(&secret, formatObject, &doc); err != nil {
			return refuse(protocol.ReasonForeignSecret, "%s", err)
		}
		// The name that was looked for must be the one that the key belongs to: a live object's UID under the name of
		// one that is gone would pass the check above.
		if doc.Kind != ref.Kind || doc.Namespace != ref.Namespace || doc.Name != ref.Name {
			return refuse(protocol.ReasonForbidden, "the key of that UID belongs to %s %s/%s", doc.Kind, doc.Namespace, doc.Name)
		}
		if err := s.deleteExactly(ctx, &secret); err != nil {
			return err
		}
	}
	if ref.Kind == sealing.KindDataStore {
		lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: s.KeysNamespace, Name: leaseName(ref.UID)}}
		return client.IgnoreNotFound(s.Client.Delete(ctx, lease))
	}
	return nil
}

func (s *Server) revokeTenant(ctx context.Context, ref protocol.ObjectRef) error {
	var tenant v1alpha1.Tenant
	err := s.Client.Get(ctx, client.ObjectKey{Name: ref.Name}, &tenant)
	if client.IgnoreNotFound(err) != nil {
		return err
	}
	if err == nil && string(tenant.UID) == ref.UID && tenant.DeletionTimestamp.IsZero() {
		return stillLives(ref)
	}
	var secret corev1.Secret
	err = s.Client.Get(ctx, client.ObjectKey{Namespace: s.KeysNamespace, Name: tenantSecretName(ref.Name)}, &secret)
	if client.IgnoreNotFound(err) != nil {
		return err
	}
	if err == nil {
		var doc tenantDoc
		if _, err := readDocument(&secret, formatTenant, &doc); err != nil {
			return refuse(protocol.ReasonForeignSecret, "%s", err)
		}
		// Keys of another Tenant of that name are not this one's to destroy.
		if doc.UID == ref.UID {
			if err := s.deleteExactly(ctx, &secret); err != nil {
				return err
			}
		}
	}
	// What was wrapped under the tenant's key opens no more; nothing of it is left lying about.
	var objects corev1.SecretList
	if err := s.Client.List(ctx, &objects, client.InNamespace(s.KeysNamespace), client.MatchingLabels{v1alpha1.LabelTenant: ref.Name}); err != nil {
		return err
	}
	for i := range objects.Items {
		var doc objectDoc
		if _, err := readDocument(&objects.Items[i], formatObject, &doc); err != nil || doc.TenantUID != ref.UID {
			continue
		}
		if err := s.deleteExactly(ctx, &objects.Items[i]); err != nil {
			return err
		}
	}
	return nil
}

// deleteExactly deletes the Secret that was read, and none that was made under its name since.
func (s *Server) deleteExactly(ctx context.Context, secret *corev1.Secret) error {
	err := s.Client.Delete(ctx, secret, client.Preconditions{UID: &secret.UID})
	if apierrors.IsConflict(err) {
		return later(protocol.ReasonInternal, 1, "Secret %s was made again meanwhile", secret.Name)
	}
	return client.IgnoreNotFound(err)
}
