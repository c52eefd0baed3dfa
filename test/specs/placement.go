package specs

import (
	"fmt"
	"math/rand/v2"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

// RandomPlacement is what a Tenant says of where its pods run, another one for each seed. Each field is set in some
// of them (TestRandomPlacementsAreTaken).
func RandomPlacement(seed uint64) *v1alpha1.TenantPlacement {
	r := maker{rand.New(rand.NewPCG(seed, 11))}
	p := &v1alpha1.TenantPlacement{RuntimeClassName: pick(r, "", "gvisor"), PriorityClassName: pick(r, "", "customers.gold")}
	for i := range r.IntN(4) {
		p.Tolerations = append(p.Tolerations, v1alpha1.Toleration{Key: r.key(), Operator: corev1.TolerationOpExists, Effect: pick(r, "", corev1.TaintEffectNoSchedule)},
			v1alpha1.Toleration{Key: r.key(), Operator: pick(r, "", corev1.TolerationOpEqual), Value: pick(r, "", "bots"), Effect: corev1.TaintEffectNoExecute, TolerationSeconds: pick(r, nil, ptr(int64(i)))})
	}
	for _, key := range []string{corev1.LabelTopologyZone, corev1.LabelHostname}[r.IntN(3)%2:] {
		if r.yes() {
			p.TopologySpread = append(p.TopologySpread, v1alpha1.TopologySpread{TopologyKey: key, MaxSkew: int32(r.number(0, 5)), WhenUnsatisfiable: pick(r, "", corev1.DoNotSchedule)})
		}
	}
	a := &v1alpha1.TenantAffinity{PodAffinity: r.near(), PodAntiAffinity: r.near()}
	if r.yes() {
		a.NodeAffinity = &v1alpha1.NodeAffinity{Preferred: []v1alpha1.PreferredNodes{{Weight: int32(r.number(1, 100)), Preference: r.nodes()}}}
		for range r.IntN(4) {
			if a.NodeAffinity.Required == nil {
				a.NodeAffinity.Required = &v1alpha1.NodeTerms{}
			}
			a.NodeAffinity.Required.NodeSelectorTerms = append(a.NodeAffinity.Required.NodeSelectorTerms, r.nodes())
		}
	}
	if *a != (v1alpha1.TenantAffinity{}) {
		p.Affinity = a
	}
	if p.Affinity == nil || r.yes() {
		p.NodeSelector = map[string]string{r.key(): "eu-central-1"}
	}
	return p
}

func ptr[T any](value T) *T { return &value }

func (r maker) key() string {
	return pick(r, corev1.LabelTopologyZone, "example.com/pool", "disk_1", fmt.Sprintf("example.com/k%d", r.IntN(3)), "node-role.kubernetes.io/control-plane")
}

func (r maker) valuesOf() []string {
	var values []string
	for range r.number(1, 16) {
		values = append(values, pick(r, "", "a", "eu-central-1", "v1.2_x", "bot", "sweeper", "acme"))
	}
	return values
}

func (r maker) nodes() v1alpha1.NodeTerm {
	var term v1alpha1.NodeTerm
	for range r.number(1, 6) {
		requirement := v1alpha1.NodeRequirement{Key: r.key(), Operator: pick(r, corev1.NodeSelectorOpIn, corev1.NodeSelectorOpNotIn, corev1.NodeSelectorOpExists, corev1.NodeSelectorOpDoesNotExist, corev1.NodeSelectorOpGt, corev1.NodeSelectorOpLt)}
		switch requirement.Operator {
		case corev1.NodeSelectorOpGt, corev1.NodeSelectorOpLt:
			requirement.Values = []string{pick(r, "0", "64", "999999999999999999")}
		case corev1.NodeSelectorOpIn, corev1.NodeSelectorOpNotIn:
			requirement.Values = r.valuesOf()
		}
		term.MatchExpressions = append(term.MatchExpressions, requirement)
	}
	return term
}

// near is about pods of all sorts, some of which are in the namespace: of this tenant, sweeps, and of nobody here.
func (r maker) near() *v1alpha1.PodAffinity {
	if r.yes() {
		return nil
	}
	p := &v1alpha1.PodAffinity{Required: []v1alpha1.PodTerm{r.pods()}}
	for range r.IntN(4) {
		p.Preferred = append(p.Preferred, v1alpha1.PreferredPodTerm{Weight: int32(r.number(1, 100)), PodAffinityTerm: r.pods()})
	}
	if len(p.Preferred) > 0 && r.yes() {
		p.Required = nil
	}
	return p
}

func (r maker) pods() v1alpha1.PodTerm {
	term := v1alpha1.PodTerm{TopologyKey: pick(r, corev1.LabelTopologyZone, corev1.LabelHostname)}
	if r.IntN(3) == 0 {
		return term
	}
	term.LabelSelector = &v1alpha1.PodSelector{}
	for range r.number(1, 2) {
		requirement := v1alpha1.PodRequirement{Key: pick(r, v1alpha1.LabelComponent, v1alpha1.LabelTenant, v1alpha1.LabelBot, v1alpha1.LabelStore, "app"),
			Operator: pick(r, metav1.LabelSelectorOpIn, metav1.LabelSelectorOpNotIn, metav1.LabelSelectorOpExists, metav1.LabelSelectorOpDoesNotExist)}
		if requirement.Operator == metav1.LabelSelectorOpIn || requirement.Operator == metav1.LabelSelectorOpNotIn {
			requirement.Values = r.valuesOf()
		}
		term.LabelSelector.MatchExpressions = append(term.LabelSelector.MatchExpressions, requirement)
	}
	return term
}
