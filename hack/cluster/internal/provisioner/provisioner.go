// Package provisioner gives claims of the cluster's default storage class a volume: a folder of the cluster's own on the
// real node, an object alone on simulated ones.
package provisioner

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
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

// retryAfter is the pause after a watch or a request has failed.
const retryAfter = time.Second

type provisioner struct {
	server string
	client *http.Client
	// dir has one folder per volume, on the node of that name; both are empty where nodes are simulated.
	dir, node string
}

// Run provisions volumes until SIGTERM.
func Run(args []string) error {
	flags := flag.NewFlagSet(Command, flag.ContinueOnError)
	server := flags.String("server", "", "URL of the API server")
	ca := flags.String("ca", "", "file with the authority of the API server")
	cert := flags.String("cert", "", "file with the client certificate")
	key := flags.String("key", "", "file with its key")
	dir := flags.String("dir", "", "folder for volumes; empty: volumes are objects alone")
	node := flags.String("node", "", "node that has the folder")
	if err := flags.Parse(args); err != nil {
		return fmt.Errorf("provision volumes: %w", err)
	}
	client, err := newClient(*ca, *cert, *key)
	if err != nil {
		return fmt.Errorf("provision volumes: %w", err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	p := &provisioner{server: *server, client: client, dir: *dir, node: *node}
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.follow(ctx, "/api/v1/persistentvolumeclaims", p.claim)
	}()
	p.follow(ctx, "/api/v1/persistentvolumes", p.volume)
	<-done
	return nil
}

func newClient(ca, cert, key string) (*http.Client, error) {
	roots, err := os.ReadFile(ca)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(roots) {
		return nil, fmt.Errorf("%s holds no certificate", ca)
	}
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return nil, err
	}
	return &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{
		RootCAs: pool, Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12,
	}}}, nil
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

// follow calls handle with each object of a list and then with each that changes, for ever; what fails is tried again
// with the next list.
func (p *provisioner) follow(ctx context.Context, path string, handle func(context.Context, object) error) {
	for ctx.Err() == nil {
		if err := p.once(ctx, path, handle); err != nil && ctx.Err() == nil {
			log.Printf("%s: %v", path, err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(retryAfter):
		}
	}
}

func (p *provisioner) once(ctx context.Context, path string, handle func(context.Context, object) error) error {
	body, err := p.do(ctx, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	var list struct {
		Metadata struct{ ResourceVersion string }
		Items    []object
	}
	err = errors.Join(json.NewDecoder(body).Decode(&list), body.Close())
	if err != nil {
		return fmt.Errorf("list: %w", err)
	}
	for _, o := range list.Items {
		if err := handle(ctx, o); err != nil {
			return err
		}
	}
	body, err = p.do(ctx, http.MethodGet, path+"?watch=true&resourceVersion="+list.Metadata.ResourceVersion, nil)
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	events := json.NewDecoder(body)
	for {
		var event struct {
			Type   string
			Object object
		}
		if err := events.Decode(&event); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("watch: %w", err)
		}
		switch event.Type {
		case "ADDED", "MODIFIED":
			if err := handle(ctx, event.Object); err != nil {
				return err
			}
		case "ERROR":
			return errors.New("watch: refused, probably for its age")
		}
	}
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
	body, err := p.do(ctx, http.MethodPost, "/api/v1/persistentvolumes", map[string]any{
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
	body, err := p.do(ctx, http.MethodDelete, "/api/v1/persistentvolumes/"+o.Metadata.Name, nil)
	if err != nil {
		return fmt.Errorf("remove volume: %w", err)
	}
	return body.Close()
}

// do sends a request. That something to make is there, or something to remove is not, is success.
func (p *provisioner) do(ctx context.Context, method, path string, content any) (io.ReadCloser, error) {
	var body io.Reader
	if content != nil {
		data, err := json.Marshal(content)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, p.server+path, body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "lethe-volume-provisioner")
	resp, err := p.client.Do(req)
	if err != nil {
		return nil, err
	}
	done := method == http.MethodPost && resp.StatusCode == http.StatusConflict ||
		method == http.MethodDelete && resp.StatusCode == http.StatusNotFound
	if resp.StatusCode >= 300 && !done {
		text, err := io.ReadAll(io.LimitReader(resp.Body, 1024))
		return nil, errors.Join(fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, text), err, resp.Body.Close())
	}
	return resp.Body, nil
}
