package lease

import (
	"bytes"
	"fmt"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/internal/ledger"
	"github.com/lethe-dev/lethe/internal/report"
	"github.com/lethe-dev/lethe/internal/resources"
)

// StatementOf is what the keyserver knows of the pod that reports.
func StatementOf(job *batchv1.Job, pod *corev1.Pod) ledger.Statement {
	return ledger.Statement{Namespace: job.Namespace, Name: job.Labels[v1alpha1.LabelStore], Store: job.Spec.Template.Annotations[v1alpha1.AnnotationOwnerUID], Job: string(job.UID), Pod: string(pod.UID),
		Plan: resources.PlanHashOf(job.Spec.Template.Spec)}
}

// Signed is what a keyserver answers of a report that it took, and the termination message of the pod that handed it
// in. Of the statement, report, previous and time are made up where they are empty; that time is later than the end of
// any Job, so that it decides nothing.
func Signed(s ledger.Statement, canonical []byte) (keyapi.LastReportResponse, string, error) {
	none := keyapi.LastReportResponse{}
	key, err := ledger.NewReportKey("test", bytes.Repeat([]byte{1}, ledger.ReportSeedSize))
	if err != nil {
		return none, "", fmt.Errorf("make a key: %w", err)
	}
	if s.Report == "" {
		s.Report = keyapi.DigestReport(canonical)
	}
	if s.Previous == "" {
		s.Previous = ledger.NoStatement
	}
	if s.Time.IsZero() {
		s.Time = time.Unix(4_000_000_000, 0)
	}
	signed, err := key.Sign(s)
	if err != nil {
		return none, "", fmt.Errorf("sign: %w", err)
	}
	packed, err := keyapi.PackReport(canonical)
	if err != nil {
		return none, "", fmt.Errorf("pack: %w", err)
	}
	message, err := report.Message{Digest: s.Report}.Encode()
	if err != nil {
		return none, "", fmt.Errorf("encode the message: %w", err)
	}
	return keyapi.LastReportResponse{Statement: signed, Report: packed}, string(message), nil
}
