package operator

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	tenantcontroller "github.com/lethe-dev/lethe/controllers/tenant"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/test/kcm"
)

// IsEmpty says what is left of ours in a namespace.
func (w *World) IsEmpty(namespace string) error {
	return w.None("left", kcm.ChildLists(), namespace, func(client.Object) bool { return true })
}

// IsGone is nil once an object is.
func (w *World) IsGone(object client.Object) error {
	switch err := w.Get(object); {
	case apierrors.IsNotFound(err):
		return nil
	case err != nil:
		return err
	default:
		return fmt.Errorf("%s is still there", object.GetName())
	}
}

// In is the same world in a subtest.
func (w *World) In(t *testing.T) *World {
	copied := *w
	copied.T = t
	return &copied
}

// Says waits for a text in one of an object's messages.
func (w *World) Says(object client.Object, text string) error {
	if err := w.Get(object); err != nil {
		return err
	}
	conditions, _ := conditionsOf(object)
	for _, c := range conditions {
		if strings.Contains(c.Message, text) {
			return nil
		}
	}
	return fmt.Errorf("no condition says %q: %+v", text, conditions)
}

// Replicas of a bot's StatefulSet, and none when there is none.
func (w *World) Replicas(bot *v1alpha1.BotDeployment) int32 {
	w.T.Helper()
	set := SetOf(bot)
	switch err := w.Get(set); {
	case apierrors.IsNotFound(err):
		return 0
	case err != nil:
		w.T.Fatal(err)
	}
	return *set.Spec.Replicas
}

// None says which objects of ours in a namespace are such.
func (w *World) None(what string, lists []client.ObjectList, namespace string, such func(client.Object) bool) error {
	var found []string
	for _, list := range lists {
		err := w.KCM.Each(list, func(o client.Object) error {
			if such(o) {
				found = append(found, fmt.Sprintf("%T %s", o, o.GetName()))
			}
			return nil
		}, client.InNamespace(namespace), client.MatchingLabels{v1alpha1.LabelManagedBy: v1alpha1.ManagedByLethe})
		if err != nil {
			return err
		}
	}
	if len(found) > 0 {
		return fmt.Errorf("%s: %v", what, found)
	}
	return nil
}

// CreateBots makes many bots.
func (w *World) CreateBots(namespace string, n int) []*v1alpha1.BotDeployment {
	w.T.Helper()
	var bots []*v1alpha1.BotDeployment
	for i := range n {
		bots = append(bots, MakeBot(namespace, fmt.Sprintf("bot-%03d", i)))
		w.Create(bots[i])
	}
	return bots
}

// Versions of everything that the manager could have written.
func (w *World) Versions() map[string]string {
	w.T.Helper()
	versions := map[string]string{}
	for _, list := range append(kcm.ChildLists(), kcm.OwnLists()...) {
		err := w.KCM.Each(list, func(o client.Object) error {
			versions[fmt.Sprintf("%T %s/%s", o, o.GetNamespace(), o.GetName())] = o.GetResourceVersion()
			return nil
		})
		if err != nil {
			w.T.Fatal(err)
		}
	}
	return versions
}

// kindOfWrite shortens "PATCH /apis/lethe.dev/v1alpha1/namespaces/a/botdeployments/b/status" to "PATCH
// botdeployments/status".
func kindOfWrite(write string) string {
	verb, path, _ := strings.Cut(write, " ")
	parts := strings.Split(strings.TrimPrefix(path, "/"), "/")
	for i, part := range parts {
		if part == "namespaces" && i+2 < len(parts) {
			parts = parts[i+2:]
			break
		}
	}
	kind := parts[0]
	if parts[len(parts)-1] == "status" {
		kind += "/status"
	}
	return verb + " " + kind
}

// ErrNotYet is for conditions that have nothing more to say.
var ErrNotYet = errors.New("not yet")

// WithTenant is a world with a Tenant that is ready.
func WithTenant(t *testing.T, name string) (*World, *v1alpha1.Tenant) {
	t.Helper()
	w := NewWorld(t)
	tenant := MakeTenant(name, name+"-a")
	w.Create(tenant)
	w.Becomes(tenant, "Ready=True")
	return w, tenant
}

// SetOf names a bot's StatefulSet.
func SetOf(bot *v1alpha1.BotDeployment) *appsv1.StatefulSet {
	return &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Namespace: bot.Namespace, Name: resources.BotName(bot.Name)}}
}

// OneEvent waits for the event with a reason, and checks that there is one.
func (w *World) OneEvent(object client.Object, reason string) {
	w.T.Helper()
	w.HasEvents(object, reason, 1)
}

// HasEvents waits for so many events with a reason.
func (w *World) HasEvents(object client.Object, reason string, want int) {
	w.T.Helper()
	w.Eventually("event "+reason, func() error {
		events := &eventsv1.EventList{}
		if err := w.Admin.List(context.Background(), events); err != nil {
			return err
		}
		count := 0
		for i := range events.Items {
			if e := &events.Items[i]; e.Reason == reason && e.Regarding.UID == object.GetUID() {
				count++
				if e.Series != nil {
					count += int(e.Series.Count)
				}
			}
		}
		if count != want {
			return fmt.Errorf("%d events", count)
		}
		return nil
	})
}

// HasReplicas waits for a bot's StatefulSet to have so many.
func (w *World) HasReplicas(bot *v1alpha1.BotDeployment, want int32) {
	w.T.Helper()
	w.Eventually("replicas", func() error {
		set := SetOf(bot)
		if err := w.Get(set); err != nil {
			return err
		}
		if *set.Spec.Replicas != want {
			return fmt.Errorf("%d replicas, want %d", *set.Spec.Replicas, want)
		}
		return nil
	})
}

// Audit is the mode in which nothing is deleted.
const Audit = v1alpha1.PolicyAudit

// Content leaves out what changes with every write.
func Content(object *unstructured.Unstructured) map[string]any {
	c := object.DeepCopy()
	for _, field := range []string{"resourceVersion", "generation", "managedFields", "uid", "creationTimestamp"} {
		unstructured.RemoveNestedField(c.Object, "metadata", field)
	}
	unstructured.RemoveNestedField(c.Object, "status")
	return c.Object
}

// ChildrenOf are what the builders make for a Tenant and a bot.
func ChildrenOf(tenant *v1alpha1.Tenant, bot *v1alpha1.BotDeployment) []client.Object {
	namespace := bot.Namespace
	children := []client.Object{
		resources.Namespace(tenant, namespace, true), resources.TenantCABundle(tenant, namespace, "", ""),
		resources.BotNetworkPolicy(TestSettings(), bot, tenant), resources.BotServiceAccount(bot), resources.BotStatefulSet(TestSettings(), bot, tenant, "x"),
	}
	children = append(children, tenantcontroller.Isolation(TestSettings(), tenant, namespace)...)
	for _, binding := range resources.TenantRoleBindings(TestSettings(), tenant, namespace) {
		children = append(children, binding)
	}
	return children
}
