package podspec

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
)

func yes() *bool { v := true; return &v }
func no() *bool  { v := false; return &v }

// template is one of the shape that the builders make.
func template() corev1.PodTemplateSpec {
	user := int64(1000000000)
	return corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"lethe.dev/bot": "b"}, Annotations: map[string]string{"lethe.dev/credentials": "b-cred-0"}},
		Spec: corev1.PodSpec{
			ServiceAccountName: "b-bot", AutomountServiceAccountToken: no(), EnableServiceLinks: no(), NodeSelector: map[string]string{"region": "eu"},
			SecurityContext: &corev1.PodSecurityContext{RunAsUser: &user, RunAsNonRoot: yes(), SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}},
			InitContainers: []corev1.Container{{Name: "unseal", Image: "lethe:1", Command: []string{"/unseal"}, ImagePullPolicy: corev1.PullIfNotPresent,
				SecurityContext: &corev1.SecurityContext{AllowPrivilegeEscalation: no()}}},
			Containers: []corev1.Container{{Name: "bot", Image: "bot:1", ImagePullPolicy: corev1.PullIfNotPresent, Env: []corev1.EnvVar{{Name: "A", Value: "b"}},
				VolumeMounts:    []corev1.VolumeMount{{Name: "tmp", MountPath: "/tmp"}},
				SecurityContext: &corev1.SecurityContext{AllowPrivilegeEscalation: no()}}},
			Volumes: []corev1.Volume{{Name: "tmp", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory}}}},
		},
	}
}

func podOf(t corev1.PodTemplateSpec) *corev1.Pod {
	pod := &corev1.Pod{ObjectMeta: *t.ObjectMeta.DeepCopy(), Spec: *t.Spec.DeepCopy()}
	pod.Name = "b-bot-0"
	return pod
}

// TestWhatNarrows goes through what clusters really do to pods, and the wider form of each beside it.
func TestWhatNarrows(t *testing.T) {
	pod := func(change func(*corev1.Pod)) *corev1.Pod {
		p := podOf(template())
		change(p)
		return p
	}
	for name, tc := range map[string]struct {
		pod     *corev1.Pod
		refused string // the field; empty when the pod is taken
	}{
		"as rendered":                   {pod: pod(func(*corev1.Pod) {})},
		"scheduled":                     {pod: pod(func(p *corev1.Pod) { p.Spec.NodeName = "node-1" })},
		"the namespace's node selector": {pod: pod(func(p *corev1.Pod) { p.Spec.NodeSelector["pool"] = "bots" })},
		"our node selector changed":     {pod: pod(func(p *corev1.Pod) { p.Spec.NodeSelector["region"] = "us" }), refused: "spec.nodeSelector"},
		"our node selector taken away":  {pod: pod(func(p *corev1.Pod) { p.Spec.NodeSelector = nil }), refused: "spec.nodeSelector"},
		"ndots": {pod: pod(func(p *corev1.Pod) {
			p.Spec.DNSConfig = &corev1.PodDNSConfig{Options: []corev1.PodDNSConfigOption{{Name: "ndots"}}}
		})},
		"a name server": {pod: pod(func(p *corev1.Pod) { p.Spec.DNSConfig = &corev1.PodDNSConfig{Nameservers: []string{"203.0.113.9"}} }), refused: "spec.dnsConfig"},
		"a search path": {pod: pod(func(p *corev1.Pod) { p.Spec.DNSConfig = &corev1.PodDNSConfig{Searches: []string{"evil.example"}} }), refused: "spec.dnsConfig"},
		"a level of SELinux": {pod: pod(func(p *corev1.Pod) {
			p.Spec.SecurityContext.SELinuxOptions = &corev1.SELinuxOptions{Level: "s0:c26,c5"}
		})},
		"a type of SELinux": {pod: pod(func(p *corev1.Pod) {
			p.Spec.SecurityContext.SELinuxOptions = &corev1.SELinuxOptions{Level: "s0", Type: "spc_t"}
		}), refused: "spec.securityContext.seLinuxOptions"},
		"a container's level of SELinux": {pod: pod(func(p *corev1.Pod) {
			p.Spec.Containers[0].SecurityContext.SELinuxOptions = &corev1.SELinuxOptions{Level: "s0:c1"}
		})},
		"a container's type of SELinux": {pod: pod(func(p *corev1.Pod) {
			p.Spec.Containers[0].SecurityContext.SELinuxOptions = &corev1.SELinuxOptions{Type: "spc_t"}
		}), refused: "spec.containers[0].securityContext.seLinuxOptions"},
		"AppArmor's default": {pod: pod(func(p *corev1.Pod) {
			p.Spec.SecurityContext.AppArmorProfile = &corev1.AppArmorProfile{Type: corev1.AppArmorProfileTypeRuntimeDefault}
		})},
		"no AppArmor": {pod: pod(func(p *corev1.Pod) {
			p.Spec.SecurityContext.AppArmorProfile = &corev1.AppArmorProfile{Type: corev1.AppArmorProfileTypeUnconfined}
		}), refused: "spec.securityContext.appArmorProfile"},
		"a user namespace of its own":       {pod: pod(func(p *corev1.Pod) { p.Spec.HostUsers = no() })},
		"the host's user namespace":         {pod: pod(func(p *corev1.Pod) { p.Spec.HostUsers = yes() }), refused: "spec.hostUsers"},
		"no seccomp":                        {pod: pod(func(p *corev1.Pod) { p.Spec.SecurityContext.SeccompProfile.Type = corev1.SeccompProfileTypeUnconfined }), refused: "spec.securityContext.seccompProfile.type"},
		"another user":                      {pod: pod(func(p *corev1.Pod) { *p.Spec.SecurityContext.RunAsUser = 0 }), refused: "spec.securityContext.runAsUser"},
		"tolerations for a node that ended": {pod: pod(func(p *corev1.Pod) { p.Spec.Tolerations = []corev1.Toleration{{Operator: corev1.TolerationOpExists}} })},
		"the LimitRange's limits": {pod: pod(func(p *corev1.Pod) {
			p.Spec.Containers[0].Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("1Gi")}
		})},
		"a device": {pod: pod(func(p *corev1.Pod) {
			p.Spec.Containers[0].Resources.Limits = corev1.ResourceList{"example.com/gpu": resource.MustParse("1")}
		}), refused: "spec.containers[0].resources.limits"},
		"a resource claim": {pod: pod(func(p *corev1.Pod) { p.Spec.Containers[0].Resources.Claims = []corev1.ResourceClaim{{Name: "gpu"}} }), refused: "spec.containers[0].resources.claims"},
		"a variable": {pod: pod(func(p *corev1.Pod) {
			p.Spec.Containers[0].Env = append(p.Spec.Containers[0].Env, corev1.EnvVar{Name: "LD_PRELOAD", Value: "/x"})
		}), refused: "spec.containers[0].env"},
		"the value of a variable": {pod: pod(func(p *corev1.Pod) { p.Spec.Containers[0].Env[0].Value = "evil" }), refused: "spec.containers[0].env[0].value"},
		"a host alias": {pod: pod(func(p *corev1.Pod) {
			p.Spec.HostAliases = []corev1.HostAlias{{IP: "203.0.113.9", Hostnames: []string{"api.telegram.org"}}}
		}), refused: "spec.hostAliases"},
		"a projected certificate": {pod: pod(func(p *corev1.Pod) {
			p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: "cert", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
				Sources: []corev1.VolumeProjection{{PodCertificate: &corev1.PodCertificateProjection{SignerName: "evil.example/signer", KeyType: "ED25519"}}}}}})
		}), refused: "spec.volumes"},
		"a bundle of certificates in place of a volume": {pod: pod(func(p *corev1.Pod) {
			p.Spec.Volumes[0].VolumeSource = corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
				Sources: []corev1.VolumeProjection{{ClusterTrustBundle: &corev1.ClusterTrustBundleProjection{Path: "ca.crt"}}}}}
		}), refused: "spec.volumes[0].emptyDir"},
		"another runtime":   {pod: pod(func(p *corev1.Pod) { name := "weaker"; p.Spec.RuntimeClassName = &name }), refused: "spec.runtimeClassName"},
		"a scheduling gate": {pod: pod(func(p *corev1.Pod) { p.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "x"}} }), refused: "spec.schedulingGates"},
		"what the LimitRanger notes down": {pod: pod(func(p *corev1.Pod) {
			p.Annotations["kubernetes.io/limit-ranger"] = "LimitRanger plugin set: cpu"
		})},
		"what Calico notes down":    {pod: pod(func(p *corev1.Pod) { p.Annotations["cni.projectcalico.org/podIP"] = "10.1.2.3/32" })},
		"another network by Multus": {pod: pod(func(p *corev1.Pod) { p.Annotations["k8s.v1.cni.cncf.io/networks"] = "host-lan" }), refused: "metadata.annotations[k8s.v1.cni.cncf.io/networks]"},
		"a device by CDI":           {pod: pod(func(p *corev1.Pod) { p.Annotations["cdi.k8s.io/gpu"] = "vendor.com/gpu=0" }), refused: "metadata.annotations[cdi.k8s.io/gpu]"},
		"AppArmor by annotation": {pod: pod(func(p *corev1.Pod) {
			p.Annotations["container.apparmor.security.beta.kubernetes.io/bot"] = "unconfined"
		}), refused: "metadata.annotations[container.apparmor.security.beta.kubernetes.io/bot]"},
		"a runtime's own annotation":    {pod: pod(func(p *corev1.Pod) { p.Annotations["io.kubernetes.cri-o.userns-mode"] = "auto" }), refused: "metadata.annotations[io.kubernetes.cri-o.userns-mode]"},
		"an annotation by the settings": {pod: pod(func(p *corev1.Pod) { p.Annotations["prometheus.io/scrape"] = "true" })},
		"one with a foreign name":       {pod: pod(func(p *corev1.Pod) { p.Annotations["x\x1b[31m\n"] = "" }), refused: "metadata.annotations[x?[31m?]"},
		"other credentials":             {pod: pod(func(p *corev1.Pod) { p.Annotations["lethe.dev/credentials"] = "b-cred-1" }), refused: "metadata.annotations[lethe.dev/credentials]"},
		"another annotation of ours":    {pod: pod(func(p *corev1.Pod) { p.Annotations["lethe.dev/other"] = "x" }), refused: "metadata.annotations[lethe.dev/other]"},
		"another label of ours":         {pod: pod(func(p *corev1.Pod) { p.Labels["lethe.dev/store"] = "s" }), refused: "metadata.labels[lethe.dev/store]"},
		"the StatefulSet's label":       {pod: pod(func(p *corev1.Pod) { p.Labels["apps.kubernetes.io/pod-index"] = "0" })},
		"our label taken away":          {pod: pod(func(p *corev1.Pod) { delete(p.Labels, "lethe.dev/bot") }), refused: "metadata.labels[lethe.dev/bot]"},
	} {
		t.Run(name, func(t *testing.T) {
			err := Match(template(), tc.pod, []string{"prometheus.io/*"})
			switch {
			case tc.refused == "" && err != nil:
				t.Errorf("refused: %v", err)
			case tc.refused != "" && (err == nil || !strings.HasPrefix(err.Error(), tc.refused+" ")):
				t.Errorf("got %v, want %s named", err, tc.refused)
			}
			if err != nil && strings.Contains(err.Error(), "evil") {
				t.Errorf("the error repeats a value: %v", err)
			}
		})
	}
}

// TestOnlyTheListNarrows puts something into every field of a pod's specification, and of a template's, that has a
// type, at any depth, and holds what is taken against the list.
func TestOnlyTheListNarrows(t *testing.T) {
	base := podOf(template())
	fillPod(&base.Spec)
	taken := map[string]bool{}
	tried := 0
	for _, path := range paths(reflect.TypeFor[corev1.PodSpec](), "spec", 0) {
		pod := base.DeepCopy()
		if !disturb(reflect.ValueOf(&pod.Spec).Elem(), strings.Split(path, ".")[1:]) {
			continue
		}
		tried++
		isTaken := Match(template(), pod, nil) == nil
		if isTaken {
			taken[inJSON(path)] = true
		}
		// A template may differ by less than a pod.
		if MatchTemplate(template(), corev1.PodTemplateSpec{ObjectMeta: pod.ObjectMeta, Spec: pod.Spec}, nil) == nil && (!isTaken || ofPodsOnly[inJSON(path)]) {
			t.Errorf("%s may differ in a template", path)
		}
	}
	if tried < 500 {
		t.Fatalf("only %d fields were tried", tried)
	}
	allowed := []string{
		"spec.nodeName", "spec.tolerations", "spec.affinity", "spec.topologySpreadConstraints", "spec.priority", "spec.preemptionPolicy",
		"spec.priorityClassName", "spec.overhead", "spec.imagePullSecrets", "spec.subdomain", "spec.dnsConfig.options",
		"spec.nodeSelector", "spec.securityContext.seLinuxOptions.level",
		"spec.containers[].securityContext.seLinuxOptions.level", "spec.initContainers[].securityContext.seLinuxOptions.level",
		"spec.containers[].resizePolicy", "spec.initContainers[].resizePolicy",
	}
	for path := range taken {
		if !slices.ContainsFunc(allowed, func(a string) bool {
			return path == a || strings.HasPrefix(path, a+".") || strings.HasPrefix(path, a+"[]")
		}) {
			t.Errorf("%s may differ, and is not on the list", path)
		}
	}
	for _, path := range []string{"spec.nodeName", "spec.tolerations", "spec.affinity", "spec.dnsConfig.options"} {
		if !slices.ContainsFunc(sorted(taken), func(p string) bool { return strings.HasPrefix(p, path) }) {
			t.Errorf("%s was not tried, or is refused", path)
		}
	}
}

func sorted(set map[string]bool) []string {
	var out []string
	for k := range set {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// paths are all fields below a type; elements of lists are written name[].
func paths(typ reflect.Type, prefix string, depth int) []string {
	switch typ.Kind() {
	case reflect.Pointer:
		return paths(typ.Elem(), prefix, depth)
	case reflect.Slice:
		if typ.Elem().Kind() == reflect.Struct {
			return append([]string{prefix}, paths(typ.Elem(), prefix+"[]", depth+1)...)
		}
	case reflect.Struct:
		if depth > 7 || typ == reflect.TypeFor[resource.Quantity]() || typ == reflect.TypeFor[metav1.LabelSelector]() {
			return []string{prefix}
		}
		var out []string
		for i := range typ.NumField() {
			f := typ.Field(i)
			if !f.IsExported() {
				continue
			}
			out = append(out, paths(f.Type, prefix+"."+f.Name, depth+1)...)
		}
		return out
	}
	return []string{prefix}
}

// inJSON writes a path as manifests do.
func inJSON(path string) string {
	parts := strings.Split(path, ".")
	for i, part := range parts {
		parts[i] = strings.ToLower(part[:1]) + part[1:]
	}
	return strings.NewReplacer("sELinux", "seLinux", "dNSConfig", "dnsConfig").Replace(strings.Join(parts, "."))
}

// disturb changes what lies at a path, and says whether there was a way to.
func disturb(v reflect.Value, path []string) bool {
	for v.Kind() == reflect.Pointer {
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		v = v.Elem()
	}
	if len(path) == 0 {
		return change(v)
	}
	name, list := strings.CutSuffix(path[0], "[]")
	f := v.FieldByName(name)
	if !list {
		return disturb(f, path[1:])
	}
	for f.Kind() == reflect.Pointer {
		if f.IsNil() {
			f.Set(reflect.New(f.Type().Elem()))
		}
		f = f.Elem()
	}
	if f.Len() == 0 {
		f.Set(reflect.Append(f, reflect.Zero(f.Type().Elem())))
	}
	return disturb(f.Index(0), path[1:])
}

func change(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.String:
		v.SetString(v.String() + "x")
	case reflect.Bool:
		v.SetBool(!v.Bool())
	case reflect.Int, reflect.Int32, reflect.Int64:
		v.SetInt(v.Int() + 7)
	case reflect.Slice:
		v.Set(reflect.Append(v, reflect.Zero(v.Type().Elem())))
	case reflect.Map:
		m := reflect.MakeMap(v.Type())
		m.SetMapIndex(reflect.ValueOf("x").Convert(v.Type().Key()), reflect.Zero(v.Type().Elem()))
		v.Set(m)
	case reflect.Struct:
		q, ok := v.Addr().Interface().(*resource.Quantity)
		if !ok {
			return false
		}
		q.Add(resource.MustParse("7"))
	default:
		return false
	}
	return true
}

// TestWhatNarrowsATemplate: admission changes the templates of workloads by the same rules as pods, and what makes a
// pod another one is refused there, too.
func TestWhatNarrowsATemplate(t *testing.T) {
	for name, tc := range map[string]struct {
		change  func(*corev1.PodTemplateSpec)
		refused string
	}{
		"as rendered":                  {change: func(*corev1.PodTemplateSpec) {}},
		"what the API server fills in": {change: func(p *corev1.PodTemplateSpec) { fillPod(&p.Spec) }},
		"what the Job controller fills in": {change: func(p *corev1.PodTemplateSpec) {
			for _, label := range []string{"batch.kubernetes.io/controller-uid", "batch.kubernetes.io/job-name", "controller-uid", "job-name"} {
				p.Labels[label] = "x"
			}
		}},
		"a label of the cluster's":      {change: func(p *corev1.PodTemplateSpec) { p.Labels["team"] = "x" }},
		"what Kyverno notes down":       {change: func(p *corev1.PodTemplateSpec) { p.Annotations["policies.kyverno.io/last-applied-patches"] = "x" }},
		"an annotation by the settings": {change: func(p *corev1.PodTemplateSpec) { p.Annotations["prometheus.io/scrape"] = "true" }},
		"ndots": {change: func(p *corev1.PodTemplateSpec) {
			p.Spec.DNSConfig = &corev1.PodDNSConfig{Options: []corev1.PodDNSConfigOption{{Name: "ndots"}}}
		}},
		"a node selector": {change: func(p *corev1.PodTemplateSpec) { p.Spec.NodeSelector["pool"] = "x" }},
		"a toleration": {change: func(p *corev1.PodTemplateSpec) {
			p.Spec.Tolerations = []corev1.Toleration{{Operator: corev1.TolerationOpExists}}
		}},
		"Autopilot's resources": {change: func(p *corev1.PodTemplateSpec) {
			p.Spec.InitContainers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceEphemeralStorage: resource.MustParse("1Gi")}
			p.Spec.Containers[0].Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("1Gi")}
		}},
		"a user namespace of its own": {change: func(p *corev1.PodTemplateSpec) { p.Spec.HostUsers = no() }},
		"AlwaysPullImages":            {change: func(p *corev1.PodTemplateSpec) { p.Spec.Containers[0].ImagePullPolicy = corev1.PullAlways }},
		"a pull secret": {change: func(p *corev1.PodTemplateSpec) {
			p.Spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "mirror"}}
		}},

		"our label taken away":  {func(p *corev1.PodTemplateSpec) { delete(p.Labels, "lethe.dev/bot") }, "metadata.labels[lethe.dev/bot]"},
		"another label of ours": {func(p *corev1.PodTemplateSpec) { p.Labels["lethe.dev/store"] = "x" }, "metadata.labels[lethe.dev/store]"},
		"a restart by kubectl":  {func(p *corev1.PodTemplateSpec) { p.Annotations["kubectl.kubernetes.io/restartedAt"] = "now" }, "metadata.annotations[kubectl.kubernetes.io/restartedAt]"},
		"another network":       {func(p *corev1.PodTemplateSpec) { p.Annotations["k8s.v1.cni.cncf.io/networks"] = "evil" }, "metadata.annotations[k8s.v1.cni.cncf.io/networks]"},
		"other credentials":     {func(p *corev1.PodTemplateSpec) { p.Annotations["lethe.dev/credentials"] = "evil" }, "metadata.annotations[lethe.dev/credentials]"},
		"no credentials":        {func(p *corev1.PodTemplateSpec) { delete(p.Annotations, "lethe.dev/credentials") }, "metadata.annotations[lethe.dev/credentials]"},
		"another image":         {func(p *corev1.PodTemplateSpec) { p.Spec.Containers[0].Image = "evil:1" }, "spec.containers[0].image"},
		"a sidecar": {func(p *corev1.PodTemplateSpec) {
			p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "evil"})
		}, "spec.containers"},
		"no helper": {func(p *corev1.PodTemplateSpec) { p.Spec.InitContainers = nil }, "spec.initContainers"},
		"a name server": {func(p *corev1.PodTemplateSpec) {
			p.Spec.DNSConfig = &corev1.PodDNSConfig{Nameservers: []string{"203.0.113.9"}}
		}, "spec.dnsConfig"},
		"a device": {func(p *corev1.PodTemplateSpec) {
			p.Spec.Containers[0].Resources.Limits = corev1.ResourceList{"example.com/gpu": resource.MustParse("1")}
		}, "spec.containers[0].resources.limits"},
		"our node selector changed":  {func(p *corev1.PodTemplateSpec) { p.Spec.NodeSelector["region"] = "us" }, "spec.nodeSelector"},
		"a node past the scheduler":  {func(p *corev1.PodTemplateSpec) { p.Spec.NodeName = "node-1" }, "spec.nodeName"},
		"a name of the host's":       {func(p *corev1.PodTemplateSpec) { p.Spec.Hostname = "x" }, "spec.hostname"},
		"a domain":                   {func(p *corev1.PodTemplateSpec) { p.Spec.Subdomain = "x" }, "spec.subdomain"},
		"a priority without a class": {func(p *corev1.PodTemplateSpec) { v := int32(7); p.Spec.Priority = &v }, "spec.priority"},
		"an overhead without a class": {func(p *corev1.PodTemplateSpec) {
			p.Spec.Overhead = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1")}
		}, "spec.overhead"},
	} {
		t.Run(name, func(t *testing.T) {
			live := template()
			tc.change(&live)
			err := MatchTemplate(template(), live, []string{"prometheus.io/*"})
			switch {
			case tc.refused == "" && err != nil:
				t.Errorf("refused: %v", err)
			case tc.refused != "" && (err == nil || !strings.HasPrefix(err.Error(), "template."+tc.refused+" ")):
				t.Errorf("got %v, want %s named", err, tc.refused)
			case err != nil && strings.Contains(err.Error(), "evil"):
				t.Errorf("the error repeats a value: %v", err)
			case err == nil:
				if err := Match(template(), podOf(live), []string{"prometheus.io/*"}); err != nil {
					t.Errorf("the template is taken, and its pod is not: %v", err)
				}
			}
		})
	}
}

// TestFieldsOfANewerServer: a field that this program has no type for would vanish when the pod is read.
func TestFieldsOfANewerServer(t *testing.T) {
	object := func(kind string, change func(map[string]any)) *unstructured.Unstructured {
		content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(podOf(template()))
		if err != nil {
			t.Fatal(err)
		}
		if kind != "Pod" {
			delete(content, "status")
			content = map[string]any{"spec": map[string]any{"template": content}}
		}
		change(content)
		u := &unstructured.Unstructured{Object: content}
		u.SetKind(kind)
		return u
	}
	readers := map[string]func(*unstructured.Unstructured) error{
		"Pod":         func(u *unstructured.Unstructured) error { _, err := Read(u); return err },
		"StatefulSet": func(u *unstructured.Unstructured) error { _, err := ReadStatefulSet(u); return err },
		"Job":         func(u *unstructured.Unstructured) error { _, err := ReadJob(u); return err },
	}
	for kind, read := range readers {
		prefix := []string{"spec"}
		if kind != "Pod" {
			prefix = []string{"spec", "template", "spec"}
		}
		if err := read(object(kind, func(map[string]any) {})); err != nil {
			t.Errorf("%s: a known one is refused: %v", kind, err)
		}
		if err := read(object(kind, func(o map[string]any) { o["status"] = map[string]any{"newField": "x"} })); err != nil {
			t.Errorf("%s: a new field of the status is refused: %v", kind, err)
		}
		for _, field := range [][]string{{"shareEverything"}, {"securityContext", "unconfined"}} {
			err := read(object(kind, func(o map[string]any) {
				if err := unstructured.SetNestedField(o, "evil", append(slices.Clone(prefix), field...)...); err != nil {
					t.Fatal(err)
				}
			}))
			want := strings.Join(append(slices.Clone(prefix), field...), ".")
			if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "evil") {
				t.Errorf("%s: got %v, want %s named", kind, err, want)
			}
		}
		err := read(object(kind, func(o map[string]any) {
			containers, _, err := unstructured.NestedSlice(o, append(slices.Clone(prefix), "containers")...)
			if err != nil {
				t.Fatal(err)
			}
			containers[0].(map[string]any)["newField"] = "evil"
			if err := unstructured.SetNestedSlice(o, containers, append(slices.Clone(prefix), "containers")...); err != nil {
				t.Fatal(err)
			}
		}))
		if err == nil || !strings.Contains(err.Error(), "containers[0].newField") {
			t.Errorf("%s: got %v, want the container's field named", kind, err)
		}
	}
}

// TestTheListIsDocumented: the page shows the same fields and annotations as the code.
func TestTheListIsDocumented(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "design", "0014-the-live-pod.md"))
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\|").FindAllStringSubmatch(string(page), -1) {
		rows[m[1]] = true
	}
	var want []string
	for _, rule := range Narrowing {
		want = append(want, rule.Field)
	}
	for key := range Annotations {
		want = append(want, key)
	}
	for _, entry := range want {
		if !rows[entry] {
			t.Errorf("%s is not on the page", entry)
		}
		delete(rows, entry)
	}
	for entry := range rows {
		t.Errorf("the page lets %s differ, the code does not", entry)
	}
}

// TestTheWallsKnowTheNotes: what may stand on a pod, the manager may be seen to write, since admission puts it there.
// Both walls go by the same lists.
func TestTheWallsKnowTheNotes(t *testing.T) {
	list := func(file, name string) []string {
		content, err := os.ReadFile(filepath.Join("..", "..", "config", "admission", file))
		if err != nil {
			t.Fatal(err)
		}
		found := regexp.MustCompile(`(?s)- name: ` + name + `\n\s+expression: >-\n\s+\[(.*?)\]`).FindSubmatch(content)
		if found == nil {
			t.Fatalf("%s has no list %s", file, name)
		}
		var out []string
		for _, entry := range strings.Split(string(found[1]), ",") {
			out = append(out, strings.Trim(strings.TrimSpace(entry), "'"))
		}
		slices.Sort(out)
		return out
	}
	for _, name := range []string{"domains", "alone", "notes"} {
		if a, b := list("manager.yaml", name), list("manager-objects.yaml", name); !slices.Equal(a, b) {
			t.Errorf("%s: %v of namespaces, %v of objects", name, a, b)
		}
	}
	if want := slices.Sorted(maps.Keys(Annotations)); !slices.Equal(list("manager-objects.yaml", "notes"), want) {
		t.Errorf("the walls know %v, pods may carry %v", list("manager-objects.yaml", "notes"), want)
	}
}

func ExampleMatch() {
	pod := podOf(template())
	pod.Spec.HostNetwork = true
	fmt.Println(Match(template(), pod, nil))
	// Output: spec.hostNetwork differs
}
