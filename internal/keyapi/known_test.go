package keyapi

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// Pages put together are the list, each fits its bound, and each has something in it.
func TestPagesOfKnownTenants(t *testing.T) {
	var known []string
	for i := range 5000 {
		known = append(known, fmt.Sprintf("%05d-%s", i, strings.Repeat("x", i%122)))
	}
	for _, list := range [][]string{nil, known[:1], known, {strings.Repeat("x", 2*MaxKnownPage), "y"}} {
		var got []string
		pages := 0
		for page := KnownPage(list, 1); len(page) > 0; page = KnownPage(list, len(got)+1) {
			size := 0
			for _, id := range page {
				size += len(id)
			}
			if size > MaxKnownPage && len(page) > 1 {
				t.Errorf("a page of %d bytes", size)
			}
			got = append(got, page...)
			pages++
		}
		if !slices.Equal(got, list) || len(list) == len(known) && pages < 3 {
			t.Errorf("%d of %d came back, in %d pages", len(got), len(list), pages)
		}
	}
	for _, from := range []int{-1, 0, len(known) + 1, 1 << 40} {
		if page := KnownPage(known, from); page != nil {
			t.Errorf("from %d there are %d", from, len(page))
		}
	}
}

// TestAPageFitsWhateverJSONMakesOfIt: some characters are six in JSON, and an answer of the keyserver is at most 512
// KiB.
func TestAPageFitsWhateverJSONMakesOfIt(t *testing.T) {
	ids := make([]string, 5000)
	for i := range ids {
		ids[i] = fmt.Sprintf("%04d", i) + strings.Repeat("<", 124)
	}
	b, err := json.Marshal(KnownPage(ids, 1))
	if err != nil || len(b) > 480<<10 {
		t.Errorf("%d bytes, %v", len(b), err)
	}
}
