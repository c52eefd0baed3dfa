package main

import (
	"crypto/tls"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/lethe-dev/lethe/test/env"
	"github.com/lethe-dev/lethe/test/hostile"
)

func TestMain(m *testing.M) {
	if hostile.IsProcess() {
		main()
		return
	}
	os.Exit(m.Run())
}

// TestForeignWordsInTheLogOfTheManager runs the program as it is shipped against an API server that says which kinds
// it has, and otherwise what was planted: what controllers, caches, leader election and klog log is clean.
func TestForeignWordsInTheLogOfTheManager(t *testing.T) {
	e := env.Start(t)
	real, err := url.Parse("https://" + strings.TrimPrefix(e.Config.Host, "https://"))
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := tls.X509KeyPair(e.Config.CertData, e.Config.KeyData)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(real)
	proxy.Transport = &http.Transport{TLSClientConfig: &tls.Config{Certificates: []tls.Certificate{certificate}, InsecureSkipVerify: true}}
	var started atomic.Bool
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
		// Without the API server's own addresses the manager does not start.
		addresses := started.Load() && r.URL.Path == "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes"
		if r.Method == http.MethodGet && (addresses || len(parts) <= map[string]int{"api": 2, "apis": 3}[parts[0]]) {
			proxy.ServeHTTP(w, r)
			return
		}
		hostile.Refuse(w, []int{http.StatusForbidden, http.StatusUnprocessableEntity}[len(r.URL.Path)%2])
	}))
	defer api.Close()
	config := []string{"KUBECONFIG=" + hostile.Kubeconfig(t, api.URL)}
	manager := []string{"--image=lethe:1", "--metrics-bind-address=0", "--health-probe-bind-address=0", "-v=4"}
	p := hostile.Start(t, config, manager...)
	if code := p.Wait(); code == 0 {
		t.Error("the manager started without knowing the API server's addresses")
	}
	hostile.Check(t, "what kept it from starting", p.Shown())
	hostile.Reached(t, "what kept it from starting", p.Shown())

	started.Store(true)
	p = hostile.Start(t, config, manager...)
	p.Until(`"msg":"Starting"`, "Failed to watch", hostile.Mark)
	p.Kill()
	hostile.Check(t, "the log", p.Shown())
	for line := range strings.Lines(p.Shown()) {
		if !strings.HasPrefix(line, "{") {
			t.Errorf("somebody logs by itself: %s", line)
		}
		if strings.Contains(line, "Body") {
			t.Errorf("bodies are logged: %.300s", line)
		}
	}
	for what, args := range map[string][]string{
		"check-uninstall": {"check-uninstall"},
		"a flag":          {"--workers=" + hostile.Words()[:len(hostile.Words())-6]},
	} {
		p := hostile.Start(t, config, args...)
		if code := p.Wait(); code == 0 {
			t.Errorf("%s: exit code %d", what, code)
		}
		hostile.Check(t, what, p.Shown())
		hostile.Reached(t, what, p.Shown())
	}
}
