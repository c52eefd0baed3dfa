package keystore

import (
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

// PendingKeys are sealing keys of a deleted Tenant that wait for their destruction, as their document says. Only the
// keyserver can authenticate it.
type PendingKeys struct {
	Secret  string    `json:"secret"`
	Tenant  string    `json:"tenant"`
	UID     string    `json:"uid"`
	Deleted time.Time `json:"deleted"`
	Until   time.Time `json:"until"`
	KIDs    []string  `json:"kids"`
}

// ListPending returns those among the Secrets of the keys' namespace, by Tenant and the time of deletion, and the
// names of Secrets that should be such and cannot be read.
func ListPending(secrets []corev1.Secret) (list []PendingKeys, unreadable []string) {
	list = []PendingKeys{}
	for i := range secrets {
		s := &secrets[i]
		if s.Type != v1alpha1.SecretTypeWrappedKey || !strings.HasPrefix(s.Name, pendingPrefix) {
			continue
		}
		var doc pendingDoc
		if _, err := ReadDocument(s, FormatPending, &doc); err != nil || s.Name != PendingSecretName(doc.UID) {
			unreadable = append(unreadable, s.Name)
			continue
		}
		p := PendingKeys{Secret: s.Name, Tenant: doc.Tenant, UID: doc.UID, Deleted: doc.Deleted, Until: doc.Until, KIDs: []string{}}
		for _, d := range doc.Seal {
			p.KIDs = append(p.KIDs, d.KID)
		}
		list = append(list, p)
	}
	slices.SortFunc(list, func(a, b PendingKeys) int {
		if c := strings.Compare(a.Tenant, b.Tenant); c != 0 {
			return c
		}
		if c := a.Deleted.Compare(b.Deleted); c != 0 {
			return c
		}
		return strings.Compare(a.UID, b.UID)
	})
	return list, unreadable
}
