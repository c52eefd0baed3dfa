package datastore_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/internal/keyclient"
	"github.com/lethe-dev/lethe/internal/reconcile"
	"github.com/lethe-dev/lethe/internal/report"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/test/lease"
	"github.com/lethe-dev/lethe/test/operator"
)

// reportBench is a store whose first sweep was read, and the second one's Job, which runs.
type reportBench struct {
	*operator.StoreBench
	store *v1alpha1.DataStore
	job   *batchv1.Job
	first keyapi.LastReportResponse // what the keyserver had of the first one
}

func newReportBench(t *testing.T) *reportBench {
	t.Helper()
	b := &reportBench{StoreBench: operator.NewStoreBench(t, v1alpha1.TenantCustomer)}
	b.Policy("privacy", operator.Audit, operator.Rule("Conversations", operator.Period(90)))
	b.store = b.Store("chat", nil)
	b.Settle(b.store)
	b.Sweep(b.store, nil)
	b.Want(b.store, map[string]string{"Compliant": "True Compliant"})
	b.first = b.Keys.Reports[string(b.store.UID)]
	b.another()
	return b
}

// another has the next sweep begin: of other rules, which one Job more is made for.
func (b *reportBench) another() {
	b.Helper()
	operator.Amend(b.StoreBench, b.store, func(s *v1alpha1.DataStore) {
		s.Spec.Datasets = append(s.Spec.Datasets, operator.Dataset(fmt.Sprintf("more%d", len(s.Spec.Datasets)), "Conversations"))
	})
	b.Settle(b.store)
	b.job = b.Job()
	b.Clock.SetTime(b.Clock.Now().Add(2 * time.Second))
}

// gone takes the pods of the namespace away, as a node that goes does.
func (b *reportBench) gone() {
	b.Helper()
	b.Must(b.Cluster.DeleteAllOf(b.Context(), &corev1.Pod{}, client.InNamespace(b.Namespace), client.GracePeriodSeconds(0)))
}

// TestWhatIsBelievedOfASweep: the report that the keyserver took of the Job counts, whatever became of its pod and of
// the manager. Whatever else there is makes the verdict unknown, with a reason, and the next sweep heals it.
func TestWhatIsBelievedOfASweep(t *testing.T) {
	taken := func(b *reportBench, r *report.Report) { r.Datasets[0].Rows = 4321 }
	for name, tc := range map[string]struct {
		end  func(*reportBench)
		want string // Compliant
		says string
	}{
		"the pod is gone before the manager looks": {func(b *reportBench) {
			b.Finish(b.job, b.Told(b.job, func(r *report.Report) { taken(b, r) }))
			b.gone()
		}, "True Compliant", ""},
		"the manager begins anew": {func(b *reportBench) {
			b.Finish(b.job, b.Told(b.job, func(r *report.Report) { taken(b, r) }))
			b.Use(nil)
		}, "True Compliant", ""},
		"the pod was killed between its report and its last word": {func(b *reportBench) {
			pod := b.Pod(b.job)
			b.Must(b.Keys.Take(b.job, pod, b.Told(b.job, func(r *report.Report) { taken(b, r) })))
			b.Leave(pod, "")
			b.End(b.job)
		}, "True Compliant", ""},
		"the pod was killed between the sweep and its report": {func(b *reportBench) {
			b.Leave(b.Pod(b.job), "")
			b.End(b.job)
		}, "Unknown ReportLost", "left no report"},
		"the keyserver did not take it": {func(b *reportBench) {
			m, err := report.Message{Digest: strings.Repeat("a", 64), Reason: v1alpha1.ReasonKeyserverUnavailable, Text: "the sweep deleted 12 row(s)"}.Encode()
			b.Must(err)
			b.Leave(b.Pod(b.job), string(m))
			b.End(b.job)
		}, "Unknown ReportLost", "(KeyserverUnavailable): the sweep deleted 12 row(s)"},
		"somebody wrote the status of the pod": {func(b *reportBench) {
			pod := b.Pod(b.job)
			b.Must(b.Keys.Take(b.job, pod, b.Told(b.job, func(r *report.Report) { taken(b, r) })))
			m, err := report.Message{Digest: strings.Repeat("a", 64)}.Encode()
			b.Must(err)
			b.Leave(pod, string(m))
			b.End(b.job)
		}, "Unknown ReportForged", "the status of its pods"},
		"somebody wrote a whole report into the status of the pod": {func(b *reportBench) {
			b.Leave(b.Pod(b.job), b.Told(b.job, nil))
			b.End(b.job)
		}, "Unknown ReportLost", "left no report"},
		"an earlier report lies where the last one was": {func(b *reportBench) {
			b.Finish(b.job, b.Told(b.job, nil))
			b.Settle(b.store)
			b.another()
			b.Finish(b.job, b.Told(b.job, nil))
			b.Keys.Reports[string(b.store.UID)] = b.first
		}, "Unknown ReportReplayed", "report 1 of the store, and 2 was read before"},
		"the keyserver finds another one than it signed": {func(b *reportBench) {
			b.Finish(b.job, b.Told(b.job, nil))
			b.Keys.ReportErr = &operator.RefusedError{Why: v1alpha1.ReasonReportForged, Message: "the report is not the one that the statement is about"}
		}, "Unknown ReportForged", "not the one that the statement is about"},
		"the key of reports is gone": {func(b *reportBench) {
			b.Finish(b.job, b.Told(b.job, nil))
			b.Keys.ReportErr = &operator.RefusedError{Why: v1alpha1.ReasonKeyMissing, Message: "restore it"}
		}, "Unknown KeyMissing", "restore it"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newReportBench(t)
			tc.end(b)
			b.Settle(b.store)
			b.Want(b.store, map[string]string{"Compliant": tc.want})
			last := b.store.Status.LastSweep
			if last.JobUID != string(b.job.UID) {
				t.Fatalf("the last sweep is Job %s, want %s", last.JobUID, b.job.UID)
			}
			if tc.says == "" {
				if last.Sequence != 2 || b.store.Status.Datasets[0].Rows != 4321 && b.store.Status.Datasets[1].Rows != 4321 {
					t.Errorf("number %d, %+v", last.Sequence, b.store.Status.Datasets)
				}
				return
			}
			b.Says(b.store, v1alpha1.ConditionCompliant, tc.says)
			refused := "0"
			if last.Reason == v1alpha1.ReasonReportForged || last.Reason == v1alpha1.ReasonReportReplayed {
				refused = "1"
			}
			if got := value(b.StoreBench, "lethe_store_report_refused"); got != refused {
				t.Errorf("lethe_store_report_refused is %s, want %s", got, refused)
			}
			if events := strings.Join(b.EventsSeen(), "\n"); !strings.Contains(events, "Warning "+last.Reason+" the report of a sweep does not count") {
				t.Errorf("events:\n%s", events)
			}
			if last.Outcome != v1alpha1.SweepLost || last.Sequence < 1 {
				t.Errorf("%+v", last)
			}
			// Nothing that was read or refused is in the way of the next one.
			b.Keys.ReportErr = nil
			b.another()
			b.Finish(b.job, b.Told(b.job, nil))
			b.Settle(b.store)
			b.Want(b.store, map[string]string{"Compliant": "True Compliant"})
		})
	}
}

// TestAKeyserverThatIsAwayWhenAReportIsRead: the Job stays unread, and what was measured before stands as what it is
// until the keyserver answers.
func TestAKeyserverThatIsAwayWhenAReportIsRead(t *testing.T) {
	b := newReportBench(t)
	b.Finish(b.job, b.Told(b.job, nil))
	b.Keys.ReportErr = context.DeadlineExceeded
	before := b.store.Status.LastSweep.DeepCopy()
	result := b.Settle(b.store)
	if result.RequeueAfter <= 0 || result.RequeueAfter > reconcile.KeyserverWait {
		t.Errorf("asked again after %s", result.RequeueAfter)
	}
	b.Want(b.store, map[string]string{"Ready": "False KeyserverUnavailable", "Compliant": "Unknown PlanChanged"})
	if got := b.store.Status.LastSweep; got.JobUID != before.JobUID || got.Sequence != before.Sequence {
		t.Errorf("%+v was taken for %+v", got, before)
	}
	b.Keys.ReportErr = nil
	b.Settle(b.store)
	b.Want(b.store, map[string]string{"Ready": "True Audit", "Compliant": "True Compliant"})
}

// TestALaterReportTakesThePlaceOfAnEarlierOne: two sweeps ended while the manager was away, or the second one has
// reported and runs still. The first one's report is gone, and that is no loss: the second one is waited for.
func TestALaterReportTakesThePlaceOfAnEarlierOne(t *testing.T) {
	for _, ends := range []bool{true, false} {
		t.Run(fmt.Sprintf("the second has ended: %t", ends), func(t *testing.T) {
			b := newReportBench(t)
			second := b.job.DeepCopy()
			second.Name, second.UID, second.ResourceVersion = b.job.Name+"-2", "", ""
			second.Spec.Selector, second.Status = nil, batchv1.JobStatus{}
			for _, label := range []string{batchv1.ControllerUidLabel, batchv1.JobNameLabel, "controller-uid", "job-name"} {
				delete(second.Labels, label)
				delete(second.Spec.Template.Labels, label)
			}
			b.Must(b.Cluster.Create(t.Context(), second))
			b.Finish(b.job, b.Told(b.job, nil))
			b.Clock.SetTime(b.Clock.Now().Add(2 * time.Second))
			pod := b.Pod(second)
			b.Must(b.Keys.Take(second, pod, b.Told(second, func(r *report.Report) { r.Datasets[0].Rules[0].Overdue = 3 })))
			if ends {
				b.End(second)
			}
			b.Settle(b.store)
			if !ends {
				b.Want(b.store, map[string]string{"Compliant": "Unknown PlanChanged"})
				b.End(second)
				b.Settle(b.store)
			}
			b.Want(b.store, map[string]string{"Compliant": "False Overdue"})
			if last := b.store.Status.LastSweep; last.JobUID != string(second.UID) || last.Sequence != 3 {
				t.Errorf("%+v", last)
			}
		})
	}
}

// TestEveryLineReachesTheStatus: 2048 measurements go from a sweeper's pod through the keyserver's calls into the
// status of the store, which the API server takes, and one late row among them makes it red.
func TestEveryLineReachesTheStatus(t *testing.T) {
	b := operator.NewStoreBench(t, v1alpha1.TenantCustomer)
	for _, name := range []string{"one", "two", "three", "four"} {
		b.Policy(name, operator.Audit, operator.Rule("Conversations", operator.Period(90)))
	}
	s := b.Store("chat", func(s *v1alpha1.DataStore) {
		s.Spec.Datasets = nil
		for i := range 512 {
			s.Spec.Datasets = append(s.Spec.Datasets, operator.Dataset(fmt.Sprintf("messages%03d", i), "Conversations"))
		}
	})
	server, err := lease.Start(t.TempDir(), "unused")
	b.Must(err)
	t.Cleanup(server.Close)
	sweeper, err := keyclient.New(keyclient.Options{URL: server.URL, CAFile: server.CAFile, TokenFile: server.TokenFile})
	b.Must(err)
	b.Settle(s)
	job := b.Job()
	b.Read(job)
	pod := b.Pod(job)
	text := b.Told(job, func(r *report.Report) {
		for i := range r.Datasets {
			for n := range r.Datasets[i].Rules {
				r.Datasets[i].Rules[n].Eligible = int64(1_000_003*i + n)
			}
		}
		r.Datasets[300].Rules[2].Overdue = 1
	})
	server.Whose = lease.StatementOf(job, pod)
	answer, err := sweeper.Report(t.Context(), resources.PlanHashOf(job.Spec.Template.Spec), []byte(text))
	b.Must(err)
	message, err := report.Message{Digest: answer.Digest}.Encode()
	b.Must(err)
	b.Keys.LastReports = sweeper
	b.Clock.SetTime(b.Clock.Now().Add(2 * time.Second))
	b.Leave(pod, string(message))
	b.End(job)
	b.Settle(s)
	lines, eligible := 0, map[int64]bool{}
	for _, m := range s.Status.Lines {
		lines++
		eligible[m.Eligible] = true
	}
	if lines != 2048 || len(eligible) != 2048 || s.Status.Omitted != nil || s.Status.LastSweep.Sequence != 1 {
		t.Errorf("%d lines, %d of them different, omitted %+v, last sweep %+v", lines, len(eligible), s.Status.Omitted, s.Status.LastSweep)
	}
	b.Want(s, map[string]string{"Compliant": "False Overdue"})
	b.Says(s, v1alpha1.ConditionCompliant, "messages300")
}
