package operator

import (
	"context"
	"sync"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/internal/report"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/test/lease"
)

// StoreKeys is a keyserver that stores every credential, or answers as a test says.
type StoreKeys struct {
	Mu      sync.Mutex
	Err     error
	Answer  *keyapi.CredentialsResponse
	Asked   []string
	Revoked []string
	Pulls   keyapi.PullSecretsResponse
	// Reports that were taken, the last one of each store, by its UID; ReportErr is answered instead of them.
	Reports   map[string]keyapi.LastReportResponse
	ReportErr error
	// LastReports, if set, is asked instead.
	LastReports interface {
		LastReport(ctx context.Context, store keyapi.ObjectRef) (keyapi.LastReportResponse, error)
	}
	taken int64
}

// LastReport implements reconcile.Keys.
func (k *StoreKeys) LastReport(ctx context.Context, store keyapi.ObjectRef) (keyapi.LastReportResponse, error) {
	k.Mu.Lock()
	defer k.Mu.Unlock()
	if k.LastReports != nil {
		return k.LastReports.LastReport(ctx, store)
	}
	return k.Reports[store.UID], k.ReportErr
}

// Take takes a report of a Job's pod as the keyserver does.
func (k *StoreKeys) Take(job *batchv1.Job, pod *corev1.Pod, text string) error {
	_, err := k.take(job, pod, text)
	return err
}

// take takes a report, and returns the termination message that names it. What is
// no report is handed to nobody, and stands in the message as it is.
func (k *StoreKeys) take(job *batchv1.Job, pod *corev1.Pod, text string) (string, error) {
	if _, err := report.Decode(text); err != nil {
		return text, nil
	}
	k.Mu.Lock()
	defer k.Mu.Unlock()
	k.taken++
	statement := lease.StatementOf(job, pod)
	statement.Sequence = k.taken
	answer, message, err := lease.Signed(statement, []byte(text))
	if k.Reports == nil {
		k.Reports = map[string]keyapi.LastReportResponse{}
	}
	k.Reports[statement.Store] = answer
	return message, err
}

// Tenant implements reconcile.Keys.
func (k *StoreKeys) Tenant(context.Context, keyapi.ObjectRef) (keyapi.TenantResponse, error) {
	return keyapi.TenantResponse{}, nil
}

// Credentials implements reconcile.Keys.
func (k *StoreKeys) Credentials(_ context.Context, o keyapi.ObjectRef) (keyapi.CredentialsResponse, error) {
	k.Mu.Lock()
	defer k.Mu.Unlock()
	if k.Err != nil {
		return keyapi.CredentialsResponse{}, k.Err
	}
	k.Asked = append(k.Asked, o.Name)
	if k.Answer != nil {
		return *k.Answer, nil
	}
	return keyapi.CredentialsResponse{
		Secret: resources.CredentialsName(o.Name, "0123456789abcdef"),
		Items:  []keyapi.CredentialResult{{Name: "password", Reason: v1alpha1.ReasonStored, Version: 1}},
	}, nil
}

// PullSecrets implements reconcile.Keys.
func (k *StoreKeys) PullSecrets(context.Context, keyapi.ObjectRef) (keyapi.PullSecretsResponse, error) {
	k.Mu.Lock()
	defer k.Mu.Unlock()
	return k.Pulls, k.Err
}

// Revoke implements reconcile.Keys.
func (k *StoreKeys) Revoke(_ context.Context, o keyapi.ObjectRef) error {
	k.Mu.Lock()
	defer k.Mu.Unlock()
	if k.Err != nil {
		return k.Err
	}
	k.Revoked = append(k.Revoked, o.UID)
	return nil
}
