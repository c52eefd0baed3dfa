package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/test/leakscan"
	"github.com/lethe-dev/lethe/test/snapshot"
)

// place is where no secret may be.
type place struct {
	name, path string
	// control says that the value written on purpose must be found there.
	control bool
}

// leaks searches etcd and the node's disk for what may not be there. The private keys are taken out of a snapshot
// with the key-encryption key: nobody else has them.
func (d *demo) leaks(ctx context.Context) error {
	// In etcd the control value stands in an object of its own too; in containerd's folder it is the bot's environment.
	control := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "demo-control"}, Data: map[string]string{"control": d.control}}
	if err := d.client.Delete(ctx, control); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("write the control value: %w", err)
	}
	control.ResourceVersion = ""
	if err := d.client.Create(ctx, control); err != nil {
		return fmt.Errorf("write the control value: %w", err)
	}
	opened, file, err := d.openSnapshot(ctx)
	if err != nil {
		return err
	}
	places := []place{
		{"etcd's database", filepath.Join(d.info.Etcd.DataDir, "member", "snap"), true},
		{"etcd's write-ahead log", filepath.Join(d.info.Etcd.DataDir, "member", "wal"), true},
		{"a snapshot of etcd", file, true},
		{"containerd's folder on the node", d.info.Containerd.Root, true},
		{"the kubelet's folder on the node", d.info.KubeletDir, false},
		{"logs of the cluster and its pods", d.info.LogDir, false},
	}
	return d.search(ctx, opened, places)
}

// search looks through places for every secret that there is, and for the control value.
func (d *demo) search(ctx context.Context, opened snapshot.Opened, places []place) error {
	needles, err := d.needles(opened)
	if err != nil {
		return err
	}
	scanner, err := leakscan.New(needles)
	if err != nil {
		return err
	}
	var rows [][]string
	var found []error
	for _, p := range places {
		rep, err := scanner.Tree(ctx, p.path)
		if err != nil {
			return err
		}
		secrets, controls := 0, 0
		for _, f := range rep.Findings {
			if f.Needle == "control" {
				controls++
				continue
			}
			secrets++
			found = append(found, errors.New(f.String()))
		}
		if p.control && controls == 0 {
			found = append(found, fmt.Errorf("the control value is not found in %s: the search proves nothing", p.name))
		}
		seen := "-"
		if p.control {
			seen = "yes"
		}
		rows = append(rows, []string{p.name, thousands(rep.Bytes>>10) + " KiB", thousands(rep.Files), thousands(secrets), seen})
	}
	if err := d.table([]string{"PLACE", "SEARCHED", "FILES", "SECRETS FOUND", "CONTROL VALUE FOUND"}, rows); err != nil {
		return err
	}
	d.note("searched for: the bot's token, the key-encryption key, %d private keys; raw, base64 at every alignment, hex, and inside gzip", len(opened.PrivateKeys))
	return errors.Join(found...)
}

// needles are what may be nowhere.
func (d *demo) needles(opened snapshot.Opened) ([]leakscan.Needle, error) {
	kek, err := d.KEK()
	if err != nil {
		return nil, err
	}
	_, secret, _ := strings.Cut(d.token, ":")
	needles := []leakscan.Needle{
		{Name: "control", Value: []byte(d.control)},
		{Name: "bot token", Value: []byte(secret)},
		{Name: "key-encryption key", Value: kek},
	}
	for name, key := range opened.PrivateKeys {
		needles = append(needles, leakscan.Needle{Name: "private key " + name, Value: key})
	}
	return needles, nil
}

// openSnapshot takes a snapshot and opens it with the key-encryption key.
func (d *demo) openSnapshot(ctx context.Context) (snapshot.Opened, string, error) {
	secrets, file, err := d.takeSnapshot(ctx)
	if err != nil {
		return snapshot.Opened{}, "", err
	}
	kek, err := os.ReadFile(d.KEKFile())
	if err != nil {
		return snapshot.Opened{}, "", fmt.Errorf("read the key-encryption key: %w", err)
	}
	opened, err := snapshot.Open(secrets, kek)
	if err != nil {
		return opened, "", fmt.Errorf("open the snapshot with the key-encryption key: %w", err)
	}
	return opened, file, nil
}

func (d *demo) takeSnapshot(ctx context.Context) ([]corev1.Secret, string, error) {
	file := d.Path("snapshot.db")
	if err := os.RemoveAll(file); err != nil {
		return nil, "", fmt.Errorf("remove an earlier snapshot: %w", err)
	}
	e := d.info.Etcd
	tools := snapshot.ToolsBeside(e.Etcdctl, e.Etcdutl)
	if err := tools.Save(ctx, e.Endpoint, e.CA, e.Client.Cert, e.Client.Key, file); err != nil {
		return nil, "", err
	}
	secrets, err := tools.Secrets(ctx, file)
	return secrets, file, err
}

// snapshot shows what a thief of a snapshot has.
func (d *demo) snapshot(ctx context.Context) error {
	secrets, _, err := d.takeSnapshot(ctx)
	if err != nil {
		return err
	}
	return d.onlyWithTheKey(ctx, secrets)
}

// onlyWithTheKey wants Secrets to open with the key-encryption key, and with no other.
func (d *demo) onlyWithTheKey(ctx context.Context, secrets []corev1.Secret) error {
	for _, s := range secrets {
		for key, value := range s.Data {
			if strings.Contains(string(value), d.token) {
				return fmt.Errorf("secret %s/%s holds the token in clear under %s", s.Namespace, s.Name, key)
			}
		}
	}
	guess := d.Path("secrets", "guess")
	if _, err := d.Lethe(ctx, "", "keys", "generate-kek", guess); err != nil {
		return err
	}
	wrong, err := os.ReadFile(guess)
	if err = errors.Join(err, os.Remove(guess)); err != nil {
		return fmt.Errorf("try another key-encryption key: %w", err)
	}
	opened, err := snapshot.Open(secrets, wrong)
	if err == nil || len(opened.Credentials) > 0 || len(opened.PrivateKeys) > 0 {
		return fmt.Errorf("without the right key-encryption key %d credentials opened", len(opened.Credentials))
	}
	d.note("with another key-encryption key: %v", err)
	right, err := os.ReadFile(d.KEKFile())
	if err != nil {
		return fmt.Errorf("read the key-encryption key: %w", err)
	}
	if opened, err = snapshot.Open(secrets, right); err != nil {
		return fmt.Errorf("open with the key-encryption key: %w", err)
	}
	if string(opened.Credentials[botNamespace+"/BotDeployment/support/telegram-token"]) != d.token {
		return errors.New("with the right key-encryption key the bot's token does not open")
	}
	d.note("with the right one: %d of %d credentials open, and the bot's is the token", len(opened.Credentials), len(opened.Credentials))
	return nil
}
