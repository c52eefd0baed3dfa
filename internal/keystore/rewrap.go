package keystore

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"

	corev1 "k8s.io/api/core/v1"

	"github.com/lethe-dev/lethe/internal/sealing"
)

// wrappedText is a text in a document that is wrapped under the KEK.
type wrappedText struct {
	text    *string
	purpose sealing.Purpose
	ids     []string
}

// kekKind says how a kind of document is brought under another KEK.
type kekKind struct {
	// fresh returns an empty document and what in it is wrapped under the KEK, which may be nothing: its MAC is.
	fresh func() (document any, wrapped func() []wrappedText)
}

// kekKinds are the kinds of documents that are authenticated under the KEK. A tenant's document is not among them:
// only its key is under the KEK; and nothing of an object's is. TestEveryKindOfDocumentIsRewrapped holds this list
// against the formats that the package knows.
var kekKinds = map[string]kekKind{
	FormatCanary: {fresh: func() (any, func() []wrappedText) {
		doc := &CanaryDoc{}
		// The canaries of earlier keys stay under those: they say that such a key is the one.
		return doc, func() []wrappedText { return nil }
	}},
	FormatUIDs: {fresh: func() (any, func() []wrappedText) {
		return &UIDsDoc{}, func() []wrappedText { return nil }
	}},
	FormatVersions: {fresh: func() (any, func() []wrappedText) {
		return &VersionsDoc{}, func() []wrappedText { return nil }
	}},
	FormatPending: {fresh: func() (any, func() []wrappedText) {
		doc := &pendingDoc{}
		return doc, func() []wrappedText {
			var out []wrappedText
			for i := range doc.Seal {
				out = append(out, wrappedText{&doc.Seal[i].Key, sealing.PurposePending, doc.ids()})
			}
			return out
		}
	}},
	formatChannelKey: {fresh: func() (any, func() []wrappedText) {
		doc := &channelKeyDoc{}
		return doc, func() []wrappedText { return []wrappedText{{&doc.Key, sealing.PurposeChannel, []string{doc.Realm}}} }
	}},
	formatReportKey: {fresh: func() (any, func() []wrappedText) {
		doc := &reportKeyDoc{}
		return doc, func() []wrappedText { return []wrappedText{{&doc.Key, sealing.PurposeReport, []string{doc.Realm}}} }
	}},
	FormatCA: {fresh: func() (any, func() []wrappedText) {
		doc := &CADoc{}
		return doc, func() []wrappedText {
			var out []wrappedText
			for _, e := range []*CAEntry{&doc.Present, doc.Next, doc.Previous} {
				if e != nil && e.Key != "" {
					out = append(out, wrappedText{&e.Key, sealing.PurposeCA, []string{doc.Realm}})
				}
			}
			return out
		}
	}},
}

// notUnderKEK are the kinds of which nothing is under the KEK, nor authenticated under it, and that are no tenant's
// keys.
var notUnderKEK = map[string]bool{FormatChannelHolder: true} // under the channel key

// wrappedKID finds the keys that wrapped texts of a document are under.
var wrappedKID = regexp.MustCompile(`"wrap\.v1\.([0-9a-f]{16})\.`)

// Rewrap brings a document that is authenticated under the KEK under the one that wraps now, and says whether it was
// written.
func (s *Store) Rewrap(ctx context.Context, secret *corev1.Secret) (bool, error) {
	format := FormatOf(secret)
	if notUnderKEK[format] {
		return false, nil
	}
	kind, ok := kekKinds[format]
	if !ok {
		return false, fmt.Errorf("format %q is unknown to this version: %w", format, ErrUnreadable)
	}
	if format == FormatCanary || UnderKEK(secret, s.KEKs().First().KID()) {
		return false, nil // the canary's document was written when the key changed
	}
	document, wrapped := kind.fresh()
	if _, err := OpenKEKDocument(secret, format, s.KEKs(), document); err != nil {
		return false, err
	}
	for _, w := range wrapped() {
		var err error
		if *w.text, err = s.KEKs().Rewrap(s.Random, *w.text, w.purpose, w.ids...); err != nil {
			return false, err
		}
	}
	if _, _, err := s.UpdateDocument(ctx, secret, format, s.KEKs(), document); err != nil {
		return false, err
	}
	return true, nil
}

// UnderKEK says whether a document that is authenticated under the KEK is under one, with everything in it.
func UnderKEK(secret *corev1.Secret, kid string) bool {
	var e Envelope
	if json.Unmarshal(secret.Data[DocumentKey], &e) != nil {
		return false
	}
	if by, err := sealing.MACKID(e.MAC); err != nil || by != kid {
		return false
	}
	for _, m := range wrappedKID.FindAllSubmatch(e.Document, -1) {
		if string(m[1]) != kid {
			return false
		}
	}
	return true
}
