package sealing

import (
	"crypto/hpke"
	"errors"
)

// replyInfo and the call bind an answer to what was asked; the pod's UID binds it to who asked.
func replyInfo(kid string) []byte { return lp("lethe/reply/v1", suiteToken, kid) }

// SealReply encrypts an answer to the one-time key of a pod. call is the path of the call. The text is base64url of the
// encapsulated key and the ciphertext.
func SealReply(pub PublicKey, call, podUID string, plaintext []byte) (string, error) {
	if pub.key == nil {
		return "", ErrBadKey
	}
	enc, sender, err := hpke.NewSender(pub.key, hpke.HKDFSHA256(), hpke.AES256GCM(), replyInfo(pub.kid))
	if err != nil {
		return "", errors.New("seal reply: the public key cannot be used")
	}
	ct, err := sender.Seal(lp(call, podUID), plaintext)
	if err != nil {
		return "", errors.New("seal reply: encryption failed")
	}
	return b64.EncodeToString(append(enc, ct...)), nil
}

// OpenReply is the reverse, for the pod. Errors: ErrMalformed, ErrDoesNotOpen.
func OpenReply(priv PrivateKey, call, podUID, text string) ([]byte, error) {
	b, err := decode64(text)
	if err != nil || len(b) < encSize+gcmTag || priv.key == nil {
		return nil, ErrMalformed
	}
	r, err := hpke.NewRecipient(b[:encSize], priv.key, hpke.HKDFSHA256(), hpke.AES256GCM(), replyInfo(priv.public.kid))
	if err != nil {
		return nil, ErrDoesNotOpen
	}
	pt, err := r.Open(lp(call, podUID), b[encSize:])
	if err != nil {
		return nil, ErrDoesNotOpen
	}
	return pt, nil
}
