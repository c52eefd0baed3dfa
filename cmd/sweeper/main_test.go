package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/plan"
	"github.com/lethe-dev/lethe/internal/report"
)

func TestExitCodesAndReports(t *testing.T) {
	good, err := plan.Encode(plan.Plan{Format: plan.Format, ValidUntil: time.Now().Add(-time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		plan   []byte
		change map[string]string // flags
		code   int
		reason string // empty: no report
	}{
		"a plan that has expired":     {plan: good, reason: v1alpha1.ReasonPlanExpired},
		"a plan that was edited":      {plan: append([]byte(" "), good...), change: map[string]string{"plan-hash": plan.HashBytes(good)}, reason: v1alpha1.ReasonPlanMismatch},
		"a plan of another format":    {plan: []byte(`{"format":1}`), reason: v1alpha1.ReasonPlanMismatch},
		"a plan that is not there":    {change: map[string]string{"plan-hash": "x"}, reason: v1alpha1.ReasonPlanMismatch},
		"an address that is none":     {plan: good, change: map[string]string{"url": "http://keyserver"}, reason: v1alpha1.ReasonLeaseRefused},
		"nowhere to write the report": {plan: good, change: map[string]string{"termination-log": "/does/not/exist"}, code: exitNoReport},
		"a budget of nothing":         {plan: good, change: map[string]string{"time-budget": "0s"}, code: exitNoReport},
		"a flag that does not exist":  {plan: good, change: map[string]string{"force": "true"}, code: exitNoReport},
		"a flag that is missing":      {plan: good, change: map[string]string{"url": ""}, code: exitNoReport},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			flags := map[string]string{
				"url": "https://127.0.0.1:1", "ca-file": filepath.Join(dir, "ca.crt"), "token-file": filepath.Join(dir, "token"),
				"plan": filepath.Join(dir, "plan.json"), "plan-hash": plan.HashBytes(tc.plan), "termination-log": filepath.Join(dir, "report"), "time-budget": "1m",
			}
			if tc.plan != nil {
				if err := os.WriteFile(flags["plan"], tc.plan, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			for name, value := range tc.change {
				flags[name] = value
			}
			var args []string
			for name, value := range flags {
				args = append(args, "--"+name+"="+value)
			}
			var stderr bytes.Buffer
			if code := run(args, &stderr); code != tc.code {
				t.Errorf("exit code %d, want %d\n%s", code, tc.code, &stderr)
			}
			b, err := os.ReadFile(filepath.Join(dir, "report"))
			if tc.reason == "" {
				if err == nil {
					t.Errorf("there is a report: %s", b)
				}
				return
			}
			r, err := report.Decode(string(b))
			if err != nil || r.Outcome != report.Refused || r.Reason != tc.reason || r.Plan != flags["plan-hash"] {
				t.Errorf("%+v, %v", r, err)
			}
		})
	}
}
