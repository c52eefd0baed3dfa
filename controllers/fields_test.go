package controllers_test

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/test/operator"
)

// leaves are the fields of a spec as users write them: "egress[].ports[].port".
func leaves(of reflect.Type, path string) []string {
	switch of {
	case reflect.TypeFor[metav1.Time](), reflect.TypeFor[resource.Quantity](), reflect.TypeFor[corev1.ResourceList](), reflect.TypeFor[map[string]string]():
		return []string{path}
	case reflect.TypeFor[v1alpha1.Refused]():
		return nil // at every value: test/fields TestWhatPodSecurityForbidsIsRefused
	}
	switch of.Kind() {
	case reflect.Pointer:
		return leaves(of.Elem(), path)
	case reflect.Slice:
		return leaves(of.Elem(), path+"[]")
	case reflect.Struct:
		var all []string
		for i := range of.NumField() {
			name, _, _ := strings.Cut(of.Field(i).Tag.Get("json"), ",")
			all = append(all, leaves(of.Field(i).Type, strings.TrimPrefix(path+"."+name, "."))...)
		}
		return all
	default:
		return []string{path}
	}
}

// rendered is everything that the manager makes for a Tenant and a bot.
func rendered(t *testing.T, tenant *v1alpha1.Tenant, bot *v1alpha1.BotDeployment) string {
	t.Helper()
	var all []any
	for _, child := range operator.ChildrenOf(tenant, bot) {
		all = append(all, child)
	}
	for _, namespace := range tenant.Spec.Namespaces {
		all = append(all, resources.Namespace(tenant, namespace.Name, true))
	}
	all = append(all, resources.BotClaim(bot, tenant))
	encoded, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	return string(encoded)
}

// TestEveryBotFieldDoesSomething changes each field of a BotDeployment's spec and sees what is made of it change. A
// field that acts elsewhere names the test that sees it.
func TestEveryBotFieldDoesSomething(t *testing.T) {
	type spec = v1alpha1.BotDeploymentSpec
	changes := map[string]func(*spec){
		"image":                 func(s *spec) { s.Image = "other" },
		"imagePullPolicy":       func(s *spec) { s.ImagePullPolicy = corev1.PullNever },
		"command[]":             func(s *spec) { s.Command[0] = "other" },
		"args[]":                func(s *spec) { s.Args[0] = "other" },
		"env[].name":            func(s *spec) { s.Env[0].Name = "OTHER" },
		"env[].value":           func(s *spec) { s.Env[0].Value = "other" },
		"ports[].name":          func(s *spec) { s.Ports[0].Name = "other" },
		"ports[].containerPort": func(s *spec) { s.Ports[0].ContainerPort = 9090 },
		"probes.startup.type":   func(s *spec) { s.Probes.Startup = &v1alpha1.Probe{Type: v1alpha1.ProbeTCP, Port: "other"} },
		"probes.startup.path":   func(s *spec) { s.Probes.Startup.Type, s.Probes.Startup.Path = v1alpha1.ProbeHTTP, "/other" },
		"probes.startup.port":   func(s *spec) { s.Probes.Startup.Type, s.Probes.Startup.Port = v1alpha1.ProbeTCP, "other" },
		"probes.startup.command[]": func(s *spec) {
			s.Probes.Startup.Type, s.Probes.Startup.Command = v1alpha1.ProbeExec, []string{"/other"}
		},
		"probes.startup.initialDelaySeconds": func(s *spec) { s.Probes.Startup.InitialDelaySeconds = 99 },
		"probes.startup.timeoutSeconds":      func(s *spec) { s.Probes.Startup.TimeoutSeconds = 99 },
		"probes.startup.periodSeconds":       func(s *spec) { s.Probes.Startup.PeriodSeconds = 99 },
		"probes.startup.failureThreshold":    func(s *spec) { s.Probes.Startup.FailureThreshold = 9 },
		"probes.liveness.type":               func(s *spec) { s.Probes.Liveness = &v1alpha1.Probe{Type: v1alpha1.ProbeTCP, Port: "other"} },
		"probes.liveness.path":               func(s *spec) { s.Probes.Liveness.Type, s.Probes.Liveness.Path = v1alpha1.ProbeHTTP, "/other" },
		"probes.liveness.port":               func(s *spec) { s.Probes.Liveness.Type, s.Probes.Liveness.Port = v1alpha1.ProbeTCP, "other" },
		"probes.liveness.command[]": func(s *spec) {
			s.Probes.Liveness.Type, s.Probes.Liveness.Command = v1alpha1.ProbeExec, []string{"/other"}
		},
		"probes.liveness.initialDelaySeconds": func(s *spec) { s.Probes.Liveness.InitialDelaySeconds = 99 },
		"probes.liveness.timeoutSeconds":      func(s *spec) { s.Probes.Liveness.TimeoutSeconds = 99 },
		"probes.liveness.periodSeconds":       func(s *spec) { s.Probes.Liveness.PeriodSeconds = 99 },
		"probes.liveness.failureThreshold":    func(s *spec) { s.Probes.Liveness.FailureThreshold = 9 },
		"probes.readiness.type":               func(s *spec) { s.Probes.Readiness = &v1alpha1.Probe{Type: v1alpha1.ProbeTCP, Port: "other"} },
		"probes.readiness.path":               func(s *spec) { s.Probes.Readiness.Type, s.Probes.Readiness.Path = v1alpha1.ProbeHTTP, "/other" },
		"probes.readiness.port":               func(s *spec) { s.Probes.Readiness.Type, s.Probes.Readiness.Port = v1alpha1.ProbeTCP, "other" },
		"probes.readiness.command[]": func(s *spec) {
			s.Probes.Readiness.Type, s.Probes.Readiness.Command = v1alpha1.ProbeExec, []string{"/other"}
		},
		"probes.readiness.initialDelaySeconds":  func(s *spec) { s.Probes.Readiness.InitialDelaySeconds = 99 },
		"probes.readiness.timeoutSeconds":       func(s *spec) { s.Probes.Readiness.TimeoutSeconds = 99 },
		"imagePullSecrets[].name":               func(s *spec) { s.ImagePullSecrets[0].Name = "other" },
		"podAnnotations":                        func(s *spec) { s.PodAnnotations = map[string]string{"example.com/team": "other"} },
		"probes.readiness.periodSeconds":        func(s *spec) { s.Probes.Readiness.PeriodSeconds = 99 },
		"probes.readiness.failureThreshold":     func(s *spec) { s.Probes.Readiness.FailureThreshold = 9 },
		"resources.requests":                    func(s *spec) { s.Resources.Requests = nil },
		"resources.limits":                      func(s *spec) { s.Resources.Limits = nil },
		"channels[].telegram.credential":        func(s *spec) { s.Channels[0].Telegram.Credential = "legacy" },
		"channels[].telegram.apiURL":            func(s *spec) { s.Channels[0].Telegram.APIURL = "https://10.0.0.1" },
		"credentials[].delivery":                func(s *spec) { s.Credentials[1].Delivery = v1alpha1.DeliveryFile },
		"credentials[].envName":                 func(s *spec) { s.Credentials[1].EnvName = "OTHER" },
		"egress[].cidr":                         func(s *spec) { s.Egress[0].CIDR = "140.82.112.0/20" },
		"egress[].ports[].protocol":             func(s *spec) { s.Egress[0].Ports[0].Protocol = "UDP" },
		"egress[].ports[].port":                 func(s *spec) { s.Egress[0].Ports[0].Port = 8443 },
		"storage.size":                          func(s *spec) { s.Storage.Size = resource.MustParse("9Gi") },
		"storage.storageClassName":              func(s *spec) { s.Storage.StorageClassName = nil },
		"storage.claim.existing":                func(s *spec) { s.Storage.Claim = &v1alpha1.BotClaim{Existing: "other"} },
		"storage.mountPath":                     func(s *spec) { s.Storage.MountPath = "/other" },
		"storage.reclaimPolicy":                 func(s *spec) { s.Storage.ReclaimPolicy = "Retain" },
		"rollout.terminationGracePeriodSeconds": func(s *spec) { s.Rollout.TerminationGracePeriodSeconds = 9 },
		"helpers[].image":                       func(s *spec) { s.Helpers[0].Image = "other" },
		"helpers[].imagePullPolicy":             func(s *spec) { s.Helpers[0].ImagePullPolicy = corev1.PullNever },
		"helpers[].command[]":                   func(s *spec) { s.Helpers[0].Command[0] = "other" },
		"helpers[].args[]":                      func(s *spec) { s.Helpers[0].Args[0] = "other" },
		"helpers[].env[].name":                  func(s *spec) { s.Helpers[0].Env[0].Name = "OTHER" },
		"helpers[].env[].value":                 func(s *spec) { s.Helpers[0].Env[0].Value = "other" },
		"helpers[].ports[].name":                func(s *spec) { s.Helpers[0].Ports[0].Name = "other" },
		"helpers[].ports[].containerPort":       func(s *spec) { s.Helpers[0].Ports[0].ContainerPort = 9090 },
		"helpers[].resources.requests":          func(s *spec) { s.Helpers[0].Resources.Requests = nil },
		"helpers[].resources.limits":            func(s *spec) { s.Helpers[0].Resources.Limits = nil },
		"helpers[].credentials[]":               func(s *spec) { s.Helpers[0].Credentials = nil },
		"helpers[].mounts[]":                    func(s *spec) { s.Helpers[0].Mounts = nil },
		"helpers[].name":                        func(s *spec) { s.Helpers[0].Name = "other" },
		"helpers[].probes.startup.type":         func(s *spec) { s.Helpers[0].Probes.Startup = &v1alpha1.Probe{Type: v1alpha1.ProbeTCP, Port: "other"} },
		"helpers[].probes.startup.path": func(s *spec) {
			s.Helpers[0].Probes.Startup.Type, s.Helpers[0].Probes.Startup.Path = v1alpha1.ProbeHTTP, "/other"
		},
		"helpers[].probes.startup.port": func(s *spec) {
			s.Helpers[0].Probes.Startup.Type, s.Helpers[0].Probes.Startup.Port = v1alpha1.ProbeTCP, "other"
		},
		"helpers[].probes.startup.command[]": func(s *spec) {
			s.Helpers[0].Probes.Startup.Type, s.Helpers[0].Probes.Startup.Command = v1alpha1.ProbeExec, []string{"/other"}
		},
		"helpers[].probes.startup.initialDelaySeconds": func(s *spec) { s.Helpers[0].Probes.Startup.InitialDelaySeconds = 99 },
		"helpers[].probes.startup.timeoutSeconds":      func(s *spec) { s.Helpers[0].Probes.Startup.TimeoutSeconds = 99 },
		"helpers[].probes.startup.periodSeconds":       func(s *spec) { s.Helpers[0].Probes.Startup.PeriodSeconds = 99 },
		"helpers[].probes.startup.failureThreshold":    func(s *spec) { s.Helpers[0].Probes.Startup.FailureThreshold = 9 },
		"helpers[].probes.liveness.type":               func(s *spec) { s.Helpers[0].Probes.Liveness = &v1alpha1.Probe{Type: v1alpha1.ProbeTCP, Port: "other"} },
		"helpers[].probes.liveness.path": func(s *spec) {
			s.Helpers[0].Probes.Liveness.Type, s.Helpers[0].Probes.Liveness.Path = v1alpha1.ProbeHTTP, "/other"
		},
		"helpers[].probes.liveness.port": func(s *spec) {
			s.Helpers[0].Probes.Liveness.Type, s.Helpers[0].Probes.Liveness.Port = v1alpha1.ProbeTCP, "other"
		},
		"helpers[].probes.liveness.command[]": func(s *spec) {
			s.Helpers[0].Probes.Liveness.Type, s.Helpers[0].Probes.Liveness.Command = v1alpha1.ProbeExec, []string{"/other"}
		},
		"helpers[].probes.liveness.initialDelaySeconds": func(s *spec) { s.Helpers[0].Probes.Liveness.InitialDelaySeconds = 99 },
		"helpers[].probes.liveness.timeoutSeconds":      func(s *spec) { s.Helpers[0].Probes.Liveness.TimeoutSeconds = 99 },
		"helpers[].probes.liveness.periodSeconds":       func(s *spec) { s.Helpers[0].Probes.Liveness.PeriodSeconds = 99 },
		"helpers[].probes.liveness.failureThreshold":    func(s *spec) { s.Helpers[0].Probes.Liveness.FailureThreshold = 9 },
		"helpers[].probes.readiness.type":               func(s *spec) { s.Helpers[0].Probes.Readiness = &v1alpha1.Probe{Type: v1alpha1.ProbeTCP, Port: "other"} },
		"helpers[].probes.readiness.path": func(s *spec) {
			s.Helpers[0].Probes.Readiness.Type, s.Helpers[0].Probes.Readiness.Path = v1alpha1.ProbeHTTP, "/other"
		},
		"helpers[].probes.readiness.port": func(s *spec) {
			s.Helpers[0].Probes.Readiness.Type, s.Helpers[0].Probes.Readiness.Port = v1alpha1.ProbeTCP, "other"
		},
		"helpers[].probes.readiness.command[]": func(s *spec) {
			s.Helpers[0].Probes.Readiness.Type, s.Helpers[0].Probes.Readiness.Command = v1alpha1.ProbeExec, []string{"/other"}
		},
		"helpers[].probes.readiness.initialDelaySeconds": func(s *spec) { s.Helpers[0].Probes.Readiness.InitialDelaySeconds = 99 },
		"helpers[].probes.readiness.timeoutSeconds":      func(s *spec) { s.Helpers[0].Probes.Readiness.TimeoutSeconds = 99 },
		"helpers[].probes.readiness.periodSeconds":       func(s *spec) { s.Helpers[0].Probes.Readiness.PeriodSeconds = 99 },
		"helpers[].probes.readiness.failureThreshold":    func(s *spec) { s.Helpers[0].Probes.Readiness.FailureThreshold = 9 },
		"scratch[].path":   func(s *spec) { s.Scratch[0].Path = "/other" },
		"scratch[].size":   func(s *spec) { s.Scratch[0].Size = resource.MustParse("9Gi") },
		"scratch[].medium": func(s *spec) { s.Scratch[0].Medium = v1alpha1.ScratchMemory },
		"timeZone":         func(s *spec) { s.TimeZone = "Etc/UTC" },
		"restartedAt":      func(s *spec) { s.RestartedAt = metav1.Unix(1, 0) },
		"files[].path":     func(s *spec) { s.Files[0].Path = "/other" },
		"files[].content":  func(s *spec) { s.Files[0].Content = "other" },
		"operatingMode":    func(s *spec) { s.OperatingMode = v1alpha1.ModeSuspended },
	}
	elsewhere := map[string]string{
		"credentials[].name":              "TestRefusedCredentials: the keyserver answers by name; the file's name is the keyserver's tests'",
		"credentials[].sealed":            "TestRefusedCredentials: another value is another Secret and another revision",
		"credentials[].secretKeyRef.name": "the keyserver reads it: package keyserver",
		"credentials[].secretKeyRef.key":  "the keyserver reads it: package keyserver",
		"files[].configMapKeyRef.name":    "TestFileOfAConfigMap",
		"files[].configMapKeyRef.key":     "TestFileOfAConfigMap",
		"rollout.progressDeadlineSeconds": "TestBadImageThenGoodImage",
		"channels[].name":                 "the key of the list, for the merge of two appliers",
		"channels[].type":                 "the tag of the union: TestFromManifestsToRunningBot",
	}
	everyField(t, changes, elsewhere, func(_ *v1alpha1.Tenant, bot *v1alpha1.BotDeployment) *spec { return &bot.Spec })
}

// TestEveryTenantFieldDoesSomething is the same for a Tenant.
func TestEveryTenantFieldDoesSomething(t *testing.T) {
	type spec = v1alpha1.TenantSpec
	changes := map[string]func(*spec){
		"state":                                     func(s *spec) { s.State = v1alpha1.TenantSuspended },
		"namespaces[].name":                         func(s *spec) { s.Namespaces[0].Name = "other" },
		"quota.pods":                                func(s *spec) { s.Quota.Pods = nil },
		"quota.cpu":                                 func(s *spec) { s.Quota.CPU = nil },
		"quota.memory":                              func(s *spec) { s.Quota.Memory = nil },
		"quota.storage":                             func(s *spec) { s.Quota.Storage = nil },
		"quota.bots":                                func(s *spec) { s.Quota.Bots = operator.PtrTo(int32(3)) },
		"quota.stores":                              func(s *spec) { s.Quota.Stores = operator.PtrTo(int32(3)) },
		"placement.nodeSelector":                    func(s *spec) { s.Placement.NodeSelector = map[string]string{"a": "b"} },
		"placement.tolerations[].key":               func(s *spec) { s.Placement.Tolerations[0].Key = "other" },
		"placement.tolerations[].operator":          func(s *spec) { s.Placement.Tolerations[0].Operator = corev1.TolerationOpExists },
		"placement.tolerations[].value":             func(s *spec) { s.Placement.Tolerations[0].Value = "other" },
		"placement.tolerations[].effect":            func(s *spec) { s.Placement.Tolerations[0].Effect = "" },
		"placement.tolerations[].tolerationSeconds": func(s *spec) { s.Placement.Tolerations[0].TolerationSeconds = nil },
		"placement.runtimeClassName":                func(s *spec) { s.Placement.RuntimeClassName = "" },
		"placement.priorityClassName":               func(s *spec) { s.Placement.PriorityClassName = "" },
		"placement.topologySpread[].topologyKey":    func(s *spec) { s.Placement.TopologySpread[0].TopologyKey = "other" },
		"placement.topologySpread[].maxSkew":        func(s *spec) { s.Placement.TopologySpread[0].MaxSkew = 1 },
		"placement.topologySpread[].whenUnsatisfiable": func(s *spec) {
			s.Placement.TopologySpread[0].WhenUnsatisfiable = corev1.ScheduleAnyway
		},
		"placement.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[].matchExpressions[].key": func(s *spec) {
			s.Placement.Affinity.NodeAffinity.Required.NodeSelectorTerms[0].MatchExpressions[0].Key = "other"
		},
		"placement.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[].matchExpressions[].operator": func(s *spec) {
			s.Placement.Affinity.NodeAffinity.Required.NodeSelectorTerms[0].MatchExpressions[0].Operator = corev1.NodeSelectorOpNotIn
		},
		"placement.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[].matchExpressions[].values[]": func(s *spec) {
			s.Placement.Affinity.NodeAffinity.Required.NodeSelectorTerms[0].MatchExpressions[0].Values[0] = "other"
		},
		"placement.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[].weight": func(s *spec) { s.Placement.Affinity.NodeAffinity.Preferred[0].Weight = 9 },
		"placement.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[].preference.matchExpressions[].key": func(s *spec) {
			s.Placement.Affinity.NodeAffinity.Preferred[0].Preference.MatchExpressions[0].Key = "other"
		},
		"placement.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[].preference.matchExpressions[].operator": func(s *spec) {
			s.Placement.Affinity.NodeAffinity.Preferred[0].Preference.MatchExpressions[0].Operator = corev1.NodeSelectorOpNotIn
		},
		"placement.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[].preference.matchExpressions[].values[]": func(s *spec) {
			s.Placement.Affinity.NodeAffinity.Preferred[0].Preference.MatchExpressions[0].Values[0] = "other"
		},
		"placement.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[].topologyKey": func(s *spec) { s.Placement.Affinity.PodAffinity.Required[0].TopologyKey = "other" },
		"placement.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[].labelSelector.matchExpressions[].key": func(s *spec) {
			s.Placement.Affinity.PodAffinity.Required[0].LabelSelector.MatchExpressions[0].Key = "other"
		},
		"placement.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[].labelSelector.matchExpressions[].operator": func(s *spec) {
			s.Placement.Affinity.PodAffinity.Required[0].LabelSelector.MatchExpressions[0].Operator = metav1.LabelSelectorOpNotIn
		},
		"placement.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[].labelSelector.matchExpressions[].values[]": func(s *spec) {
			s.Placement.Affinity.PodAffinity.Required[0].LabelSelector.MatchExpressions[0].Values[0] = "another"
		},
		"placement.affinity.podAffinity.preferredDuringSchedulingIgnoredDuringExecution[].podAffinityTerm.topologyKey": func(s *spec) { s.Placement.Affinity.PodAffinity.Preferred[0].PodAffinityTerm.TopologyKey = "other" },
		"placement.affinity.podAffinity.preferredDuringSchedulingIgnoredDuringExecution[].podAffinityTerm.labelSelector.matchExpressions[].key": func(s *spec) {
			s.Placement.Affinity.PodAffinity.Preferred[0].PodAffinityTerm.LabelSelector.MatchExpressions[0].Key = "other"
		},
		"placement.affinity.podAffinity.preferredDuringSchedulingIgnoredDuringExecution[].podAffinityTerm.labelSelector.matchExpressions[].operator": func(s *spec) {
			s.Placement.Affinity.PodAffinity.Preferred[0].PodAffinityTerm.LabelSelector.MatchExpressions[0].Operator = metav1.LabelSelectorOpNotIn
		},
		"placement.affinity.podAffinity.preferredDuringSchedulingIgnoredDuringExecution[].podAffinityTerm.labelSelector.matchExpressions[].values[]": func(s *spec) {
			s.Placement.Affinity.PodAffinity.Preferred[0].PodAffinityTerm.LabelSelector.MatchExpressions[0].Values[0] = "another"
		},
		"placement.affinity.podAffinity.preferredDuringSchedulingIgnoredDuringExecution[].weight":         func(s *spec) { s.Placement.Affinity.PodAffinity.Preferred[0].Weight = 9 },
		"placement.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution[].topologyKey": func(s *spec) { s.Placement.Affinity.PodAntiAffinity.Required[0].TopologyKey = "other" },
		"placement.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution[].labelSelector.matchExpressions[].key": func(s *spec) {
			s.Placement.Affinity.PodAntiAffinity.Required[0].LabelSelector.MatchExpressions[0].Key = "other"
		},
		"placement.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution[].labelSelector.matchExpressions[].operator": func(s *spec) {
			s.Placement.Affinity.PodAntiAffinity.Required[0].LabelSelector.MatchExpressions[0].Operator = metav1.LabelSelectorOpNotIn
		},
		"placement.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution[].labelSelector.matchExpressions[].values[]": func(s *spec) {
			s.Placement.Affinity.PodAntiAffinity.Required[0].LabelSelector.MatchExpressions[0].Values[0] = "another"
		},
		"placement.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[].podAffinityTerm.topologyKey": func(s *spec) { s.Placement.Affinity.PodAntiAffinity.Preferred[0].PodAffinityTerm.TopologyKey = "other" },
		"placement.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[].podAffinityTerm.labelSelector.matchExpressions[].key": func(s *spec) {
			s.Placement.Affinity.PodAntiAffinity.Preferred[0].PodAffinityTerm.LabelSelector.MatchExpressions[0].Key = "other"
		},
		"placement.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[].podAffinityTerm.labelSelector.matchExpressions[].operator": func(s *spec) {
			s.Placement.Affinity.PodAntiAffinity.Preferred[0].PodAffinityTerm.LabelSelector.MatchExpressions[0].Operator = metav1.LabelSelectorOpNotIn
		},
		"placement.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[].podAffinityTerm.labelSelector.matchExpressions[].values[]": func(s *spec) {
			s.Placement.Affinity.PodAntiAffinity.Preferred[0].PodAffinityTerm.LabelSelector.MatchExpressions[0].Values[0] = "another"
		},
		"placement.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[].weight": func(s *spec) { s.Placement.Affinity.PodAntiAffinity.Preferred[0].Weight = 9 },
		"imagePullSecrets[].name":   func(s *spec) { s.ImagePullSecrets[0].Name = "other" },
		"quota.ephemeralStorage":    func(s *spec) { s.Quota.EphemeralStorage = nil },
		"userNamespaces":            func(s *spec) { s.UserNamespaces = v1alpha1.UserNamespacesEnabled },
		"egress[].cidr":             func(s *spec) { s.Egress[0].CIDR = "10.9.0.0/16" },
		"egress[].ports[].protocol": func(s *spec) { s.Egress[0].Ports[0].Protocol = "UDP" },
		"egress[].ports[].port":     func(s *spec) { s.Egress[0].Ports[0].Port = 99 },
		"access[].group":            func(s *spec) { s.Access[0].Group = "other" },
		"access[].role":             func(s *spec) { s.Access[0].Role = v1alpha1.AccessOperate },
	}
	elsewhere := map[string]string{
		"class":                                  "package plan: only a Platform tenant's namespaces may hold shared stores",
		"retainedVolumes":                        "TestTenantWithRetainedVolumes",
		"egressCeiling.allow[].cidr":             "TestEgressCeiling",
		"egressCeiling.allow[].ports[].protocol": "TestEgressCeiling",
		"egressCeiling.allow[].ports[].port":     "TestEgressCeiling",
		"egressCeiling.allow[].ports[].endPort":  "TestBotsNeverReachBeyondTheCeiling",
		"foreignNetworkPolicies[].group":         "TestForeignNetworkPolicy",
		"foreignNetworkPolicies[].resource":      "TestForeignNetworkPolicy",
		"foreignNetworkPolicies[].name":          "TestForeignNetworkPolicy",
		"foreignObjects[].kind":                  "TestForeignObjectsAtAdoption",
		"foreignObjects[].name":                  "TestForeignObjectsAtAdoption",
		"externalIDs[].type":                     "TestExternalIDClaimedTwice",
		"externalIDs[].value":                    "TestExternalIDClaimedTwice",
		"retentionOverrides[].dataClass":         "package plan",
		"retentionOverrides[].retainFor.hours":   "package plan",
		"retentionOverrides[].retainFor.days":    "package plan",
		"retentionOverrides[].retainFor.weeks":   "package plan",
		"retentionOverrides[].retainFor.months":  "package plan",
		"retentionOverrides[].retainFor.years":   "package plan",
	}
	everyField(t, changes, elsewhere, func(tenant *v1alpha1.Tenant, _ *v1alpha1.BotDeployment) *spec { return &tenant.Spec })
}

// everyField changes one field after another, and looks whether the world that is rendered for it is another.
func everyField[S any](t *testing.T, changes map[string]func(*S), elsewhere map[string]string, of func(*v1alpha1.Tenant, *v1alpha1.BotDeployment) *S) {
	t.Helper()
	base := rendered(t, operator.RichTenant("f", "f-a"), operator.RichBot("f-a", "b"))
	for _, path := range leaves(reflect.TypeFor[S](), "") {
		change, ok := changes[path]
		if !ok {
			if elsewhere[path] == "" {
				t.Errorf("spec.%s is changed by no test", path)
			}
			continue
		}
		tenant, bot := operator.RichTenant("f", "f-a"), operator.RichBot("f-a", "b")
		change(of(tenant, bot))
		if rendered(t, tenant, bot) == base {
			t.Errorf("spec.%s was changed, and nothing in the world", path)
		}
	}
	noUnknownFields(t, leaves(reflect.TypeFor[S](), ""), slices.Collect(maps.Keys(changes)), slices.Collect(maps.Keys(elsewhere)))
}

// noUnknownFields finds fields that a table names and the kind does not have.
func noUnknownFields(t *testing.T, known []string, tables ...[]string) {
	t.Helper()
	for _, path := range slices.Concat(tables...) {
		if !slices.Contains(known, path) {
			t.Errorf("there is no field spec.%s", path)
		}
	}
}
