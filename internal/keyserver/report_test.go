package keyserver

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/doors"
	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/internal/keystore"
	"github.com/lethe-dev/lethe/internal/ledger"
	"github.com/lethe-dev/lethe/internal/sealing"
)

// post sends a report as a pod.
func (w *sweepWorld) post(pod *corev1.Pod, report string) (keyapi.ReportResponse, *keyapi.Error) {
	w.Helper()
	packed, err := keyapi.PackReport([]byte(report))
	w.must(err)
	var resp keyapi.ReportResponse
	e := w.call(keyapi.PathReport, w.podToken(pod), keyapi.ReportRequest{PlanHash: w.hash, Report: packed}, &resp)
	return resp, e
}

// last asks for the last report, as the manager would, and looks whether it is what was signed.
func (w *sweepWorld) last() (ledger.Statement, string, *keyapi.Error) {
	w.Helper()
	var resp keyapi.LastReportResponse
	if e := w.call(keyapi.PathLastReport, w.manager, keyapi.LastReportRequest{Object: refTo(sealing.KindDataStore, w.store)}, &resp); e != nil {
		return ledger.Statement{}, "", e
	}
	if resp.Statement == "" && len(resp.Report) == 0 {
		return ledger.Statement{}, "", nil
	}
	key, err := w.server.keyOfReports(w.Context())
	w.must(err)
	s, err := ledger.OpenStatement(resp.Statement, key.Public())
	w.must(err)
	canonical, err := keyapi.UnpackReport(resp.Report)
	w.must(err)
	if s.Report != keyapi.DigestReport(canonical) {
		w.Errorf("the statement is about another report than %q", canonical)
	}
	return s, string(canonical), nil
}

func (w *sweepWorld) wantLast(report string, sequence int64) ledger.Statement {
	w.Helper()
	s, got, e := w.last()
	w.granted(e)
	if got != report || s.Sequence != sequence || s.Store != string(w.store.UID) || s.Plan != w.hash {
		w.Errorf("the last report is %q, %+v; want %q, number %d", got, s, report, sequence)
	}
	return s
}

func (w *sweepWorld) kept() *corev1.ConfigMap {
	w.Helper()
	cm := &corev1.ConfigMap{}
	w.must(testEnv.Client.Get(w.Context(), client.ObjectKey{Namespace: w.opts.KeysNamespace, Name: reportName(string(w.store.UID))}, cm))
	return cm
}

// TestAReportIsTakenOnce: by the pod that made it, with the lease or without one, and never a second one; each
// follows the one before it.
func TestAReportIsTakenOnce(t *testing.T) {
	w := newSweep(t)
	if s, report, e := w.last(); e != nil || report != "" {
		t.Errorf("before any report: %+v, %q, %v", s, report, e)
	}
	pod := w.sweep("chat-sweep-1")
	first, e := w.post(pod, "the first report")
	w.granted(e)
	if first.Sequence != 1 || first.Digest != keyapi.DigestReport([]byte("the first report")) {
		t.Errorf("answered %+v", first)
	}
	before := w.wantLast("the first report", 1)
	if before.Previous != ledger.NoStatement || before.Pod != string(pod.UID) || before.Job != string(pod.OwnerReferences[0].UID) {
		t.Errorf("the first statement is %+v", before)
	}
	w.writes.reset(0, false)
	again, e := w.post(pod, "the first report")
	w.granted(e)
	if n, what := w.writes.writes(); again != first || n != 0 {
		t.Errorf("the same report again: %+v, and wrote %v", again, what)
	}
	_, e = w.post(pod, "a second report")
	w.wantRefusal(e, v1alpha1.ReasonReportReplayed)
	second := w.sweep("chat-sweep-2")
	if _, e = w.lease(second); e != nil {
		t.Error(e)
	}
	w.writes.reset(0, false)
	_, e = w.post(second, "the second report")
	w.granted(e)
	if n, what := w.writes.writes(); n != 2 {
		t.Errorf("a report costs %d writes: %v", n, what)
	}
	if err := w.wantLast("the second report", 2).Follows(before); err != nil {
		t.Error(err)
	}
	_, e = w.post(pod, "the first report")
	w.wantRefusal(e, v1alpha1.ReasonReportReplayed)
	w.wantLast("the second report", 2)
	// What was remembered of a lease, and the account in it, is as it was.
	if _, e := w.lease(second); e != nil {
		t.Errorf("a report has taken the lease from its pod: %v", e)
	}
}

// TestWhoMayReport: the pod that Lethe makes for a sweep of the store by the plan that it names, and nobody else. It
// needs no lease, and may be on its way out.
func TestWhoMayReport(t *testing.T) {
	w := newSweep(t)
	pod := w.sweep("chat-sweep-1")
	packed, err := keyapi.PackReport([]byte("a report"))
	w.must(err)
	ask := func(token string, req keyapi.ReportRequest) *keyapi.Error {
		t.Helper()
		return w.call(keyapi.PathReport, token, req, nil)
	}
	good := keyapi.ReportRequest{PlanHash: w.hash, Report: packed}
	bot, _ := w.newBot("support")
	botPod := w.startPod(bot, w.storeAndRecord(bot).Secret)
	stranger := w.sweep("chat-sweep-forged", func(p *corev1.Pod) { p.OwnerReferences = nil })
	edited := w.sweep("chat-sweep-edited", func(p *corev1.Pod) { p.Spec.Containers[0].Image = "evil.example/sweeper:1" })
	ended := w.sweep("chat-sweep-ended")
	ended.Status.Phase = corev1.PodSucceeded
	w.must(w.cluster.Status().Update(t.Context(), ended))
	otherTenant := sweepIn(newWorld(t), t)
	foreign := otherTenant.sweep("chat-sweep-1")
	otherPlan := good
	otherPlan.PlanHash = strings.Repeat("ab", 32)
	for _, tc := range []struct {
		what, token string
		req         keyapi.ReportRequest
		reason      string
	}{
		{"nobody", "", good, v1alpha1.ReasonUnauthenticated},
		{"the manager", w.manager, good, v1alpha1.ReasonForbidden},
		{"a bot's pod", w.podToken(botPod), good, v1alpha1.ReasonForbidden},
		{"a pod of nobody's", w.podToken(stranger), good, v1alpha1.ReasonForbidden},
		{"a pod that was edited", w.podToken(edited), good, v1alpha1.ReasonPodMismatch},
		{"a pod that has ended", w.podToken(ended), good, v1alpha1.ReasonForbidden},
		{"a pod of another plan", w.podToken(pod), otherPlan, v1alpha1.ReasonPodMismatch},
		{"no report", w.podToken(pod), keyapi.ReportRequest{PlanHash: w.hash, Report: []byte("a report")}, v1alpha1.ReasonBadRequest},
	} {
		if e := ask(tc.token, tc.req); e == nil || e.Reason != tc.reason {
			t.Errorf("%s: %+v, want %s", tc.what, e, tc.reason)
		}
	}
	// A pod's report is its own store's, whatever it says.
	w.granted(ask(w.podToken(foreign), keyapi.ReportRequest{PlanHash: otherTenant.hash, Report: packed}))
	if _, report, e := w.last(); e != nil || report != "" {
		t.Errorf("another tenant's pod reported for the store: %q, %v", report, e)
	}
	otherTenant.wantLast("a report", 1)
	w.wantRefusal(w.call(keyapi.PathLastReport, w.podToken(pod), keyapi.LastReportRequest{Object: refTo(sealing.KindDataStore, w.store)}, nil), v1alpha1.ReasonForbidden)

	leaving := w.sweep("chat-sweep-leaving", func(p *corev1.Pod) { p.Finalizers = []string{"lethe.dev/test"} })
	token := w.podToken(leaving)
	w.must(w.cluster.Delete(t.Context(), leaving))
	t.Cleanup(func() {
		leaving.Finalizers = nil
		if err := client.IgnoreNotFound(w.cluster.Update(t.Context(), leaving)); err != nil {
			t.Log(err) // the namespace is the test's own
		}
	})
	w.granted(ask(token, good))
	// The plan is not the live one any more, so no lease is given; the report is taken.
	w.must(testEnv.Client.Get(t.Context(), client.ObjectKeyFromObject(w.store), w.store))
	w.store.Spec.Brake.MaxPercentOfTable++
	w.must(testEnv.Client.Update(t.Context(), w.store))
	w.refused(pod, v1alpha1.ReasonPlanChanged)
	w.granted(ask(w.podToken(pod), good))
	w.wantLast("a report", 2)
}

// TestAReportSurvivesACrash: the keyserver dies before and after each of its writes, and the sweeper asks again.
func TestAReportSurvivesACrash(t *testing.T) {
	w := newSweep(t)
	_, e := w.post(w.sweep("chat-sweep-0"), "an earlier report")
	w.granted(e)
	sequence := int64(1)
	for _, after := range []bool{false, true} {
		for at := 1; at <= 2; at++ {
			sequence++
			report := fmt.Sprintf("report %d", sequence)
			pod := w.sweep(fmt.Sprintf("chat-sweep-%d", sequence))
			w.writes.reset(at, after)
			if _, e := w.post(pod, report); e == nil {
				t.Errorf("write %d, %v: answered without it", at, after)
			}
			w.writes.reset(0, false)
			w.restart()
			resp, e := w.post(pod, report)
			w.granted(e)
			if resp.Sequence != sequence {
				t.Errorf("write %d, %v: number %d, want %d", at, after, resp.Sequence, sequence)
			}
			w.wantLast(report, sequence)
		}
	}
	// Nobody asks again: what the first write promised is not there, and the one before is not taken for it. The next
	// one heals it.
	w.writes.reset(2, false)
	if _, e := w.post(w.sweep("chat-sweep-lost"), "lost"); e == nil {
		t.Error("answered without its write")
	}
	w.writes.reset(0, false)
	// For as long as a call may take it is being kept: the manager asks again.
	if _, _, e = w.last(); e == nil || e.Reason != v1alpha1.ReasonInUse || e.RetryAfter == 0 {
		t.Errorf("between the two writes of a report: %+v", e)
	}
	w.clock.SetTime(w.clock.Now().Add(requestTimeout + time.Second))
	_, _, e = w.last()
	w.wantRefusal(e, v1alpha1.ReasonReportReplayed)
	_, e = w.post(w.sweep("chat-sweep-next"), "the next")
	w.granted(e)
	w.wantLast("the next", sequence+2)
}

// TestReplicasTakeReports: of two keyservers, at the same time, no number is given twice and none is lost.
func TestReplicasTakeReports(t *testing.T) {
	w := newSweep(t)
	second, err := New(w.opts)
	w.must(err)
	servers := []*Server{w.server, second}
	const posts = 6
	statements := make([]ledger.Statement, posts)
	var wait sync.WaitGroup
	for i := range posts {
		s := ledger.Statement{Namespace: w.ns, Name: w.store.Name, Store: string(w.store.UID), Job: fmt.Sprintf("job-%d", i), Pod: fmt.Sprintf("pod-%d", i), Plan: w.hash}
		packed, err := keyapi.PackReport(fmt.Appendf(nil, "report %d", i))
		w.must(err)
		s.Report, err = keyapi.DigestPacked(packed)
		w.must(err)
		wait.Go(func() {
			for statements[i].Sequence == 0 {
				kept, err := servers[i%2].keepReport(t.Context(), s, 0, packed)
				if err == nil {
					statements[i] = kept
				} else if r := asRefusalOnly(err); r != nil && r.Reason == v1alpha1.ReasonReportReplayed {
					return // it was taken, and another one since, before the answer
				} else if !apierrors.IsConflict(err) && !apierrors.IsAlreadyExists(err) {
					t.Errorf("report %d: %v", i, err)
					return
				}
			}
		})
	}
	wait.Wait()
	given := map[int64]int{}
	for i, s := range statements {
		if was, twice := given[s.Sequence]; twice && s.Sequence > 0 {
			t.Errorf("reports %d and %d are both number %d", was, i, s.Sequence)
		}
		given[s.Sequence] = i
	}
	_, reported, err := w.server.reported(t.Context(), string(w.store.UID))
	w.must(err)
	if reported.Last.Sequence != posts {
		t.Errorf("the last number is %d of %d reports", reported.Last.Sequence, posts)
	}
	if got := w.wantLast(fmt.Sprintf("report %s", strings.TrimPrefix(reported.Last.Pod, "pod-")), posts); got != reported.Last {
		t.Errorf("%+v is kept, and %+v was taken last", got, reported.Last)
	}
}

// TestAKeptReportThatWasChanged: whoever can write in the keys' namespace cannot make a report, nor bring one back.
func TestAKeptReportThatWasChanged(t *testing.T) {
	w := newSweep(t)
	pod := w.sweep("chat-sweep-1")
	_, e := w.post(pod, "the first report")
	w.granted(e)
	first := w.kept()
	_, e = w.post(w.sweep("chat-sweep-2"), "the second report")
	w.granted(e)
	second := w.kept()
	other := sweepIn(newWorld(t), t)
	_, e = other.post(other.sweep("chat-sweep-1"), "another store's")
	w.granted(e)
	seed := make([]byte, ledger.ReportSeedSize)
	strangers, err := ledger.NewReportKey(testRealm, seed)
	w.must(err)
	own, err := w.server.keyOfReports(t.Context())
	w.must(err)
	statement, err := ledger.OpenStatement(second.Data[statementKey], own.Public())
	w.must(err)
	forged, err := strangers.Sign(statement)
	w.must(err)
	packed, err := keyapi.PackReport([]byte("nothing is overdue"))
	w.must(err)
	for what, tc := range map[string]struct {
		change func(*corev1.ConfigMap)
		reason string
	}{
		"another report": {func(cm *corev1.ConfigMap) { cm.BinaryData[reportKey] = packed }, v1alpha1.ReasonReportForged},
		"no report":      {func(cm *corev1.ConfigMap) { cm.BinaryData = nil }, v1alpha1.ReasonReportForged},
		"another number": {func(cm *corev1.ConfigMap) {
			cm.Data[statementKey] = strings.Replace(cm.Data[statementKey], "sequence 2", "sequence 3", 1)
		}, v1alpha1.ReasonReportForged},
		"a signature of another key":     {func(cm *corev1.ConfigMap) { cm.Data[statementKey] = forged }, v1alpha1.ReasonReportForged},
		"no statement":                   {func(cm *corev1.ConfigMap) { cm.Data = nil }, v1alpha1.ReasonReportForged},
		"an earlier report":              {func(cm *corev1.ConfigMap) { cm.Data, cm.BinaryData = first.Data, first.BinaryData }, v1alpha1.ReasonReportReplayed},
		"another store's report":         {func(cm *corev1.ConfigMap) { cm.Data, cm.BinaryData = other.kept().Data, other.kept().BinaryData }, v1alpha1.ReasonReportForged},
		"an earlier statement about it":  {func(cm *corev1.ConfigMap) { cm.Data = first.Data }, v1alpha1.ReasonReportForged},
		"the statement of an other text": {func(cm *corev1.ConfigMap) { cm.Data[statementKey] += "\u2014 lethe-reports/test AAAAAA==\n" }, v1alpha1.ReasonReportForged},
	} {
		cm := w.kept()
		tc.change(cm)
		w.must(testEnv.Client.Update(t.Context(), cm))
		w.clock.SetTime(w.clock.Now().Add(requestTimeout + time.Second))
		if _, _, e := w.last(); e == nil || e.Reason != tc.reason {
			t.Errorf("%s: %+v, want %s", what, e, tc.reason)
		}
		cm.Data, cm.BinaryData = second.DeepCopy().Data, second.DeepCopy().BinaryData
		w.must(testEnv.Client.Update(t.Context(), cm))
		w.wantLast("the second report", 2)
	}
	w.must(testEnv.Client.Delete(t.Context(), w.kept()))
	_, _, e = w.last()
	w.wantRefusal(e, v1alpha1.ReasonReportLost)
	// The next report takes its place, and its number.
	_, e = w.post(w.sweep("chat-sweep-3"), "the third report")
	w.granted(e)
	if s := w.wantLast("the third report", 3); s.Follows(statement) != nil {
		t.Errorf("%+v does not follow %+v", s, statement)
	}
	// What is remembered beside the lease is lost: what was signed says how far it was.
	for _, change := range []func(*coordinationv1.Lease){
		func(l *coordinationv1.Lease) { delete(l.Annotations, annotationReported) },
		func(l *coordinationv1.Lease) { l.Annotations[annotationReported] = "no document" },
	} {
		sequence := w.mustLast()
		lease := &coordinationv1.Lease{}
		w.must(testEnv.Client.Get(t.Context(), client.ObjectKey{Namespace: w.opts.KeysNamespace, Name: leaseName(string(w.store.UID))}, lease))
		change(lease)
		w.must(testEnv.Client.Update(t.Context(), lease))
		if got := w.mustLast(); got != sequence {
			t.Errorf("the last report is number %d, was %d", got, sequence)
		}
		_, e = w.post(w.sweep(fmt.Sprintf("chat-sweep-%d", sequence+1)), "one more")
		w.granted(e)
		w.wantLast("one more", sequence+1)
	}
	// All that is kept is lost: numbers go on behind the one that the manager has read.
	w.must(testEnv.Client.Get(t.Context(), client.ObjectKeyFromObject(w.store), w.store))
	w.store.Status.LastSweep = &v1alpha1.SweepStatus{JobUID: "a", Outcome: v1alpha1.SweepDone, Sequence: 41}
	w.must(testEnv.Client.Status().Update(t.Context(), w.store))
	lease := &coordinationv1.Lease{}
	w.must(testEnv.Client.Get(t.Context(), client.ObjectKey{Namespace: w.opts.KeysNamespace, Name: leaseName(string(w.store.UID))}, lease))
	w.must(testEnv.Client.Delete(t.Context(), lease))
	w.must(testEnv.Client.Delete(t.Context(), w.kept()))
	_, e = w.post(w.sweep("chat-sweep-behind"), "after all was lost")
	w.granted(e)
	w.wantLast("after all was lost", 42)
}

func (w *sweepWorld) mustLast() int64 {
	w.Helper()
	s, _, e := w.last()
	w.granted(e)
	return s.Sequence
}

// TestAReportGoesWithItsStore: nothing of it is left when its keys are revoked, whatever dies on the way.
func TestAReportGoesWithItsStore(t *testing.T) {
	w := newSweep(t)
	_, e := w.post(w.sweep("chat-sweep-1"), "a report")
	w.granted(e)
	pod := w.sweep("chat-sweep-2")
	w.must(testEnv.Client.Get(t.Context(), client.ObjectKeyFromObject(w.store), w.store))
	w.store.Finalizers = append(w.store.Finalizers, "lethe.dev/test")
	w.must(testEnv.Client.Update(t.Context(), w.store))
	w.must(testEnv.Client.Delete(t.Context(), w.store))
	_, e = w.post(pod, "another report")
	w.wantRefusal(e, v1alpha1.ReasonRevoked)
	for at := 1; ; at++ {
		w.writes.reset(at, true)
		e := w.call(keyapi.PathRevoke, w.manager, keyapi.RevokeRequest{Object: refTo(sealing.KindDataStore, w.store)}, nil)
		if e == nil {
			break
		}
		if at > 20 {
			t.Fatal(e)
		}
	}
	w.writes.reset(0, false)
	for _, o := range []client.Object{&corev1.ConfigMap{}, &coordinationv1.Lease{}} {
		name := reportName(string(w.store.UID))
		if _, isLease := o.(*coordinationv1.Lease); isLease {
			name = leaseName(string(w.store.UID))
		}
		if err := testEnv.Client.Get(t.Context(), client.ObjectKey{Namespace: w.opts.KeysNamespace, Name: name}, o); !apierrors.IsNotFound(err) {
			t.Errorf("%s is left: %v", name, err)
		}
	}
	w.must(testEnv.Client.Get(t.Context(), client.ObjectKeyFromObject(w.store), w.store))
	w.store.Finalizers = nil
	w.must(testEnv.Client.Update(t.Context(), w.store))
}

// TestBudgetOfReports: what a store costs in etcd, and what the largest report costs of the door. docs/design/0035
// has the numbers.
func TestBudgetOfReports(t *testing.T) {
	w := newSweep(t)
	noise := make([]byte, keyapi.MaxPackedReport-64)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(noise)
	// Through the door, as in a cluster.
	raw, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	w.must(err)
	metrics, err := doors.NewMetrics("test", prometheus.NewRegistry())
	w.must(err)
	server := doors.NewServer(w.server.Handler(), CallRules, nil, w.opts.Log)
	go func() { _ = server.Serve(doors.Listen(raw, "calls", CallLimits, clock.RealClock{}, metrics)) }()
	t.Cleanup(func() { _ = server.Close() })
	post := func(path, token string, body []byte) (int, error) {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+raw.Addr().String()+path, bytes.NewReader(body))
		w.must(err)
		r.Header.Set("Authorization", "Bearer "+token)
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			return 0, err
		}
		return resp.StatusCode, resp.Body.Close()
	}
	pod := w.sweep("chat-sweep-1")
	packed, err := keyapi.PackReport(noise)
	w.must(err)
	body, err := json.Marshal(keyapi.ReportRequest{PlanHash: w.hash, Report: packed})
	w.must(err)
	if len(packed) < keyapi.MaxPackedReport-1024 || len(body) > maxReportBody {
		t.Fatalf("%d bytes packed, %d sent", len(packed), len(body))
	}
	if status, err := post(keyapi.PathLease, w.podToken(pod), body); err == nil && status != http.StatusRequestEntityTooLarge {
		t.Errorf("another call took %d bytes: %d", len(body), status)
	}
	if status, err := post(keyapi.PathReport, w.podToken(pod), append(body, bytes.Repeat([]byte(" "), maxReportBody)...)); err == nil && status != http.StatusRequestEntityTooLarge {
		t.Errorf("more than a report was taken: %d", status)
	}
	if status, err := post(keyapi.PathReport, w.podToken(pod), body); err != nil || status != http.StatusOK {
		t.Fatalf("the largest report: %d, %v\n%s", status, err, w.log.String())
	}
	w.wantLast(string(noise), 1)
	cm, lease := w.kept(), &coordinationv1.Lease{}
	w.must(testEnv.Client.Get(t.Context(), client.ObjectKey{Namespace: w.opts.KeysNamespace, Name: leaseName(string(w.store.UID))}, lease))
	cm.ManagedFields, lease.ManagedFields = nil, nil
	content, err := cm.Marshal()
	w.must(err)
	account, err := lease.Marshal()
	w.must(err)
	if around := len(content) - len(packed); around > 2<<10 || len(account) > 3<<10 {
		t.Errorf("a report costs %d bytes around it, and the lease has %d", around, len(account))
	}
	for _, label := range []map[string]string{cm.Labels, lease.Labels} {
		if label[keystore.LabelVelero] != "true" {
			t.Errorf("a backup of the cluster would hold it: %v", label)
		}
	}
}

// TestTheKeyOfReports: it is made once, published, rewrapped, in backups, and never made in the place of one that is
// gone.
func TestTheKeyOfReports(t *testing.T) {
	d := newDrill(t)
	d.must(d.server.Maintain(t.Context()))
	key, err := d.server.keyOfReports(t.Context())
	d.must(err)
	bundle, err := d.server.bundle(t.Context())
	d.must(err)
	if got := bundle.Annotations[annotationReportKey]; got != key.Public() {
		t.Errorf("published %q, is %q", got, key.Public())
	}
	d.must(d.server.authority.Maintain(t.Context()))
	if bundle, err = d.server.bundle(t.Context()); err != nil || bundle.Annotations[annotationReportKey] != key.Public() {
		t.Errorf("the bundle was published without it: %v", err)
	}
	backup := d.backup()
	secret := d.getSecret(d.opts.KeysNamespace, keystore.ReportKeyName)
	d.must(testEnv.Client.Delete(t.Context(), secret))
	d.restart()
	if err := d.server.maintainReportKey(t.Context()); err == nil {
		t.Error("a key was made in the place of one that is gone")
	}
	_, err = d.server.keyOfReports(t.Context())
	if r := asRefusal(err); r.Reason != v1alpha1.ReasonKeyMissing {
		t.Errorf("refused with %s, %v", r.Reason, r)
	}
	plan, err := backup.Restore(d.opts.KeysNamespace, d.live(), keystore.RestoreOptions{}, nil)
	d.must(err)
	if len(plan.Create) != 1 || plan.Create[0].Name != keystore.ReportKeyName {
		t.Errorf("restoring makes %v", plan.Create)
	}
	d.write(plan)
	got, err := d.server.keyOfReports(t.Context())
	if err != nil || got.Public() != key.Public() {
		t.Errorf("restored it is %s, %v", got, err)
	}
	// Whatever somebody publishes in its place, the next look puts right.
	bundle, err = d.server.bundle(t.Context())
	d.must(err)
	bundle.Annotations[annotationReportKey] = "another"
	d.must(testEnv.Client.Update(t.Context(), bundle))
	d.must(d.server.maintainReportKey(t.Context()))
	if bundle, err = d.server.bundle(t.Context()); err != nil || bundle.Annotations[annotationReportKey] != key.Public() {
		t.Errorf("published is %v, %v", bundle.Annotations, err)
	}
}

// TestAStoresKeyOfReportsIsKnown: where another key has come into the world, a store's chain is not gone on with.
func TestAStoresKeyOfReportsIsKnown(t *testing.T) {
	w := newSweep(t)
	_, e := w.post(w.sweep("chat-sweep-1"), "a report")
	w.granted(e)
	other, err := ledger.NewReportKey(testRealm, bytes.Repeat([]byte{7}, ledger.ReportSeedSize))
	w.must(err)
	own, err := w.server.keyOfReports(t.Context())
	w.must(err)
	signedWith := func(key ledger.ReportKey) {
		lease, reported, err := w.server.reported(t.Context(), string(w.store.UID))
		w.must(err)
		reported.Key = key.Public()
		w.must(w.server.writeReported(t.Context(), lease, reported))
	}
	signedWith(other)
	_, e = w.post(w.sweep("chat-sweep-2"), "another report")
	w.wantRefusal(e, v1alpha1.ReasonKeyMissing)
	signedWith(own)
	_, e = w.post(w.sweep("chat-sweep-3"), "another report")
	w.granted(e)
	w.wantLast("another report", 2)
}
