package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrlmetrics "sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/test/attack"
	"github.com/lethe-dev/lethe/test/env"
	"github.com/lethe-dev/lethe/test/metricspage"
	"github.com/lethe-dev/lethe/test/ports"
)

func TestParse(t *testing.T) {
	o, err := parse(strings.Fields("--image=lethe:v1 --workers=3 --leader-elect=false --keys-namespace=k --token-file=/t --metrics-bind-address=0 --health-probe-bind-address=:1 -v=4"))
	if err != nil {
		t.Fatal(err)
	}
	if o.settings.Image != "lethe:v1" || o.workers != 3 || o.leaderElect || o.keysNamespace != "k" || o.tokenFile != "/t" || o.metrics != "0" ||
		o.health != ":1" || o.verbosity != 4 {
		t.Errorf("%+v", o)
	}
	for bad, word := range map[string]string{
		"":                                        "--image is required",
		"--image=i --workers=0":                   "--workers",
		"--image=i --changes-budget=1Mi":          "--changes-budget",
		"--image=i --changes-budget=much":         "--changes-budget",
		"--image=i --token-file=":                 "--token-file",
		"--image=i --keys-namespace=lethe-system": "--keys-namespace",
		"--image=i stray":                         "stray",
		"--image=i -v=5":                          "--v 5",
		"--image=i --no-such-flag":                "no-such-flag",
		"--image=i --keyserver-url=ftp":           "--keyserver-url",
	} {
		if _, err := parse(strings.Fields(bad)); err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("%q: %v, want an error that says %s", bad, err, word)
		}
	}
	if code := run(t.Context(), []string{"--image=i", "stray"}); code != exitUsage {
		t.Errorf("exit code %d", code)
	}
}

// TestProcess runs the manager as it is shipped, without a keyserver, and the check before an uninstallation.
func TestProcess(t *testing.T) {
	e := env.Start(t)
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(kubeconfig, e.Kubeconfig(), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("KUBECONFIG", kubeconfig)
	if code := run(t.Context(), []string{"check-uninstall"}); code != 0 {
		t.Errorf("without Tenants: exit code %d", code)
	}

	metrics, health := freeAddress(t), freeAddress(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan int, 1)
	go func() {
		ended <- run(ctx, []string{"--image=lethe:v1", "--token-file=" + kubeconfig, "--metrics-bind-address=" + metrics, "--health-probe-bind-address=" + health})
	}()
	waitFor(t, func() error { _, err := get("http://" + health + "/readyz"); return err })

	tenant := &v1alpha1.Tenant{ObjectMeta: metav1.ObjectMeta{Name: "acme"}, Spec: v1alpha1.TenantSpec{Namespaces: []v1alpha1.TenantNamespace{{Name: "acme-a"}}}}
	if err := e.Client.Create(t.Context(), tenant); err != nil {
		t.Fatal(err)
	}
	// The administrator, whom this process acts as, may not write what the manager's identity may: it is enough that
	// it tries.
	waitFor(t, func() error {
		if err := e.Client.Get(t.Context(), client.ObjectKeyFromObject(tenant), tenant); err != nil {
			return err
		}
		if !meta.IsStatusConditionFalse(tenant.Status.Conditions, v1alpha1.ConditionReady) {
			return fmt.Errorf("%+v", tenant.Status)
		}
		return nil
	})
	waitFor(t, func() error {
		text, err := get("http://" + metrics + "/metrics")
		if err == nil && !strings.Contains(text, `lethe_objects{kind="Tenant",state="progressing"} 1`) && !strings.Contains(text, `lethe_objects{kind="Tenant",state="stalled"} 1`) {
			return errors.New("the metrics do not count the Tenant")
		}
		return err
	})
	text, err := get("http://" + metrics + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	registry, ok := ctrlmetrics.Registry.(prometheus.Collector)
	if !ok {
		t.Fatalf("%T says nothing of what it holds", ctrlmetrics.Registry)
	}
	metricspage.Check(t, "The manager", registry, text)
	// Whoever only holds connections keeps neither the kubelet nor the monitoring out, and no other protocol is spoken.
	for range 200 {
		for _, address := range []string{health, metrics} {
			// One that is turned away at once is none.
			if idle, err := net.Dial("tcp", address); err == nil {
				defer idle.Close()
			}
		}
	}
	waitFor(t, func() error { _, err := get("http://" + health + "/healthz"); return err })
	waitFor(t, func() error {
		text, err := get("http://" + metrics + "/metrics")
		if err == nil && !strings.Contains(text, `lethe_manager_connections_refused_total{door="probes",reason="Source"}`) {
			return errors.New("the metrics do not count the connections that were turned away")
		}
		return err
	})
	waitFor(t, func() error {
		raw, err := net.Dial("tcp", metrics)
		if err != nil {
			return err
		}
		defer raw.Close()
		if status, err := attack.Status(raw, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"); err != nil || status != http.StatusHTTPVersionNotSupported {
			return fmt.Errorf("HTTP/2 in clear: %d, %w", status, err)
		}
		return nil
	})
	if err := checkUninstall(t.Context()); err == nil || !strings.Contains(err.Error(), "acme") {
		t.Errorf("with a Tenant: %v", err)
	}
	cancel()
	if code := <-ended; code != 0 {
		t.Errorf("stopped with exit code %d", code)
	}
	lease := &coordinationv1.Lease{}
	if err := e.Client.Get(t.Context(), client.ObjectKey{Namespace: env.SystemNamespace, Name: leaseName}, lease); err != nil {
		t.Fatal(err)
	}
	if holder := lease.Spec.HolderIdentity; holder != nil && *holder != "" {
		t.Errorf("the lease is still held by %s: the next leader would have to wait", *holder)
	}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	address, err := ports.Address()
	if err != nil {
		t.Fatal(err)
	}
	return address
}

func get(url string) (string, error) {
	answer, err := http.Get(url)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = errors.New(answer.Status)
	}
	return string(body), err
}

func waitFor(t *testing.T, condition func() error) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	deadline := time.Now().Add(30 * time.Second)
	for {
		err := condition()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		<-tick.C
	}
}
