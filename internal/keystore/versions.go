package keystore

import (
	"context"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keyapi"
)

const (
	// MaxUnusedCredentials bounds the names in an object's document that the spec no longer has; the ones unused
	// longest go to the tenant's versions.
	MaxUnusedCredentials = 64
	// maxVersions bounds what a tenant remembers of objects and names that are gone, and maxVersionsOfObject what it
	// remembers of one name. Of the object with the most the oldest are forgotten first.
	maxVersions         = 1000
	maxVersionsOfObject = 256
	// rememberTries is how often the document is read again because another replica wrote it at the same time.
	rememberTries = 8
)

// VersionsSecretName is the name of the Secret of what a tenant remembers of versions.
func VersionsSecretName(tenantUID string) string { return versionsPrefix + tenantUID }

// VersionsDoc remembers how far the versions of credentials got whose objects are gone, so that an object made again
// under its name does not begin anew.
type VersionsDoc struct {
	Realm     string `json:"realm"`
	Tenant    string `json:"tenant"`
	TenantUID string `json:"tenantUID"`
	// Entries, the newest last.
	Entries []VersionEntry `json:"entries"`
}

// VersionEntry is one credential of an object that is gone, or that no longer has it.
type VersionEntry struct {
	Kind       string `json:"kind"`
	Namespace  string `json:"namespace"`
	Name       string `json:"name"`
	UID        string `json:"uid"` // of the last object of that name
	Credential string `json:"credential"`
	Highest    uint32 `json:"highest,omitempty"`
	Digest     string `json:"digest,omitempty"` // of the sealed value that had it
}

// object is what its name was: whoever makes many credentials under one name pushes out that name's own.
func (e VersionEntry) object() string {
	return strings.Join([]string{e.Kind, e.Namespace, e.Name}, "/")
}

func (e VersionEntry) key() string {
	return strings.Join([]string{e.Kind, e.Namespace, e.Name, e.Credential}, "/")
}

// EntriesOf is what has to be remembered of an object; of all its credentials, or of some.
func EntriesOf(doc ObjectDoc, names ...string) []VersionEntry {
	var out []VersionEntry
	for _, name := range slices.Sorted(maps.Keys(doc.Credentials)) {
		if len(names) > 0 && !slices.Contains(names, name) {
			continue
		}
		c := doc.Credentials[name]
		out = append(out, VersionEntry{Kind: doc.Kind, Namespace: doc.Namespace, Name: doc.Name, UID: doc.UID, Credential: name, Highest: c.Highest, Digest: c.Digest})
	}
	return out
}

// mergeVersions puts entries behind those that are there. A version never goes back. What is too much is dropped.
func mergeVersions(have, more []VersionEntry) []VersionEntry {
	highest := map[string]VersionEntry{}
	for _, e := range append(slices.Clone(have), more...) {
		if was, ok := highest[e.key()]; !ok || was.Highest <= e.Highest {
			highest[e.key()] = e
		}
	}
	newest := map[string]VersionEntry{}
	for _, e := range more {
		newest[e.key()] = e
	}
	var out []VersionEntry
	for _, e := range have {
		if _, again := newest[e.key()]; !again {
			out = append(out, e)
		}
	}
	for _, e := range more {
		last, first := newest[e.key()]
		if !first {
			continue
		}
		delete(newest, e.key())
		last.Highest, last.Digest = highest[e.key()].Highest, highest[e.key()].Digest
		out = append(out, last)
	}
	return boundVersions(out)
}

// boundVersions forgets entries, the oldest first: those of an object beyond its bound, then from the objects with
// the most, so that many credentials under one name push out none of another name.
func boundVersions(entries []VersionEntry) []VersionEntry {
	count := map[string]int{}
	for _, e := range entries {
		count[e.object()]++
	}
	total := func(keep int) (sum int) {
		for _, n := range count {
			sum += min(n, keep)
		}
		return sum
	}
	keep := maxVersionsOfObject
	for keep > 1 && total(keep-1) > maxVersions {
		keep--
	}
	over := total(keep) - maxVersions // as many objects with that many lose one more, those with the oldest entries first
	drop := map[string]int{}
	for _, e := range entries {
		object := e.object()
		if _, seen := drop[object]; seen || count[object] < keep {
			continue
		}
		drop[object] = count[object] - keep
		if over > 0 {
			drop[object]++
			over--
		}
	}
	return slices.DeleteFunc(entries, func(e VersionEntry) bool {
		drop[e.object()]--
		return drop[e.object()] >= 0
	})
}

// Versions reads what a tenant remembers; none when there is nothing.
func (s *Store) Versions(ctx context.Context, tenantUID string) (*corev1.Secret, VersionsDoc, error) {
	var secret corev1.Secret
	var doc VersionsDoc
	err := s.Client.Get(ctx, client.ObjectKey{Namespace: s.KeysNamespace, Name: VersionsSecretName(tenantUID)}, &secret)
	if apierrors.IsNotFound(err) {
		return nil, doc, nil
	}
	if err != nil {
		return nil, doc, err
	}
	if _, err := OpenKEKDocument(&secret, FormatVersions, s.KEKs(), &doc); err != nil {
		return nil, doc, s.refuseDocument(err, "")
	}
	if doc.TenantUID != tenantUID || doc.Realm != s.Realm {
		return nil, doc, s.refuseDocument(altered(&secret, "it names another tenant"), "")
	}
	return &secret, doc, nil
}

// RememberVersions adds to what a tenant remembers. Nothing is written when it is known already.
func (s *Store) RememberVersions(ctx context.Context, tenant, tenantUID string, entries []VersionEntry) error {
	if len(entries) == 0 {
		return nil
	}
	for range rememberTries {
		secret, doc, err := s.Versions(ctx, tenantUID)
		if err != nil {
			return err
		}
		merged := mergeVersions(doc.Entries, entries)
		if secret != nil && len(merged) == len(doc.Entries) && sameVersions(merged, doc.Entries) {
			return nil
		}
		doc = VersionsDoc{Realm: s.Realm, Tenant: tenant, TenantUID: tenantUID, Entries: merged}
		if secret != nil {
			_, _, err = s.UpdateDocument(ctx, secret, FormatVersions, s.KEKs(), doc)
		} else {
			var fresh *corev1.Secret
			if fresh, err = NewDocument(s.KeysNamespace, VersionsSecretName(tenantUID), tenant, FormatVersions, 1, s.KEKs(), doc); err == nil {
				err = s.Client.Create(ctx, fresh)
			}
		}
		if !apierrors.IsConflict(err) && !apierrors.IsAlreadyExists(err) {
			return err
		}
	}
	return keyapi.Later(v1alpha1.ReasonInternal, 1, "other replicas wrote the tenant's versions at the same time")
}

// sameVersions says whether two lists say the same, in whatever order.
func sameVersions(a, b []VersionEntry) bool {
	known := map[VersionEntry]bool{}
	for _, e := range b {
		known[e] = true
	}
	return !slices.ContainsFunc(a, func(e VersionEntry) bool { return !known[e] })
}

// DropUnused takes the names out of an object's document that its spec has not had for longest, where there are too
// many, and returns what has to be remembered of them.
func DropUnused(doc *ObjectDoc, used func(string) bool) []VersionEntry {
	var unused []string
	for name := range doc.Credentials {
		if !used(name) {
			unused = append(unused, name)
		}
	}
	if len(unused) <= MaxUnusedCredentials {
		return nil
	}
	slices.SortFunc(unused, func(a, b string) int {
		if c := doc.Credentials[a].Unused.Compare(doc.Credentials[b].Unused); c != 0 {
			return c
		}
		return strings.Compare(a, b)
	})
	unused = unused[:len(unused)-MaxUnusedCredentials]
	dropped := EntriesOf(*doc, unused...)
	for _, name := range unused {
		delete(doc.Credentials, name)
	}
	return dropped
}
