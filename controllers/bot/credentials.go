package bot

import (
	"context"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/reconcile"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/internal/status"
)

// storedCredentials is what the keyserver last said about a bot's credentials.
type storedCredentials struct {
	secret     string
	generation int64 // of the keyserver's document
	condition  metav1.Condition
	problem    *status.Problem
}

// ensureCredentials has the bot's credentials opened, encrypted and stored. The keyserver is asked when the spec has
// changed, and otherwise once in a while.
func (r *Reconciler) ensureCredentials(ctx context.Context, s *scope) (time.Duration, error) {
	if err := r.findRunning(ctx, s); err != nil {
		return 0, err
	}
	s.observed.Plaintext = resources.Plaintext(s.bot)
	if len(s.bot.Spec.Credentials) == 0 {
		s.observed.Credentials = status.NoCredentials()
		s.bot.Status.CredentialsSecret = ""
		return 0, nil
	}
	known, wait, err := r.credentials(ctx, s)
	if err != nil {
		// Stopping a bot needs nobody's leave.
		running := runningSecret(s.running)
		if running == "" || !resources.IsSuspended(s.bot, s.tenant) {
			return 0, err
		}
		s.addProblem(err)
		s.secret = running
		return reconcile.KeyserverWait, nil
	}
	s.observed.Credentials = &known.condition
	s.secret = known.secret
	s.bot.Status.CredentialsSecret = known.secret
	s.bot.Status.CredentialsGeneration = max(s.bot.Status.CredentialsGeneration, known.generation)
	switch {
	case known.problem != nil && known.secret == "":
		return wait, &reconcile.Problem{Problem: *known.problem, After: wait}
	case known.problem != nil:
		s.observed.Problem = known.problem
	}
	return wait, nil
}

// credentials returns what the keyserver says, or said not too long ago, and when it must be asked again.
func (r *Reconciler) credentials(ctx context.Context, s *scope) (storedCredentials, time.Duration, error) {
	last, ok := r.stored.Get(s.bot)
	every := askEvery(s.bot, last.Value)
	if !ok {
		// After a restart the status of a bot that was well is believed for a while, a different one for each bot.
		if before := meta.FindStatusCondition(s.bot.Status.Conditions, v1alpha1.ConditionCredentialsReady); isCurrent(before, s) {
			last = reconcile.Response[storedCredentials]{Generation: s.bot.Generation, At: s.now.Add(-reconcile.Jitter(s.bot.UID, every))}
			last.Value = storedCredentials{secret: s.bot.Status.CredentialsSecret, generation: s.bot.Status.CredentialsGeneration, condition: *before}
			r.stored.Put(s.bot, last.At, last.Value)
			ok = true
		}
	}
	if due := last.At.Add(every); ok && last.Generation == s.bot.Generation && s.now.Before(due) {
		return last.Value, due.Sub(s.now), nil
	}
	said, err := reconcile.AskCredentials(ctx, r.Keys, r.Doubts, resources.KindBotDeployment, s.bot, s.tenant)
	if err != nil {
		return storedCredentials{}, 0, err
	}
	condition, refused := status.Credentials(said)
	now := storedCredentials{secret: said.Secret, generation: said.Generation, condition: *condition, problem: refused}
	r.stored.Put(s.bot, s.now, now)
	return now, askEvery(s.bot, now), nil
}

// isCurrent says whether a condition of an earlier pass still speaks of what runs.
func isCurrent(c *metav1.Condition, s *scope) bool {
	return c != nil && c.Status == metav1.ConditionTrue && c.ObservedGeneration == s.bot.Generation &&
		s.bot.Status.CredentialsSecret != "" && s.bot.Status.CredentialsSecret == runningSecret(s.running)
}

// askEvery is how long an answer of the keyserver is good for.
func askEvery(bot *v1alpha1.BotDeployment, last storedCredentials) time.Duration {
	if last.problem != nil && (last.problem.Reason == v1alpha1.ReasonSecretMissing || last.problem.Reason == v1alpha1.ReasonSecretNotShared) {
		return reconcile.ForeignObjectWait
	}
	for _, credential := range bot.Spec.Credentials {
		if credential.SecretKeyRef != nil {
			return reconcile.RereadEvery
		}
	}
	if last.problem != nil {
		return reconcile.RereadEvery
	}
	return reconcile.VerifyEvery
}

// findRunning reads the bot's StatefulSet as it is.
func (r *Reconciler) findRunning(ctx context.Context, s *scope) error {
	set, err := setOfBot(ctx, r.Writer.Client, s.bot)
	s.running = set
	return reconcile.ProblemFromError(v1alpha1.ConditionWorkloadReady, err)
}

func runningSecret(set *appsv1.StatefulSet) string {
	if set == nil {
		return ""
	}
	return set.Spec.Template.Annotations[v1alpha1.AnnotationCredentials]
}
