package resources

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

const (
	// maxImage, maxURL and maxSecretNames keep the record of them in an annotation small.
	maxImage, maxURL, maxSecretNames = 300, 100, 400
	// allImages of before, in Settings.RetiredImages.
	allImages = "*"

	urlArg = "--url="
)

// Helper is what the installation, and not the bot, puts into a bot's pod: the init container that fetches its
// credentials, and how its image is had; in a sweep's pod it is the sweeper. A pod keeps the one that it was made
// with until it is made anew for a reason of its own, so that a new Lethe restarts no bot.
type Helper struct {
	Image      string            `json:"image"`
	PullPolicy corev1.PullPolicy `json:"pullPolicy,omitempty"`
	URL        string            `json:"url"`
	// PullSecrets are the installation's, with commas between them.
	PullSecrets string `json:"pullSecrets,omitempty"`
}

// Helper of these settings.
func (s Settings) Helper() Helper {
	return Helper{Image: s.Image, PullPolicy: s.ImagePullPolicy, URL: s.KeyserverURL, PullSecrets: strings.Join(s.ImagePullSecrets, ",")}
}

// With are the settings with a helper of another time.
func (s Settings) With(h Helper) Settings {
	s.Image, s.ImagePullPolicy, s.KeyserverURL, s.ImagePullSecrets = h.Image, h.PullPolicy, h.URL, nil
	if h.PullSecrets != "" {
		s.ImagePullSecrets = strings.Split(h.PullSecrets, ",")
	}
	return s
}

// IsRetired says whether no pod may run an image of Lethe any more.
func (s Settings) IsRetired(image string) bool {
	return image != s.Image && (slices.Contains(s.RetiredImages, image) || slices.Contains(s.RetiredImages, allImages))
}

// IsIn says whether a pod, or a template, of a bot or of a sweep has this helper by its image and its address. How
// the image is had is compared with the rest of the pod.
func (h Helper) IsIn(spec corev1.PodSpec) bool {
	for _, c := range spec.InitContainers {
		if c.Name == ContainerUnseal {
			return c.Image == h.Image && slices.Contains(c.Args, Literal(urlArg+h.URL))
		}
	}
	for _, c := range spec.Containers {
		if c.Name == ContainerSweeper {
			return c.Image == h.Image && slices.Contains(c.Args, urlArg+h.URL)
		}
	}
	return false
}
