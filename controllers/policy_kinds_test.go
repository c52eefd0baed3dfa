package controllers_test

import (
	"testing"

	"github.com/lethe-dev/lethe/controllers"
)

func TestPolicyKinds(t *testing.T) {
	for text, ok := range map[string]bool{
		controllers.DefaultPolicyKinds: true, "networkpolicies.networking.k8s.io, ciliumnetworkpolicies.cilium.io": true,
		"": false, "ciliumnetworkpolicies.cilium.io": false, "networkpolicies.networking.k8s.io,services": false,
	} {
		if _, err := controllers.ParsePolicyKinds(text); (err == nil) != ok {
			t.Errorf("%q: %v", text, err)
		}
	}
}
