package bot

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/kube"
	"github.com/lethe-dev/lethe/internal/rollout"
)

// TestNothingIsRememberedOfWhatIsGone: of a bot that is gone, with credentials or without, whoever took its finalizer
// off.
func TestNothingIsRememberedOfWhatIsGone(t *testing.T) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	nothing := fake.NewClientBuilder().WithScheme(scheme).Build()
	r := &Reconciler{Writer: kube.Writer{Client: nothing, Live: nothing}, Clock: clock.RealClock{}, Orphans: noOrphans{},
		Pace: NewPacer(nothing, rollout.Limits{Percent: 5, StopAfter: 3}, clock.RealClock{})}
	bot := &v1alpha1.BotDeployment{ObjectMeta: metav1.ObjectMeta{Namespace: "nowhere", Name: "gone"}}
	for _, uid := range []string{"1", "2"} { // made again under its name: one answer, and not the other's
		bot.UID = "u" + bot.UID
		if _, known := r.generationSeenAt.Get(bot); known {
			t.Errorf("bot %s is taken for the one before it", uid)
		}
		r.generationSeenAt.Put(bot, time.Now(), struct{}{})
		r.stored.Put(bot, time.Now(), storedCredentials{})
		r.files.Put(bot, time.Now(), nil)
	}
	remembered := func() []int { return []int{r.generationSeenAt.Len(), r.stored.Len(), r.files.Len()} }
	if n := remembered(); n[0] != 1 || n[1] != 1 || n[2] != 1 {
		t.Errorf("remembered: %v", n)
	}
	if _, err := r.Reconcile(t.Context(), ctrl.Request{NamespacedName: client.ObjectKeyFromObject(bot)}); err != nil {
		t.Error(err)
	}
	if n := remembered(); n[0]+n[1]+n[2] != 0 {
		t.Errorf("%v things are remembered of what is gone", n)
	}
}
