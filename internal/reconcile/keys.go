package reconcile

import (
	"context"
	"errors"
	"fmt"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/internal/status"
)

// Keys is what reconcilers ask of the keyserver. They say which object they mean; the keyserver reads it itself. An
// error that the keyserver answered with has a method Reason; any other means that it could not be reached.
type Keys interface {
	// Tenant makes or finds a tenant's keys.
	Tenant(ctx context.Context, tenant keyapi.ObjectRef) (keyapi.TenantResponse, error)
	// Credentials opens, encrypts and stores an object's credentials. Single ones may be refused without an error.
	Credentials(ctx context.Context, object keyapi.ObjectRef) (keyapi.CredentialsResponse, error)
	// Revoke destroys the keys of an object that is going away. Repeating it is harmless.
	Revoke(ctx context.Context, object keyapi.ObjectRef) error
	// PullSecrets says which of the Secrets that an object's images are to be pulled with are of no use.
	PullSecrets(ctx context.Context, object keyapi.ObjectRef) (keyapi.PullSecretsResponse, error)
	// LastReport returns the last report that a store's sweeps handed in, and what the keyserver signed about it.
	LastReport(ctx context.Context, store keyapi.ObjectRef) (keyapi.LastReportResponse, error)
}

const (
	// KeyserverWait is between two tries to reach a keyserver that does not answer, or cannot answer yet.
	KeyserverWait = 15 * time.Second
	// VerifyEvery is how often the keyserver is asked whether what it stored is still there.
	VerifyEvery = time.Hour
	// RereadEvery is how often a credential that comes from a Secret is read again: the manager cannot watch Secrets.
	RereadEvery = 5 * time.Minute
)

// RefTo names an object to the keyserver.
func RefTo(kind string, object client.Object) keyapi.ObjectRef {
	return keyapi.ObjectRef{Kind: kind, Namespace: object.GetNamespace(), Name: object.GetName(), UID: string(object.GetUID())}
}

// KeyProblem turns a refusal of the keyserver, or its absence, into a problem of a condition.
func KeyProblem(condition string, err error) error {
	p := &Problem{Problem: status.Problem{Condition: condition}, After: KeyserverWait}
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
		p.Reason, p.Message, p.Stalled, p.After = reason, err.Error(), true, ForeignObjectWait
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

// Revoke destroys an object's keys. An object that the keyserver does not know has none.
func Revoke(ctx context.Context, keys Keys, ref keyapi.ObjectRef) error {
	err := keys.Revoke(ctx, ref)
	if err == nil || reasonOf(err) == v1alpha1.ReasonNotFound {
		return nil
	}
	return fmt.Errorf("revoke the keys of %s %s: %w", ref.Kind, ref.Name, err)
}

// namelessError is that the keyserver was not reached while the walls lie before DNS.
type namelessError struct {
	cause error
	wall  string
}

func (e *namelessError) Error() string { return e.cause.Error() }

func (e *namelessError) Unwrap() error { return e.cause }

// NamedKeys is the keyserver, whose absence is told by what the manager knows of DNS.
type NamedKeys struct {
	Keys
	DNS interface{ Closed() string }
}

func (k NamedKeys) because(err error) error {
	if wall := k.DNS.Closed(); err != nil && wall != "" && reasonOf(err) == "" {
		return &namelessError{cause: err, wall: wall}
	}
	return err
}

// Tenant is that of Keys.
func (k NamedKeys) Tenant(ctx context.Context, tenant keyapi.ObjectRef) (keyapi.TenantResponse, error) {
	answer, err := k.Keys.Tenant(ctx, tenant)
	return answer, k.because(err)
}

// Credentials is that of Keys.
func (k NamedKeys) Credentials(ctx context.Context, object keyapi.ObjectRef) (keyapi.CredentialsResponse, error) {
	answer, err := k.Keys.Credentials(ctx, object)
	return answer, k.because(err)
}

// LastReport is that of Keys.
func (k NamedKeys) LastReport(ctx context.Context, store keyapi.ObjectRef) (keyapi.LastReportResponse, error) {
	answer, err := k.Keys.LastReport(ctx, store)
	return answer, k.because(err)
}

// Revoke is that of Keys.
func (k NamedKeys) Revoke(ctx context.Context, object keyapi.ObjectRef) error {
	return k.because(k.Keys.Revoke(ctx, object))
}
