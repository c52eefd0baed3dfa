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

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/doors"
	"github.com/lethe-dev/lethe/internal/foreign"
	"github.com/lethe-dev/lethe/internal/keyapi"
)

// refusal is what a call ends with other than an answer: also the keys' documents and the authority refuse by one.
type refusal = keyapi.Refusal

func refuse(reason, format string, args ...any) *refusal {
	return keyapi.Refuse(reason, format, args...)
}

func later(reason string, seconds int, format string, args ...any) *refusal {
	return keyapi.Later(reason, seconds, format, args...)
}

// statuses of HTTP by reason; 409 for what is not listed: the world is not as the request assumes.
var statuses = map[string]int{
	v1alpha1.ReasonUnauthenticated: http.StatusUnauthorized,
	v1alpha1.ReasonForbidden:       http.StatusForbidden,
	v1alpha1.ReasonNotFound:        http.StatusNotFound,
	v1alpha1.ReasonBadRequest:      http.StatusBadRequest,
	v1alpha1.ReasonKEKUnavailable:  http.StatusServiceUnavailable,
	v1alpha1.ReasonInternal:        http.StatusInternalServerError,
}

// asRefusal turns any error into an answer. What is no refusal of ours is the API server's trouble: its text is for the
// log, the caller gets the kind of it.
func asRefusal(err error) *refusal {
	if r := (*refusal)(nil); errors.As(err, &r) {
		return r
	}
	r := later(v1alpha1.ReasonInternal, 2, "the API server could not be asked; see the keyserver's log")
	switch {
	case apierrors.IsForbidden(err):
		r = later(v1alpha1.ReasonInternal, 5, "the keyserver lacks a right in that namespace; the Tenant's RoleBindings may not be in place yet")
	case apierrors.IsConflict(err), apierrors.IsAlreadyExists(err):
		r = later(v1alpha1.ReasonInternal, 1, "another replica wrote at the same time")
	}
	r.Cause = err
	return r
}

// caller is who asks, as the API server vouches for it.
type caller struct {
	Namespace, ServiceAccount string
	Pod, PodUID               string // of a token that is bound to a pod

	token string // SHA-256 of the token, of one that is bound to a pod
	// review asks the API server about the token; nil: it was asked in this call.
	review func(context.Context) (caller, error)
}

func (c caller) LogValue() slog.Value {
	return slog.StringValue(c.Namespace + "/" + c.ServiceAccount + " " + c.Pod)
}

// handle joins a call's parts: who asks, what for, what it gets; it counts and logs every access, without any value.
func handle[Request, Response any](s *Server, path string, queue *doors.Queue, authenticate authenticator,
	call func(context.Context, caller, *Request) (*Response, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), requestTimeout)
		defer cancel()
		began := s.Clock.Now()
		var req Request
		who, answer, err := work(ctx, s, w, r, &req, queue, authenticate, call)
		if err == nil {
			err = s.give(ctx, w, r, answer)
		}
		took := s.Clock.Since(began)
		if err != nil {
			ref := asRefusal(err)
			s.Metrics.observe(path, ref.Reason, took)
			s.Log.Info("Refused", "path", path, "reason", ref.Reason, "message", ref.Message, "caller", who, "object", describe(&req), "took", took, "cause", ref.Cause)
			writeRefusal(w, r, ref)
			return
		}
		s.Metrics.observe(path, "OK", took)
		s.Log.Info("Answered", "path", path, "caller", who, "object", describe(&req), "took", took)
	})
}

// work does everything but giving the answer: nobody's place is taken up by a body that does not come, nor by an
// answer that is not read. Reports are too large to lie about before it is known whose they are: they take up places
// of their own while they come.
func work[Request, Response any](ctx context.Context, s *Server, w http.ResponseWriter, r *http.Request, req *Request, queue *doors.Queue,
	authenticate authenticator, call func(context.Context, caller, *Request) (*Response, error)) (caller, []byte, error) {
	isReport := queue == s.inFlight.reports
	var body []byte
	var err error
	if !isReport {
		if body, err = read(w, r, maxBody); err != nil {
			return caller{}, nil, err
		}
	}
	who, leave, err := s.enter(ctx, r, queue, authenticate)
	if err != nil {
		return who, nil, err
	}
	defer leave()
	if isReport {
		if body, err = readReport(w, r); err != nil {
			return who, nil, err
		}
	}
	if err := decode(body, req); err != nil {
		return who, nil, err
	}
	resp, err := call(ctx, who, req)
	if err != nil {
		return who, nil, err
	}
	answer, err := json.Marshal(resp)
	if err != nil {
		return who, nil, fmt.Errorf("encode the answer: %w", err)
	}
	return who, answer, nil
}

// give sends an answer. A large one waits for its caller's turn, since a reader that is slow makes it stay in memory.
func (s *Server) give(ctx context.Context, w http.ResponseWriter, r *http.Request, answer []byte) error {
	if len(answer) > maxAnswer {
		return refuse(v1alpha1.ReasonInternal, "the answer is longer than %d bytes", maxAnswer)
	}
	if len(answer) > smallAnswer {
		name := address(r)
		if conn := doors.Of(r.Context()); conn != nil && conn.Name() != "" { //nolint:contextcheck // the request's own, which knows its connection
			name = conn.Name()
		}
		leave, err := turn(ctx, s.inFlight.answers, name)
		if err != nil {
			return err
		}
		defer leave()
	}
	write(w, r, http.StatusOK, answer)
	return nil
}

// describe names what a request of the manager is about; the requests of pods are about themselves.
func describe(req any) string {
	switch r := req.(type) {
	case *keyapi.TenantRequest:
		return refString(r.Tenant)
	case *keyapi.CredentialsRequest:
		return refString(r.Object)
	case *keyapi.RevokeRequest:
		return refString(r.Object)
	case *keyapi.PullSecretsRequest:
		return refString(r.Object)
	case *keyapi.LastReportRequest:
		return refString(r.Object)
	}
	return ""
}

func refString(ref keyapi.ObjectRef) string {
	return fmt.Sprintf("%.63s %.63s/%.253s %.63s", ref.Kind, ref.Namespace, ref.Name, ref.UID)
}

// read gets the whole body of a request; what did not come in time, or is too long, is no request.
func read(w http.ResponseWriter, r *http.Request, most int64) ([]byte, error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, most))
	if err != nil {
		return nil, notARequest()
	}
	return body, nil
}

// readReport is the same for a report. One that did not come in time may have waited for its turn.
func readReport(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if conn := doors.Of(r.Context()); conn != nil {
		conn.Widen(maxReportBody + wireOfReport)
	}
	body, err := read(w, r, maxReportBody)
	if err != nil && r.ContentLength <= maxReportBody {
		return nil, later(v1alpha1.ReasonInternal, 2, "the report did not come in time")
	}
	return body, err
}

// decode reads a body; its text is never repeated in an error.
func decode(body []byte, into any) error {
	if err := json.NewDecoder(bytes.NewReader(body)).Decode(into); err != nil {
		return notARequest()
	}
	return nil
}

func notARequest() *refusal {
	return refuse(v1alpha1.ReasonBadRequest, "the body is not a JSON request of at most %d bytes", maxBody)
}

func writeRefusal(w http.ResponseWriter, req *http.Request, r *refusal) {
	status, ok := statuses[r.Reason]
	if !ok {
		status = http.StatusConflict
	}
	if r.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(r.RetryAfter))
	}
	if status == http.StatusUnauthorized || status == http.StatusBadRequest {
		w.Header().Set("Connection", "close")
	}
	// The last door of an answer: what it was made of may be the words of an object, or of an API server.
	answer := r.Answer
	answer.Message = foreign.Text(answer.Message)
	body, err := json.Marshal(&answer)
	if err != nil {
		body = []byte("{}")
	}
	write(w, req, status, body)
}

// write answers. An anonymous connection ends with its answer: whoever wants to keep one shows a token that counts.
func write(w http.ResponseWriter, r *http.Request, status int, body []byte) {
	if conn := doors.Of(r.Context()); conn != nil && conn.Name() == "" {
		w.Header().Set("Connection", "close")
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	// A client that has gone away is not our error, and there is no answer left to change.
	_, _ = w.Write(body) //nolint:gosec // JSON of our own, and said to be that
}
