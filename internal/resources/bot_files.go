package resources

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keyapi"
)

// A bot's files travel in annotations of its pod: so they are part of the revision, and of what the keyserver
// compares. unseal fills credentials in; a bot without credentials has its files as the annotations hold them.
const (
	templatesDir = "/var/run/lethe/templates"
	filesDir     = "/var/run/lethe/files"

	volumeTemplates = "file-templates"
	volumeFiles     = "files"
	filesSize       = "2Mi"

	// MaxFile and MaxFiles are bytes of one file, and of all of a bot: a pod has 256 KiB of annotations.
	MaxFile  = 64 << 10
	MaxFiles = 128 << 10
)

// FileError says why a bot's files cannot be had.
type FileError struct{ v1alpha1.Problem }

func (e *FileError) Error() string { return e.Message }

// ConfigMapsOf are the ConfigMaps that a bot's files come from, each once.
func ConfigMapsOf(spec *v1alpha1.BotDeploymentSpec) []string {
	var names []string
	for _, f := range spec.Files {
		if ref := f.ConfigMapKeyRef; ref != nil && !slices.Contains(names, ref.Name) {
			names = append(names, ref.Name)
		}
	}
	slices.Sort(names)
	return names
}

// WithFiles is a bot with the contents of all its files in place. found are the ConfigMaps of ConfigMapsOf that
// exist. An error is a *FileError.
func WithFiles(bot *v1alpha1.BotDeployment, found map[string]*corev1.ConfigMap) (*v1alpha1.BotDeployment, error) {
	if len(bot.Spec.Files) == 0 {
		return bot, nil
	}
	whole := *bot
	whole.Spec.Files = slices.Clone(bot.Spec.Files)
	total := 0
	for i := range whole.Spec.Files {
		file := &whole.Spec.Files[i]
		if ref := file.ConfigMapKeyRef; ref != nil {
			content, err := contentOf(bot, file.Path, ref, found[ref.Name])
			if err != nil {
				return nil, err
			}
			file.Content, file.ConfigMapKeyRef = content, nil
		}
		if err := checkFile(&bot.Spec, file); err != nil {
			return nil, err
		}
		if total += len(file.Content); total > MaxFiles {
			return nil, &FileError{v1alpha1.Problem{Reason: v1alpha1.ReasonFileRefused, Message: fmt.Sprintf("spec.files come to more than %d bytes together: put what is large into the image or a volume.", MaxFiles)}}
		}
	}
	return &whole, nil
}

func contentOf(bot *v1alpha1.BotDeployment, path string, ref *v1alpha1.ConfigMapKeyRef, from *corev1.ConfigMap) (string, error) {
	refuse := func(reason, format string, args ...any) (string, error) {
		return "", &FileError{v1alpha1.Problem{Reason: reason, Message: fmt.Sprintf("spec.files[%s]: ", path) + fmt.Sprintf(format, args...)}}
	}
	if from == nil {
		return refuse(v1alpha1.ReasonFileMissing, "ConfigMap %s does not exist in namespace %s: make it, with the annotation %s: %s.",
			ref.Name, bot.Namespace, v1alpha1.AnnotationFileFor, bot.Name)
	}
	// Before its keys are looked at: which there are is nobody's to find out by way of a bot.
	if from.Labels[v1alpha1.LabelManagedBy] == v1alpha1.ManagedByLethe {
		return refuse(v1alpha1.ReasonFileNotShared, "ConfigMap %s is Lethe's own: name another one.", ref.Name)
	}
	if !IsSharedWith(from.Annotations[v1alpha1.AnnotationFileFor], bot.Name) {
		return refuse(v1alpha1.ReasonFileNotShared, "ConfigMap %s does not say that BotDeployment %s may have what is in it: whoever may write that ConfigMap says so with "+
			"`kubectl annotate configmap -n %s %s %s=%s`.", ref.Name, bot.Name, bot.Namespace, ref.Name, v1alpha1.AnnotationFileFor, bot.Name)
	}
	content, ok := from.Data[ref.Key]
	switch {
	case !ok:
		return refuse(v1alpha1.ReasonFileMissing, "ConfigMap %s has no key %s in its data.", ref.Name, ref.Key)
	case len(content) > MaxFile:
		return refuse(v1alpha1.ReasonFileRefused, "key %s of ConfigMap %s has %d bytes, and a file has at most %d: put what is large into the image or a volume.",
			ref.Key, ref.Name, len(content), MaxFile)
	case strings.Contains(content, "\x00"):
		return refuse(v1alpha1.ReasonFileRefused, "key %s of ConfigMap %s holds the character NUL, and a file is text.", ref.Key, ref.Name)
	}
	return content, nil
}

// checkFile refuses a file that names a credential which the bot does not have. Of what the API server was given it
// has refused that already.
func checkFile(spec *v1alpha1.BotDeploymentSpec, file *v1alpha1.BotFile) error {
	names, err := keyapi.Named(file.Content)
	if err != nil {
		return &FileError{v1alpha1.Problem{Reason: v1alpha1.ReasonFileRefused, Message: fmt.Sprintf("spec.files[%s]: %s.", file.Path, err)}}
	}
	for _, name := range names {
		if !slices.ContainsFunc(spec.Credentials, func(c v1alpha1.Credential) bool { return c.Name == name }) {
			return &FileError{v1alpha1.Problem{Reason: v1alpha1.ReasonFileRefused, Message: fmt.Sprintf("spec.files[%s] names credential %s, which spec.credentials does not have.", file.Path, name)}}
		}
	}
	return nil
}

// IsSharedWith says whether the value of an annotation names a bot, or all bots of its namespace. Who may write bots
// has thereby no Secret and no ConfigMap, and must not come by one that was put there for something else.
func IsSharedWith(value, bot string) bool {
	for name := range strings.SplitSeq(value, ",") {
		if name = strings.TrimSpace(name); name == "*" || name == bot {
			return true
		}
	}
	return false
}

// FileText is a file as the pod's annotation holds it.
func FileText(spec *v1alpha1.BotDeploymentSpec, content string) string {
	if len(spec.Credentials) > 0 {
		return content // unseal goes through it
	}
	return keyapi.Unescape(content)
}

// addFiles puts the files into the pod. It comes after addCredentials.
func addFiles(template *corev1.PodTemplateSpec, spec *v1alpha1.BotDeploymentSpec) {
	if len(spec.Files) == 0 {
		return
	}
	pod := &template.Spec
	source := &corev1.DownwardAPIVolumeSource{DefaultMode: ptr(int32(0o444))}
	for i, file := range spec.Files {
		key := v1alpha1.AnnotationFile + strconv.Itoa(i)
		template.Annotations[key] = FileText(spec, file.Content)
		source.Items = append(source.Items, corev1.DownwardAPIVolumeFile{Path: strconv.Itoa(i),
			FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: fmt.Sprintf("metadata.annotations['%s']", key)}})
		pod.Containers[0].VolumeMounts = append(pod.Containers[0].VolumeMounts, corev1.VolumeMount{
			Name: volumeFiles, MountPath: file.Path, SubPath: strconv.Itoa(i), ReadOnly: true,
		})
	}
	if len(pod.InitContainers) == 0 {
		pod.Volumes = append(pod.Volumes, corev1.Volume{Name: volumeFiles, VolumeSource: corev1.VolumeSource{DownwardAPI: source}})
		return
	}
	pod.Volumes = append(pod.Volumes,
		corev1.Volume{Name: volumeTemplates, VolumeSource: corev1.VolumeSource{DownwardAPI: source}}, memoryVolume(volumeFiles, filesSize))
	unseal := &pod.InitContainers[0]
	unseal.Args = append(unseal.Args, "--templates="+templatesDir, "--files="+filesDir)
	unseal.VolumeMounts = append(unseal.VolumeMounts,
		corev1.VolumeMount{Name: volumeTemplates, MountPath: templatesDir, ReadOnly: true}, corev1.VolumeMount{Name: volumeFiles, MountPath: filesDir})
}
