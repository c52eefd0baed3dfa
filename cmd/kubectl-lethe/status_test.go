package main

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/test/env"
)

// conditionsFor are conditions of a generation: type=status/reason, with a message each.
func conditionsFor(generation int64, said ...[2]string) []metav1.Condition {
	var out []metav1.Condition
	for _, s := range said {
		kind, rest, _ := strings.Cut(s[0], "=")
		state, reason, _ := strings.Cut(rest, "/")
		out = append(out, metav1.Condition{Type: kind, Status: metav1.ConditionStatus(state), Reason: reason, Message: s[1], ObservedGeneration: generation, LastTransitionTime: metav1.NewTime(day0.Add(-180e9))})
	}
	return out
}

func writeStatus(t *testing.T, o client.Object) {
	t.Helper()
	if err := testEnv.Client.Status().Update(t.Context(), o); err != nil {
		t.Fatal(err)
	}
}

// statusWorld has a tenant that is ready, a bot that is, one that crashes, and one that nobody has looked at.
func statusWorld(t *testing.T, ns string) {
	t.Helper()
	makeTenant(t, ns, nil)
	var tenant v1alpha1.Tenant
	if err := testEnv.Client.Get(t.Context(), clientKey("", ns), &tenant); err != nil {
		t.Fatal(err)
	}
	tenant.Status.ObservedGeneration = tenant.Generation
	tenant.Status.Conditions = conditionsFor(tenant.Generation, [2]string{"Ready=True/Ready", "fine"}, [2]string{"KeysReady=True/KeysAvailable", "fine"})
	writeStatus(t, &tenant)
	for _, name := range []string{"answers", "crashes", "fresh"} {
		bot := &v1alpha1.BotDeployment{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}, Spec: v1alpha1.BotDeploymentSpec{Image: "example.org/" + name + ":1"}}
		create(t, bot)
		bot.Status = v1alpha1.BotDeploymentStatus{ObservedGeneration: bot.Generation, Tenant: ns}
		switch name {
		case "answers":
			bot.Status.Conditions = conditionsFor(bot.Generation, [2]string{"Ready=True/Running", "the pod is ready"}, [2]string{"WorkloadReady=True/Running", "See condition Ready."})
		case "crashes":
			bot.Status.Conditions = conditionsFor(bot.Generation, [2]string{"Ready=False/CrashLoopBackOff", "See condition WorkloadReady."}, [2]string{"Stalled=True/CrashLoopBackOff", "See condition WorkloadReady."},
				[2]string{"WorkloadReady=False/CrashLoopBackOff", "the container ended with 1"})
		default:
			continue
		}
		writeStatus(t, bot)
	}
}

func TestStatus(t *testing.T) {
	const ns = "status-a"
	statusWorld(t, ns)
	c := newCaller(t)
	o := c.run("", "status", "-n", ns)
	golden(t, "status.txt", regexp.MustCompile(`[0-9a-f]{16}`).ReplaceAllString(o.out, "KID"))
	if o.code != exitNeedsAction {
		t.Errorf("exit code %d, want %d: a bot crashes", o.code, exitNeedsAction)
	}
	for args, code := range map[string]int{"bot/answers": 0, "bot/crashes": exitNeedsAction, "bot/fresh": exitProgressing, "tenant/" + ns: 0, "bot answers fresh": exitProgressing,
		"bot " + ns + "/answers": 0, "bots": exitNeedsAction, "botdeployments.lethe.dev/answers": 0} {
		if o := c.run("", append([]string{"status", "-n", ns}, strings.Fields(args)...)...); o.code != code {
			t.Errorf("status %s: exit code %d, want %d:\n%s%s", args, o.code, code, o.out, o.errOut)
		}
	}
	if o := c.run("", "status", "bots,stores", "-A", "-l", "no=such"); o.code != 1 || !strings.Contains(o.errOut, "nothing was found") {
		t.Errorf("nothing: exit code %d: %s", o.code, o.errOut)
	}
	var list struct {
		Items []struct {
			Kind, ObjectKind, State, Reason string
			Metadata                        struct{ Name, Namespace string }
			Problems                        []objectProblem
		}
	}
	for _, format := range []string{"json", "yaml"} {
		o = c.run("", "status", "-n", ns, "bots", "-o", format)
		if o.code != exitNeedsAction || !strings.Contains(o.out, "CrashLoopBackOff") {
			t.Errorf("-o %s: exit code %d\n%s", format, o.code, o.out)
		}
		if format == "json" && json.Unmarshal([]byte(o.out), &list) != nil {
			t.Errorf("no JSON: %s", o.out)
		}
	}
	if len(list.Items) != 3 || list.Items[1].Metadata.Name != "crashes" || list.Items[1].Metadata.Namespace != ns || list.Items[1].State != stateNeedsAction || len(list.Items[1].Problems) != 1 ||
		list.Items[1].Problems[0].Next != "kubectl lethe logs "+ns+"/crashes --previous" {
		t.Errorf("for programs: %+v", list)
	}
	if o := c.run("", "status", "-n", ns, "bots", "-o", "name"); o.out != "botdeployment.lethe.dev/answers\nbotdeployment.lethe.dev/crashes\nbotdeployment.lethe.dev/fresh\n" {
		t.Errorf("by name: %q", o.out)
	}
	for _, tc := range []struct {
		args []string
		says string
	}{
		{[]string{canary}, "say tenant, bot, store or policy, with a name where one is meant: bot/support, or bot acme-bots/support"},
		{[]string{"pods"}, "say tenant, bot, store or policy"},
		{[]string{"bot", canary}, "the name: say namespace/name, or a name together with -n"},
		{[]string{"bot/nobody"}, "there is no botdeployments nobody in namespace " + ns + "; `kubectl lethe status -A` shows what there is"},
		{[]string{"bot/answers", "-l", "a=b"}, "-l selects objects, and a name names one: give one of them"},
		{[]string{"-l", "!!"}, "-l: not a label selector; say key=value,key=value"},
		{[]string{"-o", "xml"}, "-o: say json or yaml or name, or leave it out"},
	} {
		if o := c.fails("", append([]string{"status", "-n", ns}, tc.args...), tc.says); o.code != 1 || strings.Contains(o.errOut, canary) {
			t.Errorf("%v: exit code %d: %s", tc.args, o.code, o.errOut)
		}
	}
}

// TestStatusOfWhoseItIs: the Tenant is shown that has the namespace. Where none has it, one that lists it says why.
func TestStatusOfWhoseItIs(t *testing.T) {
	const ns = "status-whose"
	statusWorld(t, ns)
	claims := &v1alpha1.Tenant{ObjectMeta: metav1.ObjectMeta{Name: "a-claims"}, Spec: v1alpha1.TenantSpec{Namespaces: []v1alpha1.TenantNamespace{{Name: ns}}}}
	create(t, claims)
	c := newCaller(t)
	if o := c.run("", "status", "-n", ns); !strings.Contains(o.out, "Tenant "+ns+":") || strings.Contains(o.out, claims.Name) {
		t.Errorf("of a namespace that another lists, too:\n%s%s", o.out, o.errOut)
	}
	var namespace corev1.Namespace
	if err := testEnv.Client.Get(t.Context(), clientKey("", ns), &namespace); err != nil {
		t.Fatal(err)
	}
	delete(namespace.Labels, v1alpha1.LabelTenant)
	if err := testEnv.Client.Update(t.Context(), &namespace); err != nil {
		t.Fatal(err)
	}
	if o := c.run("", "status", "-n", ns); !strings.Contains(o.out, "Tenant "+claims.Name+":") {
		t.Errorf("of a namespace that two list and none has:\n%s%s", o.out, o.errOut)
	}
}

// TestStatusWithTheRightsOfTheCaller: a tenant's people see their bots, and are told what is left out.
func TestStatusWithTheRightsOfTheCaller(t *testing.T) {
	const ns = "status-rights"
	statusWorld(t, ns)
	create(t, &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "view"}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: resources.RoleTenantView},
		Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: "viewer"}}})
	c := newCaller(t)
	c.as = "viewer"
	o := c.run("", "status", "-n", ns)
	if o.code != exitNeedsAction || !strings.Contains(o.out, ns+"/answers: Ready") || !strings.Contains(o.errOut, "you may not read Tenants") {
		t.Errorf("exit code %d:\n%s%s", o.code, o.out, o.errOut)
	}
	c.fails("", []string{"status", "-A"}, "you may not read")
}

// TestStatusOfPromises: what is in force and late needs action, whatever Ready says.
func TestStatusOfPromises(t *testing.T) {
	store := makeWorld(t)
	c := newCaller(t)
	set := func(conditions ...[2]string) {
		t.Helper()
		setStatus(t, store, "", func(s *v1alpha1.DataStoreStatus) {
			s.Conditions = conditionsFor(store.Generation, conditions...)
			s.OverdueRows = "3"
		})
	}
	ready := [2]string{"Ready=True/AwaitingApproval", "in force"}
	for _, tc := range []struct {
		conditions [][2]string
		code       int
		says       []string
	}{
		{[][2]string{ready, {"Compliant=True/Compliant", "measured"}, {"Approved=True/Approved", "as it is"}}, 0, []string{"platform/chat: Ready"}},
		{[][2]string{ready, {"Compliant=False/Overdue", "3 rows are late"}}, exitNeedsAction, []string{"NeedsAction, Overdue", "Compliant: Overdue: 3 rows are late", "next: kubectl lethe plan platform/chat"}},
		{[][2]string{ready, {"Compliant=Unknown/NotMeasured", "not yet"}}, exitProgressing, []string{"Progressing, NotMeasured", "next: kubectl lethe logs --store platform/chat"}},
		{[][2]string{ready, {"Compliant=True/Compliant", "measured"}, {"Approved=False/AwaitingApproval", "more would go"}}, 0, []string{"next: kubectl lethe plan platform/chat, then kubectl lethe approve platform/chat"}},
	} {
		set(tc.conditions...)
		o := c.run("", "status", "store", "platform/chat")
		if o.code != tc.code {
			t.Errorf("exit code %d, want %d:\n%s", o.code, tc.code, o.out)
		}
		for _, says := range tc.says {
			if !strings.Contains(o.out, says) {
				t.Errorf("it does not say %q:\n%s", says, o.out)
			}
		}
	}
}

// TestCompletion: names of the cluster are offered where they belong, with the rights of the caller.
func TestCompletion(t *testing.T) {
	const ns = "status-complete"
	statusWorld(t, ns)
	c := newCaller(t)
	sealed := v1alpha1.SealedValue(strings.TrimSpace(c.ok(canary, "seal", "--bot", ns+"/sealed", "--credential", "telegram-token").out))
	create(t, &v1alpha1.BotDeployment{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "sealed"}, Spec: v1alpha1.BotDeploymentSpec{Image: "example.org/bot:1",
		Credentials: []v1alpha1.Credential{{Name: "telegram-token", Sealed: sealed}}}})
	makeWorld(t)
	complete := func(args ...string) []string {
		t.Helper()
		// Flags that stand before the words count for what is offered.
		o := c.runAs("", append([]string{"__complete", "--kubeconfig", c.kubeconfig}, args...))
		var out []string
		for line := range strings.Lines(o.out) {
			if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, ":") {
				out = append(out, line)
			}
		}
		return out
	}
	for _, tc := range []struct {
		args []string
		want []string
	}{
		{[]string{"-n", ns, "logs", "an"}, []string{"answers"}},
		{[]string{"logs", ns + "/c"}, []string{ns + "/crashes"}},
		{[]string{"keys", "public", "status-comp"}, []string{ns}},
		{[]string{"explain", "platform/"}, []string{"platform/chat"}},
		{[]string{"seal", "--bot", ns + "/f"}, []string{ns + "/fresh"}},
		{[]string{"seal", "--bot", ns + "/sealed", "--credential", ""}, []string{"telegram-token"}},
		{[]string{"approve", "platform/chat", "--dataset", "pay"}, []string{"payments"}},
		{[]string{"verify", "--policy", "publ"}, []string{"published-promise"}},
		{[]string{"status", "bo"}, []string{"bot"}},
		{[]string{"-n", ns, "status", "bot/a"}, []string{"bot/answers"}},
		{[]string{"-n", ns, "status", "bot", "cr"}, []string{"crashes"}},
		{[]string{"keys", "rotate", "data", "--tenant", "status-comp"}, []string{ns}},
		{[]string{"status", "-o", ""}, forPrograms},
		{[]string{"-n", "status-comp"}, []string{ns}},
	} {
		if got := complete(tc.args...); !slices.Equal(got, tc.want) {
			t.Errorf("%v: offered %v, want %v", tc.args, got, tc.want)
		}
	}
}

func TestLogs(t *testing.T) {
	const ns = "logs-a"
	statusWorld(t, ns)
	kubelet := newKubelet(t)
	ran := func(name, container string, labels map[string]string, restarted bool) *corev1.Pod {
		t.Helper()
		account := strings.TrimSuffix(name, "-0")
		if container == resources.ContainerSweeper {
			account = resources.SweeperName("chat")
		}
		if err := testEnv.As(t, "system:serviceaccount:"+env.SystemNamespace+":"+resources.ServiceAccountManager, "system:masters").Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: account}, AutomountServiceAccountToken: new(bool)}); err != nil {
			t.Fatal(err)
		}
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name, Labels: labels}, Spec: corev1.PodSpec{NodeName: kubelet.node, ServiceAccountName: account, AutomountServiceAccountToken: new(bool),
			InitContainers: []corev1.Container{{Name: "unseal", Image: "lethe:1"}}, Containers: []corev1.Container{{Name: container, Image: "bot:1"}}}}
		c := testEnv.AsCluster(t)
		if err := c.Create(t.Context(), pod); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := c.Delete(cleanupContext(), pod, client.GracePeriodSeconds(0)); err != nil {
				t.Error(err)
			}
		})
		started := corev1.ContainerStatus{Name: container, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}
		if restarted {
			started.LastTerminationState.Terminated = &corev1.ContainerStateTerminated{ExitCode: 1}
		}
		waiting := corev1.ContainerStatus{Name: container, State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "PodInitializing"}}}
		unsealed := corev1.ContainerStatus{Name: "unseal", State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 0}}}
		pod.Status = corev1.PodStatus{Phase: corev1.PodRunning, InitContainerStatuses: []corev1.ContainerStatus{unsealed}, ContainerStatuses: []corev1.ContainerStatus{started}}
		if name == resources.BotPodName("fresh") {
			pod.Status.ContainerStatuses = []corev1.ContainerStatus{waiting}
		}
		if err := c.Status().Update(t.Context(), pod); err != nil {
			t.Fatal(err)
		}
		return pod
	}
	ran(resources.BotPodName("answers"), "bot", resources.BotLabels("answers"), false)
	ran(resources.BotPodName("crashes"), "bot", resources.BotLabels("crashes"), true)
	ran(resources.BotPodName("fresh"), "bot", resources.BotLabels("fresh"), false)
	c := newCaller(t)
	for _, tc := range []struct{ args, want string }{
		{"answers", "answers-bot-0 bot"}, {"answers -f", "answers-bot-0 bot follow=true"}, {"crashes --previous", "crashes-bot-0 bot previous=true"},
		{"answers --tail 5 --timestamps", "answers-bot-0 bot tailLines=5 timestamps=true"}, {"answers --since 10m", "answers-bot-0 bot sinceSeconds=600"}, {"fresh -c unseal", "fresh-bot-0 unseal"},
		{"answers --tail 0", "answers-bot-0 bot tailLines=0"},
	} {
		if o := c.ok("", append([]string{"logs", "-n", ns}, strings.Fields(tc.args)...)...); o.out != tc.want+"\nsecond line without an end" {
			t.Errorf("logs %s: %q, want %q", tc.args, o.out, tc.want)
		}
	}
	for _, tc := range []struct{ args, says string }{
		{"", "name one bot, or a store with --store"},
		{"answers crashes", "name one bot, or a store with --store"},
		{"nobody", "there is no BotDeployment " + ns + "/nobody; `kubectl get bots -A` lists them"},
		{"fresh", "container bot has not started yet, so it has no log; `kubectl lethe status bot " + ns + "/fresh` says what it waits for"},
		{"answers --previous", "container bot was not restarted, so there is no earlier log: leave --previous out"},
		{"answers -c " + canary, "-c: the pod has no such container; it has unseal, bot"},
		{"answers -f --previous", "give one of them"},
		{"answers --tail=-2", "--tail: say how many lines, 0 or more"},
		{"--store nowhere/chat", "there is no DataStore nowhere/chat; `kubectl get stores -A` lists them"},
	} {
		if o := c.fails("", append([]string{"logs", "-n", ns}, strings.Fields(tc.args)...), tc.says); strings.Contains(o.errOut, canary) {
			t.Errorf("logs %s repeats a value: %s", tc.args, o.errOut)
		}
	}
	bot := &v1alpha1.BotDeployment{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "rests"}, Spec: v1alpha1.BotDeploymentSpec{Image: "example.org/bot:1", OperatingMode: v1alpha1.ModeSuspended}}
	create(t, bot)
	c.fails("", []string{"logs", "-n", ns, "rests"}, "is suspended and has no pod, so there is no log; set spec.operatingMode: Running to start it")

	// The log of a sweep is the youngest pod's, and --previous that before.
	store := &v1alpha1.DataStore{}
	decodeFrom(t, "testdata/datastore.yaml", "DataStore", store)
	store.Namespace, store.Spec.Postgres.Password = ns, v1alpha1.SealedValue("seal.v1"+strings.Repeat(".none", 5))
	create(t, store)
	c.fails("", []string{"logs", "--store", ns + "/chat"}, "no sweep is there", "kubectl lethe status store "+ns+"/chat")
	first := ran("chat-sweep-1", "sweeper", resources.StoreLabels("chat", resources.ComponentSweeper), false)
	if o := c.ok("", "logs", "--store", ns+"/chat"); !strings.HasPrefix(o.out, first.Name+" sweeper\n") || !strings.Contains(o.errOut, "sweep "+first.Name) {
		t.Errorf("the last sweep: %q %q", o.out, o.errOut)
	}
	c.fails("", []string{"logs", "--store", ns + "/chat", "--previous"}, "no sweep before the last is there")

	// View reads no logs, Operate does.
	for user, role := range map[string]string{"views": resources.RoleTenantView, "operates": resources.RoleTenantOperate} {
		create(t, &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: user}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
			Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: user}}})
		c.as = user
		if role == resources.RoleTenantOperate {
			c.ok("", "logs", "-n", ns, "answers")
			continue
		}
		c.fails("", []string{"logs", "-n", ns, "answers"}, fmt.Sprintf("you may not read logs in namespace %s: a Tenant's spec.access gives it with the role Operate", ns))
	}
}
