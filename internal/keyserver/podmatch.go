package keyserver

import (
	"fmt"
	"reflect"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

// MatchPod says whether a live pod is the one that a template describes. It compares every field of the pod's
// specification, fields that later versions of Kubernetes add included, except those that the API server, admission and the
// scheduler set by themselves and that cannot make the pod show its credentials to anybody: see tolerate. The error
// names the field, never what is in it.
//
// A webhook that adds containers, volumes or variables to the pods of a tenant therefore keeps its bots from starting.
// That is meant: what it adds could read the credentials.
func MatchPod(want corev1.PodTemplateSpec, pod *corev1.Pod) error {
	for key, value := range want.Labels {
		if pod.Labels[key] != value {
			return fmt.Errorf("metadata.labels[%s] differs", key)
		}
	}
	if pod.Annotations[v1alpha1.AnnotationCredentials] != want.Annotations[v1alpha1.AnnotationCredentials] {
		return fmt.Errorf("metadata.annotations[%s] differs", v1alpha1.AnnotationCredentials)
	}
	expected, actual := want.Spec.DeepCopy(), pod.Spec.DeepCopy()
	tolerate(expected, actual, pod.Name)
	for _, spec := range []*corev1.PodSpec{expected, actual} {
		fillPod(spec)
	}
	return differs("spec", reflect.ValueOf(*expected), reflect.ValueOf(*actual))
}

// differs names the first field in which two structs are not the same, going into lists of structs.
func differs(path string, want, got reflect.Value) error {
	for i := range want.NumField() {
		name, _, _ := strings.Cut(want.Type().Field(i).Tag.Get("json"), ",")
		w, g := want.Field(i), got.Field(i)
		if apiequality.Semantic.DeepEqual(w.Interface(), g.Interface()) {
			continue
		}
		field := path + "." + name
		if w.Kind() == reflect.Slice && w.Type().Elem().Kind() == reflect.Struct && w.Len() == g.Len() && strings.HasSuffix(strings.ToLower(name), "containers") {
			for j := range w.Len() {
				if err := differs(fmt.Sprintf("%s[%d]", field, j), w.Index(j), g.Index(j)); err != nil {
					return err
				}
			}
		}
		return fmt.Errorf("%s differs", field)
	}
	return nil
}

// tolerate takes over into expected what others than the manager may set. None of it lets anything read the pod's memory
// that could not before: where the pod runs, how urgent it is, what it may use, and where its images are fetched.
func tolerate(expected, actual *corev1.PodSpec, podName string) {
	expected.NodeName = actual.NodeName                 // the scheduler
	expected.Tolerations = actual.Tolerations           // admission adds some for nodes that are not ready
	expected.Priority = actual.Priority                 // admission, from the class
	expected.PreemptionPolicy = actual.PreemptionPolicy // the same
	expected.Overhead = actual.Overhead                 // admission, from the RuntimeClass, whose name is compared
	expected.ImagePullSecrets = actual.ImagePullSecrets // admission, from the ServiceAccount
	expected.Subdomain = actual.Subdomain               // the StatefulSet
	if expected.PriorityClassName == "" {
		expected.PriorityClassName = actual.PriorityClassName // admission, from the cluster's default class
	}
	if actual.Hostname == podName {
		expected.Hostname = podName // the StatefulSet
	}
	addClaims(expected, actual, podName)
	containers(expected.InitContainers, actual.InitContainers)
	containers(expected.Containers, actual.Containers)
}

// addClaims takes over the volumes that a StatefulSet makes of its claim templates: those that a container of the template
// mounts by name and that hold the claim of this very pod.
func addClaims(expected, actual *corev1.PodSpec, podName string) {
	has := map[string]bool{}
	for _, v := range expected.Volumes {
		has[v.Name] = true
	}
	mounted := map[string]bool{}
	for _, c := range expected.Containers {
		for _, m := range c.VolumeMounts {
			mounted[m.Name] = true
		}
	}
	var claims []corev1.Volume
	for _, v := range actual.Volumes {
		if has[v.Name] || !mounted[v.Name] || v.PersistentVolumeClaim == nil || v.PersistentVolumeClaim.ClaimName != v.Name+"-"+podName {
			continue
		}
		claims = append(claims, v)
	}
	// The StatefulSet puts them in front.
	expected.Volumes = append(claims, expected.Volumes...)
}

func containers(expected, actual []corev1.Container) {
	for i := range min(len(expected), len(actual)) {
		e, a := &expected[i], &actual[i]
		// Limits come from the LimitRange where there are none, and may be resized in place.
		e.Resources, e.ResizePolicy = a.Resources, a.ResizePolicy
		if a.ImagePullPolicy == corev1.PullAlways || e.ImagePullPolicy == "" {
			e.ImagePullPolicy = a.ImagePullPolicy // the admission plugin AlwaysPullImages
		}
	}
}

// fillPod sets what the API server fills in where a pod says nothing.
func fillPod(spec *corev1.PodSpec) {
	fill(&spec.RestartPolicy, corev1.RestartPolicyAlways)
	fill(&spec.DNSPolicy, corev1.DNSClusterFirst)
	fill(&spec.SchedulerName, corev1.DefaultSchedulerName)
	fill(&spec.DeprecatedServiceAccount, spec.ServiceAccountName)
	fillPtr(&spec.TerminationGracePeriodSeconds, corev1.DefaultTerminationGracePeriodSeconds)
	fillPtr(&spec.EnableServiceLinks, true)
	fillPtr(&spec.SecurityContext, corev1.PodSecurityContext{})
	for i := range spec.Volumes {
		fillVolume(&spec.Volumes[i])
	}
	for _, list := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for i := range list {
			fillContainer(&list[i])
		}
	}
}

func fillContainer(c *corev1.Container) {
	fill(&c.TerminationMessagePath, corev1.TerminationMessagePathDefault)
	fill(&c.TerminationMessagePolicy, corev1.TerminationMessageReadFile)
	for i := range c.Ports {
		fill(&c.Ports[i].Protocol, corev1.ProtocolTCP)
	}
	for _, p := range []*corev1.Probe{c.StartupProbe, c.LivenessProbe, c.ReadinessProbe} {
		if p == nil {
			continue
		}
		fill(&p.TimeoutSeconds, 1)
		fill(&p.PeriodSeconds, 10)
		fill(&p.SuccessThreshold, 1)
		fill(&p.FailureThreshold, 3)
		if p.HTTPGet != nil {
			fill(&p.HTTPGet.Scheme, corev1.URISchemeHTTP)
			fill(&p.HTTPGet.Path, "/")
		}
	}
	if sc := c.SecurityContext; sc != nil && sc.ProcMount != nil && *sc.ProcMount == corev1.DefaultProcMount {
		sc.ProcMount = nil
	}
	for i := range c.Env {
		if from := c.Env[i].ValueFrom; from != nil && from.FileKeyRef != nil {
			fillPtr(&from.FileKeyRef.Optional, false)
		}
	}
}

func fillVolume(v *corev1.Volume) {
	switch {
	case v.ConfigMap != nil:
		fillPtr(&v.ConfigMap.DefaultMode, corev1.ConfigMapVolumeSourceDefaultMode)
	case v.Projected != nil:
		fillPtr(&v.Projected.DefaultMode, corev1.ProjectedVolumeSourceDefaultMode)
		for i := range v.Projected.Sources {
			if t := v.Projected.Sources[i].ServiceAccountToken; t != nil {
				fillPtr(&t.ExpirationSeconds, 3600)
			}
		}
	}
}

func fill[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

func fillPtr[T any](field **T, value T) {
	if *field == nil {
		*field = &value
	}
}
