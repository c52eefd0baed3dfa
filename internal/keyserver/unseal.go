package keyserver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/internal/keystore"
	"github.com/lethe-dev/lethe/internal/podspec"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/internal/sealing"
)

// unseal gives a bot's pod its credentials, encrypted to the pod's one-time key. Everything that decides is read
// live: the pod, its owners by UID, the bot, the namespace and the Tenant, the bot's data key.
func (s *Server) unseal(ctx context.Context, who caller, req *keyapi.UnsealRequest) (*keyapi.UnsealResponse, error) {
	reply, err := sealing.ParsePublicKey(sealing.Suite, req.PublicKey)
	if err != nil {
		return nil, refuse(v1alpha1.ReasonBadRequest, "publicKey is not a public key of %s in base64url", sealing.Suite)
	}
	pod, err := s.callingPod(ctx, who)
	if err != nil {
		return nil, err
	}
	set, bot, err := s.botOf(ctx, pod)
	if err != nil {
		return nil, err
	}
	sub := &subject{kind: sealing.KindBotDeployment, object: bot, bot: bot, known: bot.Status.CredentialsSecret, seen: bot.Status.CredentialsGeneration}
	if err := sub.alive(); err != nil {
		return nil, err
	}
	tenant, err := s.tenantOf(ctx, sub.namespace())
	if err != nil {
		return nil, err
	}
	if resources.IsSuspended(bot, tenant) {
		return nil, refuse(v1alpha1.ReasonSuspended, "the bot or its Tenant is suspended")
	}
	keys, err := s.storedKeys(ctx, sub, tenant)
	if err != nil {
		return nil, err
	}
	if err := s.uidsOnRecord(ctx, tenant); err != nil {
		return nil, err
	}
	// The annotation only chooses among the sets that this keyserver itself wrote for this object.
	credentials := pod.Annotations[v1alpha1.AnnotationCredentials]
	if !slices.Contains(keys.Doc.Sets, credentials) {
		return nil, refuse(v1alpha1.ReasonPodMismatch, "the pod's annotation %s names no credentials of this bot", v1alpha1.AnnotationCredentials)
	}
	if err := isolated(tenant); err != nil {
		return nil, err
	}
	whole, err := s.withFiles(ctx, bot)
	if err != nil {
		return nil, err
	}
	isPresent, err := s.matchBot(set, pod, whole, tenant, keys.Doc.Helper)
	if err != nil {
		return nil, err
	}
	if err := s.claimOnRecord(ctx, bot, tenant); err != nil {
		return nil, err
	}
	sub.tenant = tenant.Name
	if err := s.holdsChannel(ctx, sub, keys); err != nil {
		return nil, err
	}
	if polls(bot) {
		if err := s.onlyPod(ctx, pod); err != nil {
			return nil, err
		}
	}
	bundle, err := s.openSet(ctx, sub, keys, credentials)
	if err != nil {
		return nil, err
	}
	sealed, err := sealBundle(reply, keyapi.PathUnseal, who.PodUID, bundle)
	if err != nil {
		return nil, err
	}
	if isPresent {
		// Before the answer: without the record the pod could not start again under a Lethe to come.
		if err := s.recordHelper(ctx, sub, keys); err != nil {
			return nil, err
		}
	}
	return &keyapi.UnsealResponse{Sealed: sealed}, nil
}

// callingPod reads the pod that a token is bound to. The API server vouches for a token some time after its pod began
// to go, so the pod itself is asked: it must be the same object and on no way out.
func (s *Server) callingPod(ctx context.Context, who caller) (*corev1.Pod, error) {
	pod, err := s.presentPod(ctx, who)
	if err == nil && !pod.DeletionTimestamp.IsZero() {
		return nil, refuse(v1alpha1.ReasonForbidden, "the pod is on its way out")
	}
	return pod, err
}

// presentPod is the same for a pod that may be on its way out, and has not ended.
func (s *Server) presentPod(ctx context.Context, who caller) (*corev1.Pod, error) {
	live := &unstructured.Unstructured{}
	live.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Pod"))
	err := s.Client.Get(ctx, client.ObjectKey{Namespace: who.Namespace, Name: who.Pod}, live)
	if apierrors.IsForbidden(err) {
		// The keyserver may read pods in tenants' namespaces only.
		return nil, refuse(v1alpha1.ReasonNoTenant, "namespace %s belongs to no Tenant", who.Namespace)
	}
	if apierrors.IsNotFound(err) || (err == nil && string(live.GetUID()) != who.PodUID) {
		return nil, refuse(v1alpha1.ReasonForbidden, "the pod that the token was made for is gone")
	}
	if err != nil {
		return nil, err
	}
	pod, err := podspec.Read(live)
	if err != nil {
		return nil, notOurPod(err)
	}
	switch {
	case ended(pod):
		return nil, refuse(v1alpha1.ReasonForbidden, "the pod is on its way out")
	case pod.Spec.ServiceAccountName != who.ServiceAccount:
		return nil, refuse(v1alpha1.ReasonForbidden, "the token is of another ServiceAccount than the pod's")
	}
	return pod, nil
}

func ended(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}

// errNoBot is the one answer to a pod whose owners are not what they should be.
func errNoBot() error {
	return refuse(v1alpha1.ReasonForbidden, "the pod belongs to no BotDeployment")
}

// botOf follows the owners of a pod by UID: names and labels can be made up, an object's own UID cannot.
func (s *Server) botOf(ctx context.Context, pod *corev1.Pod) (*appsv1.StatefulSet, *v1alpha1.BotDeployment, error) {
	live := &unstructured.Unstructured{}
	live.SetGroupVersionKind(appsv1.SchemeGroupVersion.WithKind("StatefulSet"))
	if err := s.ownerOf(ctx, pod, appsv1.SchemeGroupVersion.String(), "StatefulSet", live); err != nil {
		return nil, nil, orNone(err, errNoBot())
	}
	bot := &v1alpha1.BotDeployment{}
	if err := s.ownerOf(ctx, live, v1alpha1.GroupVersion.String(), sealing.KindBotDeployment, bot); err != nil {
		return nil, nil, orNone(err, errNoBot())
	}
	if resources.BotName(bot.Name) != live.GetName() {
		return nil, nil, errNoBot()
	}
	set, err := podspec.ReadStatefulSet(live)
	if err != nil {
		return nil, nil, notOurPod(err)
	}
	return set, bot, nil
}

// errNotOwned says that an object has no controller of the kind that was looked for.
var errNotOwned = errors.New("no such owner")

func orNone(err, none error) error {
	if errors.Is(err, errNotOwned) {
		return none
	}
	return err
}

// ownerOf reads the controller of an object into owner: of that kind, of that UID, or errNotOwned.
func (s *Server) ownerOf(ctx context.Context, obj metav1.Object, apiVersion, kind string, owner client.Object) error {
	ref := metav1.GetControllerOf(obj)
	if ref == nil || ref.APIVersion != apiVersion || ref.Kind != kind {
		return errNotOwned
	}
	err := s.Client.Get(ctx, client.ObjectKey{Namespace: obj.GetNamespace(), Name: ref.Name}, owner)
	if apierrors.IsNotFound(err) || (err == nil && owner.GetUID() != ref.UID) {
		return errNotOwned
	}
	return err
}

// storedKeys returns the data key of an object whose credentials were stored.
func (s *Server) storedKeys(ctx context.Context, sub *subject, tenant *v1alpha1.Tenant) (*keystore.ObjectKeys, error) {
	tkeys, err := s.keys.KeysOf(ctx, tenant)
	if err != nil {
		return nil, err
	}
	keys, err := s.keys.LoadObjectKeys(ctx, sub.ref(), sub.seen, tkeys)
	switch {
	case err != nil:
		return nil, err
	case keys == nil && sub.hadKeys():
		return nil, refuse(v1alpha1.ReasonRevoked, "the keys of %s %s/%s were destroyed", sub.kind, sub.namespace(), sub.name())
	case keys == nil:
		return nil, later(v1alpha1.ReasonNotReady, 2, "the credentials of %s %s/%s are not stored yet", sub.kind, sub.namespace(), sub.name())
	}
	return keys, nil
}

// polls says whether a bot fetches its messages itself, which only one pod at a time can do.
func polls(bot *v1alpha1.BotDeployment) bool {
	for _, c := range bot.Spec.Channels {
		if c.Type == v1alpha1.ChannelTelegram {
			return true
		}
	}
	return false
}

// onlyPod refuses while another pod of the same bot has not ended: that one may hold the token. Pods are found by their
// ServiceAccount, which is the bot's own and cannot be changed in a pod, as labels can.
func (s *Server) onlyPod(ctx context.Context, pod *corev1.Pod) error {
	var pods corev1.PodList
	if err := s.Client.List(ctx, &pods, client.InNamespace(pod.Namespace),
		client.MatchingFields{"spec.serviceAccountName": pod.Spec.ServiceAccountName}); err != nil {
		return err
	}
	for i := range pods.Items {
		if other := &pods.Items[i]; other.UID != pod.UID && !ended(other) {
			return later(v1alpha1.ReasonInUse, 2, "pod %s of the same bot still exists, and only one may hold the token", other.Name)
		}
	}
	return nil
}

// openSet reads and opens an encrypted Secret of an object.
func (s *Server) openSet(ctx context.Context, sub *subject, keys *keystore.ObjectKeys, set string) (*keyapi.SecretBundle, error) {
	var secret corev1.Secret
	err := s.Client.Get(ctx, client.ObjectKey{Namespace: sub.namespace(), Name: keys.Doc.SecretOf(set)}, &secret)
	if apierrors.IsNotFound(err) {
		return nil, later(v1alpha1.ReasonNotReady, 2, "Secret %s/%s is gone; the manager makes it again", sub.namespace(), set)
	}
	if err != nil {
		return nil, err
	}
	if !isOurs(&secret, sub) {
		return nil, refuse(v1alpha1.ReasonForeignSecret, "Secret %s/%s is not the one that Lethe made: delete it", sub.namespace(), set)
	}
	bundle := &keyapi.SecretBundle{}
	var found []resolved
	for _, name := range slices.Sorted(maps.Keys(secret.Data)) {
		item, version, err := decryptItem(keys, name, secret.Data[name])
		if err != nil {
			return nil, refuse(v1alpha1.ReasonForeignSecret, "value %s in Secret %s/%s was altered: delete the Secret, and it is made again", name, sub.namespace(), set)
		}
		bundle.Items = append(bundle.Items, item.SecretItem)
		found = append(found, resolved{wanted: wantedCredential{name: item.Name, envName: item.EnvName}, source: item.Source, version: version})
	}
	// Each value is authenticated by itself. The name, which the object's own document holds, stands for all of them:
	// so none is missing, and none is out of an older Secret of the same object.
	if newSet(sub, keys, found).name != set {
		return nil, refuse(v1alpha1.ReasonForeignSecret, "Secret %s/%s does not hold what was stored in it: delete the Secret, and it is made again", sub.namespace(), set)
	}
	return bundle, nil
}

// sealBundle encrypts credentials to a pod's one-time key.
func sealBundle(to sealing.PublicKey, call, podUID string, bundle *keyapi.SecretBundle) (string, error) {
	b, err := json.Marshal(bundle)
	if err != nil {
		return "", errors.New("encode credentials")
	}
	defer clear(b)
	text, err := sealing.SealReply(to, call, podUID, b)
	if err != nil {
		return "", fmt.Errorf("seal the answer: %w", err)
	}
	return text, nil
}
