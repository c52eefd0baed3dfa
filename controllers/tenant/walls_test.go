package tenant_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	tenantcontroller "github.com/lethe-dev/lethe/controllers/tenant"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/test/operator"
)

// TestEgressCeiling: whoever may write bots opens no more than the Tenant's ceiling lets through, and is told which
// element asks for more; when the ceiling moves the policy follows.
func TestEgressCeiling(t *testing.T) {
	w, tenant := operator.WithTenant(t, "ceiling")
	bot := operator.MakeBot("ceiling-a", "b")
	bot.Spec.Egress = []v1alpha1.EgressRule{{CIDR: "9.0.0.0/8", Ports: []v1alpha1.EgressPort{{Port: 443}}}, {CIDR: "8.0.0.0/8", Ports: []v1alpha1.EgressPort{{Port: 443}}}}
	w.Create(bot)
	w.Becomes(bot, "Ready=True")
	operator.Edit(w, tenant, func(t *v1alpha1.Tenant) {
		t.Spec.EgressCeiling = &v1alpha1.EgressCeiling{Allow: []v1alpha1.EgressLimit{{CIDR: "9.1.0.0/16", Ports: []v1alpha1.EgressPortRange{{Port: 1, EndPort: 1000}}}}}
	})
	w.Becomes(bot, "Stalled=True/"+v1alpha1.ReasonEgressBeyondCeiling)
	w.Becomes(bot, "IsolationReady=False/"+v1alpha1.ReasonEgressBeyondCeiling)
	c := meta.FindStatusCondition(bot.Status.Conditions, v1alpha1.ConditionIsolationReady)
	if !strings.HasPrefix(c.Message, "spec.channels[main], spec.egress[0], spec.egress[1] ") {
		t.Errorf("says %q", c.Message)
	}
	policy := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "ceiling-a", Name: resources.BotName("b")}}
	if err := w.Get(policy); err != nil || len(policy.Spec.Egress) != 2 || policy.Spec.Egress[0].To[0].IPBlock.CIDR != "9.1.0.0/16" {
		t.Errorf("opens %+v, %v", policy.Spec.Egress, err)
	}
	w.OneEvent(bot, v1alpha1.ReasonEgressBeyondCeiling)
	operator.Edit(w, tenant, func(t *v1alpha1.Tenant) { t.Spec.EgressCeiling = nil })
	w.Becomes(bot, "Ready=True")
}

// TestBotWithoutEgressIsToldWhereTheKeyserverIs: it has no DNS. Where nobody knows an address, it says so instead of
// a pod that waits for ever.
func TestBotWithoutEgressIsToldWhereTheKeyserverIs(t *testing.T) {
	w, _ := operator.WithTenant(t, "silent")
	w.Addresses = ""
	w.PublishCA("headless")
	bot := operator.MakeBot("silent-a", "b")
	bot.Spec.Channels = nil
	w.Eventually("no address", func() error {
		cm := resources.TenantCABundle(&v1alpha1.Tenant{}, "silent-a", "", "")
		if err := w.Get(cm); err != nil || cm.Data[resources.AddressesKey] != "" {
			return fmt.Errorf("%v %w", cm.Data, errors.Join(err, operator.ErrNotYet))
		}
		return nil
	})
	w.Create(bot)
	w.Becomes(bot, "CredentialsReady=False/"+v1alpha1.ReasonKeyserverAddressUnknown)
	if err := w.Get(operator.SetOf(bot)); client.IgnoreNotFound(err) != nil || err == nil {
		t.Errorf("a pod was made that could never start: %v", err)
	}
	operator.Edit(w, bot, func(b *v1alpha1.BotDeployment) { b.Spec.OperatingMode = v1alpha1.ModeSuspended })
	w.Becomes(bot, "WorkloadReady=False/Suspended")
	w.Addresses = "10.96.0.8\n"
	w.PublishCA("with an address")
	operator.Edit(w, bot, func(b *v1alpha1.BotDeployment) { b.Spec.OperatingMode = v1alpha1.ModeRunning })
	w.Eventually("ready", func() error {
		if err := w.IsNow(bot, "Ready=True"); err != nil {
			return err
		}
		return w.Admin.Get(context.Background(), client.ObjectKeyFromObject(operator.SetOf(bot)), &appsv1.StatefulSet{})
	})
}

func openPolicy(namespace, name string) *networkingv1.NetworkPolicy {
	return &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Spec: networkingv1.NetworkPolicySpec{
		PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeEgress}, Egress: []networkingv1.NetworkPolicyEgressRule{{}}}}
}

// TestForeignNetworkPolicy: one more policy opens what ours close, whoever made it and whatever labels it carries. No
// bot starts until it is gone or meant; what runs is left alone.
func TestForeignNetworkPolicy(t *testing.T) {
	w, tenant := operator.WithTenant(t, "opened")
	w.Becomes(tenant, "IsolationReady=True")
	running := operator.MakeBot("opened-a", "running")
	w.Create(running)
	w.Becomes(running, "Ready=True")
	set := operator.SetOf(running)
	if err := w.Get(set); err != nil {
		t.Fatal(err)
	}
	labelled := openPolicy("opened-a", "disguised")
	labelled.Labels = resources.Labels(resources.ComponentIsolation)
	owned := openPolicy("opened-a", "owned")
	owned.Labels, owned.OwnerReferences = labelled.Labels, resources.OwnerReference(tenant, resources.KindTenant)
	for i, foreign := range []*networkingv1.NetworkPolicy{openPolicy("opened-a", "open"), labelled, owned} {
		t.Run(foreign.Name, func(t *testing.T) {
			w.T = t
			w.Create(foreign)
			w.Becomes(tenant, "Stalled=True/"+v1alpha1.ReasonForeignNetworkPolicy)
			w.Becomes(tenant, "IsolationReady=False/"+v1alpha1.ReasonForeignNetworkPolicy)
			c := meta.FindStatusCondition(tenant.Status.Conditions, v1alpha1.ConditionIsolationReady)
			if !strings.Contains(c.Message, "networkpolicies.networking.k8s.io opened-a/"+foreign.Name) {
				t.Errorf("says %q", c.Message)
			}
			bot := operator.MakeBot("opened-a", fmt.Sprintf("new-%d", i))
			w.Create(bot)
			w.Becomes(bot, "IsolationReady=False/"+v1alpha1.ReasonForeignNetworkPolicy)
			w.Becomes(running, "IsolationReady=False/"+v1alpha1.ReasonForeignNetworkPolicy)
			w.Calm()
			if err := w.Get(operator.SetOf(bot)); client.IgnoreNotFound(err) != nil || err == nil {
				t.Errorf("the new bot was started: %v", err)
			}
			if now := operator.SetOf(running); w.Get(now) != nil || now.Generation != set.Generation || *now.Spec.Replicas != 1 {
				t.Error("what runs was touched")
			}
			if i == 0 {
				operator.Edit(w, tenant, func(t *v1alpha1.Tenant) {
					t.Spec.ForeignNetworkPolicies = []v1alpha1.ForeignNetworkPolicy{{Name: foreign.Name}}
				})
			} else {
				w.Delete(foreign)
			}
			w.Becomes(tenant, "Ready=True")
			w.Becomes(bot, "Ready=True")
			w.Becomes(running, "Ready=True")
		})
	}
	w.T = t
	// Stopping needs nobody's leave, and a restart forgets nothing.
	w.Create(openPolicy("opened-a", "again"))
	w.Becomes(running, "IsolationReady=False/"+v1alpha1.ReasonForeignNetworkPolicy)
	w.Restart()
	operator.Edit(w, running, func(b *v1alpha1.BotDeployment) { b.Spec.OperatingMode = v1alpha1.ModeSuspended })
	w.Eventually("stopped", func() error {
		now := operator.SetOf(running)
		if err := w.Get(now); err != nil || *now.Spec.Replicas != 0 {
			return fmt.Errorf("replicas %v, %w", now.Spec.Replicas, errors.Join(err, operator.ErrNotYet))
		}
		return nil
	})
	w.Becomes(tenant, "IsolationReady=False/"+v1alpha1.ReasonForeignNetworkPolicy)
}

// TestForeignPolicyAtAdoption: a namespace that is taken over brings its policies along.
func TestForeignPolicyAtAdoption(t *testing.T) {
	w := operator.NewWorld(t)
	namespace := operator.TestEnv.Namespace(t, "adopted", nil)
	w.Create(openPolicy(namespace.Name, "from-before"))
	operator.Edit(w, namespace, func(n *corev1.Namespace) {
		n.Labels = map[string]string{v1alpha1.LabelTenant: "adopter"}
	})
	tenant := operator.MakeTenant("adopter", namespace.Name)
	w.Create(tenant)
	w.Becomes(tenant, "IsolationReady=False/"+v1alpha1.ReasonForeignNetworkPolicy)
	bot := operator.MakeBot(namespace.Name, "b")
	w.Create(bot)
	w.Becomes(bot, "Stalled=True/"+v1alpha1.ReasonForeignNetworkPolicy)
	w.Delete(openPolicy(namespace.Name, "from-before"))
	w.Becomes(bot, "Ready=True")
}

// TestForeignObjectsAtAdoption: a namespace that is taken over brings along what may undo its walls from within: a
// Service that answers the name of a host, pods that can mount a bot's volume, and what makes more of them. No bot
// starts beside them until they are gone or meant, also after a restart, and what belongs to them need not be named.
func TestForeignObjectsAtAdoption(t *testing.T) {
	w := operator.NewWorld(t)
	namespace := operator.TestEnv.Namespace(t, "strangers", nil).Name
	pod := corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "x"}},
		Spec: corev1.PodSpec{AutomountServiceAccountToken: new(bool), Containers: []corev1.Container{{Name: "c", Image: "i"}}}}
	selector := &metav1.LabelSelector{MatchLabels: pod.Labels}
	jobTemplate := batchv1.JobSpec{Template: *pod.DeepCopy()}
	jobTemplate.Template.Spec.RestartPolicy = corev1.RestartPolicyNever
	named := func(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Namespace: namespace, Name: name} }
	deployment := &appsv1.Deployment{ObjectMeta: named("deploy"), Spec: appsv1.DeploymentSpec{Selector: selector, Template: pod}}
	objects := []client.Object{
		&corev1.Service{ObjectMeta: named("com"), Spec: corev1.ServiceSpec{ClusterIP: "None", Ports: []corev1.ServicePort{{Port: 80}}}},
		&discoveryv1.EndpointSlice{ObjectMeta: named("slice"), AddressType: discoveryv1.AddressTypeIPv4, Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"192.0.2.1"}}}},
		&corev1.Pod{ObjectMeta: named("pod"), Spec: pod.Spec},
		&batchv1.Job{ObjectMeta: named("job"), Spec: jobTemplate},
		&batchv1.CronJob{ObjectMeta: named("cron"), Spec: batchv1.CronJobSpec{Schedule: "0 0 1 1 *", JobTemplate: batchv1.JobTemplateSpec{Spec: jobTemplate}}},
		&appsv1.StatefulSet{ObjectMeta: named("set"), Spec: appsv1.StatefulSetSpec{Selector: selector, Template: pod}},
		&appsv1.ReplicaSet{ObjectMeta: named("replicas"), Spec: appsv1.ReplicaSetSpec{Selector: selector, Template: pod}},
		deployment,
		&appsv1.DaemonSet{ObjectMeta: named("daemon"), Spec: appsv1.DaemonSetSpec{Selector: selector, Template: pod}},
		&corev1.ReplicationController{ObjectMeta: named("rc"), Spec: corev1.ReplicationControllerSpec{Selector: pod.Labels, Template: &pod}},
	}
	if err := operator.TestEnv.Client.Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: named("default")}); client.IgnoreAlreadyExists(err) != nil {
		t.Fatal(err)
	}
	for _, o := range objects {
		w.Create(o)
	}
	// What belongs to one of them is not said twice.
	owned := func(o client.Object, by client.Object, kind string) client.Object {
		o.SetOwnerReferences([]metav1.OwnerReference{{APIVersion: "apps/v1", Kind: kind, Name: by.GetName(), UID: by.GetUID(), Controller: new(true)}})
		return o
	}
	w.Create(owned(&appsv1.ReplicaSet{ObjectMeta: named("deploy-1"), Spec: appsv1.ReplicaSetSpec{Selector: selector, Template: pod}}, deployment, "Deployment"))
	w.Create(&discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "com-1", Labels: map[string]string{discoveryv1.LabelServiceName: "com"}},
		AddressType: discoveryv1.AddressTypeIPv4, Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"192.0.2.1"}}}})

	operator.Edit(w, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, func(n *corev1.Namespace) {
		n.Labels = map[string]string{v1alpha1.LabelTenant: "strangers"}
	})
	tenant := operator.MakeTenant("strangers", namespace)
	w.Create(tenant)
	w.Becomes(tenant, "IsolationReady=False/"+v1alpha1.ReasonForeignObject)
	w.Becomes(tenant, "Stalled=True/"+v1alpha1.ReasonForeignObject)
	if message := tenantcontroller.SuspicionOf(tenant); !strings.Contains(message, namespace+"/") || !strings.Contains(message, "and 5 more") || !strings.Contains(message, "spec.foreignObjects") {
		t.Errorf("says %q", message)
	}
	bot := operator.MakeKeeper(namespace, "b", "Retain")
	w.Create(bot)
	w.Becomes(bot, "Stalled=True/"+v1alpha1.ReasonForeignObject)
	w.Restart()
	w.Calm()
	w.Becomes(tenant, "IsolationReady=False/"+v1alpha1.ReasonForeignObject)
	if err := w.Get(operator.SetOf(bot)); client.IgnoreNotFound(err) != nil || err == nil {
		t.Errorf("the bot was started: %v", err)
	}

	// All are meant but one, each of which is named by what it is.
	operator.Edit(w, tenant, func(tenant *v1alpha1.Tenant) {
		for _, o := range objects[1:] {
			kind := strings.TrimPrefix(fmt.Sprintf("%T", o), "*v1.")
			tenant.Spec.ForeignObjects = append(tenant.Spec.ForeignObjects, v1alpha1.ForeignObject{Kind: v1alpha1.ForeignObjectKind(kind), Name: o.GetName()})
		}
	})
	w.Eventually("only the Service is left to say", func() error {
		if err := w.Get(tenant); err != nil {
			return err
		}
		if message := tenantcontroller.SuspicionOf(tenant); !strings.Contains(message, "there is still Service "+namespace+"/com:") {
			return fmt.Errorf("says %q", message)
		}
		return nil
	})
	w.Delete(objects[0])
	w.Delete(&discoveryv1.EndpointSlice{ObjectMeta: named("com-1")})
	w.Restart() // or a minute later: nothing of theirs is watched
	w.Becomes(tenant, "IsolationReady=True")
	w.Becomes(bot, "Ready=True")
	t.Cleanup(func() {
		left := append(slices.Clone(objects[1:]), &appsv1.ReplicaSet{ObjectMeta: named("deploy-1")})
		for _, o := range left {
			if err := operator.TestEnv.Client.Delete(context.Background(), o, client.GracePeriodSeconds(0), client.PropagationPolicy(metav1.DeletePropagationBackground)); client.IgnoreNotFound(err) != nil {
				t.Error(err)
			}
		}
	})
	// Our own is no stranger when it is looked at again.
	w.Create(openPolicy(namespace, "again"))
	w.Becomes(tenant, "IsolationReady=False/"+v1alpha1.ReasonForeignNetworkPolicy)
	w.Delete(openPolicy(namespace, "again"))
	w.Becomes(tenant, "IsolationReady=True")
	w.Becomes(bot, "Ready=True")
}
