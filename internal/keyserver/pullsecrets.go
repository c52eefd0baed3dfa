package keyserver

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/internal/resources"
)

// pullSecrets looks whether the Secrets are there that an object's images are to be pulled with. The manager may read
// no Secret, and the kubelet says in an event alone, which nobody keeps, that one is missing. What is in them stays
// here.
func (s *Server) pullSecrets(ctx context.Context, _ caller, req *keyapi.PullSecretsRequest) (*keyapi.PullSecretsResponse, error) {
	sub, err := s.find(ctx, req.Object)
	if err != nil {
		return nil, err
	}
	tenant, err := s.tenantOf(ctx, sub.namespace())
	if err != nil {
		return nil, err
	}
	resp := &keyapi.PullSecretsResponse{}
	for _, name := range resources.PullSecrets(s.Settings, tenant, sub.bot) {
		secret := &corev1.Secret{}
		err := s.Client.Get(ctx, client.ObjectKey{Namespace: sub.namespace(), Name: name}, secret)
		switch {
		case apierrors.IsNotFound(err):
			resp.Missing = append(resp.Missing, name)
		case err != nil:
			return nil, err
		case secret.Type != corev1.SecretTypeDockerConfigJson && secret.Type != corev1.SecretTypeDockercfg:
			resp.Unusable = append(resp.Unusable, name)
		}
	}
	return resp, nil
}
