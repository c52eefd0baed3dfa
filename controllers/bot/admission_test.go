package bot_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/test/operator"
)

// TestTemplatesThatAdmissionChanges: rules of a cluster for pods change the templates of StatefulSets and CronJobs,
// too. Bots and stores come up, are told of it once, and cost nothing afterwards, over ten resyncs and a restart;
// what a hand changes is put right all the same. A container that is injected is told as a trouble, makes no loop
// either, and is gone soon after the rule is.
func TestTemplatesThatAdmissionChanges(t *testing.T) {
	w := operator.NewWorld(t)
	const namespace = "autogen-a"
	tenant := operator.RichTenant("autogen", namespace)
	w.Create(tenant)
	w.Becomes(tenant, "Ready=True")
	probe, probeStore := operator.MakeBot(namespace, "probe"), makeStore(namespace, "probe")
	probe.UID, probeStore.UID = "probe", "probe"
	set := resources.BotStatefulSet(operator.TestSettings(), probe, tenant, "x")
	cron := resources.SweepCronJob(operator.TestSettings(), probeStore, tenant, "x")
	mutates(w, "autogen-sets", namespace, "apps", "statefulsets", "", platformRules("/spec/template", "Object.spec.template"))
	mutates(w, "autogen-crons", namespace, "batch", "cronjobs", "", platformRules("/spec/jobTemplate/spec/template", "Object.spec.jobTemplate.spec.template"))
	unmesh := mutates(w, "autogen-mesh", namespace, "apps", "statefulsets", `object.metadata.name.startsWith("meshed") && !object.spec.template.spec.containers.exists(c, c.name == "mesh")`,
		`[JSONPatch{op: "add", path: "/spec/template/spec/containers/-", value: Object.spec.template.spec.containers{name: "mesh", image: "registry.example/mesh:v1", imagePullPolicy: "IfNotPresent"}}]`)
	set.Name = "meshed-probe"
	w.Eventually("the rules are in force", func() error {
		s, c := set.DeepCopy(), cron.DeepCopy()
		if err := errors.Join(w.Cluster.Create(t.Context(), s, client.DryRunAll), w.Cluster.Create(t.Context(), c, client.DryRunAll)); err != nil {
			return err
		}
		if !isPlatforms(s.Spec.Template) || !isPlatforms(c.Spec.JobTemplate.Spec.Template) || len(s.Spec.Template.Spec.Containers) != 2 {
			return operator.ErrNotYet
		}
		return nil
	})

	bot, plain, meshed, store := operator.RichBot(namespace, "rich"), operator.MakeBot(namespace, "plain"), operator.MakeBot(namespace, "meshed"), makeStore(namespace, "chat")
	bot.Spec.Args = append(bot.Spec.Args, strings.Repeat("long ", 40))
	bots := []*v1alpha1.BotDeployment{bot, plain, meshed}
	w.Create(operator.RichConfig(bot), bot, plain, meshed, store)
	for _, b := range bots {
		w.Becomes(b, "Ready=True")
	}
	cron = &batchv1.CronJob{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: resources.SweepName(store.Name)}}
	w.Eventually("the CronJob is noted down", func() error {
		if err := w.Get(cron); err != nil {
			return err
		}
		if cron.Annotations[v1alpha1.AnnotationAdmitted] == "" {
			return operator.ErrNotYet
		}
		return nil
	})
	for _, o := range []client.Object{bot, plain, meshed, store} {
		w.OneEvent(o, v1alpha1.ReasonTemplateChanged)
	}
	w.Calm()
	if template := setOf(w, bot).Spec.Template; !isPlatforms(template) || !isPlatforms(cron.Spec.JobTemplate.Spec.Template) {
		t.Fatalf("nothing was changed, so nothing was tried: %+v", template)
	}

	// Nothing moves any more.
	versions := w.Versions()
	w.Stop()
	w.Resync, w.Every = operator.ResyncEvery, operator.ResyncEvery
	now := clocktesting.NewFakePassiveClock(time.Now())
	w.Clock = now
	w.Start(&operator.Wire{})
	begin, beginStores := operator.Passes(t, "botdeployment"), operator.Passes(t, "datastore")
	w.Eventually("a restart and ten resyncs", func() error {
		if bots, stores := operator.Passes(t, "botdeployment")-begin, operator.Passes(t, "datastore")-beginStores; bots < 11*3 || stores < 11 {
			return fmt.Errorf("%d passes over bots, %d over stores", bots, stores)
		}
		return nil
	})
	// One read is of the ConfigMap that a file of the rich bot lies in.
	if written, reads := w.Wire.Written(), w.Wire.Reads.Load(); len(written) > 0 || reads != 1 {
		t.Errorf("a restart and ten resyncs read %d objects past the cache, want 1, and wrote:\n%s", reads, strings.Join(written, "\n"))
	}
	if after := w.Versions(); fmt.Sprint(after) != fmt.Sprint(versions) {
		t.Errorf("versions moved from %v to %v", versions, after)
	}

	// A hand is no admission, whether the keyserver would let its change pass or not.
	for what, hand := range map[string]func(*corev1.PodTemplateSpec){
		"another image":  func(p *corev1.PodTemplateSpec) { p.Spec.Containers[0].Image = "evil.example/bot:v1" },
		"another node":   func(p *corev1.PodTemplateSpec) { p.Spec.NodeSelector["pool"] = "evil" },
		"another label":  func(p *corev1.PodTemplateSpec) { p.Labels["evil"] = "x" },
		"another option": func(p *corev1.PodTemplateSpec) { p.Spec.SetHostnameAsFQDN = operator.PtrTo(true) },
	} {
		right := setOf(w, bot).Spec.Template
		operator.EditAs(w, w.Cluster, operator.SetOf(bot), func(s *appsv1.StatefulSet) { hand(&s.Spec.Template) })
		w.Eventually(what, func() error {
			if is := setOf(w, bot).Spec.Template; !equality.Semantic.DeepEqual(is, right) {
				return fmt.Errorf("is %v, was %v", is, right)
			}
			return nil
		})
	}
	rightJob := cron.Spec.JobTemplate.Spec.Template
	operator.EditAs(w, w.Cluster, cron, func(c *batchv1.CronJob) {
		c.Spec.JobTemplate.Spec.Template.Spec.NodeSelector = map[string]string{"pool": "evil"}
	})
	w.Eventually("a sweep on another node", func() error {
		if err := w.Get(cron); err != nil {
			return err
		}
		if is := cron.Spec.JobTemplate.Spec.Template; !equality.Semantic.DeepEqual(is, rightJob) {
			return fmt.Errorf("is %v, was %v", is, rightJob)
		}
		return nil
	})
	// What is asked for is put in force beside what admission adds.
	operator.Edit(w, plain, func(b *v1alpha1.BotDeployment) { b.Spec.Image = "registry.example/bot:v2" })
	w.Eventually("another image that is meant", func() error {
		if is := setOf(w, plain).Spec.Template; is.Spec.Containers[0].Image != "registry.example/bot:v2" || !isPlatforms(is) {
			return operator.ErrNotYet
		}
		return nil
	})

	// A pod of before the injection is right, and gets nothing, since the StatefulSet is not: the bot says that it is
	// that.
	w.KCM.Broken = func(image string) bool { return strings.Contains(image, "broken") }
	operator.Edit(w, meshed, func(b *v1alpha1.BotDeployment) { b.Spec.Image = "registry.example/broken:v2" })
	w.Eventually("the container is injected again", func() error {
		if is := setOf(w, meshed).Spec.Template.Spec.Containers; len(is) != 2 || is[0].Image != meshed.Spec.Image {
			return operator.ErrNotYet
		}
		return nil
	})
	before := setOf(w, meshed)
	before.Spec.Template.Spec.Containers = before.Spec.Template.Spec.Containers[:1]
	podOf(w, meshed, before, "PodInitializing", func(p *corev1.Pod) { p.Status.InitContainerStatuses[0].State.Terminated.ExitCode = 1 })
	now.SetTime(now.Now().Add(time.Minute))
	w.Becomes(meshed, "WorkloadReady=False/PodMismatch")
	if got := messageOf(meshed.Status.Conditions, v1alpha1.ConditionWorkloadReady); !strings.Contains(got, "the StatefulSet: template.spec.containers ") {
		t.Errorf("says %q", got)
	}

	// The rule that injects a container goes, and so does the container, once it is time to ask again.
	unmesh()
	w.Eventually("the rule is gone", func() error {
		s := set.DeepCopy()
		if err := w.Cluster.Create(t.Context(), s, client.DryRunAll); err != nil {
			return err
		}
		if len(s.Spec.Template.Spec.Containers) != 1 {
			return operator.ErrNotYet
		}
		return nil
	})
	if n := len(setOf(w, meshed).Spec.Template.Spec.Containers); n != 2 {
		t.Fatalf("%d containers before it is time", n)
	}
	now.SetTime(now.Now().Add(time.Hour))
	w.Eventually("the container is gone", func() error {
		if is := setOf(w, meshed).Spec.Template; len(is.Spec.Containers) != 1 || !isPlatforms(is) {
			return fmt.Errorf("%d containers", len(is.Spec.Containers))
		}
		return nil
	})
	for _, o := range []client.Object{bot, plain, store} {
		w.OneEvent(o, v1alpha1.ReasonTemplateChanged)
	}
}

func makeStore(namespace, name string) *v1alpha1.DataStore {
	return &v1alpha1.DataStore{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Spec: v1alpha1.DataStoreSpec{
		Type: v1alpha1.StorePostgres, Tenancy: v1alpha1.TenancyDedicated,
		Postgres: &v1alpha1.PostgresStore{Host: "db.example", Database: name, Username: "lethe", Password: operator.SealedPassword},
		Datasets: []v1alpha1.Dataset{operator.Dataset("messages", "Conversations")},
	}}
}

// platformRules is what Kyverno's rules for pods, and GKE Autopilot, do to a template: an option of name resolution,
// a label, a note, resources.
func platformRules(path, of string) string {
	return strings.NewReplacer("PATH", path, "OF", of).Replace(`[
		JSONPatch{op: "add", path: "PATH/spec/dnsConfig", value: OF.spec.dnsConfig{options: [OF.spec.dnsConfig.options{name: "ndots", value: "1"}]}},
		JSONPatch{op: "add", path: "PATH/metadata/labels/team", value: "platform"},
		JSONPatch{op: "add", path: "PATH/metadata/annotations/" + jsonpatch.escapeKey("policies.kyverno.io/last-applied-patches"), value: "add-ndots"},
		JSONPatch{op: "add", path: "PATH/spec/containers/0/resources", value: OF.spec.containers.resources{
			requests: {"cpu": "250m", "memory": "512Mi"}, limits: {"cpu": "250m", "memory": "512Mi"}}}]`)
}

func isPlatforms(t corev1.PodTemplateSpec) bool {
	return t.Spec.DNSConfig != nil && len(t.Spec.DNSConfig.Options) == 1 && t.Labels["team"] == "platform" && t.Annotations["policies.kyverno.io/last-applied-patches"] != "" &&
		t.Spec.Containers[0].Resources.Requests.Cpu().String() == "250m"
}

// mutates is a policy of somebody's that changes each object of a kind in a namespace, whenever it is written. It
// returns what takes it away.
func mutates(w *operator.World, name, namespace, group, plural, condition, patch string) func() {
	w.T.Helper()
	policy := &admissionregistrationv1.MutatingAdmissionPolicy{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: admissionregistrationv1.MutatingAdmissionPolicySpec{
		ReinvocationPolicy: admissionregistrationv1.NeverReinvocationPolicy,
		MatchConstraints: &admissionregistrationv1.MatchResources{
			NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: namespace}},
			ResourceRules: []admissionregistrationv1.NamedRuleWithOperations{{RuleWithOperations: admissionregistrationv1.RuleWithOperations{
				Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Create, admissionregistrationv1.Update},
				Rule:       admissionregistrationv1.Rule{APIGroups: []string{group}, APIVersions: []string{"v1"}, Resources: []string{plural}}}}}},
		Mutations: []admissionregistrationv1.Mutation{{PatchType: admissionregistrationv1.PatchTypeJSONPatch, JSONPatch: &admissionregistrationv1.JSONPatch{Expression: patch}}},
	}}
	if condition != "" {
		policy.Spec.MatchConditions = []admissionregistrationv1.MatchCondition{{Name: "some", Expression: condition}}
	}
	binding := &admissionregistrationv1.MutatingAdmissionPolicyBinding{ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: admissionregistrationv1.MutatingAdmissionPolicyBindingSpec{PolicyName: name}}
	w.Create(policy, binding)
	away := func() {
		for _, object := range []client.Object{binding, policy} {
			if err := client.IgnoreNotFound(w.Admin.Delete(context.Background(), object)); err != nil {
				w.T.Error(err)
			}
		}
	}
	w.T.Cleanup(away)
	return away
}
