package keyserver

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keystore"
	"github.com/lethe-dev/lethe/internal/kube"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/internal/sealing"
)

// A messenger answers one consumer of a bot at a time, whatever number of BotDeployments hold its token. So the
// identity of a channel has one holder in the whole installation: a document of the keys' namespace that is created
// once, named by a keyed digest of the identity. It goes with the bot's keys, and is not taken back when its bot is
// suspended: whoever comes next looks, live, whether the holder still needs it.

// telegramToken is a token as Telegram issues it: the bot's number, which is its identity and public, and a secret
// part, which @BotFather can change.
var telegramToken = regexp.MustCompile(`^([0-9]{1,20}):[A-Za-z0-9_-]{16,}$`)

// channelCredential names the credential that a bot's channel takes its identity from; empty when it has none.
func channelCredential(bot *v1alpha1.BotDeployment) string {
	if bot == nil {
		return ""
	}
	for _, c := range bot.Spec.Channels {
		if c.Telegram != nil {
			return c.Telegram.Credential
		}
	}
	return ""
}

// identity is the keyed digest of the channel that a token speaks for, "<kid>.<digest>", or empty where the value has
// no token's shape and so no identity.
func (s *Server) identity(ctx context.Context, token []byte) (string, error) {
	found := telegramToken.FindSubmatch([]byte(strings.TrimSpace(string(token))))
	if found == nil {
		return "", nil
	}
	key, err := s.keys.ChannelKey(ctx)
	if err != nil {
		return "", err
	}
	return key.KID() + "." + key.MAC("channel", string(v1alpha1.ChannelTelegram), string(found[1])), nil
}

// holdChannel makes a bot the holder of the identity behind one of its credentials, and refuses the credential when
// another bot is. A refused one goes on with the value before it, where that is of another channel that the bot still
// holds.
func (s *Server) holdChannel(ctx context.Context, sub *subject, keys *keystore.ObjectKeys, r *resolved) error {
	before := keys.Doc.Credentials[r.wanted.name]
	if r.source == before.Source && s.knows(before.Identity) {
		r.identity = before.Identity
	} else {
		value, err := r.value(ctx)
		if err != nil {
			return nil //nolint:nilerr // writing the set says what is wrong with it
		}
		if r.identity, err = s.identity(ctx, value); err != nil {
			return err
		}
	}
	if r.identity == "" {
		r.result.Message = strings.TrimPrefix(r.result.Message+"; ", "; ") +
			"the value has not the shape of a Telegram token (number, colon, secret part), so that nothing keeps another bot from using it at the same time"
		return nil
	}
	err := s.claim(ctx, sub, r.identity)
	taken := asTaken(err)
	if taken == nil {
		return err
	}
	s.Metrics.channelsTaken.Inc()
	refusedOne := refused(r.wanted, taken.Reason, "%s", taken.Message)
	if before.Source != r.source && before.Identity != "" && before.Identity != r.identity && s.claim(ctx, sub, before.Identity) == nil {
		s.keepInUse(sub, keys, &refusedOne)
		refusedOne.identity = before.Identity
	}
	*r = refusedOne
	return nil
}

// knows says whether an identity was made with the present channel key.
func (s *Server) knows(identity string) bool {
	kid, _, ok := strings.Cut(identity, ".")
	return ok && s.keys.IsChannelKey(kid)
}

// asTaken returns the refusal when an error says that another bot holds a channel.
func asTaken(err error) *refusal {
	if err == nil {
		return nil
	}
	if r := asRefusal(err); r.Reason == v1alpha1.ReasonChannelTaken {
		return r
	}
	return nil
}

// claim makes a bot the holder of an identity. Creating the document is what decides between two that come at once.
func (s *Server) claim(ctx context.Context, sub *subject, identity string) error {
	key, err := s.keys.ChannelKey(ctx)
	if err != nil {
		return err
	}
	_, digest, _ := strings.Cut(identity, ".")
	ring := sealing.Ring{key}
	wanted := keystore.ChannelHolderDoc{Realm: s.Realm, Digest: digest, Tenant: sub.tenant, Namespace: sub.namespace(), Name: sub.name(), UID: sub.uid()}
	var secret corev1.Secret
	err = s.Client.Get(ctx, client.ObjectKey{Namespace: s.KeysNamespace, Name: keystore.ChannelSecretName(digest)}, &secret)
	if apierrors.IsNotFound(err) {
		fresh, err := s.newHolder(ring, 1, wanted)
		if err != nil {
			return err
		}
		if err := s.Client.Create(ctx, fresh); apierrors.IsAlreadyExists(err) {
			return later(v1alpha1.ReasonInternal, 1, "another replica wrote at the same time")
		} else if err != nil {
			return err
		}
		return nil
	}
	if err != nil {
		return err
	}
	var held keystore.ChannelHolderDoc
	e, err := keystore.ReadDocument(&secret, keystore.FormatChannelHolder, &held)
	if err == nil {
		err = e.Check(&secret, ring)
	}
	if err != nil || held.Digest != digest {
		// Nothing is lost with a document that says who holds a channel: it is made anew, for who needs it.
		s.Log.Warn("A channel's holder cannot be believed and is taken over", "secret", secret.Name, "object", refString(sub.ref()), "cause", err)
		return s.takeOver(ctx, &secret, ring, wanted, 1)
	}
	if held.UID == sub.uid() {
		return nil
	}
	needs, err := s.stillHolds(ctx, held)
	if err != nil {
		return err
	}
	if !needs {
		return s.takeOver(ctx, &secret, ring, wanted, e.Generation+1)
	}
	s.Log.Info("Channel taken", "object", refString(sub.ref()), "holder", fmt.Sprintf("%s %s/%s %s", held.Tenant, held.Namespace, held.Name, held.UID))
	return taken(sub, held)
}

// taken names the holder only to its own tenant.
func taken(sub *subject, held keystore.ChannelHolderDoc) error {
	who := "a bot of this installation"
	if held.Tenant == sub.tenant {
		who = fmt.Sprintf("BotDeployment %s/%s", held.Namespace, held.Name)
	}
	return refuse(v1alpha1.ReasonChannelTaken,
		"%s uses this Telegram bot already (the number before the token's colon): Telegram answers one program at a time, and two would stop each other. Suspend or delete that one, or ask @BotFather for another bot", who)
}

// takeOver writes a new holder over exactly the document that was read.
func (s *Server) takeOver(ctx context.Context, was *corev1.Secret, ring sealing.Ring, doc keystore.ChannelHolderDoc, generation int64) error {
	fresh, err := s.newHolder(ring, generation, doc)
	if err != nil {
		return err
	}
	fresh.UID, fresh.ResourceVersion = was.UID, was.ResourceVersion
	return s.Client.Update(ctx, fresh)
}

// stillHolds looks, live, whether the holder of a channel needs it: it exists, runs or has a pod that has not ended,
// and its token is of that channel.
func (s *Server) stillHolds(ctx context.Context, held keystore.ChannelHolderDoc) (bool, error) {
	var bot v1alpha1.BotDeployment
	err := s.Client.Get(ctx, client.ObjectKey{Namespace: held.Namespace, Name: held.Name}, &bot)
	if kube.UnlessMissing(err, held.Name) != nil {
		return true, err
	}
	idle := err != nil || string(bot.UID) != held.UID || !bot.DeletionTimestamp.IsZero() || channelCredential(&bot) == ""
	if !idle {
		tenant, err := s.tenantOf(ctx, held.Namespace)
		switch r := asRefusalOnly(err); {
		case err != nil && r == nil:
			return true, err
		case err != nil:
			idle = true // the namespace is no tenant's any more, or its Tenant is going
		default:
			idle = resources.IsSuspended(&bot, tenant)
		}
	}
	if idle {
		return s.hasPod(ctx, held)
	}
	return s.hasIdentity(ctx, held)
}

// asRefusalOnly returns an error that is a refusal of ours.
func asRefusalOnly(err error) *refusal {
	if r, ok := err.(*refusal); ok { //nolint:errorlint // refusals are not wrapped on the way here
		return r
	}
	return nil
}

// hasPod says whether a pod of the holder may still use the token.
func (s *Server) hasPod(ctx context.Context, held keystore.ChannelHolderDoc) (bool, error) {
	var pods corev1.PodList
	err := s.Client.List(ctx, &pods, client.InNamespace(held.Namespace), client.MatchingFields{"spec.serviceAccountName": resources.BotName(held.Name)})
	if apierrors.IsForbidden(err) {
		return false, nil // the keyserver has rights in tenants' namespaces only, and what ran there was removed before they went
	}
	if err != nil {
		return true, err
	}
	for i := range pods.Items {
		if !ended(&pods.Items[i]) {
			return true, nil
		}
	}
	return false, nil
}

// hasIdentity says whether one of the holder's credentials in use is still of the channel.
func (s *Server) hasIdentity(ctx context.Context, held keystore.ChannelHolderDoc) (bool, error) {
	var secret corev1.Secret
	err := s.Client.Get(ctx, client.ObjectKey{Namespace: s.KeysNamespace, Name: keystore.ObjectSecretName(held.UID)}, &secret)
	if apierrors.IsNotFound(err) {
		// It claimed the channel and has not stored anything yet, or its keys are lost: it lives, so it keeps it.
		return true, nil
	}
	if err != nil {
		return true, err
	}
	var doc keystore.ObjectDoc
	if _, err := keystore.ReadDocument(&secret, keystore.FormatObject, &doc); err != nil {
		return true, nil //nolint:nilerr // what cannot be read proves nothing
	}
	if len(doc.Sets) == 0 {
		return true, nil
	}
	for _, c := range doc.Credentials {
		if _, digest, _ := strings.Cut(c.Identity, "."); digest == held.Digest {
			return true, nil
		}
	}
	return false, nil
}

// holdsChannel refuses a pod whose bot is not, and cannot become, the holder of its channel.
func (s *Server) holdsChannel(ctx context.Context, sub *subject, keys *keystore.ObjectKeys) error {
	identity := keys.Doc.Credentials[channelCredential(sub.bot)].Identity
	if identity == "" {
		return nil
	}
	return s.claim(ctx, sub, identity)
}

// releaseChannels gives up what an object held whose keys are being destroyed. What a crash leaves behind is taken
// over by who needs it, or forgotten by maintainChannels.
func (s *Server) releaseChannels(ctx context.Context, doc keystore.ObjectDoc) error {
	for _, c := range doc.Credentials {
		_, digest, ok := strings.Cut(c.Identity, ".")
		if !ok {
			continue
		}
		var secret corev1.Secret
		err := s.Client.Get(ctx, client.ObjectKey{Namespace: s.KeysNamespace, Name: keystore.ChannelSecretName(digest)}, &secret)
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return err
		}
		var held keystore.ChannelHolderDoc
		if _, err := keystore.ReadDocument(&secret, keystore.FormatChannelHolder, &held); err != nil || held.UID != doc.UID {
			continue
		}
		if err := s.keys.DeleteExactly(ctx, &secret); err != nil {
			return err
		}
	}
	return nil
}

// channelsEvery is how often holders are looked for that are gone.
const channelsEvery = 10 * time.Minute

// maintainChannels deletes the documents of holders that no longer exist and have no pod any more. Nobody waits for
// it: who needs such a channel takes it over. It only keeps the keys' namespace from filling up.
func (s *Server) maintainChannels(ctx context.Context) error {
	s.channelMu.Lock()
	due := s.channelsSwept.IsZero() || !s.Clock.Now().Before(s.channelsSwept.Add(channelsEvery))
	if due {
		s.channelsSwept = s.Clock.Now()
	}
	s.channelMu.Unlock()
	if !due {
		return nil
	}
	type holding struct {
		secret *corev1.Secret // its name alone
		held   keystore.ChannelHolderDoc
	}
	var holders []holding
	err := s.keys.EachKeySecret(ctx, client.MatchingLabels{v1alpha1.LabelComponent: keystore.ComponentChannel}, func(secret *corev1.Secret) error {
		h := holding{secret: &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: secret.Namespace, Name: secret.Name, UID: secret.UID, ResourceVersion: secret.ResourceVersion}}}
		if _, err := keystore.ReadDocument(secret, keystore.FormatChannelHolder, &h.held); err == nil { // others are taken over by who needs the channel
			holders = append(holders, h)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("list the holders of channels: %w", err)
	}
	for _, h := range holders {
		secret := h.secret
		gone, err := s.isHolderGone(ctx, h.held)
		if err != nil {
			return err
		}
		if !gone {
			continue
		}
		err = s.Client.Delete(ctx, secret, client.Preconditions{UID: &secret.UID, ResourceVersion: &secret.ResourceVersion})
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			return fmt.Errorf("delete the holder of a channel: %w", err)
		}
	}
	return nil
}

func (s *Server) isHolderGone(ctx context.Context, held keystore.ChannelHolderDoc) (bool, error) {
	var bot v1alpha1.BotDeployment
	err := s.Client.Get(ctx, client.ObjectKey{Namespace: held.Namespace, Name: held.Name}, &bot)
	if kube.UnlessMissing(err, held.Name) != nil {
		return false, err
	}
	if err == nil && string(bot.UID) == held.UID {
		return false, nil
	}
	hasPod, err := s.hasPod(ctx, held)
	return !hasPod, err
}

// newHolder makes the document of a holder.
func (s *Server) newHolder(ring sealing.Ring, generation int64, doc keystore.ChannelHolderDoc) (*corev1.Secret, error) {
	secret, err := keystore.NewDocument(s.KeysNamespace, keystore.ChannelSecretName(doc.Digest), doc.Tenant, keystore.FormatChannelHolder, generation, ring, doc)
	if err == nil {
		secret.Labels[v1alpha1.LabelComponent] = keystore.ComponentChannel
	}
	return secret, err
}
