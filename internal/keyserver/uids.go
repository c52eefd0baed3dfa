package keyserver

import (
	"context"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/resources"
)

const (
	firstUID     = 1_000_000_000
	uidsPerRange = 1000
	// allocateTries is how often the counter is read again because another replica wrote it at the same time.
	allocateTries = 8
	// listPage is how many Secrets one answer of the API server holds.
	listPage = 500
)

// uidRangeDoc is a block of user ids in a tenant's document.
type uidRangeDoc struct {
	First int64 `json:"first"`
	Size  int64 `json:"size"`
}

func (r uidRangeDoc) end() int64 { return r.First + r.Size }

func (r uidRangeDoc) overlaps(o uidRangeDoc) bool {
	return r.Size > 0 && o.Size > 0 && r.First < o.end() && o.First < r.end()
}

// uidsDoc is the counter of user ids: Next is the first that was never given to any tenant. It never goes back, so that the
// files of a tenant that is gone are no later tenant's.
type uidsDoc struct {
	Realm string `json:"realm"`
	Next  int64  `json:"next"`
}

// allocateUIDs takes the next block of user ids. The counter is written before the block is used: a crash between the two
// loses a block, and of two replicas one writes first. No block is ever given twice.
func (s *Server) allocateUIDs(ctx context.Context) (uidRangeDoc, error) {
	s.uidsMu.Lock()
	defer s.uidsMu.Unlock()
	if s.uidsFloor == 0 {
		floor, err := s.highestUID(ctx)
		if err != nil {
			return uidRangeDoc{}, err
		}
		s.uidsFloor = floor
	}
	for range allocateTries {
		block, err := s.tryAllocateUIDs(ctx)
		if apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) {
			continue
		}
		if err == nil {
			s.uidsFloor = block.end()
		}
		return block, err
	}
	return uidRangeDoc{}, later(v1alpha1.ReasonInternal, 1, "other replicas gave user ids at the same time")
}

func (s *Server) tryAllocateUIDs(ctx context.Context) (uidRangeDoc, error) {
	var secret corev1.Secret
	err := s.Client.Get(ctx, client.ObjectKey{Namespace: s.KeysNamespace, Name: uidsName}, &secret)
	if client.IgnoreNotFound(err) != nil {
		return uidRangeDoc{}, err
	}
	missing := apierrors.IsNotFound(err)
	doc := uidsDoc{Realm: s.Realm, Next: s.uidsFloor}
	if !missing {
		if _, err := openKEKDocument(&secret, formatUIDs, s.kek(), &doc); err != nil {
			return uidRangeDoc{}, s.refuseDocument(err, "")
		}
		if doc.Next < s.uidsFloor {
			s.Log.Warn("The counter of user ids is an earlier copy; it goes on behind the highest id that is known",
				"secret", uidsName, "next", doc.Next, "known", s.uidsFloor)
			doc.Next = s.uidsFloor
		}
	}
	block := uidRangeDoc{First: doc.Next, Size: uidsPerRange}
	if err := resources.CheckUIDRange(v1alpha1.UIDRange(block)); err != nil {
		return uidRangeDoc{}, refuse(v1alpha1.ReasonNoUIDRange, "there is no block of user ids left to give: %s", err)
	}
	doc.Next = block.end()
	if !missing {
		_, _, err = s.updateDocument(ctx, &secret, formatUIDs, s.kek(), doc)
		return block, err
	}
	fresh, err := newDocument(s.KeysNamespace, uidsName, "", formatUIDs, 1, s.kek(), doc)
	if err != nil {
		return uidRangeDoc{}, err
	}
	return block, s.Client.Create(ctx, fresh)
}

// highestUID is behind every id that any tenant is known to have, by its document, by its status, and by what waits of a deleted
// one, or the very first. It is looked for once in a process: the counter may have been lost, or be an earlier copy. What a
// Tenant had that is gone altogether is then not known.
func (s *Server) highestUID(ctx context.Context) (int64, error) {
	highest := int64(firstUID)
	err := s.eachKeySecret(ctx, nil, func(secret *corev1.Secret) error {
		if strings.HasPrefix(secret.Name, pendingPrefix) {
			var doc pendingDoc
			if _, err := openKEKDocument(secret, formatPending, s.kek(), &doc); err != nil {
				s.Log.Warn("The user ids of a deleted tenant are not known, since what waits of it does not open", "secret", secret.Name, "cause", err)
				return nil
			}
			highest = max(highest, doc.UIDRange.end())
			return nil
		}
		if !strings.HasPrefix(secret.Name, tenantPrefix) {
			return nil
		}
		keys, err := openTenantDocument(secret, s.kek())
		if err != nil {
			s.Log.Warn("The user ids of a tenant are not known, since its keys do not open", "secret", secret.Name, "cause", err)
			return nil
		}
		highest = max(highest, keys.doc.UIDRange.end())
		return nil
	})
	if err != nil {
		return 0, err
	}
	err = s.eachTenant(ctx, func(tenant *v1alpha1.Tenant) {
		if known := tenant.Status.UIDRange; known != nil && resources.CheckUIDRange(*known) == nil {
			highest = max(highest, uidRangeDoc(*known).end())
		}
	})
	return highest, err
}

// eachTenant looks at every Tenant, a page at a time. One may come twice, when a list is begun again.
func (s *Server) eachTenant(ctx context.Context, look func(*v1alpha1.Tenant)) error {
	next, tries := "", 1
	for {
		var page v1alpha1.TenantList
		err := s.Client.List(ctx, &page, client.Limit(listPage), client.Continue(next))
		if apierrors.IsResourceExpired(err) && next != "" && tries < listTries {
			next, tries = "", tries+1
			continue
		}
		if err != nil {
			return err
		}
		for i := range page.Items {
			look(&page.Items[i])
		}
		if next = page.Continue; next == "" {
			return nil
		}
	}
}

// listTries is how often a list is begun again because its continue token has expired (etcd forgets after some minutes).
const listTries = 3

// eachKeySecret looks at every Secret of the keys' namespace once, a page at a time. It is an error when not all could be read: a caller
// that destroys collects first, and does nothing then.
func (s *Server) eachKeySecret(ctx context.Context, labels client.MatchingLabels, look func(*corev1.Secret) error) error {
	next, seen, tries := "", map[types.UID]bool{}, 1
	for {
		var page corev1.SecretList
		opts := []client.ListOption{client.InNamespace(s.KeysNamespace), client.Limit(listPage), client.Continue(next)}
		if len(labels) > 0 {
			opts = append(opts, labels)
		}
		err := s.Client.List(ctx, &page, opts...)
		if apierrors.IsResourceExpired(err) && next != "" && tries < listTries {
			next, tries = "", tries+1
			continue
		}
		if err != nil {
			return err
		}
		for i := range page.Items {
			secret := &page.Items[i]
			if seen[secret.UID] {
				continue // of the attempt before
			}
			seen[secret.UID] = true
			if err := look(secret); err != nil {
				return err
			}
		}
		if next = page.Continue; next == "" {
			return nil
		}
	}
}

// recordTenant keeps in a tenant's document who it is by now, and gives one without user ids a block.
func (s *Server) recordTenant(ctx context.Context, keys *tenantKeys, tenant *v1alpha1.Tenant) (*tenantKeys, error) {
	doc := keys.doc
	doc.Binding = bindingOf(s.Realm, tenant)
	if doc.UIDRange.Size > 0 && doc.Binding == keys.doc.Binding {
		return keys, nil
	}
	if doc.UIDRange.Size == 0 {
		var err error
		if doc.UIDRange, err = s.allocateUIDs(ctx); err != nil {
			return nil, err
		}
	}
	secret, _, err := s.updateDocument(ctx, keys.secret, formatTenant, keys.keys, doc)
	if err != nil {
		return nil, err
	}
	return s.openTenantKeys(secret, tenant)
}

// uids makes the counter of a backup fit what is live: it is never behind one that is there.
func (r *restoring) uids(s BackupSecret) error {
	there, exists := r.existing[s.Name]
	if !exists {
		return r.create(s)
	}
	var backup, now uidsDoc
	if _, err := s.as(formatUIDs, &backup); err != nil {
		return err
	}
	e, err := readDocument(there, formatUIDs, &now)
	if err != nil {
		return r.problem("%s", err)
	}
	if now.Next >= backup.Next {
		r.out.Kept = append(r.out.Kept, s.Name)
		return nil
	}
	if len(r.KEK) == 0 {
		return r.problem("the counter of user ids in %s is behind that of the backup: restore with --kek-file, which puts it right", s.Name)
	}
	return r.put(s.Name, "", formatUIDs, e.Generation+1, r.KEK, backup)
}
