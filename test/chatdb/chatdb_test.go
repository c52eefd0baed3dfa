package chatdb

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/lethe-dev/lethe/test/pg"
)

var server *pg.Server

func TestMain(m *testing.M) { os.Exit(pg.Main(m, pg.Options{}, func(s *pg.Server) { server = s })) }

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// small is a tenth of the demo's database, which has every odd case too.
func small(t *testing.T, o Options) *pgx.Conn {
	t.Helper()
	conn := server.Admin(t, server.Database(t)).Conn
	if o.Messages == 0 {
		o.Messages = 30_000
	}
	if o.Now.IsZero() {
		o.Now = now
	}
	if err := Create(t.Context(), conn, o); err != nil {
		t.Fatal(err)
	}
	return conn
}

func ask(t *testing.T, conn *pgx.Conn, at time.Time, w Windows) Verdicts {
	t.Helper()
	v, err := Oracle(t.Context(), conn, at, w)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func number(t *testing.T, conn *pgx.Conn, sql string, args ...any) int {
	t.Helper()
	var n int
	if err := conn.QueryRow(t.Context(), sql, args...).Scan(&n); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return n
}

func TestEveryCaseOccurs(t *testing.T) {
	conn := small(t, Options{})
	v := ask(t, conn, now, DemoWindows())
	for table, verdicts := range map[string][]Verdict{
		"attachments":   {Goes, Young, Unknown},
		"messages":      {Goes, Young, Unknown, Needed},
		"payments":      {Goes, Young, Unknown},
		"conversations": {Goes, Young, Floored, Needed},
		"contacts":      {Goes, Young, Floored, Needed},
	} {
		for _, want := range verdicts {
			if v.Count(table, "", want) == 0 {
				t.Errorf("no row of %s has the verdict %q", table, want)
			}
		}
		for _, account := range []string{Acme, Globex} {
			if v.Count(table, account, Goes) == 0 {
				t.Errorf("no row of %s of customer %s goes", table, account)
			}
		}
	}
	for what, sql := range map[string]string{
		"messages without a date":  "SELECT count(*) FROM messages WHERE sent_at IS NULL",
		"messages of 1970":         "SELECT count(*) FROM messages WHERE sent_at = 'epoch'",
		"messages of the future":   "SELECT count(*) FROM messages WHERE sent_at > '2026-03-02' AND isfinite(sent_at)",
		"a message of infinity":    "SELECT count(*) FROM messages WHERE NOT isfinite(sent_at)",
		"payments of over 7 years": "SELECT count(*) FROM payments WHERE paid_at < '2019-02-01'",
		"old ones with a new message": `SELECT count(*) FROM conversations c WHERE started_at < '2025-11-15'
			AND EXISTS (SELECT FROM messages m WHERE m.conversation_id = c.id AND sent_at BETWEEN '2026-02-28' AND '2026-03-01')`,
	} {
		if number(t, conn, sql) == 0 {
			t.Errorf("none: %s", what)
		}
	}
	if n := number(t, conn, "SELECT count(*) FROM messages"); n != 30_000 {
		t.Errorf("%d messages", n)
	}
	// A row never refers to another customer's.
	for _, sql := range []string{
		"SELECT count(*) FROM conversations c JOIN contacts k ON k.id = c.contact_id WHERE c.account_id <> k.account_id",
		"SELECT count(*) FROM messages m JOIN conversations c ON c.id = m.conversation_id WHERE c.account_id <> m.account_id",
		"SELECT count(*) FROM attachments a JOIN messages m ON m.id = a.message_id WHERE a.account_id <> m.account_id",
		"SELECT count(*) FROM payments p JOIN contacts k ON k.id = p.contact_id WHERE p.account_id <> k.account_id",
	} {
		if n := number(t, conn, sql); n != 0 {
			t.Errorf("%d rows cross customers: %s", n, sql)
		}
	}
}

func TestTheAnswerHoldsForTheQuietTime(t *testing.T) {
	conn := small(t, Options{Quiet: 3 * time.Hour})
	first := ask(t, conn, now, DemoWindows())
	later := ask(t, conn, now.Add(3*time.Hour-time.Second), DemoWindows())
	for table := range first {
		for i, r := range first[table] {
			if later[table][i] != r {
				t.Fatalf("%s: %+v became %+v", table, r, later[table][i])
			}
		}
	}
	if after := ask(t, conn, now.Add(30*24*time.Hour), DemoWindows()); after.Count("messages", "", Goes) == first.Count("messages", "", Goes) {
		t.Error("a month later nothing more goes: the times do not matter to the oracle")
	}
}

func TestTheSameSeedGivesTheSameRows(t *testing.T) {
	sum := func(o Options) string {
		conn := small(t, o)
		var s string
		err := conn.QueryRow(t.Context(), `SELECT md5(string_agg(m::text, '|' ORDER BY id)) FROM messages m`).Scan(&s)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	if a, b := sum(Options{Messages: 3000}), sum(Options{Messages: 3000}); a != b {
		t.Error("two fillings differ")
	}
	if sum(Options{Messages: 3000}) == sum(Options{Messages: 3000, Seed: 2}) {
		t.Error("the seed does nothing")
	}
}

// TestTheOracleAgainstHandMadeRows: the oracle is what everything else is measured by, so it is held against rows whose
// fate was decided by hand.
func TestTheOracleAgainstHandMadeRows(t *testing.T) {
	conn := server.Admin(t, server.Database(t, schemaSQL, `
INSERT INTO accounts VALUES (1001, 'acme', '2020-01-01Z'), (1002, 'globex', '2020-01-01Z');
INSERT INTO contacts VALUES (1, 1001, 'a', '', '2026-02-01Z'), (2, 1001, 'b', '', '2025-01-01Z'), (3, 1002, 'c', '', '2025-01-01Z'),
  (4, 1002, 'd', '', '2025-01-01Z'), (5, 1002, 'e', '', NULL), (6, 1002, 'f', '', '2025-09-02 12:00Z'), (7, 1002, 'g', '', '2025-09-02 12:00:01Z');
INSERT INTO conversations VALUES (1, 1001, 2, '', '2026-01-30 12:00Z'), (2, 1002, 3, '', '2026-01-30 12:00Z'), (3, 1002, 3, '', '2025-11-01Z'),
  (4, 1002, 3, '', '2025-11-01Z'), (5, 1001, 2, '', '2025-11-01Z'), (6, 1001, 2, '', '2025-11-01Z');
INSERT INTO messages VALUES (1, 1001, 1, '', '2026-01-30 12:00Z'), (2, 1002, 2, '', '2026-01-30 12:00Z'), (3, 1002, 3, '', '2025-11-01Z'),
  (4, 1002, 3, '', '2026-02-28Z'), (5, 1002, 4, '', '1970-01-01Z'), (6, 1001, 5, '', 'infinity'), (7, 1001, 6, '', '2025-11-02Z'),
  (8, 1001, 6, '', '2027-01-01Z'), (9, 1002, 4, '', NULL), (10, 1002, 3, '', '1990-01-01Z');
INSERT INTO attachments VALUES (1, 1001, 1, '', 1, '2025-12-01Z'), (2, 1001, 7, '', 1, '2026-02-25Z'), (3, 1002, 2, '', 1, '2025-11-30 12:00Z');
INSERT INTO payments VALUES (1, 1002, 4, NULL, 1, '2019-03-01 12:00Z'), (2, 1002, 4, 4, 1, '2019-03-01 12:00:01Z'), (3, 1001, 2, 5, 1, '2018-01-01Z'),
  (4, 1001, 2, 5, 1, NULL)`)).Conn
	v := ask(t, conn, now, DemoWindows())
	want := map[string]string{
		// 1: acme's, exactly 30 days old. 2: stored again on the 25th. 3: exactly 91 days.
		"attachments": "1 goes, 2 young, 3 goes",
		// 2: globex has 90 days. 7: its attachment is young. 10: as early as a date may be.
		"messages": "1 goes, 2 young, 3 goes, 4 young, 5 unknown, 6 unknown, 7 child, 8 unknown, 9 unknown, 10 goes",
		"payments": "1 goes, 2 young, 3 goes, 4 unknown",
		// 3: got a message yesterday. 4: a payment the law keeps, though its messages' ages are unknown too. 5: a
		// payment and a message of unknown age.
		"conversations": "1 goes, 2 young, 3 child, 4 floor, 5 child, 6 child",
		"contacts":      "1 young, 2 child, 3 child, 4 floor, 5 unknown, 6 goes, 7 young",
	}
	got := map[string]string{}
	for table, rows := range v {
		var parts []string
		for _, r := range rows {
			parts = append(parts, fmt.Sprint(r.ID, " ", r.Verdict))
		}
		got[table] = strings.Join(parts, ", ")
	}
	for _, table := range slices.Sorted(maps.Keys(want)) {
		if got[table] != want[table] {
			t.Errorf("%s:\n got %s\nwant %s", table, got[table], want[table])
		}
	}
}

func TestDiffFindsBothMistakes(t *testing.T) {
	conn := small(t, Options{Messages: 3000})
	v := ask(t, conn, now, DemoWindows())
	left := func() map[string][]int64 {
		l, err := Left(t.Context(), conn)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	if err := v.Diff(left()).Err(); err == nil || !strings.Contains(err.Error(), "still there") {
		t.Errorf("before any sweep: %v", err)
	}
	// What a right sweep does, by the oracle's own word.
	for _, table := range Tables {
		var gone []int64
		for _, r := range v[table] {
			if r.Verdict == Goes {
				gone = append(gone, r.ID)
			}
		}
		if _, err := conn.Exec(t.Context(), "DELETE FROM "+table+" WHERE id = ANY($1)", gone); err != nil {
			t.Fatalf("the foreign keys do not let the oracle's rows go: %v", err)
		}
	}
	if err := v.Diff(left()).Err(); err != nil {
		t.Errorf("after it: %v", err)
	}
	if _, err := conn.Exec(t.Context(), "DELETE FROM payments WHERE id = (SELECT max(id) FROM payments)"); err != nil {
		t.Fatal(err)
	}
	if err := v.Diff(left()).Err(); err == nil || !strings.Contains(err.Error(), "1 rows of payments are gone too early") {
		t.Errorf("after one payment too many: %v", err)
	}
}

func TestOptionsThatCannotWorkAreRefused(t *testing.T) {
	for _, o := range []Options{{}, {Now: now, Messages: 10}, {Now: now, Days: 5}} {
		if err := Create(t.Context(), nil, o); err == nil {
			t.Errorf("%+v was taken", o)
		}
	}
}
