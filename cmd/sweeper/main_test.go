package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/internal/plan"
	"github.com/lethe-dev/lethe/internal/report"
	"github.com/lethe-dev/lethe/test/lease"
)

// started is a sweeper that can be run against a stand-in for the keyserver.
type started struct {
	flags  map[string]string
	server *lease.Server
	stderr bytes.Buffer
}

func start(t *testing.T, p []byte) *started {
	t.Helper()
	dir := t.TempDir()
	server, err := lease.Start(dir, "unused")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	s := &started{server: server, flags: map[string]string{
		"url": server.URL, "ca-file": server.CAFile, "token-file": server.TokenFile, "plan": filepath.Join(dir, "plan.json"),
		"plan-hash": plan.HashBytes(p), "termination-log": filepath.Join(dir, "termination-log"), "time-budget": "1m",
	}}
	if p != nil {
		if err := os.WriteFile(s.flags["plan"], p, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func (s *started) run() int {
	var args []string
	for name, value := range s.flags {
		args = append(args, "--"+name+"="+value)
	}
	return run(args, &s.stderr)
}

// expired is a plan by which nothing is done.
func expired(t *testing.T) []byte {
	t.Helper()
	b, err := plan.Encode(plan.Plan{Format: plan.Format, ValidUntil: time.Now().Add(-time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestExitCodesAndReports(t *testing.T) {
	good := expired(t)
	tests := map[string]struct {
		plan   []byte
		change map[string]string // flags
		code   int
		reason string // of the report; empty: none
		says   string // the termination message's reason
	}{
		"a plan that has expired":      {plan: good, reason: v1alpha1.ReasonPlanExpired},
		"a plan that was edited":       {plan: append([]byte(" "), good...), change: map[string]string{"plan-hash": plan.HashBytes(good)}, reason: v1alpha1.ReasonPlanMismatch},
		"a plan of another format":     {plan: []byte(`{"format":1}`), reason: v1alpha1.ReasonPlanMismatch},
		"a plan that is not there":     {change: map[string]string{"plan-hash": strings.Repeat("0", 64)}, reason: v1alpha1.ReasonPlanMismatch},
		"an address that is none":      {plan: good, change: map[string]string{"url": "http://keyserver"}, code: exitNoReport, says: v1alpha1.ReasonKeyserverUnavailable},
		"nowhere to write the message": {plan: good, change: map[string]string{"termination-log": "/does/not/exist"}, code: exitNoReport, reason: v1alpha1.ReasonPlanExpired},
		"a budget of nothing":          {plan: good, change: map[string]string{"time-budget": "0s"}, code: exitNoReport},
		"a flag that does not exist":   {plan: good, change: map[string]string{"force": "true"}, code: exitNoReport},
		"a flag that is missing":       {plan: good, change: map[string]string{"url": ""}, code: exitNoReport},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			s := start(t, tc.plan)
			for name, value := range tc.change {
				s.flags[name] = value
			}
			if code := s.run(); code != tc.code {
				t.Errorf("exit code %d, want %d\n%s", code, tc.code, &s.stderr)
			}
			canonical, taken := s.server.Report()
			if (taken == 1) != (tc.reason != "") {
				t.Fatalf("%d reports were taken: %s", taken, canonical)
			}
			if tc.reason != "" {
				r, err := report.Read(string(canonical), s.flags["plan-hash"])
				if err != nil || r.Outcome != report.Refused || r.Reason != tc.reason {
					t.Errorf("%+v, %v", r, err)
				}
			}
			b, err := os.ReadFile(s.flags["termination-log"])
			if tc.says == "" && (taken == 0 || tc.code == exitNoReport) {
				if err == nil {
					t.Errorf("there is a message: %s", b)
				}
				return
			}
			m, err := report.DecodeMessage(string(b))
			if err != nil || m.Reason != tc.says || tc.says == "" && m.Digest != keyapi.DigestReport(canonical) {
				t.Errorf("%+v, %v", m, err)
			}
		})
	}
}
