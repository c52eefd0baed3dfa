package bot

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/reconcile"
	"github.com/lethe-dev/lethe/internal/resources"
)

// TestWhatOnlyTheManagerFindsOut: a zone that its own database lacks, and more of a node's disk than the Tenant lets
// a container have.
func TestWhatOnlyTheManagerFindsOut(t *testing.T) {
	tenant, bot := &v1alpha1.Tenant{}, &v1alpha1.BotDeployment{}
	check := func() string {
		p := reconcile.ProblemIn(checkPod(&scope{bot: bot, tenant: tenant}))
		if p == nil {
			return ""
		}
		if !p.Stalled || p.Condition != v1alpha1.ConditionWorkloadReady {
			t.Errorf("%+v", p)
		}
		return p.Reason + ": " + p.Message
	}
	for _, zone := range []string{"", "Europe/Berlin", "Etc/UTC"} {
		if bot.Spec.TimeZone = zone; check() != "" {
			t.Errorf("%s: %s", zone, check())
		}
	}
	bot.Spec.TimeZone = "Europe/Atlantis"
	if said := check(); !strings.Contains(said, "TimeZoneUnknown") || !strings.Contains(said, "Europe/Atlantis") {
		t.Errorf("says %q", said)
	}
	bot.Spec.TimeZone = ""
	bot.Spec.Scratch = []v1alpha1.BotScratch{{Path: "/cache", Size: resource.MustParse("30Gi")}}
	if said := check(); !strings.Contains(said, "QuotaExceeded") || !strings.Contains(said, "33024Mi") || !strings.Contains(said, "20Gi") {
		t.Errorf("says %q", said)
	}
	more := resource.MustParse("64Gi")
	tenant.Spec.Quota = &v1alpha1.TenantQuota{EphemeralStorage: &more}
	if said := check(); said != "" {
		t.Errorf("says %q", said)
	}
	if got := resources.TenantLimitRange(tenant, "t-a").Spec.Limits[0].Max[corev1.ResourceEphemeralStorage]; got.Cmp(more) != 0 {
		t.Errorf("the LimitRange lets a container have %s", got.String())
	}
}
