package controllers_test

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"testing"

	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/lethe-dev/lethe/controllers"
	"github.com/lethe-dev/lethe/internal/resources"
)

// TestAPIServersAreClosed: the addresses that the API server publishes for itself are among those that no egress
// opens, and the manager ends itself when there is another one.
func TestAPIServersAreClosed(t *testing.T) {
	slice := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "kubernetes"}, AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"8.8.4.7"}}, {Addresses: []string{"8.8.4.8"}}}}
	none := fake.NewClientBuilder().Build()
	if s := (resources.Settings{}); controllers.CloseAPIServers(t.Context(), none, &s) != nil || len(s.ClosedAddresses) > 0 {
		t.Errorf("without the object: %v", s.ClosedAddresses)
	}
	live := fake.NewClientBuilder().WithObjects(slice).Build()
	s := resources.Settings{ClosedAddresses: []netip.Prefix{netip.MustParsePrefix("8.8.4.8/32")}}
	if err := controllers.CloseAPIServers(t.Context(), live, &s); err != nil {
		t.Fatal(err)
	}
	if want := []netip.Prefix{netip.MustParsePrefix("8.8.4.7/32"), netip.MustParsePrefix("8.8.4.8/32")}; !slices.Equal(s.ClosedAddresses, want) {
		t.Errorf("closed %v", s.ClosedAddresses)
	}
	over, end := context.WithCancel(t.Context())
	end()
	if err := controllers.WatchAPIServers(live, s).Start(over); err != nil {
		t.Errorf("ends although nothing is new: %v", err)
	}
	if err := controllers.WatchAPIServers(live, resources.Settings{}).Start(t.Context()); err == nil || !strings.Contains(err.Error(), "8.8.4.7/32") {
		t.Errorf("goes on beside an address that is not closed: %v", err)
	}
}
