// Package api is what the cluster's own small parts need of the Kubernetes API: requests with a client certificate, and
// lists that are followed.
package api

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"time"
)

// retryAfter is the pause after a watch or a request has failed.
const retryAfter = time.Second

// Client sends requests to one API server.
type Client struct {
	Server string
	HTTP   *http.Client
	// Agent is the user agent of its requests.
	Agent string
}

// Flags adds to a part's flags what its client needs. The function makes the client once they are parsed.
func Flags(flags *flag.FlagSet, agent string) func() (*Client, error) {
	server := flags.String("server", "", "URL of the API server")
	ca := flags.String("ca", "", "file with the authority of the API server")
	cert := flags.String("cert", "", "file with the client certificate")
	key := flags.String("key", "", "file with its key")
	return func() (*Client, error) {
		roots, err := os.ReadFile(*ca)
		if err != nil {
			return nil, err
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(roots) {
			return nil, fmt.Errorf("%s holds no certificate", *ca)
		}
		pair, err := tls.LoadX509KeyPair(*cert, *key)
		if err != nil {
			return nil, err
		}
		return &Client{Server: *server, Agent: agent, HTTP: &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{
			RootCAs: pool, Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12,
		}}}}, nil
	}
}

// Do sends a request. That something to make is there, or something to remove is not, is success.
func (c *Client) Do(ctx context.Context, method, path string, content any) (io.ReadCloser, error) {
	var body io.Reader
	if content != nil {
		data, err := json.Marshal(content)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.Server+path, body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", c.Agent)
	resp, err := c.HTTP.Do(req)
	if err != nil {
		return nil, err
	}
	done := method == http.MethodPost && resp.StatusCode == http.StatusConflict ||
		method == http.MethodDelete && resp.StatusCode == http.StatusNotFound
	if resp.StatusCode >= 300 && !done {
		text, err := io.ReadAll(io.LimitReader(resp.Body, 1024))
		return nil, errors.Join(fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, text), err, resp.Body.Close())
	}
	return resp.Body, nil
}

// Follower is told of the objects of one list. An error makes it be told of the whole list anew.
type Follower[T any] struct {
	// List gets all objects that there are.
	List func(ctx context.Context, objects []T) error
	// Event gets one that was ADDED, MODIFIED or DELETED since.
	Event func(ctx context.Context, kind string, object T) error
}

// Follow tells of a list for ever; what fails is tried again with the next list.
func Follow[T any](ctx context.Context, c *Client, path string, f Follower[T]) {
	for ctx.Err() == nil {
		if err := once(ctx, c, path, f); err != nil && ctx.Err() == nil {
			log.Printf("%s: %v", path, err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(retryAfter):
		}
	}
}

func once[T any](ctx context.Context, c *Client, path string, f Follower[T]) error {
	body, err := c.Do(ctx, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	var list struct {
		Metadata struct{ ResourceVersion string }
		Items    []T
	}
	err = errors.Join(json.NewDecoder(body).Decode(&list), body.Close())
	if err != nil {
		return fmt.Errorf("list: %w", err)
	}
	if err := f.List(ctx, list.Items); err != nil {
		return err
	}
	body, err = c.Do(ctx, http.MethodGet, path+"?watch=true&resourceVersion="+list.Metadata.ResourceVersion, nil)
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	events := json.NewDecoder(body)
	for {
		var event struct {
			Type   string
			Object json.RawMessage
		}
		if err := events.Decode(&event); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("watch: %w", err)
		}
		if event.Type == "ERROR" {
			return errors.New("watch: refused, probably for its age")
		}
		var object T
		if err := json.Unmarshal(event.Object, &object); err != nil {
			return fmt.Errorf("watch: %w", err)
		}
		if err := f.Event(ctx, event.Type, object); err != nil {
			return err
		}
	}
}
