package keyserver

import (
	"context"
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/internal/keystore"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/internal/tenancy"
	"github.com/lethe-dev/lethe/test/env"
)

// TestAKindThatIsNotServedIsNotGone: an API server answers 404 for every object of a kind that it does not serve, be
// it that a version was switched off or that the CRD is gone. Nothing is destroyed, given away or forgotten for that.
func TestAKindThatIsNotServedIsNotGone(t *testing.T) {
	shared := testEnv
	testEnv = env.Start(t) // here kinds go away for everybody
	t.Cleanup(func() { testEnv = shared })
	for _, how := range []struct {
		name   string
		change func(w *world, crd *unstructured.Unstructured)
	}{
		{"a version that is not served", func(w *world, crd *unstructured.Unstructured) {
			versions, _, err := unstructured.NestedSlice(crd.Object, "spec", "versions")
			w.must(err)
			version := versions[0].(map[string]any)
			version["served"] = false
			w.must(unstructured.SetNestedSlice(crd.Object, versions, "spec", "versions"))
			w.must(testEnv.Client.Update(w.Context(), crd))
		}},
		{"a CRD that is gone", func(w *world, crd *unstructured.Unstructured) {
			var bots v1alpha1.BotDeploymentList
			if crd.GetName() == "botdeployments."+v1alpha1.GroupVersion.Group {
				w.must(testEnv.Client.List(w.Context(), &bots))
				for i := range bots.Items { // none holds the CRD up
					bots.Items[i].Finalizers = nil
					w.must(testEnv.Client.Update(w.Context(), &bots.Items[i]))
				}
			}
			w.must(testEnv.Client.Delete(w.Context(), crd))
		}},
	} {
		t.Run(how.name, func(t *testing.T) {
			s := newOrphanScene(t)
			for _, plural := range []string{"botdeployments", "datastores", "tenants"} {
				crd := &unstructured.Unstructured{}
				crd.SetGroupVersionKind(schema.GroupVersionKind{Group: "apiextensions.k8s.io", Version: "v1", Kind: "CustomResourceDefinition"})
				s.must(testEnv.Client.Get(t.Context(), client.ObjectKey{Name: plural + "." + v1alpha1.GroupVersion.Group}, crd))
				how.change(s.world, crd)
			}
			s.eventually(func() bool {
				err := testEnv.Client.Get(t.Context(), client.ObjectKey{Namespace: s.ns, Name: s.bot.Name}, &v1alpha1.BotDeployment{})
				tenantErr := testEnv.Client.Get(t.Context(), client.ObjectKey{Name: s.tenant.Name}, &v1alpha1.Tenant{})
				return apierrors.IsNotFound(err) && apierrors.HasStatusCause(err, metav1.CauseTypeUnexpectedServerResponse) &&
					apierrors.IsNotFound(tenantErr) && apierrors.HasStatusCause(tenantErr, metav1.CauseTypeUnexpectedServerResponse)
			})
			for _, ref := range []keyapi.ObjectRef{refTo("BotDeployment", s.bot), refTo("DataStore", s.chat), refTo("Tenant", s.tenant)} {
				s.wantRefusal(s.call(keyapi.PathRevoke, s.manager, keyapi.RevokeRequest{Object: ref}, nil), v1alpha1.ReasonInternal)
			}
			s.wantRefusal(s.call(keyapi.PathTenant, s.manager, keyapi.TenantRequest{Tenant: refTo("Tenant", s.tenant)}, nil), v1alpha1.ReasonInternal)
			for range 4 {
				s.clock.SetTime(s.clock.Now().Add(channelsEvery))
				if err := s.server.Maintain(t.Context()); err == nil {
					t.Error("nobody is told that owners cannot be asked for")
				}
			}
			if n, err := s.server.sealedWith(t.Context(), keystore.TenantDoc{Tenant: s.tenant.Name, UID: string(s.tenant.UID)}, "x"); err == nil {
				t.Errorf("%d live values are counted, of objects that cannot be read", n)
			}
			if needs, err := s.server.stillHolds(t.Context(), keystore.ChannelHolderDoc{Namespace: s.ns, Name: s.bot.Name, UID: string(s.bot.UID)}); !needs {
				t.Errorf("the bot's channel is given away: %v", err)
			}
			if whose, err := tenancy.Read(t.Context(), testEnv.Client, s.ns); err == nil {
				t.Errorf("it is said whose the namespace is: %+v", whose)
			}
			for _, name := range append([]string{keystore.TenantSecretName(s.tenant.Name), keystore.ObjectSecretName(string(s.bot.UID)), keystore.ObjectSecretName(string(s.chat.UID)), s.holder}, s.others...) {
				if s.keyGone(name) {
					t.Errorf("%s is gone", name)
				}
			}
			for _, set := range []string{s.botSet, s.storeSet} {
				if s.secretGone(s.ns, set) {
					t.Errorf("the encrypted Secret %s is gone", set)
				}
			}
			if how.name != "a CRD that is gone" {
				s.servedAgain(t)
				s.wantRefusal(s.call(keyapi.PathRevoke, s.manager, keyapi.RevokeRequest{Object: refTo("BotDeployment", s.bot)}, nil), v1alpha1.ReasonForbidden)
			}
		})
	}
}

// servedAgain switches the version on again.
func (w *world) servedAgain(t *testing.T) {
	t.Helper()
	for _, plural := range []string{"botdeployments", "datastores", "tenants"} {
		crd := &unstructured.Unstructured{}
		crd.SetGroupVersionKind(schema.GroupVersionKind{Group: "apiextensions.k8s.io", Version: "v1", Kind: "CustomResourceDefinition"})
		w.must(testEnv.Client.Get(t.Context(), client.ObjectKey{Name: plural + "." + v1alpha1.GroupVersion.Group}, crd))
		versions, _, err := unstructured.NestedSlice(crd.Object, "spec", "versions")
		w.must(err)
		versions[0].(map[string]any)["served"] = true
		w.must(unstructured.SetNestedSlice(crd.Object, versions, "spec", "versions"))
		w.must(testEnv.Client.Update(t.Context(), crd))
	}
	w.eventually(func() bool {
		for _, list := range []client.ObjectList{&v1alpha1.BotDeploymentList{}, &v1alpha1.DataStoreList{}, &v1alpha1.TenantList{}} {
			if testEnv.Client.List(t.Context(), list) != nil {
				return false
			}
		}
		return true
	})
}

// pagesHook lets only so many documents into one answer, and can end a list in the middle.
type pagesHook struct {
	client.Client
	limit int64
	// fail is asked for every page after a first one.
	fail  func() error
	pages int
	whole bool // a list without a limit was asked for
}

func (h *pagesHook) List(ctx context.Context, list client.ObjectList, opts ...client.ListOption) error {
	if _, documents := list.(*corev1.SecretList); !documents {
		return h.Client.List(ctx, list, opts...)
	}
	asked := (&client.ListOptions{}).ApplyOptions(opts)
	h.whole = h.whole || asked.Limit == 0
	h.pages++
	if asked.Continue != "" && h.fail != nil {
		if err := h.fail(); err != nil {
			return err
		}
	}
	return h.Client.List(ctx, list, append(opts, client.Limit(h.limit))...)
}

// TestEveryListIsReadInPages: a list whose continue token has expired is begun again, each document still counts
// once, and of one that could not be read to its end nothing is concluded.
func TestEveryListIsReadInPages(t *testing.T) {
	w := newRotationWorld(t)
	var bots []*v1alpha1.BotDeployment
	for i := range 4 {
		bot, _ := w.newBot(fmt.Sprintf("bot-%d", i), telegram)
		w.storeAndRecord(bot)
		bots = append(bots, bot)
	}
	for _, bot := range bots[:2] {
		w.must(testEnv.Client.Delete(t.Context(), bot))
	}
	hook := &pagesHook{Client: w.writes.Client, limit: 2}
	w.writes.Client = hook
	round := func() error {
		w.clock.SetTime(w.clock.Now().Add(channelsEvery))
		return w.server.Maintain(t.Context())
	}
	broken := apierrors.NewServiceUnavailable("the API server restarts")
	hook.fail = func() error { return broken }
	for range 4 {
		if err := round(); err == nil {
			t.Error("a list that broke off is no error")
		}
	}
	for _, bot := range bots {
		if w.keyGone(keystore.ObjectSecretName(string(bot.UID))) {
			t.Errorf("the keys of %s are gone after a list that was never whole", bot.Name)
		}
	}
	if err := w.server.keys.MayMakeKeys(t.Context(), &v1alpha1.Tenant{ObjectMeta: metav1.ObjectMeta{Name: w.tenant.Name, UID: "new"}}); err == nil {
		t.Error("keys may be made, although it is not known whether there were some")
	}
	expired := 0
	hook.fail = func() error {
		if expired++; expired%9 == 2 {
			return apierrors.NewResourceExpired("the continue token is too old")
		}
		return nil
	}
	owners, _, err := w.server.keyOwners(t.Context())
	w.must(err)
	if len(owners) != 5 || expired < 3 {
		t.Errorf("%d documents of owners, want the Tenant's and 4 bots', once each (%d pages)", len(owners), expired)
	}
	for range 3 {
		expired = 0
		w.must(round())
	}
	for i, bot := range bots {
		if gone := w.keyGone(keystore.ObjectSecretName(string(bot.UID))); gone != (i < 2) {
			t.Errorf("the keys of %s: gone is %t", bot.Name, gone)
		}
	}
	var holders corev1.SecretList
	w.must(testEnv.Client.List(t.Context(), &holders, client.InNamespace(w.opts.KeysNamespace), client.MatchingLabels{v1alpha1.LabelComponent: keystore.ComponentChannel}))
	if n := len(holders.Items); n != 2 {
		t.Errorf("%d channels are held, want 2", n)
	}
	hook.fail = func() error { return apierrors.NewResourceExpired("always") }
	before := hook.pages
	if _, _, err := w.server.keyOwners(t.Context()); err == nil || hook.pages-before > 6 {
		t.Errorf("a list that expires every time: %v after %d pages", err, hook.pages-before)
	}
	if hook.whole {
		t.Error("a list was asked for as a whole")
	}
}

// TestDifferingTenantsAreTold: the manager learns from the ConfigMap of the CA bundle whose keys are not those of the
// status, and only when that changes.
func TestDifferingTenantsAreTold(t *testing.T) {
	w := newWorld(t)
	w.must(w.server.Maintain(t.Context()))
	w.tenantKeys()
	bundle := func() *corev1.ConfigMap {
		cm := &corev1.ConfigMap{}
		w.must(testEnv.Client.Get(t.Context(), client.ObjectKey{Namespace: w.opts.Settings.Namespace, Name: resources.CABundleName}, cm))
		return cm
	}
	said := func(want bool) {
		t.Helper()
		w.pass(orphansEvery)
		if got := resources.KeysDiffer(bundle(), w.tenant.UID); got != want {
			t.Errorf("the Tenant is said to differ: %t, want %t\n%s", got, want, bundle().Data[resources.DifferingKey])
		}
	}
	said(false)
	secret := w.getSecret(w.opts.KeysNamespace, keystore.TenantSecretName(w.tenant.Name))
	earlier := secret.DeepCopy()
	w.must(testEnv.Client.Delete(t.Context(), secret))
	said(true)
	version := bundle().ResourceVersion
	w.must(w.server.Maintain(t.Context()))
	other, err := New(w.opts)
	w.must(err)
	w.must(other.Maintain(t.Context()))
	said(true)
	if now := bundle().ResourceVersion; now != version {
		t.Error("it is written again although nothing has changed")
	}
	earlier.ResourceVersion, earlier.UID = "", ""
	w.must(testEnv.Client.Create(t.Context(), earlier.DeepCopy()))
	said(false)

	// An earlier copy in the place of the present one.
	w.must(testEnv.Client.Get(t.Context(), client.ObjectKeyFromObject(w.tenant), w.tenant))
	before := w.tenant.DeepCopy()
	w.tenant.Status.KeysGeneration++
	w.must(testEnv.Client.Status().Patch(t.Context(), w.tenant, client.MergeFrom(before)))
	said(true)
}

// TestRotationDoesNotHideAnEarlierCopy: a pass of the rotation that comes upon an earlier copy of a document writes
// nothing on it. One more write would give it the number that the live object has seen.
func TestRotationDoesNotHideAnEarlierCopy(t *testing.T) {
	w := newRotationWorld(t)
	bot, _ := w.newBot("support")
	w.storeAndRecord(bot)
	earlier := map[string]*corev1.Secret{}
	for _, name := range []string{keystore.TenantSecretName(w.tenant.Name), keystore.ObjectSecretName(string(bot.UID))} {
		earlier[name] = w.getSecret(w.opts.KeysNamespace, name)
	}
	rotate := func() {
		t.Helper()
		w.later(time.Minute)
		for _, layer := range []keystore.Layer{keystore.LayerSealing, keystore.LayerTenant, keystore.LayerData} {
			w.ask(func(cm *corev1.ConfigMap) error { return keystore.AskRotation(cm, layer, w.tenant.Name, w.clock.Now()) })
		}
	}
	rotate()
	w.settle()
	w.tenantKeys()
	w.storeAndRecord(bot)
	for name, was := range earlier {
		secret := w.getSecret(w.opts.KeysNamespace, name)
		secret.Data = was.Data
		w.must(testEnv.Client.Update(t.Context(), secret))
	}
	rotate()
	for range 4 {
		w.later(lateWrites)
		w.must(w.server.Rotate(t.Context()))
	}
	for name, was := range earlier {
		if string(w.getSecret(w.opts.KeysNamespace, name).Data[keystore.DocumentKey]) != string(was.Data[keystore.DocumentKey]) {
			t.Errorf("%s, an earlier copy, was written on", name)
		}
	}
	if st := w.rotation(); len(st.Problems) == 0 {
		t.Errorf("the rotation names no problem: %+v", st)
	}
	w.wantRefusal(w.call(keyapi.PathTenant, w.manager, keyapi.TenantRequest{Tenant: refTo("Tenant", w.tenant)}, nil), v1alpha1.ReasonKeysRolledBack)
}
