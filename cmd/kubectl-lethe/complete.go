package main

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/resources"
)

// completionWait is how long somebody who pressed a key waits for the cluster.
const completionWait = 3 * time.Second

// completeTenants, completeBots and the others offer names that the cluster has, with the rights of the caller. What
// cannot be read is offered by nobody.
func (s *shell) completeTenants(_ *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return s.complete(resources.KindTenant, begun)
}

func (s *shell) completeBots(_ *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return s.complete(resources.KindBotDeployment, begun)
}

func (s *shell) completeStores(_ *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return s.complete(resources.KindDataStore, begun)
}

func (s *shell) completeTenantFlag(_ *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
	return s.complete(resources.KindTenant, begun)
}

// completeManyStores goes on after the first.
func (s *shell) completeManyStores(_ *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
	return s.complete(resources.KindDataStore, begun)
}

func (s *shell) completeManyBots(_ *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
	return s.complete(resources.KindBotDeployment, begun)
}

func (s *shell) completePolicies(_ *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
	return s.complete(resources.KindDataRetentionPolicy, begun)
}

// completeCredentials offers those of the bot that --bot names.
func (s *shell) completeCredentials(cmd *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
	name, err := cmd.Flags().GetString("bot")
	if err != nil || name == "" {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), completionWait)
	defer cancel()
	key, err := s.reference("--bot", name)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	c, err := s.client()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var bot v1alpha1.BotDeployment
	if err := c.Get(ctx, key, &bot); err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for _, c := range bot.Spec.Credentials {
		names = append(names, c.Name)
	}
	return beginning(names, begun), cobra.ShellCompDirectiveNoFileComp
}

// completeDatasets offers those of the store that is the argument.
func (s *shell) completeDatasets(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
	if len(args) == 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), completionWait)
	defer cancel()
	key, err := s.reference("the store", args[0])
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	c, err := s.client()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var store v1alpha1.DataStore
	if err := c.Get(ctx, key, &store); err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for _, d := range store.Spec.Datasets {
		names = append(names, d.Name)
	}
	return beginning(names, begun), cobra.ShellCompDirectiveNoFileComp
}

// completeNamespaces offers namespaces for -n.
func (s *shell) completeNamespaces(root *cobra.Command) {
	_ = root.RegisterFlagCompletionFunc("namespace", func(_ *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
		return s.complete("Namespace", begun)
	})
}

// complete offers the names of a kind: of the present namespace, and with namespace/ in front of all where the caller
// may list those.
func (s *shell) complete(kind, begun string) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(context.Background(), completionWait)
	defer cancel()
	c, err := s.client()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	gvk := v1alpha1.GroupVersion.WithKind(kind + "List")
	if kind == "Namespace" {
		gvk = corev1.SchemeGroupVersion.WithKind("NamespaceList")
	}
	list := &metav1.PartialObjectMetadataList{}
	list.SetGroupVersionKind(gvk)
	namespaced := kind == resources.KindBotDeployment || kind == resources.KindDataStore
	present, err := s.namespace()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	if err := c.List(ctx, list); err != nil {
		if !namespaced {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		if err := c.List(ctx, list, client.InNamespace(present)); err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
	}
	var names []string
	for _, o := range list.Items {
		if !namespaced {
			names = append(names, o.Name)
			continue
		}
		if o.Namespace == present {
			names = append(names, o.Name)
		}
		names = append(names, o.Namespace+"/"+o.Name)
	}
	return beginning(names, begun), cobra.ShellCompDirectiveNoFileComp
}

func beginning(names []string, begun string) []string {
	names = slices.DeleteFunc(names, func(n string) bool { return !strings.HasPrefix(n, begun) })
	slices.Sort(names)
	return slices.Compact(names)
}
