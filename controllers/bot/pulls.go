package bot

import (
	"context"

	"github.com/lethe-dev/lethe/internal/reconcile"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/internal/status"
)

// explainPull adds to a bot's message what its images are pulled with, where the registry asked who it is.
func (r *Reconciler) explainPull(ctx context.Context, s *scope, w *status.Workload) {
	if !w.AsksWho {
		return
	}
	w.Message += " " + reconcile.PullSecretsSentence(ctx, r.Keys, r.Settings, resources.KindBotDeployment, s.bot, s.tenant)
}
