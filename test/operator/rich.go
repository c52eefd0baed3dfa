package operator

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

// RichTenant uses every field but those that TestRichUsesEveryField names.
func RichTenant(name string, namespaces ...string) *v1alpha1.Tenant {
	tenant := MakeTenant(name, namespaces...)
	pods, bots, stores := int32(7), int32(300), int32(7)
	tenant.Spec.Class = v1alpha1.TenantCustomer
	tenant.Spec.State = v1alpha1.TenantActive
	tenant.Spec.ExternalIDs = []v1alpha1.ExternalID{{Type: "AccountID", Value: name + "-1"}}
	tenant.Spec.Quota = &v1alpha1.TenantQuota{Bots: &bots, Stores: &stores, Pods: &pods, CPU: QuantityOf("3"), Memory: QuantityOf("5Gi"), Storage: QuantityOf("20Gi"), EphemeralStorage: QuantityOf("30Gi")}
	tenant.Spec.Placement = &v1alpha1.TenantPlacement{NodeSelector: map[string]string{"topology.kubernetes.io/region": "eu"},
		Tolerations:      []v1alpha1.Toleration{{Key: "example.com/pool", Operator: corev1.TolerationOpEqual, Value: "bots", Effect: corev1.TaintEffectNoExecute, TolerationSeconds: PtrTo(int64(60))}},
		RuntimeClassName: "sandboxed", PriorityClassName: "customers",
		TopologySpread: []v1alpha1.TopologySpread{{TopologyKey: "topology.kubernetes.io/zone", MaxSkew: 2, WhenUnsatisfiable: corev1.DoNotSchedule}}, Affinity: richAffinity()}
	tenant.Spec.ImagePullSecrets = []v1alpha1.ImagePullSecret{{Name: "tenant-registry"}}
	tenant.Spec.Egress = []v1alpha1.EgressRule{{CIDR: "10.20.0.0/16", Ports: []v1alpha1.EgressPort{{Protocol: "TCP", Port: 5432}, {Protocol: "UDP", Port: 53}}}}
	tenant.Spec.Access = []v1alpha1.TenantAccess{{Group: name + ":readers", Role: v1alpha1.AccessView}, {Group: name + ":makers", Role: v1alpha1.AccessOperate}}
	return tenant
}

// RichConfig is the ConfigMap that a file of richBot comes out of.
func RichConfig(bot *v1alpha1.BotDeployment) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: bot.Namespace, Name: bot.Name + "-config", Annotations: map[string]string{v1alpha1.AnnotationFileFor: bot.Name}},
		Data: map[string]string{"names": "a: b\n"}}
}

// RichBot uses every field but those that TestRichUsesEveryField names. A file comes out of richConfig.
func RichBot(namespace, name string) *v1alpha1.BotDeployment {
	bot := MakeBot(namespace, name)
	class := "fast"
	bot.Spec.ImagePullPolicy = corev1.PullIfNotPresent
	bot.Spec.ImagePullSecrets = []v1alpha1.ImagePullSecret{{Name: "bot-registry"}}
	bot.Spec.Command = []string{"/bot", "$(HOME)"}
	bot.Spec.Args = []string{"--name", "$$x"}
	bot.Spec.Env = []v1alpha1.EnvVar{{Name: "GREETING", Value: "hello $(USER)"}}
	bot.Spec.Ports = []v1alpha1.ContainerPort{{Name: "health", ContainerPort: 8080}}
	bot.Spec.Probes = &v1alpha1.Probes{
		Startup:   &v1alpha1.Probe{Type: v1alpha1.ProbeHTTP, Path: "/startup", Port: "health", PeriodSeconds: 7, FailureThreshold: 4, InitialDelaySeconds: 2, TimeoutSeconds: 3},
		Liveness:  &v1alpha1.Probe{Type: v1alpha1.ProbeExec, Command: []string{"/bot", "alive", "$(HOME)"}},
		Readiness: &v1alpha1.Probe{Type: v1alpha1.ProbeTCP, Port: "health"},
	}
	bot.Spec.Scratch = []v1alpha1.BotScratch{{Path: "/cache", Size: resource.MustParse("2Gi"), Medium: v1alpha1.ScratchDisk}, {Path: "/dev/shm", Medium: v1alpha1.ScratchMemory}}
	bot.Spec.TimeZone = "Europe/Berlin"
	bot.Spec.RestartedAt = metav1.Date(2026, 11, 26, 9, 30, 0, 0, time.UTC)
	bot.Spec.Files = []v1alpha1.BotFile{{Path: "/etc/bot/config.yaml", Content: "token: ${credential:telegram}\n"},
		{Path: "/etc/bot/names.yaml", ConfigMapKeyRef: &v1alpha1.ConfigMapKeyRef{Name: name + "-config", Key: "names"}}}
	bot.Spec.OperatingMode = v1alpha1.ModeRunning
	bot.Spec.Channels[0].Telegram.APIURL = "https://telegram.example/api"
	bot.Spec.PodAnnotations = map[string]string{"example.com/team": "support"}
	bot.Spec.Helpers = []v1alpha1.BotHelper{{Name: "browser", Image: "registry.example/browser:v1", ImagePullPolicy: corev1.PullAlways, Command: []string{"/browser"}, Args: []string{"--port=9222"},
		Env: []v1alpha1.EnvVar{{Name: "LANG", Value: "C"}}, Ports: []v1alpha1.ContainerPort{{Name: "devtools", ContainerPort: 9222}},
		Probes: &v1alpha1.Probes{Startup: &v1alpha1.Probe{Type: v1alpha1.ProbeTCP, Port: "devtools"}, Liveness: &v1alpha1.Probe{Path: "/json", Port: "devtools"},
			Readiness: &v1alpha1.Probe{Type: v1alpha1.ProbeExec, Command: []string{"/check"}}},
		Resources:   &v1alpha1.BotResources{Requests: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("64Mi")}, Limits: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("512Mi")}},
		Credentials: []string{"telegram"}, Mounts: []v1alpha1.HelperMount{v1alpha1.MountScratch, v1alpha1.MountStorage}}}
	bot.Spec.Resources = &v1alpha1.BotResources{
		Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("50m")},
		Limits:   corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1"), corev1.ResourceMemory: resource.MustParse("128Mi")},
	}
	bot.Spec.Credentials = append(bot.Spec.Credentials,
		v1alpha1.Credential{Name: "model.key", Sealed: SealedValue, Delivery: v1alpha1.DeliveryEnv, EnvName: "MODEL_KEY"},
		v1alpha1.Credential{Name: "legacy", SecretKeyRef: &v1alpha1.SecretKeyRef{Name: "legacy", Key: "token"}})
	bot.Spec.Egress = []v1alpha1.EgressRule{{CIDR: "0.0.0.0/0", Ports: []v1alpha1.EgressPort{{Protocol: "TCP", Port: 443}}},
		{CIDR: "::/0", Ports: []v1alpha1.EgressPort{{Protocol: "TCP", Port: 443}}}}
	bot.Spec.Storage = &v1alpha1.BotStorage{Size: resource.MustParse("1Gi"), StorageClassName: &class, MountPath: "/data", ReclaimPolicy: "Delete"}
	bot.Spec.Rollout = v1alpha1.BotRollout{TerminationGracePeriodSeconds: 45, ProgressDeadlineSeconds: 60}
	return bot
}

// QuantityOf reads a quantity.
func QuantityOf(text string) *resource.Quantity {
	quantity := resource.MustParse(text)
	return &quantity
}

// richAffinity uses every field.
func richAffinity() *v1alpha1.TenantAffinity {
	node := v1alpha1.NodeTerm{MatchExpressions: []v1alpha1.NodeRequirement{{Key: "example.com/disk", Operator: corev1.NodeSelectorOpIn, Values: []string{"fast"}}}}
	pods := func() *v1alpha1.PodAffinity {
		term := v1alpha1.PodTerm{TopologyKey: "topology.kubernetes.io/zone", LabelSelector: &v1alpha1.PodSelector{
			MatchExpressions: []v1alpha1.PodRequirement{{Key: "app", Operator: metav1.LabelSelectorOpIn, Values: []string{"cache"}}}}}
		weighted := v1alpha1.PodTerm{TopologyKey: "kubernetes.io/hostname", LabelSelector: &v1alpha1.PodSelector{
			MatchExpressions: []v1alpha1.PodRequirement{{Key: v1alpha1.LabelBot, Operator: metav1.LabelSelectorOpIn, Values: []string{"other"}}}}}
		return &v1alpha1.PodAffinity{Required: []v1alpha1.PodTerm{term}, Preferred: []v1alpha1.PreferredPodTerm{{Weight: 7, PodAffinityTerm: weighted}}}
	}
	return &v1alpha1.TenantAffinity{
		NodeAffinity: &v1alpha1.NodeAffinity{Required: &v1alpha1.NodeTerms{NodeSelectorTerms: []v1alpha1.NodeTerm{*node.DeepCopy()}},
			Preferred: []v1alpha1.PreferredNodes{{Weight: 7, Preference: node}}},
		PodAffinity: pods(), PodAntiAffinity: pods(),
	}
}

// PtrTo is a pointer to a value.
func PtrTo[T any](value T) *T { return &value }

// MakeKeeper is a bot with a volume.
func MakeKeeper(namespace, name, policy string) *v1alpha1.BotDeployment {
	bot := MakeBot(namespace, name)
	bot.Spec.Storage = &v1alpha1.BotStorage{Size: resource.MustParse("1Gi"), MountPath: "/data", ReclaimPolicy: policy}
	return bot
}
