package walls

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	lethev1 "github.com/lethe-dev/lethe/api/v1alpha1"
)

// ownNS is a tenant's namespace with what Lethe itself has in it, as internal/resources renders it.
const ownNS = "acme-own"

// golden are the renderings of internal/resources, by file and kind.
var golden = []struct{ file, kind string }{
	{"bot-serviceaccount", "serviceaccounts"}, {"sweep-serviceaccount", "serviceaccounts"}, {"bot-claim", "persistentvolumeclaims"},
	{"bot-networkpolicy", "networkpolicies.networking.k8s.io"}, {"sweep-networkpolicy", "networkpolicies.networking.k8s.io"},
	{"tenant-networkpolicies", "networkpolicies.networking.k8s.io"}, {"bot-statefulset", "statefulsets.apps"}, {"sweep-cronjob", "cronjobs.batch"},
	{"sweep-catchup", "jobs.batch"}, {"sweep-plan", "configmaps"}, {"tenant-cabundle", "configmaps"}, {"tenant-rolebindings", "rolebindings.rbac.authorization.k8s.io"},
	{"tenant-limitrange", "limitranges"}, {"tenant-resourcequotas", "resourcequotas"},
}

// makeOwn makes them as who makes them, and returns their names by kind. Those quotas come last, since nothing counts
// here.
func (s *sweep) makeOwn() map[string][]string {
	s.t.Helper()
	mustCreate(s.t, namespace(ownNS, map[string]string{lethev1.LabelTenant: tenant}))
	names := map[string][]string{}
	manager := as(managerUser, "system:masters")
	put := func(by identity, kind string, o *unstructured.Unstructured) {
		o.SetGroupVersionKind(s.served[kind])
		o.SetNamespace(ownNS)
		if err := by.Create(s.t.Context(), o); err != nil {
			s.t.Fatalf("make %s %s: %v", kind, o.GetName(), err)
		}
		names[kind] = append(names[kind], o.GetName())
	}
	for _, g := range golden {
		content, err := os.ReadFile(filepath.Join(server.Root, "internal/resources/testdata", g.file+".golden.yaml"))
		if err != nil {
			s.t.Fatal(err)
		}
		for _, document := range strings.Split(string(content), "---\n") {
			o := &unstructured.Unstructured{Object: map[string]any{}}
			if err := yaml.Unmarshal([]byte(document), &o.Object); err != nil {
				s.t.Fatal(err)
			}
			if o.GetName() == "" {
				continue
			}
			if g.kind == "resourcequotas" {
				s.makePods(put)
			}
			put(manager, g.kind, o)
			if g.kind == "statefulsets.apps" || g.kind == "jobs.batch" {
				s.pods = append(s.pods, podOf(s, o))
			}
		}
	}
	key := &unstructured.Unstructured{Object: map[string]any{"data": map[string]any{"key": "x"}}}
	key.SetName("lethe-sealing-key")
	key.SetLabels(map[string]string{lethev1.LabelManagedBy: lethev1.ManagedByLethe})
	put(manager, "configmaps", key)
	credentials := &unstructured.Unstructured{Object: map[string]any{}}
	credentials.SetName("helper-cred-0123456789")
	credentials.SetLabels(map[string]string{lethev1.LabelManagedBy: lethev1.ManagedByLethe})
	put(as(keyserverUser, "system:masters"), "secrets", credentials)
	for kind := range names {
		slices.Sort(names[kind])
	}
	return names
}

// makePods makes the pods of what was rendered, once, as Kubernetes does.
func (s *sweep) makePods(put func(identity, string, *unstructured.Unstructured)) {
	for _, pod := range s.pods {
		put(cluster(), "pods", pod)
	}
	s.pods = nil
}

func podOf(s *sweep, owner *unstructured.Unstructured) *unstructured.Unstructured {
	template, found, err := unstructured.NestedMap(owner.Object, "spec", "template")
	if err != nil || !found {
		s.t.Fatalf("no template in %s: %v", owner.GetName(), err)
	}
	pod := &unstructured.Unstructured{Object: template}
	pod.SetName(owner.GetName() + "-0")
	unstructured.RemoveNestedField(pod.Object, "spec", "priorityClassName")
	unstructured.RemoveNestedField(pod.Object, "metadata", "creationTimestamp")
	if err := unstructured.SetNestedField(pod.Object, "n", "spec", "nodeName"); err != nil {
		s.t.Fatal(err)
	}
	return pod
}

// tryOwn tries a right that writes on each of Lethe's own objects of its kind, with a label, a finalizer that holds
// it and an owner that takes it along, and returns what is allowed.
func (s *sweep) tryOwn(who *rest.RESTClient, role string, r right, own map[string][]string) {
	s.t.Helper()
	writes := slices.Contains([]string{"update", "patch", "delete", "deletecollection"}, r.verb) || (r.verb == "create" && r.subresource != "")
	if r.subresource != "" && r.verb == "get" && slices.Contains([]string{"attach", "exec", "portforward", "proxy"}, r.subresource) {
		writes = true
	}
	if !writes {
		return
	}
	names := own[r.kind()]
	if r.verb == "deletecollection" && len(names) > 0 {
		names = []string{"(all)"}
	}
	changes := []string{change}
	if r.verb == "update" || r.verb == "patch" {
		changes = append(changes, `{"metadata":{"finalizers":["sweep.example/held"]}}`,
			`{"metadata":{"ownerReferences":[{"apiVersion":"v1","kind":"ConfigMap","name":"x","uid":"1"}]}}`)
	}
	for _, name := range names {
		for _, change := range changes {
			outcome := s.tryOn(who, r, ownNS, name, change)
			if strings.HasPrefix(outcome, "refused") {
				continue
			}
			s.t.Errorf("%s may %s %s, which is Lethe's own, with %s: %s", role, r, name, change, outcome)
		}
	}
	if len(names) > 0 {
		s.tried[r.kind()] = true
	}
}

// tryAsTheBot acts as a bot's ServiceAccount, by the verb impersonate that edit and admin have on ServiceAccounts:
// with credentials of its own and not by the administrator's, and with every right that admin would have.
func (s *sweep) tryAsTheBot() {
	s.t.Helper()
	const name = "impersonator"
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: otherNS, Name: name}}
	mustCreate(s.t, account)
	mustCreate(s.t, binding(ownNS, name, "sweep:admin", serviceAccount(otherNS, name)))
	request := &authenticationv1.TokenRequest{}
	if err := admin.SubResource("token").Create(s.t.Context(), account, request); err != nil {
		s.t.Fatal(err)
	}
	bot := "system:serviceaccount:" + ownNS + ":helper-bot"
	config := &rest.Config{Host: server.Config.Host, TLSClientConfig: rest.TLSClientConfig{CAData: server.Config.CAData}, BearerToken: request.Status.Token,
		Impersonate: rest.ImpersonationConfig{UserName: bot}, QPS: -1}
	typed, err := client.New(config, client.Options{Scheme: server.Scheme, Mapper: admin.RESTMapper()})
	if err != nil {
		s.t.Fatal(err)
	}
	waitFor(s.t, "acting as the bot's account", func(ctx context.Context) bool {
		review := &authenticationv1.SelfSubjectReview{}
		return typed.Create(ctx, review) == nil && review.Status.UserInfo.Username == bot
	})
	config.GroupVersion, config.NegotiatedSerializer = &schema.GroupVersion{}, scheme.Codecs.WithoutConversion()
	c, err := rest.UnversionedRESTClientFor(config)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, r := range s.rights("admin") {
		if outcome := s.tryOn(c, r, ownNS, "helper-bot", change); r.verb != "impersonate" && !strings.HasPrefix(outcome, "refused") {
			s.t.Errorf("as the bot's ServiceAccount one may %s: %s", r, outcome)
		}
	}
}
