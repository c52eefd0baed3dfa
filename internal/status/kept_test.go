package status

import (
	"strings"
	"testing"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/internal/ledger"
	"github.com/lethe-dev/lethe/internal/report"
	"github.com/lethe-dev/lethe/test/lease"
)

// TestWhatCountsAsAReport: only what the keyserver took of the Job's last pod, by the Job's plan, newer than what was
// read before, and named by the pod where it still says something. Everything else has a reason, and no figures.
func TestWhatCountsAsAReport(t *testing.T) {
	plan := strings.Repeat("a", 64)
	canonical, err := report.Encode(report.Report{Plan: plan, Outcome: report.Done, Mode: "Enforce", Deleted: 7})
	if err != nil {
		t.Fatal(err)
	}
	other, err := report.Encode(report.Report{Plan: plan, Outcome: report.Done, Mode: "Enforce", Deleted: 9})
	if err != nil {
		t.Fatal(err)
	}
	mine := ledger.Statement{Namespace: "acme", Name: "chat", Store: "store", Job: "job", Pod: "pod", Plan: plan, Sequence: 8}
	said := func(m report.Message) string {
		b, err := m.Encode()
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	digest := keyapi.DigestReport(canonical)
	type given struct {
		statement ledger.Statement
		canonical []byte
		answer    func(*keyapi.LastReportResponse)
		ended     Ended
		before    int64
	}
	for name, tc := range map[string]struct {
		change func(*given)
		reason string // empty: it counts
		says   string
	}{
		"it is the Job's, and the pod names it": {change: func(*given) {}},
		"the pod is gone":                       {change: func(g *given) { g.ended.PodUID, g.ended.Message = "", "" }},
		"the pod was killed before it named it": {change: func(g *given) { g.ended.Message = "" }},
		"the kubelet has lost the container":    {change: func(g *given) { g.ended.Message = "The container could not be located" }},
		"it was taken, and the answer was lost": {change: func(g *given) { g.ended.Message = said(report.Message{Digest: digest, Reason: "KeyserverUnavailable"}) }},
		"the pod names another":                 {func(g *given) { g.ended.Message = said(report.Message{Digest: keyapi.DigestReport(other)}) }, v1alpha1.ReasonReportForged, "the status of its pods"},
		"it is of another Job, and the pod says why": {func(g *given) {
			g.statement.Job = "another"
			g.ended.Message = said(report.Message{Digest: digest, Reason: "KeyMissing", Text: "restore it"})
		}, v1alpha1.ReasonReportLost, "(KeyMissing): restore it"},
		"it is of another Job, and the pod names one":   {func(g *given) { g.statement.Job = "another" }, v1alpha1.ReasonReportLost, "does not have"},
		"it is of another Job, and the pod is silent":   {func(g *given) { g.statement.Job = "another"; g.ended.Message = "" }, v1alpha1.ReasonReportLost, "left no report"},
		"it is of a pod that another took the place of": {func(g *given) { g.ended.PodUID, g.ended.Message = "later", "" }, v1alpha1.ReasonReportLost, "left no report"},
		"it is about another plan":                      {func(g *given) { g.statement.Plan = strings.Repeat("b", 64) }, v1alpha1.ReasonReportForged, "another plan"},
		"the report itself is about another plan":       {func(g *given) { g.statement.Plan = strings.Repeat("b", 64); g.ended.PlanHash = g.statement.Plan }, v1alpha1.ReasonReportLost, "another plan"},
		"it is one that was read before":                {func(g *given) { g.before = 8 }, v1alpha1.ReasonReportReplayed, "report 8 of the store, and 8 was read before"},
		"it is an earlier one":                          {func(g *given) { g.before = 9; g.statement.Job = "another" }, v1alpha1.ReasonReportReplayed, "find out who may write in lethe-keys"},
		"it is about another store":                     {func(g *given) { g.statement.Store = "another" }, v1alpha1.ReasonReportForged, "another store"},
		"it is another report than the signed one":      {func(g *given) { g.statement.Report = keyapi.DigestReport(other) }, v1alpha1.ReasonReportForged, "not the one that the statement is about"},
		"the statement was cut":                         {func(g *given) { g.answer = func(a *keyapi.LastReportResponse) { a.Statement = a.Statement[:40] } }, v1alpha1.ReasonReportForged, "not whole"},
		"the report was cut":                            {func(g *given) { g.answer = func(a *keyapi.LastReportResponse) { a.Report = a.Report[:9] } }, v1alpha1.ReasonReportForged, "not whole"},
		"none was ever taken":                           {func(g *given) { g.answer = func(a *keyapi.LastReportResponse) { *a = keyapi.LastReportResponse{} } }, v1alpha1.ReasonReportLost, "does not have"},
		"it is no report":                               {func(g *given) { g.canonical = []byte("{}"); g.ended.Message = "" }, v1alpha1.ReasonReportLost, "no readable report"},
	} {
		t.Run(name, func(t *testing.T) {
			g := given{statement: mine, canonical: canonical, ended: Ended{JobUID: "job", PlanHash: plan, PodUID: "pod", Message: said(report.Message{Digest: digest})}, before: 7}
			tc.change(&g)
			answer, _, err := lease.Signed(g.statement, g.canonical)
			if err != nil {
				t.Fatal(err)
			}
			if g.answer != nil {
				g.answer(&answer)
			}
			sweep := KeptReportOf(answer, "store").Of(g.ended, g.before)
			if sweep.JobUID != "job" || sweep.Reason != tc.reason || (sweep.Err == nil) != (tc.reason == "") || (sweep.Report.Deleted == 7) != (tc.reason == "") {
				t.Fatalf("%+v", sweep)
			}
			if tc.reason == "" {
				if sweep.Sequence != 8 {
					t.Errorf("report %d, want 8", sweep.Sequence)
				}
				return
			}
			if !strings.Contains(sweep.Err.Error(), tc.says) {
				t.Errorf("%q, want %q in it", sweep.Err, tc.says)
			}
			o := makeObserved()
			sweep.FinishedAt, sweep.Current = storeNow, true
			o.Measured = Measure(o.Measured, sweep, o.Result.Plan, o.PlanDigest)
			if got := states(Store(o)); got["Compliant"] != "Unknown "+tc.reason || got["Reachable"] != "Unknown "+tc.reason {
				t.Errorf("it says %v", got)
			}
		})
	}
}
