// Package bulk takes out of objects what the manager need not keep in memory. What has to be known is only whether it
// has changed: each long text leaves a digest in its place, so that two objects that were stripped differ where they
// differed before. Whoever writes must read the object live first: IsStripped tells.
package bulk

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/resources"
)

const (
	// longest text that is kept as it is: a digest is not much shorter.
	longest = 64
	// mark begins a digest.
	mark = "\x00"
	// annotation of an object that was stripped. Its value is a secret of this process, so that nobody else can set it.
	annotation = "lethe.dev/stripped"
	// maxAnnotations and maxAnnotation are more than ours are, and longer.
	maxAnnotations, maxAnnotation = 16, 1024
	// maxSubjects is more than any binding of ours has.
	maxSubjects = 64
)

// salt is another one in each process. Nobody can write a text that looks like the digest of another.
var salt = rand.Text()

// Text is a text itself when it is short, and otherwise a digest of it. The digest of a digest is the same.
func Text(text string) string {
	if len(text) <= longest && !strings.HasPrefix(text, mark) {
		return text
	}
	if isDigest(text) {
		return text
	}
	return digest(text)
}

func digest(text string) string {
	sum := sha256.Sum256([]byte(salt + text))
	body := base64.RawStdEncoding.EncodeToString(sum[:])
	return mark + check(body) + body
}

// check is what only this process can put in front of a digest.
func check(body string) string {
	sum := sha256.Sum256([]byte(salt + mark + body))
	return base64.RawStdEncoding.EncodeToString(sum[:6])
}

func isDigest(text string) bool {
	const checkLen = 8
	body := strings.TrimPrefix(text, mark)
	return len(body) < len(text) && len(body) > checkLen && body[:checkLen] == check(body[checkLen:])
}

// IsStripped says whether an object has been stripped, so that it must not be written back.
func IsStripped(object metav1.Object) bool {
	return object.GetAnnotations()[annotation] == Text(mark+annotation)
}

// Strip takes out of an object what no reconciler reads. Objects of other kinds lose metadata that is not ours, and
// all but metadata where they are larger than anything of ours.
func Strip(object metav1.Object) {
	stripMetadata(object)
	switch o := object.(type) {
	case *v1alpha1.BotDeployment:
		stripBot(&o.Spec)
	case *v1alpha1.DataStore:
		o.Spec.DropCredentials()
	case *appsv1.StatefulSet:
		stripPod(&o.Spec.Template)
	case *corev1.ConfigMap:
		stripConfigMap(o)
	case *corev1.ServiceAccount:
		o.Secrets, o.ImagePullSecrets = nil, nil
	case *rbacv1.RoleBinding:
		if len(o.Subjects) > maxSubjects {
			o.Subjects = slices.Clone(o.Subjects[:maxSubjects])
		}
	}
	switch object.(type) {
	case *v1alpha1.BotDeployment, *v1alpha1.DataStore, *v1alpha1.DataRetentionPolicy, *v1alpha1.Tenant: // their schemas bound them
	default:
		boundMetadata(object)
		stripHeavy(object)
	}
}

// stripMetadata keeps what reconcilers look at: their own labels and annotations, owners, finalizers. Stores are
// selected by labels of people's own choosing.
func stripMetadata(object metav1.Object) {
	object.SetManagedFields(nil)
	if _, selected := object.(*v1alpha1.DataStore); !selected {
		object.SetLabels(kept(object.GetLabels(), isOurLabel))
	}
	annotations := map[string]string{}
	for _, key := range slices.Sorted(maps.Keys(object.GetAnnotations())) {
		if !strings.HasPrefix(key, "lethe.dev/") || len(annotations) >= maxAnnotations {
			continue
		}
		value := object.GetAnnotations()[key]
		if len(value) > maxAnnotation {
			value = Text(value)
		}
		annotations[strings.Clone(key)] = strings.Clone(value)
	}
	annotations[annotation] = Text(mark + annotation)
	object.SetAnnotations(annotations)
}

func isOurLabel(key string) bool {
	for _, prefix := range []string{"lethe.dev/", "app.kubernetes.io/", "pod-security.kubernetes.io/"} {
		if strings.HasPrefix(key, prefix) {
			return true
		}
	}
	return false
}

func kept(all map[string]string, wanted func(string) bool) map[string]string {
	var some map[string]string
	for key, value := range all {
		if wanted(key) {
			if some == nil {
				some = map[string]string{}
			}
			some[strings.Clone(key)] = strings.Clone(value)
		}
	}
	return some
}

// stripBot leaves digests of what the pod template would hold, so that a template made of them and a stripped
// template are the same. Sealed values only the keyserver reads: that one has changed is known by the generation.
func stripBot(spec *v1alpha1.BotDeploymentSpec) {
	spec.Command, spec.Args = texts(spec.Command, resources.Literal), texts(spec.Args, resources.Literal)
	spec.Env, spec.Probes = variables(spec.Env), probes(spec.Probes)
	files := slices.Clone(spec.Files)
	for i := range files {
		files[i].Content = File(spec, files[i].Content)
	}
	spec.Files = files
	helpers := slices.Clone(spec.Helpers)
	for i := range helpers {
		h := &helpers[i]
		h.Command, h.Args = texts(h.Command, resources.Literal), texts(h.Args, resources.Literal)
		h.Env, h.Probes = variables(h.Env), probes(h.Probes)
	}
	spec.Helpers = helpers
	credentials := append([]v1alpha1.Credential(nil), spec.Credentials...)
	for i := range credentials {
		credentials[i].Sealed = ""
	}
	spec.Credentials = credentials
}

// File is the content of a bot's file, or a digest of what the pod's annotation would hold.
func File(spec *v1alpha1.BotDeploymentSpec, content string) string {
	if text := resources.FileText(spec, content); Text(text) != text {
		return Text(text)
	}
	return content
}

// variables without long values.
func variables(list []v1alpha1.EnvVar) []v1alpha1.EnvVar {
	env := append([]v1alpha1.EnvVar(nil), list...)
	for i := range env {
		if value := resources.Literal(env[i].Value); Text(value) != value {
			env[i].Value = Text(value)
		}
	}
	return env
}

// probes without long commands.
func probes(all *v1alpha1.Probes) *v1alpha1.Probes {
	if all == nil {
		return nil
	}
	out := *all
	for _, p := range []**v1alpha1.Probe{&out.Startup, &out.Liveness, &out.Readiness} {
		if *p != nil && len((*p).Command) > 0 {
			small := **p
			small.Command = texts(small.Command, resources.Literal)
			*p = &small
		}
	}
	return &out
}

func stripPod(template *corev1.PodTemplateSpec) {
	template.ManagedFields = nil
	for key, value := range template.Annotations {
		if strings.HasPrefix(key, v1alpha1.AnnotationFile) {
			template.Annotations[key] = Text(value)
		}
	}
	for _, containers := range [][]corev1.Container{template.Spec.InitContainers, template.Spec.Containers} {
		for i := range containers {
			c := &containers[i]
			c.Command, c.Args = texts(c.Command, same), texts(c.Args, same)
			for j := range c.Env {
				c.Env[j].Value = Text(c.Env[j].Value)
			}
			for _, p := range []*corev1.Probe{c.StartupProbe, c.LivenessProbe, c.ReadinessProbe} {
				if p != nil && p.Exec != nil {
					p.Exec.Command = texts(p.Exec.Command, same)
				}
			}
		}
	}
}

func same(text string) string { return text }

// texts replaces the long ones. As says in what form a text stands in the pod template; short ones stay as they are.
func texts(list []string, as func(string) string) []string {
	var result []string
	for _, text := range list {
		if long := Text(as(text)); long != as(text) {
			text = long
		}
		result = append(result, text)
	}
	return result
}

// stripConfigMap leaves a digest of all that is in it. The keyserver's CA bundle is read by the manager itself.
func stripConfigMap(object *corev1.ConfigMap) {
	const maxBundle = 64 << 10
	_, hasAddresses := object.Data[resources.AddressesKey]
	keys := 2
	if _, differing := object.Data[resources.DifferingKey]; differing {
		keys++
	}
	bundle := len(object.Data[resources.CABundleKey]) + len(object.Data[resources.AddressesKey]) + len(object.Data[resources.DifferingKey])
	if object.Name == resources.CABundleName && len(object.Data) == keys && hasAddresses && len(object.BinaryData) == 0 && bundle <= maxBundle {
		return
	}
	if _, done := object.Data[mark]; done || len(object.Data)+len(object.BinaryData) == 0 {
		return
	}
	content, err := json.Marshal([]any{object.Data, object.BinaryData})
	if err != nil {
		content = fmt.Appendf(nil, "%v %v", object.Data, object.BinaryData) // maps of strings can be marshalled
	}
	object.Data, object.BinaryData = map[string]string{mark: digest(string(content))}, nil
}
