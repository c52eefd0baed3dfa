package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/lethe-dev/lethe/hack/cluster/internal/assets"
	"github.com/lethe-dev/lethe/hack/cluster/internal/image"
	"github.com/lethe-dev/lethe/hack/cluster/internal/provisioner"
)

type object = map[string]any

func meta(name, namespace string, labels object) object {
	m := object{"name": name}
	if namespace != "" {
		m["namespace"] = namespace
	}
	if labels != nil {
		m["labels"] = labels
	}
	return m
}

// storageClass is the default class of the modes with nodes.
func storageClass() object {
	m := meta(provisioner.StorageClass, "", nil)
	m["annotations"] = object{"storageclass.kubernetes.io/is-default-class": "true"}
	return object{
		"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": m,
		"provisioner": provisioner.Name, "reclaimPolicy": "Delete", "volumeBindingMode": "Immediate",
	}
}

// kubeletAccess lets the API server read logs from kubelets and run commands through them.
func kubeletAccess() object {
	return object{
		"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
		"metadata": meta("lethe-cluster:apiserver-kubelet", "", nil),
		"roleRef":  object{"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:kubelet-api-admin"},
		"subjects": []object{{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "kube-apiserver-kubelet-client"}},
	}
}

// simulatedNodes are nodes that exist in the API only.
func (c *Cluster) simulatedNodes() []object {
	var out []object
	for i := range c.state.Spec.Nodes {
		name := fmt.Sprintf("%s-%d", c.nodeName(), i)
		m := meta(name, "", object{
			"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64", "type": "kwok",
		})
		m["annotations"] = object{"kwok.x-k8s.io/node": "fake", "node.alpha.kubernetes.io/ttl": "0"}
		// What kwok says of a node that says nothing, and a disk: pods that reserve some of it go nowhere else.
		room := object{"cpu": "1k", "memory": "1Ti", "pods": "1M", "ephemeral-storage": "1Pi"}
		out = append(out, object{"apiVersion": "v1", "kind": "Node", "metadata": m, "status": object{"capacity": room, "allocatable": room}})
	}
	return out
}

// corefile is CoreDNS's. A zone of its own for each kind of name, because what answers for all other names would
// otherwise come first: those do not exist, for there is no way to ask anyone about them.
const corefile = `(common) {
    errors
    cache 5 {
        disable denial
    }
    loadbalance
}
%[1]s:53 in-addr.arpa:53 {
    import common
    kubernetes %[1]s in-addr.arpa {
        pods insecure
        ttl 5
    }
}
%[3]s:53 {
    import common
    hosts {
        %[2]s %[3]s
    }
}
.:53 {
    import common
    health :8080 {
        lameduck 2s
    }
    ready :8181
    prometheus :9153
    template ANY ANY . {
        rcode NXDOMAIN
    }
}
`

// dns is CoreDNS as clusters have it: a Deployment in kube-system whose pods carry k8s-app=kube-dns and a Service
// called kube-dns.
func (c *Cluster) dns() []object {
	labels := object{"k8s-app": "kube-dns"}
	corefile := fmt.Sprintf(corefile, clusterDomain, c.state.Network.HostIP, HostName)
	rbac := "rbac.authorization.k8s.io"
	return []object{
		{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta("coredns", "kube-system", nil)},
		{
			"apiVersion": rbac + "/v1", "kind": "ClusterRole", "metadata": meta("system:coredns", "", nil),
			"rules": []object{
				{"apiGroups": []string{""}, "resources": []string{"services", "pods", "namespaces"}, "verbs": []string{"list", "watch"}},
				{"apiGroups": []string{"discovery.k8s.io"}, "resources": []string{"endpointslices"}, "verbs": []string{"list", "watch"}},
			},
		},
		{
			"apiVersion": rbac + "/v1", "kind": "ClusterRoleBinding", "metadata": meta("system:coredns", "", nil),
			"roleRef":  object{"apiGroup": rbac, "kind": "ClusterRole", "name": "system:coredns"},
			"subjects": []object{{"kind": "ServiceAccount", "name": "coredns", "namespace": "kube-system"}},
		},
		{
			"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta("coredns", "kube-system", nil),
			"data": object{"Corefile": corefile},
		},
		{
			"apiVersion": "v1", "kind": "Service", "metadata": meta("kube-dns", "kube-system", labels),
			"spec": object{
				"clusterIP": c.state.Network.DNSIP.String(), "selector": labels,
				"ports": []object{
					{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
				},
			},
		},
		{
			"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta("coredns", "kube-system", labels),
			"spec": object{
				"replicas": 1,
				"selector": object{"matchLabels": labels},
				"strategy": object{"type": "Recreate"},
				"template": object{
					"metadata": object{"labels": labels},
					"spec":     dnsPod(),
				},
			},
		},
	}
}

func dnsPod() object {
	return object{
		"serviceAccountName": "coredns",
		"priorityClassName":  "system-cluster-critical",
		"dnsPolicy":          "Default",
		"containers": []object{{
			"name": "coredns", "image": coreDNSImage, "imagePullPolicy": "Never",
			"args": []string{"-conf", "/etc/coredns/Corefile"},
			"ports": []object{
				{"name": "dns", "containerPort": 53, "protocol": "UDP"},
				{"name": "dns-tcp", "containerPort": 53, "protocol": "TCP"},
				{"name": "metrics", "containerPort": 9153, "protocol": "TCP"},
			},
			"resources":      object{"limits": object{"memory": "170Mi"}, "requests": object{"cpu": "50m", "memory": "30Mi"}},
			"readinessProbe": object{"httpGet": object{"path": "/ready", "port": 8181}, "periodSeconds": 1},
			"securityContext": object{
				"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
				"capabilities": object{"add": []string{"NET_BIND_SERVICE"}, "drop": []string{"ALL"}},
			},
			"volumeMounts": []object{{"name": "config", "mountPath": "/etc/coredns", "readOnly": true}},
		}},
		"volumes": []object{{"name": "config", "configMap": object{"name": "coredns"}}},
	}
}

// loadOwnImages builds and imports the images of the cluster's own pods.
func (c *Cluster) loadOwnImages(ctx context.Context) error {
	b := assets.Builder{Cache: c.Cache}
	for _, img := range []image.Image{
		{Name: pauseImage, Files: map[string]string{"pause": b.Path("pause")}, Entrypoint: []string{"/pause"}, User: "65535:65535"},
		{Name: coreDNSImage, Files: map[string]string{"coredns": b.Path("coredns")}, Entrypoint: []string{"/coredns"}},
	} {
		file := c.path("images", filepath.Base(img.Files[img.Entrypoint[0][1:]])+".tar")
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return fmt.Errorf("write image: %w", err)
		}
		out, err := os.Create(file)
		if err != nil {
			return fmt.Errorf("write image: %w", err)
		}
		err = image.Write(out, img)
		if closed := out.Close(); err == nil {
			err = closed
		}
		if err != nil {
			return err
		}
		if err := c.LoadImages(ctx, file); err != nil {
			return err
		}
	}
	return nil
}

// settled says whether all that is expected to run does: nodes and, on a real node, DNS.
func (c *Cluster) settled(ctx context.Context) error {
	out, err := c.kubectl(ctx, "", "get", "nodes", "-o", "json")
	if err != nil {
		return err
	}
	var nodes struct {
		Items []struct {
			Metadata struct{ Name string }
			Status   struct {
				Conditions []struct{ Type, Status, Message string }
			}
		}
	}
	if err := json.Unmarshal(out, &nodes); err != nil {
		return fmt.Errorf("read nodes: %w", err)
	}
	want := max(1, c.state.Spec.Nodes)
	if len(nodes.Items) < want {
		return fmt.Errorf("%d of %d nodes have joined", len(nodes.Items), want)
	}
	for _, n := range nodes.Items {
		ready, why := false, "it has no condition Ready yet"
		for _, cond := range n.Status.Conditions {
			if cond.Type == "Ready" {
				ready, why = cond.Status == "True", cond.Message
			}
		}
		if !ready {
			return fmt.Errorf("node %s is not ready: %s", n.Metadata.Name, why)
		}
	}
	if c.state.Spec.Mode != Node {
		return nil
	}
	out, err = c.kubectl(ctx, "", "get", "deployment", "coredns", "-n", "kube-system", "-o", "jsonpath={.status.readyReplicas}")
	if err != nil {
		return err
	}
	if string(out) != "1" {
		return fmt.Errorf("CoreDNS is not ready (see: kubectl -n kube-system describe pod -l k8s-app=kube-dns)")
	}
	return nil
}
