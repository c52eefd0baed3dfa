package controllers

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"github.com/lethe-dev/lethe/internal/resources"
)

// +kubebuilder:rbac:groups=discovery.k8s.io,resources=endpointslices,verbs=get,resourceNames=kubernetes

// apiServersEvery is how often the manager looks whether the API server has an address that no egress is closed to yet.
const apiServersEvery = 5 * time.Minute

// CloseAPIServers closes the addresses at which the API server itself says that it answers to every egress. A load
// balancer in front of it is known to nobody here: --closed-addresses is for that.
func CloseAPIServers(ctx context.Context, live client.Reader, settings *resources.Settings) error {
	slice := &discoveryv1.EndpointSlice{}
	err := live.Get(ctx, client.ObjectKey{Namespace: metav1.NamespaceDefault, Name: "kubernetes"}, slice)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the API server's own addresses: %w", err)
	}
	for _, endpoint := range slice.Endpoints {
		for _, text := range endpoint.Addresses {
			if address, err := netip.ParseAddr(text); err == nil {
				settings.Close(netip.PrefixFrom(address, address.BitLen()))
			}
		}
	}
	return nil
}

// WatchAPIServers ends the manager when the API server answers at an address that is not closed: it starts again with
// it.
func WatchAPIServers(live client.Reader, known resources.Settings) manager.Runnable {
	return manager.RunnableFunc(func(ctx context.Context) error {
		ticker := time.NewTicker(apiServersEvery)
		defer ticker.Stop()
		for {
			now := known
			if err := CloseAPIServers(ctx, live, &now); err == nil && !slices.Equal(now.ClosedAddresses, known.ClosedAddresses) {
				return fmt.Errorf("the API server has another address than when the manager started: it starts again, to close that to every egress (%v)", now.ClosedAddresses)
			}
			select {
			case <-ctx.Done():
				return nil
			case <-ticker.C:
			}
		}
	})
}
