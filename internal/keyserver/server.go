package keyserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"regexp"
	"sync"
	"time"

	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/authority"
	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/internal/keystore"
	"github.com/lethe-dev/lethe/internal/memo"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/internal/sealing"
)

// Limits of one request.
const (
	maxBody = keyapi.MaxRequest
	// maxReportBody is a packed report in base64, and what is around it; TLS adds less than wireOfReport to that.
	maxReportBody  = keyapi.MaxPackedReport/3*4 + 1<<10
	wireOfReport   = 8 << 10
	requestTimeout = 15 * time.Second
)

// Grades of a key-encryption key.
const (
	GradeProduction = "Production" // a file on a volume of its own
	GradeEvaluation = "Evaluation" // a Secret of the same etcd: a snapshot of etcd opens everything
)

// Options of a Server. All are needed but those that say otherwise.
type Options struct {
	// Client reads live: one without a cache.
	Client client.Client
	// Watch is the same, and can watch: WatchTenants follows all Tenants by it. Without it every renewal of a lease
	// reads all of them.
	Watch client.WithWatch
	// KEK is the key-encryption key, and KEKPrevious are those of before, while anything may be under them.
	KEK         sealing.Key
	KEKPrevious []sealing.Key
	// KEKGrade is Production or Evaluation.
	KEKGrade string
	// Realm is bound into everything: a DNS label chosen at installation.
	Realm string
	// KeysNamespace holds the keys.
	KeysNamespace string
	// Hosts are the names that the server's certificate is for.
	Hosts []string
	// Settings are those that the manager renders pods with.
	Settings resources.Settings
	// PreviousImages of Lethe, each by its digest (REPOSITORY@sha256:...): pods that were made with one of them still
	// get their credentials. May be empty.
	PreviousImages []string
	Clock          clock.PassiveClock
	Random         io.Reader
	Log            *slog.Logger
	Metrics        *Metrics
}

// Server answers the calls of package protocol.
type Server struct {
	Options
	keys      *keystore.Store
	authority *authority.Authority
	tenants   *memo.Memo[*v1alpha1.Tenant] // by namespace
	managers  *memo.Memo[struct{}]         // by SHA-256 of the token
	plans     *memo.Memo[*madePlan]        // by UID of the store
	standings *memo.Memo[*standing]        // by SHA-256 of the token
	everybody *everybody
	inFlight  *inFlight

	channelMu sync.Mutex
	// channelsSwept is when holders were last looked for that are gone.
	channelsSwept time.Time

	rotation rotation
	orphans  orphans
}

// New makes a server; it asks nothing of the cluster yet.
func New(o Options) (*Server, error) {
	switch {
	case o.Client == nil || o.Clock == nil || o.Random == nil || o.Log == nil || o.Metrics == nil:
		return nil, errors.New("keyserver: client, clock, randomness, log and metrics are needed")
	case o.KEK.KID() == "":
		return nil, errors.New("keyserver: a key-encryption key is needed")
	case o.KEKGrade != GradeProduction && o.KEKGrade != GradeEvaluation:
		return nil, errors.New("keyserver: the grade of the key-encryption key must be Production or Evaluation")
	case o.Realm == "" || len(o.Realm) > 63:
		return nil, errors.New("keyserver: a realm of 1 to 63 characters is needed")
	case o.KeysNamespace == "" || len(o.Hosts) == 0:
		return nil, errors.New("keyserver: the keys' namespace and the server's names are needed")
	}
	if err := o.Settings.Validate(); err != nil {
		return nil, err
	}
	for _, image := range o.PreviousImages {
		if !isPinned(image) {
			return nil, fmt.Errorf("--previous-image %q is not of the form REPOSITORY@sha256:<64 hex digits>: a tag may come to mean another image", image)
		}
	}
	keys, err := keystore.New(keystore.Options{Client: o.Client, KEK: o.KEK, KEKPrevious: o.KEKPrevious, Realm: o.Realm, KeysNamespace: o.KeysNamespace,
		Clock: o.Clock, Random: o.Random, Log: o.Log, KEKChecked: o.Metrics.kekChecked})
	if err != nil {
		return nil, err
	}
	s := &Server{Options: o, keys: keys, inFlight: newInFlight()}
	s.tenants = memo.New[*v1alpha1.Tenant](o.Clock, tenantMemory)
	s.managers = memo.New[struct{}](o.Clock, managerMemory)
	s.plans = memo.New[*madePlan](o.Clock, planMemory)
	s.standings = memo.New[*standing](o.Clock, standingMemory)
	s.everybody = newEverybody(o.Watch, o.Clock)
	s.authority = authority.New(authority.Options{Keys: keys, Hosts: o.Hosts, Namespace: o.Settings.Namespace, Ends: o.Metrics.certificateEnds})
	return s, nil
}

// pinned is an image by its digest.
var pinned = regexp.MustCompile(`^[^@\s]+@sha256:[0-9a-f]{64}$`)

func isPinned(image string) bool {
	return pinned.MatchString(image) && resources.CheckImage(image) == nil
}

// Authority makes the server's certificates.
func (s *Server) Authority() *authority.Authority { return s.authority }

// Maintain checks the key-encryption key and keeps the certificates and their bundle up to date. It is called at the
// start and every minute; when nothing is due it only reads.
func (s *Server) Maintain(ctx context.Context) error {
	if err := s.keys.CheckKEK(ctx); err != nil {
		return err
	}
	s.tenants.Sweep()
	s.managers.Sweep()
	s.plans.Sweep()
	s.standings.Sweep()
	s.Metrics.tenantKeys.Set(float64(s.keys.SweepMemory()))
	return errors.Join(s.authority.Maintain(ctx), s.maintainReportKey(ctx), s.maintainChannels(ctx), s.endGrace(ctx), s.sweepOrphans(ctx))
}

// endGrace destroys the keys whose grace is over, and those that are a live Tenant's again, and counts the others.
func (s *Server) endGrace(ctx context.Context) error {
	count, ended, err := s.keys.GraceOf(ctx)
	if err != nil {
		return err
	}
	s.Metrics.pending.Set(float64(count))
	return s.keys.EndGrace(ctx, ended)
}

// Ready says whether calls can be answered now: the key-encryption key opens its canary and there is a certificate.
func (s *Server) Ready(ctx context.Context) error {
	if err := s.keys.KEKUsable(ctx); err != nil {
		return err
	}
	if err := s.keys.HoldsEveryKEK(); err != nil {
		return err
	}
	return s.authority.Ready()
}

// Handler serves the calls.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("POST "+keyapi.PathTenant, handle(s, keyapi.PathTenant, s.inFlight.manager, s.forManager, s.tenant))
	mux.Handle("POST "+keyapi.PathCredentials, handle(s, keyapi.PathCredentials, s.inFlight.manager, s.forManager, s.credentials))
	mux.Handle("POST "+keyapi.PathRevoke, handle(s, keyapi.PathRevoke, s.inFlight.manager, s.forManager, s.revoke))
	mux.Handle("POST "+keyapi.PathPullSecrets, handle(s, keyapi.PathPullSecrets, s.inFlight.manager, s.forManager, s.pullSecrets))
	mux.Handle("POST "+keyapi.PathUnseal, handle(s, keyapi.PathUnseal, s.inFlight.unseals, s.forPod, s.unseal))
	mux.Handle("POST "+keyapi.PathLease, handle(s, keyapi.PathLease, s.inFlight.leases, s.forSweep, s.lease))
	mux.Handle("POST "+keyapi.PathRelease, handle(s, keyapi.PathRelease, s.inFlight.leases, s.forPod, s.release))
	mux.Handle("POST "+keyapi.PathReport, handle(s, keyapi.PathReport, s.inFlight.reports, s.forPod, s.report))
	mux.Handle("POST "+keyapi.PathLastReport, handle(s, keyapi.PathLastReport, s.inFlight.manager, s.forManager, s.lastReport))
	return mux
}
