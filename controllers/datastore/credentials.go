package datastore

import (
	"context"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/internal/reconcile"
	"github.com/lethe-dev/lethe/internal/resources"
)

// storedBefore is what the status says about the credential.
func storedBefore(store *v1alpha1.DataStore) metav1.Condition {
	c := meta.FindStatusCondition(store.Status.Conditions, v1alpha1.ConditionCredentialsReady)
	if c == nil || c.Status == metav1.ConditionUnknown {
		return metav1.Condition{Status: metav1.ConditionUnknown, Reason: v1alpha1.ReasonWaiting, Message: "An earlier step comes first."}
	}
	return metav1.Condition{Status: c.Status, Reason: c.Reason, Message: c.Message}
}

// ensureCredentials asks the keyserver to open the password and to encrypt it for this store. It is asked again when
// the spec has changed, when it did not succeed, when a sweep was refused its lease (the Secret may be gone), and
// every hour.
func (r *Reconciler) ensureCredentials(ctx context.Context, s *scope) (time.Duration, error) {
	before, known := r.stored.Get(s.store)
	if !known {
		before = reconcile.Response[struct{}]{Generation: generationOf(s.status.Conditions), At: s.now.Add(reconcile.Jitter(s.store.UID, reconcile.VerifyEvery) - reconcile.VerifyEvery)}
	}
	last := s.status.LastSweep
	turnedAway := last != nil && last.Reason == v1alpha1.ReasonLeaseRefused && last.FinishedAt != nil && before.At.Before(last.FinishedAt.Time)
	due := before.At.Add(reconcile.VerifyEvery)
	if s.status.CredentialsSecret != "" && s.credentials.Status == metav1.ConditionTrue && before.Generation == s.store.Generation && !turnedAway && s.now.Before(due) {
		return due.Sub(s.now), nil
	}
	got, err := reconcile.AskCredentials(ctx, r.Keys, r.Doubts, resources.KindDataStore, s.store, s.tenant)
	if p := reconcile.ProblemIn(err); p != nil {
		s.credentials = metav1.Condition{Status: metav1.ConditionFalse, Reason: p.Reason, Message: p.Message}
		s.retried = !p.Stalled
		if s.status.CredentialsSecret != "" {
			// Sweeps go on with the credential that is stored: nothing is gained by stopping them.
			return p.After, nil
		}
		return p.After, p
	}
	r.stored.Put(s.store, s.now, struct{}{})
	if got.Secret != "" {
		if last := s.status.LastSweep; last != nil && s.status.CredentialsSecret != "" && s.status.CredentialsSecret != got.Secret {
			// A sweep by the password before says nothing about the present one: the next is due now.
			last.PlanDigest = ""
		}
		s.status.CredentialsSecret = got.Secret
	}
	s.status.CredentialsGeneration = max(s.status.CredentialsGeneration, got.Generation)
	s.credentials = verdictOn(&s.store.Spec, got)
	return reconcile.VerifyEvery, nil
}

// generationOf the spec that the credential was last stored for, as the status remembers it over a restart.
func generationOf(conditions []metav1.Condition) int64 {
	if c := meta.FindStatusCondition(conditions, v1alpha1.ConditionCredentialsReady); c != nil && c.Status == metav1.ConditionTrue {
		return c.ObservedGeneration
	}
	return 0
}

// verdictOn the store's credentials: the first one that is not as it should be decides.
func verdictOn(spec *v1alpha1.DataStoreSpec, answer keyapi.CredentialsResponse) metav1.Condition {
	stored := metav1.Condition{Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonStored, Message: "The credentials were opened and are encrypted at rest."}
	for _, item := range answer.Items {
		switch item.Reason {
		case v1alpha1.ReasonStored:
		case v1alpha1.ReasonRolledBack:
			if answer.Secret == "" {
				return metav1.Condition{Status: metav1.ConditionFalse, Reason: item.Reason, Message: spec.CredentialField(item.Name) + ": " + item.Message}
			}
			if stored.Reason == v1alpha1.ReasonStored {
				stored.Reason, stored.Message = item.Reason, item.Message
			}
		default:
			return metav1.Condition{Status: metav1.ConditionFalse, Reason: item.Reason, Message: spec.CredentialField(item.Name) + ": " + item.Message}
		}
	}
	if answer.Secret == "" {
		return metav1.Condition{Status: metav1.ConditionFalse, Reason: v1alpha1.ReasonNotReady, Message: "The keyserver has stored no credential yet."}
	}
	return stored
}
