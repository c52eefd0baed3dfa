// Package keyclient calls the keyserver, for the manager, for `unseal` and for the sweeper. It reads its token and
// the CA bundle anew for each call, since others replace both, trusts nothing but that bundle, and never logs.
package keyclient

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/lethe-dev/lethe/internal/foreign"
	"github.com/lethe-dev/lethe/internal/keyapi"
)

// DefaultTimeout of one call.
const DefaultTimeout = 15 * time.Second

const (
	maxAnswer       = 1 << 20
	maxHead         = 16 << 10
	idleConnections = 16
)

// Options of a Client.
type Options struct {
	// URL of the keyserver: https://host:port.
	URL string
	// CAFile holds the bundle of certificates to trust, in PEM. CA, when set, is asked instead of it.
	CAFile string
	CA     func(context.Context) ([]byte, error)
	// TokenFile holds the caller's token, with the audience lethe.dev/keyserver.
	TokenFile string
	// AddressesFile, where it is set, holds IP addresses of the keyserver, one a line, which are tried before its
	// name is looked up: a pod without DNS has no other way. Whoever answers there must have a certificate for the
	// name all the same.
	AddressesFile string
	// Timeout of one call. Defaults to DefaultTimeout.
	Timeout time.Duration
}

// Client calls one keyserver. It may be used by many at a time.
type Client struct {
	o    Options
	base string

	mu     sync.Mutex
	bundle []byte
	http   *http.Client
}

// New makes a client; it asks nothing yet.
func New(o Options) (*Client, error) {
	u, err := url.Parse(o.URL)
	if err != nil || u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("the keyserver's address %q is not of the form https://host:port", o.URL)
	}
	if o.TokenFile == "" || (o.CAFile == "" && o.CA == nil) {
		return nil, errors.New("a token file and a CA bundle are needed")
	}
	if o.CA == nil {
		o.CA = func(context.Context) ([]byte, error) { return os.ReadFile(o.CAFile) }
	}
	if o.Timeout <= 0 {
		o.Timeout = DefaultTimeout
	}
	return &Client{o: o, base: strings.TrimSuffix(o.URL, "/")}, nil
}

// Refusal is an answer of the keyserver other than yes.
type Refusal struct{ answer keyapi.Error }

// Error is the message for people. It holds no value.
func (r *Refusal) Error() string { return r.answer.Message }

// Reason is one of keyapi's reasons.
func (r *Refusal) Reason() string { return r.answer.Reason }

// RetryAfter is how long to wait before asking again; 0 when that changes nothing until somebody acts.
func (r *Refusal) RetryAfter() time.Duration { return time.Duration(r.answer.RetryAfter) * time.Second }

// ReasonOf returns the reason of a refusal in an error's chain, "" when the keyserver did not answer at all.
func ReasonOf(err error) string {
	if r := (*Refusal)(nil); errors.As(err, &r) {
		return r.Reason()
	}
	return ""
}

// IsRetryable says whether asking again may help: the keyserver said so, or it could not be reached.
func IsRetryable(err error) bool {
	if r := (*Refusal)(nil); errors.As(err, &r) {
		return r.RetryAfter() > 0
	}
	return err != nil && !errors.Is(err, errNeverHelps)
}

// RetryAfter is how long to wait before asking again: what the keyserver said, else otherwise.
func RetryAfter(err error, otherwise time.Duration) time.Duration {
	if r := (*Refusal)(nil); errors.As(err, &r) && r.RetryAfter() > 0 {
		return r.RetryAfter()
	}
	return otherwise
}

// errNeverHelps marks failures on our own side that repeating does not change.
var errNeverHelps = errors.New("this does not change by asking again")

// Tenant makes or finds a tenant's keys.
func (c *Client) Tenant(ctx context.Context, tenant keyapi.ObjectRef) (keyapi.TenantResponse, error) {
	var resp keyapi.TenantResponse
	err := c.call(ctx, keyapi.PathTenant, keyapi.TenantRequest{Tenant: tenant}, &resp)
	return resp, err
}

// Credentials opens and stores the credentials of an object.
func (c *Client) Credentials(ctx context.Context, object keyapi.ObjectRef) (keyapi.CredentialsResponse, error) {
	var resp keyapi.CredentialsResponse
	err := c.call(ctx, keyapi.PathCredentials, keyapi.CredentialsRequest{Object: object}, &resp)
	return resp, err
}

// Revoke destroys the keys of an object that is being deleted. Repeating it is harmless.
func (c *Client) Revoke(ctx context.Context, object keyapi.ObjectRef) error {
	return c.call(ctx, keyapi.PathRevoke, keyapi.RevokeRequest{Object: object}, &struct{}{})
}

// PullSecrets says which of the Secrets that an object's images are to be pulled with are of no use.
func (c *Client) PullSecrets(ctx context.Context, object keyapi.ObjectRef) (keyapi.PullSecretsResponse, error) {
	var resp keyapi.PullSecretsResponse
	err := c.call(ctx, keyapi.PathPullSecrets, keyapi.PullSecretsRequest{Object: object}, &resp)
	return resp, err
}

// LastReport returns the last report of a store, and what the keyserver signed about it.
func (c *Client) LastReport(ctx context.Context, store keyapi.ObjectRef) (keyapi.LastReportResponse, error) {
	var resp keyapi.LastReportResponse
	err := c.call(ctx, keyapi.PathLastReport, keyapi.LastReportRequest{Object: store}, &resp)
	return resp, err
}

// call posts a request and reads the answer. Neither body is ever part of an error.
func (c *Client) call(ctx context.Context, path string, req, into any) error {
	_, err := c.callAs(ctx, path, req, into)
	return err
}

// callAs also returns the token that the call was made with.
func (c *Client) callAs(ctx context.Context, path string, req, into any) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, c.o.Timeout)
	defer cancel()
	token, err := c.token()
	if err != nil {
		return "", err
	}
	client, err := c.client(ctx)
	if err != nil {
		return "", err
	}
	body, err := json.Marshal(req)
	if err != nil {
		return "", fmt.Errorf("encode the request: %w", errNeverHelps)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base+path, bytes.NewReader(body))
	if err != nil {
		return "", fmt.Errorf("make the request: %w", errNeverHelps)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", "Bearer "+token)
	resp, err := client.Do(r)
	if err != nil {
		return "", fmt.Errorf("ask the keyserver: %w", foreign.Network(err))
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	defer clear(answer)
	if err != nil {
		return "", errors.New("the keyserver's answer broke off")
	}
	if len(answer) > maxAnswer {
		return "", fmt.Errorf("the keyserver's answer is longer than %d bytes", maxAnswer)
	}
	if resp.StatusCode != http.StatusOK {
		return "", refusalOf(resp.StatusCode, answer)
	}
	if err := json.Unmarshal(answer, into); err != nil {
		return "", errors.New("the keyserver's answer is not readable")
	}
	return token, nil
}

// refusalOf reads a refusal. What is not from a keyserver (a proxy in between, say) is retryable and named by its
// status.
func refusalOf(status int, answer []byte) error {
	var e keyapi.Error
	if err := json.Unmarshal(answer, &e); err != nil || foreign.Word(e.Reason) == "" {
		return fmt.Errorf("the keyserver answered with status %d", status)
	}
	e.Message = foreign.Text(e.Message)
	return &Refusal{e}
}

func (c *Client) token() (string, error) {
	b, err := os.ReadFile(c.o.TokenFile)
	if err != nil {
		return "", fmt.Errorf("read the token: %w", err)
	}
	token := strings.TrimSpace(string(b))
	if token == "" {
		return "", errors.New("the token file is empty")
	}
	return token, nil
}

func onlyHTTP1() *http.Protocols {
	p := &http.Protocols{}
	p.SetHTTP1(true)
	return p
}

// client trusts the present bundle. It goes on using its connections while the bundle is the same.
func (c *Client) client(ctx context.Context) (*http.Client, error) {
	bundle, err := c.o.CA(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the keyserver's CA: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.http != nil && bytes.Equal(bundle, c.bundle) {
		return c.http, nil
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(bundle) {
		return nil, errors.New("the keyserver's CA bundle holds no certificate")
	}
	if c.http != nil {
		c.http.CloseIdleConnections()
	}
	c.bundle = bytes.Clone(bundle)
	c.http = &http.Client{
		Transport: &http.Transport{
			// No proxy: the token is for the keyserver alone.
			DialContext:         c.dial,
			TLSClientConfig:     &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: pool},
			MaxIdleConnsPerHost: idleConnections,
			// Shorter than the keyserver keeps one, so that no call meets a connection that is being closed.
			IdleConnTimeout:     60 * time.Second,
			TLSHandshakeTimeout: 5 * time.Second,
			// Whoever answers in the keyserver's place, or a broken one, fills no memory of ours: see maxAnswer, too.
			MaxResponseHeaderBytes: maxHead,
			Protocols:              onlyHTTP1(),
		},
		// A redirect would take the token elsewhere.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c.http, nil
}
