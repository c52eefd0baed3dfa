package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/test/stage"
)

// walls: a bot reaches what its tenant has opened and nothing else; packets are sent, and the cluster's filter decides.
func walls(t *testing.T, w *world) {
	open := []v1alpha1.EgressRule(nil)
	tenant := w.tenant(t, "e2e-walled", func(s *v1alpha1.TenantSpec) { open, s.Egress = s.Egress, nil })
	token, id := w.newToken(t, 4)
	bot := w.newBot(t, tenant, "walled", token)
	w.create(t, bot)
	// Its credential reaches it, so the keyserver does; the stand-in, which other tenants have opened, does not.
	until(t, 2*time.Minute, "see the bot turned away", func(ctx context.Context) (string, error) {
		logs, err := w.Kubectl(ctx, "", "-n", tenant.Name, "logs", "walled-bot-0", "-c", "bot")
		if err == nil && strings.Contains(logs, w.telegram.Host) && strings.Contains(logs, "no route to host") {
			return "", nil
		}
		return fmt.Sprintf("it logs %q (%v)", logs, err), nil
	})
	st, err := w.telegram.Control.Stats(t.Context(), id)
	if err != nil || st.Polls != 0 || len(st.Peers) != 0 {
		t.Errorf("a bot whose tenant has opened nothing was heard: %+v, %v", st, err)
	}
	w.reaches(t, tenant.Name, "walled-bot-0")
	change(t, w.client, tenant, func(o *v1alpha1.Tenant) { o.Spec.Egress = open })
	w.awaitReady(t, bot, 2*time.Minute)
	w.chat(t, id, "is the door open?")
	var pod corev1.Pod
	if err := w.client.Get(t.Context(), client.ObjectKey{Namespace: tenant.Name, Name: "walled-bot-0"}, &pod); err != nil {
		t.Fatal(err)
	}
	if got := dial(t.Context(), "/proc/"+processOf(t, &pod)+"/ns/net", w.dns(t)); got != "" {
		t.Errorf("a bot that reaches something cannot reach the DNS servers: %s", got)
	}
}

// dns is where the cluster's DNS servers answer.
func (w *world) dns(t *testing.T) string {
	t.Helper()
	return net.JoinHostPort(w.running(t, "kube-system", client.MatchingLabels{"k8s-app": "kube-dns"}).Status.PodIP, "53")
}

// reaches sends packets out of a pod's network to all that a broken-into bot would look for, and to the little that
// it needs.
func (w *world) reaches(t *testing.T, namespace, name string) {
	t.Helper()
	ctx := t.Context()
	var nodes corev1.NodeList
	var api corev1.Service
	if err := errors.Join(w.client.List(ctx, &nodes), w.client.Get(ctx, client.ObjectKey{Namespace: "default", Name: "kubernetes"}, &api)); err != nil {
		t.Fatal(err)
	}
	node := nodes.Items[0].Status.Addresses[0].Address
	// A plugin may let a pod to its own node whatever a policy says; the one here does not, so that it shows what
	// ours ask for.
	walled := map[string]string{
		"the API server's service":        net.JoinHostPort(api.Spec.ClusterIP, "443"),
		"the API server":                  net.JoinHostPort(node, "6443"),
		"the kubelet":                     net.JoinHostPort(node, "10250"),
		"the cloud's metadata":            "169.254.169.254:80",
		"what another tenant has opened":  net.JoinHostPort(w.telegram.Host, strconv.Itoa(int(w.telegram.Port))),
		"another tenant's bot":            net.JoinHostPort(w.running(t, "e2e-acme", nil).Status.PodIP, "8080"),
		"the manager's metrics":           net.JoinHostPort(w.running(t, stage.SystemNamespace, client.MatchingLabels{"app.kubernetes.io/component": "manager"}).Status.PodIP, "8080"),
		"the keyserver's metrics":         net.JoinHostPort(w.running(t, stage.SystemNamespace, client.MatchingLabels{"app.kubernetes.io/component": "keyserver"}).Status.PodIP, "8080"),
		"the DNS servers":                 w.dns(t), // nothing is open, so there is no name to look up
		"another port of the DNS servers": net.JoinHostPort(w.running(t, "kube-system", client.MatchingLabels{"k8s-app": "kube-dns"}).Status.PodIP, "9153"),
	}
	open := map[string]string{
		"the keyserver": net.JoinHostPort(w.running(t, stage.SystemNamespace, client.MatchingLabels{"app.kubernetes.io/component": "keyserver"}).Status.PodIP, strconv.Itoa(resources.KeyserverPort)),
	}
	var pod corev1.Pod
	if err := w.client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, &pod); err != nil {
		t.Fatal(err)
	}
	inside := "/proc/" + processOf(t, &pod) + "/ns/net"
	for what, address := range walled {
		if got := dial(ctx, inside, address); !strings.Contains(got, "No route to host") {
			t.Errorf("a bot that tries %s (%s) is not turned away: %s", what, address, got)
		}
	}
	for what, address := range open {
		if got := dial(ctx, inside, address); got != "" {
			t.Errorf("a bot cannot reach %s (%s): %s", what, address, got)
		}
	}
	// Nothing comes in from another tenant either.
	other := w.running(t, "e2e-acme", nil)
	from := "/proc/" + processOf(t, other) + "/ns/net"
	if got := dial(ctx, from, net.JoinHostPort(pod.Status.PodIP, "8080")); !strings.Contains(got, "No route to host") {
		t.Errorf("another tenant's bot reaches this one: %s", got)
	}
}

// running is one pod of a namespace that runs and has these labels.
func (w *world) running(t *testing.T, namespace string, labels client.MatchingLabels) *corev1.Pod {
	t.Helper()
	var pods corev1.PodList
	if err := w.client.List(t.Context(), &pods, client.InNamespace(namespace), labels); err != nil {
		t.Fatal(err)
	}
	for i, pod := range pods.Items {
		if pod.Status.Phase == corev1.PodRunning && pod.Status.PodIP != "" {
			return &pods.Items[i]
		}
	}
	t.Fatalf("no pod of %s runs", namespace)
	return nil
}

// processOf is the number of a process of a pod on this machine.
func processOf(t *testing.T, pod *corev1.Pod) string {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if groups, err := os.ReadFile(file); err == nil && strings.Contains(string(groups), "pod"+string(pod.UID)) {
			return filepath.Base(filepath.Dir(file))
		}
	}
	t.Fatalf("no process of pod %s/%s", pod.Namespace, pod.Name)
	return ""
}

// dial connects out of a network namespace; the answer is empty when that worked, else what the kernel said.
func dial(ctx context.Context, namespace, address string) string {
	host, port, _ := net.SplitHostPort(address)
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "nsenter", "--net="+namespace, "bash", "-c", "exec 3<>/dev/tcp/"+host+"/"+port).CombinedOutput()
	if err == nil {
		return ""
	}
	return fmt.Sprintf("%v: %s", err, out)
}
