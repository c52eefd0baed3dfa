package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/foreign"
	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/internal/keyclient"
	"github.com/lethe-dev/lethe/internal/report"
)

// How long it is tried to hand in a report. A sweep ends ten minutes before its Job's deadline at the latest, and a pod
// that was asked to end has half a minute in all, of which the sweep took a part.
var (
	handInWithin = 2 * time.Minute
	handInAsked  = 10 * time.Second
	handInAgain  = 2 * time.Second
)

// handIn gives a report to the keyserver, and returns what the termination message says of that. The keyserver takes
// it once: where its answer was lost, the next try is told that it was taken.
func (o options) handIn(log *slog.Logger, client *keyclient.Client, r report.Report, stop <-chan struct{}) (report.Message, error) {
	canonical, err := fitting(r)
	if err != nil {
		return report.Message{}, err
	}
	message := report.Message{Digest: keyapi.DigestReport(canonical)}
	refused := func(reason, text string, err error) (report.Message, error) {
		message.Reason = reason
		message.Text = fmt.Sprintf("%s; the sweep ended %s and deleted %d row(s), which are gone: the next one measures what is left", foreign.Line(text, 200), r.Outcome, r.Deleted)
		return message, err
	}
	if client == nil {
		return refused(v1alpha1.ReasonKeyserverUnavailable, r.Message, errors.New("there is no keyserver to hand it to"))
	}
	ctx, cancel := context.WithTimeout(context.Background(), handInWithin)
	defer cancel()
	go func() {
		select {
		case <-stop:
			time.AfterFunc(handInAsked, cancel)
		case <-ctx.Done():
		}
	}()
	var said error // the last that the keyserver itself had against it
	for {
		_, err := client.Report(ctx, o.planHash, canonical)
		if err == nil {
			return message, nil
		}
		if keyclient.ReasonOf(err) != "" {
			said = err
		} else if ctx.Err() != nil && said != nil {
			err = said // the time was over in the middle of a call, which says nothing of the cause
		}
		reason := keyclient.ReasonOf(err)
		if reason == "" {
			reason = v1alpha1.ReasonKeyserverUnavailable
		}
		if !keyclient.IsRetryable(err) {
			return refused(reason, foreign.Err(err), err)
		}
		log.Warn("The report is not handed in yet", "cause", err)
		timer := time.NewTimer(keyclient.RetryAfter(err, handInAgain))
		select {
		case <-ctx.Done():
			timer.Stop()
			return refused(reason, foreign.Err(err), err)
		case <-timer.C:
		}
	}
}

// fitting are a report's canonical bytes. Of one that is longer than any report can be it is said what it came to, and
// that: it is not cut, since a part of it would look like all of it.
func fitting(r report.Report) ([]byte, error) {
	canonical, err := report.Encode(r)
	if err == nil {
		if _, err = keyapi.PackReport(canonical); err == nil {
			return canonical, nil
		}
	}
	lines := 0
	for _, d := range r.Datasets {
		lines += max(1, len(d.Rules))
	}
	said := fmt.Sprintf("the sweep ended %s, and its %d measurements do not fit into a report of %d bytes, packed %d: split the datasets over several DataStores, or let fewer rules govern them",
		r.Outcome, lines, keyapi.MaxReport, keyapi.MaxPackedReport)
	r = report.Report{Plan: r.Plan, Started: r.Started, Finished: r.Finished, Outcome: report.Failed, Reason: v1alpha1.ReasonLimitReached, Message: said, Mode: r.Mode,
		Identity: r.Identity, Database: foreign.Name(r.Database), Tenants: r.Tenants, SkewSeconds: r.SkewSeconds, Point: r.Point, Deleted: r.Deleted}
	if canonical, err = report.Encode(r); err != nil {
		return nil, fmt.Errorf("encode the report: %w", err)
	}
	return canonical, nil
}

// write leaves the termination message where the kubelet picks it up.
func write(path string, m report.Message) error {
	b, err := m.Encode()
	if err != nil {
		return fmt.Errorf("encode the termination message: %w", err)
	}
	if err := os.WriteFile(path, b, 0o600); err != nil { //nolint:gosec // the path is the pod's own flag
		return fmt.Errorf("write the termination message: %w", err)
	}
	return nil
}
