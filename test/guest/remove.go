package guest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/test/stage"
)

// ErrNothing says that no demo is here.
var ErrNothing = errors.New("there is no demo on this cluster")

// ErrChanged says that what is marked is not what was agreed about.
var ErrChanged = errors.New("what is marked on this cluster is not what was looked at: somebody has begun here meanwhile, and nothing was removed. Look and answer again")

// foreignError stops a removal that has begun: somebody applies objects while it is at work.
type foreignError struct{ objects []string }

// Error implements error.
func (e *foreignError) Error() string {
	return fmt.Sprintf("somebody has applied objects that are not the demo's while it is removed, and they stay: %s. Delete these first", Some(e.objects))
}

// Remove takes away what a demo has made, whole or broken off anywhere. What a Lethe that works takes away itself is
// left to it; what it cannot, because it never started or has ended, goes by name. The mark goes last, so that a
// removal that is broken off is begun again. agreed is the mark that was looked at, or "" when there was none: no
// other is removed.
func (g *Guest) Remove(ctx context.Context, agreed types.UID) error {
	mark, was, err := g.mark(ctx)
	if err != nil {
		return err
	}
	if mark == nil {
		return ErrNothing
	}
	if mark.UID != agreed {
		return ErrChanged
	}
	foreign, err := g.work(ctx, was)
	if err != nil {
		return err
	}
	if len(foreign) > 0 {
		return fmt.Errorf("the demo's Lethe has work that is not the demo's, and nothing was removed: %s. Delete these first", Some(foreign))
	}
	if mark.DeletionTimestamp == nil {
		if err := g.hold(ctx, mark.Name); err != nil {
			return err
		}
	}
	claims, err := g.rememberClaims(ctx, mark, was)
	if err != nil {
		return err
	}
	since, dns := mark.CreationTimestamp, dnsOf(mark)
	// What plays beside Lethe has nothing to bring to an end, and a namespace that goes waits for its pods.
	if mark.Name == Namespace {
		if err := g.endPods(ctx, mark.Name); err != nil {
			return err
		}
	}
	if err := g.removeWork(ctx, was, since, dns); err != nil {
		return err
	}
	g.Note("Lethe's objects are gone; now what the chart made")
	if err := g.removeInstallation(ctx, was, since, dns); err != nil {
		return err
	}
	g.Note("what the chart made is gone; now the namespaces")
	namespaces := map[string]func(*corev1.Namespace) bool{}
	for tenant, names := range was.tenants {
		for _, name := range names {
			namespaces[name] = func(ns *corev1.Namespace) bool {
				return ns.Labels["lethe.dev/tenant"] == tenant && !ns.CreationTimestamp.Before(&since)
			}
		}
	}
	for _, name := range []string{systemNamespace, keysNamespace} {
		namespaces[name] = func(ns *corev1.Namespace) bool {
			return ns.Labels[MarkLabel] == was.Name || helmMade(ns.Annotations) && !ns.CreationTimestamp.Before(&since)
		}
	}
	delete(namespaces, mark.Name) // it goes last
	if err := g.removeNamespaces(ctx, namespaces); err != nil {
		return err
	}
	if err := g.removeEvents(ctx, was, since); err != nil {
		return err
	}
	if err := g.awaitVolumes(ctx, was, since, claims); err != nil {
		return err
	}
	if err := g.awaitRoles(ctx); err != nil {
		return err
	}
	return g.removeNamespaces(ctx, map[string]func(*corev1.Namespace) bool{mark.Name: func(ns *corev1.Namespace) bool { return ns.UID == mark.UID }})
}

// rememberClaims keeps on the mark which claims the play has: by their UIDs its volumes are known when the claims are
// gone.
func (g *Guest) rememberClaims(ctx context.Context, mark *corev1.Namespace, was *Play) ([]string, error) {
	claims := strings.Fields(mark.Annotations[claimsAnnotation])
	known := len(claims)
	for _, namespace := range was.Namespaces() {
		var list corev1.PersistentVolumeClaimList
		if err := g.Client.List(ctx, &list, client.InNamespace(namespace)); err != nil {
			return nil, fmt.Errorf("look for volumes: %w", err)
		}
		for _, c := range list.Items {
			if !c.CreationTimestamp.Before(&mark.CreationTimestamp) && !slices.Contains(claims, string(c.UID)) {
				claims = append(claims, string(c.UID))
			}
		}
	}
	if len(claims) == known {
		return claims, nil
	}
	before := mark.DeepCopy()
	if mark.Annotations == nil {
		mark.Annotations = map[string]string{}
	}
	mark.Annotations[claimsAnnotation] = strings.Join(claims, " ")
	if err := g.Client.Patch(ctx, mark, client.MergeFrom(before)); err != nil {
		return nil, fmt.Errorf("keep which volumes are the demo's: %w", err)
	}
	return claims, nil
}

// removeWork deletes the demo's objects of Lethe's kinds: bots and what deletes data first, then the tenants, whose
// namespaces Lethe takes away.
func (g *Guest) removeWork(ctx context.Context, was *Play, since metav1.Time, dns string) error {
	if !g.works(ctx) {
		g.Note("Lethe does not run: its objects are removed without it")
		return g.force(ctx, was, since, dns)
	}
	err := stage.Until(ctx, 3*time.Minute, "delete the demo's bots, stores, policies and tenants", func(ctx context.Context) (string, error) {
		left, err := g.eachOfLethes(ctx, was, func(k kind, o *metav1.PartialObjectMetadata) error {
			if o.DeletionTimestamp != nil {
				return nil
			}
			err := g.delete(ctx, o)
			// A Tenant is in use until the manager has noticed that its bots are gone: the refusal ends by itself.
			if k.Resource == "tenants" && (apierrors.IsForbidden(err) || apierrors.IsInvalid(err)) {
				return nil
			}
			return err
		})
		if len(left) > 0 {
			return "the end of " + Some(left), err
		}
		return "", err
	})
	if foreign := (*foreignError)(nil); err != nil && ctx.Err() == nil && !errors.As(err, &foreign) {
		g.Note("%v: the rest is removed without Lethe", err)
		return g.force(ctx, was, since, dns)
	}
	return err
}

// works says whether both of Lethe's programs are there and ready.
func (g *Guest) works(ctx context.Context) bool {
	for _, name := range []string{"lethe-manager", "lethe-keyserver"} {
		var d appsv1.Deployment
		if g.Client.Get(ctx, client.ObjectKey{Namespace: systemNamespace, Name: name}, &d) != nil || d.Status.AvailableReplicas == 0 {
			return false
		}
	}
	return true
}

// eachOfLethes does something with every object of Lethe's kinds, tenants last, and says which there were. One that
// is not the play's was applied since the removal began, and stops it.
func (g *Guest) eachOfLethes(ctx context.Context, was *Play, do func(kind, *metav1.PartialObjectMetadata) error) ([]string, error) {
	var there []string
	for _, k := range lethesKinds() {
		list, err := g.list(ctx, k, "")
		if err != nil {
			return there, err
		}
		for _, o := range list {
			if !was.own(k.Resource, o.Namespace, o.Name) {
				return there, stage.Stop(&foreignError{[]string{called(k, &o)}})
			}
			there = append(there, k.Resource+"/"+o.Name)
			if err := do(k, &o); client.IgnoreNotFound(err) != nil {
				return there, fmt.Errorf("remove %s %s: %w", k.Resource, o.Name, err)
			}
		}
	}
	return there, nil
}

// force removes the demo's objects without Lethe: its walls and programs first, since they would refuse or fight it,
// then the finalizers, which nobody is left to honour. What they guard, keys and namespaces of the demo's tenants,
// goes in the same removal.
func (g *Guest) force(ctx context.Context, was *Play, since metav1.Time, dns string) error {
	if err := g.removeHelms(ctx, since, dns, func(k kind) bool { return k.Group == admission || k.Resource == "deployments" }); err != nil {
		return err
	}
	err := stage.Until(ctx, 2*time.Minute, "remove the demo's objects without Lethe", func(ctx context.Context) (string, error) {
		left, err := g.eachOfLethes(ctx, was, func(_ kind, o *metav1.PartialObjectMetadata) error {
			if len(o.Finalizers) > 0 {
				before := o.DeepCopy()
				o.Finalizers = nil
				if err := g.Client.Patch(ctx, o, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})); err != nil {
					return err
				}
			}
			return g.delete(ctx, o)
		})
		if len(left) > 0 {
			return "the end of " + Some(left), err
		}
		return "", err
	})
	return err
}

// removeInstallation takes away what helm made, in whatever state its release is. CustomResourceDefinitions are kept
// by an uninstall; here they go too, since they were not there before the demo, unless somebody has applied objects
// of theirs since.
func (g *Guest) removeInstallation(ctx context.Context, was *Play, since metav1.Time, dns string) error {
	for _, which := range []func(kind) bool{
		func(k kind) bool { return k.Group == admission },
		func(k kind) bool { return k.Resource == "deployments" },
		func(k kind) bool { return k.Resource != "customresourcedefinitions" },
	} {
		if err := g.removeHelms(ctx, since, dns, which); err != nil {
			return err
		}
	}
	foreign, err := g.work(ctx, was)
	if err != nil {
		return err
	}
	if len(foreign) > 0 {
		return &foreignError{foreign}
	}
	return g.removeHelms(ctx, since, dns, func(k kind) bool { return k.Resource == "customresourcedefinitions" })
}

// removeHelms removes what our release made of some of the chart's kinds where the chart has them, and waits until it
// is gone. What is older than the mark only says that it is our release's.
func (g *Guest) removeHelms(ctx context.Context, since metav1.Time, dns string, which func(kind) bool) error {
	return stage.Until(ctx, 2*time.Minute, "remove what the chart made", func(ctx context.Context) (string, error) {
		var left []string
		for _, t := range charts(dns) {
			if !which(t.kind) {
				continue
			}
			list, err := g.list(ctx, t.kind, t.namespace, client.MatchingLabels{"app.kubernetes.io/managed-by": "Helm"})
			if err != nil {
				return "", err
			}
			for _, o := range list {
				if !madeSince(&o, since) {
					continue
				}
				left = append(left, called(t.kind, &o))
				if o.DeletionTimestamp != nil {
					continue
				}
				if err := g.delete(ctx, &o); client.IgnoreNotFound(err) != nil {
					return "", fmt.Errorf("delete %s %s: %w", t.Resource, o.Name, err)
				}
			}
		}
		if len(left) > 0 {
			return "the end of " + Some(left), nil
		}
		return "", nil
	})
}

// madeSince says whether our release made an object.
func madeSince(o *metav1.PartialObjectMetadata, since metav1.Time) bool {
	return helmMade(o.Annotations) && !o.CreationTimestamp.Before(&since)
}

// removeEvents removes what was said of objects that have no namespace: such events are in the namespace default.
func (g *Guest) removeEvents(ctx context.Context, p *Play, since metav1.Time) error {
	var events corev1.EventList
	if err := g.Client.List(ctx, &events, client.InNamespace(metav1.NamespaceDefault)); err != nil {
		return fmt.Errorf("look for the demo's events: %w", err)
	}
	for _, e := range events.Items {
		if e.CreationTimestamp.Before(&since) || !p.oursToSay(e.InvolvedObject) {
			continue
		}
		if err := g.delete(ctx, &e); client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("delete event %s: %w", e.Name, err)
		}
	}
	return nil
}

// oursToSay says whether an event of the namespace default is about something of the play's.
func (p *Play) oursToSay(o corev1.ObjectReference) bool {
	return strings.HasPrefix(o.APIVersion, "lethe.dev/") || o.Kind == "Namespace" && slices.Contains(p.Namespaces(), o.Name)
}

// endPods deletes the pods of a namespace that is ours, at once.
func (g *Guest) endPods(ctx context.Context, namespace string) error {
	var pods corev1.PodList
	if err := g.Client.List(ctx, &pods, client.InNamespace(namespace)); err != nil {
		return fmt.Errorf("look for pods of namespace %s: %w", namespace, err)
	}
	for _, p := range pods.Items {
		if err := g.delete(ctx, &p, client.GracePeriodSeconds(1)); client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("end pod %s/%s: %w", namespace, p.Name, err)
		}
	}
	return nil
}

// removeNamespaces deletes namespaces if they are ours, all at once, and waits until they are gone with all that was
// in them.
func (g *Guest) removeNamespaces(ctx context.Context, all map[string]func(*corev1.Namespace) bool) error {
	return stage.Until(ctx, 3*time.Minute, "remove namespaces", func(ctx context.Context) (string, error) {
		var left []string
		for name, ours := range all {
			var ns corev1.Namespace
			if err := g.Client.Get(ctx, client.ObjectKey{Name: name}, &ns); err != nil {
				if client.IgnoreNotFound(err) != nil {
					return "", err
				}
				continue
			}
			if !ours(&ns) {
				return "", stage.Stop(fmt.Errorf("namespace %s is not what was made here: look at it with kubectl get namespace %s -o yaml, and rename or remove it yourself", name, name))
			}
			if ns.DeletionTimestamp == nil {
				if err := g.delete(ctx, &ns); client.IgnoreNotFound(err) != nil {
					return "", err
				}
			}
			left = append(left, name+why(&ns))
		}
		slices.Sort(left)
		return strings.Join(left, ", "), nil
	})
}

// why a namespace has not ended yet.
func why(ns *corev1.Namespace) string {
	for _, c := range ns.Status.Conditions {
		if c.Status == corev1.ConditionTrue && strings.HasPrefix(string(c.Type), "Namespace") {
			return fmt.Sprintf(" (%s: %s)", c.Reason, c.Message)
		}
	}
	return ""
}

// awaitVolumes waits until the volumes of the play's claims are gone with them. A class that keeps volumes keeps the
// key: whoever runs the demo must know. A volume is the play's by its claim's UID, or when it was made for a claim of
// the play's namespaces since the mark; another's is left alone.
func (g *Guest) awaitVolumes(ctx context.Context, p *Play, since metav1.Time, claims []string) error {
	return stage.Until(ctx, time.Minute, "wait for the end of the demo's volumes", func(ctx context.Context) (string, error) {
		var volumes corev1.PersistentVolumeList
		if err := g.Client.List(ctx, &volumes); err != nil {
			return "", err
		}
		for _, v := range volumes.Items {
			claim := v.Spec.ClaimRef
			if claim == nil || claim.UID == "" {
				continue
			}
			since := !v.CreationTimestamp.Before(&since) && slices.Contains(p.Namespaces(), claim.Namespace)
			if !since && !slices.Contains(claims, string(claim.UID)) {
				continue
			}
			what := "data of the demo's"
			if claim.Namespace == systemNamespace {
				what = "the demo's key-encryption key"
			}
			who := fmt.Sprintf("PersistentVolume %s (of claim %s/%s, made %s)", v.Name, claim.Namespace, claim.Name, v.CreationTimestamp.UTC().Format(time.RFC3339))
			switch {
			case v.Spec.PersistentVolumeReclaimPolicy != corev1.PersistentVolumeReclaimDelete:
				return "", stage.Stop(fmt.Errorf("%s is kept by its class (%s), with %s on it: delete it and what it stands for yourself, and go on",
					who, v.Spec.PersistentVolumeReclaimPolicy, what))
			case v.Status.Phase == corev1.VolumeFailed:
				return "", stage.Stop(fmt.Errorf("%s cannot be deleted by its class, with %s on it: %s. Delete it and what it stands for yourself, and go on", who, what, v.Status.Message))
			}
			return "the end of " + who, nil
		}
		return "", nil
	})
}

// awaitRoles waits until Kubernetes' own roles have forgotten Lethe's kinds.
func (g *Guest) awaitRoles(ctx context.Context) error {
	return stage.Until(ctx, time.Minute, "wait until view, edit and admin are as before", func(ctx context.Context) (string, error) {
		return g.rolesThatKnowLethe(ctx)
	})
}

// delete this very object, and no other of its name.
func (g *Guest) delete(ctx context.Context, o client.Object, more ...client.DeleteOption) error {
	uid := o.GetUID()
	err := g.Client.Delete(ctx, o, append(more, client.Preconditions{UID: ptr(uid)}, client.PropagationPolicy(metav1.DeletePropagationBackground))...)
	if meta.IsNoMatchError(err) {
		return nil
	}
	return err
}

func ptr(uid types.UID) *types.UID { return &uid }
