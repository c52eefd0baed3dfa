package guest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Guest is a play's hand in somebody's cluster.
type Guest struct {
	Client client.Client
	Play   *Play
	// Note is told what takes long.
	Note func(format string, args ...any)
	// DNS is the namespace in which the chart lets the manager look at DNS.
	DNS string
	// Begun is the mark that was made here, if one was: what carries it, and no other, is this run's own.
	Begun types.UID

	discovery discovery.DiscoveryInterface
	clientset kubernetes.Interface
	run       string // names this run
	beat      time.Duration
	dead      string // the version of a Lease that nobody renews
	held      *coordinationv1.Lease
	end       func() // of its renewal
}

// New takes the cluster that a kubeconfig's only context names.
func New(cfg *rest.Config, scheme *kruntime.Scheme, play *Play, note func(format string, args ...any)) (*Guest, error) {
	c, err := client.New(cfg, client.Options{Scheme: scheme})
	if err != nil {
		return nil, fmt.Errorf("make a client: %w", err)
	}
	set, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("make a client: %w", err)
	}
	return (&Guest{Client: c, Play: play, Note: note, discovery: set.Discovery(), clientset: set}).ready(), nil
}

// ready fills in what every run has.
func (g *Guest) ready() *Guest {
	g.DNS, g.run, g.beat, g.end = metav1.NamespaceSystem, rand.Text(), 2*time.Second, func() {}
	return g
}

// Pinned is the user's kubeconfig with its current context, or another that is named, alone and in itself: whoever
// changes the current context while the demo runs does not move it to another cluster.
func Pinned(kubeContext string) (*clientcmdapi.Config, error) {
	cfg, err := clientcmd.NewDefaultClientConfigLoadingRules().Load()
	if err != nil {
		return nil, fmt.Errorf("read your kubeconfig: %w", err)
	}
	if kubeContext != "" {
		cfg.CurrentContext = kubeContext
	}
	if cfg.CurrentContext == "" {
		return nil, errors.New("your kubeconfig has no current context: choose one with kubectl config use-context, or CONTEXT=…")
	}
	if err := clientcmdapi.MinifyConfig(cfg); err != nil {
		return nil, fmt.Errorf("context %q of your kubeconfig: %w", cfg.CurrentContext, err)
	}
	if cfg.Clusters[cfg.Contexts[cfg.CurrentContext].Cluster] == nil {
		return nil, fmt.Errorf("context %q of your kubeconfig names cluster %q, which is not in it: see kubectl config view", cfg.CurrentContext, cfg.Contexts[cfg.CurrentContext].Cluster)
	}
	if err := clientcmdapi.FlattenConfig(cfg); err != nil {
		return nil, fmt.Errorf("context %q of your kubeconfig: %w", cfg.CurrentContext, err)
	}
	return cfg, nil
}

// Named fills in what a kubeconfig says.
func (f *Facts) Named(cfg *clientcmdapi.Config) {
	f.Context = cfg.CurrentContext
	current := cfg.Contexts[cfg.CurrentContext]
	f.User = current.AuthInfo
	cluster := cfg.Clusters[current.Cluster]
	f.Server = cluster.Server
	for _, extension := range cluster.Extensions {
		if u, ok := extension.(*kruntime.Unknown); ok && strings.Contains(string(u.Raw), `"minikube.sigs.k8s.io"`) {
			f.Minikube = true
		}
	}
}

// ID is the cluster's: no other has it.
func (g *Guest) ID(ctx context.Context) (string, error) {
	var ns corev1.Namespace
	if err := g.Client.Get(ctx, client.ObjectKey{Name: metav1.NamespaceSystem}, &ns); err != nil {
		return "", fmt.Errorf("look at the cluster: %w", err)
	}
	return string(ns.UID), nil
}

// Look finds out about the cluster, and changes nothing.
func (g *Guest) Look(ctx context.Context, f *Facts) error {
	version, err := g.discovery.ServerVersion()
	if err != nil {
		return fmt.Errorf("ask the API server at %s for its version: %w", f.Server, err)
	}
	f.Version = version.GitVersion
	digits := strings.TrimRightFunc(version.Minor, func(r rune) bool { return r < '0' || r > '9' })
	if f.Minor, err = strconv.Atoi(digits); err != nil {
		return fmt.Errorf("the API server says that its minor version is %q", version.Minor)
	}
	// Rights first: without them the rest cannot be looked at.
	if f.Missing, err = missing(ctx, g.Client, g.Play, g.DNS); err != nil || len(f.Missing) > 0 {
		return err
	}
	if err := g.lookAtNodes(ctx, f); err != nil {
		return err
	}
	var endpoints discoveryv1.EndpointSliceList
	if err := g.Client.List(ctx, &endpoints, client.InNamespace(metav1.NamespaceDefault), client.MatchingLabels{discoveryv1.LabelServiceName: "kubernetes"}); err != nil {
		return fmt.Errorf("look for the API server's endpoints: %w", err)
	}
	for _, s := range endpoints.Items {
		for _, p := range s.Ports {
			if p.Port != nil {
				f.APIPorts = append(f.APIPorts, *p.Port)
			}
		}
	}
	var classes storagev1.StorageClassList
	if err := g.Client.List(ctx, &classes); err != nil {
		return fmt.Errorf("look for storage classes: %w", err)
	}
	for _, c := range classes.Items {
		f.DefaultClass = f.DefaultClass || c.Annotations["storageclass.kubernetes.io/is-default-class"] == "true"
	}
	var dns corev1.PodList
	if err := g.Client.List(ctx, &dns, client.InNamespace(metav1.NamespaceSystem), client.MatchingLabels{"k8s-app": "kube-dns"}); err != nil {
		return fmt.Errorf("look for DNS: %w", err)
	}
	f.DNSPods = len(dns.Items)
	return g.lookForOthers(ctx, f)
}

func (g *Guest) lookAtNodes(ctx context.Context, f *Facts) error {
	var nodes corev1.NodeList
	if err := g.Client.List(ctx, &nodes); err != nil {
		return fmt.Errorf("look at the nodes: %w", err)
	}
	arch := map[string]bool{}
	for _, n := range nodes.Items {
		if n.Spec.Unschedulable || slices.ContainsFunc(n.Spec.Taints, func(t corev1.Taint) bool { return t.Effect != corev1.TaintEffectPreferNoSchedule }) {
			continue
		}
		if slices.ContainsFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool {
			return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
		}) {
			f.Nodes = append(f.Nodes, n.Name)
			arch[n.Status.NodeInfo.Architecture] = true
		}
	}
	slices.Sort(f.Nodes)
	f.Architectures = sorted(arch)
	return nil
}

// lookForOthers finds what has the play's names and is not ours: with a mark, what the play that it names did not
// apply, and namespaces that only this one has; without it, everything.
func (g *Guest) lookForOthers(ctx context.Context, f *Facts) error {
	mark, was, err := g.mark(ctx)
	if err != nil {
		return err
	}
	f.DNS = g.DNS
	if f.Was = was; mark != nil {
		f.Mark, f.WasDNS = mark.UID, dnsOf(mark)
		if f.Busy, err = g.busy(ctx, mark.Name); err != nil {
			return err
		}
		if f.Foreign, err = g.work(ctx, was); err != nil {
			return err
		}
	}
	for _, name := range g.Play.Namespaces() {
		// A mark that is only Lethe's own namespace's was lost where it should be.
		if mark != nil && slices.Contains(was.Namespaces(), name) && (name != Namespace || mark.Name == Namespace) {
			continue
		}
		var ns corev1.Namespace
		err := g.Client.Get(ctx, client.ObjectKey{Name: name}, &ns)
		if err == nil {
			f.Foreign = append(f.Foreign, "namespaces/"+name)
		} else if !apierrors.IsNotFound(err) {
			return fmt.Errorf("look for namespace %s: %w", name, err)
		}
	}
	if err := g.lookAtVolumes(ctx, f, mark); err != nil || mark != nil {
		return err
	}
	for _, t := range charts(g.DNS) {
		list, err := g.list(ctx, t.kind, t.namespace)
		if err != nil {
			return err
		}
		for _, o := range list {
			if helmMade(o.Annotations) {
				f.Released = append(f.Released, called(t.kind, &o))
			}
			if helmMade(o.Annotations) || t.namespace == "" && lethes(t.Resource, o.Name, o.Labels) {
				f.Foreign = append(f.Foreign, called(t.kind, &o))
			}
		}
	}
	return nil
}

// lookAtVolumes finds volumes of claims that have the names of the play's. One that is released holds what somebody
// has kept, a key-encryption key perhaps, and no new claim gets it; one that waits for a claim of such a name would
// be given to the play's.
func (g *Guest) lookAtVolumes(ctx context.Context, f *Facts, mark *corev1.Namespace) error {
	var volumes corev1.PersistentVolumeList
	if err := g.Client.List(ctx, &volumes); err != nil {
		return fmt.Errorf("look for volumes: %w", err)
	}
	for _, v := range volumes.Items {
		claim := v.Spec.ClaimRef
		if claim == nil || !slices.Contains(g.Play.Namespaces(), claim.Namespace) {
			continue
		}
		switch {
		case mark != nil && slices.Contains(strings.Fields(mark.Annotations[claimsAnnotation]), string(claim.UID)) || mark != nil && !v.CreationTimestamp.Before(&mark.CreationTimestamp):
		case claim.UID == "":
			f.Foreign = append(f.Foreign, "persistentvolumes/"+v.Name)
		case mark == nil:
			f.Volumes = append(f.Volumes, v.Name)
		}
	}
	return nil
}

// mark is our own namespace and the play that made it, or nil where there is none that is ours. Lethe's namespace has
// the mark too: it stands in where the first has lost it.
func (g *Guest) mark(ctx context.Context) (*corev1.Namespace, *Play, error) {
	for _, name := range []string{Namespace, systemNamespace} {
		var ns corev1.Namespace
		err := g.Client.Get(ctx, client.ObjectKey{Name: name}, &ns)
		if client.IgnoreNotFound(err) != nil {
			return nil, nil, fmt.Errorf("look for what an earlier run left: %w", err)
		}
		if was := marked(ns.Labels); err == nil && was != nil {
			return &ns, was, nil
		}
	}
	return nil, nil, nil
}

// work lists objects of Lethe's kinds that a play has not applied.
func (g *Guest) work(ctx context.Context, p *Play) ([]string, error) {
	var out []string
	for _, k := range lethesKinds() {
		list, err := g.list(ctx, k, "")
		if err != nil {
			return nil, err
		}
		for _, o := range list {
			if !p.own(k.Resource, o.Namespace, o.Name) {
				out = append(out, called(k, &o))
			}
		}
	}
	slices.Sort(out)
	return out, nil
}

const (
	runAnnotation    = "demo.lethe.dev/run"           // which run made a namespace
	dnsAnnotation    = "demo.lethe.dev/dns-namespace" // where the chart put the manager's role
	claimsAnnotation = "demo.lethe.dev/claims"        // UIDs of the claims that were there when a removal began
)

// dnsOf reads off a mark where the chart put the manager's role.
func dnsOf(mark *corev1.Namespace) string {
	if name := mark.Annotations[dnsAnnotation]; name != "" {
		return name
	}
	return metav1.NamespaceSystem
}

// Mark makes our own namespaces. The first of them is the mark. It looks again before: what was there was seen before
// the programs were built.
func (g *Guest) Mark(ctx context.Context) error {
	var now Facts
	if err := g.lookForOthers(ctx, &now); err != nil {
		return err
	}
	if now.Was != nil || len(now.Foreign) > 0 {
		return fmt.Errorf("somebody else has begun here meanwhile, and nothing was touched: %s", Some(append(now.Foreign, "namespaces/"+Namespace)))
	}
	var made []*corev1.Namespace
	for _, name := range []string{Namespace, systemNamespace} {
		ns, err := g.makeNamespace(ctx, name)
		if err != nil {
			undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
			defer cancel()
			for _, m := range made {
				if gone := g.delete(undo, m); client.IgnoreNotFound(gone) != nil {
					return errors.Join(err, fmt.Errorf("take namespace %s away again: %w", m.Name, gone))
				}
			}
			g.Begun = ""
			return err
		}
		made = append(made, ns)
		if name == Namespace {
			g.Begun = ns.UID
		}
	}
	return g.hold(ctx, Namespace)
}

// makeNamespace makes one, and knows it again when the answer was lost.
func (g *Guest) makeNamespace(ctx context.Context, name string) (*corev1.Namespace, error) {
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name:        name,
		Labels:      map[string]string{MarkLabel: g.Play.Name, "pod-security.kubernetes.io/enforce": "restricted"},
		Annotations: map[string]string{runAnnotation: g.run, dnsAnnotation: g.DNS},
	}}
	err := g.Client.Create(ctx, ns)
	if err == nil {
		return ns, nil
	}
	again, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	there := &corev1.Namespace{}
	if g.Client.Get(again, client.ObjectKey{Name: name}, there) == nil && there.Annotations[runAnnotation] == g.run {
		return there, nil
	}
	return nil, fmt.Errorf("make namespace %s: %w", name, err)
}

// kinds that can be listed and deleted, for the search. A group of an aggregated API server that does not answer is
// left out: Lethe has none there.
func (g *Guest) kinds(namespaced bool) ([]kind, error) {
	lists, err := g.discovery.ServerPreferredResources()
	if err != nil && !discovery.IsGroupDiscoveryFailedError(err) {
		return nil, fmt.Errorf("ask which kinds there are: %w", err)
	}
	var out []kind
	for _, l := range lists {
		gv, err := schema.ParseGroupVersion(l.GroupVersion)
		if err != nil {
			return nil, fmt.Errorf("ask which kinds there are: %w", err)
		}
		for _, r := range l.APIResources {
			if r.Namespaced != namespaced || strings.Contains(r.Name, "/") || !slices.Contains(r.Verbs, "list") || !slices.Contains(r.Verbs, "delete") {
				continue
			}
			out = append(out, kind{gv.WithResource(r.Name), r.Kind})
		}
	}
	return out, nil
}

// list reads the names and labels of a kind's objects. A kind that went away meanwhile has none.
func (g *Guest) list(ctx context.Context, k kind, namespace string, opts ...client.ListOption) ([]metav1.PartialObjectMetadata, error) {
	var list metav1.PartialObjectMetadataList
	list.SetGroupVersionKind(k.GroupVersion().WithKind(k.Kind + "List"))
	if err := g.Client.List(ctx, &list, append(opts, client.InNamespace(namespace))...); err != nil {
		if apierrors.IsNotFound(err) || meta.IsNoMatchError(err) || apierrors.IsMethodNotSupported(err) {
			return nil, nil
		}
		return nil, fmt.Errorf("list %s: %w", k.Resource, err)
	}
	for i := range list.Items {
		list.Items[i].SetGroupVersionKind(k.GroupVersion().WithKind(k.Kind))
	}
	return list.Items, nil
}
