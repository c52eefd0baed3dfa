package keyserver

import (
	"context"
	"net"
	"net/http"

	"k8s.io/utils/clock"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/doors"
	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/internal/resources"
)

// Limits of the door, and of what is worked on behind it. What they cost in memory is added up in
// docs/design/0006-doors.md, and held by TestMemoryUnderAttack.
var (
	// CallLimits are those of the door for calls. The manager's replicas have places of their own.
	// A hundred handshakes take some 3 % of a processor; a node that comes back with 250 pods has them served by two
	// replicas in a second.
	CallLimits = doors.Limits{Anonymous: 256, PerSource: 192, Known: 192, PerName: 32, Reserved: 64,
		Starts: doors.Pace{PerSecond: 100, Burst: 200}, Waiting: 768, WaitingPerSource: 512, Wire: 32 << 10}
	// CallRules are what may be said there: eight small calls, and a report.
	CallRules = doors.Rules{Method: http.MethodPost, Body: maxBody, Head: 8 << 10, Bodies: map[string]int64{keyapi.PathReport: maxReportBody},
		Paths: []string{keyapi.PathTenant, keyapi.PathCredentials, keyapi.PathRevoke, keyapi.PathPullSecrets, keyapi.PathLastReport,
			keyapi.PathUnseal, keyapi.PathLease, keyapi.PathRelease, keyapi.PathReport}}

	// anonymousLimits are for finding out whose a token is, names being addresses. Each costs a question to the API
	// server.
	anonymousLimits = doors.QueueLimits{Places: 32, PerName: 16, Waiting: 256, WaitingPerName: 128}
	managerLimits   = doors.QueueLimits{Places: 16, PerName: 16, Waiting: 64, WaitingPerName: 64}
	// leaseLimits and unsealLimits are apart, so that bots that start do not make sweeps lose their leases, nor the
	// other way round. Names are namespaces.
	leaseLimits = doors.QueueLimits{Places: 12, PerName: 6, Waiting: 256, WaitingPerName: 32}
	// Unsealing costs some ten questions to the API server: one namespace that asks on and on gets ten answers a
	// second.
	unsealLimits = doors.QueueLimits{Places: 12, PerName: 6, Waiting: 256, WaitingPerName: 32, PacePerName: doors.Pace{PerSecond: 10, Burst: 100}}
	// reportLimits are for reports, which are read while they hold a place: so few are in memory, whatever is
	// announced.
	reportLimits = doors.QueueLimits{Places: 8, PerName: 2, Waiting: 256, WaitingPerName: 16}
	// answerLimits are for answers that do not fit into what the kernel buffers, so that slow readers hold up only
	// their own.
	answerLimits = doors.QueueLimits{Places: 16, PerName: 2, Waiting: 16, WaitingPerName: 2}
)

const (
	// smallAnswer fits into what the kernel buffers: writing it waits for nobody.
	smallAnswer = 32 << 10
	// maxAnswer is more than all credentials of one object can have.
	maxAnswer = 512 << 10

	// managerName is the manager's among names of connections, where all others are namespaces.
	managerName = "the manager"
)

// inFlight bounds the requests that are worked on, and lets those that wait take turns.
type inFlight struct {
	anonymous, manager, leases, unseals, reports, answers *doors.Queue
}

func newInFlight() *inFlight {
	queue := func(l doors.QueueLimits) *doors.Queue { return doors.NewQueue(l, clock.RealClock{}) }
	return &inFlight{anonymous: queue(anonymousLimits), manager: queue(managerLimits), leases: queue(leaseLimits),
		unseals: queue(unsealLimits), reports: queue(reportLimits), answers: queue(answerLimits)}
}

// authenticator finds out who asks.
type authenticator func(context.Context, string) (caller, error)

// enter finds out who asks, and waits for that one's turn. A connection that has shown whose it is waits with its own
// kind only: what anonymous callers do, behind the same address or another, does not hold it up. leave must be called
// when the work is done.
func (s *Server) enter(ctx context.Context, r *http.Request, queue *doors.Queue, authenticate authenticator) (who caller, leave func(), err error) {
	conn := doors.Of(r.Context()) //nolint:contextcheck // the request's own, which knows its connection
	known := ""
	if conn != nil {
		known = conn.Name()
	}
	if known != "" && (known == managerName) == (queue == s.inFlight.manager) {
		return s.enterKnown(ctx, r, queue, known, authenticate)
	}
	out, err := turn(ctx, s.inFlight.anonymous, address(r))
	if err != nil {
		return caller{}, nil, err
	}
	who, err = authenticate(ctx, r.Header.Get("Authorization"))
	out()
	if err != nil {
		return who, nil, err
	}
	name := s.nameOf(who)
	if conn != nil {
		// One whose namespace has its share stays anonymous, whose connection ends with the answer.
		conn.Prove(name, name == managerName)
	}
	leave, err = turn(ctx, queue, name)
	return who, leave, err
}

// enterKnown takes the connection's word for whose turn it is, and still asks about the token each time.
func (s *Server) enterKnown(ctx context.Context, r *http.Request, queue *doors.Queue, name string, authenticate authenticator) (caller, func(), error) {
	leave, err := turn(ctx, queue, name)
	if err != nil {
		return caller{}, nil, err
	}
	who, err := authenticate(ctx, r.Header.Get("Authorization"))
	if err == nil && s.nameOf(who) != name {
		err = refuse(v1alpha1.ReasonForbidden, "this connection has been used with the token of another namespace")
	}
	if err != nil {
		leave()
		return who, nil, err
	}
	return who, leave, nil
}

func (s *Server) nameOf(who caller) string {
	if who.Namespace == s.Settings.Namespace && who.ServiceAccount == resources.ServiceAccountManager {
		return managerName
	}
	return who.Namespace
}

func turn(ctx context.Context, q *doors.Queue, name string) (func(), error) {
	leave, err := q.Enter(ctx, name)
	if err != nil {
		return nil, later(v1alpha1.ReasonInternal, 2, "too many requests at a time")
	}
	return leave, nil
}

// address that a request came from.
func address(r *http.Request) string {
	if conn := doors.Of(r.Context()); conn != nil {
		return conn.Source()
	}
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}
