package keyserver

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/internal/keystore"
)

// kekDocument brings a document that is authenticated under the KEK under the one that wraps now.
func (p *pass) kekDocument(ctx context.Context, secret *corev1.Secret) error {
	changed, err := p.keys.Rewrap(ctx, secret)
	if err != nil {
		p.leave(keystore.LayerKEK, 1)
		return err
	}
	if changed {
		p.wrote()
	}
	return nil
}

// settleKEKs writes down when nothing was under an earlier KEK any more, and that a person has destroyed it.
func (p *pass) settleKEKs(ctx context.Context) error {
	secret, doc, err := p.keys.ReadCanary(ctx)
	if err != nil {
		return fmt.Errorf("read the canary: %w", err)
	}
	changed := false
	left := p.report.Left[keystore.LayerKEK]
	for i := range doc.KEKs {
		k := &doc.KEKs[i]
		if i == 0 || k.State != keystore.StateRetired {
			continue
		}
		switch {
		case left > 0 && !k.Rewrapped.IsZero():
			k.Rewrapped, changed = time.Time{}, true
		case left == 0 && k.Rewrapped.IsZero() && !p.began.Before(k.Since.Add(lateWrites)):
			k.Rewrapped, changed = p.keys.Now(), true
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
		k.State, k.Destroyed, changed = keystore.StateDestroyed, p.keys.Now(), true
	}
	p.report.KEKs, p.report.Backup = nil, p.request.Backup
	for _, k := range doc.KEKs {
		p.report.KEKs = append(p.report.KEKs, keystore.KEKStatus{KID: k.KID, State: k.State, Since: k.Since, Rewrapped: k.Rewrapped, Destroyed: k.Destroyed})
	}
	if !changed {
		return nil
	}
	if _, _, err := p.keys.UpdateDocument(ctx, secret, keystore.FormatCanary, p.keys.KEKs(), doc); err != nil {
		return fmt.Errorf("write the canary: %w", err)
	}
	p.wrote()
	return nil
}

// mayForget says why a key-encryption key cannot be called destroyed yet; empty when it can.
func (p *pass) mayForget(k keystore.KEKDoc, doc keystore.CanaryDoc) string {
	backup := p.request.Backup
	switch {
	case k.Rewrapped.IsZero():
		return "keys are still under it, or may be"
	case backup == nil || backup.KEK != doc.KEKs[0].KID || backup.Created.Before(k.Rewrapped):
		return "no backup under the present one was verified since " + k.Rewrapped.Format(time.RFC3339) +
			": `kubectl lethe keys backup`, then `kubectl lethe keys verify --kek-file … --record`"
	case slices.Contains(p.keys.KEKs().KIDs(), k.KID):
		return "a keyserver still holds it: take its file out of kek.previous, and off the volume"
	}
	return ""
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
	data := map[string]string{keystore.RotationStatusKey: string(b)}
	cm := &corev1.ConfigMap{}
	err = p.Client.Get(ctx, client.ObjectKey{Namespace: p.KeysNamespace, Name: keystore.RotationStatusName}, cm)
	switch {
	case apierrors.IsNotFound(err):
		cm = keystore.NewRotation(p.KeysNamespace)
		cm.Name, cm.Data = keystore.RotationStatusName, data
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
