// Package lives lets the manager die at every write of the lives of a Tenant, a bot and a store, and looks that the
// next one goes on.
package lives_test

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/test/crash"
	"github.com/lethe-dev/lethe/test/kcm"
	"github.com/lethe-dev/lethe/test/operator"
)

// life is what a Tenant and a bot go through: made, changed, deleted. Each step waits until the one before has
// converged or the manager has died, and says what must be true at its end.
type life struct {
	w      *operator.World
	tenant *v1alpha1.Tenant
	bot    *v1alpha1.BotDeployment
	next   func() *operator.Wire // of the manager that takes over
}

func newLife(w *operator.World, name string) *life {
	return &life{
		w: w, tenant: operator.MakeTenant(name, name+"-a"), bot: operator.MakeKeeper(name+"-a", "b", "Delete"),
		next: func() *operator.Wire { return &operator.Wire{} },
	}
}

func (l *life) steps() []func() (done func() error) {
	w := l.w
	return []func() func() error{
		func() func() error {
			w.Create(l.tenant)
			return func() error { return w.IsNow(l.tenant, "Ready=True") }
		},
		func() func() error {
			w.Create(l.bot)
			return func() error {
				if err := w.IsNow(l.bot, "Ready=True"); err != nil {
					return err
				}
				return w.IsNow(l.tenant, "InUse=True")
			}
		},
		func() func() error {
			operator.Edit(w, l.tenant, func(t *v1alpha1.Tenant) {
				t.Spec.Egress = []v1alpha1.EgressRule{{CIDR: "10.1.0.0/16", Ports: []v1alpha1.EgressPort{{Port: 443}}}}
				t.Spec.Namespaces = append(t.Spec.Namespaces, v1alpha1.TenantNamespace{Name: t.Name + "-b"})
			})
			operator.Edit(w, l.bot, func(b *v1alpha1.BotDeployment) {
				b.Spec.Image = "registry.example/bot:v2"
				b.Spec.Credentials[0].Sealed = "seal.v1.a.b.c.d.f"
			})
			return func() error {
				if err := w.IsNow(l.bot, "Ready=True"); err != nil {
					return err
				}
				return w.IsNow(l.tenant, "Ready=True")
			}
		},
		func() func() error {
			operator.Edit(w, l.tenant, func(t *v1alpha1.Tenant) { t.Spec.Namespaces = t.Spec.Namespaces[:1] })
			return func() error { return w.IsNow(l.tenant, "Ready=True") }
		},
		func() func() error {
			w.Delete(l.bot)
			return func() error {
				if err := w.IsGone(l.bot); err != nil {
					return err
				}
				return w.IsNow(l.tenant, "InUse=False")
			}
		},
		func() func() error {
			w.Delete(l.tenant)
			return func() error { return w.IsGone(l.tenant) }
		},
	}
}

// live goes through all steps. Where the manager's wire is cut, a new one takes over. It notes what exists after each
// step or, given that, waits until the same exists.
func (l *life) live(want []string) []string {
	l.w.T.Helper()
	var worlds []string
	for number, step := range l.steps() {
		done := step()
		l.w.Eventually(fmt.Sprintf("step %d", number), func() error {
			if l.w.Wire.IsDead() {
				l.w.Stop()
				l.w.Start(l.next())
			}
			if err := done(); err != nil || want == nil {
				return err
			}
			if got := l.snapshot(); got != want[number] {
				return fmt.Errorf("\n got %s\nwant %s", got, want[number])
			}
			return nil
		})
		if want == nil {
			l.w.Calm()
			worlds = append(worlds, l.snapshot())
		}
	}
	return worlds
}

func (l *life) mustHaveRevoked() {
	l.w.T.Helper()
	if !l.w.Keys.IsRevoked(l.tenant.UID) || !l.w.Keys.IsRevoked(l.bot.UID) {
		l.w.T.Error("keys were not revoked")
	}
}

// kindOnly leaves out of a kind of write what the keyserver was asked before it.
func kindOnly(kind string) string {
	kind, _, _ = strings.Cut(kind, " after ")
	return kind
}

// perLife is what no two lives share: whose a pod is, and as whom it runs.
var perLife = regexp.MustCompile(`(lethe\.dev/owner-uid|runAsUser|runAsGroup|fsGroup):[0-9a-f-]+`)

// snapshot is everything in the tenant's namespaces, without what is random. What has no owner any more has been
// collected.
func (l *life) snapshot() string {
	w := l.w
	w.T.Helper()
	var found []string
	for _, list := range append(kcm.ChildLists(), &corev1.NamespaceList{}) {
		err := w.KCM.Each(list, func(o client.Object) error {
			name := o.GetNamespace()
			if _, ok := o.(*corev1.Namespace); ok {
				name = o.GetName()
			}
			suffix, ours := after(name, l.tenant.Name)
			if !ours {
				return nil
			}
			fields, err := runtime.DefaultUnstructuredConverter.ToUnstructured(o)
			if err != nil {
				return err
			}
			raw := operator.Content(&unstructured.Unstructured{Object: fields})
			meta, _ := raw["metadata"].(map[string]any)
			delete(meta, "ownerReferences")
			delete(meta, "annotations")
			delete(meta, "namespace")
			found = append(found, strings.ReplaceAll(fmt.Sprintf("%T %s/%s: %v", o, suffix, o.GetName(), raw), l.tenant.Name, "NAME"))
			return nil
		})
		if err != nil {
			w.T.Fatal(err)
		}
	}
	slices.Sort(found)
	return perLife.ReplaceAllString(strings.Join(found, "\n"), "$1:PER-LIFE")
}

func after(name, prefix string) (string, bool) {
	if len(name) < len(prefix) || name[:len(prefix)] != prefix {
		return "", false
	}
	return name[len(prefix):], true
}

// TestCrashAtEveryWrite kills the manager in the life of a Tenant and a bot (docs/design/0029-crash-points.md): in one
// life after each write that lands, again and again; then in a life for each kind of write before the first of it is
// sent. After each step of such a life the same must exist as in one without a crash. The manager writes all that it
// may have to: on Kubernetes 1.36 it is spared the finalizer of a bot.
func TestCrashAtEveryWrite(t *testing.T) {
	operator.TestEnv.WithoutBotFinalizer(t)
	w := operator.NewWorld(t)
	w.Settle = 50 * time.Millisecond
	w.Restart()
	want := newLife(w, "crash-0-x").live(nil)
	writes := int(w.Wire.Writes.Load())
	t.Logf("a life takes %d writes", writes)
	if writes < 40 {
		t.Fatalf("only %d writes: the life is too short to be a test", writes)
	}
	kinds := w.Wire.Kinds()
	t.Run("after-each", func(t *testing.T) {
		w.Stop()
		w := w.In(t)
		deaths, at := 0, map[string]bool{}
		mortal := func() *operator.Wire { return &operator.Wire{CutAt: 1, After: true} }
		w.Start(mortal())
		l := newLife(w, "crash-each")
		l.next = func() *operator.Wire {
			deaths++
			at[kindOnly(w.Wire.KindOf(1))] = true
			return mortal()
		}
		l.live(want)
		l.mustHaveRevoked()
		w.Stop()
		t.Logf("the manager died %d times", deaths)
		// Who dies so often writes a status less often: what would have changed twice has changed once.
		if deaths < writes*3/4 {
			t.Errorf("the manager died %d times in a life of %d writes", deaths, writes)
		}
		for _, kind := range kinds {
			if !at[kindOnly(kind)] {
				t.Errorf("the manager never died after %q", kind)
			}
		}
	})
	die := func(name string, cut *operator.Wire) (died bool) {
		t.Run(name, func(t *testing.T) {
			w.Stop()
			w := w.In(t)
			w.Start(cut)
			l := newLife(w, name)
			l.live(want)
			died = cut.IsDead()
			l.mustHaveRevoked()
			w.Stop()
		})
		return died
	}
	var points crash.Points
	before, lived := 0, 0
	for number, kind := range kinds {
		if !points.Before(kind) {
			continue
		}
		next := &operator.Wire{Before: kind}
		if crash.Every() {
			if cut := (&operator.Wire{CutAt: int64(number + 1), After: true}); !die(fmt.Sprintf("crash-%d-after", number+1), cut) && number < writes-2 {
				t.Errorf("the manager lived through write %d: %d writes", number+1, cut.Writes.Load())
			}
			next = &operator.Wire{CutAt: int64(number + 1)}
		}
		before++
		if !die(fmt.Sprintf("crash-%d-before", number+1), next) { // the order of writes is not the same in every life
			lived++
			t.Logf("no write was %q this time", kind)
		}
	}
	t.Logf("died before %d of %d kinds of writes", before-lived, before)
	if lived > before/4 || before < 10 {
		t.Errorf("the manager lived through %d of %d kinds of writes", lived, before)
	}
}
