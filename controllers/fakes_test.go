package controllers

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/protocol"
	"github.com/lethe-dev/lethe/internal/resources"
)

// keyserverDouble behaves like the keyserver: it reads objects live, answers for single credentials, and writes one immutable
// Secret, named by what went into it.
type keyserverDouble struct {
	asKeyserver, live client.Client

	mutex   sync.Mutex
	down    error
	refuse  map[string]protocol.CredentialResult // by name of the credential
	pinned  string                               // the Secret to answer with, whatever the spec says
	stored  map[types.UID]string
	revoked map[string]bool
	calls   map[string]int
	ranges  map[string]protocol.UIDRange // by the Tenant's UID
	fixed   *protocol.UIDRange           // the range to answer with, whoever asks
	closed  map[string]chan struct{}     // by namespace: calls that wait
	// pullSecrets are names to look for; the keyserver reads them out of the objects.
	pullSecrets []string
	waiting     int
	asked       map[string]bool // since askedSince
}

// lastRange counts as the keyserver does: upwards, and never back.
var lastRange atomic.Int64

type refusedError struct{ reason, message string }

func (e *refusedError) Error() string  { return e.message }
func (e *refusedError) Reason() string { return e.reason }

func newKeyserverDouble(asKeyserver, live client.Client) *keyserverDouble {
	return &keyserverDouble{asKeyserver: asKeyserver, live: live, refuse: map[string]protocol.CredentialResult{},
		stored: map[types.UID]string{}, revoked: map[string]bool{}, calls: map[string]int{}, asked: map[string]bool{}, ranges: map[string]protocol.UIDRange{}}
}

func (k *keyserverDouble) set(change func(k *keyserverDouble)) {
	k.mutex.Lock()
	defer k.mutex.Unlock()
	change(k)
}

func (k *keyserverDouble) callsTo(kind string) int {
	k.mutex.Lock()
	defer k.mutex.Unlock()
	return k.calls[kind]
}

// count is called with the mutex held.
func (k *keyserverDouble) count(call string) {
	k.calls[call]++
	k.asked[call] = true
}

// askedSince says what was asked since it was called the last time.
func (k *keyserverDouble) askedSince() string {
	k.mutex.Lock()
	defer k.mutex.Unlock()
	text := ""
	for _, call := range slices.Sorted(maps.Keys(k.asked)) {
		text += " after " + call
	}
	clear(k.asked)
	return text
}

func (k *keyserverDouble) isRevoked(uid types.UID) bool {
	k.mutex.Lock()
	defer k.mutex.Unlock()
	return k.revoked[string(uid)]
}

func (k *keyserverDouble) Tenant(ctx context.Context, ref protocol.ObjectRef) (protocol.TenantResponse, error) {
	k.mutex.Lock()
	defer k.mutex.Unlock()
	k.count(resources.KindTenant)
	if k.down != nil {
		return protocol.TenantResponse{}, k.down
	}
	key := protocol.SealingKey{KID: "0123456789abcdef", Suite: "MLKEM768-X25519+HKDF-SHA256+AES-256-GCM", Public: "cHVibGlj-" + ref.Name, Realm: "test", State: v1alpha1.SealingKeyActive}
	tenant := &v1alpha1.Tenant{}
	if err := k.live.Get(ctx, client.ObjectKey{Name: ref.Name}, tenant); err != nil {
		return protocol.TenantResponse{}, err
	}
	if k.fixed != nil {
		k.ranges[ref.UID] = *k.fixed
	} else if known := k.ranges[ref.UID]; known.Size != 1000 || known.First < 1_000_000_000 {
		k.ranges[ref.UID] = protocol.UIDRange{First: 1_000_000_000 + 1000*lastRange.Add(1), Size: 1000}
	}
	before := tenant.DeepCopy()
	if known := v1alpha1.UIDRange(k.ranges[ref.UID]); resources.CheckUIDRange(known) == nil {
		tenant.Status.UIDRange = &known
	}
	tenant.Status.KEKGrade, tenant.Status.SealingKeys = "Production", []v1alpha1.SealingKey{v1alpha1.SealingKey(key)}
	if err := k.asKeyserver.Status().Patch(ctx, tenant, client.MergeFrom(before)); err != nil {
		return protocol.TenantResponse{}, err
	}
	return protocol.TenantResponse{KEKGrade: "Production", UIDRange: k.ranges[ref.UID], SealingKeys: []protocol.SealingKey{key}}, nil
}

func (k *keyserverDouble) Revoke(_ context.Context, ref protocol.ObjectRef) error {
	k.mutex.Lock()
	defer k.mutex.Unlock()
	k.count("Revoke")
	if k.down != nil {
		return k.down
	}
	k.revoked[ref.UID] = true
	return nil
}

func (k *keyserverDouble) PullSecrets(ctx context.Context, ref protocol.ObjectRef) (protocol.PullSecretsResponse, error) {
	k.mutex.Lock()
	defer k.mutex.Unlock()
	if k.down != nil {
		return protocol.PullSecretsResponse{}, k.down
	}
	var answer protocol.PullSecretsResponse
	for _, name := range k.pullSecrets {
		secret := &corev1.Secret{}
		err := k.asKeyserver.Get(ctx, client.ObjectKey{Namespace: ref.Namespace, Name: name}, secret)
		switch {
		case apierrors.IsNotFound(err):
			answer.Missing = append(answer.Missing, name)
		case err != nil:
			return protocol.PullSecretsResponse{}, err
		case secret.Type != corev1.SecretTypeDockerConfigJson:
			answer.Unusable = append(answer.Unusable, name)
		}
	}
	return answer, nil
}

func (k *keyserverDouble) Credentials(ctx context.Context, ref protocol.ObjectRef) (protocol.CredentialsResponse, error) {
	if err := k.pass(ctx, ref.Namespace); err != nil {
		return protocol.CredentialsResponse{}, err
	}
	k.mutex.Lock()
	defer k.mutex.Unlock()
	k.count(ref.Kind)
	if k.down != nil {
		return protocol.CredentialsResponse{}, k.down
	}
	bot := &v1alpha1.BotDeployment{}
	if ref.Kind == resources.KindDataStore {
		return k.password(ctx, ref)
	}
	if err := k.live.Get(ctx, client.ObjectKey{Namespace: ref.Namespace, Name: ref.Name}, bot); err != nil || string(bot.UID) != ref.UID {
		return protocol.CredentialsResponse{}, &refusedError{v1alpha1.ReasonNotFound, "no such object"}
	}
	answer := protocol.CredentialsResponse{Secret: k.pinned}
	var in strings.Builder
	whole := true
	for _, credential := range bot.Spec.Credentials {
		item, bad := k.refuse[credential.Name]
		if !bad {
			item = protocol.CredentialResult{Name: credential.Name, Reason: v1alpha1.ReasonStored, Version: 1, Plaintext: credential.SecretKeyRef != nil}
			fmt.Fprintf(&in, "%s=%s;", credential.Name, credential.Sealed)
		}
		whole = whole && (!bad || item.Reason == v1alpha1.ReasonRolledBack)
		answer.Items = append(answer.Items, item)
	}
	if answer.Secret != "" {
		return answer, nil
	}
	if answer.Secret = k.stored[bot.UID]; !whole {
		return answer, nil
	}
	sum := sha256.Sum256([]byte(in.String()))
	name := resources.CredentialsName(bot.Name, hex.EncodeToString(sum[:]))
	err := k.asKeyserver.Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: bot.Namespace, Name: name, Labels: resources.BotLabels(bot.Name),
			OwnerReferences: resources.OwnerReference(bot, resources.KindBotDeployment)},
		Type: v1alpha1.SecretTypeEncrypted, Data: map[string][]byte{"ciphertext": sum[:]},
	})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return protocol.CredentialsResponse{}, err
	}
	k.stored[bot.UID], answer.Secret = name, name
	return answer, nil
}

// password stores that of a store.
func (k *keyserverDouble) password(ctx context.Context, ref protocol.ObjectRef) (protocol.CredentialsResponse, error) {
	store := &v1alpha1.DataStore{}
	if err := k.live.Get(ctx, client.ObjectKey{Namespace: ref.Namespace, Name: ref.Name}, store); err != nil || string(store.UID) != ref.UID {
		return protocol.CredentialsResponse{}, &refusedError{v1alpha1.ReasonNotFound, "no such object"}
	}
	sum := sha256.Sum256([]byte(store.Spec.Postgres.Password))
	name := resources.CredentialsName(store.Name, hex.EncodeToString(sum[:]))
	err := k.asKeyserver.Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: store.Namespace, Name: name, Labels: resources.Labels(resources.ComponentSweeper),
			OwnerReferences: resources.OwnerReference(store, resources.KindDataStore)},
		Type: v1alpha1.SecretTypeEncrypted, Data: map[string][]byte{"ciphertext": sum[:]},
	})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return protocol.CredentialsResponse{}, err
	}
	return protocol.CredentialsResponse{Secret: name, Items: []protocol.CredentialResult{{Name: "password", Reason: v1alpha1.ReasonStored, Version: 1}}}, nil
}
