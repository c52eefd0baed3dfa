package keystore

import (
	"context"
	"fmt"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/sealing"
)

// CountSealed counts the sealed values in the specs of a namespace's bots and stores, by the key that they are sealed
// to.
func CountSealed(ctx context.Context, c client.Client, namespace string, into map[string]int) error {
	count := func(text v1alpha1.SealedValue) {
		if e, err := sealing.Parse(string(text)); err == nil {
			into[e.KID]++
		}
	}
	next := ""
	for {
		var bots v1alpha1.BotDeploymentList
		if err := c.List(ctx, &bots, client.InNamespace(namespace), client.Limit(listPage), client.Continue(next)); err != nil {
			return fmt.Errorf("list the bots of namespace %s: %w", namespace, err)
		}
		for i := range bots.Items {
			for _, credential := range bots.Items[i].Spec.Credentials {
				count(credential.Sealed)
			}
		}
		if next = bots.Continue; next == "" {
			break
		}
	}
	for {
		var stores v1alpha1.DataStoreList
		if err := c.List(ctx, &stores, client.InNamespace(namespace), client.Limit(listPage), client.Continue(next)); err != nil {
			return fmt.Errorf("list the stores of namespace %s: %w", namespace, err)
		}
		for i := range stores.Items {
			for _, credential := range stores.Items[i].Spec.Credentials() {
				count(credential.Sealed)
			}
		}
		if next = stores.Continue; next == "" {
			return nil
		}
	}
}
