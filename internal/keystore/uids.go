package keystore

import (
	"context"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/internal/resources"
)

const (
	firstUID     = 1_000_000_000
	uidsPerRange = 1000
	// allocateTries is how often the counter is read again because another replica wrote it at the same time.
	allocateTries = 8
)

// UIDRangeDoc is a block of user ids in a tenant's document.
type UIDRangeDoc struct {
	First int64 `json:"first"`
	Size  int64 `json:"size"`
}

func (r UIDRangeDoc) end() int64 { return r.First + r.Size }

func (r UIDRangeDoc) overlaps(o UIDRangeDoc) bool {
	return r.Size > 0 && o.Size > 0 && r.First < o.end() && o.First < r.end()
}

// UIDsDoc is the counter of user ids: Next is the first that was never given to any tenant. It never goes back, so
// that the files of a tenant that is gone are no later tenant's.
type UIDsDoc struct {
	Realm string `json:"realm"`
	Next  int64  `json:"next"`
}

// AllocateUIDs takes the next block of user ids. The counter is written before the block is used: a crash between the
// two loses a block, and of two replicas one writes first. No block is ever given twice.
func (s *Store) AllocateUIDs(ctx context.Context) (UIDRangeDoc, error) {
	s.uidsMu.Lock()
	defer s.uidsMu.Unlock()
	if s.uidsFloor == 0 {
		floor, err := s.highestUID(ctx)
		if err != nil {
			return UIDRangeDoc{}, err
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
	return UIDRangeDoc{}, keyapi.Later(v1alpha1.ReasonInternal, 1, "other replicas gave user ids at the same time")
}

func (s *Store) tryAllocateUIDs(ctx context.Context) (UIDRangeDoc, error) {
	var secret corev1.Secret
	err := s.Client.Get(ctx, client.ObjectKey{Namespace: s.KeysNamespace, Name: UIDsName}, &secret)
	if client.IgnoreNotFound(err) != nil {
		return UIDRangeDoc{}, err
	}
	missing := apierrors.IsNotFound(err)
	doc := UIDsDoc{Realm: s.Realm, Next: s.uidsFloor}
	if !missing {
		if _, err := OpenKEKDocument(&secret, FormatUIDs, s.KEKs(), &doc); err != nil {
			return UIDRangeDoc{}, s.refuseDocument(err, "")
		}
		if doc.Next < s.uidsFloor {
			s.Log.Warn("The counter of user ids is an earlier copy; it goes on behind the highest id that is known",
				"secret", UIDsName, "next", doc.Next, "known", s.uidsFloor)
			doc.Next = s.uidsFloor
		}
	}
	block := UIDRangeDoc{First: doc.Next, Size: uidsPerRange}
	if err := resources.CheckUIDRange(v1alpha1.UIDRange(block)); err != nil {
		return UIDRangeDoc{}, keyapi.Refuse(v1alpha1.ReasonNoUIDRange, "there is no block of user ids left to give: %s", err)
	}
	doc.Next = block.end()
	if !missing {
		_, _, err = s.UpdateDocument(ctx, &secret, FormatUIDs, s.KEKs(), doc)
		return block, err
	}
	fresh, err := NewDocument(s.KeysNamespace, UIDsName, "", FormatUIDs, 1, s.KEKs(), doc)
	if err != nil {
		return UIDRangeDoc{}, err
	}
	return block, s.Client.Create(ctx, fresh)
}

// highestUID is behind every id that any tenant is known to have, by its document, by its status, and by what waits
// of a deleted one, or the very first. It is looked for once in a process: the counter may have been lost, or be an
// earlier copy. What a Tenant had that is gone altogether is then not known.
func (s *Store) highestUID(ctx context.Context) (int64, error) {
	highest := int64(firstUID)
	err := s.EachKeySecret(ctx, nil, func(secret *corev1.Secret) error {
		if strings.HasPrefix(secret.Name, pendingPrefix) {
			var doc pendingDoc
			if _, err := OpenKEKDocument(secret, FormatPending, s.KEKs(), &doc); err != nil {
				s.Log.Warn("The user ids of a deleted tenant are not known, since what waits of it does not open", "secret", secret.Name, "cause", err)
				return nil
			}
			highest = max(highest, doc.UIDRange.end())
			return nil
		}
		if !strings.HasPrefix(secret.Name, tenantPrefix) {
			return nil
		}
		keys, err := OpenTenantDocument(secret, s.KEKs())
		if err != nil {
			s.Log.Warn("The user ids of a tenant are not known, since its keys do not open", "secret", secret.Name, "cause", err)
			return nil
		}
		highest = max(highest, keys.Doc.UIDRange.end())
		return nil
	})
	if err != nil {
		return 0, err
	}
	err = s.EachTenant(ctx, func(tenant *v1alpha1.Tenant) {
		if known := tenant.Status.UIDRange; known != nil && resources.CheckUIDRange(*known) == nil {
			highest = max(highest, UIDRangeDoc(*known).end())
		}
	})
	return highest, err
}

// RecordTenant keeps in a tenant's document who it is by now, and gives one without user ids a block.
func (s *Store) RecordTenant(ctx context.Context, keys *TenantKeys, tenant *v1alpha1.Tenant) (*TenantKeys, error) {
	doc := keys.Doc
	doc.Binding = bindingOf(s.Realm, tenant)
	if doc.UIDRange.Size > 0 && doc.Binding == keys.Doc.Binding {
		return keys, nil
	}
	if doc.UIDRange.Size == 0 {
		var err error
		if doc.UIDRange, err = s.AllocateUIDs(ctx); err != nil {
			return nil, err
		}
	}
	secret, _, err := s.UpdateDocument(ctx, keys.Secret, FormatTenant, keys.Keys, doc)
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
	var backup, now UIDsDoc
	if _, err := s.as(FormatUIDs, &backup); err != nil {
		return err
	}
	e, err := ReadDocument(there, FormatUIDs, &now)
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
	return r.put(s.Name, "", FormatUIDs, e.Generation+1, r.KEK, backup)
}
