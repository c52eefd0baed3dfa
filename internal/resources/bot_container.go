package resources

import (
	"maps"
	"path"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

// Variables that Lethe sets. The first two are the bot's own where it names them.
const (
	envHome   = "HOME"
	envTmpDir = "TMPDIR"
	envTZ     = "TZ"

	envTelegramTokenFile = "TELEGRAM_BOT_TOKEN_FILE"
	envTelegramAPIURL    = "TELEGRAM_API_URL"
)

// What a container that says nothing asks for and may use: rendered, and in the namespace's LimitRange for pods that
// are not Lethe's.
const (
	DefaultCPULimit      = "500m"
	DefaultMemoryLimit   = "256Mi"
	DefaultCPURequest    = "20m"
	DefaultMemoryRequest = "64Mi"
)

func botContainer(bot *v1alpha1.BotDeployment) corev1.Container {
	spec := &bot.Spec
	container := corev1.Container{
		Name:            ContainerBot,
		Image:           spec.Image,
		ImagePullPolicy: pullPolicy(spec.ImagePullPolicy, spec.Image),
		Command:         literals(spec.Command),
		Args:            literals(spec.Args),
		Env:             botEnv(spec),
		Ports:           containerPorts(spec.Ports),
		Resources:       resourcesOf(spec.Resources, scratchOf(spec)),
		SecurityContext: restricted(),
	}
	setProbes(&container, spec.Probes)
	if spec.Storage != nil {
		container.VolumeMounts = append(container.VolumeMounts, corev1.VolumeMount{Name: volumeData, MountPath: spec.Storage.MountPath})
	}
	container.VolumeMounts = append(container.VolumeMounts, scratchMounts(scratchOf(spec))...)
	if hasDelivery(spec.Credentials, v1alpha1.DeliveryFile) {
		container.VolumeMounts = append(container.VolumeMounts, corev1.VolumeMount{
			Name: volumeCredentials, MountPath: CredentialsDir, ReadOnly: true,
		})
	}
	return container
}

func containerPorts(ports []v1alpha1.ContainerPort) []corev1.ContainerPort {
	var out []corev1.ContainerPort
	for _, port := range ports {
		out = append(out, corev1.ContainerPort{Name: port.Name, ContainerPort: port.ContainerPort, Protocol: corev1.ProtocolTCP})
	}
	return out
}

// resourcesOf are what a container asks for and may use. All of it is said: what is left out would come from a
// LimitRange, and one of another client's in the namespace may have less than the request. A request that is left out
// is the limit, as the API server has it, or the default where there is no limit; a limit that is left out is the
// default, or the request where that is more, since a pod that asks for more than it may use is refused. Of the
// node's disk the scratch directories are the limit, and a share of that is reserved.
func resourcesOf(resources *v1alpha1.BotResources, scratch []scratchDir) corev1.ResourceRequirements {
	if resources == nil {
		resources = &v1alpha1.BotResources{}
	}
	limits, requests := maps.Clone(resources.Limits), corev1.ResourceList{}
	if limits == nil {
		limits = corev1.ResourceList{}
	}
	maps.Copy(requests, resources.Limits)
	maps.Copy(requests, resources.Requests)
	for name, fallback := range map[corev1.ResourceName][2]string{
		corev1.ResourceCPU: {DefaultCPURequest, DefaultCPULimit}, corev1.ResourceMemory: {DefaultMemoryRequest, DefaultMemoryLimit},
	} {
		if _, limited := limits[name]; limited {
			continue
		}
		limits[name] = resource.MustParse(fallback[1])
		request, asked := resources.Requests[name]
		if !asked {
			requests[name] = resource.MustParse(fallback[0])
		}
		if asked && request.Cmp(limits[name]) > 0 {
			limits[name] = request
		}
	}
	if _, limited := limits[corev1.ResourceEphemeralStorage]; !limited {
		most := diskOf(scratch)
		if request, asked := resources.Requests[corev1.ResourceEphemeralStorage]; asked && request.Cmp(most) > 0 {
			most = request
		}
		limits[corev1.ResourceEphemeralStorage] = most
	}
	if _, asked := requests[corev1.ResourceEphemeralStorage]; !asked {
		requests[corev1.ResourceEphemeralStorage] = reservedOf(limits[corev1.ResourceEphemeralStorage])
	}
	return corev1.ResourceRequirements{Requests: requests, Limits: limits}
}

// botEnv are the directories that a program looks for, the plain variables, and then ours.
func botEnv(spec *v1alpha1.BotDeploymentSpec) []corev1.EnvVar {
	var ours []corev1.EnvVar
	for _, channel := range spec.Channels {
		if channel.Telegram == nil {
			continue
		}
		if isFile(spec.Credentials, channel.Telegram.Credential) {
			ours = append(ours, corev1.EnvVar{Name: envTelegramTokenFile, Value: Literal(path.Join(CredentialsDir, channel.Telegram.Credential))})
		}
		if channel.Telegram.APIURL != "" {
			ours = append(ours, corev1.EnvVar{Name: envTelegramAPIURL, Value: Literal(channel.Telegram.APIURL)})
		}
	}
	for _, credential := range spec.Credentials {
		if credential.Delivery == v1alpha1.DeliveryEnv {
			ours = append(ours, credentialEnv(credential))
		}
	}
	return withPlain(spec.Env, spec.TimeZone, ours)
}

func credentialEnv(credential v1alpha1.Credential) corev1.EnvVar {
	return corev1.EnvVar{Name: credential.EnvName, ValueFrom: &corev1.EnvVarSource{
		FileKeyRef: &corev1.FileKeySelector{VolumeName: volumeEnv, Path: envFile, Key: credential.EnvName, Optional: ptr(false)},
	}}
}

// withPlain puts a container's variables together. Admission refuses two of one name; where one slips through, ours
// wins.
func withPlain(plain []v1alpha1.EnvVar, timeZone string, ours []corev1.EnvVar) []corev1.EnvVar {
	if timeZone != "" {
		ours = append(ours, corev1.EnvVar{Name: envTZ, Value: Literal(timeZone)})
	}
	taken := map[string]bool{}
	for _, variable := range ours {
		taken[variable.Name] = true
	}
	var env []corev1.EnvVar
	for _, variable := range plain {
		if !taken[variable.Name] {
			env = append(env, corev1.EnvVar{Name: variable.Name, Value: Literal(variable.Value)})
			taken[variable.Name] = true
		}
	}
	var first []corev1.EnvVar
	for _, variable := range []corev1.EnvVar{{Name: envHome, Value: homeDir}, {Name: envTmpDir, Value: tmpDir}} {
		if !taken[variable.Name] {
			first = append(first, variable)
		}
	}
	return append(append(first, env...), ours...)
}

// Probes ask in these ways where they say nothing.
const (
	probePath      = "/"
	probeTimeout   = 5
	probePeriod    = 10
	probeThreshold = 3
)

func setProbes(container *corev1.Container, probes *v1alpha1.Probes) {
	if probes == nil {
		return
	}
	container.StartupProbe = probeOf(probes.Startup)
	container.LivenessProbe = probeOf(probes.Liveness)
	container.ReadinessProbe = probeOf(probes.Readiness)
}

func probeOf(probe *v1alpha1.Probe) *corev1.Probe {
	if probe == nil {
		return nil
	}
	out := &corev1.Probe{
		InitialDelaySeconds: probe.InitialDelaySeconds,
		TimeoutSeconds:      or(probe.TimeoutSeconds, probeTimeout),
		PeriodSeconds:       or(probe.PeriodSeconds, probePeriod),
		SuccessThreshold:    1,
		FailureThreshold:    or(probe.FailureThreshold, probeThreshold),
	}
	switch probe.Type {
	case v1alpha1.ProbeExec:
		// Kubernetes expands $(VAR) here too.
		out.Exec = &corev1.ExecAction{Command: literals(probe.Command)}
	case v1alpha1.ProbeTCP:
		out.TCPSocket = &corev1.TCPSocketAction{Port: intstr.FromString(probe.Port)}
	default:
		out.HTTPGet = &corev1.HTTPGetAction{Path: or(probe.Path, probePath), Port: intstr.FromString(probe.Port), Scheme: corev1.URISchemeHTTP}
	}
	return out
}

func or[T comparable](value, fallback T) T {
	var zero T
	if value == zero {
		return fallback
	}
	return value
}
