// Package specs makes up bots that are valid: what an API server takes, and what is then rendered, is tried on many
// of them.
package specs

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

// Random is the spec of a bot, another one for each seed. Each field is set in some of them (TestRandomSetsEveryField).
func Random(seed uint64) v1alpha1.BotDeploymentSpec {
	r := maker{rand.New(rand.NewPCG(seed, 7))}
	spec := v1alpha1.BotDeploymentSpec{
		Image:           pick(r, "bot", "bot:latest", "r.example:5000/a/bot_c:v1", "bot@sha256:"+strings.Repeat("0", 64)),
		ImagePullPolicy: pick(r, "", corev1.PullAlways, corev1.PullIfNotPresent, corev1.PullNever),
		Command:         r.texts(3),
		Args:            r.texts(4),
		OperatingMode:   pick(r, v1alpha1.ModeRunning, v1alpha1.ModeSuspended),
		TimeZone:        pick(r, "", "", "Europe/Berlin", "Etc/UTC", "America/Argentina/Buenos_Aires", "UTC"),
		Rollout:         v1alpha1.BotRollout{TerminationGracePeriodSeconds: r.number(1, 600), ProgressDeadlineSeconds: r.number(10, 3600)},
	}
	for i := range r.IntN(4) {
		spec.Ports = append(spec.Ports, v1alpha1.ContainerPort{Name: fmt.Sprintf("p%d", i), ContainerPort: int32(8080 + i)})
	}
	for i := range r.IntN(4) {
		c := v1alpha1.Credential{Name: fmt.Sprintf("c%d", i), Sealed: "seal.v1.a.b.c.d.e"}
		if r.yes() {
			c.Sealed, c.SecretKeyRef = "", &v1alpha1.SecretKeyRef{Name: "s", Key: "k"}
		}
		if r.yes() {
			c.Delivery, c.EnvName = v1alpha1.DeliveryEnv, fmt.Sprintf("KEY_%d", i)
		}
		spec.Credentials = append(spec.Credentials, c)
	}
	if len(spec.Credentials) > 0 && r.yes() {
		spec.Channels = []v1alpha1.Channel{{Name: "main", Type: v1alpha1.ChannelTelegram,
			Telegram: &v1alpha1.TelegramChannel{Credential: spec.Credentials[0].Name, APIURL: pick(r, "", "https://telegram.example/api")}}}
	}
	spec.Env = r.env(spec.TimeZone)
	spec.Probes = r.probes(spec.Ports)
	spec.Scratch = r.scratch()
	spec.Resources = r.resources(spec.Scratch)
	if r.yes() {
		spec.Storage = &v1alpha1.BotStorage{Size: resource.MustParse("1Gi"), MountPath: pick(r, "/data", "/var/lib/bot", "/home/node/.n8n"), ReclaimPolicy: pick(r, "", "Retain", "Delete")}
		if !slices.ContainsFunc(spec.Scratch, func(s v1alpha1.BotScratch) bool { return s.Path == "/tmp" }) && r.IntN(4) == 0 {
			spec.Storage.MountPath = "/tmp"
		}
	}
	spec.Files = r.files(spec.Credentials)
	spec.Helpers = r.helpers(&spec)
	if r.yes() {
		spec.RestartedAt = metav1.NewTime(time.Unix(r.Int64N(4_000_000_000), 0).UTC())
	}
	if r.yes() {
		spec.Egress = []v1alpha1.EgressRule{{CIDR: pick(r, "8.8.8.8/32", "0.0.0.0/0", "2a00:1450::/32"), Ports: []v1alpha1.EgressPort{{Port: int32(r.number(1, 65535))}}}}
	}
	r.more(&spec)
	return spec
}

// more is drawn last, so that what a seed stands for changes in these fields alone.
func (r maker) more(spec *v1alpha1.BotDeploymentSpec) {
	for i := range r.IntN(3) {
		spec.ImagePullSecrets = append(spec.ImagePullSecrets, v1alpha1.ImagePullSecret{Name: fmt.Sprintf("registry-%d", i)})
	}
	for i := range r.IntN(3) {
		if spec.PodAnnotations == nil {
			spec.PodAnnotations = map[string]string{}
		}
		spec.PodAnnotations[fmt.Sprintf("example.com/a%d", i)] = r.text()
	}
	for i := range spec.Egress {
		for j := range spec.Egress[i].Ports {
			spec.Egress[i].Ports[j].Protocol = pick(r, "", "TCP", "UDP")
		}
	}
	if s := spec.Storage; s != nil {
		if r.yes() {
			class := pick(r, "fast", "slow.example.com")
			s.StorageClassName = &class
		}
		if s.ReclaimPolicy != "Delete" && r.IntN(3) == 0 {
			s.Claim = &v1alpha1.BotClaim{Existing: pick(r, "data", "data.of-before")}
			if r.yes() {
				s.Size = resource.Quantity{}
			}
		}
	}
}

type maker struct{ *rand.Rand }

func pick[T any](r maker, from ...T) T { return from[r.IntN(len(from))] }

func (r maker) yes() bool { return r.IntN(2) == 0 }

func (r maker) number(low, high int64) int64 { return low + r.Int64N(high-low+1) }

// text holds what is expanded somewhere: by Kubernetes, by shells, by unseal.
func (r maker) text() string {
	var b strings.Builder
	for range r.IntN(5) {
		b.WriteString(pick(r, "a", "$", "$(HOME)", "$$(X)", "${HOME}", " ", "\n", "'", `"`, "ü", "$${credential:x}", "-----"))
	}
	return b.String()
}

func (r maker) texts(most int) []string {
	var out []string
	for range r.IntN(most + 1) {
		out = append(out, r.text())
	}
	return out
}

func (r maker) env(timeZone string) []v1alpha1.EnvVar {
	var out []v1alpha1.EnvVar
	for _, name := range []string{"HOME", "TMPDIR", "TZ", "LANG", "PATH", "A"} {
		if r.IntN(4) == 0 && (name != "TZ" || timeZone == "") {
			out = append(out, v1alpha1.EnvVar{Name: name, Value: r.text()})
		}
	}
	return out
}

func (r maker) probes(ports []v1alpha1.ContainerPort) *v1alpha1.Probes {
	if r.yes() {
		return nil
	}
	probe := func() *v1alpha1.Probe {
		if r.yes() {
			return nil
		}
		p := &v1alpha1.Probe{InitialDelaySeconds: int32(r.number(0, 3600)), TimeoutSeconds: int32(r.number(1, 300)), PeriodSeconds: int32(r.number(1, 3600)), FailureThreshold: int32(r.number(1, 60))}
		if r.yes() {
			p.InitialDelaySeconds, p.TimeoutSeconds, p.PeriodSeconds, p.FailureThreshold = 0, 0, 0, 0
		}
		if len(ports) == 0 || r.IntN(3) == 0 {
			p.Type, p.Command = v1alpha1.ProbeExec, append([]string{"/bin/check"}, r.texts(2)...)
			return p
		}
		p.Type, p.Port = pick(r, "", v1alpha1.ProbeHTTP, v1alpha1.ProbeTCP), pick(r, ports...).Name
		if p.Type != v1alpha1.ProbeTCP && r.yes() {
			p.Path = "/ready?a=$(B)"
		}
		return p
	}
	return &v1alpha1.Probes{Startup: probe(), Liveness: probe(), Readiness: probe()}
}

func (r maker) scratch() []v1alpha1.BotScratch {
	var out []v1alpha1.BotScratch
	for _, path := range []string{"/tmp", "/dev/shm", "/cache", "/var/cache/bot"} {
		if r.IntN(3) > 0 {
			continue
		}
		s := v1alpha1.BotScratch{Path: path, Medium: pick(r, "", v1alpha1.ScratchDisk, v1alpha1.ScratchMemory)}
		if s.Medium == v1alpha1.ScratchMemory {
			s.Size = resource.MustParse("8Mi")
		} else if r.yes() {
			s.Size = resource.MustParse(pick(r, "1Mi", "512Mi", "2Gi"))
		}
		out = append(out, s)
	}
	return out
}

func (r maker) resources(scratch []v1alpha1.BotScratch) *v1alpha1.BotResources {
	if r.yes() {
		return nil
	}
	out := &v1alpha1.BotResources{}
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage} {
		low, high := pick(r, "50m", "1"), "4"
		switch name {
		case corev1.ResourceMemory:
			low, high = pick(r, "64Mi", "512Mi"), "1Gi"
		case corev1.ResourceEphemeralStorage:
			low, high = "1Gi", "12Gi"
			if len(scratch) == 0 {
				high = pick(r, "2Gi", "12Gi")
			}
		}
		if r.yes() {
			set(&out.Requests, name, low)
		}
		if r.yes() {
			set(&out.Limits, name, high)
		}
	}
	return out
}

func set(list *corev1.ResourceList, name corev1.ResourceName, quantity string) {
	if *list == nil {
		*list = corev1.ResourceList{}
	}
	(*list)[name] = resource.MustParse(quantity)
}

func (r maker) files(credentials []v1alpha1.Credential) []v1alpha1.BotFile {
	var out []v1alpha1.BotFile
	for _, path := range []string{"/etc/bot/config.yaml", "/app/.env", "/config.json"} {
		if r.yes() {
			continue
		}
		f := v1alpha1.BotFile{Path: path, Content: "a: " + r.text()}
		if len(credentials) > 0 && r.yes() {
			f.Content += "${credential:" + pick(r, credentials...).Name + "}"
		}
		if r.IntN(3) == 0 {
			f.Content, f.ConfigMapKeyRef = "", &v1alpha1.ConfigMapKeyRef{Name: "config", Key: "config.yaml"}
		}
		out = append(out, f)
	}
	return out
}

func (r maker) helpers(spec *v1alpha1.BotDeploymentSpec) []v1alpha1.BotHelper {
	var out []v1alpha1.BotHelper
	for i := range r.IntN(3) {
		h := v1alpha1.BotHelper{Name: fmt.Sprintf("h%d", i), Image: pick(r, "helper", "r.example/helper:v1"), ImagePullPolicy: pick(r, "", corev1.PullAlways),
			Command: r.texts(2), Args: r.texts(2), Env: r.env(spec.TimeZone), Resources: r.resources(nil)}
		if r.yes() {
			h.Ports = []v1alpha1.ContainerPort{{Name: "p", ContainerPort: int32(9090 + i)}}
		}
		h.Probes = r.probes(h.Ports)
		for _, c := range spec.Credentials {
			if r.yes() {
				h.Credentials = append(h.Credentials, c.Name)
			}
		}
		if len(spec.Scratch) > 0 && r.yes() {
			h.Mounts = append(h.Mounts, v1alpha1.MountScratch)
		}
		if spec.Storage != nil && r.yes() {
			h.Mounts = append(h.Mounts, v1alpha1.MountStorage)
		}
		out = append(out, h)
	}
	return out
}
