package resources

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/test/specs"
)

// TestPodsAreRestricted renders ten thousand bots of fifty tenants, has Kubernetes' own library judge the pods, and
// lets no id of one tenant's pods be another's. (That the keyserver never gives one block to two tenants is
// TestTenantsNeverShareUserIDs.)
func TestPodsAreRestricted(t *testing.T) {
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		t.Fatal(err)
	}
	level := api.LevelVersion{Level: api.LevelRestricted, Version: api.LatestVersion()}
	tenants := make([]*v1alpha1.Tenant, 50)
	for i := range tenants {
		tenants[i] = richTenant()
		tenants[i].Spec.Placement = specs.RandomPlacement(uint64(i))
		tenants[i].Status.UIDRange = &v1alpha1.UIDRange{First: 1_000_000_000 + 1000*int64(i), Size: 1000}
		if i%5 == 4 {
			tenants[i].Spec.UserNamespaces = v1alpha1.UserNamespacesEnabled
		}
	}
	seen, owners := map[string]int{}, map[int64]int{}
	for seed := range uint64(10_000) {
		bot := &v1alpha1.BotDeployment{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "b"}, Spec: specs.Random(seed)}
		config := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{v1alpha1.AnnotationFileFor: "b"}}, Data: map[string]string{"config.yaml": "x: 1"}}
		whole, err := WithFiles(bot, map[string]*corev1.ConfigMap{"config": config})
		if err != nil {
			t.Fatalf("bot %d: %v", seed, err)
		}
		of := int(seed % uint64(len(tenants)))
		tenant := tenants[of]
		template := BotPodTemplate(testSettings(), whole, tenant, "b-cred-0123456789")
		for _, result := range evaluator.EvaluatePod(level, &template.ObjectMeta, &template.Spec) {
			if !result.Allowed {
				t.Errorf("bot %d: %s: %s", seed, result.ForbiddenReason, result.ForbiddenDetail)
			}
		}
		for _, id := range checkIDs(t, tenant, template.Spec) {
			if owner, known := owners[id]; known && owner != of {
				t.Errorf("bot %d of tenant %d has the id %d, which tenant %d has too", seed, of, id, owner)
			}
			owners[id] = of
		}
		checkPod(t, bot, template)
		note(seen, bot)
		if t.Failed() {
			t.Fatalf("bot %d: %+v", seed, bot.Spec)
		}
	}
	if len(owners) != 40 { // of ten tenants the node chooses them
		t.Errorf("40 tenants without user namespaces have %d ids", len(owners))
	}
	for _, what := range []string{"scratch", "files", "helpers", "exec", "credentials", "storage"} {
		if seen[what] < 500 {
			t.Errorf("%d bots with %s only", seen[what], what)
		}
	}
}

// checkIDs is every user and group that a pod's programs run as on the node, its containers' own included. Each is
// out of the tenant's block, or the pod has a user namespace of its own, whose ids the node maps to some that nobody
// else has.
func checkIDs(t *testing.T, tenant *v1alpha1.Tenant, pod corev1.PodSpec) []int64 {
	t.Helper()
	var ids []int64
	add := func(all ...*int64) {
		for _, id := range all {
			if id != nil {
				ids = append(ids, *id)
			}
		}
	}
	if pod.SecurityContext == nil || pod.SecurityContext.RunAsUser == nil || pod.SecurityContext.RunAsGroup == nil || pod.SecurityContext.FSGroup == nil {
		t.Error("the image, or the node, chooses the pod's user, group or the group of its files")
		return nil
	}
	add(pod.SecurityContext.RunAsUser, pod.SecurityContext.RunAsGroup, pod.SecurityContext.FSGroup)
	ids = append(ids, pod.SecurityContext.SupplementalGroups...)
	for _, c := range append(slices.Clone(pod.InitContainers), pod.Containers...) {
		if c.SecurityContext != nil {
			add(c.SecurityContext.RunAsUser, c.SecurityContext.RunAsGroup)
		}
	}
	if tenant.Spec.UserNamespaces == v1alpha1.UserNamespacesEnabled {
		if pod.HostUsers == nil || *pod.HostUsers {
			t.Error("the pod has no user namespace of its own")
		}
		for _, id := range ids {
			if id != uidInUserNamespace {
				t.Errorf("id %d in a user namespace", id)
			}
		}
		return nil
	}
	if pod.HostUsers != nil && !*pod.HostUsers {
		t.Error("a user namespace that nobody asked for")
	}
	for _, id := range ids {
		if block := tenant.Status.UIDRange; id < block.First || id >= block.First+block.Size {
			t.Errorf("id %d is not of the tenant's block from %d", id, block.First)
		}
	}
	return ids
}

// note counts what the bots are made of.
func note(seen map[string]int, bot *v1alpha1.BotDeployment) {
	for what, has := range map[string]bool{"scratch": len(bot.Spec.Scratch) > 0, "files": len(bot.Spec.Files) > 0, "helpers": len(bot.Spec.Helpers) > 0,
		"credentials": len(bot.Spec.Credentials) > 0, "storage": bot.Spec.Storage != nil,
		"exec": bot.Spec.Probes != nil && bot.Spec.Probes.Liveness != nil && bot.Spec.Probes.Liveness.Type == v1alpha1.ProbeExec} {
		if has {
			seen[what]++
		}
	}
}

// checkPod holds what the restricted standard does not ask for.
func checkPod(t *testing.T, bot *v1alpha1.BotDeployment, template corev1.PodTemplateSpec) {
	t.Helper()
	pod := template.Spec
	if pod.AutomountServiceAccountToken == nil || *pod.AutomountServiceAccountToken || pod.EnableServiceLinks == nil || *pod.EnableServiceLinks {
		t.Error("a token or the addresses of services get into the pod")
	}
	volumes := checkVolumes(t, bot, pod)
	ports := map[int32]bool{}
	for _, c := range append(slices.Clone(pod.InitContainers), pod.Containers...) {
		checkContainer(t, bot, c, volumes)
		for _, port := range c.Ports {
			if ports[port.ContainerPort] || port.HostPort != 0 {
				t.Errorf("port %d of %s", port.ContainerPort, c.Name)
			}
			ports[port.ContainerPort] = true
		}
	}
	if (len(bot.Spec.Credentials) > 0) != (len(pod.InitContainers) == 1) {
		t.Error("a bot with credentials fetches them, and one without asks nobody")
	}
	if len(pod.Containers) != 1+len(bot.Spec.Helpers) || pod.Containers[0].Name != ContainerBot {
		t.Errorf("%d containers", len(pod.Containers))
	}
	size := 0
	for _, value := range template.Annotations {
		size += len(value)
	}
	if size > 256<<10 {
		t.Errorf("%d bytes of annotations", size)
	}
}

// checkContainer holds that nothing is expanded, there twice or unbounded, and that nobody but unseal has the token
// or more than it names.
func checkContainer(t *testing.T, bot *v1alpha1.BotDeployment, c corev1.Container, volumes map[string]corev1.Volume) {
	t.Helper()
	if c.SecurityContext.ReadOnlyRootFilesystem == nil || !*c.SecurityContext.ReadOnlyRootFilesystem {
		t.Errorf("container %s can write to its image", c.Name)
	}
	texts := slices.Concat(c.Command, c.Args, values(c.Env))
	for _, p := range []*corev1.Probe{c.StartupProbe, c.LivenessProbe, c.ReadinessProbe} {
		if p != nil && p.Exec != nil {
			texts = append(texts, p.Exec.Command...)
		}
		if p != nil && (p.PeriodSeconds < 1 || p.TimeoutSeconds < 1 || p.FailureThreshold < 1) {
			t.Errorf("a probe of %s: %+v", c.Name, p)
		}
	}
	for _, text := range texts {
		if strings.Contains(strings.ReplaceAll(text, "$$", ""), "$(") {
			t.Errorf("Kubernetes would expand %q", text)
		}
	}
	names := map[string]bool{}
	for _, variable := range c.Env {
		if names[variable.Name] {
			t.Errorf("variable %s is there twice", variable.Name)
		}
		names[variable.Name] = true
	}
	if c.Name != ContainerUnseal && (!names["HOME"] || !names["TMPDIR"] || (bot.Spec.TimeZone != "" && !names["TZ"])) {
		t.Errorf("container %s lacks a directory or the zone: %v", c.Name, names)
	}
	checkMounts(t, bot, c, volumes)
	for name, request := range c.Resources.Requests {
		limit := c.Resources.Limits[name]
		if request.Cmp(limit) > 0 {
			t.Errorf("container %s asks for %s of %s and may have %s", c.Name, request.String(), name, limit.String())
		}
	}
	// A foreign LimitRange in the namespace fills in what is left out, and less than the request is a pod that is
	// refused.
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage} {
		_, asks := c.Resources.Requests[name]
		if _, limited := c.Resources.Limits[name]; !limited || !asks {
			t.Errorf("container %s leaves its %s to a LimitRange", c.Name, name)
		}
	}
	disk, reserved := c.Resources.Limits[corev1.ResourceEphemeralStorage], c.Resources.Requests[corev1.ResourceEphemeralStorage]
	if disk.IsZero() {
		t.Errorf("container %s may fill up its node's disk", c.Name)
	}
	// As with memory, a node's disk is promised a bounded number of times over; only who asks for less himself gets
	// less.
	asked := slices.ContainsFunc(resourcesIn(bot), func(r *v1alpha1.BotResources) bool { return r != nil && !r.Requests.StorageEphemeral().IsZero() })
	if least := disk.Value() / reservedShare; reserved.IsZero() || reserved.Value() < least && !asked {
		t.Errorf("container %s may have %s of its node's disk, and %s is reserved", c.Name, disk.String(), reserved.String())
	}
}

func checkMounts(t *testing.T, bot *v1alpha1.BotDeployment, c corev1.Container, volumes map[string]corev1.Volume) {
	t.Helper()
	paths := map[string]string{}
	writable := false
	for _, mount := range c.VolumeMounts {
		if c.Name != ContainerUnseal && (mount.Name == volumeKeyserver || mount.Name == volumeTemplates) {
			t.Errorf("container %s sees %s", c.Name, mount.Name)
		}
		if c.Name != ContainerUnseal && c.Name != ContainerBot && (mount.Name == volumeFiles || (mount.Name == volumeCredentials && mount.SubPath == "")) {
			t.Errorf("helper %s sees what it does not name: %s", c.Name, mount.Name)
		}
		if volumes[mount.Name].Name == "" {
			t.Errorf("there is no volume %s", mount.Name)
		}
		path := filepath.Clean(mount.MountPath)
		if paths[path] != "" {
			t.Errorf("%s of %s is mounted twice", path, c.Name)
		}
		paths[path] = mount.Name
		writable = writable || (path == "/tmp" && !mount.ReadOnly)
	}
	if c.Name != ContainerUnseal && !writable {
		t.Errorf("container %s cannot write to /tmp", c.Name)
	}
	if i := slices.IndexFunc(bot.Spec.Helpers, func(h v1alpha1.BotHelper) bool { return h.Name == c.Name }); i >= 0 {
		for _, credential := range bot.Spec.Credentials {
			named, file := slices.Contains(bot.Spec.Helpers[i].Credentials, credential.Name), credential.Delivery != v1alpha1.DeliveryEnv
			if got := paths[CredentialsDir+"/"+credential.Name] != ""; got != (named && file) {
				t.Errorf("helper %s has credential %s: %v", c.Name, credential.Name, got)
			}
		}
	}
}

// checkVolumes holds that a volume is of a kind that a bot may have, and bounded.
func checkVolumes(t *testing.T, bot *v1alpha1.BotDeployment, pod corev1.PodSpec) map[string]corev1.Volume {
	t.Helper()
	volumes := map[string]corev1.Volume{}
	for _, volume := range pod.Volumes {
		if volumes[volume.Name].Name != "" {
			t.Errorf("volume %s is there twice", volume.Name)
		}
		volumes[volume.Name] = volume
		secret := volume.Name == volumeCredentials || volume.Name == volumeEnv || (volume.Name == volumeFiles && len(bot.Spec.Credentials) > 0)
		if volume.EmptyDir != nil && (volume.EmptyDir.SizeLimit == nil || volume.EmptyDir.SizeLimit.IsZero()) {
			t.Errorf("volume %s has no bound", volume.Name)
		}
		if secret && (volume.EmptyDir == nil || volume.EmptyDir.Medium != corev1.StorageMediumMemory) {
			t.Errorf("volume %s is not in memory", volume.Name)
		}
		if claim := volume.PersistentVolumeClaim; claim != nil && (volume.Name != volumeData || bot.Spec.Storage == nil || claim.ClaimName != BotClaimName(bot)) {
			t.Errorf("volume %s is claim %s, which is not the bot's", volume.Name, claim.ClaimName)
		}
		if volume.EmptyDir == nil && volume.Projected == nil && volume.PersistentVolumeClaim == nil && volume.DownwardAPI == nil {
			t.Errorf("volume %s is of a kind that a bot must not have", volume.Name)
		}
		if volume.Projected != nil && volume.Name != volumeKeyserver {
			t.Errorf("volume %s could hold a token", volume.Name)
		}
	}
	return volumes
}

func values(env []corev1.EnvVar) []string {
	var result []string
	for _, variable := range env {
		result = append(result, variable.Value)
	}
	return result
}

func resourcesIn(bot *v1alpha1.BotDeployment) []*v1alpha1.BotResources {
	all := []*v1alpha1.BotResources{bot.Spec.Resources}
	for _, h := range bot.Spec.Helpers {
		all = append(all, h.Resources)
	}
	return all
}

// TestWhatIsReservedOfADisk: a share of what a container may write, unless the bot says otherwise; and what a sweep
// reserves no quota counts.
func TestWhatIsReservedOfADisk(t *testing.T) {
	list := func(disk string) corev1.ResourceList {
		return corev1.ResourceList{corev1.ResourceEphemeralStorage: resource.MustParse(disk)}
	}
	for name, tc := range map[string]struct {
		said           *v1alpha1.BotResources
		scratch        string
		request, limit string
	}{
		"nothing":          {nil, "", "288Mi", "2304Mi"},
		"a scratch of its": {nil, "3Gi", "672Mi", "5376Mi"},
		"an odd scratch":   {nil, "1000", "289Mi", "2415920104"},
		"a limit":          {&v1alpha1.BotResources{Limits: list("4Gi")}, "", "4Gi", "4Gi"},
		"a request":        {&v1alpha1.BotResources{Requests: list("1Gi")}, "", "1Gi", "2304Mi"},
		"a larger request": {&v1alpha1.BotResources{Requests: list("9Gi")}, "", "9Gi", "9Gi"},
		"both":             {&v1alpha1.BotResources{Requests: list("1Mi"), Limits: list("4Gi")}, "", "1Mi", "4Gi"},
	} {
		bot := &v1alpha1.BotDeployment{Spec: v1alpha1.BotDeploymentSpec{Resources: tc.said}}
		if tc.scratch != "" {
			bot.Spec.Scratch = []v1alpha1.BotScratch{{Path: "/cache", Size: resource.MustParse(tc.scratch)}}
		}
		got := botContainer(bot).Resources
		request, limit := got.Requests[corev1.ResourceEphemeralStorage], got.Limits[corev1.ResourceEphemeralStorage]
		if request.Cmp(resource.MustParse(tc.request)) != 0 || limit.Cmp(resource.MustParse(tc.limit)) != 0 {
			t.Errorf("%s: %s of %s, want %s of %s", name, request.String(), limit.String(), tc.request, tc.limit)
		}
	}
	tenant := &v1alpha1.Tenant{}
	for _, quota := range TenantResourceQuotas(tenant, "ns") {
		if hard, counts := quota.Spec.Hard[corev1.ResourceRequestsEphemeralStorage]; counts != (quota.Name == QuotaStorageName) || counts && hard.Cmp(MostDisk(tenant)) != 0 {
			t.Errorf("%s counts %v: %s", quota.Name, counts, hard.String())
		}
	}
}
