package keyserver

import (
	"context"
	"strconv"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/internal/keystore"
	"github.com/lethe-dev/lethe/internal/kube"
	"github.com/lethe-dev/lethe/internal/plan"
	"github.com/lethe-dev/lethe/internal/planner"
	"github.com/lethe-dev/lethe/internal/podspec"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/internal/sealing"
)

// Lengths of a sweep's lease.
const (
	leaseSeconds = keyapi.LeaseSeconds
	// lostAfter is how long after its end a lease is another's to take although the pod that held it is still there:
	// the clocks of two replicas differ, and a node may be cut off.
	lostAfter = 60 * time.Second
	// coveredMost is how long a sweep goes on by a plan that is not the live one but covered by it: what the live
	// plan lets go besides waits that long for a sweep of its own, and so does what it asks to be measured.
	coveredMost = 10 * time.Minute
)

// annotationHolder on a Lease names the pod that holds it; its UID is the holderIdentity.
const annotationHolder = "lethe.dev/holder"

// annotationPlan on a Lease is the hash of the plan that its holder was granted it for: the live one at that time,
// exactly.
const annotationPlan = "lethe.dev/plan-hash"

// annotationCovered on a Lease is since when its holder has gone on by a plan that the live one covers, in Unix
// seconds; none: it goes by the live one.
const annotationCovered = "lethe.dev/covered-since"

func leaseName(storeUID string) string { return "sweep-" + storeUID }

// lease lets a sweep go on for at most 30 seconds. It takes the plan from what is live, or was at most so long before
// the lease's end, itself, so that an edited plan gets nothing, and a changed policy, a suspended sweep or an Audit
// stops a running one. A sweep begins only by the live plan; one that runs goes on while the live plan covers its
// own.
func (s *Server) lease(ctx context.Context, who caller, req *keyapi.LeaseRequest) (*keyapi.LeaseResponse, error) {
	var reply sealing.PublicKey
	if req.PublicKey != "" {
		var err error
		if reply, err = sealing.ParsePublicKey(sealing.Suite, req.PublicKey); err != nil {
			return nil, refuse(v1alpha1.ReasonBadRequest, "publicKey is not a public key of %s in base64url", sealing.Suite)
		}
	}
	if req.Seen != nil && !req.Seen.IsValid() {
		return nil, refuse(v1alpha1.ReasonBadRequest, "seen is no point in the life of a store")
	}
	if resp := s.restedLease(ctx, who, req); resp != nil {
		return resp, nil
	}
	// From here on all is read. What is refused now is granted by nothing of before.
	var known *coordinationv1.Lease
	if st, ok := s.standings.Get(who.token); ok {
		known = st.lease
		s.standings.Forget(who.token)
	}
	if who.review != nil {
		var err error
		if who, err = who.review(ctx); err != nil {
			return nil, err
		}
	}
	began := s.Clock.Now()
	job, pod, store, err := s.sweptStore(ctx, who)
	if err != nil {
		return nil, err
	}
	made, exact, err := s.coveringPlan(ctx, store, req)
	if err != nil {
		return nil, err
	}
	tenant := made.tenant
	sub := subjectOf(store)
	isPresent, err := s.isSweep(ctx, job, pod, store, tenant, req.PlanHash)
	if err != nil {
		return nil, err
	}
	var keys *keystore.ObjectKeys
	if req.PublicKey != "" {
		if err := isolated(tenant); err != nil {
			return nil, err
		}
		if keys, err = s.storedKeys(ctx, sub, tenant); err != nil {
			return nil, err
		}
		if err := sealedForThere(sub, keys.Doc); err != nil {
			return nil, err
		}
	}
	// The clock is read before the lease is written: writing takes time that is not the sweeper's.
	now := s.Clock.Now()
	h := &holding{store: store, pod: pod, plan: made.at(now), exact: exact, req: req, now: now, known: known}
	lease, account, err := s.hold(ctx, h)
	if known != nil && err != nil { // it may be another one by now
		h.known = nil
		lease, account, err = s.hold(ctx, h)
	}
	if apierrors.IsAlreadyExists(err) || apierrors.IsConflict(err) {
		return nil, later(v1alpha1.ReasonInUse, 2, "another sweep of this store was faster")
	}
	if err != nil {
		return nil, err
	}
	if exact {
		s.standings.Put(who.token, newStanding(who, h, began, made, lease))
	}
	// What the permission rests on is older than now: it ends 30 seconds after the oldest of that.
	resp := leaseFor(store, made, req, made.as(began), now)
	if keys == nil {
		return resp, nil
	}
	resp.Account = account
	bundle, err := s.openSet(ctx, sub, keys, keys.Doc.Current)
	if err != nil {
		return nil, err
	}
	if resp.Sealed, err = sealBundle(reply, keyapi.PathLease, who.PodUID, bundle); err != nil {
		return nil, err
	}
	if isPresent {
		// Before the answer: without the record the sweep could not go on under a Lethe to come.
		if err := s.recordHelper(ctx, sub, keys); err != nil {
			return nil, err
		}
	}
	return resp, nil
}

func subjectOf(store *v1alpha1.DataStore) *subject {
	return &subject{kind: sealing.KindDataStore, object: store, store: store, known: store.Status.CredentialsSecret, seen: store.Status.CredentialsGeneration}
}

// sealedForThere refuses a store that is another place than its stored credentials were sealed for: whoever may edit
// where a store is must not be able to send a secret there.
func sealedForThere(sub *subject, doc keystore.ObjectDoc) error {
	for _, c := range sub.credentials() {
		if doc.Credentials[c.name].Destination != c.destination.Digest() {
			return refuse(v1alpha1.ReasonWrongPlace, "the stored %s was sealed for another place than the store has (its address, name, user or CA): seal it again for %s",
				c.name, sub.store.Spec.CredentialField(c.name))
		}
	}
	return nil
}

// isSweep refuses a pod that is not the one that Lethe makes for a sweep of a store by a plan. isPresent: it was made
// with what this keyserver has.
func (s *Server) isSweep(ctx context.Context, job *batchv1.Job, pod *corev1.Pod, store *v1alpha1.DataStore, tenant *v1alpha1.Tenant, planHash string) (isPresent bool, err error) {
	if isPresent, err = s.matchSweep(job, pod, store, tenant, planHash, nil); err == nil {
		return isPresent, nil
	}
	// It may be one that was begun before an upgrade: the store's document says what its sweeps were last made with.
	of, missing := s.storedKeys(ctx, subjectOf(store), tenant)
	if missing != nil {
		return false, missing
	}
	return s.matchSweep(job, pod, store, tenant, planHash, of.Doc.Helper)
}

// release ends a lease early. One that is not the caller's is left alone.
func (s *Server) release(ctx context.Context, who caller, _ *keyapi.ReleaseRequest) (*empty, error) {
	// The pod is on its way out by now, or what it was made of has changed: that it held the lease is all that counts.
	pod := &corev1.Pod{}
	err := s.Client.Get(ctx, client.ObjectKey{Namespace: who.Namespace, Name: who.Pod}, pod)
	if apierrors.IsNotFound(err) || apierrors.IsForbidden(err) || (err == nil && string(pod.UID) != who.PodUID) {
		return nil, refuse(v1alpha1.ReasonForbidden, "the pod that the token was made for is gone")
	}
	if err != nil {
		return nil, err
	}
	_, store, _, err := s.storeOf(ctx, pod)
	if err != nil {
		return nil, err
	}
	var lease coordinationv1.Lease
	err = s.Client.Get(ctx, client.ObjectKey{Namespace: s.KeysNamespace, Name: leaseName(string(store.UID))}, &lease)
	if apierrors.IsNotFound(err) {
		return &empty{}, nil
	}
	if err != nil {
		return nil, err
	}
	if holder(&lease) != who.PodUID {
		return &empty{}, nil
	}
	s.standings.Forget(who.token)
	none := ""
	lease.Spec.HolderIdentity = &none
	return &empty{}, s.Client.Update(ctx, &lease)
}

// sweptStore follows a pod to its store by UID, and refuses while anything on the way is suspended or on its way out.
func (s *Server) sweptStore(ctx context.Context, who caller) (*batchv1.Job, *corev1.Pod, *v1alpha1.DataStore, error) {
	pod, err := s.callingPod(ctx, who)
	if err != nil {
		return nil, nil, nil, err
	}
	job, store, suspended, err := s.storeOf(ctx, pod)
	if err != nil {
		return nil, nil, nil, err
	}
	if suspended {
		return nil, nil, nil, refuse(v1alpha1.ReasonSuspended, "the sweep is suspended")
	}
	if !store.DeletionTimestamp.IsZero() {
		return nil, nil, nil, refuse(v1alpha1.ReasonRevoked, "DataStore %s/%s is being deleted", store.Namespace, store.Name)
	}
	return job, pod, store, nil
}

// storeOf follows the owners of a sweep's pod: a Job, which the store's CronJob or the store itself controls. It also
// says whether the Job or the CronJob is suspended.
func (s *Server) storeOf(ctx context.Context, pod *corev1.Pod) (*batchv1.Job, *v1alpha1.DataStore, bool, error) {
	none := refuse(v1alpha1.ReasonForbidden, "the pod belongs to no DataStore")
	live := &unstructured.Unstructured{}
	live.SetGroupVersionKind(batchv1.SchemeGroupVersion.WithKind("Job"))
	if err := s.ownerOf(ctx, pod, batchv1.SchemeGroupVersion.String(), "Job", live); err != nil {
		return nil, nil, false, orNone(err, none)
	}
	job, err := podspec.ReadJob(live)
	if err != nil {
		return nil, nil, false, notOurPod(err)
	}
	suspended := job.Spec.Suspend != nil && *job.Spec.Suspend
	var owned metav1.Object = job
	if ref := metav1.GetControllerOf(job); ref != nil && ref.Kind == "CronJob" {
		var cron batchv1.CronJob
		if err := s.ownerOf(ctx, job, batchv1.SchemeGroupVersion.String(), "CronJob", &cron); err != nil {
			return nil, nil, false, orNone(err, none)
		}
		suspended = suspended || (cron.Spec.Suspend != nil && *cron.Spec.Suspend)
		owned = &cron
	}
	store := &v1alpha1.DataStore{}
	if err := s.ownerOf(ctx, owned, v1alpha1.GroupVersion.String(), sealing.KindDataStore, store); err != nil {
		return nil, nil, false, orNone(err, none)
	}
	return job, store, suspended, nil
}

// coveringPlan compiles the store's plan and compares it with the one that the sweep runs by: exact, or it covers
// that one, which is enough for a sweep that has begun.
func (s *Server) coveringPlan(ctx context.Context, store *v1alpha1.DataStore, req *keyapi.LeaseRequest) (made *madePlan, exact bool, err error) {
	now := s.Clock.Now()
	made, err = s.planOf(ctx, store, req.PublicKey == "", now)
	if r, ok := planner.IsRefusal(err); ok {
		if r.Reason == v1alpha1.ReasonDeleting {
			return nil, false, refuse(v1alpha1.ReasonRevoked, "%s", r.Message)
		}
		return nil, false, refuse(v1alpha1.ReasonPlanChanged, "the store has no plan: %s", r.Message)
	}
	if err != nil {
		return nil, false, err
	}
	// The plan of the week before is accepted too, or every sweep would be refused from a week's turn until the
	// manager has written the new one.
	if exact, err = made.accepts(req.PlanHash, now); err != nil {
		return nil, false, err
	}
	if !exact {
		if covered, err := s.covers(ctx, store, made.at(now), req, now); err != nil {
			return nil, false, err
		} else if !covered {
			return nil, false, anotherPlan()
		}
	}
	return made, exact, nil
}

func anotherPlan() error {
	return refuse(v1alpha1.ReasonPlanChanged, "the plan that the live objects give is another one: this sweep ends, the next one runs by the new plan")
}

// covers says whether the live plan covers the one that a sweep holds. That one is read from its ConfigMap, which
// anybody may have made: it is believed since its bytes have the hash for which, as hold sees to, the keyserver
// granted the lease itself.
func (s *Server) covers(ctx context.Context, store *v1alpha1.DataStore, live plan.Plan, req *keyapi.LeaseRequest, now time.Time) (bool, error) {
	if req.PublicKey != "" || len(req.PlanHash) != len(plan.HashBytes(nil)) || strings.Trim(req.PlanHash, "0123456789abcdef") != "" {
		return false, nil // a sweep begins by the live plan alone
	}
	var c corev1.ConfigMap
	err := s.Client.Get(ctx, client.ObjectKey{Namespace: store.Namespace, Name: resources.PlanName(store.Name, req.PlanHash)}, &c)
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	b := []byte(c.Data[resources.PlanKey])
	if plan.HashBytes(b) != req.PlanHash {
		return false, nil
	}
	held, err := plan.Decode(b)
	// One that cannot be read is of another version.
	return err == nil && now.Before(held.ValidUntil) && plan.Covers(live, held), nil
}

// holding is one call for a lease.
type holding struct {
	store *v1alpha1.DataStore
	pod   *corev1.Pod
	plan  plan.Plan
	exact bool // the sweep runs by plan itself, and not by one that it covers
	req   *keyapi.LeaseRequest
	now   time.Time
	known *coordinationv1.Lease // the Lease as this process wrote it last for that pod; nil: it is to be read
}

// hold takes or renews the store's lease for a pod, and writes the store's account in the same object at the same
// time: what a sweep is permitted is debited before it hears so. Two sweeps of one store never hold it at a time. A
// Lease that is known is written with its resourceVersion, which the API server refuses where it is another one by
// now.
func (s *Server) hold(ctx context.Context, h *holding) (*coordinationv1.Lease, *keyapi.Account, error) {
	lease, isNew := h.known.DeepCopy(), false
	if lease == nil {
		lease = &coordinationv1.Lease{}
		key := client.ObjectKey{Namespace: s.KeysNamespace, Name: leaseName(string(h.store.UID))}
		err := s.Client.Get(ctx, key, lease)
		if client.IgnoreNotFound(err) != nil {
			return nil, nil, err
		}
		if isNew = apierrors.IsNotFound(err); isNew {
			lease = &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name, Labels: leaseLabels()}}
		}
	}
	if !isNew {
		if err := s.mayTake(ctx, lease, h.pod, h.now); err != nil {
			return nil, nil, err
		}
	}
	// Only a sweep that was let begin by exactly its plan goes on by a plan that covers it.
	if !h.exact && (holder(lease) != string(h.pod.UID) || lease.Annotations[annotationPlan] != h.req.PlanHash) {
		return nil, nil, anotherPlan()
	}
	covered, err := coveredSince(lease, h)
	if err != nil {
		return nil, nil, err
	}
	account, err := s.book(lease, h)
	if err != nil {
		return nil, nil, err
	}
	grant(lease, h.pod, h.now)
	lease.Annotations[annotationPlan] = h.req.PlanHash
	if covered == "" {
		delete(lease.Annotations, annotationCovered)
	} else {
		lease.Annotations[annotationCovered] = covered
	}
	if isNew {
		err = s.Client.Create(ctx, lease)
	} else {
		err = s.Client.Update(ctx, lease)
	}
	return lease, account, err
}

// coveredSince is since when a sweep has gone on by a plan that is covered; empty: it goes by the live one. It
// refuses one for which that is too long.
func coveredSince(lease *coordinationv1.Lease, h *holding) (string, error) {
	if h.exact {
		return "", nil
	}
	text := lease.Annotations[annotationCovered]
	since, unread := strconv.ParseInt(text, 10, 64)
	if unread != nil { // it begins now: the Lease says nothing of it yet
		text, since = strconv.FormatInt(h.now.Unix(), 10), h.now.Unix()
	}
	if h.now.Sub(time.Unix(since, 0)) >= coveredMost {
		return "", refuse(v1alpha1.ReasonPlanChanged, "the plan that the live objects give is another one, for %s by now: this sweep ends, the next one runs by the new plan", coveredMost)
	}
	return text, nil
}

func holder(lease *coordinationv1.Lease) string {
	if lease.Spec.HolderIdentity == nil {
		return ""
	}
	return *lease.Spec.HolderIdentity
}

// mayTake lets a pod have a lease that it holds, that nobody holds, or that ended: when the holder's pod is gone, at
// once; when it is still there, only long after the end.
func (s *Server) mayTake(ctx context.Context, lease *coordinationv1.Lease, pod *corev1.Pod, now time.Time) error {
	held := holder(lease)
	if held == "" || held == string(pod.UID) || lease.Spec.RenewTime == nil {
		return nil
	}
	end := lease.Spec.RenewTime.Add(leaseSeconds * time.Second)
	if now.Before(end) {
		wait := int(end.Sub(now).Seconds()) + 1
		return later(v1alpha1.ReasonInUse, wait, "another sweep of this store is running")
	}
	if !now.Before(end.Add(lostAfter)) {
		return nil
	}
	var other corev1.Pod
	err := s.Client.Get(ctx, client.ObjectKey{Namespace: pod.Namespace, Name: lease.Annotations[annotationHolder]}, &other)
	if kube.UnlessMissing(err, lease.Annotations[annotationHolder]) != nil {
		return err
	}
	if err == nil && string(other.UID) == held && !ended(&other) {
		return later(v1alpha1.ReasonInUse, int(end.Add(lostAfter).Sub(now).Seconds())+1, "pod %s held the lease and still exists", other.Name)
	}
	return nil
}

func grant(lease *coordinationv1.Lease, pod *corev1.Pod, now time.Time) {
	uid, seconds, at := string(pod.UID), int32(leaseSeconds), metav1.NewMicroTime(now)
	if holder(lease) != uid {
		lease.Spec.AcquireTime = &at
		var transitions int32
		if lease.Spec.LeaseTransitions != nil {
			transitions = *lease.Spec.LeaseTransitions + 1
		}
		lease.Spec.LeaseTransitions = &transitions
	}
	lease.Spec.HolderIdentity, lease.Spec.LeaseDurationSeconds, lease.Spec.RenewTime = &uid, &seconds, &at
	if lease.Annotations == nil {
		lease.Annotations = map[string]string{}
	}
	lease.Annotations[annotationHolder] = pod.Name
}
