package reconcile

import (
	"errors"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/events"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/foreign"
	"github.com/lethe-dev/lethe/test/hostile"
)

// TestForeignWordsInEvents: an Event's note is one clean line that the API server takes.
func TestForeignWordsInEvents(t *testing.T) {
	fake := events.NewFakeRecorder(1)
	FitRecorder{fake}.Eventf(&v1alpha1.Tenant{}, nil, corev1.EventTypeWarning, "Held", "Delete", "%s keeps %v: "+strings.Repeat("x", 2000), hostile.Words(), errors.New(hostile.Words()))
	note := <-fake.Events
	hostile.Check(t, "an Event", note)
	hostile.Reached(t, "an Event", note)
	if len(note) > foreign.MaxText+len("Warning Held ") || strings.Contains(note, "\n") {
		t.Errorf("%d bytes: %q", len(note), note)
	}
}
