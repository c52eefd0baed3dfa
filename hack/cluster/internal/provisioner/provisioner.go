// Package provisioner gives claims of the cluster's default storage class a volume: a folder of the cluster's own on the
// real node, an object alone on simulated ones.
package provisioner

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/lethe-dev/lethe/hack/cluster/internal/api"
)

const (
	// Command is the command of this program that Run is.
	Command = "provision-volumes"
	// Name is what storage classes call the provisioner.
	Name = "cluster.lethe.dev/local"
	// StorageClass is the class whose claims get volumes.
	StorageClass = "local"
)

// provisionedBy is the annotation by which the volume controller leaves the removal of a volume to its provisioner.
const provisionedBy = "pv.kubernetes.io/provisioned-by"

type provisioner struct {
	api *api.Client
	// dir has one folder per volume, on the node of that name; both are empty where nodes are simulated.
	dir, node string
}

// Run provisions volumes until SIGTERM.
func Run(args []string) error {
	flags := flag.NewFlagSet(Command, flag.ContinueOnError)
	client := api.Flags(flags, "lethe-volume-provisioner")
	dir := flags.String("dir", "", "folder for volumes; empty: volumes are objects alone")
	node := flags.String("node", "", "node that has the folder")
	if err := flags.Parse(args); err != nil {
		return fmt.Errorf("provision volumes: %w", err)
	}
	connected, err := client()
	if err != nil {
		return fmt.Errorf("provision volumes: %w", err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	p := &provisioner{api: connected, dir: *dir, node: *node}
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.follow(ctx, "/api/v1/persistentvolumeclaims", p.claim)
	}()
	p.follow(ctx, "/api/v1/persistentvolumes", p.volume)
	<-done
	return nil
}

// object is what the provisioner reads of claims and volumes.
type object struct {
	Metadata struct {
		Name, Namespace, UID string
		ResourceVersion      string
		Annotations          map[string]string
	}
	Spec struct {
		StorageClassName string
		VolumeName       string
		VolumeMode       string
		AccessModes      []string
		Resources        struct{ Requests map[string]string }
	}
	Status struct{ Phase string }
}

// follow calls handle with each object of a list and then with each that changes, for ever.
func (p *provisioner) follow(ctx context.Context, path string, handle func(context.Context, object) error) {
	api.Follow(ctx, p.api, path, api.Follower[object]{
		List: func(ctx context.Context, objects []object) error {
			for _, o := range objects {
				if err := handle(ctx, o); err != nil {
					return err
				}
			}
			return nil
		},
		Event: func(ctx context.Context, kind string, o object) error {
			if kind == "DELETED" {
				return nil
			}
			return handle(ctx, o)
		},
	})
}

// claim makes the volume of a claim that waits for one. The volume names the claim, and the cluster's volume controller
// binds the two.
func (p *provisioner) claim(ctx context.Context, o object) error {
	if o.Spec.StorageClassName != StorageClass || o.Spec.VolumeName != "" || o.Status.Phase != "Pending" {
		return nil
	}
	name := "pvc-" + o.Metadata.UID
	spec := map[string]any{
		"storageClassName":              StorageClass,
		"accessModes":                   o.Spec.AccessModes,
		"capacity":                      map[string]string{"storage": o.Spec.Resources.Requests["storage"]},
		"persistentVolumeReclaimPolicy": "Delete",
		"volumeMode":                    "Filesystem",
		"claimRef": map[string]string{
			"apiVersion": "v1", "kind": "PersistentVolumeClaim",
			"namespace": o.Metadata.Namespace, "name": o.Metadata.Name, "uid": o.Metadata.UID,
		},
	}
	if p.dir == "" {
		spec["hostPath"] = map[string]string{"path": "/simulated/" + name}
	} else {
		path := filepath.Join(p.dir, name)
		if err := os.MkdirAll(path, 0o755); err != nil {
			return fmt.Errorf("make volume: %w", err)
		}
		// Whatever user a pod runs as can write, as on a cloud's disk with fsGroup.
		if err := os.Chmod(path, 0o777); err != nil {
			return fmt.Errorf("make volume: %w", err)
		}
		spec["local"] = map[string]string{"path": path}
		spec["nodeAffinity"] = map[string]any{"required": map[string]any{"nodeSelectorTerms": []any{
			map[string]any{"matchExpressions": []any{
				map[string]any{"key": "kubernetes.io/hostname", "operator": "In", "values": []string{p.node}},
			}},
		}}}
	}
	body, err := p.api.Do(ctx, http.MethodPost, "/api/v1/persistentvolumes", map[string]any{
		"apiVersion": "v1", "kind": "PersistentVolume",
		"metadata": map[string]any{"name": name, "annotations": map[string]string{provisionedBy: Name}},
		"spec":     spec,
	})
	if err != nil {
		return fmt.Errorf("make volume: %w", err)
	}
	return body.Close()
}

// volume removes a volume of ours whose claim is gone, with its folder.
func (p *provisioner) volume(ctx context.Context, o object) error {
	if o.Metadata.Annotations[provisionedBy] != Name || o.Status.Phase != "Released" {
		return nil
	}
	// The name becomes part of a path that is removed.
	if name := o.Metadata.Name; p.dir != "" && filepath.IsLocal(name) && filepath.Base(name) == name {
		if err := os.RemoveAll(filepath.Join(p.dir, name)); err != nil {
			return fmt.Errorf("remove volume: %w", err)
		}
	}
	body, err := p.api.Do(ctx, http.MethodDelete, "/api/v1/persistentvolumes/"+o.Metadata.Name, nil)
	if err != nil {
		return fmt.Errorf("remove volume: %w", err)
	}
	return body.Close()
}
