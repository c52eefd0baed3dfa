package keyclient

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/internal/sealing"
)

// Unseal returns the credentials of the pod that calls. They are encrypted to a key that lives for this call only.
func (c *Client) Unseal(ctx context.Context) (keyapi.SecretBundle, error) {
	key, err := sealing.GeneratePrivateKey(rand.Reader)
	if err != nil {
		return keyapi.SecretBundle{}, fmt.Errorf("make a one-time key: %w", err)
	}
	var resp keyapi.UnsealResponse
	token, err := c.callAs(ctx, keyapi.PathUnseal, keyapi.UnsealRequest{PublicKey: key.Public().String()}, &resp)
	if err != nil {
		return keyapi.SecretBundle{}, err
	}
	return openBundle(key, keyapi.PathUnseal, token, resp.Sealed)
}

// Lease is permission to commit.
type Lease struct {
	Expires time.Time     // by the keyserver's clock
	For     time.Duration // the same as a length, from before the call on: use this one
	Items   []keyapi.SecretItem
	Account keyapi.Account // with the secret only

	KnownDigest string   // of the identifiers of known tenants; empty: the store is Dedicated
	Known       []string // the part of them that was asked for
}

// Lease asks to begin (withSecret) or to go on sweeping by a plan. The length counts from before the call.
func (c *Client) Lease(ctx context.Context, req keyapi.LeaseRequest, withSecret bool) (Lease, error) {
	var key sealing.PrivateKey
	if withSecret {
		var err error
		if key, err = sealing.GeneratePrivateKey(rand.Reader); err != nil {
			return Lease{}, fmt.Errorf("make a one-time key: %w", err)
		}
		req.PublicKey = key.Public().String()
	}
	var resp keyapi.LeaseResponse
	token, err := c.callAs(ctx, keyapi.PathLease, req, &resp)
	if err != nil {
		return Lease{}, err
	}
	lease := Lease{Expires: resp.Expires, For: time.Duration(min(resp.Seconds, keyapi.LeaseSeconds)) * time.Second, KnownDigest: resp.KnownDigest, Known: resp.Known}
	if withSecret {
		bundle, err := openBundle(key, keyapi.PathLease, token, resp.Sealed)
		if err != nil {
			return Lease{}, err
		}
		lease.Items = bundle.Items
		if resp.Account != nil {
			lease.Account = *resp.Account
		}
	}
	return lease, nil
}

// Release ends a lease early.
func (c *Client) Release(ctx context.Context, planHash string) error {
	return c.call(ctx, keyapi.PathRelease, keyapi.ReleaseRequest{PlanHash: planHash}, &struct{}{})
}

// Report hands in what a sweep measured and did, by its canonical bytes. Repeating it is harmless.
func (c *Client) Report(ctx context.Context, planHash string, canonical []byte) (keyapi.ReportResponse, error) {
	var resp keyapi.ReportResponse
	packed, err := keyapi.PackReport(canonical)
	if err != nil {
		return resp, fmt.Errorf("%w: %w", err, errNeverHelps)
	}
	if err := c.call(ctx, keyapi.PathReport, keyapi.ReportRequest{PlanHash: planHash, Report: packed}, &resp); err != nil {
		return resp, err
	}
	if resp.Digest != keyapi.DigestReport(canonical) {
		return resp, errors.New("the keyserver took another report than was sent")
	}
	return resp, nil
}

// openBundle opens an answer, which is bound to the call and to the pod that the token was made for.
func openBundle(key sealing.PrivateKey, call, token, sealed string) (keyapi.SecretBundle, error) {
	uid, err := podUID(token)
	if err != nil {
		return keyapi.SecretBundle{}, err
	}
	b, err := sealing.OpenReply(key, call, uid, sealed)
	if err != nil {
		return keyapi.SecretBundle{}, fmt.Errorf("open the keyserver's answer: %w", err)
	}
	defer clear(b)
	var bundle keyapi.SecretBundle
	if err := json.Unmarshal(b, &bundle); err != nil {
		return keyapi.SecretBundle{}, errors.New("the keyserver's answer is not readable")
	}
	return bundle, nil
}

// podUID reads the pod's UID out of the pod's own token. It is not checked here, and need not be: with a wrong one the
// answer does not open.
func podUID(token string) (string, error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return "", fmt.Errorf("the token is no ServiceAccount token: %w", errNeverHelps)
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return "", fmt.Errorf("the token is not readable: %w", errNeverHelps)
	}
	var claims struct {
		Kubernetes struct {
			Pod struct {
				UID string `json:"uid"`
			} `json:"pod"`
		} `json:"kubernetes.io"`
	}
	if err := json.Unmarshal(payload, &claims); err != nil || claims.Kubernetes.Pod.UID == "" {
		return "", fmt.Errorf("the token is not bound to a pod: %w", errNeverHelps)
	}
	return claims.Kubernetes.Pod.UID, nil
}
