package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/test/guest"
	"github.com/lethe-dev/lethe/test/snapshot"
	"github.com/lethe-dev/lethe/test/stage"
)

// images that are made for this cluster.
func (t *theirs) stage() stage.Theirs {
	w := t.wishes
	return stage.Theirs{
		Programs: t.programs, Arch: t.facts.Architectures[0], Repository: w.Delivery.Repository, Push: w.Delivery.Push, Load: w.Delivery.Load, Postgres: w.Postgres,
	}
}

func (d *demo) buildTheirs(ctx context.Context) error { return d.BuildTheirs(ctx, d.theirs.stage()) }

// clearTheirs removes an earlier demo, whole or broken off, and looks again: from here on what has the demo's names
// is the demo's.
func (d *demo) clearTheirs(ctx context.Context) error {
	t := d.theirs
	err := t.guest.Remove(ctx, t.facts.Mark)
	switch {
	case errors.Is(err, guest.ErrNothing):
		d.note("nothing was here")
	case err != nil:
		return err
	default:
		d.note("what an earlier run left is removed")
	}
	now := guest.Facts{Context: t.facts.Context, Server: t.facts.Server, User: t.facts.User}
	if err := t.guest.Look(ctx, &now); err != nil {
		return err
	}
	if now.Was != nil {
		return errors.New("somebody else has begun here meanwhile")
	}
	return guest.Refused(now.Problems(t.wishes))
}

func (d *demo) bringTheirs(ctx context.Context) error {
	var err error
	if d.theirs.images, err = d.BringTheirs(ctx, d.theirs.stage()); err != nil {
		return err
	}
	i := d.theirs.images
	for _, image := range []string{i.Lethe, i.Bot, i.Telegram, i.Stagehand} {
		d.note("%s", image)
	}
	return nil
}

func (d *demo) installTheirs(ctx context.Context) error {
	t := d.theirs
	if err := t.guest.Mark(ctx); err != nil {
		return err
	}
	t.services = d.NewServices(ctx, d.client, guest.Namespace, t.images)
	if err := t.services.GiveKEK(ctx, t.wishes.StorageClass); err != nil {
		return err
	}
	if err := t.services.InstallTheirs(ctx, t.facts.APIPorts, t.wishes.Values); err != nil {
		return err
	}
	if err := d.lookAtInstallation(ctx); err != nil {
		return err
	}
	d.note("key-encryption key: %s, brought to its own volume through a pod's standard input; it is in no object of the cluster's", d.KEKFile())
	return nil
}

// doorTheirs starts the stand-in as a pod and lets acme's tenant, and nobody else, to it.
func (d *demo) doorTheirs(ctx context.Context) error {
	var err error
	if d.telegram, err = d.theirs.services.Telegram(ctx); err != nil {
		return err
	}
	if err := d.onlyAcmesDoor(ctx); err != nil {
		return err
	}
	d.note("Whether a NetworkPolicy is a wall is for this cluster's network plugin, and is not tried here.")
	return nil
}

// openByLabel opens the demo's own pods to a tenant's namespace by a policy that the Tenant names.
func (d *demo) openByLabel(ctx context.Context, namespace string, port int32) error {
	policy := stage.OpenByLabel(namespace, guest.Namespace, port)
	policy.TypeMeta = metav1.TypeMeta{APIVersion: "networking.k8s.io/v1", Kind: "NetworkPolicy"}
	return d.apply(ctx, "policy-"+namespace+".yaml", policy)
}

// leaksTheirs searches what the API shows of the demo's namespaces. In every place stands a control value that must
// be found.
func (d *demo) leaksTheirs(ctx context.Context) error {
	t := d.theirs
	meta := metav1.ObjectMeta{Namespace: guest.Namespace, Name: "demo-control"}
	for _, o := range []client.Object{
		&corev1.Secret{ObjectMeta: meta, StringData: map[string]string{"control": d.control}},
		&corev1.ConfigMap{ObjectMeta: meta, Data: map[string]string{"control": d.control}},
		&corev1.Event{
			ObjectMeta: meta, Reason: "Control", Message: d.control, Type: corev1.EventTypeNormal,
			InvolvedObject: corev1.ObjectReference{APIVersion: "v1", Kind: "ConfigMap", Namespace: meta.Namespace, Name: meta.Name},
		},
	} {
		if err := d.client.Create(ctx, o); err != nil {
			return fmt.Errorf("write the control value: %w", err)
		}
	}
	if err := t.services.Say(ctx, "demo-control", d.control); err != nil {
		return err
	}
	dump := d.Path("search")
	if err := os.RemoveAll(dump); err != nil {
		return fmt.Errorf("forget an earlier search: %w", err)
	}
	defer func() { _ = os.RemoveAll(dump) }() // make demo-down removes what stays
	if err := t.guest.Dump(ctx, dump); err != nil {
		return err
	}
	secrets, err := t.guest.Secrets(ctx)
	if err != nil {
		return err
	}
	kek, err := os.ReadFile(d.KEKFile())
	if err != nil {
		return fmt.Errorf("read the key-encryption key: %w", err)
	}
	opened, err := snapshot.Open(secrets, kek)
	if err != nil {
		return fmt.Errorf("open the Secrets with the key-encryption key: %w", err)
	}
	var places []place
	for _, p := range guest.Places {
		places = append(places, place{p.Name, d.Path("search", p.Folder), true})
	}
	if err := d.search(ctx, opened, places); err != nil {
		return err
	}
	d.note("Not searched, since the API does not show them: etcd's files and the nodes' disks. On a cluster of the demo's own (make demo) they are.")
	return nil
}

// secretsTheirs shows what a thief of every Secret has.
func (d *demo) secretsTheirs(ctx context.Context) error {
	secrets, err := d.theirs.guest.Secrets(ctx)
	if err != nil {
		return err
	}
	return d.onlyWithTheKey(ctx, secrets)
}
