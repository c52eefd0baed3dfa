package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/test/stage"
)

func (d *demo) startCluster(ctx context.Context) error {
	if err := d.Build(ctx, !d.simulated); err != nil {
		return err
	}
	mode := "node"
	if d.simulated {
		mode = "simulated"
	}
	if err := d.Up(ctx, mode, "--audit-log"); err != nil {
		return err
	}
	var err error
	if d.info, err = d.Info(ctx); err != nil {
		return err
	}
	if d.client, err = d.Client(); err != nil {
		return err
	}
	// So that `kubectl lethe` works for whoever looks around.
	link := d.Path("bin", "kubectl")
	if err := os.Remove(link); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("offer kubectl: %w", err)
	}
	if err := os.Symlink(d.info.Kubectl, link); err != nil {
		return fmt.Errorf("offer kubectl: %w", err)
	}
	var nodes corev1.NodeList
	if err := d.client.List(ctx, &nodes); err != nil {
		return fmt.Errorf("look at the node: %w", err)
	}
	if len(nodes.Items) != 1 {
		return fmt.Errorf("the cluster has %d nodes, not one", len(nodes.Items))
	}
	n := nodes.Items[0]
	d.note("Kubernetes %s, node %s, %s", n.Status.NodeInfo.KubeletVersion, n.Name, n.Status.NodeInfo.ContainerRuntimeVersion)
	return nil
}

// clear removes what an earlier run has made in the cluster, so that this one begins at the beginning. It is also the
// first thing that shows whether deletion ends.
func (d *demo) clear(ctx context.Context) error {
	// The kinds may not be installed yet; then there is nothing to clear.
	err := d.client.List(ctx, &v1alpha1.TenantList{})
	if meta.IsNoMatchError(err) {
		d.note("nothing was here")
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for what an earlier run has left: %w", err)
	}
	lists := []client.ObjectList{&v1alpha1.DataRetentionPolicyList{}, &v1alpha1.BotDeploymentList{}, &v1alpha1.DataStoreList{}, &v1alpha1.TenantList{}}
	removed := 0
	for _, list := range lists {
		n, err := d.removeAll(ctx, list)
		if err != nil {
			return err
		}
		removed += n
	}
	d.note("%d objects of an earlier run removed", removed)
	return nil
}

// removeAll deletes every object of a kind and waits until they are gone.
func (d *demo) removeAll(ctx context.Context, list client.ObjectList) (int, error) {
	objects, err := d.items(ctx, list)
	if err != nil {
		return 0, err
	}
	for _, o := range objects {
		// A Tenant is in use until the manager has noticed that its bots are gone: the refusal ends by itself.
		err := stage.Until(ctx, time.Minute, "delete "+o.GetName(), func(ctx context.Context) (string, error) {
			return "", client.IgnoreNotFound(d.client.Delete(ctx, o))
		})
		if err != nil {
			return 0, err
		}
	}
	err = stage.Until(ctx, 2*time.Minute, "wait for deletions", func(ctx context.Context) (string, error) {
		left, err := d.items(ctx, list)
		if len(left) > 0 {
			return fmt.Sprintf("%d are left, the first is %s/%s", len(left), left[0].GetNamespace(), left[0].GetName()), err
		}
		return "", err
	})
	return len(objects), err
}

func (d *demo) items(ctx context.Context, list client.ObjectList) ([]client.Object, error) {
	if err := d.client.List(ctx, list); err != nil {
		return nil, fmt.Errorf("list what is there: %w", err)
	}
	var out []client.Object
	switch l := list.(type) {
	case *v1alpha1.TenantList:
		for i := range l.Items {
			out = append(out, &l.Items[i])
		}
	case *v1alpha1.BotDeploymentList:
		for i := range l.Items {
			out = append(out, &l.Items[i])
		}
	case *v1alpha1.DataStoreList:
		for i := range l.Items {
			out = append(out, &l.Items[i])
		}
	case *v1alpha1.DataRetentionPolicyList:
		for i := range l.Items {
			out = append(out, &l.Items[i])
		}
	}
	return out, nil
}

func (d *demo) install(ctx context.Context) error {
	if err := d.LoadImages(ctx); err != nil {
		return err
	}
	if err := d.PrepareKEK(ctx); err != nil {
		return err
	}
	if err := d.Install(ctx); err != nil {
		return err
	}
	if err := d.lookAtInstallation(ctx); err != nil {
		return err
	}
	d.note("key-encryption key: %s, mounted from its own volume; it is not in the cluster's etcd", d.KEKFile())
	return nil
}

// lookAtInstallation wants Lethe's pods to be as the strictest of Kubernetes' standards asks.
func (d *demo) lookAtInstallation(ctx context.Context) error {
	var pods corev1.PodList
	if err := d.client.List(ctx, &pods, client.InNamespace(stage.SystemNamespace)); err != nil {
		return fmt.Errorf("look at Lethe's pods: %w", err)
	}
	var rows [][]string
	for _, p := range pods.Items {
		if p.DeletionTimestamp != nil || p.Status.Phase == corev1.PodSucceeded {
			continue // of an installation before this one
		}
		for _, v := range p.Spec.Volumes {
			if v.HostPath != nil {
				return fmt.Errorf("pod %s mounts a path of the host", p.Name)
			}
		}
		rows = append(rows, []string{p.Name, string(p.Status.Phase), p.Spec.ServiceAccountName})
	}
	// The namespace enforces the strictest of Kubernetes' standards on our own pods too.
	var ns corev1.Namespace
	if err := d.client.Get(ctx, client.ObjectKey{Name: stage.SystemNamespace}, &ns); err != nil {
		return fmt.Errorf("look at Lethe's namespace: %w", err)
	}
	if ns.Labels["pod-security.kubernetes.io/enforce"] != "restricted" {
		return errors.New("the namespace lethe-system does not enforce restricted pods")
	}
	return d.table([]string{"POD", "PHASE", "SERVICE ACCOUNT"}, rows)
}

func (d *demo) tenants(ctx context.Context) error {
	tenants, err := quickstart[v1alpha1.Tenant](d, "tenants.yaml")
	if err != nil {
		return err
	}
	var objects []client.Object
	for _, t := range tenants {
		// The addresses of this machine are known once the services have started.
		t.Spec.Egress = nil
		objects = append(objects, t)
	}
	if err := d.apply(ctx, "tenants.yaml", objects...); err != nil {
		return err
	}
	for _, t := range tenants {
		if err := d.await(ctx, t, v1alpha1.ConditionReady, time.Minute); err != nil {
			return err
		}
		if len(t.Status.SealingKeys) == 0 {
			return fmt.Errorf("tenant %s is ready without a key to seal to", t.Name)
		}
		if t.Status.KEKGrade != "Production" {
			return fmt.Errorf("tenant %s says that its key-encryption key is of grade %q", t.Name, t.Status.KEKGrade)
		}
	}
	out, err := d.Kubectl(ctx, "", "get", "tenants", "-o", "wide")
	if err != nil {
		return err
	}
	d.printed(out)
	return nil
}

// printed shows a program's output.
func (d *demo) printed(out string) {
	for line := range lines([]byte(out)) {
		d.note("%s", line)
	}
}

// block of one address.
func block(host string) string {
	if strings.Contains(host, ":") {
		return host + "/128"
	}
	return host + "/32"
}

// openDoor adds an address to a Tenant's egress: the platform's side of the door.
func (d *demo) openDoor(ctx context.Context, name, host string, port int32) error {
	t := &v1alpha1.Tenant{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if err := d.client.Get(ctx, client.ObjectKeyFromObject(t), t); err != nil {
		return fmt.Errorf("read tenant %s: %w", name, err)
	}
	spec := t.Spec
	spec.Egress = []v1alpha1.EgressRule{{CIDR: block(host), Ports: []v1alpha1.EgressPort{{Protocol: "TCP", Port: port}}}}
	if d.theirs != nil {
		spec.ForeignNetworkPolicies = []v1alpha1.ForeignNetworkPolicy{{Name: stage.LabelPolicy}}
	}
	wanted := &v1alpha1.Tenant{TypeMeta: metav1.TypeMeta{APIVersion: "lethe.dev/v1alpha1", Kind: "Tenant"}, ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: spec}
	if err := d.apply(ctx, "tenant-"+name+".yaml", wanted); err != nil {
		return err
	}
	if err := d.await(ctx, t, v1alpha1.ConditionReady, time.Minute); err != nil || d.theirs == nil {
		return err
	}
	return d.openByLabel(ctx, t.Spec.Namespaces[0].Name, port)
}

// installOnHost stands in for install where pods only pretend.
func (d *demo) installOnHost(ctx context.Context) error {
	if err := d.BuildOnHost(ctx); err != nil {
		return err
	}
	h, err := d.InstallOnHost(ctx)
	if err != nil {
		return err
	}
	d.note("manager (process %d) and keyserver (process %d), each with a token of its own ServiceAccount", h.ManagerPID, h.KeyserverPID)
	return nil
}
