package keyserver

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/internal/keystore"
	"github.com/lethe-dev/lethe/internal/kube"
	"github.com/lethe-dev/lethe/internal/sealing"
)

const (
	// orphansEvery is how often keys are looked for whose object or Tenant is gone, and how long it must have been
	// gone before they are destroyed.
	orphansEvery = 5 * time.Minute
	// maxOrphans bounds what one pass destroys: the rest waits for the next.
	maxOrphans = 100
)

// orphans is what a process remembers between two passes. A new process begins anew.
type orphans struct {
	mu     sync.Mutex
	looked time.Time
	// gone says since when the owner of a document was found gone, by the UIDs of the document's Secret and of the
	// owner: a document that was put there since counts from then on.
	gone map[string]time.Time
}

// keyOwner is whose keys one document holds, as the document says.
type keyOwner struct {
	secret, secretUID string
	tenant            keyapi.ObjectRef
	object            *keyapi.ObjectRef // of an object's document
}

func (o keyOwner) id(ref keyapi.ObjectRef) string { return o.secretUID + "/" + ref.UID }

// sweepOrphans destroys keys that nobody revoked: the finalizer of their object or Tenant was taken off by hand. They
// go the way of a deletion, so that a Tenant's sealing keys wait for the grace. Nothing goes that was not found gone
// in two passes, and nothing when it could not be asked. What a restore writes for a Tenant that is not applied yet
// waits in a document of its own kind (pending-), which this does not touch: minutes would be too short for a person.
//
// An encrypted Secret is found through its object's document alone: the keyserver may list no Secrets of tenants, and a
// document names its Secrets before they are made.
func (s *Server) sweepOrphans(ctx context.Context) error {
	w := &s.orphans
	w.mu.Lock()
	defer w.mu.Unlock()
	now := s.Clock.Now()
	if !w.looked.IsZero() && now.Before(w.looked.Add(orphansEvery)) {
		return nil
	}
	if err := s.keys.KEKUsable(ctx); err != nil {
		return fmt.Errorf("keys without an owner are not looked for: %w", err)
	}
	if s.keys.HoldsEveryKEK() != nil {
		return nil // the process says that it is not ready, and why
	}
	owners, held, err := s.keyOwners(ctx)
	if err != nil {
		return fmt.Errorf("list the keys: %w", err)
	}
	if err := s.tellDiffering(ctx, held); err != nil {
		return fmt.Errorf("tell whose keys are not as the Tenant's status names them: %w", err)
	}
	w.looked = now
	p := &orphanPass{Server: s, now: now, before: w.gone, gone: map[string]time.Time{}, tenants: map[string]error{}}
	for _, o := range owners {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := p.look(ctx, o); err != nil {
			p.failed++
			s.Log.Warn("Keys whose owner may be gone stay as they are for now", "secret", o.secret, "cause", err)
		}
	}
	w.gone = p.gone
	if p.removed > 0 {
		s.keys.ForgetAll()
		s.tenants.Flush()
	}
	if p.failed > 0 {
		return fmt.Errorf("the owners of %d documents of keys could not be dealt with; see the log", p.failed)
	}
	return nil
}

// keyOwners lists whose keys lie in the keys' namespace, and what tenants have, by UID. Documents of another realm,
// or whose name is not their owner's, are nobody's that could be asked for.
func (s *Server) keyOwners(ctx context.Context) ([]keyOwner, map[string]heldKeys, error) {
	var out []keyOwner
	held := map[string]heldKeys{}
	err := s.keys.EachKeySecret(ctx, nil, func(secret *corev1.Secret) error {
		o := keyOwner{secret: secret.Name, secretUID: string(secret.UID), tenant: keyapi.ObjectRef{Kind: "Tenant"}}
		realm, name := "", ""
		switch keystore.FormatOf(secret) {
		case keystore.FormatTenant:
			var d keystore.TenantDoc
			e, err := keystore.ReadDocument(secret, keystore.FormatTenant, &d)
			if err != nil {
				return nil //nolint:nilerr // what cannot be read is nobody's to remove
			}
			if secret.Name == keystore.TenantSecretName(d.Tenant) && d.Realm == s.Realm {
				held[d.UID] = heldBy(d, e.Generation)
			}
			realm, name, o.tenant.Name, o.tenant.UID = d.Realm, keystore.TenantSecretName(d.Tenant), d.Tenant, d.UID
		case keystore.FormatVersions:
			var d keystore.VersionsDoc
			if _, err := keystore.ReadDocument(secret, keystore.FormatVersions, &d); err != nil {
				return nil //nolint:nilerr // as above
			}
			realm, name, o.tenant.Name, o.tenant.UID = d.Realm, keystore.VersionsSecretName(d.TenantUID), d.Tenant, d.TenantUID
		case keystore.FormatObject:
			var d keystore.ObjectDoc
			if _, err := keystore.ReadDocument(secret, keystore.FormatObject, &d); err != nil {
				return nil //nolint:nilerr // as above
			}
			realm, name, o.tenant.Name, o.tenant.UID = d.Realm, keystore.ObjectSecretName(d.UID), d.Tenant, d.TenantUID
			o.object = &keyapi.ObjectRef{Kind: d.Kind, Namespace: d.Namespace, Name: d.Name, UID: d.UID}
		}
		if realm == s.Realm && name == secret.Name && o.tenant.Name != "" && o.tenant.UID != "" {
			out = append(out, o)
		}
		return nil
	})
	return out, held, err
}

// heldBy are the sealing keys that a document has, or had until a person had them destroyed.
func heldBy(d keystore.TenantDoc, generation int64) heldKeys {
	held := heldKeys{generation: generation}
	for _, key := range d.Seal {
		held.kids = append(held.kids, key.KID)
	}
	for _, key := range d.Destroyed {
		held.kids = append(held.kids, key.KID)
	}
	return held
}

// orphanPass looks at every document once.
type orphanPass struct {
	*Server
	now             time.Time
	before, gone    map[string]time.Time
	tenants         map[string]error // what was found of Tenants, by UID
	removed, failed int
}

// errGone: the API server has said that there is no such object of that UID.
var errGone = errors.New("it is gone")

func (p *orphanPass) look(ctx context.Context, o keyOwner) error {
	found, asked := p.tenants[o.tenant.UID]
	if !asked {
		found = p.owner(ctx, o.tenant)
		p.tenants[o.tenant.UID] = found
	}
	if errors.Is(found, errGone) {
		return p.remove(ctx, o, o.tenant, func() error { return p.orphanTenant(ctx, o) })
	}
	if found != nil {
		p.keep(o, o.tenant)
		return found
	}
	if o.object == nil {
		return nil
	}
	found = p.owner(ctx, *o.object)
	if errors.Is(found, errGone) {
		return p.remove(ctx, o, *o.object, func() error { return p.orphanObject(ctx, o) })
	}
	if found != nil {
		p.keep(o, *o.object)
	}
	return found
}

// keep takes what was seen before over, where nothing could be seen now.
func (p *orphanPass) keep(o keyOwner, ref keyapi.ObjectRef) {
	if since, ok := p.before[o.id(ref)]; ok {
		p.gone[o.id(ref)] = since
	}
}

// remove destroys what was gone in an earlier pass too, and remembers what is so for the first time.
func (p *orphanPass) remove(ctx context.Context, o keyOwner, ref keyapi.ObjectRef, destroy func() error) error {
	since, ok := p.before[o.id(ref)]
	if !ok {
		since = p.now
	}
	if p.now.Sub(since) < orphansEvery || p.removed >= maxOrphans {
		p.gone[o.id(ref)] = since
		return nil
	}
	// An earlier document of the same Tenant may have taken this one with it.
	err := p.Client.Get(ctx, client.ObjectKey{Namespace: p.KeysNamespace, Name: o.secret}, &corev1.Secret{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err == nil {
		err = destroy()
	}
	if err != nil {
		p.gone[o.id(ref)] = since
		return err
	}
	p.removed++
	p.Metrics.orphans.WithLabelValues(ref.Kind).Inc()
	p.Log.Info("Destroyed keys whose owner is gone and that nobody had revoked", "secret", o.secret,
		"kind", ref.Kind, "namespace", ref.Namespace, "name", ref.Name, "uid", ref.UID)
	return nil
}

// owner asks the API server: nil for an owner that is there, also while it is being deleted, and errGone.
func (p *orphanPass) owner(ctx context.Context, ref keyapi.ObjectRef) error {
	var object client.Object
	switch ref.Kind {
	case "Tenant":
		object = &v1alpha1.Tenant{}
	case sealing.KindBotDeployment:
		object = &v1alpha1.BotDeployment{}
	case sealing.KindDataStore:
		object = &v1alpha1.DataStore{}
	default:
		return fmt.Errorf("the document names an owner of another kind")
	}
	err := p.Client.Get(ctx, client.ObjectKey{Namespace: ref.Namespace, Name: ref.Name}, object)
	switch {
	case kube.IsMissing(err, ref.Name), err == nil && string(object.GetUID()) != ref.UID:
		return errGone
	case err != nil:
		return fmt.Errorf("ask for %s %s: %w", ref.Kind, ref.Name, err)
	}
	return nil
}

// orphanTenant does what the deletion of a Tenant would have done. A document that does not open stays: its keys
// could not wait.
func (p *orphanPass) orphanTenant(ctx context.Context, o keyOwner) error {
	var secret corev1.Secret
	err := p.Client.Get(ctx, client.ObjectKey{Namespace: p.KeysNamespace, Name: keystore.TenantSecretName(o.tenant.Name)}, &secret)
	if kube.UnlessMissing(err, keystore.TenantSecretName(o.tenant.Name)) != nil {
		return err
	}
	if err == nil {
		var doc keystore.TenantDoc
		if _, err := keystore.ReadDocument(&secret, keystore.FormatTenant, &doc); err != nil {
			return err
		}
		if doc.UID == o.tenant.UID {
			if _, err := keystore.OpenTenantDocument(&secret, p.keys.KEKs()); err != nil {
				return err
			}
		}
	}
	return p.revokeTenant(ctx, o.tenant)
}

// orphanObject does what the deletion of an object would have done. Its Tenant is there: while that one's own keys
// are missing, or the document does not open with them, it stays, since it is how it is known that there were keys.
func (p *orphanPass) orphanObject(ctx context.Context, o keyOwner) error {
	var secret, holder corev1.Secret
	if err := p.Client.Get(ctx, client.ObjectKey{Namespace: p.KeysNamespace, Name: o.secret}, &secret); err != nil {
		return client.IgnoreNotFound(err)
	}
	if err := p.Client.Get(ctx, client.ObjectKey{Namespace: p.KeysNamespace, Name: keystore.TenantSecretName(o.tenant.Name)}, &holder); err != nil {
		return fmt.Errorf("read the keys of its Tenant: %w", err)
	}
	if _, err := p.keys.OpenObject(&secret, &holder); err != nil {
		return err
	}
	return p.revokeObject(ctx, *o.object)
}
