package chatdb

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// Verdict is what becomes of a row, and why.
type Verdict string

// Verdicts. Exactly one holds for each row.
const (
	Goes    Verdict = "goes"    // past its window, and nothing that stays refers to it
	Young   Verdict = "young"   // within its window
	Unknown Verdict = "unknown" // its age cannot be told
	Floored Verdict = "floor"   // past its window; a record that the law keeps stays, and it is needed for that one
	Needed  Verdict = "child"   // past its window; something younger, or of unknown age, refers to it
)

// Windows are the promise, in days for conversations and contacts and in years for payments.
type Windows struct {
	Conversations map[string]int // days, by customer: conversations, messages, attachments
	Contacts      int            // days
	Payments      int            // years; the floor is as long
}

// DemoWindows are what the demo promises: conversations 90 days, acme's 30; contacts 180 days; payments 7 years.
func DemoWindows() Windows {
	return Windows{Conversations: map[string]int{Acme: 30, Globex: 90}, Contacts: 180, Payments: 7}
}

// Row of one table. Tables have a key of their own each.
type Row struct {
	ID      int64
	Account string
	Verdict Verdict
	Age     time.Time // zero when unknown
}

// Verdicts are the Oracle's answer by table, each ordered by id.
type Verdicts map[string][]Row

// oracleSQL decides from the leaves up, one table after the other, in words as close to the promise as SQL allows. It
// shares nothing with the sweeper: a mistake would have to be made twice.
//
// A date says an age when it is there, finite, not before 1990 and not in the future.
const oracleSQL = `
WITH cut AS (
    SELECT $1::timestamptz AS now,
           $1::timestamptz - make_interval(hours => 24 * $2::int) AS acme,
           $1::timestamptz - make_interval(hours => 24 * $3::int) AS globex,
           $1::timestamptz - make_interval(hours => 24 * $4::int) AS contact,
           $1::timestamptz - make_interval(years => $5::int) AS payment
), attachment AS (
    SELECT a.id, a.account_id, a.message_id, a.stored_at AS age,
           CASE WHEN NOT coalesce(a.stored_at >= '1990-01-01Z' AND a.stored_at <= now, false) THEN 'unknown'
                WHEN a.stored_at > CASE a.account_id WHEN 1001 THEN acme ELSE globex END THEN 'young'
                ELSE 'goes' END AS verdict
    FROM attachments a, cut
), message AS (
    SELECT m.id, m.account_id, m.conversation_id, m.sent_at AS age,
           CASE WHEN NOT coalesce(m.sent_at >= '1990-01-01Z' AND m.sent_at <= now, false) THEN 'unknown'
                WHEN m.sent_at > CASE m.account_id WHEN 1001 THEN acme ELSE globex END THEN 'young'
                WHEN m.id IN (SELECT message_id FROM attachment WHERE verdict <> 'goes') THEN 'child'
                ELSE 'goes' END AS verdict
    FROM messages m, cut
), payment AS (
    SELECT p.id, p.account_id, p.contact_id, p.conversation_id, p.paid_at AS age,
           CASE WHEN NOT coalesce(p.paid_at >= '1990-01-01Z' AND p.paid_at <= now, false) THEN 'unknown'
                WHEN p.paid_at > cut.payment THEN 'young'
                ELSE 'goes' END AS verdict
    FROM payments p, cut
), conversation AS (
    SELECT c.id, c.account_id, c.contact_id, c.started_at AS age,
           CASE WHEN NOT coalesce(c.started_at >= '1990-01-01Z' AND c.started_at <= now, false) THEN 'unknown'
                WHEN c.started_at > CASE c.account_id WHEN 1001 THEN acme ELSE globex END THEN 'young'
                WHEN c.id IN (SELECT conversation_id FROM payment WHERE verdict = 'young' AND conversation_id IS NOT NULL) THEN 'floor'
                WHEN c.id IN (SELECT conversation_id FROM payment WHERE verdict = 'unknown' AND conversation_id IS NOT NULL) THEN 'child'
                WHEN c.id IN (SELECT conversation_id FROM message WHERE verdict <> 'goes') THEN 'child'
                ELSE 'goes' END AS verdict
    FROM conversations c, cut
), contact AS (
    SELECT k.id, k.account_id, k.created_at AS age,
           CASE WHEN NOT coalesce(k.created_at >= '1990-01-01Z' AND k.created_at <= now, false) THEN 'unknown'
                WHEN k.created_at > cut.contact THEN 'young'
                WHEN k.id IN (SELECT contact_id FROM payment WHERE verdict = 'young') THEN 'floor'
                WHEN k.id IN (SELECT contact_id FROM payment WHERE verdict = 'unknown') THEN 'child'
                WHEN k.id IN (SELECT contact_id FROM conversation WHERE verdict <> 'goes') THEN 'child'
                ELSE 'goes' END AS verdict
    FROM contacts k, cut
)
SELECT 'attachments', id, account_id::text, verdict, CASE WHEN verdict <> 'unknown' THEN age END FROM attachment
UNION ALL SELECT 'messages', id, account_id::text, verdict, CASE WHEN verdict <> 'unknown' THEN age END FROM message
UNION ALL SELECT 'payments', id, account_id::text, verdict, CASE WHEN verdict <> 'unknown' THEN age END FROM payment
UNION ALL SELECT 'conversations', id, account_id::text, verdict, CASE WHEN verdict <> 'unknown' THEN age END FROM conversation
UNION ALL SELECT 'contacts', id, account_id::text, verdict, CASE WHEN verdict <> 'unknown' THEN age END FROM contact`

// Oracle reads the whole database and says of each row what becomes of it at a moment under a promise.
func Oracle(ctx context.Context, conn *pgx.Conn, now time.Time, w Windows) (Verdicts, error) {
	tx, err := conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		return nil, fmt.Errorf("ask the oracle: %w", err)
	}
	defer func() { _ = tx.Rollback(ctx) }() // it only reads
	// Enough to keep each set of ids in a hash: with less, every row would search the whole set.
	if _, err := tx.Exec(ctx, "SET LOCAL work_mem = '512MB'"); err != nil {
		return nil, fmt.Errorf("ask the oracle: %w", err)
	}
	rows, err := tx.Query(ctx, oracleSQL, now, w.Conversations[Acme], w.Conversations[Globex], w.Contacts, w.Payments)
	if err != nil {
		return nil, fmt.Errorf("ask the oracle: %w", err)
	}
	out := Verdicts{}
	var (
		table string
		row   Row
		age   *time.Time
	)
	_, err = pgx.ForEachRow(rows, []any{&table, &row.ID, &row.Account, &row.Verdict, &age}, func() error {
		row.Age = time.Time{}
		if age != nil {
			row.Age = *age
		}
		out[table] = append(out[table], row)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("ask the oracle: %w", err)
	}
	for _, t := range out {
		slices.SortFunc(t, func(a, b Row) int { return int(a.ID - b.ID) })
	}
	return out, nil
}

// Count the rows of a table with a verdict; an empty account counts all customers.
func (v Verdicts) Count(table, account string, verdict Verdict) int {
	n := 0
	for _, r := range v[table] {
		if r.Verdict == verdict && (account == "" || account == r.Account) {
			n++
		}
	}
	return n
}

// Left reads which rows are there now, by table and ordered by id.
func Left(ctx context.Context, conn *pgx.Conn) (map[string][]int64, error) {
	out := map[string][]int64{}
	for _, table := range Tables {
		rows, err := conn.Query(ctx, "SELECT id FROM "+pgx.Identifier{table}.Sanitize()+" ORDER BY id")
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", table, err)
		}
		if out[table], err = pgx.CollectRows(rows, pgx.RowTo[int64]); err != nil {
			return nil, fmt.Errorf("read %s: %w", table, err)
		}
	}
	return out, nil
}

// Difference between what the Oracle said and what is there.
type Difference struct {
	Premature map[string][]int64 // gone, and should have stayed
	Survived  map[string][]int64 // still there, and should be gone
}

// Diff compares. Rows that the Oracle did not know, made meanwhile, count as neither.
func (v Verdicts) Diff(left map[string][]int64) Difference {
	d := Difference{Premature: map[string][]int64{}, Survived: map[string][]int64{}}
	for table, rows := range v {
		for _, r := range rows {
			_, there := slices.BinarySearch(left[table], r.ID)
			switch {
			case there && r.Verdict == Goes:
				d.Survived[table] = append(d.Survived[table], r.ID)
			case !there && r.Verdict != Goes:
				d.Premature[table] = append(d.Premature[table], r.ID)
			}
		}
	}
	return d
}

// Err is nil when exactly the rows that should go are gone; else it names tables and numbers.
func (d Difference) Err() error {
	var what []string
	for _, table := range Tables {
		if n := len(d.Premature[table]); n > 0 {
			what = append(what, fmt.Sprintf("%d rows of %s are gone too early (the first has id %d)", n, table, d.Premature[table][0]))
		}
		if n := len(d.Survived[table]); n > 0 {
			what = append(what, fmt.Sprintf("%d rows of %s are still there (the first has id %d)", n, table, d.Survived[table][0]))
		}
	}
	if what == nil {
		return nil
	}
	return fmt.Errorf("not what the oracle said: %s", strings.Join(what, "; "))
}
