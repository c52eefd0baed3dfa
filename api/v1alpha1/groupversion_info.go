// Package v1alpha1 holds the kinds of the API group lethe.dev, version v1alpha1.
//
// The package imports Kubernetes types only. Everything here is read by users through `kubectl explain`,
// so each field says what it means, what leaving it out means, and its bounds.
//
// +kubebuilder:object:generate=true
// +groupName=lethe.dev
package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Group is the API group of every kind of Lethe.
const Group = "lethe.dev"

var (
	// GroupVersion is the group and version of the kinds in this package.
	GroupVersion = schema.GroupVersion{Group: Group, Version: "v1alpha1"}

	schemeBuilder = runtime.NewSchemeBuilder(addKnownTypes)

	// AddToScheme adds the kinds of this package to a scheme.
	AddToScheme = schemeBuilder.AddToScheme
)

func addKnownTypes(scheme *runtime.Scheme) error {
	scheme.AddKnownTypes(GroupVersion,
		&Tenant{}, &TenantList{},
		&BotDeployment{}, &BotDeploymentList{},
		&DataStore{}, &DataStoreList{},
		&DataRetentionPolicy{}, &DataRetentionPolicyList{},
	)
	metav1.AddToGroupVersion(scheme, GroupVersion)
	return nil
}
