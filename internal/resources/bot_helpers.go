package resources

import (
	"path"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

// addHelpers puts the helpers beside the bot. They run as the same user behind the same walls; what of the bot's a
// helper sees is what it names.
func addHelpers(pod *corev1.PodSpec, spec *v1alpha1.BotDeploymentSpec) {
	for i := range spec.Helpers {
		helper := &spec.Helpers[i]
		shared := sharedScratch(spec, helper)
		hasTmp := slices.ContainsFunc(shared, func(d scratchDir) bool { return d.path == tmpDir }) ||
			(sharesStorage(spec, helper) && spec.Storage.MountPath == tmpDir)
		own := usualDirs("helper-"+helper.Name+"-", hasTmp, hasHome(helper.Env))
		for _, dir := range own {
			pod.Volumes = append(pod.Volumes, emptyVolume(dir.volume, corev1.StorageMediumDefault, dir.size))
		}
		container := corev1.Container{
			Name:            helper.Name,
			Image:           helper.Image,
			ImagePullPolicy: pullPolicy(helper.ImagePullPolicy, helper.Image),
			Command:         literals(helper.Command),
			Args:            literals(helper.Args),
			Ports:           containerPorts(helper.Ports),
			Resources:       resourcesOf(helper.Resources, own),
			SecurityContext: restricted(),
		}
		setProbes(&container, helper.Probes)
		if sharesStorage(spec, helper) {
			container.VolumeMounts = append(container.VolumeMounts, corev1.VolumeMount{Name: volumeData, MountPath: spec.Storage.MountPath})
		}
		container.VolumeMounts = append(container.VolumeMounts, scratchMounts(append(own, shared...))...)
		var variables []corev1.EnvVar
		for _, credential := range spec.Credentials {
			switch {
			case !slices.Contains(helper.Credentials, credential.Name):
			case credential.Delivery == v1alpha1.DeliveryEnv:
				variables = append(variables, credentialEnv(credential))
			default:
				// One file and not the directory, which holds the others too.
				container.VolumeMounts = append(container.VolumeMounts, corev1.VolumeMount{
					Name: volumeCredentials, MountPath: path.Join(CredentialsDir, credential.Name), SubPath: credential.Name, ReadOnly: true,
				})
			}
		}
		container.Env = withPlain(helper.Env, spec.TimeZone, variables)
		pod.Containers = append(pod.Containers, container)
	}
}

func sharesStorage(spec *v1alpha1.BotDeploymentSpec, helper *v1alpha1.BotHelper) bool {
	return spec.Storage != nil && slices.Contains(helper.Mounts, v1alpha1.MountStorage)
}

// sharedScratch are the directories that the bot names and the helper shares. What they may hold is counted with the
// bot's own container.
func sharedScratch(spec *v1alpha1.BotDeploymentSpec, helper *v1alpha1.BotHelper) []scratchDir {
	if !slices.Contains(helper.Mounts, v1alpha1.MountScratch) {
		return nil
	}
	return namedScratch(spec)
}
