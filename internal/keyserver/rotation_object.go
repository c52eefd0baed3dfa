package keyserver

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/internal/keystore"
	"github.com/lethe-dev/lethe/internal/kube"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/internal/sealing"
)

// maxSteps bounds the writes for one object in one pass; four are needed.
const maxSteps = 12

// errWaits: a new data key is there, and the old one may still be needed by a write that is under way.
var errWaits = errors.New("a write under the earlier key may still be under way")

// object brings one object's document up to date, step by step. Each step is found out from what is stored, so that a
// crash after any of them is healed by the next pass of any replica.
func (p *pass) object(ctx context.Context, secret *corev1.Secret) error {
	var doc keystore.ObjectDoc
	e, err := keystore.ReadDocument(secret, keystore.FormatObject, &doc)
	if err != nil {
		return err
	}
	if p.objectWants(doc) {
		// A step on an earlier copy would make it look like the newest.
		sub, err := p.find(ctx, keyapi.ObjectRef{Kind: doc.Kind, Namespace: doc.Namespace, Name: doc.Name, UID: doc.UID})
		if err == nil && e.Generation < sub.seen {
			err = p.unlessWritten(ctx, secret, keystore.RolledBack(secret, e.Generation, sub.seen))
		} else if err != nil && asRefusal(err).Reason == v1alpha1.ReasonNotFound {
			err = nil // nothing is known of it
		}
		if err != nil {
			p.leaveObject(doc)
			return err
		}
	}
	for range maxSteps {
		if !p.objectWants(doc) {
			return nil
		}
		next, err := p.objectStep(ctx, secret)
		if apierrors.IsNotFound(err) {
			return nil // its object went away
		}
		if apierrors.IsConflict(err) {
			// Another replica, or a new credential: from what is stored now.
			next = &corev1.Secret{}
			if err = p.Client.Get(ctx, client.ObjectKeyFromObject(secret), next); apierrors.IsNotFound(err) {
				return nil
			}
		}
		if err == nil {
			secret, doc = next, keystore.ObjectDoc{}
			_, err = keystore.ReadDocument(secret, keystore.FormatObject, &doc)
		}
		if err != nil {
			p.leaveObject(doc)
			if errors.Is(err, errWaits) {
				p.mu.Lock()
				p.soon = true
				p.mu.Unlock()
				return nil
			}
			return err
		}
	}
	p.leaveObject(doc)
	return errMeanwhile
}

// leaveObject counts an object whose keys are not what they should be.
func (p *pass) leaveObject(doc keystore.ObjectDoc) {
	if p.dataDue(doc) {
		p.leave(keystore.LayerData, 1)
	}
	if !p.underFirst(doc) {
		p.leave(keystore.LayerTenant, 1)
		p.mu.Lock()
		defer p.mu.Unlock()
		if t := p.tenants[doc.TenantUID]; t != nil {
			t.under++
		}
	}
}

// objectWants says whether anything is to be done, without opening a key.
func (p *pass) objectWants(doc keystore.ObjectDoc) bool { return !p.underFirst(doc) || p.dataDue(doc) }

// underFirst says whether an object's keys are under the key that its tenant wraps with.
func (p *pass) underFirst(doc keystore.ObjectDoc) bool {
	p.mu.Lock()
	t := p.tenants[doc.TenantUID]
	first := ""
	if t != nil {
		first = t.first
	}
	p.mu.Unlock()
	if t == nil {
		return true // made since the pass began, under the key of then; or its Tenant is gone
	}
	for _, k := range append(slices.Clone(doc.Keys), doc.Digest) {
		if parent, err := sealing.WrappingKID(k.Key); err != nil || parent != first {
			return false
		}
	}
	return true
}

// dataDue says whether an object's data key is older than asked for, or a rotation of it has not ended.
func (p *pass) dataDue(doc keystore.ObjectDoc) bool {
	return len(doc.Keys) != 1 || len(doc.Moving) > 0 || p.due(keystore.LayerData, doc.Tenant, doc.Keys[0].Since)
}

// objectStep makes the next step and returns the Secret as it is then.
func (p *pass) objectStep(ctx context.Context, secret *corev1.Secret) (*corev1.Secret, error) {
	keys, err := p.openObject(ctx, secret)
	if err != nil {
		return nil, err
	}
	switch {
	case !p.underFirst(keys.Doc):
		return p.rewrapObject(ctx, keys)
	case len(keys.Doc.Keys) > 1:
		return p.moveSets(ctx, keys)
	case len(keys.Doc.Moving) > 0:
		return p.clearMoved(ctx, keys)
	}
	return p.newDataKey(ctx, keys)
}

// openObject opens an object's keys with its tenant's; another replica may have given the tenant a new one meanwhile.
func (p *pass) openObject(ctx context.Context, secret *corev1.Secret) (*keystore.ObjectKeys, error) {
	var doc keystore.ObjectDoc
	if _, err := keystore.ReadDocument(secret, keystore.FormatObject, &doc); err != nil {
		return nil, err
	}
	tenant, err := p.keysOfTenant(ctx, doc.Tenant, doc.TenantUID, false)
	if err != nil {
		return nil, err
	}
	if !tenant.Wraps(doc) {
		if tenant, err = p.keysOfTenant(ctx, doc.Tenant, doc.TenantUID, true); err != nil {
			return nil, err
		}
	}
	keys, err := keystore.OpenObjectDocument(secret, tenant)
	if err != nil {
		return nil, err
	}
	keys.Tenant = tenant
	return keys, nil
}

// store writes an object's document.
func (p *pass) store(ctx context.Context, keys *keystore.ObjectKeys, ring sealing.Ring, doc keystore.ObjectDoc) (*corev1.Secret, error) {
	secret, _, err := p.keys.UpdateDocument(ctx, keys.Secret, keystore.FormatObject, ring, doc)
	if err != nil {
		return nil, err
	}
	p.wrote()
	return secret, nil
}

// rewrapObject puts an object's keys under the key that its tenant wraps with. The keys themselves stay.
func (p *pass) rewrapObject(ctx context.Context, keys *keystore.ObjectKeys) (*corev1.Secret, error) {
	doc, ring := keys.Doc, keys.Tenant.Keys
	doc.Keys = slices.Clone(doc.Keys)
	var err error
	for i := range doc.Keys {
		if doc.Keys[i].Key, err = ring.Rewrap(p.Random, doc.Keys[i].Key, sealing.PurposeData, keys.Tenant.IDs(doc.UID)...); err != nil {
			return nil, err
		}
	}
	if doc.Digest.Key, err = ring.Rewrap(p.Random, doc.Digest.Key, sealing.PurposeDigest, keys.Tenant.IDs(doc.UID)...); err != nil {
		return nil, err
	}
	p.noteFirst(keys.Tenant)
	return p.store(ctx, keys, keys.Keys, doc)
}

// noteFirst follows another replica that has given the tenant a new key since the pass began.
func (p *pass) noteFirst(tenant *keystore.TenantKeys) {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.tenants[tenant.Doc.UID]
	if t == nil || t.first == tenant.Doc.Keys[0].KID {
		return
	}
	// What was counted so far was held against another key: this pass drops nothing of this tenant.
	t.first = tenant.Doc.Keys[0].KID
	t.under++
}

// newDataKey puts a new data key in front of the present one, and the names of the Secrets that will hold what is
// encrypted under it. From then on whatever is stored is under the new one; the earlier one only opens.
func (p *pass) newDataKey(ctx context.Context, keys *keystore.ObjectKeys) (*corev1.Secret, error) {
	key, entry, err := p.keys.NewKeyUnder(keys.Tenant.Keys, sealing.PurposeData, keys.Tenant.IDs(keys.Doc.UID)...)
	if err != nil {
		return nil, err
	}
	entry.Since = p.sinceFor(keystore.LayerData, keys.Doc.Tenant)
	doc := keys.Doc
	doc.Keys = append([]keystore.KeyDoc{entry}, doc.Keys...)
	for _, set := range doc.Sets {
		doc.Moving = keystore.AppendNew(doc.Moving, movedName(doc, set, entry.KID))
	}
	return p.store(ctx, keys, append(sealing.Ring{key}, keys.Keys...), doc)
}

// movedName is the name of the Secret that holds a set under a data key that is not the one it was first stored
// under. The set keeps its own name, which stands in pod templates: so nothing restarts.
func movedName(doc keystore.ObjectDoc, set, kid string) string {
	h := sha256.New()
	for _, part := range []string{"lethe/moved-set/v1", doc.UID, set, kid} {
		fmt.Fprintf(h, "%d:%s,", len(part), part)
	}
	return resources.CredentialsName(doc.Name, hex.EncodeToString(h.Sum(nil)))
}

// moveSets encrypts every set of an object under its first data key, each into a Secret of its own, and then says in
// one write where the sets lie now and forgets the earlier data keys. Until that write every pod gets what it gets
// from the Secrets of before; from then on from the new ones.
func (p *pass) moveSets(ctx context.Context, keys *keystore.ObjectKeys) (*corev1.Secret, error) {
	doc := keys.Doc
	doc.Secrets, doc.Moving = maps.Clone(doc.Secrets), slices.Clone(doc.Moving)
	if doc.Secrets == nil {
		doc.Secrets = map[string]string{}
	}
	first := keys.Keys.First().KID()
	for _, set := range doc.Sets {
		from := doc.SecretOf(set)
		old, err := p.readSet(ctx, keys, from)
		if err != nil {
			return nil, err
		}
		if old == nil {
			if set == doc.Current && p.keys.Now().Before(doc.Keys[0].Since.Add(lateWrites)) {
				return nil, errWaits // whoever recorded it may be about to write it, under the key of then
			}
			continue
		}
		items, moved := itemsOf(keys, old)
		if moved || items == nil {
			continue // under the new key already, or altered: it opens for nobody
		}
		to := movedName(doc, set, first)
		if !slices.Contains(keys.Doc.Moving, to) {
			doc.Moving = keystore.AppendNew(doc.Moving, to)
			return p.store(ctx, keys, keys.Keys, withMoving(keys.Doc, doc.Moving))
		}
		if err := p.writeMoved(ctx, keys, old, to, items); err != nil {
			return nil, err
		}
		doc.Secrets[set] = to
		doc.Moving = keystore.AppendNew(doc.Moving, from)
	}
	doc.Keys = doc.Keys[:1]
	return p.store(ctx, keys, keys.Keys[:1], doc)
}

func withMoving(doc keystore.ObjectDoc, moving []string) keystore.ObjectDoc {
	doc.Moving = moving
	return doc
}

// readSet reads an encrypted Secret of the object; nil when there is none, or it is somebody else's.
func (p *pass) readSet(ctx context.Context, keys *keystore.ObjectKeys, name string) (*corev1.Secret, error) {
	secret := &corev1.Secret{}
	err := p.Client.Get(ctx, client.ObjectKey{Namespace: keys.Doc.Namespace, Name: name}, secret)
	if kube.IsMissing(err, name) || (err == nil && !isOf(secret, keys.Doc.UID)) {
		return nil, nil
	}
	return secret, err
}

// isOf says whether a Secret is an encrypted one of the object of a UID.
func isOf(secret *corev1.Secret, uid string) bool {
	owner := metav1.GetControllerOf(secret)
	return secret.Type == v1alpha1.SecretTypeEncrypted && owner != nil && string(owner.UID) == uid
}

// storedVersion is one value of a set with its version.
type storedVersion struct {
	storedItem
	version uint32
}

// itemsOf opens all values of a set; nil when one does not open. moved says that all are under the first data key.
func itemsOf(k *keystore.ObjectKeys, secret *corev1.Secret) (items []storedVersion, moved bool) {
	moved = true
	for _, name := range slices.Sorted(maps.Keys(secret.Data)) {
		item, version, err := decryptItem(k, name, secret.Data[name])
		if err != nil {
			return nil, false
		}
		if key, err := k.Keys.Encrypted(string(secret.Data[name])); err != nil || key.KID() != k.Keys.First().KID() {
			moved = false
		}
		items = append(items, storedVersion{item, version})
	}
	return items, moved
}

// writeMoved makes the Secret of a set under the first data key. One that is there already was made before a crash,
// or by another replica, and must hold the same.
func (p *pass) writeMoved(ctx context.Context, keys *keystore.ObjectKeys, old *corev1.Secret, name string, items []storedVersion) error {
	immutable := true
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: old.Namespace, Name: name, Labels: old.Labels,
		Annotations: map[string]string{annotationInputs: old.Annotations[annotationInputs]}, OwnerReferences: old.OwnerReferences},
		Type: v1alpha1.SecretTypeEncrypted, Immutable: &immutable, Data: map[string][]byte{}}
	for _, item := range items {
		text, err := p.encryptItem(keys, item.storedItem, item.version)
		clear(item.Value)
		if err != nil {
			return err
		}
		secret.Data[item.Name] = text
	}
	err := p.Client.Create(ctx, secret)
	if err == nil {
		p.wrote()
		return nil
	}
	if !apierrors.IsAlreadyExists(err) {
		return err
	}
	there, err := p.readSet(ctx, keys, name)
	if err != nil {
		return err
	}
	if there == nil || !slices.Equal(slices.Sorted(maps.Keys(there.Data)), slices.Sorted(maps.Keys(old.Data))) {
		return fmt.Errorf("secret %s/%s is in the way: delete it: %w", old.Namespace, name, keystore.ErrAltered)
	}
	if items, moved := itemsOf(keys, there); items == nil || !moved {
		return fmt.Errorf("secret %s/%s holds something else: delete it: %w", old.Namespace, name, keystore.ErrAltered)
	}
	return nil
}

// clearMoved deletes the Secrets that no set lies in any more. What is in them opens for nobody: their key is gone.
func (p *pass) clearMoved(ctx context.Context, keys *keystore.ObjectKeys) (*corev1.Secret, error) {
	doc := keys.Doc
	for _, name := range doc.Moving {
		if slices.ContainsFunc(doc.Sets, func(set string) bool { return doc.SecretOf(set) == name }) {
			continue
		}
		old, err := p.readSet(ctx, keys, name)
		if err != nil {
			return nil, err
		}
		if old == nil {
			continue
		}
		if err := client.IgnoreNotFound(p.Client.Delete(ctx, old, client.Preconditions{UID: &old.UID})); err != nil {
			return nil, err
		}
	}
	doc.Moving = nil
	return p.store(ctx, keys, keys.Keys, doc)
}
