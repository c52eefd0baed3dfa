package resources

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"
	"sigs.k8s.io/yaml"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/test/specs"
)

func uidRanges() *rapid.Generator[v1alpha1.UIDRange] {
	return rapid.Custom(func(t *rapid.T) v1alpha1.UIDRange {
		return v1alpha1.UIDRange{
			First: rapid.OneOf(rapid.Int64Range(-5, 70_000), rapid.Int64Range(firstTenantUID-2000, firstTenantUID+8000),
				rapid.Int64Range(lastTenantUID-2000, lastTenantUID+2000)).Draw(t, "first"),
			Size: rapid.Int64Range(-1, 3000).Draw(t, "size"),
		}
	})
}

// TestNoTwoTenantsShareAUserID renders the bots of two tenants with any ranges that are let through: whatever their
// images say, they run as different users, within their ranges, and never as one of Lethe's own programs.
func TestNoTwoTenantsShareAUserID(t *testing.T) {
	ours := []int64{UIDSweeper, UIDManager, UIDKeyserver, uidInUserNamespace, 0}
	rapid.Check(t, func(t *rapid.T) {
		var users []int64
		var ranges []v1alpha1.UIDRange
		for range 2 {
			tenant := richTenant()
			r := uidRanges().Draw(t, "range")
			tenant.Status.UIDRange = &r
			bot := &v1alpha1.BotDeployment{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "b"}, Spec: specs.Random(rapid.Uint64().Draw(t, "bot"))}
			security := BotPodTemplate(testSettings(), bot, tenant, "b-cred-0123456789").Spec.SecurityContext
			if !*security.RunAsNonRoot || *security.RunAsGroup != *security.RunAsUser || *security.FSGroup != *security.RunAsUser {
				t.Fatalf("user, group and the volumes' group differ: %+v", security)
			}
			if CheckUIDRange(r) != nil {
				if *security.RunAsUser != 0 {
					t.Fatalf("a pod of a range that no tenant may have runs as %d", *security.RunAsUser)
				}
				continue
			}
			if *security.RunAsUser < r.First || *security.RunAsUser >= r.First+r.Size {
				t.Fatalf("user %d is not in %+v", *security.RunAsUser, r)
			}
			for _, our := range ours {
				if our >= r.First && our < r.First+r.Size {
					t.Fatalf("%+v holds %d, which is Lethe's", r, our)
				}
			}
			users, ranges = append(users, *security.RunAsUser), append(ranges, r)
		}
		if len(users) == 2 && !SharesUID(ranges[0], ranges[1]) && users[0] == users[1] {
			t.Fatalf("%+v and %+v both run as %d", ranges[0], ranges[1], users[0])
		}
	})
}

// TestSharesUID holds the comparison against counting.
func TestSharesUID(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		draw := func(name string) v1alpha1.UIDRange {
			return v1alpha1.UIDRange{First: rapid.Int64Range(1, 12).Draw(t, name), Size: rapid.Int64Range(1, 6).Draw(t, name+" size")}
		}
		a, b := draw("a"), draw("b")
		shared := false
		for id := a.First; id < a.First+a.Size; id++ {
			shared = shared || (id >= b.First && id < b.First+b.Size)
		}
		if SharesUID(a, b) != shared || SharesUID(b, a) != shared {
			t.Fatalf("%+v and %+v: want %v", a, b, shared)
		}
	})
}

// TestOurProgramsHaveUserIDsOfTheirOwn reads what is shipped.
func TestOurProgramsHaveUserIDsOfTheirOwn(t *testing.T) {
	users := map[int64]string{}
	take := func(name string, user, group, files *int64) {
		if user == nil || group == nil || files == nil || *user != *group || *user != *files {
			t.Fatalf("%s: user, group and the volumes' group are not one number", name)
		}
		if users[*user] != "" {
			t.Errorf("%s and %s both run as %d", name, users[*user], *user)
		}
		users[*user] = name
	}
	for name, want := range map[string]int64{"manager": UIDManager, "keyserver": UIDKeyserver} {
		content, err := os.ReadFile(filepath.Join("..", "..", "config", "manager", name+".yaml"))
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for _, document := range strings.Split(string(content), "\n---\n") {
			var d appsv1.Deployment
			if err := yaml.Unmarshal([]byte(document), &d); err != nil || d.Kind != "Deployment" {
				continue
			}
			found = true
			s := d.Spec.Template.Spec.SecurityContext
			take(name, s.RunAsUser, s.RunAsGroup, s.FSGroup)
			if *s.RunAsUser != want {
				t.Errorf("%s runs as %d, want %d", name, *s.RunAsUser, want)
			}
		}
		if !found {
			t.Errorf("no Deployment in %s.yaml", name)
		}
	}
	s := SweepPodTemplate(testSettings(), makeSweepStore("db.example"), richTenant(), "h").Spec.SecurityContext
	take("sweeper", s.RunAsUser, s.RunAsGroup, s.FSGroup)
	take("a bot in a user namespace", ptr(int64(uidInUserNamespace)), ptr(int64(uidInUserNamespace)), ptr(int64(uidInUserNamespace)))
}

// TestUserNamespaces: the opt-in is the pod's, and ids in there end at 65535.
func TestUserNamespaces(t *testing.T) {
	tenant := richTenant()
	if pod := BotPodTemplate(testSettings(), richBot(), tenant, "s").Spec; pod.HostUsers != nil {
		t.Error("a user namespace without being asked for")
	}
	tenant.Spec.UserNamespaces = v1alpha1.UserNamespacesEnabled
	pod := BotPodTemplate(testSettings(), richBot(), tenant, "s").Spec
	if pod.HostUsers == nil || *pod.HostUsers || *pod.SecurityContext.RunAsUser > 65535 || *pod.SecurityContext.RunAsUser == 0 {
		t.Errorf("hostUsers %v, user %d", pod.HostUsers, *pod.SecurityContext.RunAsUser)
	}
	tenant.Status.UIDRange = nil
	if uid := BotUID(tenant); uid != 0 {
		t.Errorf("without a range a bot in a user namespace runs as %d", uid)
	}
}
