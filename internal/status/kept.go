package status

import (
	"errors"
	"fmt"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/internal/ledger"
	"github.com/lethe-dev/lethe/internal/report"
)

// KeptReport is the last report of a store that the keyserver took, and what it signed about it; or why there is none
// that counts. The zero value is that none was ever taken.
type KeptReport struct {
	Statement ledger.Statement
	canonical []byte

	Reason string
	Err    error
}

// NoKeptReport is that the keyserver has none that counts, and why.
func NoKeptReport(reason string, err error) KeptReport { return KeptReport{Reason: reason, Err: err} }

// KeptReportOf reads what the keyserver answered about a store. That the statement is signed the keyserver has looked
// itself, and what it answers comes over a connection that it is known by.
func KeptReportOf(answer keyapi.LastReportResponse, storeUID string) KeptReport {
	if answer.Statement == "" && len(answer.Report) == 0 {
		return KeptReport{}
	}
	forged := func(err error) KeptReport {
		return NoKeptReport(v1alpha1.ReasonReportForged, fmt.Errorf("what the keyserver keeps of the last report is not whole: %w", err))
	}
	statement, err := ledger.ReadStatement(answer.Statement)
	if err != nil {
		return forged(err)
	}
	canonical, err := keyapi.UnpackReport(answer.Report)
	if err != nil {
		return forged(err)
	}
	if statement.Store != storeUID {
		return forged(errors.New("the statement is about another store"))
	}
	if statement.Report != keyapi.DigestReport(canonical) {
		return forged(errors.New("the report is not the one that the statement is about"))
	}
	return KeptReport{Statement: statement, canonical: canonical}
}

// Ended is what is left of a Job that has ended.
type Ended struct {
	JobUID   string
	PlanHash string // of the plan that it was made to run
	// PodUID and Message are those of the Job's last pod; both are empty where it is gone.
	PodUID  string
	Message string
}

// Of is what counts as the report of a Job that has ended: the one that the keyserver took of its last pod, if it is
// newer than the one that was read before. The pod may be gone, and its termination message with it, or the sweeper
// was killed before it wrote that: what the keyserver took counts all the same. A message that names another report
// was written by another hand.
func (k KeptReport) Of(e Ended, before int64) Sweep {
	none := func(reason, format string, args ...any) Sweep {
		return Sweep{JobUID: e.JobUID, Reason: reason, Err: fmt.Errorf(format, args...)}
	}
	said, unreadable := report.DecodeMessage(e.Message)
	s := k.Statement
	switch {
	case k.Err != nil:
		return none(k.Reason, "%w", k.Err)
	case s.Sequence > 0 && s.Sequence < before, s.Sequence == before && s.Job == e.JobUID:
		return none(v1alpha1.ReasonReportReplayed, "the keyserver gives report %d of the store, and %d was read before: an earlier one was put in its place, so find out who may write in lethe-keys", s.Sequence, before)
	case s.Job != e.JobUID && said.Reason != "":
		return none(v1alpha1.ReasonReportLost, "the keyserver did not take the sweep's report (%s): %s", said.Reason, said.Text)
	case s.Job != e.JobUID && unreadable == nil:
		return none(v1alpha1.ReasonReportLost, "the sweep handed in a report that the keyserver does not have")
	case s.Job != e.JobUID, e.PodUID != "" && s.Pod != e.PodUID:
		return none(v1alpha1.ReasonReportLost, "the sweep left no report")
	case unreadable == nil && said.Digest != s.Report:
		return none(v1alpha1.ReasonReportForged, "the sweep's pod names another report than the keyserver took of it: find out who may write the status of its pods")
	case s.Plan != e.PlanHash:
		return none(v1alpha1.ReasonReportForged, "the sweep's report is about another plan than its Job was made for: find out who may make Jobs and pods in the namespace")
	}
	r, err := report.Read(string(k.canonical), e.PlanHash)
	if err != nil {
		return Sweep{JobUID: e.JobUID, Sequence: s.Sequence, Reason: v1alpha1.ReasonReportLost, Err: err}
	}
	return Sweep{JobUID: e.JobUID, Sequence: s.Sequence, ReportedAt: s.Time, Report: r}
}
