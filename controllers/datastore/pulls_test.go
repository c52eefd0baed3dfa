package datastore_test

import (
	"testing"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	storecontroller "github.com/lethe-dev/lethe/controllers/datastore"
	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/test/operator"
)

// TestSweepWithoutItsImage: a sweep whose image cannot be pulled would be waited for until its deadline, and leave no
// report. The store says so, with the Secrets that it was tried with, and is well again when it runs.
func TestSweepWithoutItsImage(t *testing.T) {
	b := operator.NewStoreBench(t, v1alpha1.TenantCustomer)
	store := b.Store("chat", nil)
	b.Policy("promise", v1alpha1.PolicyAudit, operator.Rule("Conversations", operator.Period(90)))
	b.Settle(store)
	job := b.Job()
	b.Keys.Mu.Lock()
	b.Keys.Pulls = keyapi.PullSecretsResponse{Missing: []string{"installation-registry"}}
	b.Keys.Mu.Unlock()
	pod := b.WaitingPod(job, "ErrImagePull", "rpc error: 403 Forbidden")
	job.Status.Active, job.Status.Ready = 1, new(int32)
	b.Must(b.Cluster.Status().Update(b.Context(), job))

	b.Clock.SetTime(job.CreationTimestamp.Time)
	result := b.Settle(store)
	if result.RequeueAfter <= 0 || result.RequeueAfter > storecontroller.StartsWithin {
		t.Errorf("looks again after %v, want within %v of the Job's start", result.RequeueAfter, storecontroller.StartsWithin)
	}
	b.Want(store, map[string]string{v1alpha1.ConditionReady: "False " + v1alpha1.ReasonNotMeasured})
	b.Clock.SetTime(b.Clock.Now().Add(storecontroller.StartsWithin + time.Second))
	b.Settle(store)
	b.Want(store, map[string]string{v1alpha1.ConditionReady: "False " + v1alpha1.ReasonImagePullUnauthorized})
	b.Says(store, v1alpha1.ConditionReady, "Secret installation-registry, which the installation (chart: image.pullSecrets) names, does not exist in namespace "+b.Namespace)

	b.Must(b.Cluster.Delete(b.Context(), pod, client.GracePeriodSeconds(0)))
	one := int32(1)
	b.Read(job)
	job.Status.Ready = &one
	b.Must(b.Cluster.Status().Update(b.Context(), job))
	b.Settle(store)
	b.Want(store, map[string]string{v1alpha1.ConditionReady: "False " + v1alpha1.ReasonNotMeasured})
}
