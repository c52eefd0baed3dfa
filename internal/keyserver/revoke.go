package keyserver

import (
	"context"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/internal/keystore"
	"github.com/lethe-dev/lethe/internal/kube"
	"github.com/lethe-dev/lethe/internal/sealing"
)

// empty is an answer that says nothing more.
type empty struct{}

// revoke destroys the keys of an object that is being deleted, or is gone. It needs nothing of the object's namespace
// and may be repeated. An object that lives is refused: a caller that went wrong must not be able to destroy every key.
//
// From the object's deletionTimestamp on no pod gets its credentials, on any replica: unseal and lease read the object
// live. Destroying the key makes every copy of the ciphertext useless.
func (s *Server) revoke(ctx context.Context, _ caller, req *keyapi.RevokeRequest) (*empty, error) {
	if req.Object.Name == "" || req.Object.UID == "" {
		return nil, refuse(v1alpha1.ReasonBadRequest, "name and UID are needed")
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
	s.keys.ForgetAll()
	s.tenants.Flush()
	return &empty{}, nil
}

func stillLives(ref keyapi.ObjectRef) error {
	return refuse(v1alpha1.ReasonForbidden, "%s %s is not being deleted: its keys stay", ref.Kind, ref.Name)
}

// revokeObject remembers the versions of an object's credentials, deletes its encrypted Secrets, and destroys its
// key. The document, which names them, goes last, so that a crash leaves nothing that is not found again.
func (s *Server) revokeObject(ctx context.Context, ref keyapi.ObjectRef) error {
	sub, err := s.find(ctx, ref)
	if r := asRefusal(err); err != nil && r.Reason != v1alpha1.ReasonNotFound {
		return err
	}
	if err == nil && sub.alive() == nil {
		return stillLives(ref)
	}
	var secret corev1.Secret
	err = s.Client.Get(ctx, client.ObjectKey{Namespace: s.KeysNamespace, Name: keystore.ObjectSecretName(ref.UID)}, &secret)
	if kube.UnlessMissing(err, keystore.ObjectSecretName(ref.UID)) != nil {
		return err
	}
	if err == nil {
		var doc keystore.ObjectDoc
		if _, err := keystore.ReadDocument(&secret, keystore.FormatObject, &doc); err != nil {
			return refuse(v1alpha1.ReasonForeignSecret, "%s", err)
		}
		// The name that was looked for must be the one that the key belongs to: a live object's UID under the name of
		// one that is gone would pass the check above.
		if doc.Kind != ref.Kind || doc.Namespace != ref.Namespace || doc.Name != ref.Name || doc.UID != ref.UID {
			return refuse(v1alpha1.ReasonForbidden, "the key of that UID belongs to %s %s/%s", doc.Kind, doc.Namespace, doc.Name)
		}
		if err := s.rememberObject(ctx, &secret, doc); err != nil {
			return err
		}
		if err := s.destroyObject(ctx, &secret, doc); err != nil {
			return err
		}
	}
	return s.forgetSweeps(ctx, ref.Kind, ref.UID)
}

// forgetSweeps removes what is kept of the sweeps of a store: the last report, and the lease with its account.
func (s *Server) forgetSweeps(ctx context.Context, kind, uid string) error {
	if kind != sealing.KindDataStore {
		return nil
	}
	report := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: s.KeysNamespace, Name: reportName(uid)}}
	if err := client.IgnoreNotFound(s.Client.Delete(ctx, report)); err != nil {
		return err
	}
	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: s.KeysNamespace, Name: leaseName(uid)}}
	return client.IgnoreNotFound(s.Client.Delete(ctx, lease))
}

// rememberObject keeps how far the versions of an object got, for one made again under its name. A document that
// cannot be authenticated is not believed, and does not hold up its own destruction.
func (s *Server) rememberObject(ctx context.Context, secret *corev1.Secret, doc keystore.ObjectDoc) error {
	var holder corev1.Secret
	err := s.Client.Get(ctx, client.ObjectKey{Namespace: s.KeysNamespace, Name: keystore.TenantSecretName(doc.Tenant)}, &holder)
	if kube.IsMissing(err, keystore.TenantSecretName(doc.Tenant)) {
		return nil // the Tenant went first, and what is remembered with it
	}
	if err != nil {
		return err
	}
	if err := s.keys.KEKUsable(ctx); err != nil {
		return err
	}
	keys, err := s.keys.OpenObject(secret, &holder)
	if err != nil {
		s.Log.Warn("The versions of an object's credentials are forgotten, since its keys do not open", "secret", secret.Name, "cause", err)
		return nil
	}
	return s.keys.RememberVersions(ctx, keys.Doc.Tenant, keys.Doc.TenantUID, keystore.EntriesOf(keys.Doc))
}

// destroyObject deletes an object's encrypted Secrets and its key, and gives up the channels that it held.
func (s *Server) destroyObject(ctx context.Context, secret *corev1.Secret, doc keystore.ObjectDoc) error {
	if err := s.releaseChannels(ctx, doc); err != nil {
		return err
	}
	for _, name := range doc.SecretNames() {
		if err := s.deleteOldSet(ctx, doc, name); err != nil {
			return err
		}
	}
	if err := s.forgetSweeps(ctx, doc.Kind, doc.UID); err != nil {
		return err
	}
	return s.keys.DeleteExactly(ctx, secret)
}

// deleteOldSet deletes an encrypted Secret of an object that is gone. Where the keyserver has no right any more, the
// Tenant has left that namespace: what lies there is ciphertext without a key, and its owner is gone.
func (s *Server) deleteOldSet(ctx context.Context, doc keystore.ObjectDoc, name string) error {
	var set corev1.Secret
	err := s.Client.Get(ctx, client.ObjectKey{Namespace: doc.Namespace, Name: name}, &set)
	if kube.IsMissing(err, name) || apierrors.IsForbidden(err) {
		return nil
	}
	if err != nil {
		return err
	}
	owner := metav1.GetControllerOf(&set)
	if set.Type != v1alpha1.SecretTypeEncrypted || (owner != nil && string(owner.UID) != doc.UID) {
		return nil
	}
	err = s.Client.Delete(ctx, &set, client.Preconditions{UID: &set.UID})
	if apierrors.IsForbidden(err) {
		return nil
	}
	return client.IgnoreNotFound(err)
}

// revokeTenant destroys a tenant's key, the data keys and the encrypted Secrets of all its objects at once. The
// private keys that values were sealed to wait, disabled, for the grace: see pending.go. A crash between two writes
// leaves what the next call finds: what waits is written first, the tenant's key goes next, and then one object after
// the other.
func (s *Server) revokeTenant(ctx context.Context, ref keyapi.ObjectRef) error {
	var tenant v1alpha1.Tenant
	err := s.Client.Get(ctx, client.ObjectKey{Name: ref.Name}, &tenant)
	if kube.UnlessMissing(err, ref.Name) != nil {
		return err
	}
	if err == nil && string(tenant.UID) == ref.UID && tenant.DeletionTimestamp.IsZero() {
		return stillLives(ref)
	}
	var live *v1alpha1.Tenant
	if err == nil && string(tenant.UID) == ref.UID {
		live = &tenant
	}
	objects, err := s.keys.ObjectsOf(ctx, ref)
	if err != nil {
		return err
	}
	var secret corev1.Secret
	err = s.Client.Get(ctx, client.ObjectKey{Namespace: s.KeysNamespace, Name: keystore.TenantSecretName(ref.Name)}, &secret)
	if kube.UnlessMissing(err, keystore.TenantSecretName(ref.Name)) != nil {
		return err
	}
	if err == nil {
		var doc keystore.TenantDoc
		if _, err := keystore.ReadDocument(&secret, keystore.FormatTenant, &doc); err != nil {
			return refuse(v1alpha1.ReasonForeignSecret, "%s", err)
		}
		// Keys of another Tenant of that name are not this one's to destroy.
		if doc.UID == ref.UID {
			if err := s.keys.SetAside(ctx, &secret, live, objects); err != nil {
				return err
			}
			if err := s.keys.DeleteExactly(ctx, &secret); err != nil {
				return err
			}
		}
	}
	// What was wrapped under the tenant's key opens no more; nothing of it is left lying about.
	for i := range objects {
		if err := s.destroyObject(ctx, &objects[i].Secret, objects[i].Doc); err != nil {
			return err
		}
	}
	versions := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: s.KeysNamespace, Name: keystore.VersionsSecretName(ref.UID)}}
	return client.IgnoreNotFound(s.Client.Delete(ctx, versions))
}
