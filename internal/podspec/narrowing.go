package podspec

import (
	"maps"

	corev1 "k8s.io/api/core/v1"
)

// Rule is one field in which a live pod, and the template that it is made of, may differ from what was rendered.
type Rule struct {
	// Field as a path below the pod.
	Field string
	// Who sets it, and how far.
	Who string
	// take puts into want what may differ in got; what may not stays a difference.
	take func(want, got *corev1.PodSpec, podName string)
}

// Narrowing is the closed list. None of it lets anything read the pod's memory, or reach what the pod does not: it says
// where the pod runs, how urgent it is, how much it may use of what it has, where its images are fetched, and what
// confines it further.
var Narrowing = []Rule{
	{"spec.nodeName", "the scheduler", func(want, got *corev1.PodSpec, _ string) { want.NodeName = got.NodeName }},
	{"spec.nodeSelector", "admission may add keys; ours stay", func(want, got *corev1.PodSpec, _ string) {
		want.NodeSelector = added(want.NodeSelector, got.NodeSelector)
	}},
	{"spec.affinity", "admission, each of its three where we render none", takeAffinity},
	{"spec.topologySpreadConstraints", "admission, where we render none", func(want, got *corev1.PodSpec, _ string) {
		if len(want.TopologySpreadConstraints) == 0 {
			want.TopologySpreadConstraints = got.TopologySpreadConstraints
		}
	}},
	{"spec.tolerations", "admission may add some; ours stay", takeTolerations},
	{"spec.priority", "admission, from the class", func(want, got *corev1.PodSpec, _ string) { want.Priority = got.Priority }},
	{"spec.preemptionPolicy", "admission, from the class", func(want, got *corev1.PodSpec, _ string) { want.PreemptionPolicy = got.PreemptionPolicy }},
	{"spec.priorityClassName", "admission, the cluster's default class where we name none", func(want, got *corev1.PodSpec, _ string) {
		if want.PriorityClassName == "" {
			want.PriorityClassName = got.PriorityClassName
		}
	}},
	{"spec.overhead", "admission, from the RuntimeClass, whose name is compared", func(want, got *corev1.PodSpec, _ string) { want.Overhead = got.Overhead }},
	{"spec.imagePullSecrets", "admission, from the ServiceAccount", func(want, got *corev1.PodSpec, _ string) { want.ImagePullSecrets = got.ImagePullSecrets }},
	{"spec.hostname", "the StatefulSet, the pod's own name", func(want, got *corev1.PodSpec, podName string) {
		if got.Hostname == podName {
			want.Hostname = podName
		}
	}},
	{"spec.subdomain", "the StatefulSet", func(want, got *corev1.PodSpec, _ string) { want.Subdomain = got.Subdomain }},
	{"spec.hostUsers", "admission, false only: a user namespace of the pod's own", func(want, got *corev1.PodSpec, _ string) {
		if got.HostUsers != nil && !*got.HostUsers {
			want.HostUsers = got.HostUsers
		}
	}},
	{"spec.dnsConfig.options", "admission, for example ndots; no name server and no search path", takeDNSOptions},
	{"spec.securityContext.seLinuxOptions.level", "admission, where user, role and type stay the runtime's", func(want, got *corev1.PodSpec, _ string) {
		if want.SecurityContext != nil && got.SecurityContext != nil {
			takeLevel(&want.SecurityContext.SELinuxOptions, got.SecurityContext.SELinuxOptions)
		}
	}},
	{"spec.securityContext.appArmorProfile", "admission, the runtime's default profile only", func(want, got *corev1.PodSpec, _ string) {
		if want.SecurityContext != nil && got.SecurityContext != nil {
			takeProfile(&want.SecurityContext.AppArmorProfile, got.SecurityContext.AppArmorProfile)
		}
	}},
	{"spec.containers[].securityContext.seLinuxOptions.level", "as for the pod", eachContainer(func(want, got *corev1.Container) {
		if want.SecurityContext != nil && got.SecurityContext != nil {
			takeLevel(&want.SecurityContext.SELinuxOptions, got.SecurityContext.SELinuxOptions)
		}
	})},
	{"spec.containers[].securityContext.appArmorProfile", "as for the pod", eachContainer(func(want, got *corev1.Container) {
		if want.SecurityContext != nil && got.SecurityContext != nil {
			takeProfile(&want.SecurityContext.AppArmorProfile, got.SecurityContext.AppArmorProfile)
		}
	})},
	{"spec.containers[].resources", "the LimitRange, a resize in place: cpu, memory and ephemeral-storage, no device and no claim", eachContainer(takeResources)},
	{"spec.containers[].resizePolicy", "the API server", eachContainer(func(want, got *corev1.Container) { want.ResizePolicy = got.ResizePolicy })},
	{"spec.containers[].imagePullPolicy", "the admission plugin AlwaysPullImages, Always only", eachContainer(func(want, got *corev1.Container) {
		if got.ImagePullPolicy == corev1.PullAlways || want.ImagePullPolicy == "" {
			want.ImagePullPolicy = got.ImagePullPolicy
		}
	})},
}

// ofPodsOnly are the rules that no template needs: who sets these fields sets them in pods.
var ofPodsOnly = map[string]bool{
	"spec.nodeName": true, "spec.hostname": true, "spec.subdomain": true, "spec.overhead": true, "spec.priority": true, "spec.preemptionPolicy": true,
}

// Annotations are the foreign ones that a pod may carry, and who writes them: what a network plugin or an admission
// plugin notes down. None of them is read by a container runtime. The keyserver's and the manager's --pod-annotations
// add to them.
var Annotations = map[string]string{
	"kubernetes.io/limit-ranger":                         "Kubernetes' LimitRanger",
	"cni.projectcalico.org/containerID":                  "Calico",
	"cni.projectcalico.org/podIP":                        "Calico",
	"cni.projectcalico.org/podIPs":                       "Calico",
	"k8s.v1.cni.cncf.io/network-status":                  "Multus, what it did (what it shall do, networks, is refused)",
	"k8s.ovn.org/pod-networks":                           "OVN-Kubernetes",
	"openshift.io/scc":                                   "OpenShift",
	"security.openshift.io/validated-scc-subject-type":   "OpenShift",
	"autopilot.gke.io/resource-adjustment":               "GKE Autopilot",
	"autopilot.gke.io/warden-version":                    "GKE Autopilot",
	"policies.kyverno.io/last-applied-patches":           "Kyverno",
	"cluster-autoscaler.kubernetes.io/safe-to-evict":     "whoever tells the Cluster Autoscaler",
	"cluster-autoscaler.kubernetes.io/pod-scale-up-hint": "the Cluster Autoscaler",
}

// added is ours with what theirs has beside it.
func added(ours, theirs map[string]string) map[string]string {
	out := maps.Clone(ours)
	if out == nil && len(theirs) > 0 {
		out = map[string]string{}
	}
	for key, value := range theirs {
		if _, ok := ours[key]; !ok {
			out[key] = value
		}
	}
	return out
}

func orTheirs[T any](ours **T, theirs *T) {
	if *ours == nil {
		*ours = theirs
	}
}

func takeAffinity(want, got *corev1.PodSpec, _ string) {
	if want.Affinity != nil && got.Affinity != nil {
		orTheirs(&want.Affinity.NodeAffinity, got.Affinity.NodeAffinity)
		orTheirs(&want.Affinity.PodAffinity, got.Affinity.PodAffinity)
		orTheirs(&want.Affinity.PodAntiAffinity, got.Affinity.PodAntiAffinity)
	}
	orTheirs(&want.Affinity, got.Affinity)
}

func takeTolerations(want, got *corev1.PodSpec, _ string) {
	for _, ours := range want.Tolerations {
		found := false
		for _, theirs := range got.Tolerations {
			found = found || ours.MatchToleration(&theirs)
		}
		if !found {
			return
		}
	}
	want.Tolerations = got.Tolerations
}

func takeDNSOptions(want, got *corev1.PodSpec, _ string) {
	if got.DNSConfig == nil || want.DNSConfig != nil || len(got.DNSConfig.Nameservers) > 0 || len(got.DNSConfig.Searches) > 0 {
		return
	}
	want.DNSConfig = &corev1.PodDNSConfig{Options: got.DNSConfig.Options}
}

func takeLevel(want **corev1.SELinuxOptions, got *corev1.SELinuxOptions) {
	if *want == nil && got != nil && got.User == "" && got.Role == "" && got.Type == "" {
		*want = got
	}
}

func takeProfile(want **corev1.AppArmorProfile, got *corev1.AppArmorProfile) {
	if *want == nil && got != nil && got.Type == corev1.AppArmorProfileTypeRuntimeDefault {
		*want = got
	}
}

func takeResources(want, got *corev1.Container) {
	for _, list := range []corev1.ResourceList{got.Resources.Limits, got.Resources.Requests} {
		for name := range list {
			switch name {
			case corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage:
			default:
				return
			}
		}
	}
	want.Resources.Limits, want.Resources.Requests = got.Resources.Limits, got.Resources.Requests
}

// eachContainer applies a rule to the containers and the init containers that both have.
func eachContainer(take func(want, got *corev1.Container)) func(want, got *corev1.PodSpec, podName string) {
	return func(want, got *corev1.PodSpec, _ string) {
		for _, lists := range [][2][]corev1.Container{{want.InitContainers, got.InitContainers}, {want.Containers, got.Containers}} {
			for i := range min(len(lists[0]), len(lists[1])) {
				take(&lists[0][i], &lists[1][i])
			}
		}
	}
}
