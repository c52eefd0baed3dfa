package sealing

import (
	"io"
	"strconv"
	"strings"
)

// encPrefix begins every value of an encrypted Secret: enc.v1.<kid of the data key>.<version>.<nonce || ciphertext>.
const encPrefix = "enc.v1."

// Owner is the object whose credentials an encrypted Secret holds. The UID is bound: a Secret copied to an object of
// the same name made later opens for nobody.
type Owner struct {
	Realm, Tenant, Namespace, Kind, UID string
}

func (o Owner) aad(kid, credential, version string) []byte {
	return lp("lethe/secret/v1", o.Realm, o.Tenant, o.Namespace, o.Kind, o.UID, kid, credential, version)
}

// EncryptValue encrypts one credential of an object under the object's data key. version is 0 for one that has none.
func (k Key) EncryptValue(random io.Reader, owner Owner, credential string, version uint32, plaintext []byte) (string, error) {
	v := strconv.FormatUint(uint64(version), 10)
	ct, err := k.seal(random, plaintext, owner.aad(k.kid, credential, v))
	if err != nil {
		return "", err
	}
	return encPrefix + k.kid + "." + v + "." + b64.EncodeToString(ct), nil
}

// DecryptValue is the reverse. Errors: ErrMalformed, ErrUnknownKey, ErrDoesNotOpen.
func (k Key) DecryptValue(owner Owner, credential, text string) ([]byte, error) {
	value, _, err := k.DecryptVersioned(owner, credential, text)
	return value, err
}

// DecryptVersioned is the same, and returns the version that the value was encrypted with.
func (k Key) DecryptVersioned(owner Owner, credential, text string) ([]byte, uint32, error) {
	rest, ok := strings.CutPrefix(text, encPrefix)
	seg := strings.Split(rest, ".")
	if !ok || len(seg) != 3 || !isKID(seg[0]) || !isToken(seg[1]) {
		return nil, 0, ErrMalformed
	}
	if seg[0] != k.kid {
		return nil, 0, ErrUnknownKey
	}
	ct, err := decode64(seg[2])
	if err != nil {
		return nil, 0, err
	}
	value, err := k.open(ct, owner.aad(k.kid, credential, seg[1]))
	if err != nil {
		return nil, 0, err
	}
	version, err := strconv.ParseUint(seg[1], 10, 32)
	if err != nil {
		return nil, 0, ErrMalformed
	}
	return value, uint32(version), nil
}
