package status

import (
	"fmt"
	"regexp"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/lethe-dev/lethe/internal/foreign"
)

// quotaInWords is how the API server names the quota that is used up.
var quotaInWords = regexp.MustCompile(`exceeded quota: ([-a-z0-9.]+)`)

// NoRoom says that a quota is used up, in Kubernetes' own words, and what to do. The Tenant's quotas are named lethe
// and lethe-...; another one in the namespace is whoever's made it.
func NoRoom(forWhat, words string) string {
	whose, raise := "The Tenant's quota", "have the Tenant's spec.quota raised"
	if match := quotaInWords.FindStringSubmatch(words); match != nil && match[1] != "lethe" && !strings.HasPrefix(match[1], "lethe-") {
		whose, raise = "ResourceQuota "+match[1]+", which is not Lethe's,", "have that quota raised by whoever made it"
	}
	return fmt.Sprintf("%s leaves no room%s: %s. Give up something else, or %s.", whose, forWhat, strings.TrimSuffix(foreign.Line(words, messageLimit/2), "."), raise)
}

// afterRefusal says what to do about a pod that admission does not take, by who refused it. It is tried again by
// itself.
func afterRefusal(namespace, set, words string) string {
	switch {
	case strings.Contains(words, "admission webhook"), strings.Contains(words, "ValidatingAdmissionPolicy"):
		return "Do as it says, or have whoever runs that webhook or policy exempt the namespace; it is tried again by itself."
	case strings.Contains(words, "violates PodSecurity"):
		return fmt.Sprintf("Have what changes pods in the namespace found: kubectl get ns %s -o yaml, and the mutating webhooks; Lethe's own pods are as Pod Security wants them.", namespace)
	case strings.Contains(words, " usage per "), strings.Contains(words, "limit to request ratio"):
		return fmt.Sprintf("A LimitRange says so: see kubectl -n %s get limitrange -o yaml, and change spec.resources, or have it changed.", namespace)
	case strings.Contains(words, "PriorityClass"), strings.Contains(words, "RuntimeClass"):
		return "Have it made, or spec.placement of the Tenant changed."
	default:
		return fmt.Sprintf("Change what the words name; it is tried again by itself. All of it is in kubectl -n %s describe statefulset %s.", namespace, set)
	}
}

// roomSomewhere says what to do about a pod that no node takes, by the scheduler's words.
func roomSomewhere(words string) string {
	var steps []string
	if strings.Contains(words, "Insufficient") || strings.Contains(words, "Too many pods") {
		steps = append(steps, "add a node or free one, or lower requests of spec.resources")
	}
	for _, about := range []string{"affinity", "selector", "taint", "topology spread"} {
		if strings.Contains(words, about) {
			steps = append(steps, placement(words))
			break
		}
	}
	if len(steps) == 0 {
		steps = append(steps, "see kubectl get nodes")
	}
	text := strings.Join(steps, "; ")
	return strings.ToUpper(text[:1]) + text[1:] + "."
}

// placement says what to do about a Tenant's placement that leaves no node.
func placement(words string) string {
	if strings.Contains(words, "pod affinity rules") || strings.Contains(words, "anti-affinity rules") {
		return "add a node, or have spec.placement.affinity of the Tenant prefer what it requires"
	}
	return "have spec.placement of the Tenant say nodes that there are"
}

// toStart says what to do about a container that the kubelet does not start. None of it needs a change of the bot's
// name, or a pod deleted by hand.
func toStart(pod *corev1.Pod, reason, words string) string {
	describe := fmt.Sprintf("See kubectl describe pod -n %s %s", pod.Namespace, pod.Name)
	switch {
	case strings.Contains(words, "runAsNonRoot"), strings.Contains(words, "non-numeric user"):
		return "Build the image for a numeric user other than 0."
	case strings.Contains(words, "couldn't find key"), strings.Contains(words, "not found") && (strings.Contains(words, "secret") || strings.Contains(words, "configmap")):
		return "Make what it names, or correct the entry of spec.env or spec.files that refers to it."
	case strings.HasSuffix(reason, "HookError"):
		return describe + ": a hook of the node's runtime failed, and whoever looks after the node knows it."
	default:
		return "Check the image, command and args. " + describe + "."
	}
}
