// Package lease is a stand-in for the keyserver that only gives leases and takes reports, over TLS and by the real
// protocol, so that the real sweeper can run without Kubernetes.
package lease

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/internal/keyclient"
	"github.com/lethe-dev/lethe/internal/ledger"
	"github.com/lethe-dev/lethe/internal/plan"
	"github.com/lethe-dev/lethe/internal/sealing"
)

const podUID = "pod-uid"

// Server gives leases and the password until Answer says otherwise. Set its fields before the first call.
type Server struct {
	URL       string
	CAFile    string
	TokenFile string

	Password string
	Seconds  int                            // length of a lease
	Answer   func(first bool) *keyapi.Error // nil: yes
	// After, if set, may take back the answer to a request that was granted and booked.
	After func(*keyapi.LeaseRequest) *keyapi.Error
	// Ledger is the account; a new one is two hours old.
	Ledger *ledger.Ledger
	// Clock by which approvals are good. Default: the machine's.
	Clock func() time.Time
	// Lost has the account said to be lost.
	Lost bool
	// Known are identifiers of known tenants, beside those of the plan that By names. Unnamed has the store taken for
	// a Dedicated one, and Digest, if set, is said in place of the list's own.
	Known   []string
	Unnamed bool
	Digest  string
	// Others are credentials of the store beside its password, by name.
	Others map[string]string
	// Approved is where in its life a person approved the database, and when.
	Approved func() (point keyapi.Point, at time.Time, ok bool)

	// Refuse, if set, may refuse a report before it is taken, and Lose the answer to one that was.
	Refuse, Lose func() *keyapi.Error

	// Whose is what the statement about a report says of it; the report's digest and its number are added.
	Whose ledger.Statement

	report          []byte // the last one that was taken
	reports         int64
	mu              sync.Mutex
	plan            *plan.Plan
	asked, released int
	http            *httptest.Server
}

// Start serves from a free port on loopback. dir takes the files that a caller needs.
func Start(dir, password string) (*Server, error) {
	s := &Server{Password: password, Seconds: 30, Clock: time.Now, Ledger: ledger.New(time.Now().Add(-2 * time.Hour)), CAFile: filepath.Join(dir, "ca.crt"), TokenFile: filepath.Join(dir, "token")}
	s.http = httptest.NewTLSServer(http.HandlerFunc(s.serve))
	s.URL = s.http.URL
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.http.Certificate().Raw})
	claims := base64.RawURLEncoding.EncodeToString([]byte(`{"kubernetes.io":{"pod":{"uid":"` + podUID + `"}}}`))
	for path, b := range map[string][]byte{s.CAFile: ca, s.TokenFile: []byte("e30." + claims + ".c2ln")} {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			s.Close()
			return nil, fmt.Errorf("write the caller's files: %w", err)
		}
	}
	return s, nil
}

// Close ends the server.
func (s *Server) Close() { s.http.Close() }

// Client is a real client of the server.
func (s *Server) Client() (*keyclient.Client, error) {
	return keyclient.New(keyclient.Options{URL: s.URL, CAFile: s.CAFile, TokenFile: s.TokenFile})
}

// Count returns how often a lease was asked for and released.
func (s *Server) Count() (asked, released int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked, s.released
}

// By has an account kept of what sweeps by this plan use; without one nothing is.
func (s *Server) By(p *plan.Plan) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.plan = p
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	status, answer := s.answer(r)
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(answer) // a caller that was killed reads no answer
}

func (s *Server) answer(r *http.Request) (int, any) {
	if r.URL.Path == keyapi.PathRelease {
		s.released++
		return http.StatusOK, struct{}{}
	}
	switch r.URL.Path {
	case keyapi.PathReport:
		return s.takeReport(r)
	case keyapi.PathLastReport:
		return s.lastReport()
	}
	var req keyapi.LeaseRequest
	body, err := io.ReadAll(io.LimitReader(r.Body, keyapi.MaxRequest+1))
	if len(body) > keyapi.MaxRequest {
		return http.StatusRequestEntityTooLarge, keyapi.Error{Reason: v1alpha1.ReasonBadRequest}
	}
	if err == nil {
		err = json.Unmarshal(body, &req)
	}
	if err != nil || r.URL.Path != keyapi.PathLease {
		return http.StatusBadRequest, keyapi.Error{Reason: v1alpha1.ReasonBadRequest}
	}
	s.asked++
	if s.Answer != nil {
		if no := s.Answer(req.PublicKey != ""); no != nil {
			return http.StatusForbidden, no
		}
	}
	account, no := s.book(&req)
	if no == nil && s.After != nil {
		no = s.After(&req)
	}
	if no != nil {
		return http.StatusForbidden, no
	}
	resp := keyapi.LeaseResponse{Expires: time.Now().Add(time.Duration(s.Seconds) * time.Second), Seconds: s.Seconds}
	if !s.Unnamed {
		known := s.known()
		resp.KnownDigest, resp.Known = cmp.Or(s.Digest, plan.DigestOf(known)), keyapi.KnownPage(known, req.KnownFrom)
	}
	if req.PublicKey != "" {
		resp.Account = account
		var err error
		if resp.Sealed, err = s.seal(req.PublicKey); err != nil {
			return http.StatusBadRequest, keyapi.Error{Reason: v1alpha1.ReasonBadRequest, Message: err.Error()}
		}
	}
	return http.StatusOK, resp
}

// takeReport takes one, of whoever asks.
func (s *Server) takeReport(r *http.Request) (int, any) {
	var req keyapi.ReportRequest
	if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
		return http.StatusBadRequest, keyapi.Error{Reason: v1alpha1.ReasonBadRequest}
	}
	canonical, err := keyapi.UnpackReport(req.Report)
	if err != nil {
		return http.StatusBadRequest, keyapi.Error{Reason: v1alpha1.ReasonBadRequest, Message: err.Error()}
	}
	if s.Refuse != nil {
		if no := s.Refuse(); no != nil {
			return http.StatusForbidden, no
		}
	}
	if !bytes.Equal(canonical, s.report) {
		s.report, s.reports = canonical, s.reports+1
	}
	if s.Lose != nil {
		if no := s.Lose(); no != nil {
			return http.StatusForbidden, no
		}
	}
	return http.StatusOK, keyapi.ReportResponse{Digest: keyapi.DigestReport(canonical), Sequence: s.reports}
}

// lastReport answers with the last one, whoever asks, and about whichever store.
func (s *Server) lastReport() (int, any) {
	if s.reports == 0 {
		return http.StatusOK, keyapi.LastReportResponse{}
	}
	statement := s.Whose
	statement.Sequence, statement.Report = s.Whose.Sequence+s.reports, ""
	answer, _, err := Signed(statement, s.report)
	if err != nil {
		return http.StatusBadRequest, keyapi.Error{Reason: v1alpha1.ReasonBadRequest, Message: err.Error()}
	}
	return http.StatusOK, answer
}

// Report is the last one that was taken, and how many were.
func (s *Server) Report() (canonical []byte, taken int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.report, s.reports
}

func (s *Server) known() []string {
	out := slices.Clone(s.Known)
	if s.plan != nil {
		out = append(out, s.plan.Identifiers()...)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// book enters into the account what a sweep asks and tells, as the keyserver does.
func (s *Server) book(req *keyapi.LeaseRequest) (*keyapi.Account, *keyapi.Error) {
	if s.plan == nil {
		return nil, nil
	}
	now := s.Clock()
	if s.Approved != nil {
		if point, at, ok := s.Approved(); ok {
			s.Ledger.Approve(point, at, now)
		}
	}
	if err := s.Ledger.Spend(*s.plan, req.Spend, now); err != nil {
		return nil, &keyapi.Error{Reason: v1alpha1.ReasonBacklogSpent, Message: err.Error()}
	}
	s.Ledger.Note(*s.plan, req, now)
	account := s.Ledger.Account(*s.plan, now)
	account.Lost = s.Lost
	return account, nil
}

// Used rows of a dataset's permit, by the account.
func (s *Server) Used(dataset string) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.Ledger.Used[dataset].Rows
}

func (s *Server) seal(public string) (string, error) {
	pub, err := sealing.ParsePublicKey(sealing.Suite, public)
	if err != nil {
		return "", err
	}
	bundle := keyapi.SecretBundle{Items: []keyapi.SecretItem{{Name: sealing.PasswordKey, Value: []byte(s.Password)}}}
	for name, value := range s.Others {
		bundle.Items = append(bundle.Items, keyapi.SecretItem{Name: name, Value: []byte(value)})
	}
	b, err := json.Marshal(bundle)
	if err != nil {
		return "", fmt.Errorf("encode the bundle: %w", err)
	}
	return sealing.SealReply(pub, keyapi.PathLease, podUID, b)
}
