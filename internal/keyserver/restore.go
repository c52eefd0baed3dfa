package keyserver

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/lethe-dev/lethe/internal/protocol"
	"github.com/lethe-dev/lethe/internal/sealing"
)

// Live is what there is in the cluster that keys are restored into.
type Live struct {
	// Secrets of the keys' namespace.
	Secrets []corev1.Secret
	// Tenants by name: their UIDs.
	Tenants map[string]string
	// Objects are the BotDeployments and DataStores. Only needed to adopt.
	Objects []protocol.ObjectRef
}

// Restoration is what a restore would do. Nothing is written where Problems says anything.
type Restoration struct {
	// Create these Secrets; one that exists by then is a reason to stop.
	Create []*corev1.Secret
	// Replace these, which hold the keys of an earlier Tenant, by their present resourceVersion. Only when adopting.
	Replace []*corev1.Secret
	// Kept are names of Secrets that are there already and stay as they are.
	Kept []string
	// Skipped are names of Secrets of objects that no longer exist, with the reason.
	Skipped []string
	// Problems, each with its remedy.
	Problems []string
}

// Restore says what has to be written to bring a backup back into a namespace that is empty or holds the same keys. With a
// key-encryption key, adopt binds the keys of Tenants and objects that were made again under their names, and so have
// other UIDs, to the new ones. It writes nothing itself.
func (b Backup) Restore(namespace string, live Live, adopt *sealing.Key, random io.Reader) (Restoration, error) {
	r := &restoring{backup: b, namespace: namespace, live: live, adopt: adopt, random: random, existing: map[string]*corev1.Secret{}}
	for i := range live.Secrets {
		r.existing[live.Secrets[i].Name] = &live.Secrets[i]
	}
	if adopt != nil {
		if err := b.Verify(*adopt); err != nil {
			return Restoration{}, err
		}
		var err error
		if r.tenants, err = b.openTenants(*adopt); err != nil {
			return Restoration{}, err
		}
	}
	if err := r.sameKEK(); err != nil {
		return Restoration{}, err
	}
	for _, s := range b.Secrets {
		if err := r.one(s); err != nil {
			return Restoration{}, err
		}
	}
	return r.out, nil
}

type restoring struct {
	backup    Backup
	namespace string
	live      Live
	adopt     *sealing.Key
	random    io.Reader
	existing  map[string]*corev1.Secret
	tenants   map[string]sealing.Key // opened, by the UID in the backup; only when adopting
	out       Restoration
}

// problem keeps a reason not to write anything, and goes on: all of them are told at once.
func (r *restoring) problem(format string, args ...any) error {
	r.out.Problems = append(r.out.Problems, fmt.Sprintf(format, args...))
	return nil
}

// sameKEK refuses to mix keys under two key-encryption keys, or of two realms.
func (r *restoring) sameKEK() error {
	secret, ok := r.existing[canaryName]
	if !ok {
		return nil
	}
	var doc canaryDoc
	if err := readDocument(secret, formatCanary, &doc); err != nil {
		return r.problem("%s", err)
	}
	kid, err := sealing.WrappingKID(doc.Canary)
	if err != nil || kid != r.backup.KEK || doc.Realm != r.backup.Realm {
		return r.problem("the keys in %s are under key-encryption key %s and realm %s, those of the backup under %s and %s: start the keyserver with those, in an empty namespace",
			r.namespace, kid, doc.Realm, r.backup.KEK, r.backup.Realm)
	}
	return nil
}

func (r *restoring) one(s BackupSecret) error {
	var tenant tenantDoc
	var object objectDoc
	switch {
	case s.as(formatTenant, &tenant) == nil:
		return r.tenant(s, tenant)
	case s.as(formatObject, &object) == nil:
		return r.object(s, object)
	}
	// The canary, whose key was compared, and the certificate authority: one that is there is in use.
	if _, ok := r.existing[s.Name]; ok {
		r.out.Kept = append(r.out.Kept, s.Name)
		return nil
	}
	return r.create(s)
}

func (r *restoring) create(s BackupSecret) error {
	secret, err := s.secret(r.namespace)
	if err != nil {
		return err
	}
	r.out.Create = append(r.out.Create, secret)
	return nil
}

func (r *restoring) tenant(s BackupSecret, doc tenantDoc) error {
	uid, lives := r.live.Tenants[doc.Tenant]
	rebind := lives && uid != doc.UID
	if rebind && r.adopt == nil {
		return r.problem("Tenant %s was made again (UID %s, in the backup %s): restore with --adopt to bind its keys to it", doc.Tenant, uid, doc.UID)
	}
	there, exists := r.existing[s.Name]
	if exists {
		var now tenantDoc
		if err := readDocument(there, formatTenant, &now); err != nil {
			return r.problem("%s", err)
		}
		switch {
		case sameSealKeys(now, doc) && now.UID == doc.UID && !rebind, sameSealKeys(now, doc) && now.UID == uid:
			r.out.Kept = append(r.out.Kept, s.Name)
			return nil
		case !sameSealKeys(now, doc):
			return r.problem("Tenant %s has other keys by now in Secret %s/%s: if nothing was sealed to them, delete that Secret and restore again", doc.Tenant, r.namespace, s.Name)
		}
	}
	if !rebind {
		return r.create(s)
	}
	bound, err := r.rebindTenant(doc, uid)
	if err != nil {
		return err
	}
	secret, err := newKeySecret(r.namespace, s.Name, doc.Tenant, bound)
	if err != nil {
		return err
	}
	if exists {
		secret.UID, secret.ResourceVersion = there.UID, there.ResourceVersion
		r.out.Replace = append(r.out.Replace, secret)
		return nil
	}
	r.out.Create = append(r.out.Create, secret)
	return nil
}

func sameSealKeys(a, b tenantDoc) bool {
	return slices.EqualFunc(a.Seal, b.Seal, func(x, y sealDoc) bool { return x.KID == y.KID })
}

// rebindTenant wraps a tenant's keys for its new UID. The keys themselves stay: what was sealed to them opens again.
func (r *restoring) rebindTenant(doc tenantDoc, uid string) (tenantDoc, error) {
	key, ok := r.tenants[doc.UID]
	if !ok {
		return doc, errors.New("the tenant's key is not open")
	}
	out := tenantDoc{Format: doc.Format, Realm: doc.Realm, Tenant: doc.Tenant, UID: uid}
	var err error
	if out.Key, err = r.adopt.Wrap(r.random, key, sealing.PurposeTenant, doc.Realm, doc.Tenant, uid); err != nil {
		return doc, err
	}
	for _, k := range doc.Seal {
		kid, seed, err := key.UnwrapBytes(k.Key, sealing.PurposeSeal, doc.Realm, doc.Tenant, doc.UID)
		if err != nil {
			return doc, err
		}
		k.Key, err = key.WrapBytes(r.random, kid, seed, sealing.PurposeSeal, doc.Realm, doc.Tenant, uid)
		clear(seed)
		if err != nil {
			return doc, err
		}
		out.Seal = append(out.Seal, k)
	}
	return out, nil
}

func (r *restoring) object(s BackupSecret, doc objectDoc) error {
	tenantUID, lives := r.live.Tenants[doc.Tenant]
	uid := r.uidOf(doc)
	if r.adopt == nil || (lives && tenantUID == doc.TenantUID && uid == doc.UID) {
		return r.objectAsItIs(s)
	}
	if !lives || uid == "" {
		r.out.Skipped = append(r.out.Skipped, fmt.Sprintf("%s: %s %s/%s does not exist", s.Name, doc.Kind, doc.Namespace, doc.Name))
		return nil
	}
	name := objectSecretName(uid)
	there, exists := r.existing[name]
	if exists {
		var now objectDoc
		if err := readDocument(there, formatObject, &now); err != nil {
			return r.problem("%s", err)
		}
		if now.TenantUID == tenantUID {
			r.out.Kept = append(r.out.Kept, name)
			return nil
		}
	}
	key, err := r.tenants[doc.TenantUID].Unwrap(doc.Key, sealing.PurposeData, doc.Realm, doc.Tenant, doc.TenantUID, doc.UID)
	if err != nil {
		return err
	}
	bound := doc
	bound.TenantUID, bound.UID = tenantUID, uid
	if bound.Key, err = r.tenants[doc.TenantUID].Wrap(r.random, key, sealing.PurposeData, doc.Realm, doc.Tenant, tenantUID, uid); err != nil {
		return err
	}
	if uid != doc.UID {
		// Encrypted Secrets of the earlier object are bound to its UID and open no more. What must not be lost is how far
		// the versions got.
		bound.Sets, bound.Current, bound.Credentials = nil, "", map[string]credentialDoc{}
		for name, c := range doc.Credentials {
			bound.Credentials[name] = credentialDoc{Highest: c.Highest}
		}
	}
	b, err := json.Marshal(bound)
	if err != nil {
		return fmt.Errorf("encode %s: %w", name, err)
	}
	secret, err := BackupSecret{Name: name, Document: b}.secret(r.namespace)
	if err != nil {
		return err
	}
	if exists {
		secret.UID, secret.ResourceVersion = there.UID, there.ResourceVersion
		r.out.Replace = append(r.out.Replace, secret)
		return nil
	}
	r.out.Create = append(r.out.Create, secret)
	return nil
}

func (r *restoring) objectAsItIs(s BackupSecret) error {
	if _, ok := r.existing[s.Name]; ok {
		// It may know of newer versions than the backup.
		r.out.Kept = append(r.out.Kept, s.Name)
		return nil
	}
	return r.create(s)
}

func (r *restoring) uidOf(doc objectDoc) string {
	for _, o := range r.live.Objects {
		if o.Kind == doc.Kind && o.Namespace == doc.Namespace && o.Name == doc.Name {
			return o.UID
		}
	}
	return ""
}
