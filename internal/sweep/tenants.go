package sweep

import (
	"context"
	"errors"
	"slices"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/stores"
)

// errUnclear says that rows of a dataset cannot be told apart any more: its problem says why.
var errUnclear = errors.New("it is not known whose the rows of this dataset are")

// known is who is known in a Shared store, as the keyserver says.
type known struct {
	ids []string
	// unread says why they are not known, where the sweep goes on all the same: nothing goes then of what depends on
	// them, and nothing of it is green.
	unread string
	// digest that the keyserver named when it was asked. It is asked again when it names another.
	digest string
}

// whoIsKnown asks the keyserver.
func (s *run) whoIsKnown(ctx context.Context) (known, error) {
	ids, digest, err := s.keeper.known(ctx)
	s.unread, s.tooMany = "", errors.Is(err, errTooManyKnown)
	if errors.Is(err, errKnown) {
		s.unread, s.askAgainAt = err.Error(), s.Clock().Add(askAgain) // judge says so: what else ends the sweep is worse
		return known{unread: s.unread, digest: s.keeper.digest()}, nil
	}
	return known{ids: ids, digest: digest}, err
}

// tellApart looks whether others are known now than when the store was told, and tells it. A tenant that came
// meanwhile may be called what the column takes for another's name; where that one has a window of its own, nothing
// of the dataset goes any more.
func (s *run) tellApart(ctx context.Context, i int) error {
	if s.Plan.Tenancy != v1alpha1.TenancyShared {
		return nil
	}
	if s.knownDigest != s.keeper.digest() || s.unread != "" && !s.tooMany && !s.Clock().Before(s.askAgainAt) {
		if err := s.hear(ctx); err != nil {
			return err
		}
	}
	if s.store.Unclear(i) {
		s.unlisted[i] = s.unread != ""
		return errUnclear
	}
	return nil
}

// hear asks who is known, and tells the store.
func (s *run) hear(ctx context.Context) error {
	k, err := s.whoIsKnown(ctx)
	if err != nil {
		return err
	}
	// Until the store has compared all names nothing else goes either. What it was told before does not count any more.
	s.knownDigest = ""
	if err := s.store.Know(ctx, k.ids, k.unread); err != nil {
		// It is no failure of the batch that was about to begin: it must not be tried again with fewer rows.
		return &stores.Error{Problem: v1alpha1.Problem{Reason: v1alpha1.ReasonStoreError, Message: "compare the tenants' identifiers: " + s.engine.Describe(err)}}
	}
	s.knownDigest = k.digest
	s.Log.Info("Heard who is known", "identifiers", len(k.ids), "unread", k.unread)
	return nil
}

// listed gives datasets that waited only for the list of known tenants another turn, when it is there by now. It says
// whether there are any. What a brake has counted of them stands.
func (s *run) listed(ctx context.Context) (bool, error) {
	if !slices.Contains(s.unlisted, true) {
		return false, nil
	}
	if s.unread != "" && !s.tooMany {
		if err := s.hear(ctx); err != nil {
			return false, err
		}
	}
	any := false
	for i := range s.unlisted {
		if s.unlisted[i] && !s.store.Unclear(i) {
			s.unlisted[i], s.refused[i], s.finished[i], any = false, nil, false, true
		}
	}
	return any, nil
}
