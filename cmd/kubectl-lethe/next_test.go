package main

import (
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/internal/status"
)

// oneRule: the reason is of one dataset's or rule's measurement, whose message has the remedy.
const oneRule = "of one measurement"

// without are the reasons that have no next step, and why. What comes right by itself needs nobody.
var without = map[string]string{
	"Ready": "fine", "Stored": "fine", "NoCredentials": "fine", "Running": "fine", "Suspended": "as it is written", "Isolated": "fine", "KeysAvailable": "fine",
	"Empty": "fine", "WithinBudget": "fine", "Compliant": "fine", "Complete": "fine", "Connected": "fine", "Approved": "fine", "NothingToApprove": "fine", "Audit": "as it is written",
	"HoldsBotsOrStores": "InUse, which status leaves out", "HoldsVolumes": "InUse, which status leaves out",

	"Progressing": "under way", "Waiting": "names the step that it waits for", "Deleting": "under way", "Stopping": "under way", "Retrying": "under way", "Terminating": "under way",
	"UpdateWaits": "its turn comes", "PlanChanged": "the next sweep", "NotPlanned": "Ready says why", "NotReady": "under way", "InUse": "the pod before ends", "StoreBusy": "the next sweep",
	"TimeBudget": "the next sweep", "Terminated": "the next sweep",
	"LeftOut": oneRule, "UndeclaredForeignKey": oneRule, "UnindexedForeignKey": oneRule, "Cascade": oneRule, "ForeignKeyCycle": oneRule, "ReplicaIdentity": oneRule, "Guarded": oneRule, "Locked": oneRule,
	"Contradiction": oneRule, "SideEffect": oneRule, "Timeout": oneRule, "Plan": oneRule, "NotReached": oneRule, "BrakeTripped": oneRule + ", and an event", "Returned": oneRule + ", and an event",

	"VolumeKept": "an event", "SweepFinished": "an event", "RestartRequested": "an event", "RolloutStopped": "an event", "TemplateChanged": "an event", "OrphanRemoved": "an event", "HeldByFinalizer": "an event", "UIDRangeRestored": "an event",
	"ExternalIDContested": "an event, and Ready says the same",
}

// reasonsGiven are all reasons that a condition can have.
func reasonsGiven(t *testing.T) map[string]bool {
	t.Helper()
	given := map[string]bool{}
	for _, reason := range v1alpha1.Reasons() {
		given[reason] = true
	}
	if len(given) < 180 || !given["PostStartHookError"] {
		t.Fatalf("%d reasons only", len(given))
	}
	return given
}

// TestEveryReasonHasItsNextStep: a reason that a person has to do something about leads on, and one that does not is
// noted down here with why. Both ways: an entry is of a reason that somebody gives.
func TestEveryReasonHasItsNextStep(t *testing.T) {
	given, known := reasonsGiven(t), map[string]bool{}
	for key := range nextCommands {
		kind, name, ok := strings.Cut(key, "/")
		if !ok {
			kind, name = "", key
		}
		if known[name] = true; !given[name] {
			t.Errorf("nobody gives the reason %s", name)
		}
		if ok && !slices.Contains([]string{resources.KindTenant, resources.KindBotDeployment, resources.KindDataStore, resources.KindDataRetentionPolicy}, kind) {
			t.Errorf("%s: no kind", key)
		}
	}
	for name := range without {
		if !given[name] {
			t.Errorf("nobody gives the reason %s, which needs no step", name)
		}
		if known[name] {
			t.Errorf("%s has a next step and needs none", name)
		}
		if v1alpha1.FactsOf(name).NeedsPerson && !strings.Contains(without[name], "event") && without[name] != oneRule {
			t.Errorf("%s needs a person, says the table of reasons, and no step, says this one: %s", name, without[name])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(given)) {
		if !known[name] && without[name] == "" {
			t.Errorf("%s has no next step: give it one in nextCommands, or say here why it needs none", name)
		}
	}
}

// TestNextStepsAreCommands: each command that status advises is one that exists, with everything filled in, for each
// kind that may have the reason.
func TestNextStepsAreCommands(t *testing.T) {
	lethe := 0
	for _, key := range slices.Sorted(maps.Keys(nextCommands)) {
		kind, name, ok := strings.Cut(key, "/")
		if !ok {
			kind, name = resources.KindBotDeployment, key
			if strings.Contains(nextCommands[key], "--store") {
				kind = resources.KindDataStore
			}
		}
		r := &objectReport{Kind: kind, Namespace: "acme-bots", Name: "support"}
		if kind == resources.KindTenant || kind == resources.KindDataRetentionPolicy {
			r.Namespace = ""
		}
		for _, message := range []string{"", "Container helper ended with exit code 1", "Node worker-1.example does not answer"} {
			next := r.next("acme", name, message)
			if regexp.MustCompile(`OBJECT|NAMESPACE|\bNAME\b|TENANT|\bKIND\b|\bPOD\b|STATEFULSET|\bNODE\b|CONTAINER`).MatchString(next) || strings.Contains(next, "  ") || next != strings.TrimSpace(next) {
				t.Errorf("%s: something is left open: %q", key, next)
			}
			for _, command := range strings.Split(next, ", then ") {
				args, ok := strings.CutPrefix(command, "kubectl lethe ")
				if !ok {
					if !strings.HasPrefix(command, "kubectl ") {
						t.Errorf("%s: no command: %s", key, command)
					}
					continue
				}
				lethe++
				if err := understood(strings.Fields(args), true); err != nil {
					t.Errorf("%s: kubectl lethe %s: %v", key, args, err)
				}
			}
		}
	}
	if lethe < 60 {
		t.Errorf("%d commands of ours only", lethe)
	}
	for _, tc := range []struct{ kind, namespace, reason, want string }{
		{"Tenant", "", "Unheard", "kubectl describe tenant acme"},
		{"Tenant", "", "Refused", "kubectl describe tenant acme"},
		{"BotDeployment", "ns", "NodeLost", "kubectl -n ns describe botdeployment acme"}, // no message that names it
	} {
		if next := (&objectReport{Kind: tc.kind, Namespace: tc.namespace, Name: "acme"}).next("acme", tc.reason, ""); next != tc.want {
			t.Errorf("%s %s: %s", tc.kind, tc.reason, next)
		}
	}
}

// TestTheNextStepIsOfTheContainerThatFailed: by the words that the manager has for it, whichever of the pod's
// containers it is.
func TestTheNextStepIsOfTheContainerThatFailed(t *testing.T) {
	one := int32(1)
	ended := func(t corev1.ContainerStateTerminated) corev1.ContainerStatus {
		return corev1.ContainerStatus{RestartCount: 3, State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}}, LastTerminationState: corev1.ContainerState{Terminated: &t}}
	}
	for _, tc := range []struct {
		of           string
		state        corev1.ContainerStatus
		reason, want string
	}{
		{"bot", ended(corev1.ContainerStateTerminated{ExitCode: 1}), "CrashLoopBackOff", "kubectl lethe logs ns/b --previous"},
		{"browser", ended(corev1.ContainerStateTerminated{ExitCode: 1}), "CrashLoopBackOff", "kubectl lethe logs ns/b --previous -c browser"},
		{"browser", ended(corev1.ContainerStateTerminated{ExitCode: 137}), "CrashLoopBackOff", "kubectl lethe logs ns/b --previous -c browser"},
		{"browser", ended(corev1.ContainerStateTerminated{}), "Completed", "kubectl lethe logs ns/b --previous -c browser"},
		{"browser", ended(corev1.ContainerStateTerminated{ExitCode: 137, Reason: "OOMKilled"}), "OOMKilled", "kubectl lethe logs ns/b --previous -c browser"},
		{"browser", corev1.ContainerStatus{State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}, "PodNotReady", "kubectl lethe logs ns/b -c browser"},
		{"browser", corev1.ContainerStatus{State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ErrImagePull", Message: "not found"}}}, "ImageNotFound", "kubectl -n ns describe pod b-bot-0"},
	} {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "b-bot-0"}, Spec: corev1.PodSpec{NodeName: "n"}}
		for _, name := range []string{"bot", "browser"} {
			pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{Name: name, Image: "i:1"})
			state := corev1.ContainerStatus{Ready: true, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}
			if name == tc.of {
				state = tc.state
			}
			state.Name = name
			pod.Status.ContainerStatuses = append(pod.Status.ContainerStatuses, state)
		}
		w := status.Unready(status.PodObserved{Set: &appsv1.StatefulSet{Spec: appsv1.StatefulSetSpec{Replicas: &one}}, Pod: pod})
		if w.Reason != tc.reason {
			t.Errorf("%s: %s, want %s", tc.of, w.Reason, tc.reason)
		}
		if next := (&objectReport{Kind: resources.KindBotDeployment, Namespace: "ns", Name: "b"}).next("acme", w.Reason, w.Message); next != tc.want {
			t.Errorf("%s of %s: %s, want %s", tc.reason, tc.of, next, tc.want)
		}
	}
	lost := (&objectReport{Kind: resources.KindBotDeployment, Namespace: "ns", Name: "b"}).next("acme", "NodeLost", "Node worker-1.example does not answer, so nobody knows")
	if lost != "kubectl describe node worker-1.example" {
		t.Error(lost)
	}
}
