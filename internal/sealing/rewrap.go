package sealing

import "io"

// Rewrap wraps with the first key what another key of the ring wrapped, under the same purpose and name. What is
// under the first one already comes back as it is, so that a repeat changes nothing.
func (r Ring) Rewrap(random io.Reader, wrapped string, purpose Purpose, ids ...string) (string, error) {
	parent, err := WrappingKID(wrapped)
	if err != nil {
		return "", err
	}
	if parent == r.First().kid {
		return wrapped, nil
	}
	kid, secret, err := r.UnwrapBytes(wrapped, purpose, ids...)
	if err != nil {
		return "", err
	}
	defer clear(secret)
	return r.WrapBytes(random, kid, secret, purpose, ids...)
}

// Leading returns the same keys with the one of that name in front. ErrUnknownKey when it is not in the ring.
func (r Ring) Leading(kid string) (Ring, error) {
	first, err := r.Find(kid)
	if err != nil {
		return nil, err
	}
	out := Ring{first}
	for _, k := range r {
		if k.kid != kid {
			out = append(out, k)
		}
	}
	return out, nil
}
