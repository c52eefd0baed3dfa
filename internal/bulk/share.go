package bulk

import (
	"crypto/sha256"
	"encoding/binary"
	"maps"
	"slices"
	"sync"
	"unique"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/resources"
)

const (
	// largestShared is the longest encoding of a part that is shared: what is longer is hardly the same twice.
	largestShared = 8 << 10
	// mostShared is how many bytes are remembered before all are forgotten: of encodings, which is nearly what parts
	// take, and of what remembering one takes, be it ever so small. What is in use then stays in use and is only not
	// shared with what comes later.
	mostShared = 1 << 20
	eachShared = 512
	// longestMessage is the longest text of a condition that is shared.
	longestMessage = 256
)

// Sharer lets objects of a cache have the parts in common that are the same in them. The walls of a thousand tenants
// differ in little but names, and so do the pods of bots: docs/design/0043-memory-by-the-tenant.md. Whatever reads a
// cache copies before it changes anything, so that nobody notices.
type Sharer struct {
	mutex sync.Mutex
	parts map[[sha256.Size]byte]any
	bytes int
}

// Share replaces parts of a stripped object by ones that are the same and that another object has already. Only a
// cache may do it: whoever changed the object would change others with it.
func (s *Sharer) Share(object metav1.Object) {
	s.shareMetadata(object)
	switch o := object.(type) {
	case *v1alpha1.BotDeployment:
		o.Spec.Image = word(o.Spec.Image)
		shareConditions(o.Status.Conditions)
	case *v1alpha1.Tenant:
		shareConditions(o.Status.Conditions)
	case *v1alpha1.DataStore:
		shareConditions(o.Status.Conditions)
	case *corev1.ConfigMap:
		o.Data = s.words(o.Data)
	case *corev1.ResourceQuota:
		s.shareQuota(o)
	case *corev1.LimitRange:
		o.Spec = shared(s, "limits", o.Spec.Marshal, o.Spec)
	case *networkingv1.NetworkPolicy:
		s.sharePolicy(o)
	case *rbacv1.RoleBinding:
		o.Subjects = shared(s, "subjects", list(o.Subjects), o.Subjects)
		o.RoleRef = shared(s, "role", o.RoleRef.Marshal, o.RoleRef)
	case *appsv1.StatefulSet:
		s.shareSet(o)
	}
}

// shared is a part, or one that is the same and was there before. The kind of the part tells apart what is encoded
// alike.
func shared[T any](s *Sharer, kind string, encode func() ([]byte, error), part T) T {
	encoded, err := encode()
	if err != nil || len(encoded) == 0 || len(encoded) > largestShared {
		return part
	}
	sum := sha256.New()
	sum.Write(append([]byte(kind), 0))
	sum.Write(encoded)
	key := [sha256.Size]byte(sum.Sum(nil))
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if known, ok := s.parts[key].(T); ok {
		return known
	}
	size := len(encoded) + eachShared
	if s.parts == nil || s.bytes+size > mostShared {
		s.parts, s.bytes = map[[sha256.Size]byte]any{}, 0
	}
	s.parts[key] = part
	s.bytes += size
	return part
}

// list encodes the parts of a list one after the other, each with its length.
func list[T any, P interface {
	*T
	Marshal() ([]byte, error)
}](all []T) func() ([]byte, error) {
	return func() ([]byte, error) {
		var out []byte
		for i := range all {
			one, err := P(&all[i]).Marshal()
			if err != nil {
				return nil, err
			}
			out = append(binary.AppendUvarint(out, uint64(len(one))), one...)
		}
		return out, nil
	}
}

// pairs encodes a map of texts.
func pairs(all map[string]string) func() ([]byte, error) {
	return func() ([]byte, error) {
		var out []byte
		for _, key := range slices.Sorted(maps.Keys(all)) {
			for _, text := range []string{key, all[key]} {
				out = append(binary.AppendUvarint(out, uint64(len(text))), text...)
			}
		}
		return out, nil
	}
}

// word is a text that many objects have, once in memory for as long as any of them has it.
func word[S ~string](text S) S {
	if text == "" {
		return text
	}
	return S(unique.Make(string(text)).Value())
}

func (s *Sharer) words(all map[string]string) map[string]string {
	if len(all) == 0 {
		return nil
	}
	return shared(s, "words", pairs(all), all)
}

func (s *Sharer) shareMetadata(object metav1.Object) {
	object.SetNamespace(word(object.GetNamespace()))
	object.SetLabels(s.words(object.GetLabels()))
	object.SetAnnotations(s.words(object.GetAnnotations()))
	object.SetFinalizers(words(object.GetFinalizers()))
	owners := object.GetOwnerReferences()
	object.SetOwnerReferences(shared(s, "owners", list(owners), owners))
}

func words(list []string) []string {
	for i := range list {
		list[i] = word(list[i])
	}
	return list
}

func shareConditions(all []metav1.Condition) {
	for i := range all {
		c := &all[i]
		c.Type, c.Reason, c.Status = word(c.Type), word(c.Reason), word(c.Status)
		if len(c.Message) <= longestMessage {
			c.Message = word(c.Message)
		}
	}
}

// shareQuota keeps how much is used only where a bot is told that there is no room for its pod. Of the other quotas
// it counts what they count, which is the same for all tenants, and not how many there are.
func (s *Sharer) shareQuota(quota *corev1.ResourceQuota) {
	if quota.Name != resources.QuotaName {
		counted := make(corev1.ResourceList, len(quota.Status.Used))
		for name := range quota.Status.Used {
			counted[name] = resource.Quantity{}
		}
		quota.Status.Used = counted
	}
	amounts := func(all corev1.ResourceList) corev1.ResourceList {
		if len(all) == 0 {
			return all
		}
		part := corev1.ResourceQuotaSpec{Hard: all}
		return shared(s, "amounts", part.Marshal, all)
	}
	quota.Spec.Hard, quota.Status.Hard, quota.Status.Used = amounts(quota.Spec.Hard), amounts(quota.Status.Hard), amounts(quota.Status.Used)
	if quota.Spec.ScopeSelector != nil {
		quota.Spec.ScopeSelector = shared(s, "scopes", quota.Spec.ScopeSelector.Marshal, quota.Spec.ScopeSelector)
	}
}

func (s *Sharer) sharePolicy(policy *networkingv1.NetworkPolicy) {
	spec := &policy.Spec
	spec.Ingress = shared(s, "ingress", list(spec.Ingress), spec.Ingress)
	spec.Egress = shared(s, "egress", list(spec.Egress), spec.Egress)
	spec.PodSelector.MatchLabels = s.words(spec.PodSelector.MatchLabels)
}

func (s *Sharer) shareSet(set *appsv1.StatefulSet) {
	template := &set.Spec.Template
	template.Labels = s.words(template.Labels)
	template.Annotations = s.words(template.Annotations)
	if set.Spec.Selector != nil {
		set.Spec.Selector.MatchLabels = s.words(set.Spec.Selector.MatchLabels)
	}
	pod := &template.Spec
	pod.Volumes = shared(s, "volumes", list(pod.Volumes), pod.Volumes)
	pod.InitContainers = shared(s, "containers", list(pod.InitContainers), pod.InitContainers)
	pod.Containers = shared(s, "containers", list(pod.Containers), pod.Containers)
	if pod.SecurityContext != nil {
		pod.SecurityContext = shared(s, "security", pod.SecurityContext.Marshal, pod.SecurityContext)
	}
	if pod.Affinity != nil {
		pod.Affinity = shared(s, "affinity", pod.Affinity.Marshal, pod.Affinity)
	}
}
