package keystore

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/internal/sealing"
)

const (
	formatChannelKey    = "lethe.dev/channel-key/v2"
	FormatChannelHolder = "lethe.dev/channel-holder/v2"

	channelKeyName   = "channel-key"
	ComponentChannel = "channel"
)

// channelKeyDoc holds the key that digests are made with, under the KEK. It stays the same when the KEK is rotated.
type channelKeyDoc struct {
	Realm string `json:"realm"`
	KID   string `json:"kid"`
	Key   string `json:"key"`
}

// ChannelHolderDoc says which bot holds an identity. It is authenticated under the channel key.
type ChannelHolderDoc struct {
	Realm     string `json:"realm"`
	Digest    string `json:"digest"`
	Tenant    string `json:"tenant"`
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	UID       string `json:"uid"`
}

// ChannelSecretName is the name of the Secret of a channel's holder.
func ChannelSecretName(digest string) string { return "channel-" + digest[:min(len(digest), 20)] }

// ChannelKey reads the key that digests are made with, and makes it where there never was one.
func (s *Store) ChannelKey(ctx context.Context) (sealing.Key, error) {
	s.channelMu.Lock()
	defer s.channelMu.Unlock()
	if s.channel.KID() != "" {
		return s.channel, nil
	}
	if err := s.KEKUsable(ctx); err != nil {
		return sealing.Key{}, err
	}
	var secret corev1.Secret
	name := client.ObjectKey{Namespace: s.KeysNamespace, Name: channelKeyName}
	err := s.Client.Get(ctx, name, &secret)
	if apierrors.IsNotFound(err) {
		if err = s.makeChannelKey(ctx); err == nil || apierrors.IsAlreadyExists(err) {
			err = s.Client.Get(ctx, name, &secret)
		}
	}
	if err != nil {
		return sealing.Key{}, err
	}
	key, err := openChannelKey(&secret, s.KEKs())
	if err != nil {
		return sealing.Key{}, keyapi.Refuse(v1alpha1.ReasonKeyMissing, "%s: restore the backup", err)
	}
	s.channel = key
	return key, nil
}

func (s *Store) makeChannelKey(ctx context.Context) error {
	key, entry, err := s.NewKeyUnder(s.KEKs(), sealing.PurposeChannel, s.Realm)
	if err != nil {
		return err
	}
	doc := channelKeyDoc{Realm: s.Realm, KID: key.KID(), Key: entry.Key}
	secret, err := NewDocument(s.KeysNamespace, channelKeyName, "", formatChannelKey, 1, s.KEKs(), doc)
	if err != nil {
		return err
	}
	return s.Client.Create(ctx, secret)
}

// openChannelKey reads, opens and authenticates the document of the channel key.
func openChannelKey(secret *corev1.Secret, kek sealing.Ring) (sealing.Key, error) {
	var doc channelKeyDoc
	if _, err := OpenKEKDocument(secret, formatChannelKey, kek, &doc); err != nil {
		return sealing.Key{}, err
	}
	key, err := kek.Unwrap(doc.Key, sealing.PurposeChannel, doc.Realm)
	if err != nil || key.KID() != doc.KID {
		return sealing.Key{}, altered(secret, "the channel key does not open")
	}
	return key, nil
}

// IsChannelKey says whether digests that were made with a key of that name were made with the present one, as far as
// it was read.
func (s *Store) IsChannelKey(kid string) bool {
	s.channelMu.Lock()
	defer s.channelMu.Unlock()
	return s.channel.KID() == "" || s.channel.KID() == kid
}
