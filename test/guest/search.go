package guest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Places are what can be searched of a cluster through its API, by the folder of Dump.
var Places = []struct{ Folder, Name string }{
	{"secrets", "Secrets of the demo's namespaces"},
	{"configmaps", "ConfigMaps there"},
	{"events", "events there, and those of Lethe's objects"},
	{"objects", "every other object there, and Lethe's own"},
	{"logs", "logs of all containers there"},
}

// Dump writes what the API tells into files below a folder, a folder for each place, to be searched as files are. It
// reads the demo's own namespaces and Lethe's kinds, and nothing else of the cluster's.
func (g *Guest) Dump(ctx context.Context, dir string) error {
	for _, p := range Places {
		if err := os.MkdirAll(filepath.Join(dir, p.Folder), 0o700); err != nil {
			return fmt.Errorf("write what the API tells: %w", err)
		}
	}
	namespaced, err := g.kinds(true)
	if err != nil {
		return err
	}
	for _, ns := range g.Play.Namespaces() {
		for _, k := range namespaced {
			if err := g.dump(ctx, dir, k, ns); err != nil {
				return err
			}
		}
		if err := g.dumpLogs(ctx, filepath.Join(dir, "logs"), ns); err != nil {
			return err
		}
	}
	clusterWide, err := g.kinds(false)
	if err != nil {
		return err
	}
	for _, k := range clusterWide {
		if k.group() == "lethe.dev" {
			if err := g.dump(ctx, dir, k, ""); err != nil {
				return err
			}
		}
	}
	var events corev1.EventList
	if err := g.Client.List(ctx, &events, client.InNamespace(metav1.NamespaceDefault)); err != nil {
		return fmt.Errorf("read events: %w", err)
	}
	for _, e := range events.Items {
		if g.Play.oursToSay(e.InvolvedObject) {
			if err := writeJSON(filepath.Join(dir, "events", "default-"+e.Name+".json"), e); err != nil {
				return err
			}
		}
	}
	return nil
}

// dump writes the objects of a kind in a namespace.
func (g *Guest) dump(ctx context.Context, dir string, k kind, namespace string) error {
	var list unstructured.UnstructuredList
	list.SetGroupVersionKind(k.GroupVersion().WithKind(k.Kind + "List"))
	folder := "objects"
	switch k.Resource {
	case "secrets", "configmaps", "events":
		folder = k.Resource
	}
	if err := g.Client.List(ctx, &list, client.InNamespace(namespace)); err != nil {
		if !slices.ContainsFunc(ours(), func(o kind) bool { return o.Group == k.Group && o.Resource == k.Resource }) {
			g.Note("not searched, since they cannot be listed in namespace %q: %s: %v", namespace, k.GroupResource(), err)
			return nil
		}
		return fmt.Errorf("read %s of namespace %q: %w", k.Resource, namespace, err)
	}
	if len(list.Items) == 0 {
		return nil
	}
	return writeJSON(filepath.Join(dir, folder, strings.Join([]string{namespace, k.Resource, k.Group}, "-")+".json"), list.Items)
}

func writeJSON(path string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("write what the API tells: %w", err)
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		return fmt.Errorf("write what the API tells: %w", err)
	}
	return nil
}

// dumpLogs writes the logs of every container that has run in a namespace.
func (g *Guest) dumpLogs(ctx context.Context, dir, namespace string) error {
	var pods corev1.PodList
	if err := g.Client.List(ctx, &pods, client.InNamespace(namespace)); err != nil {
		return fmt.Errorf("read logs: %w", err)
	}
	for _, p := range pods.Items {
		for _, c := range append(p.Status.InitContainerStatuses, p.Status.ContainerStatuses...) {
			if c.ContainerID == "" {
				continue
			}
			for _, previous := range []bool{false, true} {
				if previous && c.LastTerminationState.Terminated == nil {
					continue
				}
				b, err := g.log(ctx, namespace, p.Name, c.Name, previous)
				if err != nil && !previous {
					return err
				}
				if err != nil { // the node keeps it only for a while
					g.Note("not searched, an earlier log: %v", err)
					continue
				}
				name := strings.Join([]string{namespace, p.Name, c.Name, fmt.Sprint(previous)}, "-") + ".log"
				if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
					return fmt.Errorf("write logs: %w", err)
				}
			}
		}
	}
	return nil
}

func (g *Guest) log(ctx context.Context, namespace, pod, container string, previous bool) ([]byte, error) {
	r, err := g.clientset.CoreV1().Pods(namespace).GetLogs(pod, &corev1.PodLogOptions{Container: container, Previous: previous}).Stream(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the log of %s/%s: %w", namespace, pod, err)
	}
	defer func() { _ = r.Close() }() // it was only read
	var b bytes.Buffer
	if _, err := b.ReadFrom(r); err != nil {
		return nil, fmt.Errorf("read the log of %s/%s: %w", namespace, pod, err)
	}
	return b.Bytes(), nil
}

// Secrets of the demo's namespaces: what a snapshot of etcd would hold of Lethe's.
func (g *Guest) Secrets(ctx context.Context) ([]corev1.Secret, error) {
	var all []corev1.Secret
	for _, ns := range g.Play.Namespaces() {
		var list corev1.SecretList
		if err := g.Client.List(ctx, &list, client.InNamespace(ns)); err != nil {
			return nil, fmt.Errorf("read the Secrets of namespace %s: %w", ns, err)
		}
		all = append(all, list.Items...)
	}
	return all, nil
}
