package keyserver

import (
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
	// Tenants by name.
	Tenants map[string]LiveTenant
	// Objects are the BotDeployments and DataStores.
	Objects []LiveObject
}

// LiveTenant is a Tenant, and how often its status says that its keys were written.
type LiveTenant struct {
	UID        string
	Generation int64
}

// LiveObject is a BotDeployment or a DataStore, and how often its status says that its document was written.
type LiveObject struct {
	protocol.ObjectRef
	Generation int64
}

// RestoreOptions say how keys are restored.
type RestoreOptions struct {
	// KEK is needed to adopt, and to make a copy that is older than what the live objects know of the newest one again.
	KEK sealing.Ring
	// Adopt binds the keys of Tenants and objects that were made again under their names, and so have other UIDs, to them.
	Adopt bool
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
	// Older are names of Secrets that are older than what was in use before, with what that means.
	Older []string
	// Problems, each with its remedy.
	Problems []string
}

// Restore says what has to be written to bring a backup back into a namespace that is empty or holds the same keys. It
// writes nothing itself.
func (b Backup) Restore(namespace string, live Live, o RestoreOptions, random io.Reader) (Restoration, error) {
	r := &restoring{backup: b, namespace: namespace, live: live, RestoreOptions: o, random: random, existing: map[string]*corev1.Secret{}}
	for i := range live.Secrets {
		r.existing[live.Secrets[i].Name] = &live.Secrets[i]
	}
	if o.Adopt && len(o.KEK) == 0 {
		return Restoration{}, errors.New("to adopt, the key-encryption key is needed")
	}
	if len(o.KEK) > 0 {
		if err := b.Verify(o.KEK); err != nil {
			return Restoration{}, err
		}
		var err error
		if r.tenants, err = b.openTenants(o.KEK); err != nil {
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
	RestoreOptions
	backup    Backup
	namespace string
	live      Live
	random    io.Reader
	existing  map[string]*corev1.Secret
	tenants   map[string]*tenantKeys // opened, by the UID in the backup; only with a key-encryption key
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
	if _, err := readDocument(secret, formatCanary, &doc); err != nil {
		return r.problem("%s", err)
	}
	kid, err := sealing.WrappingKID(doc.present().Canary)
	if err != nil || kid != r.backup.KEK || doc.Realm != r.backup.Realm {
		return r.problem("the keys in %s are under key-encryption key %s and realm %s, those of the backup under %s and %s: start the keyserver with those, in an empty namespace",
			r.namespace, kid, doc.Realm, r.backup.KEK, r.backup.Realm)
	}
	return nil
}

func (r *restoring) one(s BackupSecret) error {
	switch s.format() {
	case formatTenant:
		return r.tenant(s)
	case formatObject:
		return r.object(s)
	case formatUIDs:
		return r.uids(s)
	case formatVersions:
		return r.versions(s)
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

// put writes a document that had to be made anew: in the place of one that is there, or where there is none.
func (r *restoring) put(name, tenant, format string, generation int64, keys sealing.Ring, document any) error {
	secret, err := newDocument(r.namespace, name, tenant, format, generation, keys, document)
	if err != nil {
		return err
	}
	if there, ok := r.existing[name]; ok {
		secret.UID, secret.ResourceVersion = there.UID, there.ResourceVersion
		r.out.Replace = append(r.out.Replace, secret)
		return nil
	}
	r.out.Create = append(r.out.Create, secret)
	return nil
}

// newest is the generation of a document that takes the place of everything that was seen before. Without a
// key-encryption key it cannot be written.
func (r *restoring) newest(what string, backup, known int64) (generation int64, rewrite bool, err error) {
	if backup >= known {
		return backup, false, nil
	}
	if len(r.KEK) == 0 {
		return 0, false, r.problem("the copy of the keys of %s is older than what was in use (written %d times, not %d): restore with --kek-file, which makes it the newest; credentials that were stored since have to be sealed again with higher versions",
			what, backup, known)
	}
	r.out.Older = append(r.out.Older, fmt.Sprintf("%s: written %d times, not %d: versions of credentials that were stored since are no longer known", what, backup, known))
	return known + 1, true, nil
}

func (r *restoring) tenant(s BackupSecret) error {
	var doc tenantDoc
	e, err := s.as(formatTenant, &doc)
	if err != nil {
		return err
	}
	live, lives := r.live.Tenants[doc.Tenant]
	rebind := lives && live.UID != doc.UID
	if rebind && !r.Adopt {
		return r.problem("Tenant %s was made again (UID %s, in the backup %s): restore with --adopt to bind its keys to it", doc.Tenant, live.UID, doc.UID)
	}
	if there, exists := r.existing[s.Name]; exists {
		var now tenantDoc
		if _, err := readDocument(there, formatTenant, &now); err != nil {
			return r.problem("%s", err)
		}
		switch {
		case sameSealKeys(now, doc) && now.UID == doc.UID && !rebind, sameSealKeys(now, doc) && now.UID == live.UID:
			r.out.Kept = append(r.out.Kept, s.Name)
			return nil
		case !sameSealKeys(now, doc):
			return r.problem("Tenant %s has other keys by now in Secret %s/%s: if nothing was sealed to them, delete that Secret and restore again", doc.Tenant, r.namespace, s.Name)
		}
	}
	if err := r.sharedUIDs(doc); err != nil {
		return err
	}
	known := int64(0)
	if lives {
		known = live.Generation
	}
	generation, rewrite, err := r.newest("Tenant "+doc.Tenant, e.Generation, known)
	if err != nil || generation == 0 {
		return err
	}
	if !rebind && !rewrite {
		return r.create(s)
	}
	keys := r.tenants[doc.UID]
	if rebind {
		if keys, err = r.rebindTenant(keys, live.UID); err != nil {
			return err
		}
	}
	return r.put(s.Name, doc.Tenant, formatTenant, generation, keys.keys, keys.doc)
}

func sameSealKeys(a, b tenantDoc) bool {
	return slices.EqualFunc(a.Seal, b.Seal, func(x, y sealDoc) bool { return x.KID == y.KID })
}

// rebindTenant wraps a tenant's keys for its new UID. The keys themselves stay: what was sealed to them opens again.
func (r *restoring) rebindTenant(was *tenantKeys, uid string) (*tenantKeys, error) {
	if was == nil {
		return nil, errors.New("the tenant's key is not open")
	}
	now := &tenantKeys{doc: was.doc, keys: was.keys}
	now.doc.UID, now.doc.Keys, now.doc.Seal = uid, slices.Clone(was.doc.Keys), slices.Clone(was.doc.Seal)
	for i, key := range was.keys {
		var err error
		if now.doc.Keys[i].Key, err = r.KEK.Wrap(r.random, key, sealing.PurposeTenant, now.ids()...); err != nil {
			return nil, err
		}
	}
	for i, k := range was.doc.Seal {
		kid, seed, err := was.keys.UnwrapBytes(k.Key, sealing.PurposeSeal, was.ids()...)
		if err != nil {
			return nil, err
		}
		now.doc.Seal[i].Key, err = was.keys.WrapBytes(r.random, kid, seed, sealing.PurposeSeal, now.ids()...)
		clear(seed)
		if err != nil {
			return nil, err
		}
	}
	return now, nil
}

func (r *restoring) object(s BackupSecret) error {
	var doc objectDoc
	e, err := s.as(formatObject, &doc)
	if err != nil {
		return err
	}
	live, lives := r.live.Tenants[doc.Tenant]
	object, there := r.objectNow(doc)
	same := lives && live.UID == doc.TenantUID && object.UID == doc.UID
	switch {
	case !r.Adopt || same:
		if same {
			return r.objectAsItIs(s, doc, e.Generation, object.Generation)
		}
		return r.objectAsItIs(s, doc, e.Generation, 0)
	case !lives || !there:
		r.out.Skipped = append(r.out.Skipped, fmt.Sprintf("%s: %s %s/%s does not exist", s.Name, doc.Kind, doc.Namespace, doc.Name))
		return nil
	}
	name := objectSecretName(object.UID)
	if exists, ok := r.existing[name]; ok {
		var now objectDoc
		if _, err := readDocument(exists, formatObject, &now); err != nil {
			return r.problem("%s", err)
		}
		if now.TenantUID == live.UID {
			r.out.Kept = append(r.out.Kept, name)
			return nil
		}
	}
	keys, err := r.openObject(s, doc)
	if err != nil {
		return err
	}
	bound := keys.doc
	bound.TenantUID, bound.UID, bound.Keys = live.UID, object.UID, slices.Clone(doc.Keys)
	for i, key := range keys.keys {
		if bound.Keys[i].Key, err = r.tenants[doc.TenantUID].keys.Wrap(r.random, key, sealing.PurposeData, bound.Realm, bound.Tenant, live.UID, object.UID); err != nil {
			return err
		}
	}
	if bound.Digest.Key, err = r.tenants[doc.TenantUID].keys.Wrap(r.random, keys.digest, sealing.PurposeDigest, bound.Realm, bound.Tenant, live.UID, object.UID); err != nil {
		return err
	}
	if object.UID != doc.UID {
		// Encrypted Secrets of the earlier object are bound to its UID and open no more. What must not be lost is how far
		// the versions got.
		bound.Sets, bound.Current, bound.Credentials, bound.Secrets, bound.Moving = nil, "", map[string]credentialDoc{}, nil, nil
		for name, c := range doc.Credentials {
			bound.Credentials[name] = credentialDoc{Highest: c.Highest, Digest: c.Digest, Unused: c.Unused}
		}
	}
	return r.put(name, bound.Tenant, formatObject, max(e.Generation, object.Generation)+1, keys.keys, bound)
}

// openObject opens an object's keys out of the backup.
func (r *restoring) openObject(s BackupSecret, doc objectDoc) (*objectKeys, error) {
	tenant, ok := r.tenants[doc.TenantUID]
	if !ok {
		return nil, errors.New("the tenant's key is not open")
	}
	return openObjectDocument(s.stored(), tenant)
}

func (r *restoring) objectAsItIs(s BackupSecret, doc objectDoc, written, known int64) error {
	if _, ok := r.existing[s.Name]; ok {
		// It may know of newer versions than the backup.
		r.out.Kept = append(r.out.Kept, s.Name)
		return nil
	}
	generation, rewrite, err := r.newest(fmt.Sprintf("%s %s/%s", doc.Kind, doc.Namespace, doc.Name), written, known)
	if err != nil || generation == 0 {
		return err
	}
	if !rewrite {
		return r.create(s)
	}
	keys, err := r.openObject(s, doc)
	if err != nil {
		return err
	}
	return r.put(s.Name, doc.Tenant, formatObject, generation, keys.keys, keys.doc)
}

// objectNow is the live object of a document's name.
func (r *restoring) objectNow(doc objectDoc) (LiveObject, bool) {
	for _, o := range r.live.Objects {
		if o.Kind == doc.Kind && o.Namespace == doc.Namespace && o.Name == doc.Name {
			return o, true
		}
	}
	return LiveObject{}, false
}

// versions brings back what a tenant remembers of objects that are gone, for its present UID.
func (r *restoring) versions(s BackupSecret) error {
	var doc versionsDoc
	e, err := s.as(formatVersions, &doc)
	if err != nil {
		return err
	}
	live, lives := r.live.Tenants[doc.Tenant]
	name := s.Name
	if lives && live.UID != doc.TenantUID {
		name = versionsSecretName(live.UID)
	}
	switch _, exists := r.existing[name]; {
	case exists:
		r.out.Kept = append(r.out.Kept, name)
		return nil
	case name == s.Name:
		return r.create(s)
	case !r.Adopt:
		return nil // the Tenant's own document is a problem already
	}
	doc.TenantUID = live.UID
	return r.put(name, doc.Tenant, formatVersions, e.Generation, r.KEK, doc)
}
