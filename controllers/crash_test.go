package controllers

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

// life is what a Tenant and a bot go through: made, changed, deleted. Each step waits until the one before has converged or
// the manager has died, and says what must be true at its end.
type life struct {
	w      *world
	tenant *v1alpha1.Tenant
	bot    *v1alpha1.BotDeployment
}

func (w *world) newLife(name string) *life {
	return &life{w: w, tenant: makeTenant(name, name+"-a"), bot: makeBot(name+"-a", "b")}
}

func (l *life) steps() []func() (done func() error) {
	w := l.w
	return []func() func() error{
		func() func() error {
			w.create(l.tenant)
			return func() error { return w.isNow(l.tenant, "Ready=True") }
		},
		func() func() error {
			w.create(l.bot)
			return func() error {
				if err := w.isNow(l.bot, "Ready=True"); err != nil {
					return err
				}
				return w.isNow(l.tenant, "InUse=True")
			}
		},
		func() func() error {
			edit(w, l.tenant, func(t *v1alpha1.Tenant) {
				t.Spec.Egress = []v1alpha1.EgressRule{{CIDR: "10.1.0.0/16", Ports: []v1alpha1.EgressPort{{Port: 443}}}}
				t.Spec.Namespaces = append(t.Spec.Namespaces, v1alpha1.TenantNamespace{Name: t.Name + "-b"})
			})
			edit(w, l.bot, func(b *v1alpha1.BotDeployment) {
				b.Spec.Image = "registry.example/bot:v2"
				b.Spec.Credentials[0].Sealed = "seal.v1.a.b.c.d.f"
			})
			return func() error {
				if err := w.isNow(l.bot, "Ready=True"); err != nil {
					return err
				}
				return w.isNow(l.tenant, "Ready=True")
			}
		},
		func() func() error {
			edit(w, l.tenant, func(t *v1alpha1.Tenant) { t.Spec.Namespaces = t.Spec.Namespaces[:1] })
			return func() error { return w.isNow(l.tenant, "Ready=True") }
		},
		func() func() error {
			w.delete(l.bot)
			return func() error {
				if err := w.isGone(l.bot); err != nil {
					return err
				}
				return w.isNow(l.tenant, "InUse=False")
			}
		},
		func() func() error {
			w.delete(l.tenant)
			return func() error { return w.isGone(l.tenant) }
		},
	}
}

// live goes through all steps. After each it notes what exists. Where the manager's wire is cut, a new one takes over.
func (l *life) live() []map[string]any {
	l.w.t.Helper()
	var worlds []map[string]any
	for number, step := range l.steps() {
		begin := time.Now()
		done := step()
		l.w.eventually(fmt.Sprintf("step %d", number), func() error {
			if l.w.wire.isDead() {
				l.w.restart()
			}
			return done()
		})
		mid := time.Now()
		worlds = append(worlds, l.snapshot())
		l.w.t.Logf("step %d: %s + %s", number, mid.Sub(begin), time.Since(mid))
	}
	return worlds
}

// snapshot is everything in the tenant's namespaces, without what is random. What has no owner any more has been collected.
func (l *life) snapshot() map[string]any {
	w := l.w
	w.t.Helper()
	w.calm()
	found := map[string]any{}
	for _, list := range append(childLists(), &corev1.NamespaceList{}) {
		err := w.kcm.each(list, func(o client.Object) error {
			name := o.GetNamespace()
			if _, ok := o.(*corev1.Namespace); ok {
				name = o.GetName()
			}
			suffix, ours := after(name, l.tenant.Name)
			if !ours {
				return nil
			}
			raw := content(w.raw(o))
			meta, _ := raw["metadata"].(map[string]any)
			delete(meta, "ownerReferences")
			delete(meta, "annotations")
			found[fmt.Sprintf("%T %s/%s", o, suffix, o.GetName())] = meta["labels"]
			if spec, ok := raw["spec"]; ok {
				found[fmt.Sprintf("%T %s/%s", o, suffix, o.GetName())] = spec
			}
			return nil
		})
		if err != nil {
			w.t.Fatal(err)
		}
	}
	return found
}

func after(name, prefix string) (string, bool) {
	if len(name) < len(prefix) || name[:len(prefix)] != prefix {
		return "", false
	}
	return name[len(prefix):], true
}

func (w *world) isGone(object client.Object) error {
	switch err := w.get(object); {
	case apierrors.IsNotFound(err):
		return nil
	case err != nil:
		return err
	default:
		return fmt.Errorf("%s is still there", object.GetName())
	}
}

// TestCrashAtEveryWrite kills the manager at each of its writes in the life of a Tenant and a bot, before the write is sent
// and after it has landed. Every such life must look the same after each step as one without a crash.
func TestCrashAtEveryWrite(t *testing.T) {
	w := newWorld(t)
	w.settle = 50 * time.Millisecond
	w.restart()
	reference := w.newLife("crash-0-x")
	want := normal(reference.live(), "crash-0-x")
	writes := int(w.wire.writes.Load())
	t.Logf("a life takes %d writes", writes)
	if writes < 30 {
		t.Fatalf("only %d writes: the life is too short to be a test", writes)
	}
	for number := 1; number <= writes; number++ {
		for _, landed := range []bool{false, true} {
			name := fmt.Sprintf("crash-%d-%s", number, map[bool]string{false: "before", true: "after"}[landed])
			t.Run(name, func(t *testing.T) {
				w.stop()
				w := w.in(t)
				w.start(&wire{cutAt: int64(number), after: landed})
				l := w.newLife(name)
				got := normal(l.live(), name)
				if !reflect.DeepEqual(got, want) {
					for step := range want {
						if !reflect.DeepEqual(got[step], want[step]) {
							t.Errorf("step %d:\n got %v\nwant %v", step, got[step], want[step])
						}
					}
				}
				if !w.keys.isRevoked(l.tenant.UID) || !w.keys.isRevoked(l.bot.UID) {
					t.Error("keys were not revoked")
				}
				w.stop()
			})
		}
	}
}

// normal replaces the name of a life, so that two can be compared.
func normal(worlds []map[string]any, name string) []string {
	var result []string
	for _, found := range worlds {
		var lines []string
		for key, value := range found {
			lines = append(lines, strings.ReplaceAll(fmt.Sprintf("%s: %v", key, value), name, "NAME"))
		}
		slices.Sort(lines)
		result = append(result, fmt.Sprint(lines))
	}
	return result
}
