package main

import (
	"context"
	"crypto/rand"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keystore"
)

// aheadBy is a clock that is some seconds ahead, so that what was made in this second is older than what is asked for.
func aheadBy(d time.Duration) func() time.Time {
	return func() time.Time { return time.Now().Add(d) }
}

// rotate has the keyserver look, as it does every few seconds.
func (d *drill) rotate() {
	d.t.Helper()
	if err := d.keys.Rotate(d.t.Context()); err != nil {
		d.t.Fatal(err)
	}
}

// rotating has it look until the returned function is called.
func (d *drill) rotating() func() {
	ctx, stop := context.WithCancel(d.t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			if err := d.keys.Rotate(ctx); err != nil && ctx.Err() == nil {
				d.t.Errorf("rotate: %v", err)
			}
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
	}()
	return func() { stop(); <-ended }
}

func TestRotateAndDestroyASealingKey(t *testing.T) {
	d := newDrill(t, "drill-r")
	c := newCaller(t)
	c.now = aheadBy(3 * time.Second)
	in := []string{"--keys-namespace", d.namespace}
	with := func(args ...string) []string { return append(args, in...) }
	d.expect("make keys", d.makeKeys(), "")
	d.expect("the first value", d.stores("1"), v1alpha1.ReasonStored)
	old := d.tenant().Status.SealingKeys[0].KID

	c.fails("", with("keys", "status"), "has said nothing yet")
	c.fails("", with("keys", "rotate", "sealing"), "--tenant NAME, or --all")
	c.fails("", with("keys", "rotate", "data", "--tenant", "drill-r", "--all"), "--tenant NAME, or --all")
	c.fails("", with("keys", "rotate", "tenant", "--tenant", "nobody"), "nobody")
	c.fails("", with("keys", "destroy", "sealing-key", old, "--tenant", "drill-r", "--yes"), "is the key to seal to")
	c.ok("", with("keys", "rotate", "sealing", "--tenant", "drill-r")...)
	c.ok("", with("keys", "rotate", "data", "--all")...)
	d.rotate()
	status := c.ok("", with("keys", "status", "--tenant", "drill-r")...)
	present := d.tenant().Status.SealingKeys[0].KID
	for _, want := range []string{"sealing  1\n", "data     0\n", present + "  Active   0\n", old + "  Retired  1\n"} {
		if !strings.Contains(status.out, want) {
			t.Errorf("the status does not say %q:\n%s", want, status.out)
		}
	}
	// Sealing takes the new key; what the old one sealed goes on.
	c.fails("", with("keys", "destroy", "sealing-key", old, "--tenant", "drill-r", "--yes"), "1 value of live objects", "--force")
	d.expect("a value that is sealed to the new key", d.stores("2"), v1alpha1.ReasonStored)
	if kid := strings.Split(string(d.bot.Spec.Credentials[0].Sealed), ".")[2]; kid != present {
		t.Errorf("sealed to %s, want %s", kid, present)
	}
	c.fails("", with("keys", "destroy", "sealing-key", old, "--tenant", "drill-r"), "--yes")
	stop := d.rotating()
	defer stop()
	if o := c.ok("", with("keys", "destroy", "sealing-key", old, "--tenant", "drill-r", "--yes")...); !strings.Contains(o.errOut, "Destroyed.") {
		t.Errorf("says %q", o.errOut)
	}
	if keys := d.tenant().Status.SealingKeys; len(keys) != 1 || keys[0].KID != present {
		t.Errorf("the status shows %+v", keys)
	}
	c.fails("", with("keys", "destroy", "sealing-key", old, "--tenant", "drill-r", "--yes"), "no sealing key of that kid")
}

func (d *drill) tenant() *v1alpha1.Tenant {
	d.t.Helper()
	var tenant v1alpha1.Tenant
	if err := testEnv.Client.Get(d.t.Context(), clientKey("", d.name), &tenant); err != nil {
		d.t.Fatal(err)
	}
	return &tenant
}

// TestRotateTheKeyEncryptionKey goes the way of docs/keys.md, with the clock's waits left to the keyserver's own tests.
func TestRotateTheKeyEncryptionKey(t *testing.T) {
	d := newDrill(t, "drill-k")
	c := newCaller(t)
	c.now = aheadBy(3 * time.Second)
	system := testEnv.Namespace(t, "system", nil).Name
	with := func(args ...string) []string { return append(args, "--keys-namespace", d.namespace) }
	kek := append(with("keys", "rotate", "kek"), "--system-namespace", system)
	d.expect("make keys", d.makeKeys(), "")
	d.expect("the first value", d.stores("1"), v1alpha1.ReasonStored)
	d.rotate()

	c.fails("", kek, "lethe-keyserver")
	deployment := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: system, Name: keyserverDeployment}}
	two := int32(2)
	labels := map[string]string{"app": "keyserver"}
	deployment.Spec = appsv1.DeploymentSpec{Replicas: &two, Selector: &metav1.LabelSelector{MatchLabels: labels},
		Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels},
			Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "keyserver", Image: "lethe:1", Args: []string{"--kek-file=/a"}}}}}}
	create(t, deployment)
	c.fails("", kek, "has no --kek-file-previous", "nothing was asked for")
	deployment.Spec.Template.Spec.Containers[0].Args = []string{"--kek-file=/b", "--kek-file-previous=/a"}
	if err := testEnv.Client.Update(t.Context(), deployment); err != nil {
		t.Fatal(err)
	}
	say := func(updated int32) {
		t.Helper()
		deployment.Status = appsv1.DeploymentStatus{ObservedGeneration: deployment.Generation, Replicas: 2, UpdatedReplicas: updated, ReadyReplicas: 2}
		if err := testEnv.Client.Status().Update(t.Context(), deployment); err != nil {
			t.Fatal(err)
		}
	}
	say(1)
	c.fails("", kek, "1 of 2 are new", "nothing was asked for")
	say(2)

	old, fresh := d.kekFile, filepath.Join(t.TempDir(), "kek-2")
	if _, err := generateKEK(rand.Reader, fresh); err != nil {
		t.Fatal(err)
	}
	d.kekFile, d.previous = fresh, []string{old}
	d.restart()
	d.rotate()
	c.ok("", kek...)
	d.rotate()
	status := c.ok("", with("keys", "status")...)
	if !strings.Contains(status.out, "kek      0") || !strings.Contains(status.errOut, "or may be: keep it") {
		t.Errorf("the status says\n%s%s", status.out, status.errOut)
	}
	d.expect("a value under the new key", d.stores("2"), v1alpha1.ReasonStored)

	file := filepath.Join(t.TempDir(), "backup.json")
	c.ok("", with("keys", "backup", file)...)
	c.ok("", with("keys", "verify", file, "--kek-file", fresh)...)
	c.fails("", with("keys", "verify", file, "--kek-file", old), "needs key-encryption key")
	if o := c.ok("", with("keys", "verify", file, "--kek-file", fresh, "--kek-file", old, "--record")...); !strings.Contains(o.errOut, "Recorded:") {
		t.Errorf("says %q", o.errOut)
	}
	d.rotate()
	if o := c.ok("", with("keys", "status")...); !strings.Contains(o.errOut, "Last verified backup") {
		t.Errorf("the status says\n%s", o.errOut)
	}
	key, err := keystore.LoadKEK(old)
	if err != nil {
		t.Fatal(err)
	}
	stop := d.rotating()
	defer stop()
	// Two minutes have to go by before nothing can be under it any more.
	c.fails("", with("keys", "destroy", "kek", key.KID(), "--yes"), "not destroyed", "or may be")
	c.fails("", with("keys", "destroy", "kek", "0123456789abcdef", "--yes"), "no earlier key-encryption key")
}

// TestRotateNeedsNoRightOnKeys: the Role of the chart is enough, and nobody else may.
func TestRotateNeedsNoRightOnKeys(t *testing.T) {
	d := newDrill(t, "drill-x")
	c := newCaller(t)
	d.expect("make keys", d.makeKeys(), "")
	d.rotate()
	c.as = "rotator"
	with := func(args ...string) []string { return append(args, "--keys-namespace", d.namespace) }
	c.fails("", with("keys", "rotate", "data", "--all"), "forbidden")
	var role rbacv1.Role
	if err := testEnv.Client.Get(t.Context(), clientKey("lethe-keys", "lethe-key-rotation"), &role); err != nil {
		t.Fatal(err)
	}
	for _, rule := range role.Rules {
		if slices.Contains(rule.Resources, "secrets") {
			t.Errorf("the Role gives a right on Secrets: %+v", rule)
		}
	}
	mine := &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: d.namespace, Name: role.Name}, Rules: role.Rules}
	create(t, mine, &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: d.namespace, Name: role.Name},
		RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: role.Name},
		Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: "rotator"}}})
	deadline := time.After(10 * time.Second)
	for {
		if o := c.run("", with("keys", "rotate", "data", "--all")...); o.code == 0 {
			break
		}
		select {
		case <-deadline:
			t.Fatal(c.run("", with("keys", "rotate", "data", "--all")...).errOut)
		case <-time.After(50 * time.Millisecond):
		}
	}
	c.ok("", with("keys", "status")...)
	var list corev1.SecretList
	if err := testEnv.As(t, "rotator").List(t.Context(), &list, client.InNamespace(d.namespace)); err == nil {
		t.Error("whoever may rotate reads the keys")
	}
}
