package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/internal/keystore"
	"github.com/lethe-dev/lethe/internal/sealing"
)

func newKeys(s *shell) *cobra.Command {
	// Those that look into the namespace of the wrapped keys, and those that need no key of it.
	inside := []*cobra.Command{newKeysBackup(s), newKeysVerify(s), newKeysRestore(s), newKeysStatus(s), newKeysRotate(s), newKeysDestroy(s), newKeysPending(s), newKeysForget(s)}
	for _, cmd := range inside {
		inKeysNamespace(cmd)
	}
	return group("keys", "Everything about keys: make, publish, back up, verify, restore, rotate and destroy them",
		append([]*cobra.Command{newKeysPublic(s), newKeysGenerateKEK(s)}, inside...)...)
}

// inKeysNamespace gives a command, or those below it, the flag that says where the wrapped keys are.
func inKeysNamespace(cmd *cobra.Command) {
	if !cmd.HasSubCommands() {
		cmd.Flags().String("keys-namespace", "lethe-keys", "namespace that holds the wrapped keys")
		return
	}
	for _, below := range cmd.Commands() {
		inKeysNamespace(below)
	}
}

func newKeysBackup(s *shell) *cobra.Command {
	return &cobra.Command{
		Use:   "backup FILE",
		Short: "Write the wrapped keys to a new file",
		Long: `Write every wrapped key of the cluster to a new file that only its owner can read. Without the key-encryption key the
file opens nothing; together they open everything that was sealed: keep them apart. A backup keeps keys alive that are
destroyed later, so note where backups are, and end them in time.`,
		Example: "  kubectl lethe keys backup keys-2026-03-02.json",
		Args:    oneArgument("the file to write"),
		RunE: func(cmd *cobra.Command, args []string) error {
			ns, err := cmd.Flags().GetString("keys-namespace")
			if err != nil {
				return err
			}
			return s.backupKeys(cmd.Context(), ns, args[0])
		},
	}
}

func (s *shell) backupKeys(ctx context.Context, namespace, path string) error {
	c, err := s.client()
	if err != nil {
		return err
	}
	var list corev1.SecretList
	if err := c.List(ctx, &list, client.InNamespace(namespace)); err != nil {
		return fmt.Errorf("list the keys in %s: %w", namespace, err)
	}
	backup, err := keystore.NewBackup(list.Items, s.now())
	if err != nil {
		return fmt.Errorf("namespace %s: %w", namespace, err)
	}
	b, err := backup.Encode()
	if err != nil {
		return err
	}
	if err := writeNew(path, b); err != nil {
		return err
	}
	items, err := backup.List()
	if err != nil {
		return err
	}
	s.note("Wrote %s to %s. Realm %s. It opens with key-encryption key %s.", countKinds(items), path, backup.Realm, backup.KEK)
	s.note("Try it: kubectl lethe keys verify %s --kek-file KEK", path)
	return nil
}

// countKinds says of how many of each kind there are keys.
func countKinds(items []keystore.BackupItem) string {
	counts := map[string]int{}
	for _, i := range items {
		counts[i.Kind]++
	}
	var parts []string
	for _, k := range []struct{ kind, word string }{
		{"Tenant", "tenant"}, {sealing.KindBotDeployment, "bot"}, {sealing.KindDataStore, "data store"},
	} {
		parts = append(parts, many(counts[k.kind], k.word))
	}
	return "the keys of " + strings.Join(parts, ", ")
}

func newKeysVerify(s *shell) *cobra.Command {
	var kekFiles []string
	var record bool
	cmd := &cobra.Command{
		Use:   "verify FILE --kek-file KEK",
		Short: "Open every key of a backup, to know that it can be restored",
		Long: `Open every key of a backup and authenticate every document, to know that it can be restored. It asks no cluster. With --record
the cluster is told that this backup was verified, by its date and digest: an earlier key-encryption key is called
destroyed only after that ("keys destroy kek").`,
		Example: `  kubectl lethe keys verify keys-2026-03-02.json --kek-file kek.b64
  kubectl lethe keys verify keys-2026-03-02.json --kek-file kek.b64 --record`,
		Args: oneArgument("the backup"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(kekFiles) == 0 {
				return errors.New("--kek-file is needed: only the key-encryption key can tell whether the keys open")
			}
			backup, kek, err := openBackup(args[0], kekFiles)
			if err != nil {
				return err
			}
			items, err := backup.List()
			if err != nil {
				return err
			}
			for _, i := range items {
				if err := s.say("%s\n", describeItem(i)); err != nil {
					return err
				}
			}
			s.note("Every key opens: %s, of %s.", countKinds(items), backup.Created.Format("2006-01-02 15:04 MST"))
			if !record {
				return nil
			}
			ns, err := cmd.Flags().GetString("keys-namespace")
			if err != nil {
				return err
			}
			return s.recordBackup(cmd.Context(), ns, backup, kek)
		},
	}
	cmd.Flags().StringArrayVar(&kekFiles, "kek-file", nil, "file with the key-encryption key; of a backup that was made while it changed, both, each with the flag")
	cmd.Flags().BoolVar(&record, "record", false, "tell the cluster that this backup was verified")
	return cmd
}

func describeItem(i keystore.BackupItem) string {
	line := i.Kind
	if i.Name != "" {
		line += " " + i.Name
	}
	if len(i.Keys) > 0 {
		line += ": sealing keys " + strings.Join(i.Keys, ", ")
	}
	return line
}

// recordBackup tells the cluster that a backup opens with the one key that it names, and needs no other.
func (s *shell) recordBackup(ctx context.Context, namespace string, backup keystore.Backup, kek sealing.Ring) error {
	only, err := kek.Find(backup.KEK)
	if err != nil {
		return fmt.Errorf("the backup needs key-encryption key %s: %w", backup.KEK, err)
	}
	if err := backup.Verify(sealing.Ring{only}); err != nil {
		return fmt.Errorf("not recorded: the backup was made while the key-encryption key changed, and does not open with %s alone: %w", backup.KEK, err)
	}
	c, err := s.client()
	if err != nil {
		return err
	}
	record := keystore.VerifiedBackup{Created: backup.Created, Digest: backup.Digest, KEK: backup.KEK, At: s.now().UTC().Truncate(time.Second)}
	if err := changeRotation(ctx, c, namespace, func(cm *corev1.ConfigMap) error { return keystore.RecordBackup(cm, record) }); err != nil {
		return err
	}
	s.note("Recorded: a backup of %s under key-encryption key %s opens.", backup.Created.Format("2006-01-02 15:04 MST"), backup.KEK)
	return nil
}

// openBackup reads a backup and, when key-encryption keys are given, opens all of it.
func openBackup(path string, kekFiles []string) (keystore.Backup, sealing.Ring, error) {
	b, err := readFile("the backup", path)
	if err != nil {
		return keystore.Backup{}, nil, err
	}
	backup, err := keystore.ReadBackup(b)
	if err != nil || len(kekFiles) == 0 {
		return backup, nil, err
	}
	var ring sealing.Ring
	for _, file := range kekFiles {
		kek, err := readKEK(file)
		if err != nil {
			return backup, nil, err
		}
		ring = append(ring, kek)
	}
	if leading, err := ring.Leading(backup.KEK); err == nil {
		ring = leading // what has to be written anew is under the one that wrapped
	}
	return backup, ring, backup.Verify(ring)
}

func readKEK(file string) (sealing.Key, error) {
	text, err := readFile("--kek-file", file)
	if err != nil {
		return sealing.Key{}, err
	}
	defer clear(text)
	kek, err := sealing.ParseKEK(text)
	if err != nil {
		return sealing.Key{}, fmt.Errorf("--kek-file: %w", err)
	}
	return kek, nil
}

func newKeysRestore(s *shell) *cobra.Command {
	var o restoreOptions
	cmd := &cobra.Command{
		Use:   "restore FILE",
		Short: "Bring the keys of a backup back",
		Long: `Write the keys of a backup that are missing from the cluster. What is there stays as it is, and keys under another
key-encryption key, of another realm or of another Tenant are never mixed: then nothing is written, and the reasons
are said.

Keys of a Tenant that does not exist stay away: it may have been deleted on purpose. --tenant NAME brings them back, and
--all-tenants those of every Tenant that lived when the backup was made; both need --kek-file. They wait 72 hours for a
Tenant of the same name, namespaces and external identifiers that somebody with the verb "adopt" makes, as after a deletion.

A whole cluster that was lost: install with the same realm and key-encryption key, restore with --all-tenants, and only then
apply Tenants, bots and stores out of Git.

Were they applied first, the keyserver has made new keys by now. --adopt puts those of the backup in their place, bound to
the new UIDs, and sets the Tenants' status. It refuses where something was sealed to the new keys.`,
		Example: `  # keys are missing, Tenants and bots are there
  kubectl lethe keys restore keys-2026-03-02.json

  # the whole cluster was lost; nothing was applied yet
  kubectl lethe keys restore keys-2026-03-02.json --all-tenants --kek-file kek.b64

  # the same, but Tenants and bots were applied too early
  kubectl lethe keys restore keys-2026-03-02.json --adopt --kek-file kek.b64`,
		Args: oneArgument("the backup"),
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			if o.namespace, err = cmd.Flags().GetString("keys-namespace"); err != nil {
				return err
			}
			if o.adopt && len(o.kekFiles) == 0 {
				return errors.New("--adopt needs --kek-file: the keys are wrapped anew for the new UIDs")
			}
			if (o.allTenants || len(o.tenants) > 0) && len(o.kekFiles) == 0 {
				return errors.New("--tenant and --all-tenants need --kek-file: the keys are wrapped anew, to wait for their Tenants")
			}
			o.path = args[0]
			return s.restoreKeys(cmd.Context(), o)
		},
	}
	cmd.Flags().StringArrayVar(&o.kekFiles, "kek-file", nil, "file with the key-encryption key: everything is opened before anything is written; may be given several times")
	cmd.Flags().BoolVar(&o.adopt, "adopt", false, "bind the keys to Tenants and objects that were made again, in the place of keys that nothing was sealed to")
	cmd.Flags().StringArrayVar(&o.tenants, "tenant", nil, "Tenant that does not exist and whose keys are to wait for it; may be repeated")
	cmd.Flags().BoolVar(&o.allTenants, "all-tenants", false, "the same for every Tenant that lived when the backup was made")
	cmd.Flags().BoolVar(&o.yes, "yes", false, "write without asking")
	return cmd
}

type restoreOptions struct {
	path, namespace        string
	kekFiles, tenants      []string
	adopt, allTenants, yes bool
}

func (s *shell) restoreKeys(ctx context.Context, o restoreOptions) error {
	backup, kek, err := openBackup(o.path, o.kekFiles)
	if err != nil {
		return err
	}
	c, err := s.client()
	if err != nil {
		return err
	}
	live, err := readLive(ctx, c, o.namespace)
	if err != nil {
		return err
	}
	plan, err := backup.Restore(o.namespace, live, keystore.RestoreOptions{KEK: kek, Adopt: o.adopt,
		Tenants: o.tenants, AllTenants: o.allTenants, Now: s.now()}, s.random)
	if err != nil {
		return err
	}
	s.describeRestoration(plan)
	switch {
	case len(plan.Problems) > 0:
		return errors.New("nothing was written")
	case len(plan.Create)+len(plan.Replace)+len(plan.Statuses) == 0:
		s.note("Nothing is missing.")
		return nil
	case o.yes:
	case !s.terminal():
		return errors.New("nothing was written: --yes writes this")
	default:
		if err := s.confirmTyped(o.namespace, "restore into it"); err != nil {
			return err
		}
	}
	if err := writeKeys(ctx, c, plan); err != nil {
		return err
	}
	s.note("Restored. Restart the keyserver, so that it forgets what it remembers: kubectl -n lethe-system rollout restart deployment/lethe-keyserver")
	return nil
}

// readLive reads what keys could belong to, and how often they were written as far as is known.
func readLive(ctx context.Context, c client.Client, namespace string) (keystore.Live, error) {
	live := keystore.Live{Tenants: map[string]keystore.LiveTenant{}}
	var secrets corev1.SecretList
	if err := c.List(ctx, &secrets, client.InNamespace(namespace)); err != nil {
		return live, fmt.Errorf("list the keys in %s: %w", namespace, err)
	}
	live.Secrets = secrets.Items
	var tenants v1alpha1.TenantList
	if err := c.List(ctx, &tenants); err != nil {
		return live, fmt.Errorf("list Tenants: %w", err)
	}
	for i := range tenants.Items {
		t := &tenants.Items[i]
		live.Tenants[t.Name] = keystore.LiveTenant{UID: string(t.UID), Generation: t.Status.KeysGeneration, SealingKeys: kidsOf(t)}
	}
	var bots v1alpha1.BotDeploymentList
	if err := c.List(ctx, &bots); err != nil {
		return live, fmt.Errorf("list BotDeployments: %w", err)
	}
	for i := range bots.Items {
		b := &bots.Items[i]
		o := keystore.LiveObject{ObjectRef: refOf(sealing.KindBotDeployment, b), Generation: b.Status.CredentialsGeneration}
		for _, c := range b.Spec.Credentials {
			o.SealedTo = append(o.SealedTo, sealedTo(c.Sealed)...)
		}
		live.Objects = append(live.Objects, o)
	}
	var stores v1alpha1.DataStoreList
	if err := c.List(ctx, &stores); err != nil {
		return live, fmt.Errorf("list DataStores: %w", err)
	}
	for i := range stores.Items {
		st := &stores.Items[i]
		o := keystore.LiveObject{ObjectRef: refOf(sealing.KindDataStore, st), Generation: st.Status.CredentialsGeneration}
		if st.Spec.Postgres != nil {
			o.SealedTo = sealedTo(st.Spec.Postgres.Password)
		}
		live.Objects = append(live.Objects, o)
	}
	return live, nil
}

func kidsOf(t *v1alpha1.Tenant) []string {
	var out []string
	for _, k := range t.Status.SealingKeys {
		out = append(out, k.KID)
	}
	return out
}

// sealedTo names the key of a sealed value, when it is one.
func sealedTo(value v1alpha1.SealedValue) []string {
	e, err := sealing.Parse(string(value))
	if err != nil {
		return nil
	}
	return []string{e.KID}
}

func refOf(kind string, o client.Object) keyapi.ObjectRef {
	return keyapi.ObjectRef{Kind: kind, Namespace: o.GetNamespace(), Name: o.GetName(), UID: string(o.GetUID())}
}

func (s *shell) describeRestoration(plan keystore.Restoration) {
	list := func(what string, secrets []*corev1.Secret) {
		for _, secret := range secrets {
			s.note("%s %s/%s", what, secret.Namespace, secret.Name)
		}
	}
	list("make    ", plan.Create)
	list("replace ", plan.Replace)
	for _, st := range plan.Statuses {
		s.note("set      the keys in the status of Tenant %s", st.Name)
	}
	slices.Sort(plan.Kept)
	for _, name := range plan.Kept {
		s.note("keep     %s", name)
	}
	for _, line := range plan.Waiting {
		s.note("wait     %s", line)
	}
	for _, line := range plan.Skipped {
		s.note("leave    %s", line)
	}
	for _, line := range plan.Older {
		s.note("older    %s", line)
	}
	for _, line := range plan.Problems {
		s.note("problem  %s", line)
	}
}

// writeKeys only makes what does not exist, and replaces only what is still as it was read; what the keyserver goes
// by, a Tenant's status, comes last. Broken off, it is run again.
func writeKeys(ctx context.Context, c client.Client, plan keystore.Restoration) error {
	for _, secret := range plan.Create {
		if err := c.Create(ctx, secret); err != nil {
			if apierrors.IsAlreadyExists(err) {
				return fmt.Errorf("secret %s appeared meanwhile: look at it and restore again", secret.Name)
			}
			return fmt.Errorf("write the key %s: %w", secret.Name, hide(err))
		}
	}
	for _, secret := range plan.Replace {
		if err := c.Update(ctx, secret); err != nil {
			return fmt.Errorf("replace the key %s: %w", secret.Name, hide(err))
		}
	}
	for _, st := range plan.Statuses {
		if err := setKeys(ctx, c, st); err != nil {
			return fmt.Errorf("set the keys in the status of Tenant %s (run restore again): %w", st.Name, err)
		}
	}
	return nil
}

// setKeys writes into a Tenant's status which keys it has by now, as the keyserver does when nothing contradicts it.
func setKeys(ctx context.Context, c client.Client, st keystore.TenantStatus) error {
	return retry.RetryOnConflict(retry.DefaultRetry, func() error {
		var tenant v1alpha1.Tenant
		if err := c.Get(ctx, client.ObjectKey{Name: st.Name}, &tenant); err != nil {
			return err
		}
		if string(tenant.UID) != st.UID {
			return errors.New("it was made again meanwhile")
		}
		before := tenant.DeepCopy()
		tenant.Status.SealingKeys = nil
		for _, k := range st.SealingKeys {
			tenant.Status.SealingKeys = append(tenant.Status.SealingKeys, v1alpha1.SealingKey(k))
		}
		tenant.Status.KeysGeneration = st.Generation
		if block := v1alpha1.UIDRange(st.UIDRange); block.Size > 0 {
			tenant.Status.UIDRange = &block
		}
		return c.Status().Patch(ctx, &tenant, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}))
	})
}

// hide keeps the reason of a refusal and leaves out its details, which may repeat fields of a Secret.
func hide(err error) error {
	if reason := apierrors.ReasonForError(err); reason != "" && !apierrors.IsForbidden(err) {
		return fmt.Errorf("the API server says %s", reason)
	}
	return err
}

// confirmTyped wants a name typed: a key pressed too often does nothing.
func (s *shell) confirmTyped(name, toDo string) error {
	s.prompt("Type %s to %s: ", name, toDo)
	line, err := bufio.NewReader(s.In).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read the answer: %w", err)
	}
	if strings.TrimSpace(line) != name {
		return errors.New("nothing was changed: the answer was another")
	}
	return nil
}
