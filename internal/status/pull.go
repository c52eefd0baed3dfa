package status

import (
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/foreign"
)

// IsPull says whether a reason is that the node does not get an image, whatever the registry said.
func IsPull(reason string) bool { return v1alpha1.FactsOf(reason).Pod.Image }

// Unpulled is what a pod says whose image the node does not get; not ok for any other pod.
func Unpulled(pod *corev1.Pod) (Workload, bool) {
	for _, list := range [][]corev1.ContainerStatus{pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses} {
		for i := range list {
			if w, ok := ofWaiting(pod, &list[i]); ok && IsPull(w.Reason) {
				return w, true
			}
		}
	}
	return Workload{}, false
}

// sorts of what a registry, or the way to it, answers: by words of which one is in it, the first that fits. Its words
// differ from registry to registry. what comes after the container's name and the image's, and says what to do.
var sorts = []struct {
	reason  string
	words   []string
	what    string
	asksWho bool
}{
	{reason: v1alpha1.ReasonInvalidImageName, words: []string{"invalid reference format", "could not parse reference", "couldn't parse image"},
		what: "is not the name of an image. Write registry/repository:tag."},
	{reason: v1alpha1.ReasonImagePullBackOff, words: []string{"toomanyrequests", "too many requests", ": 429"}, asksWho: true,
		what: "is pulled too often, says its registry; it is tried again and again. Wait, or pull it as somebody who may pull more often, or from a mirror."},
	{reason: v1alpha1.ReasonImagePullBackOff, words: []string{"no space left on device"},
		what: "cannot be pulled, since the disk of the node is full: make room there, or wait until Kubernetes has."},
	{reason: v1alpha1.ReasonRegistryUnavailable, words: []string{"no such host", "server misbehaving", "temporary failure in name resolution"},
		what: "cannot be pulled. The node knows no address of its registry: check the registry's name in image, and what the node itself asks for names."},
	{reason: v1alpha1.ReasonRegistryUnavailable, words: []string{"x509:", "failed to verify certificate", "certificate signed by"},
		what: "cannot be pulled. The node does not trust its registry's certificate: give the certificate's authority to the container runtime of the nodes."},
	{reason: v1alpha1.ReasonRegistryUnavailable, words: []string{"server gave http response to https client", "first record does not look like a tls handshake"},
		what: "cannot be pulled. Its registry does not speak TLS: give it a certificate, or tell the container runtime of the nodes that it has none."},
	{reason: v1alpha1.ReasonRegistryUnavailable, words: []string{"connection refused", "i/o timeout", "no route to host", "network is unreachable", "deadline exceeded", "connection reset", "tls handshake timeout", "proxyconnect"},
		what: "cannot be pulled. The node does not reach its registry: check the registry's name and port in image, and the node's way there (proxy, firewall)."},
	{reason: v1alpha1.ReasonImagePullUnauthorized, asksWho: true,
		words: []string{"unauthorized", "authorization failed", "authentication required", "access denied", "insufficient_scope", "no basic auth", "forbidden", "denied:"},
		what:  "is not given out to this cluster by its registry. It is private, or does not exist there: check its name, and the pull secret."},
	{reason: v1alpha1.ReasonImageNotFound, words: []string{"no match for platform", "no matching manifest"},
		what: "exists, and there is none for this node's platform. Build it for that one too, or name the one that fits."},
	{reason: v1alpha1.ReasonImageNotFound, words: []string{"not found", "manifest unknown", "manifest_unknown", "name unknown", "name_unknown", "no such manifest"}},
	{reason: v1alpha1.ReasonRegistryUnavailable, words: []string{"500 internal server error", "502 bad gateway", "503 service unavailable", "504 gateway timeout"},
		what: "cannot be pulled. Its registry has trouble of its own; it is tried again and again. See whoever runs the registry."},
}

// ofImage says why a node does not get an image. reason is Kubernetes' own; its back-off's message repeats the first
// one's.
func ofImage(pod *corev1.Pod, container, image, reason, message string) Workload {
	say := func(reason, what string) Workload {
		return trouble(reason, "Container %s: the image %s %s", container, image, what)
	}
	switch reason {
	case v1alpha1.ReasonInvalidImageName:
		return say(reason, "is not the name of an image. Write registry/repository:tag.")
	case v1alpha1.ReasonImageNeverPull:
		return say(reason, "is not on the node, and imagePullPolicy is Never. Load it there, or let it be pulled.")
	case v1alpha1.ReasonSignatureInvalid:
		return say(reason, "has no signature that the nodes' rules take: sign it, or name one that is signed.")
	case v1alpha1.ReasonRegistryUnavailable:
		return say(reason, "cannot be pulled. The node does not reach its registry: check the registry's name and port in image, and the node's way there (proxy, firewall).")
	case "ImageInspectError":
		return say(v1alpha1.ReasonImagePullBackOff, "is on the node, and is broken there. The node cannot read it: remove it from the node, so that it is pulled again.")
	}
	lower := strings.ToLower(message)
	for _, sort := range sorts {
		for _, word := range sort.words {
			if !strings.Contains(lower, word) {
				continue
			}
			if sort.what == "" {
				return trouble(sort.reason, "Container %s: there is no image %s. Check its name and tag.", container, image)
			}
			w := say(sort.reason, sort.what)
			w.AsksWho = sort.asksWho
			return w
		}
	}
	if _, cause, found := strings.Cut(message, "rpc error: "); found {
		return say(v1alpha1.ReasonImagePullBackOff, "cannot be pulled; it is tried again and again: "+orNothing(foreign.Line(strings.Trim(cause, `"`), messageLimit/2))+" See kubectl describe pod -n "+pod.Namespace+" "+pod.Name+".")
	}
	return say(v1alpha1.ReasonImagePullBackOff, "cannot be pulled; it is tried again and again. See kubectl describe pod -n "+pod.Namespace+" "+pod.Name+".")
}
