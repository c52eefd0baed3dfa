package keyserver

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keystore"
	"github.com/lethe-dev/lethe/internal/kube"
	"github.com/lethe-dev/lethe/internal/sealing"
)

// Bounds of what a tenant's document and its Tenant's status hold.
const (
	maxSealKeys   = 16
	maxTenantKeys = 4
	maxDestroyed  = 32
)

// tenantDocument brings one tenant's document up to date: its key under the KEK that wraps, its sealing key and its
// own key no older than asked for, what is under its own key under the first, retired sealing keys ended that
// somebody wants ended. All of it is one write.
func (p *pass) tenantDocument(ctx context.Context, secret *corev1.Secret) error {
	var doc keystore.TenantDoc
	e, err := keystore.ReadDocument(secret, keystore.FormatTenant, &doc)
	if err != nil {
		return err
	}
	keys := &keystore.TenantKeys{Secret: secret, Generation: e.Generation, Doc: doc}
	if p.tenantWants(doc) {
		if keys, err = keystore.OpenTenantDocument(secret, p.keys.KEKs()); err != nil {
			p.noteTenant(doc)
			return err
		}
		if err := p.isPresent(ctx, keys); err != nil {
			p.noteTenant(doc)
			return err
		}
		if keys, err = p.rewriteTenant(ctx, keys); err != nil {
			p.noteTenant(doc)
			return err
		}
	}
	p.noteTenant(keys.Doc)
	return p.publishRotated(ctx, keys)
}

// isPresent refuses to go on from a document that is not what the live Tenant says was there: a write on an earlier
// copy would make it look like the newest.
func (p *pass) isPresent(ctx context.Context, keys *keystore.TenantKeys) error {
	var tenant v1alpha1.Tenant
	err := p.Client.Get(ctx, client.ObjectKey{Name: keys.Doc.Tenant}, &tenant)
	switch {
	case kube.IsMissing(err, keys.Doc.Tenant), err == nil && string(tenant.UID) != keys.Doc.UID:
		return nil // nothing is known of it
	case err != nil:
		return fmt.Errorf("ask for Tenant %s: %w", keys.Doc.Tenant, err)
	case keys.Generation < tenant.Status.KeysGeneration:
		return p.unlessWritten(ctx, keys.Secret, keystore.RolledBack(keys.Secret, keys.Generation, tenant.Status.KeysGeneration))
	case differs(&tenant, heldBy(keys.Doc, keys.Generation)):
		return p.unlessWritten(ctx, keys.Secret, p.keys.KeyMissing(&tenant))
	}
	return nil
}

// unlessWritten is what was found wrong with a document, unless another replica has written it since it was listed.
func (p *pass) unlessWritten(ctx context.Context, listed *corev1.Secret, found error) error {
	var now corev1.Secret
	err := p.Client.Get(ctx, client.ObjectKeyFromObject(listed), &now)
	if err == nil && now.ResourceVersion == listed.ResourceVersion {
		return found
	}
	if err == nil {
		return errMeanwhile
	}
	return err
}

// tenantWants says whether anything is to be done, without opening a key.
func (p *pass) tenantWants(doc keystore.TenantDoc) bool {
	kek := p.keys.KEKs().First().KID()
	for _, k := range doc.Keys {
		if parent, err := sealing.WrappingKID(k.Key); err != nil || parent != kek {
			return true
		}
	}
	for _, k := range doc.Seal {
		if parent, err := sealing.WrappingKID(k.Key); err != nil || len(doc.Keys) == 0 || parent != doc.Keys[0].KID {
			return true
		}
		if d, ok := p.request.Destroy[k.KID]; ok && d.Tenant == doc.Tenant {
			return true
		}
	}
	return p.due(keystore.LayerTenant, doc.Tenant, doc.Keys[0].Since) || len(doc.Seal) == 0 || p.due(keystore.LayerSealing, doc.Tenant, doc.Seal[0].Since)
}

// due says whether a key is older than asked for.
func (p *pass) due(layer keystore.Layer, tenant string, since time.Time) bool {
	return since.Before(p.request.Of(layer, tenant))
}

// sinceFor is the time of a new key: never before what was asked for, so that one request makes one key.
func (p *pass) sinceFor(layer keystore.Layer, tenant string) time.Time {
	now := p.keys.Now()
	if asked := p.request.Of(layer, tenant); asked.After(now) {
		return asked.UTC().Truncate(time.Second).Add(time.Second)
	}
	return now
}

func (p *pass) rewriteTenant(ctx context.Context, keys *keystore.TenantKeys) (*keystore.TenantKeys, error) {
	doc, ring := keys.Doc, keys.Keys
	doc.Keys, doc.Seal, doc.Destroyed = slices.Clone(doc.Keys), slices.Clone(doc.Seal), slices.Clone(doc.Destroyed)
	var err error
	if p.due(keystore.LayerTenant, doc.Tenant, doc.Keys[0].Since) && len(doc.Keys) < maxTenantKeys {
		key, entry, err := p.keys.NewKeyUnder(p.keys.KEKs(), sealing.PurposeTenant, keys.IDs()...)
		if err != nil {
			return nil, err
		}
		entry.State, entry.Since = keystore.StateActive, p.sinceFor(keystore.LayerTenant, doc.Tenant)
		doc.Keys[0].State, doc.Keys[0].Since = keystore.StateRetired, p.keys.Now()
		doc.Keys = append([]keystore.KeyDoc{entry}, doc.Keys...)
		ring = append(sealing.Ring{key}, ring...)
	}
	if len(doc.Seal) == 0 || p.due(keystore.LayerSealing, doc.Tenant, doc.Seal[0].Since) {
		if len(doc.Seal) >= maxSealKeys {
			return nil, fmt.Errorf("%w: it has %d sealing keys; destroy retired ones with `kubectl lethe keys destroy sealing-key`", keystore.ErrUnreadable, len(doc.Seal))
		}
		entry, err := p.keys.NewSealKey(ring, keys.IDs()...)
		if err != nil {
			return nil, err
		}
		entry.Since = p.sinceFor(keystore.LayerSealing, doc.Tenant)
		if len(doc.Seal) > 0 {
			doc.Seal[0].State, doc.Seal[0].Since = keystore.StateRetired, p.keys.Now()
		}
		doc.Seal = append([]keystore.SealDoc{entry}, doc.Seal...)
	}
	if doc, err = p.endSealKeys(ctx, doc); err != nil {
		return nil, err
	}
	for i := range doc.Keys {
		if doc.Keys[i].Key, err = p.keys.KEKs().Rewrap(p.Random, doc.Keys[i].Key, sealing.PurposeTenant, keys.IDs()...); err != nil {
			return nil, err
		}
	}
	for i := range doc.Seal {
		if doc.Seal[i].Key, err = ring.Rewrap(p.Random, doc.Seal[i].Key, sealing.PurposeSeal, keys.IDs()...); err != nil {
			return nil, err
		}
	}
	return p.writeTenant(ctx, keys, ring, doc)
}

// writeTenant writes a tenant's document, unless it says the same, and forgets what was remembered of it.
func (p *pass) writeTenant(ctx context.Context, keys *keystore.TenantKeys, ring sealing.Ring, doc keystore.TenantDoc) (*keystore.TenantKeys, error) {
	if slices.Equal(doc.Keys, keys.Doc.Keys) && slices.Equal(doc.Seal, keys.Doc.Seal) {
		return keys, nil
	}
	secret, _, err := p.keys.UpdateDocument(ctx, keys.Secret, keystore.FormatTenant, ring, doc)
	if err != nil {
		return nil, err
	}
	p.wrote()
	p.keys.ForgetTenant(doc.UID)
	fresh, err := keystore.OpenTenantDocument(secret, p.keys.KEKs())
	if err != nil {
		return nil, err
	}
	const remembered = 256
	p.remember(fresh, remembered)
	return fresh, nil
}

// endSealKeys takes retired sealing keys out of a document that somebody wants destroyed. One that live objects still
// need stays, unless that was said to be meant.
func (p *pass) endSealKeys(ctx context.Context, doc keystore.TenantDoc) (keystore.TenantDoc, error) {
	for kid, d := range p.request.Destroy {
		i := slices.IndexFunc(doc.Seal, func(k keystore.SealDoc) bool { return k.KID == kid })
		if i < 0 || d.Tenant != doc.Tenant {
			continue
		}
		if doc.Seal[i].State != keystore.StateRetired || !doc.Seal[i].Since.Before(d.At.Add(time.Second)) {
			p.refuse(kid, "it is the key to seal to: rotate first, with `kubectl lethe keys rotate sealing --tenant "+doc.Tenant+"`")
			continue
		}
		if !d.Force {
			n, err := p.sealedWith(ctx, doc, kid)
			if err != nil {
				return doc, err
			}
			if n > 0 {
				p.refuse(kid, fmt.Sprintf("%d values of live objects are sealed to it: seal them again to %s, or destroy it with --force", n, doc.Seal[0].KID))
				continue
			}
		}
		doc.Destroyed = append(doc.Destroyed, keystore.DestroyedDoc{KID: kid, At: p.keys.Now()})
		if extra := len(doc.Destroyed) - maxDestroyed; extra > 0 {
			doc.Destroyed = doc.Destroyed[extra:]
		}
		doc.Seal = slices.Delete(doc.Seal, i, i+1)
	}
	return doc, nil
}

func (p *pass) refuse(kid, why string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.report.Refused) < maxProblems {
		p.report.Refused[kid] = why
	}
}

// sealedWith counts the values of live objects of a tenant that are sealed to a key. Not being able to count is an
// error: then nothing is destroyed.
func (s *Server) sealedWith(ctx context.Context, doc keystore.TenantDoc, kid string) (int, error) {
	counts, err := s.sealedTo(ctx, doc)
	return counts[kid], err
}

// sealedTo counts the values of live objects of a tenant by the key that they are sealed to.
func (s *Server) sealedTo(ctx context.Context, doc keystore.TenantDoc) (map[string]int, error) {
	var tenant v1alpha1.Tenant
	err := s.Client.Get(ctx, client.ObjectKey{Name: doc.Tenant}, &tenant)
	if kube.IsMissing(err, doc.Tenant) || (err == nil && string(tenant.UID) != doc.UID) {
		return map[string]int{}, nil // no live object is its own
	}
	if err != nil {
		return nil, err
	}
	counts := map[string]int{}
	for _, ns := range tenant.Status.Namespaces {
		if err := keystore.CountSealed(ctx, s.Client, ns.Name, counts); err != nil {
			return nil, err
		}
	}
	return counts, nil
}

// noteTenant keeps what the tenant's objects are held against, and counts what of the document itself is on an old key.
func (p *pass) noteTenant(doc keystore.TenantDoc) {
	t := &passTenant{name: doc.Tenant, retired: map[string]time.Time{}}
	for i, k := range doc.Keys {
		if i == 0 {
			t.first = k.KID
			continue
		}
		t.retired[k.KID] = k.Since
	}
	left := 0
	for i, k := range doc.Seal {
		if parent, err := sealing.WrappingKID(k.Key); err != nil || parent != t.first {
			left++
		}
		if i > 0 {
			t.seal = append(t.seal, k.KID)
		}
	}
	onOldKEK := 0
	for _, k := range doc.Keys {
		if parent, err := sealing.WrappingKID(k.Key); err != nil || parent != p.keys.KEKs().First().KID() {
			onOldKEK = 1
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tenants[doc.UID] = t
	p.report.Left[keystore.LayerTenant] += left
	p.report.Left[keystore.LayerKEK] += onOldKEK
}

// dropTenantKeys lets go of tenants' keys that nothing is under any more, and that nothing can come under any more.
func (p *pass) dropTenantKeys(ctx context.Context) {
	for uid, t := range p.tenants {
		if len(t.retired) == 0 {
			continue
		}
		p.leave(keystore.LayerTenant, len(t.retired))
		late := false
		for _, since := range t.retired {
			late = late || p.began.Before(since.Add(lateWrites))
		}
		if late || t.under > 0 {
			p.mu.Lock()
			p.soon = true
			p.mu.Unlock()
			continue
		}
		keys, err := p.keysOfTenant(ctx, t.name, uid, true)
		if err == nil {
			err = p.dropRetired(ctx, keys, t)
		}
		if err != nil {
			p.problem(&corev1.Secret{ObjectMeta: objectMeta(keystore.TenantSecretName(t.name))}, err)
		}
	}
}

// dropRetired takes exactly those keys out of a document that nothing was found under.
func (p *pass) dropRetired(ctx context.Context, keys *keystore.TenantKeys, t *passTenant) error {
	if keys.Doc.Keys[0].KID != t.first {
		return errMeanwhile
	}
	doc := keys.Doc
	doc.Keys = slices.DeleteFunc(slices.Clone(doc.Keys), func(k keystore.KeyDoc) bool { _, retired := t.retired[k.KID]; return retired })
	if len(doc.Keys) == 0 {
		return errMeanwhile
	}
	if _, err := p.writeTenant(ctx, keys, keys.Keys, doc); err != nil {
		return err
	}
	p.leave(keystore.LayerTenant, -len(t.retired))
	return nil
}

// countSealed counts the values of live objects that are sealed to retired keys: their number is for people, who seal
// them again in Git. Tenants that never rotated cost nothing.
func (p *pass) countSealed(ctx context.Context) {
	p.leave(keystore.LayerSealing, 0)
	for uid, t := range p.tenants {
		if len(t.seal) == 0 {
			continue
		}
		counts, err := p.sealedTo(ctx, keystore.TenantDoc{Tenant: t.name, UID: uid})
		if err != nil {
			p.problem(&corev1.Secret{ObjectMeta: objectMeta(keystore.TenantSecretName(t.name))}, err)
			continue
		}
		for _, kid := range t.seal {
			p.leave(keystore.LayerSealing, counts[kid])
		}
	}
}

// publishRotated shows a tenant's sealing keys in its status, where they differ. The keyserver's answer to the
// manager does the same; here it comes at once.
func (p *pass) publishRotated(ctx context.Context, keys *keystore.TenantKeys) error {
	if len(keys.Doc.Seal) < 2 && len(keys.Doc.Destroyed) == 0 {
		return nil
	}
	var tenant v1alpha1.Tenant
	err := p.Client.Get(ctx, client.ObjectKey{Name: keys.Doc.Tenant}, &tenant)
	if kube.IsMissing(err, keys.Doc.Tenant) || (err == nil && (string(tenant.UID) != keys.Doc.UID || !tenant.DeletionTimestamp.IsZero())) {
		return nil
	}
	if err != nil {
		return err
	}
	known := p.tenantResponse(keys)
	if len(tenant.Status.SealingKeys) == 0 {
		return nil // the call `tenant` shows the first ones
	}
	if err := p.publishKeys(ctx, &tenant, known); err != nil && asRefusal(err).Reason != v1alpha1.ReasonNotFound {
		return err
	}
	return nil
}
