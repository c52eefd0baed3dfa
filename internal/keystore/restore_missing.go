package keystore

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/lethe-dev/lethe/internal/sealing"
)

// names refuses a name of a Tenant that the backup does not have.
func (b Backup) names(tenants []string) error {
	items, err := b.List()
	if err != nil {
		return err
	}
	for _, name := range tenants {
		if !slices.ContainsFunc(items, func(i BackupItem) bool { return i.Tenant == name && (i.Kind == "Tenant" || i.Kind == "Pending") }) {
			return fmt.Errorf("the backup holds no keys of a Tenant %q: `kubectl lethe keys verify` lists what it holds", name)
		}
	}
	return nil
}

// missingTenant lets the sealing keys of a Tenant that does not exist wait for one that is made like it, if it was
// named. It may have been deleted on purpose: its key and its objects' data keys stay gone, and what they opened is
// gone too.
func (r *restoring) missingTenant(name string, doc TenantDoc) error {
	if _, exists := r.existing[name]; exists {
		r.out.Kept = append(r.out.Kept, name)
		return nil
	}
	if !r.AllTenants && !slices.Contains(r.Tenants, doc.Tenant) {
		r.out.Skipped = append(r.out.Skipped, fmt.Sprintf(
			"Tenant %s does not exist: name it with --tenant %s, or use --all-tenants where the whole cluster was lost", doc.Tenant, doc.Tenant))
		return nil
	}
	if r.waits(PendingSecretName(doc.UID)) {
		return nil
	}
	keys, ok := r.tenants[doc.UID]
	if !ok {
		return errors.New("the tenant's key is not open")
	}
	now := r.Now.UTC().Truncate(time.Second)
	waiting := pendingDoc{Realm: doc.Realm, Tenant: doc.Tenant, UID: doc.UID, Binding: doc.Binding, Deleted: now, Until: now.Add(Grace), UIDRange: doc.UIDRange}
	for _, d := range doc.Seal {
		kid, seed, err := keys.Keys.UnwrapBytes(d.Key, sealing.PurposeSeal, keys.IDs()...)
		if err != nil {
			return err
		}
		d.Key, err = r.KEK.WrapBytes(r.random, kid, seed, sealing.PurposePending, waiting.ids()...)
		clear(seed)
		if err != nil {
			return err
		}
		waiting.Seal = append(waiting.Seal, d)
	}
	var err error
	if waiting.Versions, err = r.versionsOf(keys); err != nil {
		return err
	}
	return r.wait(waiting, 1)
}

// waits says whether keys wait in the cluster already. Then nothing is lengthened.
func (r *restoring) waits(name string) bool {
	_, exists := r.existing[name]
	if exists {
		r.out.Kept = append(r.out.Kept, name)
	}
	return exists
}

func (r *restoring) wait(doc pendingDoc, generation int64) error {
	doc.Named = true
	r.blocks[doc.Tenant] = doc.UIDRange
	r.out.Waiting = append(r.out.Waiting, fmt.Sprintf("the keys of Tenant %s are its again when it is made before %s with the same namespaces and external identifiers, by who may adopt it",
		doc.Tenant, doc.Until.Format("2006-01-02 15:04 MST")))
	return r.put(PendingSecretName(doc.UID), doc.Tenant, FormatPending, generation, r.KEK, doc)
}

// versionsOf is how far the versions of a tenant in the backup got, of objects that lived then and of those that were
// gone.
func (r *restoring) versionsOf(tenant *TenantKeys) ([]VersionEntry, error) {
	var out []VersionEntry
	for _, s := range r.backup.Secrets {
		if s.format() != FormatVersions {
			continue
		}
		var doc VersionsDoc
		if _, err := s.as(FormatVersions, &doc); err != nil {
			return nil, err
		}
		if doc.TenantUID == tenant.Doc.UID {
			out = mergeVersions(out, doc.Entries)
		}
	}
	for _, s := range r.backup.Secrets {
		if s.format() != FormatObject {
			continue
		}
		var doc ObjectDoc
		if _, err := s.as(FormatObject, &doc); err != nil {
			return nil, err
		}
		if doc.TenantUID == tenant.Doc.UID {
			out = mergeVersions(out, EntriesOf(doc))
		}
	}
	return out, nil
}

// pending brings back keys that waited for their destruction when the backup was made. Their Tenant was deleted on
// purpose, so that --all-tenants does not mean it.
func (r *restoring) pending(s BackupSecret) error {
	var doc pendingDoc
	e, err := s.as(FormatPending, &doc)
	if err != nil {
		return err
	}
	_, lives := r.live.Tenants[doc.Tenant]
	switch {
	case r.waits(s.Name):
		return nil
	case lives || slices.ContainsFunc(r.backup.Secrets, func(o BackupSecret) bool { return o.Name == TenantSecretName(doc.Tenant) }):
		r.out.Skipped = append(r.out.Skipped, fmt.Sprintf("%s: keys of an earlier Tenant %s, which was deleted", s.Name, doc.Tenant))
		return nil
	case !slices.Contains(r.Tenants, doc.Tenant):
		r.out.Skipped = append(r.out.Skipped, fmt.Sprintf("Tenant %s had been deleted when the backup was made: if you want its keys back all the same, name it with --tenant %s",
			doc.Tenant, doc.Tenant))
		return nil
	}
	doc.Until = r.Now.UTC().Truncate(time.Second).Add(Grace)
	return r.wait(doc, e.Generation+1)
}

// usesOf lists what new keys of a Tenant, which the backup's would replace, are in use for: values that were sealed
// to them, and data keys under them that the backup has nothing for.
func (r *restoring) usesOf(there *corev1.Secret, now, backup TenantDoc) ([]string, error) {
	keys, err := OpenTenantDocument(there, r.KEK)
	if err != nil {
		return nil, err
	}
	var used []string
	for _, o := range r.live.Objects {
		if slices.ContainsFunc(o.SealedTo, func(kid string) bool { return hasSealKey(now, kid) && !hasSealKey(backup, kid) }) {
			used = append(used, fmt.Sprintf("%s %s/%s is sealed to them", o.Kind, o.Namespace, o.Name))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(r.existing)) {
		object, err := OpenObjectDocument(r.existing[name], keys)
		if err != nil {
			continue // not under these keys
		}
		doc := object.Doc
		stored := false
		for _, c := range doc.Credentials {
			stored = stored || c.Version > 0
		}
		switch {
		case stored:
			used = append(used, fmt.Sprintf("a sealed value of %s %s/%s is stored under them", doc.Kind, doc.Namespace, doc.Name))
		case !r.replaces(doc, backup):
			used = append(used, fmt.Sprintf("%s %s/%s has a data key under them and none in the backup", doc.Kind, doc.Namespace, doc.Name))
		}
	}
	return used, nil
}

func hasSealKey(doc TenantDoc, kid string) bool {
	return slices.ContainsFunc(doc.Seal, func(d SealDoc) bool { return d.KID == kid })
}

// replaces says whether the backup has a data key for the object of a document, which lives.
func (r *restoring) replaces(now ObjectDoc, tenant TenantDoc) bool {
	if live, ok := r.objectNow(now); !ok || live.UID != now.UID {
		return false
	}
	return slices.ContainsFunc(r.backup.Secrets, func(s BackupSecret) bool {
		var doc ObjectDoc
		_, err := s.as(FormatObject, &doc)
		return err == nil && doc.TenantUID == tenant.UID && doc.Kind == now.Kind && doc.Namespace == now.Namespace && doc.Name == now.Name
	})
}

// inUse refuses to replace keys that would be missed.
func (r *restoring) inUse(tenant string, used []string, err error) error {
	if err != nil {
		return r.problem("%s", err)
	}
	return r.problem("the new keys of Tenant %s are in use (%s): the backup's cannot take their place; take these values or objects away, or go on with the new keys and seal the others again",
		tenant, strings.Join(used, "; "))
}

// versions takes what a tenant that lives remembers of objects that are gone.
func (r *restoring) versions(s BackupSecret) error {
	var doc VersionsDoc
	if _, err := s.as(FormatVersions, &doc); err != nil {
		return err
	}
	live, lives := r.live.Tenants[doc.Tenant]
	_, exists := r.existing[s.Name]
	switch {
	case !lives, live.UID != doc.TenantUID && !r.Adopt:
		return nil // it waits with the Tenant's keys, or the Tenant's own document is a problem already
	case len(r.KEK) > 0:
		r.remembered[doc.Tenant] = mergeVersions(doc.Entries, r.remembered[doc.Tenant])
		return nil
	case exists:
		r.out.Kept = append(r.out.Kept, s.Name)
		return nil
	}
	return r.create(s)
}

// rememberObject keeps how far the versions of an object got that is gone, or was made again.
func (r *restoring) rememberObject(s BackupSecret, doc ObjectDoc) error {
	if len(r.KEK) == 0 || (r.live.Tenants[doc.Tenant].UID != doc.TenantUID && !r.Adopt) {
		return nil
	}
	keys, err := r.openObject(s, doc)
	if err != nil {
		return err
	}
	r.remembered[doc.Tenant] = mergeVersions(r.remembered[doc.Tenant], EntriesOf(keys.Doc))
	return nil
}

// remember writes the versions that were found, behind what the cluster remembers already: no version goes back.
func (r *restoring) remember() error {
	for _, tenant := range slices.Sorted(maps.Keys(r.remembered)) {
		uid, generation := r.live.Tenants[tenant].UID, int64(1)
		doc := VersionsDoc{Realm: r.backup.Realm, Tenant: tenant, TenantUID: uid, Entries: r.remembered[tenant]}
		name := VersionsSecretName(uid)
		if there, ok := r.existing[name]; ok {
			var now VersionsDoc
			written, err := OpenKEKDocument(there, FormatVersions, r.KEK, &now)
			if err != nil {
				return r.problem("%s", err)
			}
			doc.Entries = mergeVersions(doc.Entries, now.Entries)
			if sameVersions(doc.Entries, now.Entries) {
				r.out.Kept = append(r.out.Kept, name)
				continue
			}
			generation = written + 1
		}
		if len(doc.Entries) == 0 {
			continue
		}
		if err := r.put(name, tenant, FormatVersions, generation, r.KEK, doc); err != nil {
			return err
		}
	}
	return nil
}

// sharedUIDs refuses to bring back a tenant whose user ids are by now another's, one that keeps them.
func (r *restoring) sharedUIDs() {
	for _, name := range slices.Sorted(maps.Keys(r.existing)) {
		var other TenantDoc
		if !strings.HasPrefix(name, tenantPrefix) {
			continue
		}
		if _, err := ReadDocument(r.existing[name], FormatTenant, &other); err != nil {
			continue
		}
		if _, moves := r.blocks[other.Tenant]; moves {
			continue
		}
		for _, tenant := range slices.Sorted(maps.Keys(r.blocks)) {
			if block := r.blocks[tenant]; block.overlaps(other.UIDRange) {
				r.out.Problems = append(r.out.Problems, fmt.Sprintf(
					"the user ids of Tenant %s in the backup (from %d on) are Tenant %s's by now: its volumes would be readable for both; delete Tenant %s, restore, and make it anew",
					tenant, block.First, other.Tenant, other.Tenant))
			}
		}
	}
}
