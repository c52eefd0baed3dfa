package resources

import (
	"maps"
	"path"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

// Paths and names inside a bot's pod.
const (
	ContainerBot    = "bot"
	ContainerUnseal = "unseal"

	CredentialsDir = "/var/run/lethe/credentials"
	keyserverDir   = "/var/run/lethe/keyserver"
	envDir         = "/var/run/lethe/env"
	envFile        = "env"

	volumeCredentials = "credentials"
	volumeEnv         = "env"
	volumeKeyserver   = "keyserver"
	volumeTmp         = "tmp"
	volumeData        = "data"

	tokenFile    = "token"
	tokenSeconds = 600
	tmpSize      = "64Mi"
	secretsSize  = "1Mi"

	envTelegramTokenFile = "TELEGRAM_BOT_TOKEN_FILE"
	envTelegramAPIURL    = "TELEGRAM_API_URL"
)

// BotPodTemplate describes the pod of a bot. credentialsSecret names the encrypted Secret that its credentials come from;
// it is empty for a bot without credentials, whose pod then never asks the keyserver for anything.
func BotPodTemplate(s Settings, bot *v1alpha1.BotDeployment, tenant *v1alpha1.Tenant, credentialsSecret string) corev1.PodTemplateSpec {
	template := corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: BotLabels(bot.Name), Annotations: ownedBy(bot.UID)}}
	template.Labels[v1alpha1.LabelTenant] = LabelValue(tenant.Name)
	template.Spec = corev1.PodSpec{
		ServiceAccountName:            BotName(bot.Name),
		AutomountServiceAccountToken:  ptr(false),
		EnableServiceLinks:            ptr(false),
		TerminationGracePeriodSeconds: ptr(bot.Spec.Rollout.TerminationGracePeriodSeconds),
		SecurityContext: &corev1.PodSecurityContext{
			RunAsNonRoot:        ptr(true),
			RunAsUser:           ptr(BotUID(tenant)),
			RunAsGroup:          ptr(BotUID(tenant)),
			FSGroup:             ptr(BotUID(tenant)),
			FSGroupChangePolicy: ptr(corev1.FSGroupChangeOnRootMismatch),
			SeccompProfile:      &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
		},
		Containers:       []corev1.Container{botContainer(bot)},
		Volumes:          []corev1.Volume{memoryVolume(volumeTmp, tmpSize)},
		ImagePullSecrets: pullSecrets(s, tenant, bot),
	}
	for key, value := range s.allowedAnnotations(bot) {
		template.Annotations[key] = value
	}
	if bot.Spec.Storage != nil {
		template.Spec.Volumes = append(template.Spec.Volumes, dataVolume(bot))
	}
	if tenant.Spec.UserNamespaces == v1alpha1.UserNamespacesEnabled {
		template.Spec.HostUsers = ptr(false)
	}
	placeBot(&template.Spec, tenant)
	if len(bot.Spec.Credentials) > 0 {
		template.Annotations[v1alpha1.AnnotationCredentials] = credentialsSecret
		addCredentials(&template.Spec, s, bot.Spec.Credentials)
	}
	return template
}

func botContainer(bot *v1alpha1.BotDeployment) corev1.Container {
	spec := &bot.Spec
	container := corev1.Container{
		Name:            ContainerBot,
		Image:           spec.Image,
		ImagePullPolicy: pullPolicy(spec.ImagePullPolicy, spec.Image),
		Command:         literals(spec.Command),
		Args:            literals(spec.Args),
		Env:             botEnv(spec),
		SecurityContext: restricted(),
	}
	if spec.Resources != nil {
		container.Resources = corev1.ResourceRequirements{
			Requests: requestsOf(spec.Resources),
			Limits:   spec.Resources.Limits,
		}
	}
	for _, port := range spec.Ports {
		container.Ports = append(container.Ports, corev1.ContainerPort{
			Name: port.Name, ContainerPort: port.ContainerPort, Protocol: corev1.ProtocolTCP,
		})
	}
	if spec.Probes != nil {
		container.StartupProbe = httpProbe(spec.Probes.Startup)
		container.LivenessProbe = httpProbe(spec.Probes.Liveness)
		container.ReadinessProbe = httpProbe(spec.Probes.Readiness)
	}
	if spec.Storage != nil {
		container.VolumeMounts = append(container.VolumeMounts, corev1.VolumeMount{Name: volumeData, MountPath: spec.Storage.MountPath})
	}
	if spec.Storage == nil || path.Clean(spec.Storage.MountPath) != "/tmp" {
		container.VolumeMounts = append(container.VolumeMounts, corev1.VolumeMount{Name: volumeTmp, MountPath: "/tmp"})
	}
	if hasDelivery(spec.Credentials, v1alpha1.DeliveryFile) {
		container.VolumeMounts = append(container.VolumeMounts, corev1.VolumeMount{
			Name: volumeCredentials, MountPath: CredentialsDir, ReadOnly: true,
		})
	}
	return container
}

// requestsOf fills in what the API server would: a request that is left out is the limit.
func requestsOf(resources *v1alpha1.BotResources) corev1.ResourceList {
	requests := corev1.ResourceList{}
	maps.Copy(requests, resources.Limits)
	maps.Copy(requests, resources.Requests)
	return requests
}

// botEnv are the plain variables and then ours, which win over a plain one of the same name.
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
		if credential.Delivery != v1alpha1.DeliveryEnv {
			continue
		}
		ours = append(ours, corev1.EnvVar{Name: credential.EnvName, ValueFrom: &corev1.EnvVarSource{
			FileKeyRef: &corev1.FileKeySelector{VolumeName: volumeEnv, Path: envFile, Key: credential.EnvName, Optional: ptr(false)},
		}})
	}
	taken := map[string]bool{}
	for _, variable := range ours {
		taken[variable.Name] = true
	}
	var env []corev1.EnvVar
	for _, variable := range spec.Env {
		if !taken[variable.Name] {
			env = append(env, corev1.EnvVar{Name: variable.Name, Value: Literal(variable.Value)})
		}
	}
	return append(env, ours...)
}

// addCredentials puts the init container in front that fetches the credentials into memory.
func addCredentials(pod *corev1.PodSpec, s Settings, credentials []v1alpha1.Credential) {
	args := []string{
		urlArg + s.KeyserverURL,
		"--ca-file=" + path.Join(keyserverDir, CABundleKey),
		"--addresses-file=" + path.Join(keyserverDir, AddressesKey),
		"--token-file=" + path.Join(keyserverDir, tokenFile),
		"--dir=" + CredentialsDir,
		"--timeout=60s",
	}
	mounts := []corev1.VolumeMount{
		{Name: volumeKeyserver, MountPath: keyserverDir, ReadOnly: true},
		{Name: volumeCredentials, MountPath: CredentialsDir},
	}
	pod.Volumes = append(pod.Volumes, keyserverVolume(), memoryVolume(volumeCredentials, secretsSize))
	if hasDelivery(credentials, v1alpha1.DeliveryEnv) {
		args = append(args, "--env-file="+path.Join(envDir, envFile))
		mounts = append(mounts, corev1.VolumeMount{Name: volumeEnv, MountPath: envDir})
		pod.Volumes = append(pod.Volumes, memoryVolume(volumeEnv, secretsSize))
	}
	pod.InitContainers = []corev1.Container{{
		Name:            ContainerUnseal,
		Image:           s.Image,
		ImagePullPolicy: pullPolicy(s.ImagePullPolicy, s.Image),
		Command:         []string{"/unseal"},
		Args:            literals(args),
		Resources: corev1.ResourceRequirements{
			Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("10m"), corev1.ResourceMemory: resource.MustParse("32Mi")},
			Limits:   corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("200m"), corev1.ResourceMemory: resource.MustParse("64Mi")},
		},
		SecurityContext: restricted(),
		VolumeMounts:    mounts,
	}}
}

// keyserverVolume holds what a pod shows to the keyserver and what it knows the keyserver by. Only our own containers
// mount it.
func keyserverVolume() corev1.Volume {
	return corev1.Volume{Name: volumeKeyserver, VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
		DefaultMode: ptr(int32(0o440)),
		Sources: []corev1.VolumeProjection{
			{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{
				Audience: v1alpha1.AudienceKeyserver, ExpirationSeconds: ptr(int64(tokenSeconds)), Path: tokenFile,
			}},
			{ConfigMap: &corev1.ConfigMapProjection{
				LocalObjectReference: corev1.LocalObjectReference{Name: CABundleName},
				Items:                []corev1.KeyToPath{{Key: CABundleKey, Path: CABundleKey}, {Key: AddressesKey, Path: AddressesKey}},
			}},
		},
	}}}
}

func memoryVolume(name, size string) corev1.Volume {
	return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{
		Medium: corev1.StorageMediumMemory, SizeLimit: ptr(resource.MustParse(size)),
	}}}
}

func httpProbe(probe *v1alpha1.Probe) *corev1.Probe {
	if probe == nil {
		return nil
	}
	return &corev1.Probe{
		ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{
			Path: probe.Path, Port: intstr.FromString(probe.Port), Scheme: corev1.URISchemeHTTP,
		}},
		TimeoutSeconds:   5,
		PeriodSeconds:    probe.PeriodSeconds,
		SuccessThreshold: 1,
		FailureThreshold: probe.FailureThreshold,
	}
}

// restricted is the security context of every container we make.
func restricted() *corev1.SecurityContext {
	return &corev1.SecurityContext{
		AllowPrivilegeEscalation: ptr(false),
		ReadOnlyRootFilesystem:   ptr(true),
		Capabilities:             &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
	}
}

// Literal keeps Kubernetes from expanding $(VAR) in commands, arguments and variables.
func Literal(text string) string { return strings.ReplaceAll(text, "$", "$$") }

func literals(texts []string) []string {
	var result []string
	for _, text := range texts {
		result = append(result, Literal(text))
	}
	return result
}

func hasDelivery(credentials []v1alpha1.Credential, delivery v1alpha1.CredentialDelivery) bool {
	for _, credential := range credentials {
		if delivery == v1alpha1.DeliveryEnv == (credential.Delivery == v1alpha1.DeliveryEnv) {
			return true
		}
	}
	return false
}

func isFile(credentials []v1alpha1.Credential, name string) bool {
	for _, credential := range credentials {
		if credential.Name == name {
			return credential.Delivery != v1alpha1.DeliveryEnv
		}
	}
	return false
}

func ptr[T any](value T) *T { return &value }
