package podspec

import corev1 "k8s.io/api/core/v1"

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
	case v.DownwardAPI != nil:
		fillPtr(&v.DownwardAPI.DefaultMode, corev1.DownwardAPIVolumeSourceDefaultMode)
		for i := range v.DownwardAPI.Items {
			if ref := v.DownwardAPI.Items[i].FieldRef; ref != nil {
				fill(&ref.APIVersion, "v1")
			}
		}
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
