package postgres

import (
	"strings"
	"testing"

	"github.com/lethe-dev/lethe/internal/protocol"
)

func TestBack(t *testing.T) {
	last := protocol.Point{System: "7", OID: 5, Timeline: 2, Position: 0x2_016B3748, Transactions: 1000}
	for name, tc := range map[string]struct {
		change func(*protocol.Point)
		says   string
	}{
		"the same":                         {func(*protocol.Point) {}, ""},
		"later":                            {func(p *protocol.Point) { p.Position, p.Transactions = p.Position+1, p.Transactions+1 }, ""},
		"failed over":                      {func(p *protocol.Point) { p.Timeline = 3 }, ""},
		"another database":                 {func(p *protocol.Point) { p.OID = 6 }, "object identifier 6, it was 5"},
		"an earlier timeline":              {func(p *protocol.Point) { p.Timeline, p.Position = 1, p.Position+1000 }, "timeline is 1"},
		"an earlier position":              {func(p *protocol.Point) { p.Position-- }, "is 2/16B3747, it was 2/16B3748"},
		"a later timeline, and earlier":    {func(p *protocol.Point) { p.Timeline, p.Position = 3, p.Position-1 }, "is 2/16B3747"},
		"fewer transactions":               {func(p *protocol.Point) { p.Transactions-- }, "999, it was 1000"},
		"a later position, fewer of those": {func(p *protocol.Point) { p.Position, p.Transactions = p.Position+1, 1 }, "its next transaction is 1"},
	} {
		now := last
		tc.change(&now)
		if got := back(last, now); (got == "") != (tc.says == "") || !strings.Contains(got, tc.says) {
			t.Errorf("%s: %q, want %q", name, got, tc.says)
		}
	}
}
