package resources

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

// TestNoSettingRollsABot: whatever is set otherwise, with the helper of before the same pod comes out, so that the
// manager changes no template. The one setting that does is named, with why.
func TestNoSettingRollsABot(t *testing.T) {
	acts := map[string]string{
		"BotAnnotations": "it takes from a bot what it was allowed before",
	}
	bot := &v1alpha1.BotDeployment{}
	bot.Name, bot.Namespace, bot.UID = "b", "ns", "uid"
	bot.Spec.Image = "bot:1"
	bot.Spec.PodAnnotations = map[string]string{"example.com/a": "x"}
	bot.Spec.Credentials = []v1alpha1.Credential{{Name: "token"}}
	tenant := &v1alpha1.Tenant{}
	tenant.Name = "acme"
	tenant.Status.UIDRange = &v1alpha1.UIDRange{First: 1000000000, Size: 1000}
	before := DefaultSettings()
	before.Image, before.ImagePullPolicy, before.ImagePullSecrets = "lethe:1", corev1.PullAlways, []string{"a", "b"}
	want := BotPodTemplate(before, bot, tenant, "set")
	for i := range reflect.TypeFor[Settings]().NumField() {
		name := reflect.TypeFor[Settings]().Field(i).Name
		after := before
		switch field := reflect.ValueOf(&after).Elem().Field(i).Addr().Interface().(type) {
		case *string:
			*field = strings.Repeat("x", 5)
		case *corev1.PullPolicy:
			*field = corev1.PullNever
		case *[]string:
			*field = []string{"example.com/*"}
		case *map[string]string:
			*field = map[string]string{"x": "y"}
		case *[]int32:
			*field = []int32{5353}
		case *[]netip.Prefix:
			*field = []netip.Prefix{netip.MustParsePrefix("169.254.20.10/32")}
		default:
			t.Errorf("%s is of a type that this test does not know", name)
		}
		got := BotPodTemplate(after.With(before.Helper()), bot, tenant, "set")
		if same := apiequality.Semantic.DeepEqual(got, want); same != (acts[name] == "") {
			t.Errorf("%s: with the helper of before the pod is the same: %v", name, same)
		}
	}
	if h := before.Helper(); before.With(h).Helper() != h || !h.IsIn(want.Spec) {
		t.Errorf("%+v does not come back", h)
	}
}
