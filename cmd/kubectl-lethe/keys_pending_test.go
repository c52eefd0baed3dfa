package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/internal/keystore"
)

// deleteTenant deletes the Tenant and has its keys revoked, as the manager does.
func (d *drill) deleteTenant() string {
	d.t.Helper()
	var tenant v1alpha1.Tenant
	if err := testEnv.Client.Get(d.t.Context(), clientKey("", d.name), &tenant); err != nil {
		d.t.Fatal(err)
	}
	if err := testEnv.Client.Delete(d.t.Context(), &tenant); err != nil {
		d.t.Fatal(err)
	}
	ref := keyapi.ObjectRef{Kind: "Tenant", Name: tenant.Name, UID: string(tenant.UID)}
	d.expect("revoke", d.ask(keyapi.PathRevoke, keyapi.RevokeRequest{Object: ref}, &struct{}{}), "")
	return ref.UID
}

// tenantAgain makes a Tenant of the name that is another one, with keys of its own.
func (d *drill) tenantAgain() {
	d.t.Helper()
	tenant := &v1alpha1.Tenant{ObjectMeta: metav1.ObjectMeta{Name: d.name, Annotations: map[string]string{v1alpha1.AnnotationKeys: v1alpha1.KeysNew}},
		Spec: v1alpha1.TenantSpec{Namespaces: []v1alpha1.TenantNamespace{{Name: d.name}}}}
	create(d.t, tenant)
	d.expect("make keys", d.makeKeys(), "")
}

func TestKeysPendingAndForget(t *testing.T) {
	d := newDrill(t, "drill-p")
	d.expect("make keys", d.makeKeys(), "")
	c := newCaller(t)
	pending := func(more ...string) outcome {
		return c.ok("", append([]string{"keys", "pending", "--keys-namespace", d.namespace}, more...)...)
	}
	forget := func(more ...string) []string {
		return append([]string{"keys", "forget", d.name, "--keys-namespace", d.namespace}, more...)
	}
	if o := pending(); !strings.Contains(o.errOut, "No keys wait") || o.out != "" {
		t.Errorf("nothing waits: %+v", o)
	}
	var list struct{ Items []keystore.PendingKeys }
	if o := pending("-o", "json"); json.Unmarshal([]byte(o.out), &list) != nil || list.Items == nil || len(list.Items) != 0 {
		t.Errorf("nothing waits, for programs: %q", o.out)
	}
	c.fails("", forget("--now", "--yes"), "no keys of a Tenant drill-p wait")

	first := d.deleteTenant()
	d.tenantAgain()
	second := d.deleteTenant()
	if o := pending(); strings.Count(o.out, "drill-p ") != 2 || !strings.Contains(o.out, first) || !strings.Contains(o.out, second) || !strings.Contains(o.out, "UNTIL") {
		t.Errorf("two wait:\n%s", o.out)
	}
	o := pending("-o", "json")
	if err := json.Unmarshal([]byte(o.out), &list); err != nil || len(list.Items) != 2 {
		t.Fatalf("%v: %s", err, o.out)
	}
	for _, p := range list.Items {
		if p.Tenant != d.name || p.Until.Sub(p.Deleted) != 72*time.Hour || len(p.KIDs) != 1 || len(p.KIDs[0]) != 16 {
			t.Errorf("listed: %+v", p)
		}
	}
	if strings.Contains(o.out, "wrap.v1") {
		t.Error("it shows a wrapped key")
	}

	names := func() (n int) {
		for _, s := range d.secrets() {
			if strings.HasPrefix(s.Name, "pending-") {
				n++
			}
		}
		return n
	}
	c.fails("", []string{"keys", "pending", "-o", "wide"}, "-o: say json or yaml or name")
	if o := pending("-o", "name"); o.out != "tenant.lethe.dev/drill-p\ntenant.lethe.dev/drill-p\n" {
		t.Errorf("by name: %q", o.out)
	}
	c.fails("", forget(), "say --now", "keys pending")
	c.fails("", forget("--now", "--yes"), "keys of 2 deleted Tenants drill-p wait", "--uid", first, second)
	c.fails("", forget("--now", "--yes", "--uid", "none"), "with that UID")
	c.fails("", forget("--now", "--uid", first), "--yes destroys them")
	c.fails("", []string{"keys", "forget", "Not A Name", "--now"}, "not the name of a Tenant")
	c.terminal = true
	c.fails("no\n", forget("--now", "--uid", first), "the answer was another")
	c.as = "nobody"
	c.fails("", forget("--now", "--yes", "--uid", first), "forbidden")
	c.as = ""
	if n := names(); n != 2 {
		t.Fatalf("%d wait, want 2", n)
	}
	if o := c.ok(d.name+"\n", forget("--now", "--uid", first)...); !strings.Contains(o.errOut, "Destroyed") || !strings.Contains(o.errOut, "would wait until") {
		t.Errorf("forgotten: %s", o.errOut)
	}
	if o := pending(); strings.Contains(o.out, first) || !strings.Contains(o.out, second) {
		t.Errorf("not exactly that one was destroyed:\n%s", o.out)
	}
	// One that cannot be read is named, never taken for another.
	for _, s := range d.secrets() {
		if s.Name == "pending-"+second {
			s.Data["keys.json"] = []byte("{}")
			if err := testEnv.Client.Update(t.Context(), &s); err != nil {
				t.Fatal(err)
			}
		}
	}
	if o := pending(); !strings.Contains(o.errOut, "pending-"+second+" cannot be read") {
		t.Errorf("unreadable: %s", o.errOut)
	}
	c.fails("", forget("--now", "--yes"), "no keys of a Tenant drill-p wait")
	if n := names(); n != 1 {
		t.Errorf("%d wait, want 1", n)
	}
}

// TestForgottenKeysDoNotComeBack: the same Tenant, within the 72 hours, has new keys.
func TestForgottenKeysDoNotComeBack(t *testing.T) {
	d := newDrill(t, "drill-q")
	d.expect("make keys", d.makeKeys(), "")
	kid := func() string {
		var tenant v1alpha1.Tenant
		if err := testEnv.Client.Get(t.Context(), client.ObjectKey{Name: d.name}, &tenant); err != nil || len(tenant.Status.SealingKeys) == 0 {
			t.Fatalf("%v, %d keys", err, len(tenant.Status.SealingKeys))
		}
		return tenant.Status.SealingKeys[0].KID
	}
	before := kid()
	d.deleteTenant()
	c := newCaller(t)
	c.ok("", "keys", "forget", d.name, "--now", "--yes", "--keys-namespace", d.namespace)
	create(t, &v1alpha1.Tenant{ObjectMeta: metav1.ObjectMeta{Name: d.name}, Spec: v1alpha1.TenantSpec{Namespaces: []v1alpha1.TenantNamespace{{Name: d.name}}}})
	d.expect("make keys", d.makeKeys(), "")
	if kid() == before {
		t.Error("the keys came back")
	}
}
