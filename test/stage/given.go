package stage

import (
	"encoding/json"
	"fmt"
	"os"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// GivenVariable names the file of a Given to the end-to-end tests. Without it they make a cluster of their own.
const GivenVariable = "LETHE_E2E_GIVEN"

// Given is an installation on a cluster that is somebody's, with what plays beside it, for tests that neither make
// nor remove it. It holds secrets of that play alone.
type Given struct {
	Dir, Realm, Kubectl string
	Images              TheirImages
	Telegram            *Telegram
	Database            *Database
	// Namespace that the services are in.
	Namespace string
}

// Write keeps it where only its owner reads.
func (g *Given) Write(path string) error {
	b, err := json.Marshal(g)
	if err != nil {
		return fmt.Errorf("write down the installation: %w", err)
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		return fmt.Errorf("write down the installation: %w", err)
	}
	return nil
}

// ReadGiven reads one.
func ReadGiven(path string) (*Given, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", GivenVariable, err)
	}
	g := &Given{}
	if err := json.Unmarshal(b, g); err != nil {
		return nil, fmt.Errorf("read %s: %w", GivenVariable, err)
	}
	if g.Dir == "" || g.Kubectl == "" || g.Telegram == nil || g.Database == nil || g.Namespace == "" {
		return nil, fmt.Errorf("%s names a file that says too little of an installation: it is written by make test-e2e CLUSTER=current", GivenVariable)
	}
	return g, nil
}

// LabelPolicy is the name of the policy of OpenByLabel, for the Tenant that lets it in.
const LabelPolicy = "lethe-demo"

// OpenByLabel opens ports of a namespace to all pods of another by the namespace's name, where a network plugin does
// not take an address for a pod's.
func OpenByLabel(from, to string, ports ...int32) *networkingv1.NetworkPolicy {
	rule := networkingv1.NetworkPolicyEgressRule{
		To: []networkingv1.NetworkPolicyPeer{{NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: to}}}},
	}
	for _, p := range ports {
		tcp, port := corev1.ProtocolTCP, intstr.FromInt32(p)
		rule.Ports = append(rule.Ports, networkingv1.NetworkPolicyPort{Protocol: &tcp, Port: &port})
	}
	return &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: from, Name: LabelPolicy, Labels: map[string]string{"app.kubernetes.io/part-of": "lethe-demo"}},
		Spec: networkingv1.NetworkPolicySpec{
			PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeEgress}, Egress: []networkingv1.NetworkPolicyEgressRule{rule},
		},
	}
}
