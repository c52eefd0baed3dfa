package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keystore"
)

// keyserverDeployment is the Deployment whose replicas must all hold a new key-encryption key before it wraps.
const keyserverDeployment = "lethe-keyserver"

func newKeysRotate(s *shell) *cobra.Command {
	return group("rotate", "Have the keyserver put new keys in the place of old ones",
		newRotateLayer(s, keystore.LayerSealing, "Make new keys to seal to; the old ones go on opening",
			`Each Tenant gets a new key to seal to. What was sealed to the old one goes on opening: seal it again in Git, then destroy the
old key with "keys destroy sealing-key". No bot restarts.`),
		newRotateLayer(s, keystore.LayerData, "Encrypt the stored credentials of bots and stores under new data keys",
			`Each bot and store gets a new data key, and what is stored of its credentials is encrypted under it. The old key is destroyed
when nothing is under it any more. Nothing in Git changes, and no bot restarts.`),
		newRotateLayer(s, keystore.LayerTenant, "Wrap the tenants' keys under new keys of the tenants",
			`Each Tenant gets a new key, and its sealing keys and data keys are wrapped under it. The old one is destroyed when nothing is
under it any more. Nothing in Git changes, and no bot restarts.`),
		newRotateKEK(s))
}

// onKeys runs what a command without arguments does in the keys' namespace of a cluster.
func (s *shell) onKeys(do func(cmd *cobra.Command, c client.Client, namespace string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, _ []string) error {
		namespace, err := cmd.Flags().GetString("keys-namespace")
		if err != nil {
			return err
		}
		c, err := s.client()
		if err != nil {
			return err
		}
		return do(cmd, c, namespace)
	}
}

func newRotateLayer(s *shell, layer keystore.Layer, short, long string) *cobra.Command {
	var tenant string
	var all bool
	cmd := &cobra.Command{
		Use:   string(layer) + " (--tenant NAME | --all)",
		Short: short,
		Long:  long + "\n\nThe keyserver does it in the background, within a minute; \"keys status\" tells how far it is.",
		Example: fmt.Sprintf("  kubectl lethe keys rotate %s --tenant acme\n  kubectl lethe keys rotate %s --all",
			layer, layer),
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if all == (tenant != "") {
				return errors.New("say whose keys: --tenant NAME, or --all")
			}
			ns, err := cmd.Flags().GetString("keys-namespace")
			if err != nil {
				return err
			}
			return s.askRotation(cmd.Context(), ns, layer, tenant)
		},
	}
	cmd.Flags().StringVar(&tenant, "tenant", "", "the Tenant whose keys are rotated")
	_ = cmd.RegisterFlagCompletionFunc("tenant", s.completeTenantFlag) // it was just added
	cmd.Flags().BoolVar(&all, "all", false, "every Tenant, also those that are made meanwhile")
	return cmd
}

func (s *shell) askRotation(ctx context.Context, namespace string, layer keystore.Layer, tenant string) error {
	c, err := s.client()
	if err != nil {
		return err
	}
	whose := "every Tenant"
	if tenant != "" {
		if err := c.Get(ctx, client.ObjectKey{Name: tenant}, &v1alpha1.Tenant{}); err != nil {
			return fmt.Errorf("read Tenant %s: %w", tenant, err)
		}
		whose = "Tenant " + tenant
	}
	at := s.now()
	if err := changeRotation(ctx, c, namespace, func(cm *corev1.ConfigMap) error { return keystore.AskRotation(cm, layer, tenant, at) }); err != nil {
		return err
	}
	s.note("Asked: no %s key of %s older than %s. See how far it is: kubectl lethe keys status", layer, whose, at.UTC().Format(time.RFC3339))
	if layer == keystore.LayerSealing {
		s.note("Values in Git stay sealed to the old keys, which go on opening, until they are sealed again.")
	}
	return nil
}

func newRotateKEK(s *shell) *cobra.Command {
	var system string
	cmd := &cobra.Command{
		Use:   "kek",
		Short: "Wrap everything with the key-encryption key of --kek-file, in the place of the earlier one",
		Long: `Wrap everything with the key that the keyserver has as --kek-file (kek.file in the chart), in the place of the earlier one,
which it must have as --kek-file-previous (kek.previous). Every replica must hold both: it is looked at first, and nothing is
asked for while one does not. docs/keys.md has the steps before and after.`,
		Example: "  kubectl lethe keys rotate kek",
		Args:    noArguments,
		RunE: s.onKeys(func(cmd *cobra.Command, c client.Client, ns string) error {
			if err := everyReplicaHoldsBoth(cmd.Context(), c, system); err != nil {
				return err
			}
			at := s.now()
			if err := changeRotation(cmd.Context(), c, ns, func(cm *corev1.ConfigMap) error { return keystore.AskRotation(cm, keystore.LayerKEK, "", at) }); err != nil {
				return err
			}
			s.note("Asked. See how far it is: kubectl lethe keys status")
			s.note("When nothing is left: kubectl lethe keys backup FILE, kubectl lethe keys verify FILE --kek-file NEW --record; only then destroy the old key.")
			return nil
		}),
	}
	cmd.Flags().StringVar(&system, "system-namespace", "lethe-system", "namespace of the keyserver")
	return cmd
}

// everyReplicaHoldsBoth looks whether the keyserver's rollout is over, with a previous key-encryption key in its flags.
func everyReplicaHoldsBoth(ctx context.Context, c client.Client, namespace string) error {
	var d appsv1.Deployment
	if err := c.Get(ctx, client.ObjectKey{Namespace: namespace, Name: keyserverDeployment}, &d); err != nil {
		return fmt.Errorf("read Deployment %s/%s: %w", namespace, keyserverDeployment, err)
	}
	both := false
	for _, container := range d.Spec.Template.Spec.Containers {
		both = both || slices.ContainsFunc(container.Args, func(a string) bool { return strings.HasPrefix(a, "--kek-file-previous=") })
	}
	if !both {
		return fmt.Errorf("the Deployment %s/%s has no --kek-file-previous: start the keyserver with the new key as kek.file and the present one in kek.previous, then ask again; nothing was asked for",
			namespace, keyserverDeployment)
	}
	want := int32(1)
	if d.Spec.Replicas != nil {
		want = *d.Spec.Replicas
	}
	st := d.Status
	if st.ObservedGeneration != d.Generation || st.UpdatedReplicas != want || st.Replicas != want || st.ReadyReplicas != want {
		return fmt.Errorf("not every replica of Deployment %s/%s holds both keys yet (%d of %d are new and %d ready): wait for `kubectl -n %s rollout status deployment/%s`; nothing was asked for",
			namespace, keyserverDeployment, st.UpdatedReplicas, want, st.ReadyReplicas, namespace, keyserverDeployment)
	}
	return nil
}

// changeRotation changes the ConfigMap in which people ask, and makes it where there is none.
func changeRotation(ctx context.Context, c client.Client, namespace string, change func(*corev1.ConfigMap) error) error {
	const tries = 5
	var err error
	for range tries {
		cm := &corev1.ConfigMap{}
		err = c.Get(ctx, client.ObjectKey{Namespace: namespace, Name: keystore.RotationName}, cm)
		missing := apierrors.IsNotFound(err)
		if err != nil && !missing {
			break
		}
		if missing {
			cm = keystore.NewRotation(namespace)
		}
		if err := change(cm); err != nil {
			return err
		}
		if missing {
			err = c.Create(ctx, cm)
		} else {
			err = c.Update(ctx, cm)
		}
		if err == nil || (!apierrors.IsConflict(err) && !apierrors.IsAlreadyExists(err)) {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("ask through ConfigMap %s/%s: %w", namespace, keystore.RotationName, err)
	}
	return nil
}

// rotationStatus is what the keyserver says, and whether it has read what was asked for last.
func rotationStatus(ctx context.Context, c client.Client, namespace string) (status keystore.RotationStatus, upToDate bool, err error) {
	var said corev1.ConfigMap
	if err := c.Get(ctx, client.ObjectKey{Namespace: namespace, Name: keystore.RotationStatusName}, &said); err != nil {
		if apierrors.IsNotFound(err) {
			return status, false, fmt.Errorf("the keyserver has said nothing yet: there is no ConfigMap %s/%s; look whether it runs", namespace, keystore.RotationStatusName)
		}
		return status, false, fmt.Errorf("read ConfigMap %s/%s: %w", namespace, keystore.RotationStatusName, err)
	}
	if status, err = keystore.ReadRotationStatus(&said); err != nil {
		return status, false, err
	}
	var asked corev1.ConfigMap
	err = c.Get(ctx, client.ObjectKey{Namespace: namespace, Name: keystore.RotationName}, &asked)
	if apierrors.IsNotFound(err) {
		return status, true, nil
	}
	if err != nil {
		return status, false, fmt.Errorf("read ConfigMap %s/%s: %w", namespace, keystore.RotationName, err)
	}
	return status, status.Seen == asked.ResourceVersion, nil
}

func newKeysStatus(s *shell) *cobra.Command {
	var tenant string
	var output *outputFlag
	cmd := &cobra.Command{
		Use:   "status [--tenant NAME]",
		Short: "Say which keys are in use, and how much is still on old ones",
		Long: `Say which key-encryption keys there are and since when, and how much of each layer is still on an old key. With --tenant, also
that Tenant's sealing keys, and how many values of its live bots and stores are sealed to each: copies in Git cannot be
counted. It reads two ConfigMaps of the keys' namespace, Tenants, bots and stores, and no Secret.`,
		Example: "  kubectl lethe keys status\n  kubectl lethe keys status --tenant acme",
		Args:    noArguments,
		RunE: s.onKeys(func(cmd *cobra.Command, c client.Client, ns string) error {
			if err := output.check(); err != nil {
				return err
			}
			status, upToDate, err := rotationStatus(cmd.Context(), c, ns)
			if err != nil {
				return err
			}
			if output.format != "" {
				return s.keysForPrograms(cmd.Context(), c, output, status, upToDate, tenant)
			}
			if err := s.printRotation(status, upToDate); err != nil || tenant == "" {
				return err
			}
			return s.printSealingKeys(cmd.Context(), c, tenant)
		}),
	}
	cmd.Flags().StringVar(&tenant, "tenant", "", "also say which sealing keys this Tenant has, and what is sealed to each")
	_ = cmd.RegisterFlagCompletionFunc("tenant", s.completeTenantFlag) // it was just added
	output = addOutput(cmd, "json or yaml; left out, tables", "json", "yaml")
	return cmd
}

func (s *shell) printRotation(status keystore.RotationStatus, upToDate bool) error {
	w := newTable(s.output(), "LAYER", "ON OLD KEYS")
	for _, layer := range keystore.Layers() {
		w.row(layer, status.Left[layer])
	}
	w.and("KEY-ENCRYPTION KEY", "STATE", "SINCE", "NOTHING UNDER IT SINCE", "DESTROYED")
	for _, k := range status.KEKs {
		w.row(k.KID, k.State, day(k.Since), day(k.Rewrapped), day(k.Destroyed))
	}
	if err := w.end(); err != nil {
		return err
	}
	if !upToDate {
		s.note("The keyserver has not acted yet on what was asked for last.")
	}
	for _, k := range status.KEKs {
		switch {
		case !k.Destroyed.IsZero():
			s.note("Copies of the keys' namespace older than %s need key %s, which was destroyed on %s: whatever was destroyed before is erased in them, too, since then.",
				day(k.Rewrapped), k.KID, day(k.Destroyed))
		case k.State == "Retired" && k.Rewrapped.IsZero():
			s.note("Keys are still under %s, or may be: keep it.", k.KID)
		case k.State == "Retired":
			s.note("Copies of the keys' namespace older than %s open with %s for as long as a copy of it exists, with all that was destroyed since.", day(k.Rewrapped), k.KID)
		}
	}
	if b := status.Backup; b != nil {
		s.note("Last verified backup: of %s, under %s, digest %s.", day(b.Created), b.KEK, b.Digest)
	}
	for kid, why := range status.Refused {
		s.note("Not destroyed: %s: %s", kid, why)
	}
	for _, line := range status.Problems {
		s.note("problem  %s", line)
	}
	return nil
}

func day(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format("2006-01-02 15:04 UTC")
}

// sealingKeyUse is a key that a Tenant's values are sealed to, and how many of live objects are.
type sealingKeyUse struct {
	KID   string `json:"kid"`
	State string `json:"state"`
	// LiveValues are the values of live bots and stores that are sealed to it; copies in Git cannot be counted.
	LiveValues int `json:"liveValues"`
}

// keysStatus is what the keyserver says of its keys, for programs.
type keysStatus struct {
	// UpToDate says whether the keyserver has acted on what was asked for last.
	UpToDate bool                    `json:"upToDate"`
	Status   keystore.RotationStatus `json:"status"`
	Tenant   string                  `json:"tenant,omitempty"`
	// SealingKeys of that Tenant.
	SealingKeys []sealingKeyUse `json:"sealingKeys,omitempty"`
}

func (s *shell) keysForPrograms(ctx context.Context, c client.Client, output *outputFlag, status keystore.RotationStatus, upToDate bool, tenant string) error {
	v := keysStatus{UpToDate: upToDate, Status: status, Tenant: tenant}
	if tenant != "" {
		var err error
		if v.SealingKeys, err = sealingKeysOf(ctx, c, tenant); err != nil {
			return err
		}
	}
	return s.printOne(output, view("KeysStatus", v, "", "", ""))
}

func sealingKeysOf(ctx context.Context, c client.Client, name string) ([]sealingKeyUse, error) {
	var tenant v1alpha1.Tenant
	if err := c.Get(ctx, client.ObjectKey{Name: name}, &tenant); err != nil {
		return nil, fmt.Errorf("read Tenant %s: %w", name, err)
	}
	counts := map[string]int{}
	for _, ns := range tenant.Status.Namespaces {
		if err := keystore.CountSealed(ctx, c, ns.Name, counts); err != nil {
			return nil, err
		}
	}
	var out []sealingKeyUse
	for _, k := range tenant.Status.SealingKeys {
		out = append(out, sealingKeyUse{KID: k.KID, State: k.State, LiveValues: counts[k.KID]})
		delete(counts, k.KID)
	}
	for _, kid := range slices.Sorted(maps.Keys(counts)) {
		out = append(out, sealingKeyUse{KID: kid, State: "unknown", LiveValues: counts[kid]})
	}
	return out, nil
}

func (s *shell) printSealingKeys(ctx context.Context, c client.Client, name string) error {
	keys, err := sealingKeysOf(ctx, c, name)
	if err != nil {
		return err
	}
	if err := s.say("\n"); err != nil {
		return err
	}
	w := newTable(s.output(), "SEALING KEY", "STATE", "VALUES OF LIVE OBJECTS")
	for _, k := range keys {
		w.row(k.KID, k.State, k.LiveValues)
	}
	return w.end()
}

func newKeysDestroy(s *shell) *cobra.Command {
	return group("destroy", "End a retired key for good", newDestroySealing(s), newDestroyKEK(s))
}

func newDestroySealing(s *shell) *cobra.Command {
	var tenant string
	var force, yes bool
	cmd := &cobra.Command{
		Use:   "sealing-key KID --tenant NAME",
		Short: "Destroy a retired sealing key: what is sealed to it opens no more",
		Long: `Destroy a retired sealing key. What is sealed to it, in Git or anywhere, opens no more. The keyserver refuses while live bots or
stores hold values that are sealed to it; --force destroys it all the same, and those credentials are lost unless they are
sealed again. Backups of the keys that were made before hold the key on, under the key-encryption key of then.`,
		Example: "  kubectl lethe keys destroy sealing-key 0f3ad1c2b4e59687 --tenant acme",
		Args:    oneArgument("the kid of the key"),
		RunE: func(cmd *cobra.Command, args []string) error {
			ns, err := cmd.Flags().GetString("keys-namespace")
			if err != nil {
				return err
			}
			if tenant == "" {
				return errors.New("say whose key it is: --tenant NAME")
			}
			return s.destroySealing(cmd.Context(), ns, args[0], tenant, force, yes)
		},
	}
	cmd.Flags().StringVar(&tenant, "tenant", "", "the Tenant whose key it is")
	_ = cmd.RegisterFlagCompletionFunc("tenant", s.completeTenantFlag) // it was just added
	cmd.Flags().BoolVar(&force, "force", false, "destroy it although live objects still need it")
	cmd.Flags().BoolVar(&yes, "yes", false, "destroy without asking")
	return cmd
}

// destroyWait is how long a command waits for the keyserver's answer.
const destroyWait = 2 * time.Minute

func (s *shell) destroySealing(ctx context.Context, namespace, kid, name string, force, yes bool) error {
	c, err := s.client()
	if err != nil {
		return err
	}
	var tenant v1alpha1.Tenant
	if err := c.Get(ctx, client.ObjectKey{Name: name}, &tenant); err != nil {
		return fmt.Errorf("read Tenant %s: %w", name, err)
	}
	i := slices.IndexFunc(tenant.Status.SealingKeys, func(k v1alpha1.SealingKey) bool { return k.KID == kid })
	switch {
	case i < 0:
		return fmt.Errorf("the Tenant %s has no sealing key of that kid; `kubectl lethe keys status --tenant %s` lists them", name, name)
	case tenant.Status.SealingKeys[i].State != v1alpha1.SealingKeyRetired:
		return fmt.Errorf("%s is the key to seal to: rotate first, with `kubectl lethe keys rotate sealing --tenant %s`", kid, name)
	}
	counts := map[string]int{}
	for _, ns := range tenant.Status.Namespaces {
		if err := keystore.CountSealed(ctx, c, ns.Name, counts); err != nil {
			return err
		}
	}
	if n := counts[kid]; n > 0 && !force {
		return fmt.Errorf("%s of live objects are sealed to %s: seal them again; --force destroys the key all the same, and those credentials open no more", many(n, "value"), kid)
	} else if n > 0 {
		s.note("%s of live objects open no more: those bots and stores lose these credentials at their next change.", many(n, "value"))
	}
	switch {
	case yes:
	case !s.terminal():
		return errors.New("nothing was destroyed: --yes destroys it")
	default:
		if err := s.confirmTyped(kid, "destroy it"); err != nil {
			return err
		}
	}
	d := keystore.DestroyRequest{Tenant: name, At: s.now(), Force: force}
	if err := changeRotation(ctx, c, namespace, func(cm *corev1.ConfigMap) error { return keystore.AskDestruction(cm, kid, d) }); err != nil {
		return err
	}
	return s.waitForRotation(ctx, c, namespace, kid, func() (bool, error) {
		var now v1alpha1.Tenant
		if err := c.Get(ctx, client.ObjectKey{Name: name}, &now); err != nil {
			return false, fmt.Errorf("read Tenant %s: %w", name, err)
		}
		return !slices.ContainsFunc(now.Status.SealingKeys, func(k v1alpha1.SealingKey) bool { return k.KID == kid }), nil
	}, "Destroyed. A replica that had it in memory forgets it within a minute.")
}

// waitForRotation waits until the keyserver has acted on a request, or says why it does not.
func (s *shell) waitForRotation(ctx context.Context, c client.Client, namespace, kid string, done func() (bool, error), say string) error {
	ctx, cancel := context.WithTimeout(ctx, destroyWait)
	defer cancel()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		ok, err := done()
		if err != nil {
			return err
		}
		if ok {
			s.note("%s", say)
			return nil
		}
		status, upToDate, err := rotationStatus(ctx, c, namespace)
		if err == nil && upToDate && status.Refused[kid] != "" {
			return fmt.Errorf("not destroyed: %s", status.Refused[kid])
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the keyserver has not answered within %s; it may still act on the request: see `kubectl lethe keys status`", destroyWait)
		case <-tick.C:
		}
	}
}

func newDestroyKEK(s *shell) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "kek KID",
		Short: "Write down that every copy of an earlier key-encryption key was destroyed",
		Long: `Write down that you have destroyed every copy of an earlier key-encryption key. No program can know that, so it is you who
says it. From then on "keys status" says that copies of the keys' namespace from before open for nobody. It is refused while
anything is under that key, while a keyserver holds it, and before a backup under the present key was verified since.`,
		Example: "  kubectl lethe keys destroy kek 5b1e0c9d7a3f2846",
		Args:    oneArgument("the kid of the key"),
		RunE: func(cmd *cobra.Command, args []string) error {
			ns, err := cmd.Flags().GetString("keys-namespace")
			if err != nil {
				return err
			}
			return s.destroyKEK(cmd.Context(), ns, args[0], yes)
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "write it down without asking")
	return cmd
}

func (s *shell) destroyKEK(ctx context.Context, namespace, kid string, yes bool) error {
	c, err := s.client()
	if err != nil {
		return err
	}
	status, _, err := rotationStatus(ctx, c, namespace)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(status.KEKs, func(k keystore.KEKStatus) bool { return k.KID == kid })
	if i < 1 {
		return errors.New("that is no earlier key-encryption key; `kubectl lethe keys status` lists them")
	}
	switch {
	case yes:
	case !s.terminal():
		return errors.New("nothing was written down: --yes writes it")
	default:
		if err := s.confirmTyped(kid, "say that every copy of it is destroyed"); err != nil {
			return err
		}
	}
	at := s.now()
	if err := changeRotation(ctx, c, namespace, func(cm *corev1.ConfigMap) error { return keystore.RecordKEKDestroyed(cm, kid, at) }); err != nil {
		return err
	}
	return s.waitForRotation(ctx, c, namespace, kid, func() (bool, error) {
		status, _, err := rotationStatus(ctx, c, namespace)
		if err != nil {
			return false, err
		}
		return slices.ContainsFunc(status.KEKs, func(k keystore.KEKStatus) bool { return k.KID == kid && !k.Destroyed.IsZero() }), nil
	}, "Written down. Copies of the keys' namespace from before open for nobody.")
}
