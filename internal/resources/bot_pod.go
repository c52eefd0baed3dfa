package resources

import (
	"maps"
	"path"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

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
	volumeData        = "data"

	tokenFile    = "token"
	tokenSeconds = 600
	secretsSize  = "1Mi"
)

// BotPodTemplate describes the pod of a bot. credentialsSecret names the encrypted Secret that its credentials come
// from; it is empty for a bot without credentials, whose pod then never asks the keyserver for anything. The contents
// of the bot's files must be in place: see WithFiles.
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
		Volumes:          scratchVolumes(&bot.Spec),
		ImagePullSecrets: pullSecrets(s, tenant, bot),
	}
	if asked := RestartedAt(bot); asked != "" {
		template.Annotations[v1alpha1.AnnotationRestartedAt] = asked
	}
	maps.Copy(template.Annotations, s.allowedAnnotations(bot))
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
	addFiles(&template, &bot.Spec)
	addHelpers(&template.Spec, &bot.Spec)
	return template
}

// RestartedAt is when somebody asked for a restart, as the pod's annotation has it; empty: nobody did.
func RestartedAt(bot *v1alpha1.BotDeployment) string {
	if bot.Spec.RestartedAt.IsZero() {
		return ""
	}
	return bot.Spec.RestartedAt.UTC().Format(time.RFC3339)
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
			// It writes into memory; what it may have of the node's disk is its output.
			Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("10m"), corev1.ResourceMemory: resource.MustParse("32Mi"),
				corev1.ResourceEphemeralStorage: resource.MustParse("8Mi")},
			Limits: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("200m"), corev1.ResourceMemory: resource.MustParse("64Mi"),
				corev1.ResourceEphemeralStorage: resource.MustParse("64Mi")},
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
