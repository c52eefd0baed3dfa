package e2e

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/test/stage"
)

// volumes: data outlives the StatefulSet and the pod that had it, and is in the next pod again. A claim that is
// nobody's is not mounted because it has the right name: only when it is given to the Tenant and named in a bot's
// spec, which is the control.
func volumes(t *testing.T, w *world) {
	tenant := w.tenant(t, "e2e-volumes", nil)
	keeper := w.keeper(t, tenant, "keeper", 30)
	foreign := w.keeper(t, tenant, "foreign", 31)
	claim := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: tenant.Name, Name: "foreign-data"}, Spec: corev1.PersistentVolumeClaimSpec{
		AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
		Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("16Mi")}},
	}}
	w.create(t, claim, keeper, foreign)
	w.awaitReady(t, keeper, 2*time.Minute)
	kept := &corev1.PersistentVolumeClaim{}
	if err := w.client.Get(t.Context(), client.ObjectKey{Namespace: tenant.Name, Name: "keeper-data"}, kept); err != nil {
		t.Fatal(err)
	}
	data := stage.Random()
	before := w.podNamed(t, tenant.Name, "keeper-bot-0")
	if err := os.WriteFile(dataOf(t, before)+"/kept", []byte(data), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := w.client.Delete(t.Context(), &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Namespace: tenant.Name, Name: "keeper-bot"}}); err != nil {
		t.Fatal(err)
	}
	until(t, 2*time.Minute, "see the pod made anew", func(ctx context.Context) (string, error) {
		pod := &corev1.Pod{}
		err := w.client.Get(ctx, client.ObjectKeyFromObject(before), pod)
		if pod.UID == before.UID || !isReady(pod) {
			return "it is not ready", client.IgnoreNotFound(err)
		}
		return "", err
	})
	w.awaitReady(t, keeper, time.Minute)
	w.holds(t, tenant.Name, "keeper-bot-0", data)
	after := &corev1.PersistentVolumeClaim{}
	if err := w.client.Get(t.Context(), client.ObjectKeyFromObject(kept), after); err != nil || after.UID != kept.UID || after.Spec.VolumeName != kept.Spec.VolumeName {
		t.Errorf("the claim is another one: %v of %s, was %v of %s (%v)", after.UID, after.Spec.VolumeName, kept.UID, kept.Spec.VolumeName, err)
	}
	w.chat(t, 5_000_030, "what do you remember?")

	w.awaitCondition(t, foreign, v1alpha1.ConditionStalled, metav1.ConditionTrue, "ForeignVolume", time.Minute)
	w.neverMounted(t, foreign)
	untouched := &corev1.PersistentVolumeClaim{}
	if err := w.client.Get(t.Context(), client.ObjectKeyFromObject(claim), untouched); err != nil || untouched.UID != claim.UID || untouched.DeletionTimestamp != nil ||
		len(untouched.Labels) > 0 || untouched.Annotations[v1alpha1.AnnotationBotUID] != "" {
		t.Errorf("somebody's claim was touched: %+v (%v)", untouched.ObjectMeta, err)
	}
	if err := w.client.Delete(t.Context(), foreign); err != nil {
		t.Fatal(err)
	}
	w.gone(t, foreign, time.Minute)
	change(t, w.client, claim, func(c *corev1.PersistentVolumeClaim) {
		c.Annotations = map[string]string{v1alpha1.AnnotationAdopt: string(tenant.UID)}
	})
	heir := w.keeper(t, tenant, "heir", 32)
	heir.Spec.Storage.Claim, heir.Spec.Storage.ReclaimPolicy = &v1alpha1.BotClaim{Existing: claim.Name}, "Retain"
	w.create(t, heir)
	w.awaitReady(t, heir, 2*time.Minute)
	w.holds(t, tenant.Name, "heir-bot-0", "")
	// What was taken over goes with the bot only when somebody who may adopt says so.
	change(t, w.client, claim, func(c *corev1.PersistentVolumeClaim) { c.Annotations[v1alpha1.AnnotationReclaimPolicy] = "Delete" })
	for _, bot := range []*v1alpha1.BotDeployment{keeper, heir} {
		if err := w.client.Delete(t.Context(), bot); err != nil {
			t.Fatal(err)
		}
	}
	for _, o := range []client.Object{keeper, heir, kept, claim} {
		w.gone(t, o, time.Minute)
	}
}

// keeper is a bot with a volume that goes with it.
func (w *world) keeper(t *testing.T, tenant *v1alpha1.Tenant, name string, number int) *v1alpha1.BotDeployment {
	t.Helper()
	token, _ := w.newToken(t, number)
	bot := w.newBot(t, tenant, name, token)
	bot.Spec.Storage = &v1alpha1.BotStorage{Size: resource.MustParse("16Mi"), MountPath: "/data", ReclaimPolicy: "Delete"}
	return bot
}

func (w *world) podNamed(t *testing.T, namespace, name string) *corev1.Pod {
	t.Helper()
	pod := &corev1.Pod{}
	if err := w.client.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: name}, pod); err != nil {
		t.Fatal(err)
	}
	return pod
}

// dataOf is the folder on this machine in which a pod's own container sees its volume.
func dataOf(t *testing.T, pod *corev1.Pod) string {
	t.Helper()
	processes, err := filepath.Glob("/proc/[0-9]*/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	_, id, _ := strings.Cut(pod.Status.ContainerStatuses[0].ContainerID, "://")
	for _, p := range processes {
		dir := filepath.Join(filepath.Dir(p), "root", "data") // the container's own /data, through /proc
		groups, err := os.ReadFile(p)
		if err != nil || id == "" || !strings.Contains(string(groups), id) {
			continue
		}
		if _, err := os.Stat(dir); err != nil {
			t.Fatalf("pod %s has no volume: %v", pod.Name, err)
		}
		return dir
	}
	t.Fatalf("no process of container %q of pod %s", id, pod.Name)
	return ""
}

// holds looks into a pod's volume: it has the data that was put there, or none.
func (w *world) holds(t *testing.T, namespace, name, want string) {
	t.Helper()
	got, err := os.ReadFile(dataOf(t, w.podNamed(t, namespace, name)) + "/kept")
	if string(got) != want || (err != nil && !errors.Is(err, fs.ErrNotExist)) {
		t.Errorf("pod %s holds %q in its volume, want %q (%v)", name, got, want, err)
	}
}

// neverMounted fails where a bot has a pod, or could have one.
func (w *world) neverMounted(t *testing.T, bot *v1alpha1.BotDeployment) {
	t.Helper()
	set := &appsv1.StatefulSet{}
	err := w.client.Get(t.Context(), client.ObjectKey{Namespace: bot.Namespace, Name: bot.Name + "-bot"}, set)
	if !apierrors.IsNotFound(err) && (err != nil || ptr.Deref(set.Spec.Replicas, 1) > 0) {
		t.Errorf("the StatefulSet of %s: %v", bot.Name, fmt.Sprint(set.Spec.Replicas, err))
	}
	var pods corev1.PodList
	if err := w.client.List(t.Context(), &pods, client.InNamespace(bot.Namespace)); err != nil {
		t.Fatal(err)
	}
	for _, p := range pods.Items {
		for _, v := range p.Spec.Volumes {
			if v.PersistentVolumeClaim != nil && v.PersistentVolumeClaim.ClaimName == bot.Name+"-data" {
				t.Errorf("pod %s mounts %s", p.Name, v.PersistentVolumeClaim.ClaimName)
			}
		}
	}
}
