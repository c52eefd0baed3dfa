package controllers

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
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
	waiting int
}

// lastRange counts as the keyserver does: upwards, and never back.
var lastRange atomic.Int64

type refusedError struct{ reason, message string }

func (e *refusedError) Error() string  { return e.message }
func (e *refusedError) Reason() string { return e.reason }

func newKeyserverDouble(asKeyserver, live client.Client) *keyserverDouble {
	return &keyserverDouble{asKeyserver: asKeyserver, live: live, refuse: map[string]protocol.CredentialResult{},
		stored: map[types.UID]string{}, revoked: map[string]bool{}, calls: map[string]int{}, ranges: map[string]protocol.UIDRange{}}
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

func (k *keyserverDouble) isRevoked(uid types.UID) bool {
	k.mutex.Lock()
	defer k.mutex.Unlock()
	return k.revoked[string(uid)]
}

func (k *keyserverDouble) Tenant(ctx context.Context, ref protocol.ObjectRef) (protocol.TenantResponse, error) {
	k.mutex.Lock()
	defer k.mutex.Unlock()
	k.calls[resources.KindTenant]++
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
	k.calls["Revoke"]++
	if k.down != nil {
		return k.down
	}
	k.revoked[ref.UID] = true
	return nil
}

func (k *keyserverDouble) Credentials(ctx context.Context, ref protocol.ObjectRef) (protocol.CredentialsResponse, error) {
	if err := k.pass(ctx, ref.Namespace); err != nil {
		return protocol.CredentialsResponse{}, err
	}
	k.mutex.Lock()
	defer k.mutex.Unlock()
	k.calls[ref.Kind]++
	if k.down != nil {
		return protocol.CredentialsResponse{}, k.down
	}
	bot := &v1alpha1.BotDeployment{}
	if err := k.live.Get(ctx, client.ObjectKey{Namespace: ref.Namespace, Name: ref.Name}, bot); err != nil || string(bot.UID) != ref.UID {
		return protocol.CredentialsResponse{}, &refusedError{protocol.ReasonNotFound, "no such object"}
	}
	answer := protocol.CredentialsResponse{Secret: k.pinned}
	var in strings.Builder
	whole := true
	for _, credential := range bot.Spec.Credentials {
		item, bad := k.refuse[credential.Name]
		if !bad {
			item = protocol.CredentialResult{Name: credential.Name, Reason: protocol.ReasonStored, Version: 1, Plaintext: credential.SecretKeyRef != nil}
			fmt.Fprintf(&in, "%s=%s;", credential.Name, credential.Sealed)
		}
		whole = whole && (!bad || item.Reason == protocol.ReasonRolledBack)
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

// clusterDouble plays the StatefulSet controller, garbage collection and the namespace controller, a step at a time.
type clusterDouble struct {
	c client.Client
	// broken says of an image that its pod never becomes ready.
	broken func(image string) bool
	// full says of a quota that nothing frees it.
	full func(*corev1.ResourceQuota) bool
}

func childLists() []client.ObjectList {
	return []client.ObjectList{
		&corev1.ServiceAccountList{}, &corev1.SecretList{}, &corev1.PersistentVolumeClaimList{}, &corev1.ConfigMapList{}, &corev1.ResourceQuotaList{}, &corev1.LimitRangeList{},
		&networkingv1.NetworkPolicyList{}, &rbacv1.RoleBindingList{}, &appsv1.StatefulSetList{}, &batchv1.CronJobList{}, &batchv1.JobList{},
	}
}

func ownLists() []client.ObjectList {
	return []client.ObjectList{&v1alpha1.TenantList{}, &v1alpha1.BotDeploymentList{}, &v1alpha1.DataStoreList{}}
}

func (f *clusterDouble) tick(t *testing.T) {
	t.Helper()
	if err := errors.Join(f.count(), f.runSets(), f.collect(), f.endClaims(), f.endNamespaces()); err != nil {
		t.Logf("playing Kubernetes' controllers: %v", err)
	}
}

// count plays the controller that says how much of a quota is used. What is gone it does not notice before half is used.
func (f *clusterDouble) count() error {
	return f.each(&corev1.ResourceQuotaList{}, func(o client.Object) error {
		quota, ok := o.(*corev1.ResourceQuota)
		if !ok || quota.DeletionTimestamp != nil {
			return nil
		}
		due := !equality.Semantic.DeepEqual(quota.Status.Hard, quota.Spec.Hard)
		used := corev1.ResourceList{}
		for name, hard := range quota.Spec.Hard {
			if strings.HasSuffix(string(name), ".resource.k8s.io") {
				continue // as in a cluster that does not serve the kind
			}
			used[name] = resource.MustParse("0")
			now := quota.Status.Used[name]
			due = due || (strings.HasPrefix(string(name), "count/") && 2*now.Value() > hard.Value())
		}
		if !due || quota.Name != resources.QuotaObjectsName || f.full != nil && f.full(quota) {
			return nil
		}
		quota.Status = corev1.ResourceQuotaStatus{Hard: quota.Spec.Hard, Used: used}
		err := f.c.Status().Update(context.Background(), quota)
		if apierrors.IsConflict(err) {
			return nil
		}
		return client.IgnoreNotFound(err)
	})
}

// runSets reports every pod ready whose image is not broken.
func (f *clusterDouble) runSets() error {
	sets := &appsv1.StatefulSetList{}
	if err := f.c.List(context.Background(), sets, client.MatchingLabels(resources.Labels(resources.ComponentBot))); err != nil {
		return err
	}
	for i := range sets.Items {
		set := &sets.Items[i]
		ready := *set.Spec.Replicas
		if f.broken != nil && f.broken(set.Spec.Template.Spec.Containers[0].Image) {
			ready = 0
		}
		want := appsv1.StatefulSetStatus{
			ObservedGeneration: set.Generation, Replicas: *set.Spec.Replicas, UpdatedReplicas: *set.Spec.Replicas,
			CurrentReplicas: *set.Spec.Replicas, ReadyReplicas: ready, AvailableReplicas: ready,
			UpdateRevision: "revision", CurrentRevision: "revision",
		}
		if set.Status.ObservedGeneration == want.ObservedGeneration && set.Status.ReadyReplicas == want.ReadyReplicas {
			continue
		}
		set.Status = want
		if err := f.c.Status().Update(context.Background(), set); err != nil && !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) {
			return err
		}
	}
	return nil
}

// collect removes what is owned by nobody any more.
func (f *clusterDouble) collect() error {
	alive := map[types.UID]bool{}
	for _, list := range ownLists() {
		if err := f.each(list, func(o client.Object) error { alive[o.GetUID()] = true; return nil }); err != nil {
			return err
		}
	}
	for _, list := range childLists() {
		err := f.each(list, func(o client.Object) error {
			owner := metav1.GetControllerOf(o)
			if owner == nil || owner.APIVersion != v1alpha1.GroupVersion.String() || alive[owner.UID] || o.GetDeletionTimestamp() != nil {
				return nil
			}
			return client.IgnoreNotFound(f.c.Delete(context.Background(), o))
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// endClaims lets go of the volumes that are being deleted and that no StatefulSet's pod uses.
func (f *clusterDouble) endClaims() error {
	used := map[client.ObjectKey]bool{}
	err := f.each(&appsv1.StatefulSetList{}, func(o client.Object) error {
		set, ok := o.(*appsv1.StatefulSet)
		if !ok || *set.Spec.Replicas == 0 {
			return nil
		}
		for _, volume := range set.Spec.Template.Spec.Volumes {
			if volume.PersistentVolumeClaim != nil {
				used[client.ObjectKey{Namespace: set.Namespace, Name: volume.PersistentVolumeClaim.ClaimName}] = true
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return f.each(&corev1.PersistentVolumeClaimList{}, func(o client.Object) error {
		if o.GetDeletionTimestamp() == nil || used[client.ObjectKeyFromObject(o)] || len(o.GetFinalizers()) == 0 {
			return nil
		}
		o.SetFinalizers(nil)
		err := f.c.Update(context.Background(), o)
		if apierrors.IsConflict(err) {
			return nil
		}
		return client.IgnoreNotFound(err)
	})
}

// endNamespaces empties the namespaces that are being deleted, and lets the empty ones go.
func (f *clusterDouble) endNamespaces() error {
	return f.each(&corev1.NamespaceList{}, func(namespace client.Object) error {
		n, ok := namespace.(*corev1.Namespace)
		if !ok || n.DeletionTimestamp == nil {
			return nil
		}
		left := 0
		for _, list := range append(childLists(), &v1alpha1.BotDeploymentList{}, &v1alpha1.DataStoreList{}) {
			err := f.each(list, func(o client.Object) error {
				left++
				if o.GetDeletionTimestamp() != nil {
					return nil
				}
				return client.IgnoreNotFound(f.c.Delete(context.Background(), o))
			}, client.InNamespace(n.Name))
			if err != nil {
				return err
			}
		}
		if left > 0 {
			return nil
		}
		n.Spec.Finalizers = nil
		err := f.c.SubResource("finalize").Update(context.Background(), n)
		if apierrors.IsConflict(err) {
			return nil
		}
		return client.IgnoreNotFound(err)
	})
}

func (f *clusterDouble) each(list client.ObjectList, do func(client.Object) error, options ...client.ListOption) error {
	if err := f.c.List(context.Background(), list, options...); err != nil {
		return err
	}
	return meta.EachListItem(list, func(item runtimeObject) error {
		object, ok := item.(client.Object)
		if !ok {
			return fmt.Errorf("%T is no object", item)
		}
		return do(object)
	})
}
