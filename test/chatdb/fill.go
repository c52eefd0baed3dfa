package chatdb

import (
	"fmt"
	"time"
)

type filling struct {
	what, sql string
	args      []any
}

// functions in pg_temp. pick is a number in [0,n) that looks random and depends on nothing but the row, the column's
// salt and the seed, so that tables can be filled in any order. aged moves a time that would come to the end of a
// window within the quiet time back to before the window's end at now.
const functions = `
CREATE FUNCTION pg_temp.pick(i bigint, salt bigint, n bigint) RETURNS bigint LANGUAGE sql IMMUTABLE AS
$$ SELECT ((hashint8extended(i, %d::bigint * 1000 + salt) %% n) + n) %% n $$;
CREATE FUNCTION pg_temp.aged(t timestamptz) RETURNS timestamptz LANGUAGE sql IMMUTABLE AS
$$ SELECT CASE WHEN EXISTS (
       SELECT FROM unnest(ARRAY[
           timestamptz '%[2]s' - interval '720 hours', timestamptz '%[2]s' - interval '2160 hours',
           timestamptz '%[2]s' - interval '4320 hours'
       ]) AS due WHERE t > due - interval '1 minute' AND t <= due + interval '%[3]d seconds')
   OR t BETWEEN timestamptz '%[2]s' - interval '7 years' - interval '3 days' AND timestamptz '%[2]s' - interval '7 years' + interval '3 days'
   THEN t - interval '6 days' - interval '%[3]d seconds' ELSE t END $$`

// odd replaces few dates by ones that no age can be told from, in the ratio in which real tables have them.
func odd(column string) string {
	return fmt.Sprintf(`CASE WHEN i %% 1500 = 7 THEN NULL
	            WHEN i %% 3000 = 11 THEN timestamptz '1970-01-01 00:00:00+00'
	            WHEN i %% 30000 = 13 THEN $1::timestamptz + interval '400 days'
	            WHEN i = 17 THEN 'infinity'::timestamptz
	            ELSE pg_temp.aged(%s) END`, column)
}

// fill returns the statements that make the rows, each with $1 the present moment.
func fill(o Options) []filling {
	now := o.Now
	contacts, conversations := int64(o.Messages/60), int64(o.Messages/25)
	attachments, payments := int64(o.Messages/10), int64(o.Messages/60)
	yesterday := int64(o.Messages / 500)
	days := o.Days
	stamp := now.Format(time.RFC3339)

	return []filling{
		{"functions", fmt.Sprintf(functions, o.Seed, stamp, int64(o.Quiet/time.Second)), nil},

		{"accounts", `INSERT INTO accounts VALUES (1001, 'acme', $1::timestamptz - interval '9 years'), (1002, 'globex', $1::timestamptz - interval '8 years')`, []any{now}},

		// Contacts of the last two years; even ids are acme's, here and below.
		{"contacts", `INSERT INTO contacts
		 SELECT i, 1001 + i % 2, 'Contact ' || i, '+49 30 ' || lpad(i::text, 8, '0'), ` + odd("$1::timestamptz - make_interval(secs => 86400 + pg_temp.pick(i, 1, 700 * 86400))") + `
		 FROM generate_series(1, $2::bigint) AS i`, []any{now, contacts}},

		// A conversation belongs to a contact of the same customer.
		{"conversations", `INSERT INTO conversations
		 SELECT i, 1001 + i % 2, 1 + (pg_temp.pick(i, 2, $2::bigint / 2 - 1) * 2 + (i + 1) % 2),
		        (ARRAY['telegram', 'whatsapp', 'web'])[1 + pg_temp.pick(i, 3, 3)],
		        pg_temp.aged($1::timestamptz - make_interval(secs => 3600 + pg_temp.pick(i, 4, $4::bigint * 86400)))
		 FROM generate_series(1, $3::bigint) AS i`, []any{now, contacts, conversations, int64(days)}},

		// Messages follow their conversation's start within two days; none is in the future but the odd ones.
		{"messages", `INSERT INTO messages
		 SELECT i, c.account_id, c.id, 'Message ' || i || ' ' || md5(i::text) || ' ' || md5((i + 1)::text),
		        ` + odd("least(c.started_at + make_interval(secs => pg_temp.pick(i, 5, 2 * 86400)), $1::timestamptz - interval '1 minute')") + `
		 FROM generate_series(1, $2::bigint - $4::bigint) AS i
		 JOIN conversations c ON c.id = 1 + pg_temp.pick(i, 6, $3::bigint)`, []any{now, int64(o.Messages), conversations, yesterday}},

		// The last messages went to the oldest conversations, yesterday.
		{"messages of yesterday", `INSERT INTO messages
		 SELECT $2::bigint - row_number() OVER (ORDER BY id) + 1, account_id, id, 'Are you still there?', $1::timestamptz - interval '1 day' - make_interval(secs => pg_temp.pick(id, 7, 3600))
		 FROM (SELECT * FROM conversations ORDER BY started_at, id LIMIT $3::bigint) AS old`, []any{now, int64(o.Messages), yesterday}},

		// One in a hundred attachments was stored again in the last three days, whatever its message's age.
		{"attachments", `INSERT INTO attachments
		 SELECT i, m.account_id, m.id, 'photo-' || i || '.jpg', 20000 + pg_temp.pick(i, 8, 4000000),
		        CASE WHEN i % 100 = 3 THEN $1::timestamptz - make_interval(secs => pg_temp.pick(i, 9, 3 * 86400)) ELSE m.sent_at END
		 FROM generate_series(1, $2::bigint) AS i
		 JOIN messages m ON m.id = 1 + pg_temp.pick(i, 10, $3::bigint)`, []any{now, attachments, int64(o.Messages)}},

		// Payments of nine years. One in five was made in a conversation.
		{"payments", `INSERT INTO payments
		 SELECT i, c.account_id, c.contact_id, CASE WHEN i % 5 = 0 THEN c.id END, 100 + pg_temp.pick(i, 11, 50000),
		        ` + odd("$1::timestamptz - make_interval(secs => 3600 + pg_temp.pick(i, 12, 9 * 365 * 86400::bigint))") + `
		 FROM generate_series(1, $2::bigint) AS i
		 JOIN conversations c ON c.id = 1 + pg_temp.pick(i, 13, $3::bigint)`, []any{now, payments, conversations}},
	}
}
