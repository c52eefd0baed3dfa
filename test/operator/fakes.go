package operator

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

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/test/lease"
)

// KeyserverDouble behaves like the keyserver: it reads objects live, answers for single credentials, and writes one
// immutable Secret, named by what went into it.
type KeyserverDouble struct {
	AsKeyserver, live client.Client

	Mutex   sync.Mutex
	Down    error
	Refuse  map[string]keyapi.CredentialResult // by name of the credential
	Pinned  string                             // the Secret to answer with, whatever the spec says
	stored  map[types.UID]string
	revoked map[string]bool
	calls   map[string]int
	ranges  map[string]keyapi.UIDRange // by the Tenant's UID
	Fixed   *keyapi.UIDRange           // the range to answer with, whoever asks
	Closed  map[string]chan struct{}   // by namespace: calls that wait
	// Pulls are names to look for; the keyserver reads them out of the objects.
	Pulls   []string
	Waiting int
	asked   map[string]bool                      // since askedSince
	reports map[string]keyapi.LastReportResponse // by the store's UID
	taken   int64
}

// lastRange counts as the keyserver does: upwards, and never back.
var lastRange atomic.Int64

// RefusedError is a refusal of the keyserver.
type RefusedError struct{ Why, Message string }

func (e *RefusedError) Error() string { return e.Message }

// Reason is the keyserver's.
func (e *RefusedError) Reason() string { return e.Why }

func newKeyserverDouble(asKeyserver, live client.Client) *KeyserverDouble {
	return &KeyserverDouble{AsKeyserver: asKeyserver, live: live, Refuse: map[string]keyapi.CredentialResult{},
		stored: map[types.UID]string{}, revoked: map[string]bool{}, calls: map[string]int{}, asked: map[string]bool{}, ranges: map[string]keyapi.UIDRange{},
		reports: map[string]keyapi.LastReportResponse{}}
}

// Set changes how it behaves.
func (k *KeyserverDouble) Set(change func(k *KeyserverDouble)) {
	k.Mutex.Lock()
	defer k.Mutex.Unlock()
	change(k)
}

// CallsTo is how often it was called for a kind.
func (k *KeyserverDouble) CallsTo(kind string) int {
	k.Mutex.Lock()
	defer k.Mutex.Unlock()
	return k.calls[kind]
}

// count is called with the mutex held.
func (k *KeyserverDouble) count(call string) {
	k.calls[call]++
	k.asked[call] = true
}

// askedSince says what was asked since it was called the last time.
func (k *KeyserverDouble) askedSince() string {
	k.Mutex.Lock()
	defer k.Mutex.Unlock()
	text := ""
	for _, call := range slices.Sorted(maps.Keys(k.asked)) {
		text += " after " + call
	}
	clear(k.asked)
	return text
}

// IsRevoked says whether an object's keys are destroyed.
func (k *KeyserverDouble) IsRevoked(uid types.UID) bool {
	k.Mutex.Lock()
	defer k.Mutex.Unlock()
	return k.revoked[string(uid)]
}

// Tenant implements reconcile.Keys.
func (k *KeyserverDouble) Tenant(ctx context.Context, ref keyapi.ObjectRef) (keyapi.TenantResponse, error) {
	k.Mutex.Lock()
	defer k.Mutex.Unlock()
	k.count(resources.KindTenant)
	if k.Down != nil {
		return keyapi.TenantResponse{}, k.Down
	}
	key := keyapi.SealingKey{KID: "0123456789abcdef", Suite: "MLKEM768-X25519+HKDF-SHA256+AES-256-GCM", Public: "cHVibGlj-" + ref.Name, Realm: "test", State: v1alpha1.SealingKeyActive}
	tenant := &v1alpha1.Tenant{}
	if err := k.live.Get(ctx, client.ObjectKey{Name: ref.Name}, tenant); err != nil {
		return keyapi.TenantResponse{}, err
	}
	if k.Fixed != nil {
		k.ranges[ref.UID] = *k.Fixed
	} else if known := k.ranges[ref.UID]; known.Size != 1000 || known.First < 1_000_000_000 {
		k.ranges[ref.UID] = keyapi.UIDRange{First: 1_000_000_000 + 1000*lastRange.Add(1), Size: 1000}
	}
	before := tenant.DeepCopy()
	if known := v1alpha1.UIDRange(k.ranges[ref.UID]); resources.CheckUIDRange(known) == nil {
		tenant.Status.UIDRange = &known
	}
	tenant.Status.KEKGrade, tenant.Status.SealingKeys = "Production", []v1alpha1.SealingKey{v1alpha1.SealingKey(key)}
	if err := k.AsKeyserver.Status().Patch(ctx, tenant, client.MergeFrom(before)); err != nil {
		return keyapi.TenantResponse{}, err
	}
	return keyapi.TenantResponse{KEKGrade: "Production", UIDRange: k.ranges[ref.UID], SealingKeys: []keyapi.SealingKey{key}}, nil
}

// Revoke implements reconcile.Keys.
func (k *KeyserverDouble) Revoke(_ context.Context, ref keyapi.ObjectRef) error {
	k.Mutex.Lock()
	defer k.Mutex.Unlock()
	k.count("Revoke")
	if k.Down != nil {
		return k.Down
	}
	k.revoked[ref.UID] = true
	return nil
}

// Take takes a report of a Job's pod, and returns the termination message that names it.
func (k *KeyserverDouble) Take(job *batchv1.Job, pod *corev1.Pod, text []byte) (string, error) {
	k.Mutex.Lock()
	defer k.Mutex.Unlock()
	k.taken++
	statement := lease.StatementOf(job, pod)
	statement.Sequence = k.taken
	answer, message, err := lease.Signed(statement, text)
	k.reports[statement.Store] = answer
	return message, err
}

// LastReport implements reconcile.Keys.
func (k *KeyserverDouble) LastReport(_ context.Context, store keyapi.ObjectRef) (keyapi.LastReportResponse, error) {
	k.Mutex.Lock()
	defer k.Mutex.Unlock()
	return k.reports[store.UID], k.Down
}

// PullSecrets implements reconcile.Keys.
func (k *KeyserverDouble) PullSecrets(ctx context.Context, ref keyapi.ObjectRef) (keyapi.PullSecretsResponse, error) {
	k.Mutex.Lock()
	defer k.Mutex.Unlock()
	if k.Down != nil {
		return keyapi.PullSecretsResponse{}, k.Down
	}
	var answer keyapi.PullSecretsResponse
	for _, name := range k.Pulls {
		secret := &corev1.Secret{}
		err := k.AsKeyserver.Get(ctx, client.ObjectKey{Namespace: ref.Namespace, Name: name}, secret)
		switch {
		case apierrors.IsNotFound(err):
			answer.Missing = append(answer.Missing, name)
		case err != nil:
			return keyapi.PullSecretsResponse{}, err
		case secret.Type != corev1.SecretTypeDockerConfigJson:
			answer.Unusable = append(answer.Unusable, name)
		}
	}
	return answer, nil
}

// Credentials implements reconcile.Keys.
func (k *KeyserverDouble) Credentials(ctx context.Context, ref keyapi.ObjectRef) (keyapi.CredentialsResponse, error) {
	if err := k.pass(ctx, ref.Namespace); err != nil {
		return keyapi.CredentialsResponse{}, err
	}
	k.Mutex.Lock()
	defer k.Mutex.Unlock()
	k.count(ref.Kind)
	if k.Down != nil {
		return keyapi.CredentialsResponse{}, k.Down
	}
	bot := &v1alpha1.BotDeployment{}
	if ref.Kind == resources.KindDataStore {
		return k.password(ctx, ref)
	}
	if err := k.live.Get(ctx, client.ObjectKey{Namespace: ref.Namespace, Name: ref.Name}, bot); err != nil || string(bot.UID) != ref.UID {
		return keyapi.CredentialsResponse{}, &RefusedError{v1alpha1.ReasonNotFound, "no such object"}
	}
	answer := keyapi.CredentialsResponse{Secret: k.Pinned}
	var in strings.Builder
	whole := true
	for _, credential := range bot.Spec.Credentials {
		item, bad := k.Refuse[credential.Name]
		if !bad {
			item = keyapi.CredentialResult{Name: credential.Name, Reason: v1alpha1.ReasonStored, Version: 1, Plaintext: credential.SecretKeyRef != nil}
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
	err := k.AsKeyserver.Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: bot.Namespace, Name: name, Labels: resources.BotLabels(bot.Name),
			OwnerReferences: resources.OwnerReference(bot, resources.KindBotDeployment)},
		Type: v1alpha1.SecretTypeEncrypted, Data: map[string][]byte{"ciphertext": sum[:]},
	})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return keyapi.CredentialsResponse{}, err
	}
	k.stored[bot.UID], answer.Secret = name, name
	return answer, nil
}

// password stores that of a store.
func (k *KeyserverDouble) password(ctx context.Context, ref keyapi.ObjectRef) (keyapi.CredentialsResponse, error) {
	store := &v1alpha1.DataStore{}
	if err := k.live.Get(ctx, client.ObjectKey{Namespace: ref.Namespace, Name: ref.Name}, store); err != nil || string(store.UID) != ref.UID {
		return keyapi.CredentialsResponse{}, &RefusedError{v1alpha1.ReasonNotFound, "no such object"}
	}
	sum := sha256.Sum256([]byte(store.Spec.Postgres.Password))
	name := resources.CredentialsName(store.Name, hex.EncodeToString(sum[:]))
	err := k.AsKeyserver.Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: store.Namespace, Name: name, Labels: resources.Labels(resources.ComponentSweeper),
			OwnerReferences: resources.OwnerReference(store, resources.KindDataStore)},
		Type: v1alpha1.SecretTypeEncrypted, Data: map[string][]byte{"ciphertext": sum[:]},
	})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return keyapi.CredentialsResponse{}, err
	}
	return keyapi.CredentialsResponse{Secret: name, Items: []keyapi.CredentialResult{{Name: "password", Reason: v1alpha1.ReasonStored, Version: 1}}}, nil
}

// pass waits at a closed door.
func (k *KeyserverDouble) pass(ctx context.Context, namespace string) error {
	k.Mutex.Lock()
	door := k.Closed[namespace]
	k.Mutex.Unlock()
	if door == nil {
		return nil
	}
	k.Set(func(k *KeyserverDouble) { k.Waiting++ })
	defer k.Set(func(k *KeyserverDouble) { k.Waiting-- })
	select {
	case <-door:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
