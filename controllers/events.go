package controllers

import (
	"fmt"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/events"

	"github.com/lethe-dev/lethe/internal/foreign"
)

// fitRecorder is the one way to an Event: its note is a line that a terminal takes for what it is, and as long as the API server takes.
type fitRecorder struct{ events.EventRecorder }

// Eventf implements events.EventRecorder.
func (r fitRecorder) Eventf(regarding, related runtime.Object, kind, reason, action, note string, args ...any) {
	r.EventRecorder.Eventf(regarding, related, kind, reason, action, "%s", foreign.Line(fmt.Sprintf(note, args...), foreign.MaxText))
}
