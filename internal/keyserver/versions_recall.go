package keyserver

import (
	"context"
	"maps"
	"slices"

	"github.com/lethe-dev/lethe/internal/keystore"
)

// recallVersions puts into an object's document, in memory, how far its credentials got under an earlier object of
// its name, or before their names were dropped. It asks only when there is a name that the document does not know.
func (s *Server) recallVersions(ctx context.Context, sub *subject, keys *keystore.ObjectKeys, wanted []wantedCredential) error {
	unknown := func(w wantedCredential) bool {
		_, known := keys.Doc.Credentials[w.name]
		return !known && w.ref == nil
	}
	if !slices.ContainsFunc(wanted, unknown) {
		return nil
	}
	_, doc, err := s.keys.Versions(ctx, keys.Doc.TenantUID)
	if err != nil || len(doc.Entries) == 0 {
		return err
	}
	credentials := maps.Clone(keys.Doc.Credentials)
	if credentials == nil {
		credentials = map[string]keystore.CredentialDoc{}
	}
	for _, e := range doc.Entries {
		if e.Kind != sub.kind || e.Namespace != sub.namespace() || e.Name != sub.name() {
			continue
		}
		if _, known := credentials[e.Credential]; !known && slices.ContainsFunc(wanted, func(w wantedCredential) bool { return w.name == e.Credential }) {
			credentials[e.Credential] = keystore.CredentialDoc{Highest: e.Highest, Digest: e.Digest}
		}
	}
	keys.Doc.Credentials = credentials
	return nil
}
