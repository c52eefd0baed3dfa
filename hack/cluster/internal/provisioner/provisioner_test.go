package provisioner

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/lethe-dev/lethe/hack/cluster/internal/api"
)

// request is one that changes something.
type request struct {
	method, path string
	volume       struct {
		Metadata struct{ Name string }
		Spec     struct {
			StorageClassName string
			ClaimRef         struct{ Namespace, Name, UID string }
			Local, HostPath  *struct{ Path string }
		}
	}
}

// fakeAPI serves the lists it is given, no events, and passes on what is written.
func fakeAPI(t *testing.T, claims, volumes string) (*httptest.Server, chan request) {
	writes := make(chan request, 10)
	mux := http.NewServeMux()
	list := func(items string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Query().Has("watch") {
				<-r.Context().Done()
				return
			}
			_, _ = w.Write([]byte(`{"metadata":{"resourceVersion":"1"},"items":[` + items + `]}`))
		}
	}
	mux.HandleFunc("GET /api/v1/persistentvolumeclaims", list(claims))
	mux.HandleFunc("GET /api/v1/persistentvolumes", list(volumes))
	write := func(w http.ResponseWriter, r *http.Request) {
		got := request{method: r.Method, path: r.URL.Path}
		if r.Method == http.MethodPost {
			if err := json.NewDecoder(r.Body).Decode(&got.volume); err != nil {
				t.Error(err)
			}
			// It is there already: an earlier try was answered too late.
			w.WriteHeader(http.StatusConflict)
		}
		writes <- got
	}
	mux.HandleFunc("POST /api/v1/persistentvolumes", write)
	mux.HandleFunc("DELETE /api/v1/persistentvolumes/{name}", write)
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return server, writes
}

func next(t *testing.T, writes chan request) request {
	t.Helper()
	select {
	case r := <-writes:
		return r
	case <-time.After(10 * time.Second):
		t.Fatal("nothing was written")
		return request{}
	}
}

const (
	waiting = `{"metadata":{"name":"data","namespace":"a","uid":"u1"},"spec":{"storageClassName":"local","accessModes":["ReadWriteOnce"],"resources":{"requests":{"storage":"1Gi"}}},"status":{"phase":"Pending"}}`
	// not ours, bound, and of no class
	others = `{"metadata":{"name":"x","namespace":"a","uid":"u2"},"spec":{"storageClassName":"fast"},"status":{"phase":"Pending"}},` +
		`{"metadata":{"name":"y","namespace":"a","uid":"u3"},"spec":{"storageClassName":"local","volumeName":"pvc-u3"},"status":{"phase":"Bound"}},` +
		`{"metadata":{"name":"z","namespace":"a","uid":"u4"},"spec":{},"status":{"phase":"Pending"}}`
)

func TestClaimGetsAFolder(t *testing.T) {
	server, writes := fakeAPI(t, others+","+waiting, "")
	p := &provisioner{api: &api.Client{Server: server.URL, HTTP: server.Client()}, dir: filepath.Join(t.TempDir(), "volumes"), node: "n"}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go p.follow(ctx, "/api/v1/persistentvolumeclaims", p.claim)

	v := next(t, writes).volume
	ref := v.Spec.ClaimRef
	if v.Metadata.Name != "pvc-u1" || ref.Namespace != "a" || ref.Name != "data" || ref.UID != "u1" {
		t.Errorf("made %+v", v)
	}
	if v.Spec.Local == nil || v.Spec.Local.Path != filepath.Join(p.dir, "pvc-u1") {
		t.Fatalf("volume is at %+v", v.Spec.Local)
	}
	info, err := os.Stat(v.Spec.Local.Path)
	if err != nil || info.Mode().Perm() != 0o777 {
		t.Errorf("folder: %v (%v)", info, err)
	}
}

func TestSimulatedClaimGetsNoFolder(t *testing.T) {
	server, writes := fakeAPI(t, waiting, "")
	p := &provisioner{api: &api.Client{Server: server.URL, HTTP: server.Client()}}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go p.follow(ctx, "/api/v1/persistentvolumeclaims", p.claim)
	if v := next(t, writes).volume; v.Spec.HostPath == nil || v.Spec.Local != nil {
		t.Errorf("made %+v", v)
	}
}

func TestReleasedVolumeIsRemoved(t *testing.T) {
	dir := t.TempDir()
	const ours = `"annotations":{"pv.kubernetes.io/provisioned-by":"` + Name + `"}`
	server, writes := fakeAPI(t, "",
		`{"metadata":{"name":"foreign"},"status":{"phase":"Released"}},`+
			`{"metadata":{"name":"bound",`+ours+`},"status":{"phase":"Bound"}},`+
			`{"metadata":{"name":"pvc-old",`+ours+`},"status":{"phase":"Released"}}`)
	for _, name := range []string{"foreign", "bound", "pvc-old"} {
		if err := os.MkdirAll(filepath.Join(dir, name, "content"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	p := &provisioner{api: &api.Client{Server: server.URL, HTTP: server.Client()}, dir: dir, node: "n"}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go p.follow(ctx, "/api/v1/persistentvolumes", p.volume)
	if r := next(t, writes); r.method != http.MethodDelete || r.path != "/api/v1/persistentvolumes/pvc-old" {
		t.Errorf("sent %s %s", r.method, r.path)
	}
	for name, want := range map[string]bool{"foreign": true, "bound": true, "pvc-old": false} {
		if _, err := os.Stat(filepath.Join(dir, name)); (err == nil) != want {
			t.Errorf("%s is there: %t, want %t", name, err == nil, want)
		}
	}
}
