package resources

import (
	"fmt"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

// User ids of Lethe's own programs, each its own: what the kernel counts by user (inotify instances, processes, keys)
// is then nobody else's to use up. They lie below every tenant's range.
const (
	UIDSweeper   = 65531
	UIDManager   = 65532
	UIDKeyserver = 65533

	// uidInUserNamespace is who a bot is inside a user namespace of its own, where ids end at 65535.
	uidInUserNamespace = 65530

	// Tenants' ranges begin where no distribution, image or other allocator known to us hands out ids, and end where
	// Kubernetes' do.
	firstTenantUID = 1_000_000_000
	lastTenantUID  = 2_147_483_647
)

// CheckUIDRange says what is wrong with a range of user ids for a tenant.
func CheckUIDRange(r v1alpha1.UIDRange) error {
	if r.Size < 1 || r.First < firstTenantUID || r.First > lastTenantUID || r.Size > lastTenantUID-r.First+1 {
		return fmt.Errorf("the range of user ids from %d, %d long, is not within %d to %d", r.First, r.Size, firstTenantUID, lastTenantUID)
	}
	return nil
}

// SharesUID says whether two ranges have an id in common.
func SharesUID(a, b v1alpha1.UIDRange) bool {
	return a.First < b.First+b.Size && b.First < a.First+a.Size
}

// BotUID is the user and group that a tenant's bots run as, whatever their images say. While the range is not known,
// or is none that a tenant may have, it is 0, and a pod that must not run as root does not start as that.
func BotUID(tenant *v1alpha1.Tenant) int64 {
	if tenant.Status.UIDRange == nil || CheckUIDRange(*tenant.Status.UIDRange) != nil {
		return 0
	}
	if tenant.Spec.UserNamespaces == v1alpha1.UserNamespacesEnabled {
		return uidInUserNamespace
	}
	return tenant.Status.UIDRange.First
}
