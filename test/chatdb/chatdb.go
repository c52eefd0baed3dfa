// Package chatdb makes a database of a chat product's shape, and tells by plain SQL of its own which of its rows a
// retention promise makes go. The demo, the end-to-end tests and the benches fill their PostgreSQL with it.
//
// Two customers share every table. Besides ordinary rows it holds what a sweep gets wrong when it is careless: old
// conversations that got a message yesterday, attachments stored again long after their message, payments that the
// law keeps and that refer to old conversations, and dates that are NULL, 1970, in the future or infinite.
package chatdb

import (
	"context"
	_ "embed"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Customers, as the account_id columns name them.
const (
	Acme   = "1001"
	Globex = "1002"
)

// Tables that hold customers' records, children before what they refer to. The table accounts holds the customers
// themselves.
var Tables = []string{"attachments", "messages", "payments", "conversations", "contacts"}

// AgeColumns of the tables, all of type timestamptz.
var AgeColumns = map[string]string{
	"attachments": "stored_at", "messages": "sent_at", "payments": "paid_at",
	"conversations": "started_at", "contacts": "created_at",
}

//go:embed schema.sql
var schemaSQL string

//go:embed indexes.sql
var indexesSQL string

// Options say how much to make. The zero value of a field is its default.
type Options struct {
	// Now is the moment that ages are counted back from. Required.
	Now time.Time
	// Messages defaults to 300 000. There are about 25 times fewer conversations, 10 times fewer attachments and 60
	// times fewer contacts and payments.
	Messages int
	// Days that conversations and messages are spread over. Defaults to 120.
	Days int
	// Seed: the same seed and time give the same rows on the same major version of PostgreSQL. Defaults to 1.
	Seed int64
	// Quiet is the time after Now in which no row comes to the end of 30, 90 or 180 days or of 7 years: within it the
	// Oracle's answer does not change. Defaults to 6 hours.
	Quiet time.Duration
}

func (o Options) withDefaults() (Options, error) {
	if o.Now.IsZero() {
		return o, fmt.Errorf("options of the chat database: Now is required")
	}
	o.Now = o.Now.UTC().Truncate(time.Second)
	if o.Messages == 0 {
		o.Messages = 300_000
	}
	if o.Days == 0 {
		o.Days = 120
	}
	if o.Seed == 0 {
		o.Seed = 1
	}
	if o.Quiet == 0 {
		o.Quiet = 6 * time.Hour
	}
	if o.Messages < 3000 || o.Days < 100 {
		return o, fmt.Errorf("options of the chat database: %d messages over %d days: want at least 3000 over 100, or the odd cases do not occur", o.Messages, o.Days)
	}
	return o, nil
}

// Create makes the tables in an empty schema public and fills them, in one transaction.
func Create(ctx context.Context, conn *pgx.Conn, o Options) error {
	o, err := o.withDefaults()
	if err != nil {
		return err
	}
	tx, err := conn.Begin(ctx)
	if err != nil {
		return fmt.Errorf("create chat database: %w", err)
	}
	defer func() { _ = tx.Rollback(ctx) }() // no effect after Commit
	if _, err := tx.Exec(ctx, schemaSQL); err != nil {
		return fmt.Errorf("create tables: %w", err)
	}
	for _, f := range fill(o) {
		if _, err := tx.Exec(ctx, f.sql, f.args...); err != nil {
			return fmt.Errorf("fill %s: %w", f.what, err)
		}
	}
	if _, err := tx.Exec(ctx, indexesSQL); err != nil {
		return fmt.Errorf("create indexes: %w", err)
	}
	if err := tx.Commit(ctx); err != nil {
		return fmt.Errorf("create chat database: %w", err)
	}
	// Outside the transaction: whoever sweeps plans with what the planner knows.
	if _, err := conn.Exec(ctx, "ANALYZE"); err != nil {
		return fmt.Errorf("analyze: %w", err)
	}
	return nil
}
