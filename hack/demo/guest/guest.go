package guest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
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
	// Begun says that the mark was made here: what carries it is this run's own.
	Begun bool

	discovery discovery.DiscoveryInterface
	clientset kubernetes.Interface
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
	return &Guest{Client: c, Play: play, Note: note, discovery: set.Discovery(), clientset: set}, nil
}

// Pinned is the user's kubeconfig with its current context, or another that is named, alone and in itself: whoever changes the current
// context while the demo runs does not move it to another cluster.
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
	if f.Missing, err = missing(ctx, g.Client, g.Play); err != nil || len(f.Missing) > 0 {
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

// lookForOthers finds what has the play's names and is not ours: with a mark, what the play that it names did not apply, and namespaces that only this
// one has; without it, everything.
func (g *Guest) lookForOthers(ctx context.Context, f *Facts) error {
	mark, was, err := g.mark(ctx)
	if err != nil {
		return err
	}
	if f.Was = was; mark != nil {
		if f.Foreign, err = g.work(ctx, was); err != nil {
			return err
		}
	}
	for _, name := range g.Play.Namespaces() {
		if mark != nil && slices.Contains(was.Namespaces(), name) {
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
	if mark != nil {
		return nil
	}
	kinds, err := g.kinds(false)
	if err != nil {
		return err
	}
	for _, k := range kinds {
		if k.group() == "lethe.dev" {
			continue // their definitions are named
		}
		list, err := g.list(ctx, k, "")
		if err != nil {
			return err
		}
		for _, o := range list {
			if lethes(k.Resource, o.Name, o.Labels, o.Annotations) && k.Resource != "namespaces" {
				f.Foreign = append(f.Foreign, k.Resource+"/"+o.Name)
			}
		}
	}
	return nil
}

// mark is our own namespace and the play that made it, or nil where there is none that is ours.
func (g *Guest) mark(ctx context.Context) (*corev1.Namespace, *Play, error) {
	var ns corev1.Namespace
	err := g.Client.Get(ctx, client.ObjectKey{Name: Namespace}, &ns)
	switch {
	case apierrors.IsNotFound(err):
		return nil, nil, nil
	case err != nil:
		return nil, nil, fmt.Errorf("look for what an earlier run left: %w", err)
	}
	was := marked(ns.Labels)
	if was == nil {
		return nil, nil, nil
	}
	return &ns, was, nil
}

// work lists objects of Lethe's kinds that a play has not applied.
func (g *Guest) work(ctx context.Context, p *Play) ([]string, error) {
	var out []string
	for _, namespaced := range []bool{false, true} {
		kinds, err := g.kinds(namespaced)
		if err != nil {
			return nil, err
		}
		for _, k := range kinds {
			if k.group() != "lethe.dev" {
				continue
			}
			list, err := g.list(ctx, k, "")
			if err != nil {
				return nil, err
			}
			for _, o := range list {
				if !p.own(k.Resource, o.Namespace, o.Name) {
					out = append(out, strings.TrimPrefix(o.Namespace+"/", "/")+k.Resource+"/"+o.Name)
				}
			}
		}
	}
	slices.Sort(out)
	return out, nil
}

// Mark makes our own namespaces. The first of them is the mark.
func (g *Guest) Mark(ctx context.Context) error {
	for _, name := range []string{Namespace, systemNamespace} {
		ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{
			MarkLabel: g.Play.Name, "pod-security.kubernetes.io/enforce": "restricted",
		}}}
		if err := g.Client.Create(ctx, ns); err != nil {
			return fmt.Errorf("make namespace %s: %w", name, err)
		}
		g.Begun = true
	}
	return nil
}

// kind is one that the API server lists.
type kind struct {
	schema.GroupVersionResource
	Kind string
}

func (k kind) group() string { return k.Group }

// kinds that can be listed and deleted. A group of an aggregated API server that does not answer is left out: Lethe has none there.
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
