package keyserver

import (
	"context"
	"errors"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/internal/keystore"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/internal/sealing"
)

// annotationInputs on an encrypted Secret is the whole digest that its name is cut from.
const annotationInputs = "lethe.dev/inputs"

// writeSet stores a set: first the object's document (key, versions, the set's name), then the Secret. A crash between
// the two leaves a name without a Secret, which the next call fills; never a Secret that nothing knows of.
func (s *Server) writeSet(ctx context.Context, sub *subject, keys *keystore.ObjectKeys, st set) error {
	doc, dropped := record(keys.Doc, st, s.keys.Now())
	if doc.Helper == nil {
		doc.Helper = s.presentHelper()
	}
	if err := s.keys.RememberVersions(ctx, keys.Doc.Tenant, keys.Doc.TenantUID, dropped); err != nil {
		return err
	}
	if slices.Contains(keys.Doc.Sets, st.name) {
		done, err := s.haveSet(ctx, sub, keys, st)
		if err != nil {
			return err
		}
		if done {
			return s.writeDocument(ctx, sub, keys, doc)
		}
	}
	// Values are read before anything is written: one of them may have to be read back out of an older set.
	secret, err := s.buildSet(ctx, sub, keys, st)
	if err != nil {
		return err
	}
	if err := s.writeDocument(ctx, sub, keys, doc); err != nil {
		return err
	}
	err = s.Client.Create(ctx, secret)
	if apierrors.IsAlreadyExists(err) {
		done, err := s.haveSet(ctx, sub, keys, st)
		if err == nil && !done {
			err = later(v1alpha1.ReasonInternal, 1, "Secret %s/%s came and went", sub.namespace(), st.name)
		}
		return err
	}
	return err
}

// haveSet says whether the Secret of a set is there. One of that name that is not ours is refused: it is not adopted,
// overwritten or deleted.
func (s *Server) haveSet(ctx context.Context, sub *subject, keys *keystore.ObjectKeys, st set) (bool, error) {
	var secret corev1.Secret
	err := s.Client.Get(ctx, client.ObjectKey{Namespace: sub.namespace(), Name: keys.Doc.SecretOf(st.name)}, &secret)
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if !isOurs(&secret, sub) || secret.Annotations[annotationInputs] != st.hash {
		return false, refuse(v1alpha1.ReasonForeignSecret,
			"Secret %s/%s exists and is not the one that Lethe would make for %s %s: delete it, or rename it", secret.Namespace, secret.Name, sub.kind, sub.name())
	}
	return true, nil
}

// isOurs says whether a Secret is an encrypted one of this very object.
func isOurs(secret *corev1.Secret, sub *subject) bool {
	owner := metav1.GetControllerOf(secret)
	return secret.Type == v1alpha1.SecretTypeEncrypted && owner != nil && owner.UID == sub.object.GetUID()
}

func (s *Server) buildSet(ctx context.Context, sub *subject, keys *keystore.ObjectKeys, st set) (*corev1.Secret, error) {
	labels := resources.StoreLabels(sub.name(), resources.ComponentCredentials)
	if sub.bot != nil {
		labels = resources.BotLabels(sub.name())
		labels[v1alpha1.LabelComponent] = resources.ComponentCredentials
	}
	immutable := true
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: sub.namespace(), Name: keys.Doc.SecretOf(st.name), Labels: labels,
			Annotations: map[string]string{annotationInputs: st.hash}, OwnerReferences: resources.OwnerReference(sub.object, sub.kind)},
		Type: v1alpha1.SecretTypeEncrypted, Immutable: &immutable, Data: map[string][]byte{},
	}
	for _, r := range st.items {
		value, err := r.value(ctx)
		if errors.Is(err, errNotInUse) || errors.Is(err, sealing.ErrUnknownKey) || errors.Is(err, sealing.ErrDoesNotOpen) {
			none := refuse(v1alpha1.ReasonKeyMissing,
				"credential %s: %s, and the spec holds no newer one that opens: seal it again with a higher version", r.wanted.name, errNotInUse)
			none.Cause = errNotInUse
			return nil, none
		}
		if err != nil {
			return nil, err
		}
		item := storedItem{SecretItem: keyapi.SecretItem{Name: r.wanted.name, EnvName: r.wanted.envName, Value: value}, Source: r.source}
		text, err := s.encryptItem(keys, item, r.version)
		if err != nil {
			return nil, err
		}
		secret.Data[r.wanted.name] = text
	}
	return secret, nil
}

// writeDocument creates or updates an object's document, unless it says the same already. Creating is create-only and
// updating holds to the version that was read, so that two replicas never overwrite each other's versions.
func (s *Server) writeDocument(ctx context.Context, sub *subject, keys *keystore.ObjectKeys, doc keystore.ObjectDoc) error {
	if keys.Secret == nil {
		secret, err := keystore.NewDocument(s.KeysNamespace, keystore.ObjectSecretName(sub.uid()), keys.Doc.Tenant, keystore.FormatObject, sub.seen+1, keys.Keys, doc)
		if err != nil {
			return err
		}
		if err := s.Client.Create(ctx, secret); err != nil {
			return err
		}
		keys.Secret, keys.Generation, keys.Doc = secret, sub.seen+1, doc
		return nil
	}
	if sameRecord(keys.Doc, doc) {
		return nil
	}
	secret, generation, err := s.keys.UpdateDocument(ctx, keys.Secret, keystore.FormatObject, keys.Keys, doc)
	if err != nil {
		return err
	}
	keys.Secret, keys.Generation, keys.Doc = secret, generation, doc
	return nil
}
