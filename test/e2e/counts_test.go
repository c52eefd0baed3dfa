package e2e

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

// Lethe's own programs' user ids, as the chart and the sweeper's pods have them.
var ourUserIDs = map[string]int64{"sweeper": 65531, "manager": 65532, "keyserver": 65533}

// podPids is the kubelet's podPidsLimit of hack/cluster.
const podPids = 1024

// takesAll: one tenant's bot takes all that the kernel counts by user (inotify instances and watches), by pod
// (processes) and by process (files). Another tenant's bot starts after that, through the same kubelet, and gets its
// share; so does whoever runs as one of Lethe's own users.
func takesAll(t *testing.T, w *world) {
	const program = "attacker"
	if err := w.BuildImage(t.Context(), program, "./test/attack/cmd"); err != nil {
		t.Fatal(err)
	}
	image, err := w.LoadImage(t.Context(), program)
	if err != nil {
		t.Fatal(err)
	}
	bot := func(tenant *v1alpha1.Tenant, args ...string) *v1alpha1.BotDeployment {
		return &v1alpha1.BotDeployment{
			ObjectMeta: metav1.ObjectMeta{Namespace: tenant.Name, Name: "counted"},
			Spec: v1alpha1.BotDeploymentSpec{
				Image: image, ImagePullPolicy: corev1.PullNever, Args: args,
				Ports:   []v1alpha1.ContainerPort{{Name: "health", ContainerPort: 8080}},
				Probes:  &v1alpha1.Probes{Readiness: &v1alpha1.Probe{Port: "health", PeriodSeconds: 2}},
				Rollout: v1alpha1.BotRollout{TerminationGracePeriodSeconds: 1},
				Resources: &v1alpha1.BotResources{Limits: corev1.ResourceList{
					corev1.ResourceCPU: resource.MustParse("500m"), corev1.ResourceMemory: resource.MustParse("256Mi"),
				}, Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("5m"), corev1.ResourceMemory: resource.MustParse("16Mi")}},
			},
		}
	}
	greedy, other := w.tenant(t, "e2e-greedy", nil), w.tenant(t, "e2e-modest", nil)
	taker := bot(greedy, "take", ":8080")
	w.create(t, taker)
	w.awaitReady(t, taker, 2*time.Minute)

	// It has really taken all: as many processes as its pod may have, but for a few, and no inotify instance is left
	// for its user.
	said, err := w.Kubectl(t.Context(), "", "logs", "-n", greedy.Name, "counted-bot-0")
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("one pod took: %s", strings.ReplaceAll(strings.TrimSpace(said), "\n", ", "))
	m := regexp.MustCompile(`processes=(\d+)`).FindStringSubmatch(said)
	if m == nil {
		t.Fatalf("the bot does not say what it took: %s", said)
	}
	if n, err := strconv.Atoi(m[1]); err != nil || n > podPids || n < podPids/2 {
		t.Errorf("one pod has %s processes (%v), want about its limit of %d", m[1], err, podPids)
	}
	for what, end := range map[string]error{"inotify instance": syscall.EMFILE, "inotify watch": syscall.ENOSPC, "file": syscall.EMFILE} {
		if !regexp.MustCompile(`\(` + what + ` \d+: ` + end.Error() + `\)`).MatchString(said) {
			t.Errorf("the bot did not meet the bound on %s: %s", what, said)
		}
	}
	path := w.forEverybody(t, program)
	if greedy.Status.UIDRange == nil || other.Status.UIDRange == nil {
		t.Fatal("a tenant without a range of user ids")
	}
	if out, err := needAs(t, path, greedy.Status.UIDRange.First); err == nil || !strings.Contains(out, "inotify") {
		t.Errorf("the control: the taker's own user still gets inotify instances on the node (%v): %s", err, out)
	}
	for name, uid := range ourUserIDs {
		if out, err := needAs(t, path, uid); err != nil {
			t.Errorf("the %s's user gets nothing any more: %v: %s", name, err, out)
		}
	}
	modest := bot(other, "need", ":8080")
	w.create(t, modest)
	w.awaitReady(t, modest, time.Minute)
	if err := w.AwaitInstalled(t.Context()); err != nil {
		t.Error(err)
	}
	for _, b := range []*v1alpha1.BotDeployment{taker, modest} {
		if err := w.client.Delete(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		w.gone(t, b, time.Minute)
	}
}

// forEverybody copies a program of the stage's to where other users can run it.
func (w *world) forEverybody(t *testing.T, program string) string {
	t.Helper()
	dir := t.TempDir()
	content, err := os.ReadFile(w.Path("bin", program))
	path := filepath.Join(dir, program)
	if err := errors.Join(err, os.WriteFile(path, content, 0o755), os.Chmod(filepath.Dir(dir), 0o755), os.Chmod(dir, 0o755), os.Chmod(path, 0o755)); err != nil {
		t.Fatal(err)
	}
	return path
}

// needAs takes some of what the kernel counts as a user of the node, and gives it back.
func needAs(t *testing.T, path string, uid int64) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, "need")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	out, err := cmd.CombinedOutput()
	return string(out), err
}
