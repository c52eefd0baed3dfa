package bot

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	_ "time/tzdata"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/bulk"
	"github.com/lethe-dev/lethe/internal/foreign"
	"github.com/lethe-dev/lethe/internal/reconcile"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/internal/status"
)

// ensureFiles finds out what the bot's pod is made of beside its spec: contents of files that lie in ConfigMaps. They
// are read again once in a while, since the manager watches no ConfigMaps of other people's. Of what was read only a
// digest is kept.
func (r *Reconciler) ensureFiles(ctx context.Context, s *scope) (time.Duration, error) {
	s.sketch = s.bot
	if err := checkPod(s); err != nil {
		return 0, err
	}
	if len(resources.ConfigMapsOf(&s.bot.Spec)) == 0 {
		return 0, nil
	}
	known, ok := r.files.Get(s.bot)
	if due := known.At.Add(reconcile.RereadEvery); !ok || known.Generation != s.bot.Generation || !s.now.Before(due) {
		whole, err := r.withFiles(ctx, s.bot)
		if err != nil {
			return 0, err
		}
		digests := make([]string, len(whole.Spec.Files))
		for i, file := range whole.Spec.Files {
			digests[i] = bulk.File(&whole.Spec, file.Content)
		}
		known.At, known.Value = s.now, digests
		r.files.Put(s.bot, s.now, digests)
	}
	s.sketch = sketchOf(s.bot, known.Value)
	return known.At.Add(reconcile.RereadEvery).Sub(s.now), nil
}

// sketchOf is a bot with what is known of its files in place.
func sketchOf(bot *v1alpha1.BotDeployment, digests []string) *v1alpha1.BotDeployment {
	sketch := *bot
	sketch.Spec.Files = slices.Clone(bot.Spec.Files)
	for i := range sketch.Spec.Files {
		if i < len(digests) && sketch.Spec.Files[i].ConfigMapKeyRef != nil {
			sketch.Spec.Files[i].Content, sketch.Spec.Files[i].ConfigMapKeyRef = digests[i], nil
		}
	}
	return &sketch
}

// withFiles reads the ConfigMaps that a bot's files come from.
func (r *Reconciler) withFiles(ctx context.Context, bot *v1alpha1.BotDeployment) (*v1alpha1.BotDeployment, error) {
	found := map[string]*corev1.ConfigMap{}
	for _, name := range resources.ConfigMapsOf(&bot.Spec) {
		from := &corev1.ConfigMap{}
		err := r.Writer.Live.Get(ctx, client.ObjectKey{Namespace: bot.Namespace, Name: name}, from)
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return nil, reconcile.ProblemFromError(v1alpha1.ConditionWorkloadReady, fmt.Errorf("read ConfigMap %s: %w", name, err))
		}
		found[name] = from
	}
	whole, err := resources.WithFiles(bot, found)
	var refused *resources.FileError
	if errors.As(err, &refused) {
		return nil, &reconcile.Problem{After: reconcile.ForeignObjectWait, Problem: status.Problem{Condition: v1alpha1.ConditionWorkloadReady, Reason: refused.Reason, Stalled: true,
			Message: foreign.Text(refused.Message)}}
	}
	return whole, err
}

// filesDiffer says whether the files of what is to run are others than those of what runs, as the cache has it.
func filesDiffer(desired, cached *appsv1.StatefulSet) bool {
	small := desired.DeepCopy()
	bulk.Strip(small)
	return !maps.Equal(filesIn(small), filesIn(cached))
}

func filesIn(set *appsv1.StatefulSet) map[string]string {
	files := map[string]string{}
	for key, value := range set.Spec.Template.Annotations {
		if strings.HasPrefix(key, v1alpha1.AnnotationFile) {
			files[key] = value
		}
	}
	return files
}

// checkPod finds what the API server could not refuse, and nobody would say.
func checkPod(s *scope) error {
	if zone := s.bot.Spec.TimeZone; zone != "" {
		if _, err := time.LoadLocation(zone); err != nil {
			return &reconcile.Problem{Problem: status.Problem{Condition: v1alpha1.ConditionWorkloadReady, Reason: v1alpha1.ReasonTimeZoneUnknown, Stalled: true,
				Message: fmt.Sprintf("spec.timeZone %s is no zone of the IANA database: use for example Etc/UTC or Europe/Berlin.", zone)}}
		}
	}
	if beyond := resources.BeyondDisk(s.bot, s.tenant); beyond != "" {
		return &reconcile.Problem{Problem: status.Problem{Condition: v1alpha1.ConditionWorkloadReady, Reason: v1alpha1.ReasonQuotaExceeded, Stalled: true, Message: beyond}}
	}
	return nil
}

// noteRestart remembers that this pass restarts a bot because somebody asked for it, and by which name that one
// writes. Who that is stands in the API server's audit log alone.
func (s *scope) noteRestart(live *v1alpha1.BotDeployment) {
	asked := resources.RestartedAt(live)
	if s.running == nil || !reconcile.RunsPods(s.running) || asked == "" || s.running.Spec.Template.Annotations[v1alpha1.AnnotationRestartedAt] == asked {
		return
	}
	s.restart = fmt.Sprintf("spec.restartedAt is %s: the pod is replaced.", asked)
	if by := restartManager(live.ManagedFields); by != "" {
		s.restart = fmt.Sprintf("spec.restartedAt is %s, written by field manager %s: the pod is replaced.", asked, foreign.Line(by, 128))
	}
}

// restartManager is the field manager that spec.restartedAt belongs to. Where several own it, the one that wrote last.
func restartManager(entries []metav1.ManagedFieldsEntry) string {
	by, at := "", time.Time{}
	for _, e := range entries {
		if e.FieldsV1 == nil || !ownsRestartedAt(e.FieldsV1) {
			continue
		}
		if e.Time == nil || !e.Time.Time.Before(at) {
			by = e.Manager
			if e.Time != nil {
				at = e.Time.Time
			}
		}
	}
	return by
}

func ownsRestartedAt(fields *metav1.FieldsV1) bool {
	var owned struct {
		Spec map[string]json.RawMessage `json:"f:spec"`
	}
	if json.Unmarshal(fields.GetRawBytes(), &owned) != nil {
		return false
	}
	_, owns := owned.Spec["f:restartedAt"]
	return owns
}

// tellRestart records the restart as an event, once it was written.
func (r *Reconciler) tellRestart(s *scope) {
	if s.restart != "" {
		r.Recorder.Eventf(s.bot, nil, corev1.EventTypeNormal, v1alpha1.ReasonRestartRequested, "Restart", "%s", s.restart)
	}
}
