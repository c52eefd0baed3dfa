package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/test/stage"
)

// runGiven runs the parts that need no access to a node, on an installation that others have made and will remove.
func runGiven(m *testing.M, path string) int {
	w, err := openGiven(path)
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e: nothing was run:", err)
		return 1
	}
	shared = w
	code := m.Run()
	if err := enough(w.ran, parts()); err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 1
	}
	return code
}

func openGiven(path string) (*world, error) {
	given, err := stage.ReadGiven(path)
	if err != nil {
		return nil, err
	}
	root, err := stage.RepositoryRoot()
	if err != nil {
		return nil, err
	}
	w := &world{
		Stage: &stage.Stage{Root: root, Dir: given.Dir, Realm: given.Realm, KubectlPath: given.Kubectl, Progress: os.Stderr},
		given: given, telegram: given.Telegram, botImage: given.Images.Bot, canaries: map[string][]byte{},
	}
	if w.cfg, err = w.RESTConfig(); err != nil {
		return nil, err
	}
	w.client, err = w.Client()
	return w, err
}

// pull is the policy of pods: what was loaded is pulled from nowhere.
func (w *world) pull() corev1.PullPolicy {
	if w.given != nil {
		return w.given.Images.Pull
	}
	return corev1.PullNever
}

// image of a program of the tests' own, brought to the nodes.
func (w *world) image(t *testing.T, program, pkg string) string {
	t.Helper()
	if w.given != nil {
		full := w.given.Images.Programs[program]
		if full == "" {
			t.Fatalf("no image of %s was made for this cluster", program)
		}
		return full
	}
	if err := w.BuildImage(t.Context(), program, pkg); err != nil {
		t.Fatal(err)
	}
	full, err := w.LoadImage(t.Context(), program)
	if err != nil {
		t.Fatal(err)
	}
	return full
}

// noImage is a name of the bot's image under which there is none.
func (w *world) noImage() string {
	return w.botImage[:strings.LastIndex(w.botImage, ":")] + ":there-is-none"
}

// database is a PostgreSQL: where pods find it, and how this machine does.
func (w *world) database(t *testing.T) *stage.Database {
	t.Helper()
	if w.given != nil {
		return w.given.Database
	}
	server, err := w.StartPostgres(t.Context(), w.info.Network.HostIP)
	if err != nil {
		t.Fatal(err)
	}
	return &stage.Database{Host: server.Host, Port: int32(server.Port), Here: server}
}

// openByLabel lets a tenant's pods to our own by their namespace as well, where these are pods.
func (w *world) openByLabel(t *testing.T, tenant *v1alpha1.Tenant) {
	t.Helper()
	if w.given == nil {
		return
	}
	var ports []int32
	for _, rule := range tenant.Spec.Egress {
		for _, p := range rule.Ports {
			ports = append(ports, p.Port)
		}
	}
	w.create(t, stage.OpenByLabel(tenant.Spec.Namespaces[0].Name, w.given.Namespace, ports...))
}

// TestNoRunIsEmpty: what can be on any cluster is counted, and less is a failure.
func TestNoRunIsEmpty(t *testing.T) {
	anywhere, all := 0, parts()
	for _, p := range all {
		if p.node == "" {
			anywhere++
		}
	}
	if anywhere < 12 || anywhere == len(all) {
		t.Errorf("%d of %d parts need no node", anywhere, len(all))
	}
	root, err := stage.RepositoryRoot()
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(filepath.Join(root, "docs", "platforms.md"))
	if want := fmt.Sprintf("The tests run %d parts of %d:", anywhere, len(all)); err != nil || !strings.Contains(string(page), want) {
		t.Errorf("docs/platforms.md does not say %q (%v)", want, err)
	}
	for ran, ok := range map[int]bool{0: false, 1: false, anywhere - 1: false, anywhere: true, len(all): true} {
		if err := enough(ran, all); (err == nil) != ok {
			t.Errorf("%d parts: %v", ran, err)
		}
	}
	if enough(0, nil) == nil {
		t.Error("nothing is enough of nothing")
	}
	for name, text := range map[string]string{"absent": "", "no JSON": "x", "too little": "{}"} {
		path := filepath.Join(t.TempDir(), "given")
		if text != "" {
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := openGiven(path); err == nil || !strings.Contains(err.Error(), stage.GivenVariable) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
