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
	"github.com/lethe-dev/lethe/internal/protocol"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/internal/sealing"
)

// Limits of one request.
const (
	maxBody        = 8 << 10
	requestTimeout = 15 * time.Second
)

// Options of a Server. All are needed but those that say otherwise.
type Options struct {
	// Client reads live: one without a cache.
	Client client.Client
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
	// PreviousImages of Lethe, each by its digest (REPOSITORY@sha256:...): pods that were made with one of them still get
	// their credentials. May be empty.
	PreviousImages []string
	Clock          clock.PassiveClock
	Random         io.Reader
	Log            *slog.Logger
	Metrics        *Metrics

	ring *kekRing // New makes it; shared by all parts of a server
}

// Server answers the calls of package protocol.
type Server struct {
	Options
	authority *Authority
	tenants   *memo[*v1alpha1.Tenant] // by namespace
	keys      *memo[*tenantKeys]      // by UID of the tenant
	managers  *memo[struct{}]         // by SHA-256 of the token
	inFlight  *inFlight

	uidsMu    sync.Mutex
	uidsFloor int64 // behind every user id that is known to have been given; 0 while that was not looked for
	channelMu sync.Mutex
	// channelsSwept is when holders were last looked for that are gone.
	channelsSwept time.Time
	channel       sealing.Key // digests channels' identities; the zero Key before it was read

	kekMu      sync.Mutex
	kekChecked time.Time
	kekErr     error
	kekMissing string // an earlier key that is still needed and not here

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
	var err error
	if o.ring, err = newKEKRing(o); err != nil {
		return nil, err
	}
	s := &Server{Options: o, inFlight: newInFlight()}
	s.tenants = newMemo[*v1alpha1.Tenant](o.Clock, tenantMemory)
	s.keys = newMemo[*tenantKeys](o.Clock, keyMemory)
	s.managers = newMemo[struct{}](o.Clock, managerMemory)
	s.authority = newAuthority(o)
	return s, nil
}

// pinned is an image by its digest.
var pinned = regexp.MustCompile(`^[^@\s]+@sha256:[0-9a-f]{64}$`)

func isPinned(image string) bool {
	return pinned.MatchString(image) && resources.CheckImage(image) == nil
}

// Authority makes the server's certificates.
func (s *Server) Authority() *Authority { return s.authority }

// Maintain checks the key-encryption key and keeps the certificates and their bundle up to date. It is called at the
// start and every minute; when nothing is due it only reads.
func (s *Server) Maintain(ctx context.Context) error {
	if err := s.checkKEK(ctx); err != nil {
		return err
	}
	s.keys.sweep()
	s.tenants.sweep()
	s.managers.sweep()
	s.Metrics.tenantKeys.Set(float64(s.keys.len()))
	return errors.Join(s.authority.Maintain(ctx), s.maintainChannels(ctx), s.endGrace(ctx), s.sweepOrphans(ctx))
}

// Ready says whether calls can be answered now: the key-encryption key opens its canary and there is a certificate.
func (s *Server) Ready(ctx context.Context) error {
	if err := s.kekUsable(ctx); err != nil {
		return err
	}
	if err := s.holdsEveryKEK(); err != nil {
		return err
	}
	return s.authority.ready()
}

// Handler serves the calls.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("POST "+protocol.PathTenant, handle(s, protocol.PathTenant, s.inFlight.manager, s.forManager, s.tenant))
	mux.Handle("POST "+protocol.PathCredentials, handle(s, protocol.PathCredentials, s.inFlight.manager, s.forManager, s.credentials))
	mux.Handle("POST "+protocol.PathRevoke, handle(s, protocol.PathRevoke, s.inFlight.manager, s.forManager, s.revoke))
	mux.Handle("POST "+protocol.PathPullSecrets, handle(s, protocol.PathPullSecrets, s.inFlight.manager, s.forManager, s.pullSecrets))
	mux.Handle("POST "+protocol.PathUnseal, handle(s, protocol.PathUnseal, s.inFlight.unseals, s.forPod, s.unseal))
	mux.Handle("POST "+protocol.PathLease, handle(s, protocol.PathLease, s.inFlight.leases, s.forPod, s.lease))
	mux.Handle("POST "+protocol.PathRelease, handle(s, protocol.PathRelease, s.inFlight.leases, s.forPod, s.release))
	return mux
}
