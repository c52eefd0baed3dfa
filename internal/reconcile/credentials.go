package reconcile

import (
	"context"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keyapi"
)

// AskCredentials has the keyserver open, encrypt and store the credentials of a bot or a store. What it answers is
// held against what the Tenant says of its keys; a refusal, or its absence, is a problem of CredentialsReady.
func AskCredentials(ctx context.Context, keys Keys, doubts *KeyDoubts, kind string, object client.Object, tenant *v1alpha1.Tenant) (keyapi.CredentialsResponse, error) {
	answer, err := keys.Credentials(ctx, RefTo(kind, object))
	doubts.Weigh(ctx, tenant, answer, err)
	if err != nil {
		return keyapi.CredentialsResponse{}, KeyProblem(v1alpha1.ConditionCredentialsReady, err)
	}
	return answer, nil
}
