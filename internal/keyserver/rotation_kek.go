package keyserver

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/sealing"
)

// kekRing holds the key-encryption keys of a process, the one that wraps in front. Which one that is stands in the canary's
// document and not in the flags: so all replicas wrap with the same one while new ones take the place of old ones.
type kekRing struct {
	mu   sync.Mutex
	ring sealing.Ring
}

func newKEKRing(o Options) (*kekRing, error) {
	ring := append(sealing.Ring{o.KEK}, o.KEKPrevious...)
	for i, k := range ring {
		if k.KID() == "" {
			return nil, fmt.Errorf("keyserver: a key-encryption key is empty")
		}
		if slices.Contains(ring[:i].KIDs(), k.KID()) {
			return nil, fmt.Errorf("keyserver: key-encryption key %s is given twice", k.KID())
		}
	}
	return &kekRing{ring: ring}, nil
}

func (r *kekRing) get() sealing.Ring {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ring
}

// lead has a key wrap from now on.
func (r *kekRing) lead(kid string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	ring, err := r.ring.Leading(kid)
	if err != nil {
		return err
	}
	r.ring = ring
	return nil
}

// wrappedText is a text in a document that is wrapped under the KEK.
type wrappedText struct {
	text    *string
	purpose sealing.Purpose
	ids     []string
}

// kekKind says how a kind of document is brought under another KEK.
type kekKind struct {
	// fresh returns an empty document and what in it is wrapped under the KEK, which may be nothing: its MAC is.
	fresh func() (document any, wrapped func() []wrappedText)
}

// kekKinds are the kinds of documents that are authenticated under the KEK. A tenant's document is not among them: only its
// key is under the KEK; and nothing of an object's is. TestEveryKindOfDocumentIsRewrapped holds this list against the formats
// that the package knows.
var kekKinds = map[string]kekKind{
	formatCanary: {fresh: func() (any, func() []wrappedText) {
		doc := &canaryDoc{}
		// The canaries of earlier keys stay under those: they say that such a key is the one.
		return doc, func() []wrappedText { return nil }
	}},
	formatUIDs: {fresh: func() (any, func() []wrappedText) {
		return &uidsDoc{}, func() []wrappedText { return nil }
	}},
	formatVersions: {fresh: func() (any, func() []wrappedText) {
		return &versionsDoc{}, func() []wrappedText { return nil }
	}},
	formatPending: {fresh: func() (any, func() []wrappedText) {
		doc := &pendingDoc{}
		return doc, func() []wrappedText {
			var out []wrappedText
			for i := range doc.Seal {
				out = append(out, wrappedText{&doc.Seal[i].Key, sealing.PurposePending, doc.ids()})
			}
			return out
		}
	}},
	formatChannelKey: {fresh: func() (any, func() []wrappedText) {
		doc := &channelKeyDoc{}
		return doc, func() []wrappedText { return []wrappedText{{&doc.Key, sealing.PurposeChannel, []string{doc.Realm}}} }
	}},
	formatCA: {fresh: func() (any, func() []wrappedText) {
		doc := &caDoc{}
		return doc, func() []wrappedText {
			var out []wrappedText
			for _, e := range []*caEntry{&doc.Present, doc.Next, doc.Previous} {
				if e != nil && e.Key != "" {
					out = append(out, wrappedText{&e.Key, sealing.PurposeCA, []string{doc.Realm}})
				}
			}
			return out
		}
	}},
}

// notUnderKEK are the kinds of which nothing is under the KEK, nor authenticated under it, and that are no tenant's keys.
var notUnderKEK = map[string]bool{formatChannelHolder: true} // under the channel key

// wrappedKID finds the keys that wrapped texts of a document are under.
var wrappedKID = regexp.MustCompile(`"wrap\.v1\.([0-9a-f]{16})\.`)

// kekDocument brings a document that is authenticated under the KEK under the one that wraps now.
func (p *pass) kekDocument(ctx context.Context, secret *corev1.Secret) error {
	format := formatOf(secret)
	if notUnderKEK[format] {
		return nil
	}
	kind, ok := kekKinds[format]
	if !ok {
		p.leave(LayerKEK, 1)
		return fmt.Errorf("format %q is unknown to this version: %w", format, errUnreadable)
	}
	if format == formatCanary || underKEK(secret, p.kek().First().KID()) {
		return nil // the canary's document was written when the key changed
	}
	document, wrapped := kind.fresh()
	err := func() error {
		if _, err := openKEKDocument(secret, format, p.kek(), document); err != nil {
			return err
		}
		for _, w := range wrapped() {
			var err error
			if *w.text, err = p.kek().Rewrap(p.Random, *w.text, w.purpose, w.ids...); err != nil {
				return err
			}
		}
		_, _, err := p.updateDocument(ctx, secret, format, p.kek(), document)
		return err
	}()
	if err != nil {
		p.leave(LayerKEK, 1)
		return err
	}
	p.wrote()
	return nil
}

// underKEK says whether a document that is authenticated under the KEK is under one, with everything in it.
func underKEK(secret *corev1.Secret, kid string) bool {
	var e envelope
	if json.Unmarshal(secret.Data[documentKey], &e) != nil {
		return false
	}
	if by, err := sealing.MACKID(e.MAC); err != nil || by != kid {
		return false
	}
	for _, m := range wrappedKID.FindAllSubmatch(e.Document, -1) {
		if string(m[1]) != kid {
			return false
		}
	}
	return true
}

// readCanary reads the canary's document, authenticated, with its Secret.
func (s *Server) readCanary(ctx context.Context) (*corev1.Secret, canaryDoc, error) {
	secret := &corev1.Secret{}
	var doc canaryDoc
	if err := s.Client.Get(ctx, client.ObjectKey{Namespace: s.KeysNamespace, Name: canaryName}, secret); err != nil {
		return nil, doc, err
	}
	_, err := openKEKDocument(secret, formatCanary, s.kek(), &doc)
	return secret, doc, err
}

// newKEKDoc is the entry of a key-encryption key that wraps from now on.
func (s *Server) newKEKDoc(kek sealing.Key, since time.Time) (kekDoc, error) {
	wrapped, err := sealing.Ring{kek}.WrapBytes(s.Random, "canary", []byte(canaryText), sealing.PurposeCanary, s.Realm)
	return kekDoc{KID: kek.KID(), Canary: wrapped, State: stateActive, Since: since}, err
}

// turnKEK has the configured key wrap, when somebody asked for it after the present one began to. All replicas must hold both
// by then: `kubectl lethe keys rotate kek` looks whether they do, and one that does not refuses to work until it does.
func (s *Server) turnKEK(ctx context.Context, request RotationRequest) error {
	asked := request.Of(LayerKEK, "")
	if asked.IsZero() || s.kek().First().KID() == s.KEK.KID() {
		return nil
	}
	secret, doc, err := s.readCanary(ctx)
	if err != nil {
		return err
	}
	if doc.KEKs[0].KID == s.KEK.KID() || !doc.KEKs[0].Since.Before(asked) {
		return nil
	}
	if i := slices.IndexFunc(doc.KEKs, func(k kekDoc) bool { return k.KID == s.KEK.KID() }); i >= 0 {
		if doc.KEKs[i].State == stateDestroyed {
			return refuse(v1alpha1.ReasonKEKUnavailable, "somebody said that key-encryption key %s was destroyed, and here it is: make a new one", s.KEK.KID())
		}
		doc.KEKs = slices.Delete(slices.Clone(doc.KEKs), i, i+1)
	}
	since := s.now()
	if asked.After(since) {
		since = asked.UTC().Truncate(time.Second).Add(time.Second)
	}
	entry, err := s.newKEKDoc(s.KEK, since)
	if err != nil {
		return err
	}
	before := slices.Clone(doc.KEKs)
	before[0].State, before[0].Since, before[0].Rewrapped = stateRetired, s.now(), time.Time{}
	doc.KEKs = append([]kekDoc{entry}, before...)
	ring, err := s.kek().Leading(s.KEK.KID())
	if err != nil {
		return err
	}
	if _, _, err := s.updateDocument(ctx, secret, formatCanary, ring, doc); err != nil {
		if apierrors.IsConflict(err) {
			return later(v1alpha1.ReasonInternal, 1, "another replica turned at the same time")
		}
		return err
	}
	s.Log.Info("Another key-encryption key wraps from now on", "kek", entry.KID, "before", before[0].KID)
	return s.ring.lead(entry.KID)
}

// settleKEKs writes down when nothing was under an earlier KEK any more, and that a person has destroyed it.
func (p *pass) settleKEKs(ctx context.Context) error {
	secret, doc, err := p.readCanary(ctx)
	if err != nil {
		return fmt.Errorf("read the canary: %w", err)
	}
	changed := false
	left := p.report.Left[LayerKEK]
	for i := range doc.KEKs {
		k := &doc.KEKs[i]
		if i == 0 || k.State != stateRetired {
			continue
		}
		switch {
		case left > 0 && !k.Rewrapped.IsZero():
			k.Rewrapped, changed = time.Time{}, true
		case left == 0 && k.Rewrapped.IsZero() && !p.began.Before(k.Since.Add(lateWrites)):
			k.Rewrapped, changed = p.now(), true
		case left == 0 && k.Rewrapped.IsZero():
			p.soon = true // whoever remembers the earlier key may still write under it
		}
		if _, said := p.request.KEKDestroyed[k.KID]; !said {
			continue
		}
		if why := p.mayForget(*k, doc); why != "" {
			p.refuse(k.KID, why)
			continue
		}
		k.State, k.Destroyed, changed = stateDestroyed, p.now(), true
	}
	p.report.KEKs, p.report.Backup = nil, p.request.Backup
	for _, k := range doc.KEKs {
		p.report.KEKs = append(p.report.KEKs, KEKStatus{KID: k.KID, State: k.State, Since: k.Since, Rewrapped: k.Rewrapped, Destroyed: k.Destroyed})
	}
	if !changed {
		return nil
	}
	if _, _, err := p.updateDocument(ctx, secret, formatCanary, p.kek(), doc); err != nil {
		return fmt.Errorf("write the canary: %w", err)
	}
	p.wrote()
	return nil
}

// mayForget says why a key-encryption key cannot be called destroyed yet; empty when it can.
func (p *pass) mayForget(k kekDoc, doc canaryDoc) string {
	backup := p.request.Backup
	switch {
	case k.Rewrapped.IsZero():
		return "keys are still under it, or may be"
	case backup == nil || backup.KEK != doc.KEKs[0].KID || backup.Created.Before(k.Rewrapped):
		return "no backup under the present one was verified since " + k.Rewrapped.Format(time.RFC3339) +
			": `kubectl lethe keys backup`, then `kubectl lethe keys verify --kek-file … --record`"
	case slices.Contains(p.kek().KIDs(), k.KID):
		return "a keyserver still holds it: take its file out of kek.previous, and off the volume"
	}
	return ""
}

// KEKStatus is a key-encryption key as the status shows it.
type KEKStatus struct {
	KID   string    `json:"kid"`
	State string    `json:"state"`
	Since time.Time `json:"since"`
	// Rewrapped is since when nothing in the keys' namespace has been under it.
	Rewrapped time.Time `json:"rewrapped,omitzero"`
	// Destroyed is when a person said to have destroyed every copy of it. From then on copies of the keys' namespace that are
	// older than Rewrapped open for nobody.
	Destroyed time.Time `json:"destroyed,omitzero"`
}

// RotationStatus is what the keyserver says about rotation.
type RotationStatus struct {
	// Seen is the resourceVersion of the request that was acted upon.
	Seen string `json:"seen"`
	// Left is how much of each layer is on an old key: documents of the KEK, keys under a tenant's earlier key, values of live
	// objects that are sealed to a retired key, objects whose earlier data key is still there.
	Left map[Layer]int `json:"left"`
	// KEKs are the key-encryption keys, the present one first.
	KEKs   []KEKStatus     `json:"keks"`
	Backup *VerifiedBackup `json:"verifiedBackup,omitempty"`
	// Refused says by kid why a key was not destroyed.
	Refused map[string]string `json:"refused,omitempty"`
	// Problems are documents that could not be dealt with, and requests that say nothing.
	Problems []string `json:"problems,omitempty"`
}

const rotationStatusKey = "status.json"

// ReadRotationStatus reads the keyserver's ConfigMap.
func ReadRotationStatus(cm *corev1.ConfigMap) (RotationStatus, error) {
	var out RotationStatus
	if err := json.Unmarshal([]byte(cm.Data[rotationStatusKey]), &out); err != nil {
		return out, fmt.Errorf("ConfigMap %s/%s is not readable", cm.Namespace, cm.Name)
	}
	return out, nil
}

// writeStatus writes the report where it differs from what is there.
func (p *pass) writeStatus(ctx context.Context) error {
	p.report.Problems = append(p.report.Problems, p.request.Problems...)
	if len(p.report.Problems) > maxProblems {
		p.report.Problems = p.report.Problems[:maxProblems]
	}
	slices.Sort(p.report.Problems)
	b, err := json.Marshal(p.report)
	if err != nil {
		return fmt.Errorf("encode the status: %w", err)
	}
	data := map[string]string{rotationStatusKey: string(b)}
	cm := &corev1.ConfigMap{}
	err = p.Client.Get(ctx, client.ObjectKey{Namespace: p.KeysNamespace, Name: RotationStatusName}, cm)
	switch {
	case apierrors.IsNotFound(err):
		cm = NewRotation(p.KeysNamespace)
		cm.Name, cm.Data = RotationStatusName, data
		err = p.Client.Create(ctx, cm)
	case err == nil && maps.Equal(cm.Data, data):
		return nil
	case err == nil:
		cm.Data = data
		err = p.Client.Update(ctx, cm)
	}
	if apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) {
		return nil // another replica said the same at the same time; the next pass sets it right
	}
	return err
}

func objectMeta(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Name: name} }
