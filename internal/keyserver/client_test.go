package keyserver

import (
	"crypto/tls"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keyclient"
)

// TestThroughTheClient goes the whole way: TLS by the bundle, a real token, and an answer that only this pod can open.
func TestThroughTheClient(t *testing.T) {
	w := newPKI(t)
	w.must(w.server.Maintain(t.Context()))
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	w.must(err)
	https := &http.Server{Handler: w.server.Handler(), ReadHeaderTimeout: time.Second}
	go func() { _ = https.Serve(tls.NewListener(listener, w.server.Authority().TLSConfig())) }()
	defer https.Close()
	url := "https://" + listener.Addr().String()
	_, bundle := w.bundle()
	dir := t.TempDir()
	ca, token := filepath.Join(dir, "ca.crt"), filepath.Join(dir, "token")
	w.must(os.WriteFile(ca, []byte(bundle), 0o600))
	client := func(tok string) *keyclient.Client {
		w.must(os.WriteFile(token, []byte(tok), 0o600))
		c, err := keyclient.New(keyclient.Options{URL: url, CAFile: ca, TokenFile: token})
		w.must(err)
		return c
	}
	w.writes.reset(0, false)
	// The manager of this installation is the one in its own namespace.
	w.must(testEnv.Client.Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: w.opts.Settings.Namespace, Name: "lethe-manager"}}))
	w.manager = w.token(w.opts.Settings.Namespace, "lethe-manager", "lethe.dev/keyserver", nil)
	w.tenantKeys()
	bot, secret := w.newBot("support", w.rich)
	pod := w.startPod(bot, w.storeAndRecord(bot).Secret)
	got, err := client(w.podToken(pod)).Unseal(t.Context())
	w.must(err)
	values := map[string]string{}
	for _, i := range got.Items {
		values[i.Name] = string(i.Value)
	}
	if values["telegram"] != secret || len(values) != 2 {
		t.Errorf("got %d credentials", len(values))
	}
	if _, err := client(w.manager).Unseal(t.Context()); keyclient.ReasonOf(err) != v1alpha1.ReasonForbidden {
		t.Errorf("the manager unseals: %v", err)
	}
}
