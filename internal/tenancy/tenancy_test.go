package tenancy

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

// The namespace "home" has the UID n2. One of that name, with the UID n1, was there before.
const home, isUID, wasUID = "home", "n2", "n1"

// cluster is a Reader of what is in it.
type cluster struct {
	namespaces map[string]*corev1.Namespace
	tenants    map[string]*v1alpha1.Tenant
	unserved   bool  // Tenants are not served
	fails      error // reads of Tenants fail
	reads      int
}

func (c *cluster) Get(_ context.Context, key client.ObjectKey, into client.Object, _ ...client.GetOption) error {
	c.reads++
	switch o := into.(type) {
	case *corev1.Namespace:
		if found := c.namespaces[key.Name]; found != nil {
			found.DeepCopyInto(o)
			return nil
		}
		return apierrors.NewNotFound(corev1.Resource("namespaces"), key.Name)
	case *v1alpha1.Tenant:
		if c.fails != nil {
			return c.fails
		}
		if c.unserved {
			return apierrors.NewGenericServerResponse(404, "get", schema.GroupResource{Group: v1alpha1.Group, Resource: "tenants"}, key.Name, "404 page not found", 0, true)
		}
		if found := c.tenants[key.Name]; found != nil {
			found.DeepCopyInto(o)
			return nil
		}
		return apierrors.NewNotFound(schema.GroupResource{Group: v1alpha1.Group, Resource: "tenants"}, key.Name)
	}
	return errors.New("nobody asks for that")
}

func (c *cluster) List(context.Context, client.ObjectList, ...client.ListOption) error {
	return errors.New("nobody lists")
}

// makeCluster is a namespace with the label of Tenant acme, and two Tenants that know nothing of it.
func makeCluster() *cluster {
	return &cluster{
		namespaces: map[string]*corev1.Namespace{home: {ObjectMeta: metav1.ObjectMeta{Name: home, UID: isUID, Labels: map[string]string{v1alpha1.LabelTenant: "acme"}}}},
		tenants: map[string]*v1alpha1.Tenant{
			"acme":   {ObjectMeta: metav1.ObjectMeta{Name: "acme", UID: "t2"}},
			"globex": {ObjectMeta: metav1.ObjectMeta{Name: "globex", UID: "t9"}},
		},
	}
}

// lists has a Tenant's spec list the namespace.
func (c *cluster) lists(tenant string) {
	c.tenants[tenant].Spec.Namespaces = append(c.tenants[tenant].Spec.Namespaces, v1alpha1.TenantNamespace{Name: home})
}

// holds has a Tenant's status hold the namespace, under a UID.
func (c *cluster) holds(tenant, uid string) {
	c.tenants[tenant].Status.Namespaces = append(c.tenants[tenant].Status.Namespaces, v1alpha1.TenantNamespaceStatus{Name: home, UID: uid})
}

func (c *cluster) labelled(value string) { c.namespaces[home].Labels[v1alpha1.LabelTenant] = value }

func ending(o client.Object) { o.SetDeletionTimestamp(&metav1.Time{Time: time.Unix(1, 0)}) }

// TestWhose holds every way in which namespace and Tenant can say different things. Where the manager and the
// keyserver, which each had an answer of its own once, did not agree, the row says so.
func TestWhose(t *testing.T) {
	for name, c := range map[string]struct {
		change func(c *cluster)
		want   Standing
		whose  string // the Tenant of the answer
		says   string
		reads  int
	}{
		"label and Tenant agree": {
			change: func(c *cluster) { c.lists("acme"); c.holds("acme", isUID) },
			want:   Held, whose: "acme", reads: 2,
		},
		"taken off the list while something is in it": {
			change: func(c *cluster) { c.holds("acme", isUID) },
			want:   Held, whose: "acme", reads: 2,
		},

		"no such namespace": {
			change: func(c *cluster) { c.lists("acme"); c.holds("acme", isUID); delete(c.namespaces, home) },
			want:   Nobodys, says: "belongs to no Tenant: put it into spec.namespaces", reads: 1,
		},
		"a Tenant without the label: it was taken away, or never set": {
			change: func(c *cluster) {
				c.lists("acme")
				c.holds("acme", isUID)
				delete(c.namespaces[home].Labels, v1alpha1.LabelTenant)
			},
			want: Nobodys, says: "belongs to no Tenant", reads: 1,
		},
		"an empty label": {
			change: func(c *cluster) { c.lists("acme"); c.holds("acme", isUID); c.labelled("") },
			want:   Nobodys, says: "belongs to no Tenant", reads: 1,
		},
		"a label without a Tenant": {
			change: func(c *cluster) { delete(c.tenants, "acme") },
			want:   Nobodys, says: "label of Tenant acme, which does not exist", reads: 2,
		},
		"a label whose Tenant knows nothing of it": {
			want: Nobodys, says: "label of Tenant acme, which does not list it", reads: 2,
		},
		"listed and not isolated": {
			change: func(c *cluster) { c.lists("acme") },
			want:   NotIsolated, whose: "acme", says: "Tenant acme has not isolated namespace home yet", reads: 2,
		},

		"a namespace made again under its name": {
			change: func(c *cluster) { c.lists("acme"); c.holds("acme", wasUID) },
			want:   NotIsolated, whose: "acme", says: "has not isolated", reads: 2,
		},
		// The manager waited for a Tenant that does not want it to wall it in; for the keyserver it was nobody's.
		"a namespace made again that is on the list no more": {
			change: func(c *cluster) { c.holds("acme", wasUID) },
			want:   Nobodys, says: "does not list it", reads: 2,
		},
		// The manager went by the first entry of a name alone.
		"a status with the UID of the one before, and with its own": {
			change: func(c *cluster) { c.lists("acme"); c.holds("acme", wasUID); c.holds("acme", isUID) },
			want:   Held, whose: "acme", reads: 2,
		},
		// For the manager no UID was any UID; for the keyserver none was the same as none.
		"a namespace without a UID": {
			change: func(c *cluster) { c.lists("acme"); c.holds("acme", ""); c.namespaces[home].UID = "" },
			want:   NotIsolated, whose: "acme", says: "has not isolated", reads: 2,
		},
		"a Tenant made again under its name": {
			change: func(c *cluster) {
				c.holds("acme", isUID)
				c.tenants["acme"] = &v1alpha1.Tenant{ObjectMeta: metav1.ObjectMeta{Name: "acme", UID: "t3"}}
				c.lists("acme")
			},
			want: NotIsolated, whose: "acme", says: "has not isolated", reads: 2,
		},

		"two Tenants list it": {
			change: func(c *cluster) { c.lists("acme"); c.holds("acme", isUID); c.lists("globex") },
			want:   Held, whose: "acme", reads: 2,
		},
		"two Tenants hold it": {
			change: func(c *cluster) {
				c.lists("acme")
				c.holds("acme", isUID)
				c.lists("globex")
				c.holds("globex", isUID)
			},
			want: Held, whose: "acme", reads: 2,
		},
		"the label of another Tenant that lists it": {
			change: func(c *cluster) {
				c.lists("acme")
				c.holds("acme", isUID)
				c.lists("globex")
				c.labelled("globex")
			},
			want: NotIsolated, whose: "globex", says: "Tenant globex has not isolated", reads: 2,
		},
		"the label of another Tenant that does not": {
			change: func(c *cluster) { c.lists("acme"); c.holds("acme", isUID); c.labelled("globex") },
			want:   Nobodys, says: "label of Tenant globex, which does not list it", reads: 2,
		},

		// The manager went on there as if nothing were; the keyserver gave nothing.
		"the namespace is being deleted": {
			change: func(c *cluster) { c.lists("acme"); c.holds("acme", isUID); ending(c.namespaces[home]) },
			want:   NamespaceEnding, says: "namespace home is being deleted", reads: 1,
		},
		// For the manager it was nobody's.
		"the namespace is being deleted, and has no label": {
			change: func(c *cluster) { c.labelled(""); ending(c.namespaces[home]) },
			want:   NamespaceEnding, says: "namespace home is being deleted", reads: 1,
		},
		// For both it was the Tenant's, and each caller had to think of it.
		"the Tenant is being deleted": {
			change: func(c *cluster) { c.lists("acme"); c.holds("acme", isUID); ending(c.tenants["acme"]) },
			want:   TenantEnding, whose: "acme", says: "Tenant acme is being deleted", reads: 2,
		},
		// Both waited for it to be isolated, which it never is.
		"a Tenant that is being deleted lists it and has not isolated it": {
			change: func(c *cluster) { c.lists("acme"); ending(c.tenants["acme"]) },
			want:   Nobodys, says: "is not isolated, and Tenant acme, which lists it, is being deleted", reads: 2,
		},
		"a Tenant that is being deleted, and holds another of that name": {
			change: func(c *cluster) { c.lists("acme"); c.holds("acme", wasUID); ending(c.tenants["acme"]) },
			want:   Nobodys, says: "is being deleted", reads: 2,
		},

		// The status never has one of those, since the manager refuses to wall it in. Whatever it says, no program of
		// a tenant's runs there.
		"the cluster's own": {
			change: func(c *cluster) {
				c.namespaces[home].Name = "kube-system"
				c.tenants["acme"].Spec.Namespaces = []v1alpha1.TenantNamespace{{Name: "kube-system"}}
				c.tenants["acme"].Status.Namespaces = []v1alpha1.TenantNamespaceStatus{{Name: "kube-system", UID: isUID}}
			},
			want: Nobodys, says: "kube-system is the cluster's own", reads: 2,
		},
		"what the namespace's annotations say": {
			change: func(c *cluster) {
				c.labelled("")
				c.holds("acme", isUID)
				c.namespaces[home].Annotations = map[string]string{"lethe.dev/created-for": "t2", v1alpha1.LabelTenant: "acme"}
			},
			want: Nobodys, says: "belongs to no Tenant", reads: 1,
		},
	} {
		t.Run(name, func(t *testing.T) {
			all := makeCluster()
			if c.change != nil {
				c.change(all)
			}
			got, err := Read(t.Context(), all, home)
			if err != nil {
				t.Fatal(err)
			}
			whose := ""
			if got.Tenant != nil {
				whose = got.Tenant.Name
			}
			if got.Standing != c.want || whose != c.whose {
				t.Errorf("standing %d of %q, want %d of %q", got.Standing, whose, c.want, c.whose)
			}
			if (got.Why == "") != (c.want == Held) || !strings.Contains(got.Why, c.says) || strings.HasSuffix(got.Why, ".") {
				t.Errorf("it says %q, want %q", got.Why, c.says)
			}
			if all.reads != c.reads {
				t.Errorf("%d reads, want %d", all.reads, c.reads)
			}
		})
	}
}

// TestOfBelievesTheNamedTenantAlone: whoever hands over another Tenant than the label names gets no other answer.
func TestOfBelievesTheNamedTenantAlone(t *testing.T) {
	all := makeCluster()
	all.lists("globex")
	all.holds("globex", isUID)
	if got := Of(all.namespaces[home], all.tenants["globex"]); got.Standing != Nobodys || got.Tenant != nil {
		t.Errorf("standing %d of %v", got.Standing, got.Tenant)
	}
	if got := (Answer{}); got.Standing != Nobodys {
		t.Error("an answer that nobody gave lets something run")
	}
}

// TestAFailedReadIsNoAnswer: neither an API server that is away nor a kind that it does not serve says that a
// namespace is nobody's.
func TestAFailedReadIsNoAnswer(t *testing.T) {
	away := errors.New("etcd is away")
	for name, fail := range map[string]func(c *cluster){
		"Tenants cannot be read": func(c *cluster) { c.fails = away },
		"Tenants are not served": func(c *cluster) { c.unserved = true },
		"another object is missing": func(c *cluster) {
			c.fails = apierrors.NewNotFound(schema.GroupResource{Group: v1alpha1.Group, Resource: "tenants"}, "somebody")
		},
	} {
		all := makeCluster()
		all.lists("acme")
		all.holds("acme", isUID)
		fail(all)
		if got, err := Read(t.Context(), all, home); err == nil || got.Tenant != nil {
			t.Errorf("%s: standing %d, error %v", name, got.Standing, err)
		}
	}
}

func TestMentions(t *testing.T) {
	for name, c := range map[string]struct {
		change func(c *cluster)
		want   bool
	}{
		"nowhere":             {func(*cluster) {}, false},
		"in the spec":         {func(c *cluster) { c.lists("acme") }, true},
		"under another's UID": {func(c *cluster) { c.holds("acme", wasUID) }, true},
	} {
		all := makeCluster()
		c.change(all)
		if got := Mentions(all.tenants["acme"], home); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

func TestIsReserved(t *testing.T) {
	for name, want := range map[string]bool{"kube-system": true, "kube-anything": true, "kubernetes": false, "lethe-system": true, "lethe-keys": true, "lethe-keys-2": false, "home": false} {
		if got := IsReserved(name, "lethe-system", "lethe-keys"); got != want {
			t.Errorf("%s: %t", name, got)
		}
	}
}
