package sweep

import (
	"context"
	"errors"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/stores"
)

// errUnclear says that rows of a dataset cannot be told apart any more: its problem says why.
var errUnclear = errors.New("it is not known whose the rows of this dataset are")

// known is who is known in a Shared store, as the keyserver says.
type known struct {
	ids []string
	// unread says why they are not known, where the sweep goes on all the same: nothing goes then of what depends on them, and
	// nothing of it is green.
	unread string
	// digest that the keyserver named when it was asked. It is asked again when it names another.
	digest string
}

// whoIsKnown asks the keyserver.
func (s *run) whoIsKnown(ctx context.Context) (known, error) {
	ids, digest, err := s.keeper.known(ctx)
	if errors.Is(err, errKnown) {
		s.unread = err.Error() // judge says so: what else ends the sweep is worse
		return known{unread: s.unread, digest: s.keeper.digest()}, nil
	}
	return known{ids: ids, digest: digest}, err
}

// tellApart looks whether others are known now than when the store was told, and tells it. A tenant that came meanwhile may be called
// what the column takes for another's name; where that one has a window of its own, nothing of the dataset goes any more.
func (s *run) tellApart(ctx context.Context, i int) error {
	if s.Plan.Tenancy != v1alpha1.TenancyShared {
		return nil
	}
	if s.knownDigest != s.keeper.digest() {
		k, err := s.whoIsKnown(ctx)
		if err != nil {
			return err
		}
		// Until the store has compared all names nothing else goes either. What it was told before does not count any more.
		s.knownDigest = ""
		if err := s.store.Know(ctx, k.ids, k.unread); err != nil {
			// It is no failure of the batch that was about to begin: it must not be tried again with fewer rows.
			return &stores.Error{Reason: v1alpha1.ReasonStoreError, Message: "compare the tenants' identifiers: " + s.engine.Describe(err)}
		}
		s.knownDigest = k.digest
		s.Log.Info("Heard who is known", "identifiers", len(k.ids), "unread", k.unread)
	}
	if s.store.Unclear(i) {
		return errUnclear
	}
	return nil
}
