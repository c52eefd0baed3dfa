package controllers

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/protocol"
	"github.com/lethe-dev/lethe/internal/status"
)

// Keys is what reconcilers ask of the keyserver. They say which object they mean; the keyserver reads it itself. An error
// that the keyserver answered with has a method Reason; any other means that it could not be reached.
type Keys interface {
	// Tenant makes or finds a tenant's keys.
	Tenant(ctx context.Context, tenant protocol.ObjectRef) (protocol.TenantResponse, error)
	// Credentials opens, encrypts and stores an object's credentials. Single ones may be refused without an error.
	Credentials(ctx context.Context, object protocol.ObjectRef) (protocol.CredentialsResponse, error)
	// Revoke destroys the keys of an object that is going away. Repeating it is harmless.
	Revoke(ctx context.Context, object protocol.ObjectRef) error
	// PullSecrets says which of the Secrets that an object's images are to be pulled with are of no use.
	PullSecrets(ctx context.Context, object protocol.ObjectRef) (protocol.PullSecretsResponse, error)
}

const (
	// keyserverWait is between two tries to reach a keyserver that does not answer, or cannot answer yet.
	keyserverWait = 15 * time.Second
	// verifyEvery is how often the keyserver is asked whether what it stored is still there.
	verifyEvery = time.Hour
	// rereadEvery is how often a credential that comes from a Secret is read again: the manager cannot watch Secrets.
	rereadEvery = 5 * time.Minute
)

func refTo(kind string, object client.Object) protocol.ObjectRef {
	return protocol.ObjectRef{Kind: kind, Namespace: object.GetNamespace(), Name: object.GetName(), UID: string(object.GetUID())}
}

// keyProblem turns a refusal of the keyserver, or its absence, into a problem of a condition.
func keyProblem(condition string, err error) error {
	p := &problem{Problem: status.Problem{Condition: condition}, after: keyserverWait}
	reason := reasonOf(err)
	switch {
	case reason == "":
		p.Reason = v1alpha1.ReasonKeyserverUnavailable
		p.Message = "The keyserver cannot be reached; it is asked again. What runs already goes on running."
		var nameless *namelessError
		if errors.As(err, &nameless) {
			p.Reason = v1alpha1.ReasonDNSOutOfReach
			p.Message = "The keyserver cannot be reached, and the manager can look up no names: " + nameless.wall + " What runs already goes on running."
		}
	case v1alpha1.FactsOf(reason).IsFinal():
		p.Reason, p.Message, p.Stalled, p.after = reason, err.Error(), true, strangerWait
	default:
		p.Reason, p.Message = reason, err.Error()
	}
	return p
}

// reasonOf is the keyserver's reason, or empty when it was not the keyserver that failed.
func reasonOf(err error) string {
	var answered interface{ Reason() string }
	if errors.As(err, &answered) {
		return answered.Reason()
	}
	return ""
}

// revoke destroys an object's keys. An object that the keyserver does not know has none.
func revoke(ctx context.Context, keys Keys, ref protocol.ObjectRef) error {
	err := keys.Revoke(ctx, ref)
	if err == nil || reasonOf(err) == v1alpha1.ReasonNotFound {
		return nil
	}
	return fmt.Errorf("revoke the keys of %s %s: %w", ref.Kind, ref.Name, err)
}

// answers remembers what the keyserver last said about an object, so that it is not asked on every pass. It is lost on a
// restart, and nothing depends on it but the number of questions. It holds one for each name at most, and none for a name whose
// object is gone: whoever finds that forgets it.
type answers[A any] struct {
	mutex sync.Mutex
	known map[types.NamespacedName]answer[A]
}

type answer[A any] struct {
	uid        types.UID
	generation int64
	at         time.Time
	value      A
}

// get returns the answer about this very object, not about an earlier one of its name.
func (a *answers[A]) get(object client.Object) (answer[A], bool) {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	known, ok := a.known[client.ObjectKeyFromObject(object)]
	if !ok || known.uid != object.GetUID() {
		return answer[A]{}, false
	}
	return known, true
}

func (a *answers[A]) put(object client.Object, at time.Time, value A) {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	if a.known == nil {
		a.known = map[types.NamespacedName]answer[A]{}
	}
	a.known[client.ObjectKeyFromObject(object)] = answer[A]{uid: object.GetUID(), generation: object.GetGeneration(), at: at, value: value}
}

func (a *answers[A]) len() int {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	return len(a.known)
}

func (a *answers[A]) forget(name types.NamespacedName) {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	delete(a.known, name)
}

// spread is a share of a period that is the same for an object on every start, so that a restart does not ask for all
// objects at once.
func spread(uid types.UID, period time.Duration) time.Duration {
	var sum uint32 = 2166136261
	for _, b := range []byte(uid) {
		sum = (sum ^ uint32(b)) * 16777619
	}
	return time.Duration(float64(period) * float64(sum%1000) / 1000)
}
