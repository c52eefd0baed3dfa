package keyserver

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/resources"
)

// managerMemory is how long a token of the manager is believed without asking again. The API server itself believes a
// token for about as long; pods are asked about every time, since a pod that is going away must lose its token at once.
const managerMemory = 10 * time.Second

// Keys of TokenReview's extra that a token bound to a pod has.
const (
	extraPodName = "authentication.kubernetes.io/pod-name"
	extraPodUID  = "authentication.kubernetes.io/pod-uid"
)

const serviceAccountPrefix = "system:serviceaccount:"

// review asks the API server whose token it is. Only tokens made for the keyserver count: one that was made for another
// service, and stolen there, must open nothing here.
func (s *Server) review(ctx context.Context, token string) (caller, error) {
	tr := &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{
		Token: token, Audiences: []string{v1alpha1.AudienceKeyserver}}}
	if err := s.Client.Create(ctx, tr); err != nil {
		// The error of a refused TokenReview may hold the object that was sent, and with it the token.
		return caller{}, later(v1alpha1.ReasonInternal, 2, "the API server could not be asked whose token it is")
	}
	// An API server that does not know audiences would vouch for any token: it must say that it checked ours.
	if !tr.Status.Authenticated || !slices.Contains(tr.Status.Audiences, v1alpha1.AudienceKeyserver) {
		return caller{}, refuse(v1alpha1.ReasonUnauthenticated, "the API server does not vouch for the token and the audience %s", v1alpha1.AudienceKeyserver)
	}
	namespace, sa, ok := strings.Cut(strings.TrimPrefix(tr.Status.User.Username, serviceAccountPrefix), ":")
	if !ok || !strings.HasPrefix(tr.Status.User.Username, serviceAccountPrefix) {
		return caller{}, refuse(v1alpha1.ReasonForbidden, "only ServiceAccounts may ask")
	}
	who := caller{Namespace: namespace, ServiceAccount: sa}
	if v := tr.Status.User.Extra[extraPodName]; len(v) == 1 {
		who.Pod = v[0]
	}
	if v := tr.Status.User.Extra[extraPodUID]; len(v) == 1 {
		who.PodUID = v[0]
	}
	return who, nil
}

func bearer(header string) (string, error) {
	token, ok := strings.CutPrefix(header, "Bearer ")
	if !ok || token == "" {
		return "", refuse(v1alpha1.ReasonUnauthenticated, "a bearer token is needed")
	}
	return token, nil
}

func sumOf(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

// forManager admits exactly one ServiceAccount.
func (s *Server) forManager(ctx context.Context, header string) (caller, error) {
	token, err := bearer(header)
	if err != nil {
		return caller{}, err
	}
	manager := caller{Namespace: s.Settings.Namespace, ServiceAccount: resources.ServiceAccountManager}
	key := sumOf(token)
	if _, ok := s.managers.Get(key); ok {
		return manager, nil
	}
	who, err := s.review(ctx, token)
	if err != nil {
		return who, err
	}
	if who.Namespace != manager.Namespace || who.ServiceAccount != manager.ServiceAccount {
		return who, refuse(v1alpha1.ReasonForbidden, "only the manager may ask this")
	}
	s.managers.Put(key, struct{}{})
	return manager, nil
}

// forPod admits tokens that are bound to a pod. Whether the pod may have anything is the call's to find out.
func (s *Server) forPod(ctx context.Context, header string) (caller, error) {
	token, err := bearer(header)
	if err != nil {
		return caller{}, err
	}
	who, err := s.review(ctx, token)
	if err != nil {
		return who, err
	}
	if who.Pod == "" || who.PodUID == "" {
		return who, refuse(v1alpha1.ReasonForbidden, "the token is not bound to a pod: only a projected token of the pod itself is accepted")
	}
	who.token = sumOf(token)
	return who, nil
}

// forSweep admits what forPod does. A token by which a lease was granted shortly before is believed for what rests on
// that; for anything else the call has it reviewed.
func (s *Server) forSweep(ctx context.Context, header string) (caller, error) {
	token, err := bearer(header)
	if err != nil {
		return caller{}, err
	}
	st, ok := s.standings.Get(sumOf(token))
	if !ok || !st.isFresh(s.Clock.Now()) {
		who, err := s.forPod(ctx, header)
		if err != nil {
			s.standings.Forget(sumOf(token)) // what is refused now is granted by nothing of before
		}
		return who, err
	}
	who := st.who
	who.review = func(ctx context.Context) (caller, error) { return s.forPod(ctx, header) }
	return who, nil
}

func (c caller) String() string { return fmt.Sprintf("pod %s/%s", c.Namespace, c.Pod) }
