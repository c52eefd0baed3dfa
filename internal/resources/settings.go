package resources

import (
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// Settings are what builders need to know about the installation. The manager makes pods with them and the keyserver
// recognises pods with them, so both programs must be started with the same ones.
type Settings struct {
	// Image of Lethe, with /unseal and /sweeper in it.
	Image string
	// ImagePullPolicy of that image. Empty: Kubernetes' own rule (Always for :latest and no tag, else IfNotPresent).
	ImagePullPolicy corev1.PullPolicy
	// RetiredImages are earlier images of Lethe that no pod may run any more; * stands for all but Image. Bots whose
	// pods were made with one are made anew, and the keyserver gives such a pod nothing.
	RetiredImages []string
	// ImagePullSecrets are names of Secrets, in each tenant's namespaces, that this image may be pulled with.
	ImagePullSecrets []string
	// KeyserverURL as pods reach it, for example https://lethe-keyserver.lethe-system.svc:8443.
	KeyserverURL string
	// Namespace of the manager and the keyserver.
	Namespace string
	// DNSNamespace and DNSPodLabels say which pods answer DNS, and DNSPorts on which ports of theirs. DNSBlocks are
	// addresses that answer DNS and are no pods: a cache on the node, a cloud's resolver. Nothing else is reachable
	// on those ports.
	DNSNamespace string
	DNSPodLabels map[string]string
	DNSPorts     []int32
	DNSBlocks    []netip.Prefix
	// ClosedAddresses are those of the API server, and whatever else this cluster adds to what nobody opens: neither
	// a bot nor its Tenant's egress reaches them.
	ClosedAddresses []netip.Prefix
	// PodAnnotations are keys of annotations that the cluster puts on pods and that change nothing about what a pod
	// may do; an entry that ends in * is a prefix. Any other foreign annotation makes a pod one that Lethe did not
	// make.
	PodAnnotations []string
	// BotAnnotations are keys of annotations that bots may ask for; an entry that ends in * is a prefix.
	BotAnnotations []string
}

// DefaultSettings are those of the chart, without an image.
func DefaultSettings() Settings {
	return Settings{
		KeyserverURL: "https://lethe-keyserver.lethe-system.svc:8443",
		Namespace:    "lethe-system",
		DNSNamespace: "kube-system",
		DNSPodLabels: map[string]string{"k8s-app": "kube-dns"},
		DNSPorts:     []int32{53},
	}
}

// AddFlags declares the flags that the manager and the keyserver share. Fields that are empty take their defaults
// first.
func (s *Settings) AddFlags(flags *flag.FlagSet) {
	defaults := DefaultSettings()
	if s.KeyserverURL == "" {
		s.KeyserverURL = defaults.KeyserverURL
	}
	if s.Namespace == "" {
		s.Namespace = defaults.Namespace
	}
	if s.DNSNamespace == "" {
		s.DNSNamespace = defaults.DNSNamespace
	}
	if s.DNSPodLabels == nil {
		s.DNSPodLabels = defaults.DNSPodLabels
	}
	if len(s.DNSPorts) == 0 {
		s.DNSPorts = defaults.DNSPorts
	}
	flags.StringVar(&s.Image, "image", s.Image, "image of Lethe that init containers and sweeps run (required)")
	flags.StringVar((*string)(&s.ImagePullPolicy), "image-pull-policy", string(s.ImagePullPolicy),
		"Always, IfNotPresent or Never; empty for Kubernetes' own rule")
	flags.Func("retired-images", "earlier images of Lethe that no pod may run any more, * for all of them: bots that have one are restarted, a few at a time", s.setRetiredImages)
	flags.Func("image-pull-secrets", "names of Secrets, in each tenant's namespaces, that the image may be pulled with: name,name", s.setImagePullSecrets)
	flags.StringVar(&s.KeyserverURL, "keyserver-url", s.KeyserverURL, "address of the keyserver as pods reach it")
	flags.StringVar(&s.Namespace, "namespace", s.Namespace, "namespace of the manager and the keyserver")
	flags.StringVar(&s.DNSNamespace, "dns-namespace", s.DNSNamespace, "namespace of the cluster's DNS pods")
	flags.Func("closed-addresses", "addresses that no egress opens, beside the kubernetes Service's endpoints: 203.0.113.7/32,2001:db8::/64,...", s.setClosedAddresses)
	flags.Func("pod-annotations", "annotations that this cluster puts on pods beside those that Lethe knows: key,prefix/*,...", s.setPodAnnotations)
	flags.Func("bot-annotations", "annotations that bots may have on their pods (spec.podAnnotations): key,prefix/*,...", s.setBotAnnotations)
	flags.Var((*labelsFlag)(&s.DNSPodLabels), "dns-pod-labels", "labels of the cluster's DNS pods: key=value,key=value")
	flags.Func("dns-ports", "ports on which DNS answers, of its pods and of --dns-blocks (default 53): 53,5353", s.setDNSPorts)
	flags.Func("dns-blocks", "addresses that answer DNS and are no pods, such as a cache on the node: 169.254.20.10/32,...", s.setDNSBlocks)
}

// Validate says what is wrong with the settings, naming the flag.
func (s *Settings) Validate() error {
	var problems []error
	if s.Image == "" {
		problems = append(problems, errors.New("--image is required"))
	}
	if len(s.Image) > maxImage {
		problems = append(problems, fmt.Errorf("--image has more than %d characters", maxImage))
	}
	if err := CheckImage(s.Image); s.Image != "" && err != nil {
		problems = append(problems, fmt.Errorf("--image %q is not the name of an image: %w", s.Image, err))
	}
	if slices.Contains(s.RetiredImages, s.Image) && s.Image != "" {
		problems = append(problems, fmt.Errorf("--retired-images names %s, which is the present --image", s.Image))
	}
	if len(s.Helper().PullSecrets) > maxSecretNames {
		problems = append(problems, fmt.Errorf("--image-pull-secrets has more than %d characters", maxSecretNames))
	}
	if len(s.KeyserverURL) > maxURL {
		problems = append(problems, fmt.Errorf("--keyserver-url has more than %d characters", maxURL))
	}
	switch s.ImagePullPolicy {
	case "", corev1.PullAlways, corev1.PullIfNotPresent, corev1.PullNever:
	default:
		problems = append(problems, fmt.Errorf("--image-pull-policy %q is none of Always, IfNotPresent, Never", s.ImagePullPolicy))
	}
	if u, err := url.Parse(s.KeyserverURL); err != nil || u.Scheme != "https" || u.Host == "" {
		problems = append(problems, fmt.Errorf("--keyserver-url %q is not of the form https://host:port", s.KeyserverURL))
	}
	if s.Namespace == "" {
		problems = append(problems, errors.New("--namespace is empty"))
	}
	if s.DNSNamespace == "" {
		problems = append(problems, errors.New("--dns-namespace is empty"))
	}
	if len(s.DNSPodLabels) == 0 {
		problems = append(problems, errors.New("--dns-pod-labels is empty: every pod of the namespace would be reachable on DNS' ports"))
	}
	if len(s.DNSPorts) == 0 {
		problems = append(problems, errors.New("--dns-ports is empty: every port would be reachable there"))
	}
	return errors.Join(problems...)
}

func (s *Settings) setClosedAddresses(text string) error {
	s.ClosedAddresses = nil
	for entry := range strings.SplitSeq(text, ",") {
		if entry = strings.TrimSpace(entry); entry == "" {
			continue
		}
		block, err := parseBlock(entry)
		if err != nil {
			return err
		}
		s.Close(block)
	}
	return nil
}

// Close adds a block of addresses that no egress opens.
func (s *Settings) Close(block netip.Prefix) {
	block = netip.PrefixFrom(block.Addr().Unmap(), block.Bits()).Masked()
	if block.IsValid() && !slices.Contains(s.ClosedAddresses, block) {
		s.ClosedAddresses = append(slices.Clip(s.ClosedAddresses), block)
		slices.SortFunc(s.ClosedAddresses, netip.Prefix.Compare)
	}
}

// closed are the blocks of a list and those of this cluster that do not lie in one of them.
func (s Settings) closed(blocks []netip.Prefix) []netip.Prefix {
	for _, own := range s.ClosedAddresses {
		if !liesIn(own, blocks) {
			blocks = append(blocks, own)
		}
	}
	return blocks
}

func (s *Settings) setRetiredImages(text string) error {
	s.RetiredImages = nil
	for entry := range strings.SplitSeq(text, ",") {
		if entry = strings.TrimSpace(entry); entry == "" {
			continue
		}
		if err := CheckImage(entry); entry != allImages && err != nil {
			return fmt.Errorf("%q is no image, and not * for all of them: %w", entry, err)
		}
		if len(entry) > maxImage {
			return fmt.Errorf("an image has more than %d characters", maxImage)
		}
		s.RetiredImages = append(s.RetiredImages, entry)
	}
	return nil
}

func (s *Settings) setPodAnnotations(text string) (err error) {
	s.PodAnnotations, err = annotationKeys(text)
	return err
}

// annotationKeys reads keys of annotations, and prefixes of them.
func annotationKeys(text string) ([]string, error) {
	var entries []string
	for entry := range strings.SplitSeq(text, ",") {
		entry = strings.TrimSpace(entry)
		key, isPrefix := strings.CutSuffix(entry, "*")
		switch {
		case entry == "":
			continue
		case strings.HasPrefix(entry, "lethe.dev/"), key == "":
			return nil, fmt.Errorf("%q would let in any annotation, or Lethe's own", entry)
		case isPrefix && !strings.HasSuffix(key, "/"):
			return nil, fmt.Errorf("%q is no prefix that ends a domain: write example.com/*", entry)
		}
		entries = append(entries, entry)
	}
	return entries, nil
}

type labelsFlag map[string]string

func (l *labelsFlag) String() string { return labels.Set(*l).String() }

func (l *labelsFlag) Set(text string) error {
	set, err := labels.ConvertSelectorToLabelsMap(text)
	if err != nil {
		return fmt.Errorf("not of the form key=value,key=value: %w", err)
	}
	*l = labelsFlag(set)
	return nil
}

// pullPolicy is the one that Kubernetes would fill in, written out so that a change of it by hand is seen.
func pullPolicy(policy corev1.PullPolicy, image string) corev1.PullPolicy {
	if policy != "" {
		return policy
	}
	name := image[strings.LastIndex(image, "/")+1:]
	if strings.Contains(name, "@") {
		return corev1.PullIfNotPresent
	}
	_, tag, _ := strings.Cut(name, ":")
	if tag == "" || tag == "latest" {
		return corev1.PullAlways
	}
	return corev1.PullIfNotPresent
}
