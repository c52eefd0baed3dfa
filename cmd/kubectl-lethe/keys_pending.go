package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keystore"
	"github.com/lethe-dev/lethe/internal/resources"
)

func newKeysPending(s *shell) *cobra.Command {
	var output *outputFlag
	cmd := &cobra.Command{
		Use:   "pending",
		Short: "List the keys of deleted Tenants that wait for their destruction",
		Long: `List the keys of deleted Tenants that wait 72 hours for their destruction: whose they were, since when, until when, and their
kids. The same Tenant, made again until then by somebody with the verb "adopt", gets them back; "keys forget" ends the wait.
It reads the Secrets of the keys' namespace, and shows no key.`,
		Example: "  kubectl lethe keys pending\n  kubectl lethe keys pending -o json",
		Args:    noArguments,
		RunE: s.onKeys(func(cmd *cobra.Command, c client.Client, ns string) error {
			if err := output.check(); err != nil {
				return err
			}
			list, err := s.pendingKeys(cmd.Context(), c, ns)
			if err != nil {
				return err
			}
			return s.printPending(list, output)
		}),
	}
	output = addOutput(cmd, "json, yaml or name (of the Tenants that were deleted); left out, a table", forPrograms...)
	return cmd
}

// pendingKeys reads what waits, and says so of what should wait and cannot be read.
func (s *shell) pendingKeys(ctx context.Context, c client.Client, namespace string) ([]keystore.PendingKeys, error) {
	var secrets corev1.SecretList
	if err := c.List(ctx, &secrets, client.InNamespace(namespace)); err != nil {
		return nil, fmt.Errorf("list the keys: %w", err)
	}
	list, unreadable := keystore.ListPending(secrets.Items)
	for _, name := range unreadable {
		s.note("warning: Secret %s/%s cannot be read: restore it from a backup of the keys, or delete it", namespace, name)
	}
	return list, nil
}

func (s *shell) printPending(list []keystore.PendingKeys, output *outputFlag) error {
	if output.format != "" {
		views := make([]shown, 0, len(list))
		for _, p := range list {
			views = append(views, view("PendingKeys", p, resources.KindTenant, "", p.Tenant))
		}
		return s.printList(output, views)
	}
	if len(list) == 0 {
		s.note("No keys wait for their destruction.")
		return nil
	}
	w := newTable(s.output(), "TENANT", "UID", "DELETED", "UNTIL", "KEYS")
	for _, p := range list {
		w.row(p.Tenant, p.UID, p.Deleted.UTC().Format(time.RFC3339), p.Until.UTC().Format(time.RFC3339), strings.Join(p.KIDs, ","))
	}
	return w.end()
}

func newKeysForget(s *shell) *cobra.Command {
	var uid string
	var now, yes bool
	cmd := &cobra.Command{
		Use:   "forget TENANT --now",
		Short: "Destroy the waiting keys of a deleted Tenant at once",
		Long: `Destroy at once the sealing keys of a deleted Tenant, which would wait until 72 hours after its deletion. No Tenant gets them
back then, and what was sealed to them in Git opens no more. Where Tenants of that name were deleted more than once, --uid
says which. Copies in backups of the keys, and of etcd, live on as long as those.`,
		Example: "  kubectl lethe keys forget acme --now",
		Args:    oneArgument("the name of the deleted Tenant"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !now {
				return errors.New("say --now: without it the keys are destroyed when their time is over; `kubectl lethe keys pending` says when that is")
			}
			ns, err := cmd.Flags().GetString("keys-namespace")
			if err != nil {
				return err
			}
			return s.forgetKeys(cmd.Context(), ns, args[0], uid, yes)
		},
	}
	cmd.Flags().StringVar(&uid, "uid", "", "the UID that the Tenant had")
	cmd.Flags().BoolVar(&now, "now", false, "do not wait for the end of the 72 hours")
	cmd.Flags().BoolVar(&yes, "yes", false, "destroy without asking")
	return cmd
}

func (s *shell) forgetKeys(ctx context.Context, namespace, tenant, uid string, yes bool) error {
	if !objectName.MatchString(tenant) {
		return errors.New("that is not the name of a Tenant (not repeated here); `kubectl lethe keys pending` lists them")
	}
	c, err := s.client()
	if err != nil {
		return err
	}
	all, err := s.pendingKeys(ctx, c, namespace)
	if err != nil {
		return err
	}
	list := slices.DeleteFunc(all, func(p keystore.PendingKeys) bool { return p.Tenant != tenant || (uid != "" && p.UID != uid) })
	switch {
	case len(list) == 0 && uid != "":
		return fmt.Errorf("no keys of a Tenant %s with that UID wait for their destruction; `kubectl lethe keys pending` lists them", tenant)
	case len(list) == 0:
		return fmt.Errorf("no keys of a Tenant %s wait for their destruction; `kubectl lethe keys pending` lists them", tenant)
	case len(list) > 1:
		var uids []string
		for _, p := range list {
			uids = append(uids, p.UID)
		}
		return fmt.Errorf("keys of %d deleted Tenants %s wait: say which with --uid (%s)", len(list), tenant, strings.Join(uids, ", "))
	}
	p := list[0]
	s.note("Tenant %s (UID %s) was deleted at %s; its keys %s would wait until %s.", p.Tenant, p.UID,
		p.Deleted.UTC().Format(time.RFC3339), strings.Join(p.KIDs, ", "), p.Until.UTC().Format(time.RFC3339))
	switch err := c.Get(ctx, client.ObjectKey{Name: tenant}, &v1alpha1.Tenant{}); {
	case apierrors.IsNotFound(err):
	case err != nil:
		return fmt.Errorf("read Tenant %s: %w", tenant, err)
	default:
		s.note("A Tenant of that name is there. If these keys are to be its own, it loses them.")
	}
	switch {
	case yes:
	case !s.terminal():
		return errors.New("nothing was destroyed: --yes destroys them")
	default:
		if err := s.confirmTyped(tenant, "destroy its keys"); err != nil {
			return err
		}
	}
	return s.deletePending(ctx, c, namespace, p)
}

// deletePending deletes exactly the Secret that was shown.
func (s *shell) deletePending(ctx context.Context, c client.Client, namespace string, p keystore.PendingKeys) error {
	var secret corev1.Secret
	err := c.Get(ctx, client.ObjectKey{Namespace: namespace, Name: p.Secret}, &secret)
	if err == nil {
		if again, _ := keystore.ListPending([]corev1.Secret{secret}); len(again) != 1 || !again[0].Deleted.Equal(p.Deleted) || again[0].Tenant != p.Tenant {
			return fmt.Errorf("nothing was destroyed: Secret %s/%s is another by now; look again with `kubectl lethe keys pending`", namespace, p.Secret)
		}
		err = c.Delete(ctx, &secret, client.Preconditions{UID: &secret.UID, ResourceVersion: &secret.ResourceVersion})
	}
	switch {
	case apierrors.IsNotFound(err):
		return errors.New("these keys are gone already: their time was over, or the Tenant was made again and has them back")
	case apierrors.IsConflict(err):
		return fmt.Errorf("nothing was destroyed: Secret %s/%s was written at the same time; look again with `kubectl lethe keys pending`", namespace, p.Secret)
	case err != nil:
		return fmt.Errorf("destroy the keys: %w", err)
	}
	s.note("Destroyed. Nobody gets the keys of Tenant %s (UID %s) back; copies in backups of the keys and of etcd live on as long as those.", p.Tenant, p.UID)
	return nil
}
