package doors

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"time"
)

// Times. A request is small and its caller near, so all of it comes at once or something is wrong.
const (
	headTimeout  = 5 * time.Second  // handshake, and a request's head
	readTimeout  = 10 * time.Second // a request
	writeTimeout = 30 * time.Second // from a request's head to the end of its answer
	idleTimeout  = 75 * time.Second // between two requests; longer than our clients keep a connection idle
	lifetime     = 10 * time.Minute // then the next answer is the connection's last
)

// ObserverLimits are those of a door for probes and metrics: few ask, all of them small things, and none says who it
// is.
var ObserverLimits = Limits{Anonymous: 32, PerSource: 24, Starts: Pace{PerSecond: 50, Burst: 50}, Waiting: 64, WaitingPerSource: 48, Wire: 16 << 10}

// ObserverRules are those of such a door.
func ObserverRules(paths ...string) Rules {
	return Rules{Method: http.MethodGet, Head: 4 << 10, Paths: paths}
}

// Rules of what may be said over a connection.
type Rules struct {
	// Method and Paths are all that is served.
	Method string
	Paths  []string
	// Body is the most that a request may have: it is announced, and not sent in chunks. 0 takes none.
	Body int64
	// Bodies is the same for single paths. Who serves them lets the connection read more (Widen) once it knows for
	// whom.
	Bodies map[string]int64
	// Head is the most that a request's head may have.
	Head int
}

type connKey struct{}

// Of is the connection that a request came over, nil where it came through no door.
func Of(ctx context.Context) *Conn {
	c, _ := ctx.Value(connKey{}).(*Conn)
	return c
}

// NewServer is HTTP/1.1 and nothing else: no HTTP/2, neither asked for in TLS nor in clear, no upgrades, no chunks, no
// trailers, no waiting for leave to send. TLS, where there is any, is 1.3.
func NewServer(handler http.Handler, rules Rules, config *tls.Config, log *slog.Logger) *http.Server {
	protocols := &http.Protocols{}
	protocols.SetHTTP1(true)
	if config != nil {
		config = config.Clone()
		config.MinVersion = tls.VersionTLS13
		config.NextProtos = []string{"http/1.1"}
		config.SessionTicketsDisabled = true
	}
	return &http.Server{
		Handler: only(handler, rules), Protocols: protocols, TLSConfig: config, TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){},
		ReadHeaderTimeout: headTimeout, ReadTimeout: readTimeout, WriteTimeout: writeTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: rules.Head,
		ConnContext: withConn,
		// Anonymous callers make mistakes as fast as they like: they are counted, and told at the level of debugging
		// only.
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}

func withConn(ctx context.Context, c net.Conn) context.Context {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	if own, ok := c.(*Conn); ok {
		return context.WithValue(ctx, connKey{}, own)
	}
	return ctx
}

// only serves what the rules name; everything else gets a short answer and the end of the connection.
func only(next http.Handler, rules Rules) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := Of(r.Context())
		if c != nil {
			c.begin()
			defer c.end()
			if c.age() > lifetime {
				w.Header().Set("Connection", "close")
			}
		}
		if status := rules.refuse(r); status != 0 {
			w.Header().Set("Connection", "close")
			// What was announced is not waited for.
			_ = http.NewResponseController(w).SetReadDeadline(time.Unix(1, 0))
			w.WriteHeader(status)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// refuse is the status of a request that is not served, 0 of one that is.
func (rules Rules) refuse(r *http.Request) int {
	switch {
	case r.ProtoMajor != 1 || r.ProtoMinor != 1:
		return http.StatusHTTPVersionNotSupported
	case !slices.Contains(rules.Paths, r.URL.Path) || r.URL.IsAbs() || r.URL.Opaque != "":
		return http.StatusNotFound
	case r.Method != rules.Method:
		return http.StatusMethodNotAllowed
	case r.Header.Get("Expect") != "":
		return http.StatusExpectationFailed
	case len(r.TransferEncoding) > 0 || r.ContentLength < 0 || len(r.Trailer) > 0:
		return http.StatusLengthRequired
	case r.Header.Get("Upgrade") != "":
		return http.StatusBadRequest
	case r.ContentLength > max(rules.Body, rules.Bodies[r.URL.Path]):
		return http.StatusRequestEntityTooLarge
	}
	return 0
}
