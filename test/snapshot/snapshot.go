// Package snapshot does what someone does who got hold of a copy of etcd: it reads the Secrets in a snapshot file,
// and tries to open the credentials in them with a key-encryption key. The demo and the tests show with it that a
// snapshot opens nothing without that key, and everything with it.
package snapshot

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"

	"github.com/lethe-dev/lethe/test/ports"
)

// Tools are the programs of etcd.
type Tools struct {
	Etcd, Etcdctl, Etcdutl string
}

// ToolsBeside finds etcd itself beside its tools.
func ToolsBeside(etcdctl, etcdutl string) Tools {
	return Tools{Etcd: filepath.Join(filepath.Dir(etcdctl), "etcd"), Etcdctl: etcdctl, Etcdutl: etcdutl}
}

// Save takes a snapshot of a running etcd. endpoint is a URL; ca, cert and key are files.
func (t Tools) Save(ctx context.Context, endpoint, ca, cert, key, file string) error {
	_, err := output(exec.CommandContext(ctx, t.Etcdctl, "--endpoints", endpoint, "--cacert", ca, "--cert", cert, "--key", key, "snapshot", "save", file))
	if err != nil {
		return fmt.Errorf("take a snapshot: %w", err)
	}
	return nil
}

// Secrets restores a snapshot into a throw-away etcd on loopback and reads every Secret out of it.
func (t Tools) Secrets(ctx context.Context, file string) (secrets []corev1.Secret, err error) {
	dir, err := os.MkdirTemp("", "lethe-snapshot-")
	if err != nil {
		return nil, fmt.Errorf("make a folder for the snapshot: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	data := filepath.Join(dir, "data")
	if _, err := output(exec.CommandContext(ctx, t.Etcdutl, "snapshot", "restore", file, "--data-dir", data)); err != nil {
		return nil, fmt.Errorf("restore the snapshot: %w", err)
	}
	endpoint, stop, err := t.serve(ctx, data)
	if err != nil {
		return nil, err
	}
	defer stop()
	out, err := output(exec.CommandContext(ctx, t.Etcdctl, "--endpoints", endpoint, "get", "--prefix", "/registry/secrets/", "-w", "json"))
	if err != nil {
		return nil, fmt.Errorf("read the snapshot's Secrets: %w", err)
	}
	return decode(out)
}

// serve runs an etcd on a data folder until stop is called.
func (t Tools) serve(ctx context.Context, data string) (endpoint string, stop func(), err error) {
	client, err := freeURL()
	if err != nil {
		return "", nil, err
	}
	peer, err := freeURL()
	if err != nil {
		return "", nil, err
	}
	var said bytes.Buffer
	cmd := exec.Command(t.Etcd, "--data-dir", data, "--listen-client-urls", client, "--advertise-client-urls", client,
		"--listen-peer-urls", peer, "--log-level", "error", "--unsafe-no-fsync")
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		return "", nil, fmt.Errorf("start an etcd for the snapshot: %w", err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	stop = func() {
		_ = cmd.Process.Kill() // it may have ended, and its data is thrown away
		<-ended
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := output(exec.CommandContext(ctx, t.Etcdctl, "--endpoints", client, "--command-timeout", "2s", "endpoint", "health")); err == nil {
			return client, stop, nil
		}
		select {
		case <-ended:
			return "", nil, fmt.Errorf("the etcd for the snapshot ended: %s", said.String())
		case <-ctx.Done():
			stop()
			return "", nil, fmt.Errorf("the etcd for the snapshot does not answer: %w", ctx.Err())
		case <-tick.C:
		}
	}
}

// decode reads what etcdctl prints.
func decode(out []byte) ([]corev1.Secret, error) {
	var answer struct {
		Kvs []struct {
			Key   []byte `json:"key"`
			Value []byte `json:"value"`
		} `json:"kvs"`
	}
	if err := json.Unmarshal(out, &answer); err != nil {
		return nil, fmt.Errorf("read etcdctl's answer: %w", err)
	}
	var secrets []corev1.Secret
	for _, kv := range answer.Kvs {
		var s corev1.Secret
		if _, _, err := clientgoscheme.Codecs.UniversalDeserializer().Decode(kv.Value, nil, &s); err != nil {
			return nil, fmt.Errorf("decode %s: %w", kv.Key, err)
		}
		secrets = append(secrets, s)
	}
	return secrets, nil
}

func freeURL() (string, error) {
	address, err := ports.Address()
	return "http://" + address, err
}

func output(cmd *exec.Cmd) ([]byte, error) {
	var out, problem bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problem
	if err := cmd.Run(); err != nil {
		b := problem.Bytes()
		return nil, fmt.Errorf("%s: %w: %s", filepath.Base(cmd.Path), err, bytes.TrimSpace(b[max(0, len(b)-1000):]))
	}
	return out.Bytes(), nil
}
