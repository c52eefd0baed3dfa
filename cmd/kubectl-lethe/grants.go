package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericclioptions"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/internal/stores/postgres"
)

func newGrants(s *shell) *cobra.Command {
	var files *genericclioptions.FileNameFlags
	cmd := &cobra.Command{
		Use:   "grants ([NAMESPACE/]STORE | -f FILE)",
		Short: "Print the SQL that makes a store's role",
		Long: `Print the SQL that makes the role of a DataStore and grants it what sweeps need: deleting from the datasets, and reading
their keys, ages and tenant columns. It reads no other column. Run it as the owner of the tables, and set the role's
password yourself: it is not part of the SQL.`,
		Example:           `  kubectl lethe grants -f datastore.yaml | psql "$DATABASE_URL"`,
		ValidArgsFunction: s.completeStores,
		Args: func(cmd *cobra.Command, args []string) error {
			if (len(args) == 1) == given(files) || len(args) > 1 {
				return errors.New("name one store, or give its manifest with -f")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			name := ""
			if len(args) == 1 {
				name = args[0]
			}
			store, err := s.storeToGrant(cmd.Context(), name, files)
			if err != nil {
				return err
			}
			if store.Spec.Postgres == nil {
				return fmt.Errorf("DataStore %s has no spec.postgres", store.Name)
			}
			return s.data([]byte(postgres.Grants(store.Spec)))
		},
	}
	files = addFiles(cmd, "manifest of the store; no cluster is asked then")
	return cmd
}

func (s *shell) storeToGrant(ctx context.Context, name string, files *genericclioptions.FileNameFlags) (*v1alpha1.DataStore, error) {
	store := &v1alpha1.DataStore{}
	if given(files) {
		docs, err := s.readObjects(files)
		if err != nil {
			return nil, err
		}
		d, err := pick(docs, "-f", resources.KindDataStore, "", "")
		if err != nil {
			return nil, err
		}
		if err := d.decode(store); err != nil {
			return nil, fmt.Errorf("-f: %w", err)
		}
		return store, nil
	}
	key, err := s.reference("the store", name)
	if err != nil {
		return nil, err
	}
	c, err := s.client()
	if err != nil {
		return nil, err
	}
	if err := c.Get(ctx, key, store); err != nil {
		return nil, fmt.Errorf("read DataStore %s: %w", key, err)
	}
	return store, nil
}
