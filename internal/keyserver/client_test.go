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
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keyclient"
	"github.com/lethe-dev/lethe/internal/resources"
)

// TestThroughTheClient goes the whole way: TLS by the bundle, a real token, and an answer that only this pod can open.
func TestThroughTheClient(t *testing.T) {
	w := newPKI(t)
	if err := w.server.Ready(t.Context()); err == nil {
		t.Error("is ready without a certificate")
	}
	w.must(w.server.Maintain(t.Context()))
	w.must(w.server.Ready(t.Context()))
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

// newPKI is a keyserver with keys and a bundle of its own, so that its clock can run on.
func newPKI(t *testing.T) *world {
	t.Helper()
	keys := testEnv.Namespace(t, "pki", nil).Name
	w := newWorldAs(t, testEnv.As(t, "admin", "system:masters"), keys, newKEK())
	w.opts.Settings.Namespace = keys
	w.restart()
	return w
}

func (w *world) bundle() (*corev1.ConfigMap, string) {
	w.Helper()
	cm := &corev1.ConfigMap{}
	w.must(testEnv.Client.Get(w.Context(), client.ObjectKey{Namespace: w.opts.Settings.Namespace, Name: resources.CABundleName}, cm))
	return cm, cm.Data[resources.CABundleKey]
}
