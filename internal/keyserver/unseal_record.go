package keyserver

import (
	"context"
	"errors"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/resources"
)

// uidsOnRecord refuses while the Tenant's status names other user ids than the tenant's document: the pod is compared
// with what is rendered out of that status, and two tenants that run as one user use up each other's share of the node.
func (s *Server) uidsOnRecord(ctx context.Context, tenant *v1alpha1.Tenant) error {
	if resources.BotUID(tenant) == 0 {
		return later(v1alpha1.ReasonNotReady, 5, "Tenant %s has no range of user ids yet", tenant.Name)
	}
	keys, err := s.keys.KeysOf(ctx, tenant)
	if err != nil {
		return err
	}
	if v1alpha1.UIDRange(keys.Doc.UIDRange) != *tenant.Status.UIDRange {
		return later(v1alpha1.ReasonPodMismatch, 15, "the status of Tenant %s names other user ids than the keyserver has on record: it is put right with the next call for the Tenant", tenant.Name)
	}
	return nil
}

// claimOnRecord refuses a pod whose volume is not on record as this bot's: what is in it is somebody else's data, and
// whoever had it mounted here could leave in it what reads the credentials.
func (s *Server) claimOnRecord(ctx context.Context, bot *v1alpha1.BotDeployment, tenant *v1alpha1.Tenant) error {
	if bot.Spec.Storage == nil {
		return nil
	}
	claim := &corev1.PersistentVolumeClaim{}
	name := resources.BotClaimName(bot)
	err := s.Client.Get(ctx, client.ObjectKey{Namespace: bot.Namespace, Name: name}, claim)
	if apierrors.IsNotFound(err) {
		return later(v1alpha1.ReasonForeignVolume, 5, "PersistentVolumeClaim %s does not exist", name)
	}
	if err != nil {
		return err
	}
	if !resources.IsClaimOf(claim, bot, tenant) {
		return later(v1alpha1.ReasonForeignVolume, 5, "PersistentVolumeClaim %s is not on record as this bot's", name)
	}
	return nil
}

// withFiles is the bot with the contents of its files, as they are now: what the manager put into the pod is held
// against them.
func (s *Server) withFiles(ctx context.Context, bot *v1alpha1.BotDeployment) (*v1alpha1.BotDeployment, error) {
	found := map[string]*corev1.ConfigMap{}
	for _, name := range resources.ConfigMapsOf(&bot.Spec) {
		from := &corev1.ConfigMap{}
		err := s.Client.Get(ctx, client.ObjectKey{Namespace: bot.Namespace, Name: name}, from)
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		found[name] = from
	}
	whole, err := resources.WithFiles(bot, found)
	var refused *resources.FileError
	if errors.As(err, &refused) {
		return nil, later(refused.Reason, 15, "%s", refused.Message)
	}
	return whole, err
}
