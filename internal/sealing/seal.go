package sealing

import (
	"crypto/hpke"
	"errors"
	"fmt"
	"strings"
)

// MaxPlaintext is the most bytes that one value may have, so that its sealed text fits the field that holds it.
const MaxPlaintext = 64 << 10

// sealPrefix begins every sealed value; the number is the version of the format.
const sealPrefix = "seal.v1."

// Envelope is a sealed value taken apart: seal.v1.<kid>.<suite>.<hint>.<enc>.<ciphertext>.
type Envelope struct {
	KID  string // names the public key it was sealed to
	Hint Hint   // the place it was sealed for, as it says itself

	hintText string
	enc, ct  []byte
}

// sealInfo says what a ciphertext is and under which key; it is HPKE's info.
func sealInfo(kid string) []byte { return lp("lethe/seal/v1", suiteToken, kid) }

// Seal encrypts a value of 1 to MaxPlaintext bytes for one place. It needs the public key only; sealing twice gives
// two texts.
func Seal(pub PublicKey, place Place, plaintext []byte) (string, error) {
	if pub.key == nil {
		return "", ErrBadKey
	}
	if err := place.check(); err != nil {
		return "", err
	}
	if len(plaintext) == 0 || len(plaintext) > MaxPlaintext {
		return "", fmt.Errorf("a value has 1 to %d bytes, this one has %d", MaxPlaintext, len(plaintext))
	}
	hint, err := place.hint().encode()
	if err != nil {
		return "", err
	}
	enc, sender, err := hpke.NewSender(pub.key, hpke.HKDFSHA256(), hpke.AES256GCM(), sealInfo(pub.kid))
	if err != nil {
		return "", errors.New("seal: the public key cannot be used")
	}
	// One message per context: HPKE contexts count their messages.
	ct, err := sender.Seal(place.aad(hint), plaintext)
	if err != nil {
		return "", errors.New("seal: encryption failed")
	}
	return sealPrefix + strings.Join([]string{pub.kid, suiteToken, hint, b64.EncodeToString(enc), b64.EncodeToString(ct)}, "."), nil
}

// Parse takes a sealed value apart without any key. What is not a sealed value is ErrMalformed, and not repeated.
func Parse(sealed string) (Envelope, error) {
	rest, ok := strings.CutPrefix(sealed, sealPrefix)
	if !ok {
		return Envelope{}, ErrMalformed
	}
	seg := strings.Split(rest, ".")
	if len(seg) != 5 || !isKID(seg[0]) {
		return Envelope{}, ErrMalformed
	}
	if seg[1] != suiteToken {
		return Envelope{}, fmt.Errorf("%w: its suite is not known", ErrMalformed)
	}
	hint, err := decodeHint(seg[2])
	if err != nil {
		return Envelope{}, err
	}
	enc, err := decode64(seg[3])
	if err != nil {
		return Envelope{}, err
	}
	ct, err := decode64(seg[4])
	if err != nil {
		return Envelope{}, err
	}
	if len(enc) != encSize || len(ct) <= gcmTag || len(ct) > MaxPlaintext+gcmTag {
		return Envelope{}, ErrMalformed
	}
	return Envelope{KID: seg[0], Hint: hint, hintText: seg[2], enc: enc, ct: ct}, nil
}

// isKID says whether s is 16 lower-case hex digits.
func isKID(s string) bool {
	if len(s) != 16 {
		return false
	}
	for i := range len(s) {
		if (s[i] < '0' || s[i] > '9') && (s[i] < 'a' || s[i] > 'f') {
			return false
		}
	}
	return true
}

// Check compares the place that the value was sealed for with the one it was found in: a *WrongPlaceError says which
// field differs. It proves nothing; Open does.
func (e Envelope) Check(place Place) error { return e.Hint.matches(place) }

// Open decrypts a sealed value. A place without a Version takes the version that the value itself names, which is
// authenticated like the rest.
// Errors: ErrMalformed, *WrongPlaceError, ErrUnknownKey, ErrDoesNotOpen.
func Open(priv PrivateKey, place Place, sealed string) ([]byte, error) {
	e, err := Parse(sealed)
	if err != nil {
		return nil, err
	}
	return e.Open(priv, place)
}

// Open is the same for a value that is already taken apart.
func (e Envelope) Open(priv PrivateKey, place Place) ([]byte, error) {
	if err := e.Check(place); err != nil {
		return nil, err
	}
	if priv.key == nil || e.KID != priv.public.kid {
		return nil, ErrUnknownKey
	}
	place.Version = e.Hint.Version
	r, err := hpke.NewRecipient(e.enc, priv.key, hpke.HKDFSHA256(), hpke.AES256GCM(), sealInfo(e.KID))
	if err != nil {
		return nil, ErrDoesNotOpen
	}
	pt, err := r.Open(place.aad(e.hintText), e.ct)
	if err != nil {
		return nil, ErrDoesNotOpen
	}
	return pt, nil
}
