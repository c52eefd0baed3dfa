package kube

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/util/retry"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/podspec"
)

// askAgainAfter is how long a StatefulSet or CronJob is left alone that admission made into something that no pod
// gets credentials for. It is asked for again then, since the cluster may have been told better.
const askAgainAfter = 10 * time.Minute

// Admission is what is known of a cluster whose admission changes the StatefulSets and CronJobs that are written.
type Admission struct {
	// Annotations that pods may carry in this installation, beside podspec's own.
	Annotations []string
	// Clock.
	Clock clock.PassiveClock
	// Tell hears of each child and field once. A change that is tolerated leaves the pods what they are to the
	// keyserver.
	Tell func(kind string, child client.Object, field string, tolerated bool)
}

// admittedNote stands in the annotation lethe.dev/admitted of a child that admission changed while it was written.
// While the generation is the same nobody has written the spec since, so what differs is admission's doing and no
// hand's; and while what is asked for is the same, asking again would end the same. Nothing is trusted to it: the
// keyserver compares for itself.
type admittedNote struct {
	// Generation of the child after it was written.
	Generation int64 `json:"generation"`
	// Asked is a digest of the spec that was asked for.
	Asked string `json:"asked"`
	// Field that admission changed, the first one.
	Field string `json:"field"`
	// Tried is when, where the outcome is not tolerated.
	Tried time.Time `json:"tried,omitzero"`
}

func noteOf(object client.Object) (admittedNote, bool) {
	var note admittedNote
	text := object.GetAnnotations()[v1alpha1.AnnotationAdmitted]
	if text == "" || json.Unmarshal([]byte(text), &note) != nil || note.Asked == "" {
		return admittedNote{}, false
	}
	return note, true
}

// templateOf is where a kind has its pod template, or nil.
func templateOf(object client.Object) *corev1.PodTemplateSpec {
	switch o := object.(type) {
	case *appsv1.StatefulSet:
		return &o.Spec.Template
	case *batchv1.CronJob:
		return &o.Spec.JobTemplate.Spec.Template
	default:
		return nil
	}
}

// Asked is a digest of an object's spec. Long texts, of which the cache holds digests that are another process's own,
// count for nothing in it: it is the same whether the object was stripped or not. What they are is compared beside it.
func Asked(object client.Object) string {
	var content map[string]any
	text, err := json.Marshal(object)
	if err == nil {
		err = json.Unmarshal(text, &content)
	}
	if err == nil {
		text, err = json.Marshal(withoutLongTexts(content["spec"]))
	}
	if err != nil {
		return "" // types of Kubernetes' own can be marshalled
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:8])
}

// withoutLongTexts is a value with the same mark in the place of each text that package bulk may have replaced.
func withoutLongTexts(value any) any {
	const longest, mark = 64, "\x00"
	switch v := value.(type) {
	case string:
		if len(v) > longest || strings.HasPrefix(v, mark) {
			return mark
		}
	case []any:
		for i := range v {
			v[i] = withoutLongTexts(v[i])
		}
	case map[string]any:
		for key := range v {
			v[key] = withoutLongTexts(v[key])
		}
	}
	return value
}

// isAdmitted says of a child that differs from what is desired that writing it would change nothing: it is what the
// API server made of the same wish, and no hand's. What of that is not tolerated is tried again at times.
func (w Writer) isAdmitted(desired, live client.Object) bool {
	if w.Admission == nil {
		return false
	}
	note, ok := noteOf(live)
	if !ok || note.Generation != live.GetGeneration() || metadataDrift(desired, live) != "" || note.Asked != Asked(w.stripped(desired)) {
		return false
	}
	if w.tolerates(desired, live) {
		return true
	}
	since := w.Admission.Clock.Now().Sub(note.Tried)
	return since >= 0 && since < askAgainAfter
}

// tolerates says whether a child is as desired apart from what its pods may differ by.
func (w Writer) tolerates(desired, live client.Object) bool {
	want, got := templateOf(desired), templateOf(live)
	if want == nil || got == nil || podspec.MatchTemplate(*want, *got, w.Admission.Annotations) != nil {
		return false
	}
	probe := copyOf(desired)
	got.DeepCopyInto(templateOf(probe))
	return Drift(probe, live) == ""
}

// noteAdmission looks at the answer to a write. Where admission made something else of it, that is noted down on the
// child, so that it is not taken for a hand's doing, and told. A cluster that changes nothing costs nothing.
func noteAdmission[T client.Object](ctx context.Context, w Writer, kind string, desired, written T) (T, error) {
	if w.Admission == nil || templateOf(desired) == nil {
		return written, nil
	}
	field := Drift(desired, written)
	before, known := noteOf(written)
	if field == "" && !known {
		return written, nil
	}
	note := admittedNote{Generation: written.GetGeneration(), Asked: Asked(w.stripped(desired)), Field: field}
	tolerated := field == "" || w.tolerates(desired, written)
	if !tolerated {
		note.Tried = w.Admission.Clock.Now().UTC().Truncate(time.Second)
	}
	marked, err := writeNote(ctx, w, written, note)
	if err != nil {
		return written, err
	}
	if field != "" && (before.Field != field || before.Tried.IsZero() != tolerated) {
		log.FromContext(ctx).Info("Admission changed "+kind, "object", client.ObjectKeyFromObject(desired), "field", field, "tolerated", tolerated)
		w.Admission.Tell(kind, desired, field, tolerated)
	}
	return marked, nil
}

// writeNote puts a note on a child, or takes it off where there is nothing to note. Others write the child's status
// at the same time; once somebody has written its spec the note is true no more, and is left out.
func writeNote[T client.Object](ctx context.Context, w Writer, written T, note admittedNote) (T, error) {
	text, err := json.Marshal(note)
	if err != nil {
		return written, fmt.Errorf("encode a note: %w", err)
	}
	marked := copyOf(written)
	err = retry.RetryOnConflict(retry.DefaultRetry, func() error {
		annotations := overlay(marked.GetAnnotations(), map[string]string{v1alpha1.AnnotationAdmitted: string(text)})
		if note.Field == "" {
			delete(annotations, v1alpha1.AnnotationAdmitted)
		}
		marked.SetAnnotations(annotations)
		err := w.Client.Update(ctx, marked, FieldOwner)
		if err == nil {
			return nil
		}
		err = fmt.Errorf("update %s: %w", written.GetName(), err)
		if !apierrors.IsConflict(err) {
			return err
		}
		fresh, found, readErr := read(ctx, w.Live, written)
		switch {
		case readErr != nil:
			return readErr
		case !found || fresh.GetUID() != written.GetUID() || fresh.GetGeneration() != note.Generation:
			return nil
		}
		marked = fresh
		return err
	})
	if err != nil {
		return written, fmt.Errorf("note down what admission changed: %w", err)
	}
	return marked, nil
}
