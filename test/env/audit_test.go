package env

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestWritesGoesOn: the audit log is read once, from where it was read to, and a line that is half written is read
// when it is whole.
func TestWritesGoesOn(t *testing.T) {
	e := &Env{auditLog: filepath.Join(t.TempDir(), "audit.jsonl")}
	file, err := os.Create(e.auditLog)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	since := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	const first = `{"verb":"create","user":{"username":"lethe"},"objectRef":{"resource":"pods","namespace":"a","name":"1"},"requestReceivedTimestamp":"2026-01-01T00:00:01Z"}`
	const second = `{"verb":"update","user":{"username":"root"},"impersonatedUser":{"username":"lethe"},"objectRef":{"resource":"pods","subresource":"status"},"requestReceivedTimestamp":"2026-01-01T00:00:02Z"}`
	for _, step := range []struct {
		text string
		want int
	}{
		{first + "\n" + second[:30], 1},
		{second[30:], 1},
		{"\n", 2},
		{"", 2},
		{`{"verb":"update","user":{"username":"lethe"},"objectRef":{"resource":"leases"},"requestReceivedTimestamp":"2026-01-01T00:00:03Z"}` + "\n" +
			`{"verb":"update","user":{"username":"eve"},"objectRef":{"resource":"pods"},"requestReceivedTimestamp":"2026-01-01T00:00:03Z"}` + "\n" +
			`{"verb":"update","user":{"username":"lethe"},"objectRef":{"resource":"pods"},"requestReceivedTimestamp":"2025-01-01T00:00:03Z"}` + "\n", 2},
	} {
		if _, err := file.WriteString(step.text); err != nil {
			t.Fatal(err)
		}
		writes, err := e.Writes(since, "lethe")
		if err != nil || len(writes) != step.want {
			t.Errorf("after %q: %v, %v, want %d", step.text, writes, err, step.want)
		}
	}
	writes, err := e.Writes(since.Add(2*time.Second), "")
	if err != nil || len(writes) != 2 || writes[0].Resource != "pods/status" || writes[0].User != "lethe" {
		t.Errorf("%v, %v", writes, err)
	}
	if _, err := file.WriteString("no line of it\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Writes(since, ""); err == nil {
		t.Error("what is no line of the log is read")
	}
}
