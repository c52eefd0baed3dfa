package keyserver

import (
	"context"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/internal/kube"
	"github.com/lethe-dev/lethe/internal/plan"
	"github.com/lethe-dev/lethe/internal/sealing"
)

// subject is an object with credentials: a BotDeployment or a DataStore, read live.
type subject struct {
	kind   string
	object client.Object
	bot    *v1alpha1.BotDeployment // one of the two is set
	store  *v1alpha1.DataStore
	known  string // the encrypted Secret that its status names; says that it had keys once
	// suspended says that the bot must have no pod: it claims no channel.
	suspended bool
	tenant    string // its name, once it is known
	seen      int64  // the generation of its document of keys that its status names
}

// wantedCredential is one credential as the spec asks for it.
type wantedCredential struct {
	name        string
	sealed      string
	ref         *v1alpha1.SecretKeyRef
	envName     string
	destination sealing.Destination
}

// find reads an object live. It must be there under the UID that was asked for.
func (s *Server) find(ctx context.Context, ref keyapi.ObjectRef) (*subject, error) {
	if ref.Namespace == "" || ref.Name == "" || ref.UID == "" {
		return nil, refuse(v1alpha1.ReasonBadRequest, "namespace, name and UID are needed")
	}
	sub := &subject{kind: ref.Kind}
	switch ref.Kind {
	case sealing.KindBotDeployment:
		sub.bot = &v1alpha1.BotDeployment{}
		sub.object = sub.bot
	case sealing.KindDataStore:
		sub.store = &v1alpha1.DataStore{}
		sub.object = sub.store
	default:
		return nil, refuse(v1alpha1.ReasonBadRequest, "kind must be BotDeployment or DataStore")
	}
	err := s.Client.Get(ctx, client.ObjectKey{Namespace: ref.Namespace, Name: ref.Name}, sub.object)
	if kube.IsMissing(err, ref.Name) || (err == nil && string(sub.object.GetUID()) != ref.UID) {
		return nil, refuse(v1alpha1.ReasonNotFound, "%s %s/%s with that UID does not exist", ref.Kind, ref.Namespace, ref.Name)
	}
	if err != nil {
		return nil, err
	}
	if sub.bot != nil {
		sub.known, sub.seen = sub.bot.Status.CredentialsSecret, sub.bot.Status.CredentialsGeneration
	} else {
		sub.known, sub.seen = sub.store.Status.CredentialsSecret, sub.store.Status.CredentialsGeneration
	}
	return sub, nil
}

func (o *subject) namespace() string { return o.object.GetNamespace() }
func (o *subject) name() string      { return o.object.GetName() }
func (o *subject) uid() string       { return string(o.object.GetUID()) }

func (o *subject) ref() keyapi.ObjectRef {
	return keyapi.ObjectRef{Kind: o.kind, Namespace: o.namespace(), Name: o.name(), UID: o.uid()}
}

// hadKeys says whether a data key was ever made for the object, as its status tells.
func (o *subject) hadKeys() bool { return o.known != "" || o.seen > 0 }

// alive refuses an object that is being deleted: its credentials are revoked from that moment on.
func (o *subject) alive() error {
	if !o.object.GetDeletionTimestamp().IsZero() {
		return refuse(v1alpha1.ReasonRevoked, "%s %s/%s is being deleted", o.kind, o.namespace(), o.name())
	}
	return nil
}

// storeType refuses a store of a type that this keyserver does not know: it would find no credential in its spec, and
// take those that are stored for ones that nobody wants any more.
func (o *subject) storeType() error {
	if o.store == nil {
		return nil
	}
	if _, known := plan.TargetOf(&o.store.Spec); !known {
		return refuse(v1alpha1.ReasonUnknownStoreType, "%s", plan.UnknownType(o.store.Spec.Type))
	}
	return nil
}

// credentials in the order of the spec, of an object that storeType lets pass.
func (o *subject) credentials() (out []wantedCredential) {
	if o.store != nil {
		to := sealing.DestinationOf(&o.store.Spec)
		for _, c := range o.store.Spec.Credentials() {
			out = append(out, wantedCredential{name: c.Name, sealed: string(c.Sealed), destination: to})
		}
		return out
	}
	for _, c := range o.bot.Spec.Credentials {
		w := wantedCredential{name: c.Name, sealed: string(c.Sealed), ref: c.SecretKeyRef}
		if c.Delivery == v1alpha1.DeliveryEnv {
			w.envName = c.EnvName
		}
		out = append(out, w)
	}
	return out
}
