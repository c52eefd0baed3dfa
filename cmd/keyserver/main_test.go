package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/doors"
	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/internal/keyclient"
	"github.com/lethe-dev/lethe/internal/keyserver"
	"github.com/lethe-dev/lethe/internal/keystore"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/internal/sealing"
	"github.com/lethe-dev/lethe/test/env"
	"github.com/lethe-dev/lethe/test/metricspage"
)

func TestFlags(t *testing.T) {
	good := []string{"--image=lethe:1", "--realm=prod", "--kek-file=/kek"}
	o, err := parse(good)
	if err != nil || o.kekGrade != keyserver.GradeProduction || o.listen != ":8443" || o.keysNamespace != "lethe-keys" {
		t.Errorf("got %+v, %v", o, err)
	}
	for i := range good {
		name, _, _ := strings.Cut(good[i], "=")
		if _, err := parse(slices.Delete(slices.Clone(good), i, i+1)); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("without %s: %v", name, err)
		}
	}
	for _, more := range []string{"--kek-grade=Best", "extra", "--kek-file-previous=", "--unknown", "--memory-limit=1000", "--memory-limit=-1", "--v=2", "--v=-1", "--realm=" + strings.Repeat("r", 64)} {
		if _, err := parse(append(slices.Clone(good), more)); err == nil {
			t.Errorf("accepted %s", more)
		}
	}
	if o, err := parse(append(slices.Clone(good), "--kek-file-previous=/a", "--kek-file-previous=/b")); err != nil || !slices.Equal(o.kekPrevious, []string{"/a", "/b"}) {
		t.Errorf("key-encryption keys of before: %q, %v", o.kekPrevious, err)
	}
	if _, _, err := loadKEKs(options{kekFile: "/nowhere"}); err == nil || !strings.Contains(err.Error(), "--kek-file") {
		t.Errorf("no file: %v", err)
	}
	want := []string{"lethe-keyserver.lethe-system.svc", "lethe-keyserver.lethe-system.svc.cluster.local"}
	if got := hosts(o.settings); !slices.Equal(got, want) {
		t.Errorf("names %v", got)
	}
	o.settings.KeyserverURL = "https://keys.example:443"
	if got := hosts(o.settings); !slices.Contains(got, "keys.example") {
		t.Errorf("names %v", got)
	}
}

// TestServe runs the program as it is, but for its flags, and asks it as the manager would.
func TestServe(t *testing.T) {
	e := env.Start(t)
	kube, err := newClient(e.ServiceAccountConfig("lethe-system", "lethe-keyserver"))
	if err != nil {
		t.Fatal(err)
	}
	kekFile := filepath.Join(t.TempDir(), "kek")
	if err := os.WriteFile(kekFile, []byte("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	kek, err := keystore.LoadKEK(kekFile)
	if err != nil {
		t.Fatal(err)
	}
	registry, metrics, doorMetrics, err := newRegistry()
	if err != nil {
		t.Fatal(err)
	}
	d, err := listen(t.Context(), options{listen: "127.0.0.1:0", health: "127.0.0.1:0", metrics: "127.0.0.1:0"}, doorMetrics)
	if err != nil {
		t.Fatal(err)
	}
	settings := resources.DefaultSettings()
	settings.Image, settings.KeyserverURL = "lethe:1", "https://"+d.calls.Addr().String()
	var logged bytes.Buffer
	log := slog.New(slog.NewJSONHandler(&logged, nil))
	server, err := keyserver.New(keyserver.Options{Client: kube, KEK: kek, KEKGrade: keyserver.GradeEvaluation, Realm: "test", KeysNamespace: env.KeysNamespace,
		Hosts: hosts(settings), Settings: settings, Clock: clock.RealClock{}, Random: rand.Reader, Log: log, Metrics: metrics})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- serve(ctx, log, d, server, registry) }()

	await(t, func() bool { status, _ := get(t, d.health, "/readyz"); return status == http.StatusOK })
	if status, _ := get(t, d.health, "/healthz"); status != http.StatusOK {
		t.Errorf("/healthz answers %d", status)
	}
	tenant := &v1alpha1.Tenant{Spec: v1alpha1.TenantSpec{Namespaces: []v1alpha1.TenantNamespace{{Name: "acme-bots"}}}}
	tenant.Name = "acme"
	if err := e.Client.Create(ctx, tenant); err != nil {
		t.Fatal(err)
	}
	tokenFile := filepath.Join(t.TempDir(), "token")
	token, err := e.Token(ctx, "lethe-system", resources.ServiceAccountManager, v1alpha1.AudienceKeyserver, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(tokenFile, []byte(token), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := keyclient.New(keyclient.Options{URL: settings.KeyserverURL, TokenFile: tokenFile, CA: func(ctx context.Context) ([]byte, error) {
		var cm corev1.ConfigMap
		err := e.Client.Get(ctx, client.ObjectKey{Namespace: "lethe-system", Name: resources.CABundleName}, &cm)
		return []byte(cm.Data[resources.CABundleKey]), err
	}})
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.Tenant(ctx, keyapi.ObjectRef{Kind: "Tenant", Name: "acme", UID: string(tenant.UID)})
	if err != nil || len(resp.SealingKeys) != 1 || resp.KEKGrade != keyserver.GradeEvaluation {
		t.Fatalf("answered %+v, %v", resp, err)
	}
	if _, err := sealing.ParsePublicKey(resp.SealingKeys[0].Suite, resp.SealingKeys[0].Public); err != nil {
		t.Error(err)
	}
	err = c.Revoke(ctx, keyapi.ObjectRef{Kind: "Tenant", Name: "acme", UID: string(tenant.UID)})
	if keyclient.ReasonOf(err) != v1alpha1.ReasonForbidden || keyclient.IsRetryable(err) {
		t.Errorf("revoking a live tenant: %v", err)
	}
	_, text := get(t, d.metrics, "/metrics")
	metricspage.Check(t, "The keyserver", registry, text)
	if _, body := get(t, d.metrics, "/metrics"); !strings.Contains(body, `lethe_keyserver_requests_total{path="/v1/tenant",reason="OK"} 1`) ||
		!strings.Contains(body, "lethe_keyserver_kek_usable 1") || !strings.Contains(body, `certificate_expiry_timestamp_seconds{certificate="leaf"}`) ||
		!strings.Contains(body, `lethe_keyserver_connections{door="calls",state="Reserved"} 1`) {
		t.Errorf("the metrics are\n%s", body)
	}
	stop()
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("ended with %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("does not stop")
	}
	if strings.Contains(logged.String(), token) || !strings.Contains(logged.String(), `"path":"/v1/tenant"`) {
		t.Error("the log holds the token, or no line of the access")
	}
}

func newDoorMetrics(t *testing.T, registry *prometheus.Registry) *doors.Metrics {
	t.Helper()
	m, err := doors.NewMetrics("lethe_keyserver", registry)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func await(t *testing.T, ok func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for !ok() {
		select {
		case <-deadline:
			t.Fatal("not within twenty seconds")
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func get(t *testing.T, l net.Listener, path string) (int, string) {
	t.Helper()
	resp, err := http.Get("http://" + l.Addr().String() + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

func TestListenRefuses(t *testing.T) {
	d, err := listen(t.Context(), options{listen: "127.0.0.1:0", health: "127.0.0.1:0", metrics: "0"}, newDoorMetrics(t, prometheus.NewRegistry()))
	if err != nil || d.metrics != nil {
		t.Fatalf("metrics %v, %v", d.metrics, err)
	}
	taken := d.calls.Addr().String()
	for name, o := range map[string]options{"calls": {listen: taken}, "probes": {listen: "127.0.0.1:0", health: taken}, "metrics": {listen: "127.0.0.1:0", health: "127.0.0.1:0", metrics: taken}} {
		if _, err := listen(t.Context(), o, newDoorMetrics(t, prometheus.NewRegistry())); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := errors.Join(d.calls.Close(), d.health.Close()); err != nil {
		t.Error(err)
	}
}
