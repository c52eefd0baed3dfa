package keystore

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/lethe-dev/lethe/internal/keyapi"
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
	// SealingKeys are the names of those in its status.
	SealingKeys []string
}

// LiveObject is a BotDeployment or a DataStore, and how often its status says that its document was written.
type LiveObject struct {
	keyapi.ObjectRef
	Generation int64
	// SealedTo are the names of the keys that the values in its spec are sealed to.
	SealedTo []string
}

// RestoreOptions say how keys are restored.
type RestoreOptions struct {
	// KEK is needed to adopt, and to make a copy that is older than what the live objects know of the newest one again.
	KEK sealing.Ring
	// Adopt binds the keys of Tenants and objects that were made again under their names, and so have other UIDs, to
	// them, in the place of new keys that nothing was sealed to.
	Adopt bool
	// Tenants that do not exist and whose sealing keys wait again for one that is made like them, as after a deletion.
	Tenants []string
	// AllTenants names every Tenant that lived when the backup was made.
	AllTenants bool
	// Now is when the waiting begins.
	Now time.Time
}

// Restoration is what a restore would do. Nothing is written where Problems says anything.
type Restoration struct {
	// Create these Secrets; one that exists by then is a reason to stop.
	Create []*corev1.Secret
	// Replace these by their present resourceVersion, after those of Create: keys of an earlier Tenant, keys that
	// nothing was sealed to, and what is behind the backup. Only with a key-encryption key.
	Replace []*corev1.Secret
	// Statuses name other keys than the Tenants will have, and are set after the Secrets. Only when adopting.
	Statuses []TenantStatus
	// Waiting says which Tenants, when they are made again, will have their keys.
	Waiting []string
	// Kept are names of Secrets that are there already and stay as they are.
	Kept []string
	// Skipped are keys of Tenants and objects that do not exist, with the reason.
	Skipped []string
	// Older are names of Secrets that are older than what was in use before, with what that means.
	Older []string
	// Problems, each with its remedy.
	Problems []string
}

// TenantStatus is what a Tenant's status has to say of its keys.
type TenantStatus struct {
	Name, UID   string
	Generation  int64
	SealingKeys []keyapi.SealingKey
	UIDRange    keyapi.UIDRange
}

// Restore says what has to be written to bring a backup back into a namespace that is empty or holds the same keys. It
// writes nothing itself.
func (b Backup) Restore(namespace string, live Live, o RestoreOptions, random io.Reader) (Restoration, error) {
	r := &restoring{backup: b, namespace: namespace, live: live, RestoreOptions: o, random: random, existing: map[string]*corev1.Secret{},
		present: map[string]*TenantKeys{}, blocks: map[string]UIDRangeDoc{}, remembered: map[string][]VersionEntry{}}
	for i := range live.Secrets {
		r.existing[live.Secrets[i].Name] = &live.Secrets[i]
	}
	if (o.Adopt || o.AllTenants || len(o.Tenants) > 0) && len(o.KEK) == 0 {
		return Restoration{}, errors.New("to adopt, and to bring back keys of Tenants that do not exist, the key-encryption key is needed")
	}
	if err := b.names(o.Tenants); err != nil {
		return Restoration{}, err
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
	// Tenants first, whose keys the others are under: also in the order of writing, for who has to run it again.
	for _, tenants := range []bool{true, false} {
		for _, s := range b.Secrets {
			if (s.format() == FormatTenant) != tenants {
				continue
			}
			if err := r.one(s); err != nil {
				return Restoration{}, err
			}
		}
	}
	if err := r.remember(); err != nil {
		return Restoration{}, err
	}
	r.sharedUIDs()
	return r.out, nil
}

type restoring struct {
	RestoreOptions
	backup     Backup
	namespace  string
	live       Live
	random     io.Reader
	existing   map[string]*corev1.Secret
	tenants    map[string]*TenantKeys    // opened, by the UID in the backup; only with a key-encryption key
	present    map[string]*TenantKeys    // that Tenants will have after the restore, by name; only with a key-encryption key
	blocks     map[string]UIDRangeDoc    // of user ids that Tenants get, by name
	remembered map[string][]VersionEntry // of Tenants that live, by name; only with a key-encryption key
	out        Restoration
}

// problem keeps a reason not to write anything, and goes on: all of them are told at once.
func (r *restoring) problem(format string, args ...any) error {
	r.out.Problems = append(r.out.Problems, fmt.Sprintf(format, args...))
	return nil
}

// sameKEK refuses to mix keys under two key-encryption keys, or of two realms.
func (r *restoring) sameKEK() error {
	secret, ok := r.existing[CanaryName]
	if !ok {
		return nil
	}
	var doc CanaryDoc
	if _, err := ReadDocument(secret, FormatCanary, &doc); err != nil {
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
	case FormatTenant:
		return r.tenant(s)
	case FormatObject:
		return r.object(s)
	case FormatUIDs:
		return r.uids(s)
	case FormatVersions:
		return r.versions(s)
	case FormatPending:
		return r.pending(s)
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
	secret, err := NewDocument(r.namespace, name, tenant, format, generation, keys, document)
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
	var doc TenantDoc
	e, err := s.as(FormatTenant, &doc)
	if err != nil {
		return err
	}
	live, lives := r.live.Tenants[doc.Tenant]
	if !lives {
		return r.missingTenant(s.Name, doc)
	}
	written, replaces := int64(0), false
	if there, exists := r.existing[s.Name]; exists {
		var now TenantDoc
		was, err := ReadDocument(there, FormatTenant, &now)
		if err != nil {
			return r.problem("%s", err)
		}
		if now.UID == live.UID && hasSealKeys(now, doc) {
			r.out.Kept = append(r.out.Kept, s.Name)
			return r.asItIs(there, live, now)
		}
		if !hasSealKeys(doc, now) {
			if !r.Adopt {
				return r.problem("Tenant %s has other keys by now in Secret %s/%s: if nothing was sealed to them, restore with --adopt and --kek-file, which replaces them",
					doc.Tenant, r.namespace, s.Name)
			}
			if used, err := r.usesOf(there, now, doc); err != nil || len(used) > 0 {
				return r.inUse(doc.Tenant, used, err)
			}
		}
		written, replaces = was.Generation, true
	}
	rebind := live.UID != doc.UID
	if rebind && !r.Adopt {
		return r.problem("Tenant %s was made again (UID %s, in the backup %s): restore with --adopt to bind its keys to it", doc.Tenant, live.UID, doc.UID)
	}
	r.blocks[doc.Tenant] = doc.UIDRange
	generation, rewrite := max(e.Generation, max(written, live.Generation)+1), true
	if !replaces {
		generation, rewrite, err = r.newest("Tenant "+doc.Tenant, e.Generation, live.Generation)
		if err != nil || generation == 0 {
			return err
		}
	}
	keys := r.tenants[doc.UID]
	r.present[doc.Tenant] = keys
	if !rebind && !rewrite {
		return r.create(s)
	}
	if keys == nil {
		return r.problem("the keys of an earlier Tenant %s lie in Secret %s/%s: restore with --kek-file, which replaces them", doc.Tenant, r.namespace, s.Name)
	}
	if rebind {
		if keys, err = r.rebindTenant(keys, live.UID); err != nil {
			return err
		}
		r.present[doc.Tenant] = keys
	}
	r.status(live, keys.Doc, generation)
	return r.put(s.Name, doc.Tenant, FormatTenant, generation, keys.Keys, keys.Doc)
}

// asItIs goes by a tenant's keys that are there and stay. A restore that was broken off may not have come to the
// status.
func (r *restoring) asItIs(there *corev1.Secret, live LiveTenant, now TenantDoc) error {
	if len(r.KEK) == 0 {
		return nil
	}
	keys, err := OpenTenantDocument(there, r.KEK)
	if err != nil {
		return r.problem("%s", err)
	}
	r.present[now.Tenant] = keys
	r.status(live, keys.Doc, keys.Generation)
	return nil
}

// status notes a Tenant whose status names a key that it will not have: the keyserver refuses such a Tenant.
func (r *restoring) status(live LiveTenant, doc TenantDoc, generation int64) {
	gone := slices.ContainsFunc(live.SealingKeys, func(kid string) bool {
		return !slices.ContainsFunc(doc.Seal, func(d SealDoc) bool { return d.KID == kid })
	})
	if !r.Adopt || !gone {
		return
	}
	st := TenantStatus{Name: doc.Tenant, UID: live.UID, Generation: generation, UIDRange: keyapi.UIDRange(doc.UIDRange)}
	for _, d := range doc.Seal {
		st.SealingKeys = append(st.SealingKeys, keyapi.SealingKey{KID: d.KID, Suite: d.Suite, Public: d.Public, Realm: doc.Realm, State: d.State})
	}
	r.out.Statuses = append(r.out.Statuses, st)
}

// hasSealKeys says whether a has, or had until a person destroyed it, every sealing key of b: then a is no older than
// b.
func hasSealKeys(a, b TenantDoc) bool {
	return !slices.ContainsFunc(b.Seal, func(want SealDoc) bool {
		return !hasSealKey(a, want.KID) && !slices.ContainsFunc(a.Destroyed, func(d DestroyedDoc) bool { return d.KID == want.KID })
	})
}

// rebindTenant wraps a tenant's keys for its new UID. The keys themselves stay: what was sealed to them opens again.
func (r *restoring) rebindTenant(was *TenantKeys, uid string) (*TenantKeys, error) {
	if was == nil {
		return nil, errors.New("the tenant's key is not open")
	}
	now := &TenantKeys{Doc: was.Doc, Keys: was.Keys}
	now.Doc.UID, now.Doc.Keys, now.Doc.Seal = uid, slices.Clone(was.Doc.Keys), slices.Clone(was.Doc.Seal)
	for i, key := range was.Keys {
		var err error
		if now.Doc.Keys[i].Key, err = r.KEK.Wrap(r.random, key, sealing.PurposeTenant, now.IDs()...); err != nil {
			return nil, err
		}
	}
	for i, k := range was.Doc.Seal {
		kid, seed, err := was.Keys.UnwrapBytes(k.Key, sealing.PurposeSeal, was.IDs()...)
		if err != nil {
			return nil, err
		}
		now.Doc.Seal[i].Key, err = was.Keys.WrapBytes(r.random, kid, seed, sealing.PurposeSeal, now.IDs()...)
		clear(seed)
		if err != nil {
			return nil, err
		}
	}
	return now, nil
}

func (r *restoring) object(s BackupSecret) error {
	var doc ObjectDoc
	e, err := s.as(FormatObject, &doc)
	if err != nil {
		return err
	}
	live, lives := r.live.Tenants[doc.Tenant]
	if !lives {
		return nil // said with its Tenant, and remembered there
	}
	object, there := r.objectNow(doc)
	same := live.UID == doc.TenantUID && object.UID == doc.UID
	switch {
	case same && r.isUnderPresent(s, doc):
		return r.objectAsItIs(s, doc, e.Generation, object.Generation)
	case !there:
		r.out.Skipped = append(r.out.Skipped, fmt.Sprintf("%s: %s %s/%s does not exist", s.Name, doc.Kind, doc.Namespace, doc.Name))
		return r.rememberObject(s, doc)
	case !r.Adopt:
		r.out.Skipped = append(r.out.Skipped, fmt.Sprintf("%s: %s %s/%s was made again; --adopt binds its keys to it", s.Name, doc.Kind, doc.Namespace, doc.Name))
		return r.rememberObject(s, doc)
	}
	return r.adoptObject(s, doc, e.Generation, object)
}

// isUnderPresent says whether an object's document, that of the cluster or of the backup, opens with the keys that its
// Tenant will have, as far as that can be tried.
func (r *restoring) isUnderPresent(s BackupSecret, doc ObjectDoc) bool {
	present := r.present[doc.Tenant]
	if present == nil || !r.Adopt {
		return true
	}
	secret := s.stored()
	if there, ok := r.existing[s.Name]; ok {
		secret = there
	}
	_, err := OpenObjectDocument(secret, present)
	return err == nil
}

// adoptObject binds an object's keys to the object that has its name now.
func (r *restoring) adoptObject(s BackupSecret, doc ObjectDoc, written int64, object LiveObject) error {
	present := r.present[doc.Tenant]
	if present == nil {
		return nil // a problem of its Tenant
	}
	name := ObjectSecretName(object.UID)
	var now ObjectDoc
	if exists, ok := r.existing[name]; ok {
		was, err := ReadDocument(exists, FormatObject, &now)
		if err != nil {
			return r.problem("%s", err)
		}
		if _, err := OpenObjectDocument(exists, present); err == nil {
			r.out.Kept = append(r.out.Kept, name)
			return nil
		}
		written = max(written, was.Generation)
	}
	keys, err := r.openObject(s, doc)
	if err != nil {
		return err
	}
	bound := keys.Doc
	bound.TenantUID, bound.UID, bound.Keys = present.Doc.UID, object.UID, slices.Clone(doc.Keys)
	for i, key := range keys.Keys {
		if bound.Keys[i].Key, err = present.Keys.Wrap(r.random, key, sealing.PurposeData, present.IDs(object.UID)...); err != nil {
			return err
		}
	}
	if bound.Digest.Key, err = present.Keys.Wrap(r.random, keys.Digest, sealing.PurposeDigest, present.IDs(object.UID)...); err != nil {
		return err
	}
	if object.UID != doc.UID {
		// Encrypted Secrets of the earlier object are bound to its UID and open no more. What must not be lost is how
		// far the versions got.
		bound.Sets, bound.Current, bound.Credentials, bound.Secrets, bound.Moving = nil, "", map[string]CredentialDoc{}, nil, nil
		for name, c := range doc.Credentials {
			bound.Credentials[name] = CredentialDoc{Highest: c.Highest, Digest: c.Digest, Unused: c.Unused}
		}
	}
	for _, name := range now.SecretNames() {
		bound.Moving = AppendNew(bound.Moving, name) // opens for nobody any more; the keyserver deletes what no set lies in
	}
	return r.put(name, bound.Tenant, FormatObject, max(written, object.Generation)+1, keys.Keys, bound)
}

// openObject opens an object's keys out of the backup.
func (r *restoring) openObject(s BackupSecret, doc ObjectDoc) (*ObjectKeys, error) {
	tenant, ok := r.tenants[doc.TenantUID]
	if !ok {
		return nil, errors.New("the tenant's key is not open")
	}
	return OpenObjectDocument(s.stored(), tenant)
}

func (r *restoring) objectAsItIs(s BackupSecret, doc ObjectDoc, written, known int64) error {
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
	return r.put(s.Name, doc.Tenant, FormatObject, generation, keys.Keys, keys.Doc)
}

// objectNow is the live object of a document's name.
func (r *restoring) objectNow(doc ObjectDoc) (LiveObject, bool) {
	for _, o := range r.live.Objects {
		if o.Kind == doc.Kind && o.Namespace == doc.Namespace && o.Name == doc.Name {
			return o, true
		}
	}
	return LiveObject{}, false
}
