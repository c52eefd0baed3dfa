package main

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const auditLine = `{"verb":"VERB","user":{"username":"USER"},"userAgent":"AGENT","objectRef":{"resource":"RESOURCE","subresource":"SUB","namespace":"n","name":"x"},"responseStatus":{"code":201},"requestReceivedTimestamp":"2026-03-02T09:30:00.000000Z","stageTimestamp":"2026-03-02T09:30:00.250000Z"}` + "\n"

func line(verb, user, agent, resource, sub string) string {
	return strings.NewReplacer("VERB", verb, "USER", user, "AGENT", agent, "RESOURCE", resource, "SUB", sub).Replace(auditLine)
}

func TestTheAuditLogIsReadOnFromWhereItWasLeft(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	whole := line("create", managerUser, "lethe-manager/1", "statefulsets", "")
	if err := os.WriteFile(path, []byte(whole+whole[:40]), 0o600); err != nil {
		t.Fatal(err)
	}
	a := &auditLog{path: path}
	first, err := a.next()
	if err != nil || len(first) != 1 {
		t.Fatalf("%d requests, err %v", len(first), err)
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(whole[40:] + whole); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	rest, err := a.next()
	if err != nil || len(rest) != 2 {
		t.Fatalf("after half a line: %d requests, err %v", len(rest), err)
	}
	if !rest[0].child() || rest[0].done.Sub(rest[0].sent) != 250*time.Millisecond {
		t.Errorf("read %+v", rest[0])
	}
}

func TestWhatCountsAsWhat(t *testing.T) {
	type kind struct{ Lethe, Write, Child, Review bool }
	for name, tc := range map[string]struct {
		verb, user, agent, resource, sub string
		want                             kind
	}{
		"a child":                          {"create", managerUser, "lethe-manager/1", "serviceaccounts", "", kind{Lethe: true, Write: true, Child: true}},
		"a child of the keyserver":         {"create", keysUser, "lethe-keyserver/1", "secrets", "", kind{Lethe: true, Write: true, Child: true}},
		"the bare client is not Lethe":     {"create", managerUser, benchAgent + "-floor", "secrets", "", kind{Write: true}},
		"a status is no child":             {"patch", managerUser, "lethe-manager/1", "botdeployments", "status", kind{Lethe: true, Write: true}},
		"an event is a write and no child": {"create", managerUser, "lethe-manager/1", "events", "", kind{Lethe: true, Write: true}},
		"a review stores nothing":          {"create", keysUser, "lethe-keyserver/1", "tokenreviews", "", kind{Lethe: true, Write: true, Review: true}},
		"a read":                           {"get", keysUser, "lethe-keyserver/1", "secrets", "", kind{Lethe: true}},
		"somebody else":                    {"create", "system:serviceaccount:kube-system:statefulset-controller", "kcm", "pods", "", kind{Write: true}},
	} {
		t.Run(name, func(t *testing.T) {
			r := request{verb: tc.verb, user: tc.user, agent: tc.agent, resource: tc.resource, sub: tc.sub, code: 201}
			got := kind{Lethe: r.lethe(), Write: r.write(), Child: r.child(), Review: r.review()}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
	refused := request{verb: "create", user: managerUser, resource: "secrets", code: 409}
	if refused.child() {
		t.Error("a refused create counts as a child")
	}
}

func TestSpan(t *testing.T) {
	at := func(second int) time.Time { return time.Date(2026, 3, 2, 9, 30, second, 0, time.UTC) }
	requests := []request{
		{name: "b", sent: at(5), done: at(9)}, {name: "a", sent: at(3), done: at(4)}, {name: "b", sent: at(2), done: at(6)}, {name: "a", sent: at(7), done: at(8)},
	}
	w := span(requests, func(r request) bool { return r.name == "a" }, func(r request) bool { return r.name == "b" })
	if w.took() != 6*time.Second || w.n != 2 {
		t.Errorf("took %s for %d", w.took(), w.n)
	}
	none := span(requests, func(r request) bool { return r.name == "c" }, func(r request) bool { return true })
	if none.took() != 0 {
		t.Errorf("nothing began, and it took %s", none.took())
	}
}

func TestQueues(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Accept-Encoding") != "" {
			t.Error("asked for packed metrics: packing them costs the manager more than its work")
		}
		_, _ = w.Write([]byte(`# HELP x y
controller_runtime_reconcile_total{controller="botdeployment",result="success"} 7
controller_runtime_reconcile_total{controller="botdeployment",result="error"} 1
controller_runtime_reconcile_total{controller="tenant",result="success"} 3
lethe_queue_depth{controller="tenant"} 2
controller_runtime_active_workers{controller="tenant"} 1
lethe_queue_tenants{controller="tenant"} 99
`))
	}))
	defer server.Close()
	p := &program{metrics: server.URL}
	got, err := p.queues(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got != (queues{bots: 8, passes: 11, waiting: 3}) {
		t.Errorf("read %+v", got)
	}
}

func TestParallelStopsAtTheFirstFailure(t *testing.T) {
	var done atomic.Int32
	broken := errors.New("broken")
	err := parallel(t.Context(), 3, 1000, func(_ context.Context, i int) error {
		if i == 10 {
			return broken
		}
		done.Add(1)
		return nil
	})
	if !errors.Is(err, broken) || done.Load() > 999 {
		t.Errorf("err %v after %d", err, done.Load())
	}
	done.Store(0)
	if err := parallel(t.Context(), 3, 1000, func(context.Context, int) error { done.Add(1); return nil }); err != nil || done.Load() != 1000 {
		t.Errorf("err %v after %d", err, done.Load())
	}
}

func TestResultsEndWithWhatIsAskedFor(t *testing.T) {
	var b strings.Builder
	r := results{bots: 10, floors: []floorRates{{100, 90}, {50, 60}}, rates: floorRates{60, 66}, others: []float64{0, 0.1, 0}, cpu: []float64{1, 2, 1}, restartDrain: 1.234, managerPeak: 51200}
	r.print(&b)
	lines := strings.Split(strings.TrimSpace(b.String()), "\n")
	want := []string{"scale_ratio=0.80", "same_objects_ratio=0.88", "writes_per_bot=0.00", "children_per_bot=0.00", "status_writes_per_bot=0.00", "reconciles_per_bot=0.00",
		"steady_writes=0", "restart_writes=0", "restart_drain_s=1.23", "manager_rss_mib=50.0"}
	if diff := cmp.Diff(want, lines[len(lines)-len(want):]); diff != "" {
		t.Error(diff)
	}
}
