package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/calendar"
	"github.com/lethe-dev/lethe/internal/plan"
	"github.com/lethe-dev/lethe/internal/resources"
)

// gitOwners are labels and annotations that GitOps tools leave on what they apply.
var gitOwners = []string{
	"argocd.argoproj.io/instance", "argocd.argoproj.io/tracking-id",
	"kustomize.toolkit.fluxcd.io/name", "helm.toolkit.fluxcd.io/name",
}

func newApprove(s *shell) *cobra.Command {
	var yes, leaveFiles bool
	var notBelow string
	var output *outputFlag
	var asked plan.Asked
	cmd := &cobra.Command{
		Use:   "approve [NAMESPACE/]STORE",
		Short: "Agree to what a store's plan would delete",
		Long: `Show what the rules that govern a store would delete, as it was last measured, and write it into spec.approvedPlan: these
windows, of these tables, of this database; for a tenant with a window of its own, of rows under the identifiers that it
has now. Whatever would delete more later waits for approval again.

Without flags it is about the datasets that wait for approval, and no others: what was approved of those stays as it was.
With --dataset it is about those alone. A brake that has tripped, and rows that have returned, are let go on by --brake with the
name of the dataset, for as many rows as wait now and no more: they are taken off as they go, and for 7 days at most. Another
server, another address and a database that was put back to an earlier state are approved by --database.

Columns that may hold the only pointer to a file or an object elsewhere are named: the row goes, the file does not. --yes
needs --leave-files then.

It refuses what was not measured lately and wholly. It asks on a terminal; elsewhere --yes is needed. -o yaml prints the
approval for a review in Git and changes nothing.`,
		Example: `  kubectl lethe approve platform-data/chat
  kubectl lethe approve platform-data/chat --brake messages
  kubectl lethe approve platform-data/chat --any-tenant-not-below P30D
  kubectl lethe approve platform-data/chat -o yaml > approval.yaml`,
		Args:              oneArgument("the store"),
		ValidArgsFunction: s.completeStores,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := output.check(); err != nil {
				return err
			}
			if output.format != "" && yes {
				return errors.New("--yes writes to the cluster and -o does not: give one of them")
			}
			if notBelow != "" {
				bound, err := calendar.ParseISO(notBelow)
				if err != nil {
					return fmt.Errorf("--any-tenant-not-below: %w", err)
				}
				asked.NotBelow = &bound
			}
			asked.StaleAfter = 2 * resources.SweepInterval
			return s.approve(cmd.Context(), args[0], asked, output, yes, leaveFiles)
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "write the approval without asking")
	cmd.Flags().BoolVar(&leaveFiles, "leave-files", false, "agree that files stay whose only pointer goes")
	output = addOutput(cmd, "yaml or json: print the approval for Git instead of writing it", "json", "yaml")
	cmd.Flags().StringSliceVar(&asked.Datasets, "dataset", nil, "approve the windows of these datasets alone")
	cmd.Flags().StringSliceVar(&asked.Brakes, "brake", nil, "let these datasets go on whose brake has tripped, or whose rows have returned, for the rows that wait now")
	for _, flag := range []string{"dataset", "brake"} {
		_ = cmd.RegisterFlagCompletionFunc(flag, s.completeDatasets) // they were just added
	}
	cmd.Flags().BoolVar(&asked.Database, "database", false, "approve the database as it is now: another server or address, or an earlier state of it")
	cmd.Flags().StringVar(&notBelow, "any-tenant-not-below", "", "approve the shorter windows of any tenant down to this one, for example P30D, instead of each by name (Shared stores)")
	return cmd
}

func (s *shell) approve(ctx context.Context, name string, asked plan.Asked, output *outputFlag, yes, leaveFiles bool) error {
	st, err := s.compileStore(ctx, name, nil)
	if err != nil {
		return err
	}
	ref := st.store.Namespace + "/" + st.store.Name
	if asked.NotBelow != nil && st.compiled.Plan.Tenancy != v1alpha1.TenancyShared {
		return errors.New("--any-tenant-not-below: in a Dedicated store every row is one tenant's")
	}
	proposal, err := plan.Propose(st.compiled.Result, st.store, asked, s.now())
	if err != nil {
		return fmt.Errorf("DataStore %s: %w", ref, err)
	}
	approved := proposal.Plan
	if err := printApproval(s.errors(), st, proposal); err != nil {
		return err
	}
	if output.format != "" {
		return s.printPatch(st, approved, output.format)
	}
	if yes && st.pointers() > 0 && !leaveFiles {
		return errFiles
	}
	if !yes {
		if !s.terminal() {
			return errors.New("nothing was changed: --yes approves this, -o yaml prints it for Git")
		}
		if err := s.confirmTyped(ref, "approve"); err != nil {
			return err
		}
	}
	c, err := s.client()
	if err != nil {
		return err
	}
	if err := writeApproval(ctx, c, st.store, approved); err != nil {
		return err
	}
	s.note("Approved.")
	for _, owner := range gitOwners {
		if st.store.Labels[owner] != "" || st.store.Annotations[owner] != "" {
			s.note("warning: Git owns this store (%s): put the output of -o yaml there too, or the next sync takes the approval back", owner)
			break
		}
	}
	return nil
}

// approvalOwner is the field manager of spec.approvedPlan. Flux takes away what managers whose names begin with
// kubectl have written, and leaves what is this one's.
const approvalOwner = client.FieldOwner("lethe-approve")

// writeApproval writes what was shown, and only while the spec is still the one it was shown for.
func writeApproval(ctx context.Context, c client.Client, store *v1alpha1.DataStore, approved v1alpha1.ApprovedPlan) error {
	patch, err := json.Marshal([]map[string]any{
		{"op": "test", "path": "/metadata/uid", "value": store.UID},
		{"op": "test", "path": "/metadata/generation", "value": store.Generation},
		{"op": "add", "path": "/spec/approvedPlan", "value": approved}, // replaces all of one that is there
	})
	if err != nil {
		return fmt.Errorf("encode the approval: %w", err)
	}
	err = c.Patch(ctx, store, client.RawPatch(types.JSONPatchType, patch), approvalOwner)
	if apierrors.IsInvalid(err) && strings.Contains(err.Error(), "the server rejected our request due to an error in our request") {
		return errors.New("nothing was changed: the store's spec was changed meanwhile; look at it and approve again")
	}
	if err != nil {
		return fmt.Errorf("write spec.approvedPlan: %w", err)
	}
	return nil
}

// printApproval shows what is agreed to: the datasets that are meant, and of the others that they stay as they were.
func printApproval(out io.Writer, st *compiledStore, p plan.Proposal) error {
	approved := p.Plan
	fmt.Fprint(out, sprintf("DataStore %s/%s, database %s of %s %s at %s, %s\n",
		st.store.Namespace, st.store.Name, approved.Database, approved.Identity.Kind, approved.Identity.Value, approved.Address, approved.Tenancy))
	w := newTable(out, "DATASET", "TABLE", "TENANT", "ROWS OLDER THAN", "WAITING NOW", "BEYOND THE BRAKE", "IDENTIFIERS")
	var others, until []string
	for _, window := range approved.Windows {
		if !slices.Contains(p.Datasets, window.Dataset) {
			others = append(others, window.Dataset)
			continue
		}
		name := ""
		for _, d := range st.compiled.Plan.Datasets {
			if d.Name == window.Dataset {
				name = d.Place.Name()
			}
		}
		waiting, beyond := strconv.FormatInt(p.Waiting[window.Dataset].Rows, 10), "no"
		if p.Waiting[window.Dataset].AtLeast {
			waiting = "at most " + waiting // the table's own size: they are too many to be counted
		}
		if b := window.Backlog; b != nil && b.Rows == p.Waiting[window.Dataset].Rows {
			beyond = strconv.FormatInt(b.Rows, 10)
			until = append(until, b.Until.UTC().Format("2006-01-02 15:04 MST"))
		}
		w.row(window.Dataset, name, "*", pointerWords(window.RetainFor), waiting, beyond, "*")
		for _, t := range window.Tenants {
			w.row("", "", t.Tenant, pointerWords(t.RetainFor), "", "", strings.Join(t.ExternalIDs, ", "))
		}
		if window.AnyTenant != nil {
			w.row("", "", "any other", "not below "+pointerWords(window.AnyTenant.NotBelow), "", "", "any")
		}
	}
	if err := w.end(); err != nil {
		return err
	}
	if len(until) > 0 {
		fmt.Fprintf(out, "What waits now may go beyond the brake, once, until %s.\n", slices.Max(until))
	}
	if len(others) > 0 {
		fmt.Fprint(out, sprintf("As they were approved before: %s.\n", strings.Join(others, ", ")))
	}
	say := func(format string, args ...any) { fmt.Fprint(out, sprintf(format+"\n", args...)) }
	if st.pointers() > 0 {
		say("\nThese columns may hold the only pointer to a file or an object elsewhere: %s. The rows go, and the files stay: delete them first, or let the product do it.", counted(st.store.Status.FilePointers, st.pointers()))
	}
	st.sayUndeclared(say)
	return nil
}

func pointerWords(p *v1alpha1.Period) string {
	if p == nil {
		return "-"
	}
	return calendar.Or(p).String()
}

// printPatch writes the part of the manifest that changes.
func (s *shell) printPatch(st *compiledStore, approved v1alpha1.ApprovedPlan, format string) error {
	store := st.store
	spec, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&approved)
	if err != nil {
		return fmt.Errorf("encode the approval: %w", err)
	}
	if format == "yaml" && st.pointers() > 0 {
		// Whoever reviews it in Git sees what the person at the terminal saw.
		if err := s.data([]byte(sprintf("# Files stay whose only pointer goes: %s\n", counted(store.Status.FilePointers, st.pointers())))); err != nil {
			return err
		}
	}
	return s.printObject(format, &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": v1alpha1.GroupVersion.String(),
		"kind":       resources.KindDataStore,
		"metadata":   map[string]any{"namespace": store.Namespace, "name": store.Name},
		"spec":       map[string]any{"approvedPlan": spec},
	}})
}
