package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/resources"
)

// restartOwner is the field manager of spec.restartedAt. Flux takes away what managers whose names begin with kubectl
// have written.
const restartOwner = client.FieldOwner("lethe-restart")

func newRestart(s *shell) *cobra.Command {
	var output *outputFlag
	cmd := &cobra.Command{
		Use:   "restart [NAMESPACE/]BOT...",
		Short: "Replace a bot's pod by a new one",
		Long: `Write the present time into spec.restartedAt: a new revision, so that the bot's pod ends and a new one takes its place, with its
volume and its credentials. It needs the right to change the bot.`,
		Example:           "  kubectl lethe restart acme-bots/support",
		ValidArgsFunction: s.completeManyBots,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("name the bots to restart")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := output.check(); err != nil {
				return err
			}
			return s.restart(cmd.Context(), args, output)
		},
	}
	output = addOutput(cmd, "json, yaml or name: print what was changed; left out, words", forPrograms...)
	return cmd
}

// restarted is what restart did to one bot.
type restarted struct {
	RestartedAt string `json:"restartedAt"`
}

func (s *shell) restart(ctx context.Context, names []string, output *outputFlag) error {
	keys := make([]types.NamespacedName, len(names))
	for i, name := range names {
		var err error
		if keys[i], err = s.reference("the bot", name); err != nil {
			return err
		}
	}
	c, err := s.client()
	if err != nil {
		return err
	}
	at := s.now().UTC().Format(time.RFC3339)
	patch, err := json.Marshal(map[string]any{"spec": map[string]any{"restartedAt": at}})
	if err != nil {
		return fmt.Errorf("encode the restart: %w", err)
	}
	var done []shown
	for _, key := range keys {
		var bot v1alpha1.BotDeployment
		if err := c.Get(ctx, key, &bot); err != nil {
			if apierrors.IsNotFound(err) {
				return fmt.Errorf("there is no BotDeployment %s; `kubectl get bots -A` lists them", key)
			}
			return fmt.Errorf("read BotDeployment %s: %w", key, err)
		}
		if bot.Spec.OperatingMode == v1alpha1.ModeSuspended {
			return fmt.Errorf("BotDeployment %s is suspended, so there is nothing to restart; set spec.operatingMode: Running to start it", key)
		}
		err := c.Patch(ctx, &bot, client.RawPatch(types.MergePatchType, patch), restartOwner)
		switch {
		case apierrors.IsForbidden(err):
			return fmt.Errorf("you may not change BotDeployment %s: a Tenant's spec.access gives it with the role Operate: %w", key, err)
		case err != nil:
			return fmt.Errorf("restart BotDeployment %s: %w", key, err)
		}
		done = append(done, view("Restart", restarted{RestartedAt: at}, resources.KindBotDeployment, key.Namespace, key.Name))
		if output.format == "" {
			s.note("BotDeployment %s gets a new pod; `kubectl lethe status bot %s` says when it is ready", key, key)
		}
	}
	if output.format == "" {
		return nil
	}
	return s.printList(output, done)
}
