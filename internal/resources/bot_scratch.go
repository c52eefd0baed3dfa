package resources

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

// Directories that a container can write to whatever its image is like. homeDir is one that no image has anything at.
const (
	tmpDir  = "/tmp"
	homeDir = "/var/run/lethe/home"

	volumeTmp     = "tmp"
	volumeHome    = "home"
	volumeScratch = "scratch"

	defaultScratchDisk   = "1Gi"
	defaultScratchMemory = "64Mi"
	// roomForLogs is what a container may have of its node's disk beside its scratch directories: the kubelet keeps
	// that much of its output.
	roomForLogs = "256Mi"
	// reservedShare of what a container may write is reserved for it on its node: so many times over is a node's disk
	// promised at most.
	reservedShare = 8
)

// scratchDir is one directory that goes with the pod.
type scratchDir struct {
	volume, path string
	size         resource.Quantity
	memory       bool
}

// scratchOf are a bot's scratch directories: /tmp and a home, where the bot has none of its own, and those that it
// names.
func scratchOf(spec *v1alpha1.BotDeploymentSpec) []scratchDir {
	named := namedScratch(spec)
	hasTmp := (spec.Storage != nil && spec.Storage.MountPath == tmpDir) ||
		slices.ContainsFunc(named, func(d scratchDir) bool { return d.path == tmpDir })
	return append(usualDirs("", hasTmp, hasHome(spec.Env)), named...)
}

// namedScratch are those that the spec names.
func namedScratch(spec *v1alpha1.BotDeploymentSpec) []scratchDir {
	var dirs []scratchDir
	for i, s := range spec.Scratch {
		dir := scratchDir{volume: fmt.Sprintf("%s-%d", volumeScratch, i), path: s.Path, size: s.Size, memory: s.Medium == v1alpha1.ScratchMemory}
		if dir.size.IsZero() {
			dir.size = resource.MustParse(defaultScratchDisk)
			if dir.memory {
				dir.size = resource.MustParse(defaultScratchMemory)
			}
		}
		dirs = append(dirs, dir)
	}
	return dirs
}

// usualDirs are /tmp and a home. Their volumes are a container's own, by its prefix.
func usualDirs(prefix string, hasTmp, hasHome bool) []scratchDir {
	var dirs []scratchDir
	if !hasTmp {
		dirs = append(dirs, scratchDir{volume: prefix + volumeTmp, path: tmpDir, size: resource.MustParse(defaultScratchDisk)})
	}
	if !hasHome {
		dirs = append(dirs, scratchDir{volume: prefix + volumeHome, path: homeDir, size: resource.MustParse(defaultScratchDisk)})
	}
	return dirs
}

// hasHome says whether a container names its home itself.
func hasHome(env []v1alpha1.EnvVar) bool {
	return slices.ContainsFunc(env, func(e v1alpha1.EnvVar) bool { return e.Name == envHome })
}

// diskOf is what a container may have of its node's disk.
func diskOf(dirs []scratchDir) resource.Quantity {
	sum := resource.MustParse(roomForLogs)
	for _, dir := range dirs {
		if !dir.memory {
			sum.Add(dir.size)
		}
	}
	return sum
}

// reservedOf is what of a node's disk is reserved for a container that may have so much of it and asks for nothing:
// whole mebibytes.
func reservedOf(most resource.Quantity) resource.Quantity {
	const share = reservedShare << 20
	return *resource.NewQuantity((most.Value()+share-1)/share<<20, resource.BinarySI)
}

func scratchVolumes(spec *v1alpha1.BotDeploymentSpec) []corev1.Volume {
	var volumes []corev1.Volume
	for _, dir := range scratchOf(spec) {
		medium := corev1.StorageMediumDefault
		if dir.memory {
			medium = corev1.StorageMediumMemory
		}
		volumes = append(volumes, emptyVolume(dir.volume, medium, dir.size))
	}
	return volumes
}

func scratchMounts(dirs []scratchDir) []corev1.VolumeMount {
	var mounts []corev1.VolumeMount
	for _, dir := range dirs {
		mounts = append(mounts, corev1.VolumeMount{Name: dir.volume, MountPath: dir.path})
	}
	return mounts
}

func memoryVolume(name, size string) corev1.Volume {
	return emptyVolume(name, corev1.StorageMediumMemory, resource.MustParse(size))
}

func emptyVolume(name string, medium corev1.StorageMedium, size resource.Quantity) corev1.Volume {
	return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: medium, SizeLimit: &size}}}
}

// BeyondDisk says what of a bot asks for more of its node's disk than its Tenant lets one container have; empty:
// nothing. What all of them reserve together a quota counts.
func BeyondDisk(bot *v1alpha1.BotDeployment, tenant *v1alpha1.Tenant) string {
	most := MostDisk(tenant)
	template := corev1.PodSpec{Containers: []corev1.Container{botContainer(bot)}}
	addHelpers(&template, &bot.Spec)
	for _, c := range template.Containers {
		if limit := c.Resources.Limits[corev1.ResourceEphemeralStorage]; limit.Cmp(most) > 0 {
			return fmt.Sprintf("Container %s may use %s of its node's disk (scratch directories and %s for its output, or resources.limits.ephemeral-storage), and the Tenant lets one have %s: "+
				"lower spec.scratch[].size, or have the Tenant's quota.ephemeralStorage raised.", c.Name, limit.String(), roomForLogs, most.String())
		}
	}
	return ""
}
