package keyserver

import (
	"context"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keyapi"
)

const (
	// restFor is how long what a sweep asks besides rests on the last time that all of it was read. A lease ends 30
	// seconds after that time, so that at least half of it is left then: enough to read again more than once.
	restFor = 15 * time.Second
	// standingMemory is how long a standing is remembered: the Lease in it, which is written with its
	// resourceVersion, spares reading it also when all the rest is read again.
	standingMemory = time.Minute
)

// standing is what the lease of a sweep was last granted on, when all of it was read: whose the token is, the pod and
// its owners, the store, its namespace and its tenant, the policies. It is of one token and of one plan.
type standing struct {
	who  caller
	hash string // of the plan that the sweep runs by: the live one, exactly
	// at is before the first of it was read. What was written before at has been seen, but for the Tenants of a
	// Shared store that are followed: that of them is proven on its own.
	at    time.Time
	made  *madePlan
	store *v1alpha1.DataStore   // what of the store a lease is answered by, and its account, once there is one, is kept
	pod   *corev1.Pod           // its names
	lease *coordinationv1.Lease // as this process wrote it last
}

func newStanding(who caller, h *holding, at time.Time, made *madePlan, lease *coordinationv1.Lease) *standing {
	store := &v1alpha1.DataStore{ObjectMeta: metav1.ObjectMeta{Namespace: h.store.Namespace, Name: h.store.Name, UID: h.store.UID}}
	store.Spec.Tenancy, store.Spec.ApprovedPlan = h.store.Spec.Tenancy, h.store.Spec.ApprovedPlan
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: h.pod.Namespace, Name: h.pod.Name, UID: h.pod.UID}}
	return &standing{who: who, hash: h.req.PlanHash, at: at, made: made, store: store, pod: pod, lease: lease}
}

// isFresh says whether anything may rest on it. A clock that was set back, or far ahead, makes nothing fresh, and
// neither does a machine that stood still, in which time goes on by the wall's clock alone.
func (st *standing) isFresh(now time.Time) bool {
	for _, passed := range []time.Duration{now.Sub(st.at), onTheWall(now).Sub(onTheWall(st.at))} {
		if passed < 0 || passed > restFor {
			return false
		}
	}
	return true
}

// onTheWall is a time without its monotonic reading.
func onTheWall(t time.Time) time.Time { return t.Round(0) }

// proof is up to when everything is known that a lease rests on, if it is at all. Of the Tenants of a Shared store
// that are followed it asks anew: a restraint that has come is seen, and what is not proven counts for nothing.
func (s *Server) proof(st *standing) (since time.Time, ok bool) {
	if st.store.Spec.Tenancy != v1alpha1.TenancyShared {
		return st.at, true
	}
	seen, _ := s.everybody.all()
	if st.made.tenants == 0 { // they were read live, like all the rest
		return st.at, true
	}
	if !seen.isFresh() || seen.version != st.made.tenants {
		return time.Time{}, false
	}
	if seen.since.Before(st.at) {
		return seen.since, true
	}
	return st.at, true
}

// tells says whether a request has anything entered in the store's account.
func tells(req *keyapi.LeaseRequest) bool {
	return len(req.Spend) > 0 || req.Seen != nil || req.Restored != "" || len(req.Returned) > 0 || len(req.Cleared) > 0
}

// restedLease answers what a sweep asks shortly after all that its lease rests on was read for it: the same lease, to
// at most 30 seconds after that. What is to be entered in the account is written on the Lease as this process wrote
// it last; where that is another one by now, or is gone, or whatever else goes wrong, nothing rests on anything. No
// answer: all is to be read.
func (s *Server) restedLease(ctx context.Context, who caller, req *keyapi.LeaseRequest) *keyapi.LeaseResponse {
	st, ok := s.standings.Get(who.token)
	now := s.Clock.Now()
	if !ok || !st.isFresh(now) || req.PublicKey != "" || req.PlanHash != st.hash {
		return nil
	}
	// The plan of the week before ends.
	if exact, err := st.made.accepts(req.PlanHash, now); err != nil || !exact {
		return nil
	}
	since, ok := s.proof(st)
	if !ok {
		return nil
	}
	if req.Restored != "" {
		return nil // an approval that has come meanwhile decides what becomes of it
	}
	if tells(req) {
		h := &holding{store: st.store, pod: st.pod, plan: st.made.at(now), exact: true, req: req, now: now, known: st.lease}
		lease, _, err := s.hold(ctx, h)
		if err != nil {
			s.standings.Forget(who.token)
			return nil
		}
		next := *st
		next.lease = lease
		s.standings.Put(who.token, &next)
	}
	return leaseFor(st.store, st.made, req, since, now)
}

// leaseFor answers a lease that rests on what is known up to a time: it ends 30 seconds after that, by the clock by
// which that is sooner.
func leaseFor(store *v1alpha1.DataStore, made *madePlan, req *keyapi.LeaseRequest, since, now time.Time) *keyapi.LeaseResponse {
	until := since.Add(keyapi.LeaseSeconds * time.Second)
	left := max(0, min(until.Sub(now), onTheWall(until).Sub(onTheWall(now)), keyapi.LeaseSeconds*time.Second))
	resp := &keyapi.LeaseResponse{Expires: now.Add(left).UTC(), Seconds: int(left / time.Second)}
	if store.Spec.Tenancy == v1alpha1.TenancyShared {
		resp.KnownDigest, resp.Known = made.knownDigest, keyapi.KnownPage(made.known, req.KnownFrom)
	}
	return resp
}
