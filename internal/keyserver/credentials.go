package keyserver

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/internal/keystore"
	"github.com/lethe-dev/lethe/internal/resources"
)

// credentials opens the credentials of an object and stores them again, all in one Secret that is named by what went
// in: the same input makes no write. What cannot be opened leaves the value in use as it is, and says so.
//
// Requests to the API server: a new object and its tenant's keys are read, then its key and its Secret are created
// (4); a repeat reads the object, its tenant's keys, its key and its Secret (4) and writes nothing.
func (s *Server) credentials(ctx context.Context, _ caller, req *keyapi.CredentialsRequest) (*keyapi.CredentialsResponse, error) {
	sub, err := s.find(ctx, req.Object)
	if err != nil {
		return nil, err
	}
	if err := sub.alive(); err != nil {
		return nil, err
	}
	if err := sub.storeType(); err != nil {
		return nil, err
	}
	wanted := sub.credentials()
	if len(wanted) == 0 && !sub.hadKeys() {
		return &keyapi.CredentialsResponse{}, nil
	}
	tenant, err := s.tenantOfRecently(ctx, sub.namespace())
	if err != nil {
		return nil, err
	}
	sub.tenant = tenant.Name
	sub.suspended = sub.bot != nil && resources.IsSuspended(sub.bot, tenant)
	// Read live, not from memory: nothing is put under keys that are gone, and who asks learns that they are.
	s.keys.ForgetTenant(string(tenant.UID))
	keys, err := s.keys.KeysOf(ctx, tenant)
	if err != nil {
		return nil, err
	}
	resp, err := s.storeCredentials(ctx, sub, keys, wanted, !sub.hadKeys())
	isNew := !sub.hadKeys()
	if apierrors.IsAlreadyExists(err) || apierrors.IsConflict(err) || errors.Is(err, errNotInUse) || (err == nil && isNew && len(wanted) > 0 && resp.Secret == "") {
		// The object is not as new as its status says (a crash, or another replica), what is stored of it was moved,
		// or a value was refused, and one that was stored before may go on: once more with what is stored.
		resp, err = s.storeCredentials(ctx, sub, keys, wanted, false)
	}
	return resp, err
}

// storeCredentials does the work of one attempt. assumeNew skips looking for the object's key: creating it then fails
// with AlreadyExists when there is one.
func (s *Server) storeCredentials(ctx context.Context, sub *subject, tenant *keystore.TenantKeys, wanted []wantedCredential, assumeNew bool) (*keyapi.CredentialsResponse, error) {
	var keys *keystore.ObjectKeys
	var err error
	if !assumeNew {
		if keys, err = s.keys.LoadObjectKeys(ctx, sub.ref(), sub.seen, tenant); err != nil {
			return nil, err
		}
	}
	if keys == nil {
		again := false
		if sub.hadKeys() {
			if again, err = s.keys.WasDestroyed(ctx, sub.uid(), tenant); err != nil {
				return nil, err
			}
		}
		if sub.hadKeys() && !again {
			return nil, refuse(v1alpha1.ReasonKeyMissing,
				"the data key of %s %s/%s is gone (Secret %s/%s), although credentials were stored with it: restore the backup with `kubectl lethe keys restore`, or delete the object and make it again",
				sub.kind, sub.namespace(), sub.name(), s.KeysNamespace, keystore.ObjectSecretName(sub.uid()))
		}
		if keys, err = s.keys.NewObjectKeys(sub.ref(), tenant); err != nil {
			return nil, err
		}
	}
	if err := s.recallVersions(ctx, sub, keys, wanted); err != nil {
		return nil, err
	}
	if tenant, err = s.knowing(ctx, tenant, wanted); err != nil {
		return nil, err
	}
	resolved, err := s.resolveAll(ctx, sub, tenant, keys, wanted)
	if err != nil {
		return nil, err
	}
	resp := &keyapi.CredentialsResponse{}
	complete := true
	for _, r := range resolved {
		complete = complete && r.source != ""
	}
	set := newSet(sub, keys, resolved)
	if complete && !slices.Contains(keys.Doc.Sets, set.name) {
		complete = !undeliverable(ctx, resolved)
	}
	for _, r := range resolved {
		resp.Items = append(resp.Items, r.result)
	}
	if len(resolved) > 0 && complete {
		if err := s.writeSet(ctx, sub, keys, set); err != nil {
			return nil, err
		}
		resp.Secret = set.name
	}
	if err := s.cleanSets(ctx, sub, keys, resp.Secret); err != nil {
		// Old sets are ciphertext that nobody uses; the next call tries again.
		s.Log.Info("Old credentials stay for now", "object", refString(sub.ref()), "cause", err)
	}
	resp.Generation = keys.Generation
	return resp, nil
}

// set is one version of all credentials of an object.
type set struct {
	name  string // of its Secret
	hash  string // of what went in
	items []resolved
}

// newSet names a set by what goes into it: the object, the key that names its sets, and each credential's name,
// source, version and variable. None of them gives a value away.
func newSet(sub *subject, keys *keystore.ObjectKeys, items []resolved) set {
	sorted := slices.Clone(items)
	slices.SortFunc(sorted, func(a, b resolved) int { return strings.Compare(a.wanted.name, b.wanted.name) })
	h := sha256.New()
	write := func(parts ...string) {
		for _, p := range parts {
			// Length in front: no two lists of parts give the same bytes.
			fmt.Fprintf(h, "%d:%s,", len(p), p)
		}
	}
	write("lethe/set/v1", sub.uid(), keys.Digest.KID())
	for _, r := range sorted {
		write(r.wanted.name, r.source, strconv.FormatUint(uint64(r.version), 10), r.wanted.envName)
	}
	hash := hex.EncodeToString(h.Sum(nil))
	return set{name: resources.CredentialsName(sub.name(), hash), hash: hash, items: sorted}
}

// record is the document with a set in it: its name before its Secret exists, and the versions that went in. What it
// no longer has room for has to be remembered elsewhere before it is written.
func record(doc keystore.ObjectDoc, st set, now time.Time) (keystore.ObjectDoc, []keystore.VersionEntry) {
	out := doc
	out.Sets = slices.Clone(doc.Sets)
	if !slices.Contains(out.Sets, st.name) {
		out.Sets = append(out.Sets, st.name)
	}
	out.Current = st.name
	out.Credentials = map[string]keystore.CredentialDoc{}
	for name, c := range doc.Credentials {
		// No longer in the spec: only how far it got stays known.
		if c.Unused.IsZero() {
			c.Unused = now
		}
		out.Credentials[name] = keystore.CredentialDoc{Highest: c.Highest, Digest: c.Digest, Unused: c.Unused}
	}
	for _, r := range st.items {
		c := keystore.CredentialDoc{Highest: doc.Credentials[r.wanted.name].Highest, Digest: doc.Credentials[r.wanted.name].Digest,
			Version: r.version, Source: r.source, Destination: r.wanted.destination.Digest(), Identity: r.identity}
		if r.version > c.Highest {
			c.Highest, c.Digest = r.version, r.source
		}
		out.Credentials[r.wanted.name] = c
	}
	dropped := keystore.DropUnused(&out, func(name string) bool { return out.Credentials[name].Unused.IsZero() })
	return out, dropped
}

// sameRecord says whether writing a document would change anything.
func sameRecord(a, b keystore.ObjectDoc) bool {
	return a.Current == b.Current && slices.Equal(a.Sets, b.Sets) && maps.Equal(a.Credentials, b.Credentials) &&
		(a.Helper == b.Helper || a.Helper != nil && b.Helper != nil && *a.Helper == *b.Helper)
}
