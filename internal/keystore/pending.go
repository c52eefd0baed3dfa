package keystore

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/internal/sealing"
)

// Grace is how long the keys that a deleted Tenant's credentials were sealed to wait before they are destroyed.
const Grace = 72 * time.Hour

// PendingSecretName is the name of the Secret of what waits of a deleted Tenant.
func PendingSecretName(tenantUID string) string { return pendingPrefix + tenantUID }

// pendingDoc holds what of a deleted Tenant waits for the end of the grace: the private keys under the KEK, which no
// call uses, and what belongs to them. A Tenant that is the same in everything that Binding covers, made by somebody
// who may adopt it, gets them back; one without external identifiers only when it names one of the keys.
type pendingDoc struct {
	Realm   string    `json:"realm"`
	Tenant  string    `json:"tenant"`
	UID     string    `json:"uid"`
	Binding string    `json:"binding"`
	Deleted time.Time `json:"deleted"`
	Until   time.Time `json:"until"`
	// Named says that a person brought these keys back out of a backup for this Tenant: it need not name them again.
	Named bool `json:"named,omitempty"`
	// Seal are the keys, wrapped under the KEK for the purpose "pending": no other use of a wrapped key opens them.
	Seal     []SealDoc      `json:"seal"`
	UIDRange UIDRangeDoc    `json:"uidRange"`
	Versions []VersionEntry `json:"versions,omitempty"`
}

func (d pendingDoc) ids() []string { return []string{d.Realm, d.Tenant, d.UID} }

// bindingOf names what a Tenant has to be the same in to be the same customer: realm, name, namespaces, external
// identifiers. Their order does not count.
func bindingOf(realm string, tenant *v1alpha1.Tenant) string {
	var parts []string
	for _, n := range tenant.Spec.Namespaces {
		parts = append(parts, fmt.Sprintf("namespace %d:%s", len(n.Name), n.Name))
	}
	for _, id := range tenant.Spec.ExternalIDs {
		parts = append(parts, fmt.Sprintf("id %d:%s,%d:%s", len(id.Type), id.Type, len(id.Value), id.Value))
	}
	slices.Sort(parts)
	h := sha256.New()
	for _, p := range append([]string{"lethe/binding/v1", realm, tenant.Name}, parts...) {
		fmt.Fprintf(h, "%d:%s,", len(p), p)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// SetAside writes what waits of a tenant whose keys are about to be destroyed: create-only, so that a repeat adds
// nothing and lengthens nothing. live is the Tenant while it is still there.
func (s *Store) SetAside(ctx context.Context, secret *corev1.Secret, live *v1alpha1.Tenant, objects []StoredObject) error {
	if err := s.KEKUsable(ctx); err != nil {
		return err
	}
	keys, err := OpenTenantDocument(secret, s.KEKs())
	if errors.Is(err, sealing.ErrUnknownKey) {
		return s.refuseDocument(err, "")
	}
	if err != nil {
		// What nobody can open any more has nothing that could wait.
		s.Log.Warn("No key of a deleted tenant waits, since its document does not open", "secret", secret.Name, "cause", err)
		return nil
	}
	now := s.Now()
	doc := pendingDoc{Realm: keys.Doc.Realm, Tenant: keys.Doc.Tenant, UID: keys.Doc.UID, Binding: keys.Doc.Binding,
		Deleted: now, Until: now.Add(Grace), UIDRange: keys.Doc.UIDRange}
	if live != nil {
		doc.Binding = bindingOf(s.Realm, live)
	}
	for _, d := range keys.Doc.Seal {
		if d.Key, err = s.rewrapSeal(keys.Keys, sealing.PurposeSeal, keys.IDs(), s.KEKs(), sealing.PurposePending, doc.ids(), d); err != nil {
			return err
		}
		doc.Seal = append(doc.Seal, d)
	}
	_, remembered, err := s.Versions(ctx, keys.Doc.UID)
	if err != nil && !isRefusal(err) {
		return err
	}
	doc.Versions = remembered.Entries
	for i := range objects {
		if object, err := OpenObjectDocument(&objects[i].Secret, keys); err == nil {
			doc.Versions = mergeVersions(doc.Versions, EntriesOf(object.Doc))
		}
	}
	waiting, err := NewDocument(s.KeysNamespace, PendingSecretName(doc.UID), doc.Tenant, FormatPending, 1, s.KEKs(), doc)
	if err != nil {
		return err
	}
	if err := s.Client.Create(ctx, waiting); err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	s.Log.Info("Destroying the keys of a Tenant; those that its credentials were sealed to wait", "tenant", doc.Tenant, "uid", doc.UID, "until", doc.Until)
	return nil
}

// rewrapSeal opens a private key under one ring and wraps it under another.
func (s *Store) rewrapSeal(from sealing.Ring, purpose sealing.Purpose, ids []string, to sealing.Ring, as sealing.Purpose, asIDs []string, d SealDoc) (string, error) {
	kid, seed, err := from.UnwrapBytes(d.Key, purpose, ids...)
	if err != nil {
		return "", err
	}
	defer clear(seed)
	if kid != d.KID {
		return "", sealing.ErrDoesNotOpen
	}
	return to.WrapBytes(s.Random, kid, seed, as, asIDs...)
}

// Waiting is a document of keys that wait.
type Waiting struct {
	secret *corev1.Secret
	doc    pendingDoc
}

// holds says whether a sealing key of that name is among those that wait.
func (d pendingDoc) holds(kid string) bool {
	return slices.ContainsFunc(d.Seal, func(k SealDoc) bool { return k.KID == kid })
}

// waitingFor finds the keys of an earlier Tenant that a Tenant gets back: the same in everything, within the grace,
// and its maker may adopt. Admission (lethe-tenant-keys) lets only such a person, or program, make a Tenant without
// the annotation that asks for new keys, or change the annotation. A name and namespaces alone are no identity, since
// the next customer can have them: without external identifiers the annotation has to name a key of the earlier
// Tenant, and until it says the one or the other nothing is made.
func (s *Store) waitingFor(ctx context.Context, tenant *v1alpha1.Tenant) (*Waiting, error) {
	named := tenant.Annotations[v1alpha1.AnnotationKeys]
	if named == v1alpha1.KeysNew {
		return nil, nil
	}
	found, err := s.sameAs(ctx, tenant, named)
	switch {
	case err != nil:
		return nil, err
	case named != "" && found == nil:
		return nil, keyapi.Refuse(v1alpha1.ReasonKeysChoice, "the annotation %s names a sealing key, and no deleted Tenant with this name, these namespaces and these external identifiers left it: "+
			"correct it by what 'kubectl lethe keys pending' lists, restore the backup, or set it to %s", v1alpha1.AnnotationKeys, v1alpha1.KeysNew)
	case named == "" && found != nil && len(tenant.Spec.ExternalIDs) == 0 && !found.doc.Named:
		return nil, keyapi.Refuse(v1alpha1.ReasonKeysChoice, "a deleted Tenant of this name and these namespaces left keys, and without spec.externalIDs nothing says that it is the same customer: "+
			"set the annotation %s to %s to have them back, or to %s for new ones", v1alpha1.AnnotationKeys, found.doc.Seal[0].KID, v1alpha1.KeysNew)
	}
	return found, nil
}

// sameAs finds the keys that the last Tenant left which was the same in everything that Binding covers; where one is
// named, those among which it is.
func (s *Store) sameAs(ctx context.Context, tenant *v1alpha1.Tenant, named string) (*Waiting, error) {
	var found *Waiting
	binding := bindingOf(s.Realm, tenant)
	err := s.EachKeySecret(ctx, client.MatchingLabels{v1alpha1.LabelTenant: tenant.Name}, func(secret *corev1.Secret) error {
		if !strings.HasPrefix(secret.Name, pendingPrefix) {
			return nil
		}
		var doc pendingDoc
		if _, err := OpenKEKDocument(secret, FormatPending, s.KEKs(), &doc); err != nil {
			return s.refuseDocument(err, "")
		}
		if doc.Realm != s.Realm || doc.Tenant != tenant.Name || doc.Binding != binding || !s.Clock.Now().Before(doc.Until) ||
			len(doc.Seal) == 0 || (named != "" && !doc.holds(named)) {
			return nil
		}
		if found == nil || found.doc.Deleted.Before(doc.Deleted) {
			found = &Waiting{secret.DeepCopy(), doc}
		}
		return nil
	})
	return found, err
}

// revive makes a tenant's document out of keys that wait: a new tenant's key, the private keys that its credentials
// in Git were sealed to, and its user ids. What it remembers of versions is written first.
func (s *Store) revive(ctx context.Context, tenant *v1alpha1.Tenant, w *Waiting) (*corev1.Secret, error) {
	doc := TenantDoc{Realm: s.Realm, Tenant: tenant.Name, UID: string(tenant.UID), Binding: bindingOf(s.Realm, tenant), UIDRange: w.doc.UIDRange}
	ids := []string{doc.Realm, doc.Tenant, doc.UID}
	key, entry, err := s.NewKeyUnder(s.KEKs(), sealing.PurposeTenant, ids...)
	if err != nil {
		return nil, err
	}
	entry.State, entry.Since = StateActive, s.Now()
	doc.Keys = []KeyDoc{entry}
	for _, d := range w.doc.Seal {
		if d.Key, err = s.rewrapSeal(s.KEKs(), sealing.PurposePending, w.doc.ids(), sealing.Ring{key}, sealing.PurposeSeal, ids, d); err != nil {
			return nil, s.refuseDocument(altered(w.secret, "a key that waits does not open"), "")
		}
		doc.Seal = append(doc.Seal, d)
	}
	if doc.UIDRange.Size == 0 {
		if doc.UIDRange, err = s.AllocateUIDs(ctx); err != nil {
			return nil, err
		}
	}
	if err := s.RememberVersions(ctx, doc.Tenant, doc.UID, w.doc.Versions); err != nil {
		return nil, err
	}
	s.Log.Info("The keys of a Tenant that was deleted are its keys again", "tenant", doc.Tenant, "uid", doc.UID, "earlier", w.doc.UID)
	return NewDocument(s.KeysNamespace, TenantSecretName(tenant.Name), tenant.Name, FormatTenant, 1, sealing.Ring{key}, doc)
}

// WasDestroyed says whether the data key of this very object was destroyed with its Tenant, which lives again: then,
// and only then, an object that had one gets another.
func (s *Store) WasDestroyed(ctx context.Context, uid string, tenant *TenantKeys) (bool, error) {
	_, doc, err := s.Versions(ctx, tenant.Doc.UID)
	return slices.ContainsFunc(doc.Entries, func(e VersionEntry) bool { return e.UID == uid }), err
}

// GraceOf finds the keys whose grace is over, and those that are a live Tenant's again, and counts the others.
func (s *Store) GraceOf(ctx context.Context) (count int, ended []Waiting, err error) {
	err = s.EachKeySecret(ctx, client.MatchingLabels{v1alpha1.LabelComponent: componentPending}, func(secret *corev1.Secret) error {
		var doc pendingDoc
		if _, err := OpenKEKDocument(secret, FormatPending, s.KEKs(), &doc); err != nil {
			s.Log.Warn("Keys that wait for their destruction cannot be read", "secret", secret.Name, "cause", err)
			count++
			return nil
		}
		over := !s.Clock.Now().Before(doc.Until)
		if !over {
			revived, err := s.isRevived(ctx, doc)
			if err != nil {
				return err
			}
			if !revived {
				count++
				return nil
			}
		}
		ended = append(ended, Waiting{secret: secret.DeepCopy(), doc: doc})
		return nil
	})
	return count, ended, err
}

// EndGrace destroys what GraceOf has found.
func (s *Store) EndGrace(ctx context.Context, ended []Waiting) error {
	for _, w := range ended {
		if err := s.DeleteExactly(ctx, w.secret); err != nil {
			return err
		}
		s.Log.Info("Destroyed what waited of a Tenant's keys", "tenant", w.doc.Tenant, "uid", w.doc.UID, "graceOver", !s.Clock.Now().Before(w.doc.Until))
	}
	return nil
}

// isRevived says whether keys that wait are in the document of a tenant.
func (s *Store) isRevived(ctx context.Context, doc pendingDoc) (bool, error) {
	var secret corev1.Secret
	err := s.Client.Get(ctx, client.ObjectKey{Namespace: s.KeysNamespace, Name: TenantSecretName(doc.Tenant)}, &secret)
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	keys, err := OpenTenantDocument(&secret, s.KEKs())
	if err != nil || keys.Doc.UID == doc.UID {
		return false, nil //nolint:nilerr // what cannot be read has taken nothing over
	}
	for _, d := range doc.Seal {
		if _, ok := keys.Seal[d.KID]; !ok {
			return false, nil
		}
	}
	return true, nil
}
