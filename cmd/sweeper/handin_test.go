package main

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/internal/ledger"
	"github.com/lethe-dev/lethe/internal/report"
	"github.com/lethe-dev/lethe/internal/status"
)

// soon lets hand in try at once, and give up after a while.
func soon(t *testing.T, within time.Duration) {
	t.Helper()
	was, again := handInWithin, handInAgain
	handInWithin, handInAgain = within, time.Millisecond
	t.Cleanup(func() { handInWithin, handInAgain = was, again })
}

// TestAReportIsHandedInUntilItIsTaken: the first tries fail before the keyserver has taken it, or after, and it is
// taken once; the message that names it is written when that is known, and not before.
func TestAReportIsHandedInUntilItIsTaken(t *testing.T) {
	soon(t, time.Minute)
	s := start(t, expired(t))
	var tries atomic.Int32
	early := func() *keyapi.Error {
		if _, err := os.Stat(s.flags["termination-log"]); err == nil {
			t.Error("the termination message was there before the report was taken")
		}
		if tries.Add(1) > 5 {
			return nil
		}
		return &keyapi.Error{Reason: v1alpha1.ReasonInternal, RetryAfter: 1}
	}
	s.server.Refuse = func() *keyapi.Error {
		if tries.Load() >= 1 {
			return nil
		}
		return early()
	}
	s.server.Lose = func() *keyapi.Error {
		if tries.Load() >= 2 {
			return nil
		}
		return early()
	}
	if code := s.run(); code != 0 {
		t.Fatalf("exit code %d\n%s", code, &s.stderr)
	}
	canonical, taken := s.server.Report()
	b, err := os.ReadFile(s.flags["termination-log"])
	if err != nil {
		t.Fatal(err)
	}
	if m, err := report.DecodeMessage(string(b)); err != nil || m.Digest != keyapi.DigestReport(canonical) || m.Reason != "" || taken != 1 || tries.Load() != 2 {
		t.Errorf("%+v, %v, taken %d times after %d failures", m, err, taken, tries.Load())
	}
}

// once answers the first time as one does, and then as the other.
func once(first, then func() *keyapi.Error) func() *keyapi.Error {
	var asked atomic.Bool
	return func() *keyapi.Error {
		if asked.Swap(true) {
			return then()
		}
		return first()
	}
}

// TestNoKeyserverAtTheEnd: a sweep whose report nobody takes says so with its exit code and its termination message,
// and what it did. It gives up within its time, and at once where asking again is of no use.
func TestNoKeyserverAtTheEnd(t *testing.T) {
	r := report.Report{Plan: strings.Repeat("a", 64), Outcome: report.Done, Mode: "Enforce", Deleted: 12}
	for name, tc := range map[string]struct {
		within time.Duration
		refuse func() *keyapi.Error
		down   bool
		stop   bool
		hangs  bool // from the second time on
		reason string
	}{
		"it is down until the time is over": {within: 50 * time.Millisecond, down: true, reason: v1alpha1.ReasonKeyserverUnavailable},
		"it is down, and the pod is to end": {within: time.Hour, down: true, stop: true, reason: v1alpha1.ReasonKeyserverUnavailable},
		"it cannot take it yet": {within: 900 * time.Millisecond, reason: v1alpha1.ReasonKEKUnavailable, refuse: func() *keyapi.Error {
			return &keyapi.Error{Reason: v1alpha1.ReasonKEKUnavailable, Message: "the KEK does not answer", RetryAfter: 1}
		}},
		"it cannot take it yet, and does not answer when the time is over": {within: 2500 * time.Millisecond, reason: v1alpha1.ReasonKEKUnavailable, hangs: true, refuse: func() *keyapi.Error {
			return &keyapi.Error{Reason: v1alpha1.ReasonKEKUnavailable, Message: "the KEK does not answer", RetryAfter: 1}
		}},
		"it never will": {within: time.Hour, reason: v1alpha1.ReasonKeyMissing, refuse: func() *keyapi.Error {
			return &keyapi.Error{Reason: v1alpha1.ReasonKeyMissing, Message: "restore the backup"}
		}},
		"another report of the pod was taken": {within: time.Hour, reason: v1alpha1.ReasonReportReplayed, refuse: func() *keyapi.Error {
			return &keyapi.Error{Reason: v1alpha1.ReasonReportReplayed, Message: "a report counts once"}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			soon(t, tc.within)
			was := handInAsked
			handInAsked = time.Millisecond
			t.Cleanup(func() { handInAsked = was })
			s := start(t, nil)
			s.server.Refuse = tc.refuse
			if tc.hangs {
				over := make(chan struct{})
				t.Cleanup(func() { close(over) })
				s.server.Refuse = once(tc.refuse, func() *keyapi.Error { <-over; return nil })
			}
			client, err := s.server.Client()
			if err != nil {
				t.Fatal(err)
			}
			if tc.down {
				s.server.Close()
			}
			stop := make(chan struct{})
			if tc.stop {
				close(stop)
			}
			m, err := options{planHash: r.Plan}.handIn(slog.New(slog.DiscardHandler), client, r, stop)
			if err == nil || m.Reason != tc.reason || !strings.Contains(m.Text, "ended Done and deleted 12 row(s)") || len(m.Digest) != 64 {
				t.Errorf("%+v, %v", m, err)
			}
			if err := write(s.flags["termination-log"], m); err != nil {
				t.Fatal(err)
			}
			b, err := os.ReadFile(s.flags["termination-log"])
			if err != nil {
				t.Fatal(err)
			}
			lost := status.KeptReport{}.Of(status.Ended{JobUID: "job", PlanHash: r.Plan, PodUID: "pod", Message: string(b)}, 3)
			if lost.Reason != v1alpha1.ReasonReportLost || !strings.Contains(lost.Err.Error(), tc.reason) || !strings.Contains(lost.Err.Error(), "deleted 12 row(s)") {
				t.Errorf("the manager says %s: %v", lost.Reason, lost.Err)
			}
		})
	}

	t.Run("the exit code", func(t *testing.T) {
		soon(t, time.Hour)
		s := start(t, expired(t))
		s.server.Refuse = func() *keyapi.Error { return &keyapi.Error{Reason: v1alpha1.ReasonKeyMissing} }
		if code := s.run(); code != exitNoReport {
			t.Errorf("exit code %d, want %d\n%s", code, exitNoReport, &s.stderr)
		}
	})
}

// wide is a report of so many datasets with four rules each, none of whose numbers repeat.
func wide(datasets int, message string) report.Report {
	dice := rand.New(rand.NewPCG(1, 2))
	r := report.Report{Plan: strings.Repeat("a", 64), Outcome: report.Done, Mode: "Enforce", Identity: v1alpha1.StoreIdentity{Kind: "PostgresSystemIdentifier", Value: "7300"}, Database: "chat", Deleted: 12}
	for i := range datasets {
		d := report.Dataset{Name: fmt.Sprintf("dataset-%03d-%s", i, strings.Repeat("x", 40)), Rows: dice.Int64N(1 << 40), OldestAgeSeconds: dice.Int64N(1 << 30)}
		for n := range 4 {
			said := ""
			if message != "" {
				said = fmt.Sprintf("%s %x%x", message, dice.Uint64(), dice.Uint64())
			}
			d.Rules = append(d.Rules, report.Rule{Policy: strings.Repeat("p", 50), Rule: fmt.Sprintf("rule-%d", n), Eligible: dice.Int64N(1 << 30), Overdue: dice.Int64N(1 << 30),
				OldestOverdueSeconds: dice.Int64N(1 << 25), KeptByChild: dice.Int64N(1 << 20), Deleted: dice.Int64N(1 << 20), Problem: v1alpha1.Problem{Reason: reasonOf(said), Message: said}})
		}
		r.Datasets = append(r.Datasets, d)
	}
	return r
}

func reasonOf(message string) string {
	if message == "" {
		return ""
	}
	return v1alpha1.ReasonLocked
}

// TestNoReportIsCut: what was measured of 512 datasets under four rules each arrives with all of its 2048 lines. A
// report that is longer than any may be is not cut either: it says so, and what the sweep came to.
func TestNoReportIsCut(t *testing.T) {
	for name, tc := range map[string]struct {
		r     report.Report
		lines int
		why   string
	}{
		"2048 lines":                        {wide(512, ""), 2048, ""},
		"2048 lines, each with its problem": {wide(512, "the table is locked by another session, and that went on for longer than the sweep waits"), 2048, ""},
		"more than a report may be":         {wide(8192, "why"), 0, v1alpha1.ReasonLimitReached},
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t, nil)
			s.server.Whose = ledger.Statement{Namespace: "acme", Name: "chat", Store: "store", Job: "job", Pod: "pod", Plan: tc.r.Plan}
			client, err := s.server.Client()
			if err != nil {
				t.Fatal(err)
			}
			m, err := options{planHash: tc.r.Plan}.handIn(slog.New(slog.DiscardHandler), client, tc.r, nil)
			if err != nil || m.Reason != "" {
				t.Fatalf("%+v, %v", m, err)
			}
			message, err := m.Encode()
			if err != nil || len(message) > 100 {
				t.Fatalf("a termination message of %d bytes, %v", len(message), err)
			}
			answer, err := client.LastReport(t.Context(), keyapi.ObjectRef{UID: "store"})
			if err != nil {
				t.Fatal(err)
			}
			got := status.KeptReportOf(answer, "store").Of(status.Ended{JobUID: "job", PlanHash: tc.r.Plan, PodUID: "pod", Message: string(message)}, 0)
			lines := 0
			for _, d := range got.Report.Datasets {
				lines += len(d.Rules)
			}
			if got.Err != nil || lines != tc.lines || got.Report.Reason != tc.why || got.Report.Deleted != 12 || got.Sequence != 1 {
				t.Errorf("%d lines, %s %s, %d deleted, number %d, %v", lines, got.Report.Reason, got.Report.Message, got.Report.Deleted, got.Sequence, got.Err)
			}
			if tc.why != "" && (got.Report.Outcome != report.Failed || !strings.Contains(got.Report.Message, "32768 measurements do not fit")) {
				t.Errorf("%s: %s", got.Report.Outcome, got.Report.Message)
			}
		})
	}
}
