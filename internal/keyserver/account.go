package keyserver

import (
	coordinationv1 "k8s.io/api/coordination/v1"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/internal/keystore"
	"github.com/lethe-dev/lethe/internal/ledger"
	"github.com/lethe-dev/lethe/internal/resources"
)

// annotationAccount on a Lease holds the account of the store's sweeps. Only the keyserver writes Leases in its
// namespace.
const annotationAccount = "lethe.dev/account"

// leaseLabels keep an account out of backups: an earlier copy would give back what has been used.
func leaseLabels() map[string]string {
	labels := resources.Labels(componentLease)
	labels[keystore.LabelVelero] = "true"
	return labels
}

// book reads the store's account out of its lease, enters what a sweep asks and tells, and puts it back. Nothing is
// written here.
func (s *Server) book(lease *coordinationv1.Lease, h *holding) (*keyapi.Account, error) {
	l, lost := s.account(lease, h)
	approved := h.store.Spec.ApprovedPlan
	if approved != nil && approved.Seen != nil && approved.Identity.IsValid() && approved.Seen.Point.IsValid() {
		l.Approve(keyapi.Point{Of: approved.Identity, StorePoint: approved.Seen.Point}, approved.Seen.ApprovedAt.Time, h.now)
	}
	if err := l.Spend(h.plan, h.req.Spend, h.now); err != nil {
		return nil, refuse(v1alpha1.ReasonBacklogSpent, "%s", err)
	}
	told := *h.req
	if approved == nil {
		told.Restored = "" // nothing is deleted, and whoever approves later looks at what is there then
	}
	l.Note(h.plan, &told, h.now)
	text, err := l.Encode()
	if err != nil {
		return nil, err
	}
	if lease.Annotations == nil {
		lease.Annotations = map[string]string{}
	}
	lease.Annotations[annotationAccount] = text
	out := l.Account(h.plan, h.now)
	out.Lost = lost
	return out, nil
}

// account of a store. Where there is none that can be read one is begun: what was approved before counts as used
// then, and what the manager wrote down of the last sweep takes the place of what is not remembered. lost: the store
// was measured before.
func (s *Server) account(lease *coordinationv1.Lease, h *holding) (l *ledger.Ledger, lost bool) {
	status := h.store.Status
	text, isThere := lease.Annotations[annotationAccount]
	if isThere {
		l, err := ledger.Decode(text)
		if err == nil {
			return l, false
		}
		s.Log.Error("The account of a store's sweeps cannot be read", "store", h.store.Namespace+"/"+h.store.Name, "cause", err)
	}
	l, lost = ledger.New(h.now), isThere || status.MeasuredAt != nil
	if status.Point != nil && status.Point.IsValid() && status.Plan.Identity.IsValid() {
		l.Point = &keyapi.Point{Of: status.Plan.Identity, StorePoint: *status.Point}
		if status.MeasuredAt != nil {
			l.PointAt = status.MeasuredAt.Unix()
		}
	}
	if last := status.LastSweep; last != nil && last.Reason == v1alpha1.ReasonRestoredFrom && last.FinishedAt != nil {
		l.Restored, l.RestoredAt = last.Message, last.FinishedAt.Unix()
	}
	if lost {
		s.Log.Warn("The account of a store's sweeps is lost: what was approved before now counts as used", "store", h.store.Namespace+"/"+h.store.Name)
	}
	return l, lost
}

const (
	componentLease = "lease"
)
