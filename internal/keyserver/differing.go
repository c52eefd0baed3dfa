package keyserver

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/resources"
)

// The manager may not read the keys' namespace, and asks about a Tenant once an hour where nothing gives it cause. So
// the keyserver, which reads all documents every few minutes anyway, puts down whose keys are not those that the
// Tenant's status names. It stands in the ConfigMap of the CA bundle, which the manager watches, and is no verdict:
// the manager asks about those Tenants.

// maxDiffering bounds the list. Where more differ, every Tenant is asked about.
const maxDiffering = 500

// heldKeys is what a document says that a tenant has. It is not authenticated: all that comes of it is a question.
type heldKeys struct {
	generation int64
	kids       []string // of sealing keys, those that were destroyed on purpose too
}

// tellDiffering compares the live Tenants with the documents of their keys, by UID.
func (s *Server) tellDiffering(ctx context.Context, held map[string]heldKeys) error {
	var differing []string
	err := s.keys.EachTenant(ctx, func(tenant *v1alpha1.Tenant) {
		if tenant.DeletionTimestamp.IsZero() && differs(tenant, held[string(tenant.UID)]) {
			differing = append(differing, string(tenant.UID))
		}
	})
	if err != nil {
		return fmt.Errorf("list the Tenants: %w", err)
	}
	s.Metrics.differing.Set(float64(len(differing)))
	slices.Sort(differing)
	text := strings.Join(differing, "\n")
	if len(differing) > maxDiffering {
		text = resources.DifferingAll
	}
	return s.writeDiffering(ctx, text)
}

// differs says whether a Tenant's status names keys, or a generation of them, that are not there.
func differs(tenant *v1alpha1.Tenant, held heldKeys) bool {
	if tenant.Status.KeysGeneration > held.generation {
		return true
	}
	return slices.ContainsFunc(tenant.Status.SealingKeys, func(k v1alpha1.SealingKey) bool { return !slices.Contains(held.kids, k.KID) })
}

// writeDiffering writes only what has changed. Until the first bundle is there, nobody reads it.
func (s *Server) writeDiffering(ctx context.Context, text string) error {
	cm := &corev1.ConfigMap{}
	err := s.Client.Get(ctx, client.ObjectKey{Namespace: s.Settings.Namespace, Name: resources.CABundleName}, cm)
	if err != nil {
		return client.IgnoreNotFound(err)
	}
	if cm.Data[resources.DifferingKey] == text {
		return nil
	}
	if text == "" {
		delete(cm.Data, resources.DifferingKey)
	} else {
		if cm.Data == nil {
			cm.Data = map[string]string{}
		}
		cm.Data[resources.DifferingKey] = text
	}
	err = s.Client.Update(ctx, cm)
	if apierrors.IsConflict(err) {
		return nil // another replica; the next look finds out
	}
	return err
}
