package keyserver

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/lethe-dev/lethe/internal/protocol"
)

// refusal is an answer other than 200. Its message is for people and never holds a value.
type refusal struct {
	answer
	cause error // for the log; may be nil
}

// answer is embedded under another name, since an error has a method Error.
type answer = protocol.Error

func (r *refusal) Error() string { return r.Reason + ": " + r.Message }

func (r *refusal) Unwrap() error { return r.cause }

// refuse makes a final refusal: asking again changes nothing until somebody acts.
func refuse(reason, format string, args ...any) *refusal {
	return &refusal{answer: answer{Reason: reason, Message: fmt.Sprintf(format, args...)}}
}

// later makes a refusal that may be another answer in some seconds.
func later(reason string, seconds int, format string, args ...any) *refusal {
	r := refuse(reason, format, args...)
	r.RetryAfter = seconds
	return r
}

// statuses of HTTP by reason; 409 for what is not listed: the world is not as the request assumes.
var statuses = map[string]int{
	protocol.ReasonUnauthenticated: http.StatusUnauthorized,
	protocol.ReasonForbidden:       http.StatusForbidden,
	protocol.ReasonNotFound:        http.StatusNotFound,
	protocol.ReasonBadRequest:      http.StatusBadRequest,
	protocol.ReasonKEKUnavailable:  http.StatusServiceUnavailable,
	protocol.ReasonInternal:        http.StatusInternalServerError,
}

// asRefusal turns any error into an answer. What is no refusal of ours is the API server's trouble: its text is for the
// log, the caller gets the kind of it.
func asRefusal(err error) *refusal {
	if r := (*refusal)(nil); errors.As(err, &r) {
		return r
	}
	r := later(protocol.ReasonInternal, 2, "the API server could not be asked; see the keyserver's log")
	switch {
	case apierrors.IsForbidden(err):
		r = later(protocol.ReasonInternal, 5, "the keyserver lacks a right in that namespace; the Tenant's RoleBindings may not be in place yet")
	case apierrors.IsConflict(err), apierrors.IsAlreadyExists(err):
		r = later(protocol.ReasonInternal, 1, "another replica wrote at the same time")
	}
	r.cause = err
	return r
}

// caller is who asks, as the API server vouches for it.
type caller struct {
	Namespace, ServiceAccount string
	Pod, PodUID               string // of a token that is bound to a pod
}

func (c caller) LogValue() slog.Value {
	return slog.StringValue(c.Namespace + "/" + c.ServiceAccount + " " + c.Pod)
}

// handle joins a call's parts: who asks, what for, what it gets; it counts and logs every access, without any value.
func handle[Request, Response any](s *Server, path string, authenticate func(context.Context, string) (caller, error),
	call func(context.Context, caller, *Request) (*Response, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), requestTimeout)
		defer cancel()
		began := s.Clock.Now()
		var who caller
		var req Request
		var resp *Response
		var body []byte
		leave, err := s.inFlight.enter(ctx, r, func() (err error) {
			body, err = read(w, r)
			return err
		})
		if err == nil {
			defer leave()
			who, err = authenticate(ctx, r.Header.Get("Authorization"))
		}
		if err == nil {
			err = decode(body, &req)
		}
		if err == nil {
			resp, err = call(ctx, who, &req)
		}
		took := s.Clock.Since(began)
		if err != nil {
			ref := asRefusal(err)
			s.Metrics.observe(path, ref.Reason, took)
			s.Log.Info("Refused", "path", path, "reason", ref.Reason, "message", ref.Message, "caller", who, "object", describe(&req), "took", took, "cause", ref.cause)
			writeRefusal(w, ref)
			return
		}
		s.Metrics.observe(path, "OK", took)
		s.Log.Info("Answered", "path", path, "caller", who, "object", describe(&req), "took", took)
		writeJSON(w, http.StatusOK, resp)
	})
}

// describe names what a request of the manager is about; the requests of pods are about themselves.
func describe(req any) string {
	switch r := req.(type) {
	case *protocol.TenantRequest:
		return refString(r.Tenant)
	case *protocol.CredentialsRequest:
		return refString(r.Object)
	case *protocol.RevokeRequest:
		return refString(r.Object)
	}
	return ""
}

func refString(ref protocol.ObjectRef) string {
	return fmt.Sprintf("%.63s %.63s/%.253s %.63s", ref.Kind, ref.Namespace, ref.Name, ref.UID)
}

// read gets the whole body of a request; what did not come in time, or is too long, is no request.
func read(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		return nil, notARequest()
	}
	return body, nil
}

// decode reads a body; its text is never repeated in an error.
func decode(body []byte, into any) error {
	if err := json.NewDecoder(bytes.NewReader(body)).Decode(into); err != nil {
		return notARequest()
	}
	return nil
}

func notARequest() *refusal {
	return refuse(protocol.ReasonBadRequest, "the body is not a JSON request of at most %d bytes", maxBody)
}

func writeRefusal(w http.ResponseWriter, r *refusal) {
	status, ok := statuses[r.Reason]
	if !ok {
		status = http.StatusConflict
	}
	if r.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(r.RetryAfter))
	}
	writeJSON(w, status, &r.answer)
}

func writeJSON(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	// A client that has gone away is not our error, and there is no answer left to change.
	_ = json.NewEncoder(w).Encode(body)
}
