package report

import (
	"encoding/json"
	"fmt"

	"github.com/lethe-dev/lethe/internal/foreign"
)

// Message is what a sweep leaves as the termination message of its container: which report it handed in, or that it
// could not, and why. The report itself is with the keyserver: whoever writes the status of a pod makes no report.
type Message struct {
	Format int    `json:"v"`             // 3: earlier ones were the report itself
	Digest string `json:"report"`        // SHA-256 of the report's canonical bytes, in hex
	Reason string `json:"why,omitempty"` // why the report was not taken; one of api/v1alpha1's reasons
	Text   string `json:"msg,omitempty"` // for people
}

const (
	messageFormat = 3
	maxText       = 400
)

// Encode writes the message: about 90 bytes where the report was taken, and less than the 4096 that a kubelet keeps in
// any case.
func (m Message) Encode() ([]byte, error) {
	m.Format, m.Text = messageFormat, foreign.Line(m.Text, maxText)
	b, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode the termination message: %w", err)
	}
	return b, nil
}

// DecodeMessage reads a termination message. The pod that wrote it may be broken into, and others may have written it:
// the kubelet has words of its own for a container that it could not start or has lost.
func DecodeMessage(text string) (Message, error) {
	var m Message
	if err := json.Unmarshal([]byte(text), &m); err != nil || m.Format != messageFormat || len(m.Digest) != 64 || !isDigest(m.Digest) || !isWord(m.Reason) {
		return Message{}, fmt.Errorf("%w: %d bytes that are no termination message of a sweep", ErrUnreadable, len(text))
	}
	m.Text = foreign.Line(m.Text, maxText)
	return m, nil
}
