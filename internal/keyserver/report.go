package keyserver

import (
	"context"
	"errors"

	batchv1 "k8s.io/api/batch/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/internal/keystore"
	"github.com/lethe-dev/lethe/internal/ledger"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/internal/sealing"
)

// The last report of each store lies in a ConfigMap of the keys' namespace, with what the keyserver signed about it,
// and is replaced in place. What it must be stands beside the store's lease (annotationReported), which is written
// first: nothing is kept under a number that was not given, and no number is given twice. A ConfigMap and no Secret,
// since passes over all keys read every Secret.
const (
	// annotationReported on a Lease is what is remembered of the store's reports. It is apart from the account of
	// what was used: a report is no reason to begin that anew.
	annotationReported = "lethe.dev/reported"

	// reportTries is how often a report is kept anew when others wrote at the same time.
	reportTries = 8

	componentReport  = "report"
	reportKey        = "report"
	statementKey     = "statement"
	reportNamePrefix = "report-"
)

func reportName(storeUID string) string { return reportNamePrefix + storeUID }

// report takes what a sweep measured and did, of the pod that did it, which proves itself as for a lease. The pod
// needs no lease and its plan need not be the live one any more: a sweep that was refused one has to be able to say
// so, and so has one that was asked to end.
func (s *Server) report(ctx context.Context, who caller, req *keyapi.ReportRequest) (*keyapi.ReportResponse, error) {
	digest, err := keyapi.DigestPacked(req.Report)
	if err != nil {
		return nil, refuse(v1alpha1.ReasonBadRequest, "%s", err)
	}
	job, pod, store, err := s.reportingPod(ctx, who)
	if err != nil {
		return nil, err
	}
	tenant, err := s.tenantOf(ctx, store.Namespace)
	if err != nil {
		return nil, err
	}
	if _, err := s.isSweep(ctx, job, pod, store, tenant, req.PlanHash); err != nil {
		return nil, err
	}
	statement := ledger.Statement{Namespace: store.Namespace, Name: store.Name, Store: string(store.UID), Job: string(job.UID), Pod: string(pod.UID),
		Plan: req.PlanHash, Report: digest}
	var floor int64 // the manager has read this one: where all that is kept is lost, numbers go on behind it
	if last := store.Status.LastSweep; last != nil {
		floor = last.Sequence
	}
	for range reportTries {
		kept, err := s.keepReport(ctx, statement, floor, req.Report)
		if err == nil {
			return &keyapi.ReportResponse{Digest: digest, Sequence: kept.Sequence}, nil
		}
		if !apierrors.IsConflict(err) && !apierrors.IsAlreadyExists(err) {
			return nil, err
		}
	}
	return nil, later(v1alpha1.ReasonInternal, 1, "others wrote at the same time")
}

// reportingPod follows a pod to its store. One that is on its way out may still report: that may be what it has to say.
func (s *Server) reportingPod(ctx context.Context, who caller) (*batchv1.Job, *corev1.Pod, *v1alpha1.DataStore, error) {
	pod, err := s.presentPod(ctx, who)
	if err != nil {
		return nil, nil, nil, err
	}
	job, store, _, err := s.storeOf(ctx, pod)
	if err != nil {
		return nil, nil, nil, err
	}
	if !store.DeletionTimestamp.IsZero() {
		return nil, nil, nil, refuse(v1alpha1.ReasonRevoked, "DataStore %s/%s is being deleted", store.Namespace, store.Name)
	}
	return job, pod, store, nil
}

// keepReport gives a report its place among those of its store, and keeps it. Each of the two writes may be the last
// thing that this process does: the next try of the same pod goes on behind it.
func (s *Server) keepReport(ctx context.Context, statement ledger.Statement, floor int64, packed []byte) (ledger.Statement, error) {
	none := ledger.Statement{}
	key, err := s.keyOfReports(ctx)
	if err != nil {
		return none, err
	}
	lease, reported, err := s.reported(ctx, statement.Store)
	if err != nil {
		return none, err
	}
	cm, kept, err := s.keptReport(ctx, statement.Store, key)
	if err != nil && asRefusalOnly(err) == nil {
		return none, err
	}
	if err != nil {
		s.Log.Error("The last report of a store is not what was signed, and the next one takes its place", "store", statement.Namespace+"/"+statement.Name, "cause", err)
	}
	isLost := reported.Last.Sequence < kept.Sequence
	if isLost {
		// The lease, or what stood with it, was lost: what was signed says how far it was.
		reported = ledger.Reported{Last: kept, Key: key.Public(), Reporters: []string{kept.Pod}}
	}
	next, changed, err := reported.Take(statement, key.Public(), floor, s.Clock.Now())
	switch {
	case errors.Is(err, ledger.ErrReportedBefore):
		return none, refuse(v1alpha1.ReasonReportReplayed, "%s", err)
	case errors.Is(err, ledger.ErrAnotherKey):
		return none, refuse(v1alpha1.ReasonKeyMissing, "%s: restore the backup with `kubectl lethe keys restore`", err)
	case err != nil:
		return none, refuse(v1alpha1.ReasonBadRequest, "%s", err)
	}
	if changed || isLost {
		if err := s.writeReported(ctx, lease, next); err != nil {
			return none, err
		}
	}
	if kept == next.Last {
		return next.Last, nil
	}
	signed, err := key.Sign(next.Last)
	if err != nil {
		return none, err
	}
	data, binary := map[string]string{statementKey: signed}, map[string][]byte{reportKey: packed}
	if cm != nil {
		cm.Data, cm.BinaryData = data, binary
		return next.Last, s.Client.Update(ctx, cm)
	}
	labels := resources.Labels(componentReport)
	labels[keystore.LabelVelero] = "true" // an earlier copy would be refused
	return next.Last, s.Client.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: s.KeysNamespace, Name: reportName(statement.Store), Labels: labels},
		Data: data, BinaryData: binary})
}

// reported reads what is remembered of a store's reports, with the lease that it stands at; one that is not there yet
// is not written here.
func (s *Server) reported(ctx context.Context, storeUID string) (*coordinationv1.Lease, ledger.Reported, error) {
	lease := &coordinationv1.Lease{}
	err := s.Client.Get(ctx, client.ObjectKey{Namespace: s.KeysNamespace, Name: leaseName(storeUID)}, lease)
	if apierrors.IsNotFound(err) {
		return &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: s.KeysNamespace, Name: leaseName(storeUID), Labels: leaseLabels()}}, ledger.Reported{}, nil
	}
	if err != nil {
		return nil, ledger.Reported{}, err
	}
	reported, err := ledger.DecodeReported(lease.Annotations[annotationReported])
	if err != nil {
		s.Log.Error("What is remembered of a store's reports cannot be read", "lease", lease.Name, "cause", err)
		delete(lease.Annotations, annotationReported)
		return lease, ledger.Reported{}, nil
	}
	return lease, reported, nil
}

func (s *Server) writeReported(ctx context.Context, lease *coordinationv1.Lease, reported ledger.Reported) error {
	text, err := reported.Encode()
	if err != nil {
		return err
	}
	if lease.Annotations == nil {
		lease.Annotations = map[string]string{}
	}
	lease.Annotations[annotationReported] = text
	if lease.ResourceVersion == "" {
		return s.Client.Create(ctx, lease)
	}
	return s.Client.Update(ctx, lease)
}

// keptReport reads the last report of a store, and the statement about it. nil where there is none. What is not as it
// was signed is refused, and the object returned with that.
func (s *Server) keptReport(ctx context.Context, storeUID string, key ledger.ReportKey) (*corev1.ConfigMap, ledger.Statement, error) {
	none := ledger.Statement{}
	cm := &corev1.ConfigMap{}
	err := s.Client.Get(ctx, client.ObjectKey{Namespace: s.KeysNamespace, Name: reportName(storeUID)}, cm)
	if apierrors.IsNotFound(err) {
		return nil, none, nil
	}
	if err != nil {
		return nil, none, err
	}
	forged := func(why string) error {
		return refuse(v1alpha1.ReasonReportForged, "ConfigMap %s/%s: %s; find out who may write there: the next sweep's report takes its place", cm.Namespace, cm.Name, why)
	}
	statement, err := ledger.OpenStatement(cm.Data[statementKey], key.Public())
	if err != nil {
		return cm, none, forged(err.Error())
	}
	if statement.Store != storeUID {
		return cm, none, forged("the statement is about another store")
	}
	if digest, err := keyapi.DigestPacked(cm.BinaryData[reportKey]); err != nil || digest != statement.Report {
		return cm, none, forged("the report is not the one that the statement is about")
	}
	return cm, statement, nil
}

// lastReport gives the manager the last report of a store, if it is the last one.
func (s *Server) lastReport(ctx context.Context, _ caller, req *keyapi.LastReportRequest) (*keyapi.LastReportResponse, error) {
	if req.Object.Kind != sealing.KindDataStore {
		return nil, refuse(v1alpha1.ReasonBadRequest, "kind must be DataStore")
	}
	sub, err := s.find(ctx, req.Object)
	if err != nil {
		return nil, err
	}
	key, err := s.keyOfReports(ctx)
	if err != nil {
		return nil, err
	}
	_, reported, err := s.reported(ctx, sub.uid())
	if err != nil {
		return nil, err
	}
	cm, kept, err := s.keptReport(ctx, sub.uid(), key)
	if err != nil {
		return nil, err
	}
	last := reported.Last
	// The number is written before the report, and both were not read at once.
	if age := s.Clock.Now().Sub(last.Time).Abs(); last.Sequence > 0 && kept.Sequence == last.Sequence-1 && age < requestTimeout {
		return nil, later(v1alpha1.ReasonInUse, 2, "report %d of the store is being kept", last.Sequence)
	}
	switch {
	case cm == nil && last.Sequence == 0:
		return &keyapi.LastReportResponse{}, nil
	case cm == nil:
		return nil, refuse(v1alpha1.ReasonReportLost, "report %d of the store was taken, and ConfigMap %s/%s, in which it was kept, is gone", last.Sequence, s.KeysNamespace, reportName(sub.uid()))
	case kept.Sequence < last.Sequence:
		return nil, refuse(v1alpha1.ReasonReportReplayed, "ConfigMap %s/%s holds report %d of the store, and %d was taken: an earlier one was put in its place, or the keyserver ended while it kept the last one; the next sweep's report takes its place",
			cm.Namespace, cm.Name, kept.Sequence, last.Sequence)
	case kept.Sequence == last.Sequence && kept != last:
		return nil, refuse(v1alpha1.ReasonReportForged, "ConfigMap %s/%s holds another report %d of the store than was taken", cm.Namespace, cm.Name, kept.Sequence)
	}
	return &keyapi.LastReportResponse{Statement: cm.Data[statementKey], Report: cm.BinaryData[reportKey]}, nil
}
