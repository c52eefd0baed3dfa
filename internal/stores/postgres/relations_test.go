package postgres

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/plan"
)

// chat is a product that declares no foreign key: of 2 000 conversations that are past their window 100 got a message
// yesterday. Beside them there are conversations without an age and with an impossible one, messages of conversations
// that are gone, and messages of none.
const chat = `CREATE TABLE conversations (id %[1]s PRIMARY KEY, created_at timestamptz); CREATE INDEX ON conversations (created_at);
	CREATE TABLE messages (id bigint PRIMARY KEY, conversation_id %[1]s, created_at timestamptz, attachment_url text); CREATE INDEX ON messages (created_at);
	INSERT INTO conversations SELECT n::text::%[1]s, now() - interval '100 days' FROM generate_series(1, 2000) n;
	INSERT INTO conversations SELECT n::text::%[1]s, now() - interval '10 days' FROM generate_series(2001, 2100) n;
	INSERT INTO conversations SELECT n::text::%[1]s, NULL FROM generate_series(2101, 2110) n; INSERT INTO conversations SELECT n::text::%[1]s, '1970-01-01' FROM generate_series(2111, 2120) n;
	INSERT INTO messages SELECT n, (n %% 2000 + 1)::text::%[1]s, now() - interval '99 days' FROM generate_series(1, 4000) n;
	INSERT INTO messages SELECT 10000 + n, n::text::%[1]s, now() - interval '1 day' FROM generate_series(1, 100) n;
	INSERT INTO messages SELECT 20000 + n, (90000 + n)::text::%[1]s, now() - interval '1 day' FROM generate_series(1, 7) n;
	INSERT INTO messages SELECT 30000 + n, NULL, now() - interval '1 day' FROM generate_series(1, 5) n;`

func chatTable(name string) v1alpha1.Table {
	return v1alpha1.Table{Schema: "public", Name: v1alpha1.Identifier(name), Key: []v1alpha1.Identifier{"id"}, AgeColumn: v1alpha1.AgeColumn{Name: "created_at", Type: v1alpha1.AgeTimestamptz}}
}

func chatWorld(t *testing.T, key string, relations []v1alpha1.Relation, more string) *world {
	t.Helper()
	w := newWorld(t, Config{Datasets: []Dataset{after(90, chatTable("conversations")), after(90, chatTable("messages"))}}, fmt.Sprintf(chat, key)+more)
	w.relate(relations...)
	return w
}

// relate gives the store relations, and the role what the shipped SQL grants for them.
func (w *world) relate(relations ...v1alpha1.Relation) {
	w.t.Helper()
	w.spec.Relations = relations
	w.config.Relations = nil
	for _, r := range relations {
		to := string(r.ReferencesColumn)
		if to == "" {
			to = "id"
		}
		w.config.Relations = append(w.config.Relations, Relation{Schema: "public", Table: string(r.Table), Column: string(r.Column), References: r.References, To: to, Declared: r.State == v1alpha1.RelationDeclared})
	}
	w.grant()
}

func declared(table, column, to string) v1alpha1.Relation {
	return v1alpha1.Relation{Table: v1alpha1.Identifier(table), Column: v1alpha1.Identifier(column), References: to, State: v1alpha1.RelationDeclared, Reason: "the product looks it up"}
}

const indexed = `CREATE INDEX ON messages (conversation_id);`

// What the policy's text says, in plain SQL: a conversation is older than 90 days and nobody has written in it for 90
// days.
const (
	mayGo   = `SELECT count(*) FROM conversations c WHERE c.created_at BETWEEN '1990-01-01' AND now() - interval '90 days' AND NOT EXISTS (SELECT FROM messages m WHERE m.conversation_id = c.id AND (m.created_at > now() - interval '90 days' OR m.created_at IS NULL))`
	live    = `SELECT count(*) FROM conversations c WHERE EXISTS (SELECT FROM messages m WHERE m.conversation_id = c.id AND m.created_at > now() - interval '90 days')`
	orphans = `SELECT count(*) FROM messages m WHERE m.conversation_id IS NOT NULL AND NOT EXISTS (SELECT FROM conversations c WHERE c.id = m.conversation_id)`
)

// Live data is not deleted on a guess: until a person has said whether messages refer to conversations, nothing goes
// from either.
func TestLiveDataIsNotDeletedOnAGuess(t *testing.T) {
	for _, key := range []string{"bigint", "text"} {
		w := chatWorld(t, key, nil, indexed)
		if n, alive, lost := w.admin.Count(mayGo), w.admin.Count(live), w.admin.Count(orphans); n != 1900 || alive != 100 || lost != 7 {
			t.Fatalf("the data has %d conversations to go, %d alive and %d orphans", n, alive, lost)
		}
		for name, p := range w.problems() {
			if p.Reason != v1alpha1.ReasonUndeclaredRelation || !strings.Contains(p.Message, "{schema: public, table: messages, column: conversation_id, references: conversations, state: Declared") {
				t.Errorf("%s: %+v", name, p)
			}
		}
		if n := len(w.problems()); n != 2 {
			t.Errorf("%d datasets are refused, want both", n)
		}
		for name, d := range w.sweep() {
			if d.Rows != 0 {
				t.Errorf("%d rows of %s went", d.Rows, name)
			}
		}
		lines := w.measure()
		if l := lines["conversations"]; l.Reason != v1alpha1.ReasonUndeclaredRelation || l.Eligible != 2000 || l.UnknownAge != 20 {
			t.Errorf("what can be measured is measured: %+v", l)
		}
		st := w.open()
		if got := fmt.Sprint(st.Undeclared(), st.Pointers()); got != "[{public messages conversation_id conversations}] [messages.attachment_url]" {
			t.Errorf("named: %s", got)
		}

		// Declared, it has the force of a foreign key.
		w.relate(declared("messages", "conversation_id", "conversations"))
		before := w.measure()["conversations"]
		if before.Reason != "" || before.Eligible != 1900 || before.KeptByChild != 100 || before.Overdue != 2000 {
			t.Errorf("measured with the relation: %+v", before)
		}
		deleted := w.sweep()
		if deleted["conversations"].Rows != 1900 || deleted["messages"].Rows != 4000 {
			t.Errorf("deleted: %+v", deleted)
		}
		if n, alive, lost := w.admin.Count(mayGo), w.admin.Count(live), w.admin.Count(orphans); n != 0 || alive != 100 || lost != 7 {
			t.Errorf("left are %d conversations to go, %d alive, and %d orphans", n, alive, lost)
		}
		if l := w.measure()["conversations"]; l.Eligible != 0 || l.KeptByChild != 100 || l.Overdue != 100 {
			t.Errorf("what a declared relation keeps is late: %+v", l)
		}
	}
}

func TestADeniedRelationKeepsNothing(t *testing.T) {
	denied := declared("messages", "conversation_id", "conversations")
	denied.State = v1alpha1.RelationDenied
	w := chatWorld(t, "bigint", []v1alpha1.Relation{denied}, "")
	if d := w.sweep(); d["conversations"].Rows != 2000 || d["messages"].Rows != 4000 {
		t.Errorf("deleted: %+v", d)
	}
}

func TestRelationsThatCannotBeKept(t *testing.T) {
	relation := declared("messages", "conversation_id", "conversations")
	tests := map[string]struct {
		relations      []v1alpha1.Relation
		more           string
		reason, remedy string
		also           string // a dataset beside conversations that is refused, too
	}{
		"no index": {[]v1alpha1.Relation{relation}, "", v1alpha1.ReasonUnindexedForeignKey, `CREATE INDEX CONCURRENTLY ON "public"."messages" ("conversation_id")`, ""},
		"types that an index does not compare": {[]v1alpha1.Relation{relation}, indexed + `ALTER TABLE messages ALTER COLUMN conversation_id TYPE text`, v1alpha1.ReasonRelationType,
			`ALTER TABLE "public"."messages" ALTER COLUMN "conversation_id" TYPE bigint USING "conversation_id"::bigint`, ""},
		"a table that is not there":                 {[]v1alpha1.Relation{declared("mails", "conversation_id", "conversations")}, indexed, v1alpha1.ReasonMissingTable, "spec.relations[public.mails.conversation_id]", "messages"},
		"a column that is not there":                {[]v1alpha1.Relation{declared("messages", "talk_id", "conversations")}, indexed, v1alpha1.ReasonMissingColumn, "has no column talk_id", "messages"},
		"a column of the dataset that is not there": {[]v1alpha1.Relation{func() v1alpha1.Relation { r := relation; r.ReferencesColumn = "nr"; return r }()}, indexed, v1alpha1.ReasonMissingColumn, "referencesColumn", ""},
		"a table that is no dataset": {[]v1alpha1.Relation{relation, declared("ratings", "conversation_id", "conversations")}, indexed + `CREATE TABLE ratings (id int, conversation_id bigint)`,
			v1alpha1.ReasonUndeclaredForeignKey, "add a dataset for it to spec.datasets, or correct spec.relations", ""},
		"a second column that nobody spoke of": {[]v1alpha1.Relation{relation}, indexed + `ALTER TABLE messages ADD COLUMN "forwardedConversation" bigint`, v1alpha1.ReasonUndeclaredRelation, "forwardedConversation", "messages"},
		"an exempt table that nobody spoke of": {[]v1alpha1.Relation{relation}, indexed + `CREATE TABLE ratings (id int, conversation bigint)`, v1alpha1.ReasonUndeclaredRelation, "table: ratings, column: conversation", ""},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, Config{Datasets: []Dataset{after(90, chatTable("conversations")), after(90, chatTable("messages"))}, Exempt: []plan.Exemption{{Table: &plan.TableName{Schema: "public", Name: "ratings"}}}}, fmt.Sprintf(chat, "bigint")+tc.more)
			w.relateUngranted(tc.relations...)
			got := map[string]string{}
			for name, p := range w.problems() {
				got[name] = p.Reason
				if name == "conversations" && !strings.Contains(p.Message, tc.remedy) {
					t.Errorf("the message says %s, want %q", p.Message, tc.remedy)
				}
			}
			want := map[string]string{"conversations": tc.reason}
			if tc.also != "" {
				want[tc.also] = v1alpha1.ReasonUndeclaredRelation
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
			if d := w.sweep(); d["conversations"].Rows != 0 {
				t.Errorf("%d conversations went", d["conversations"].Rows)
			}
		})
	}
}

// relateUngranted gives the role the grants of those relations alone whose columns are there.
func (w *world) relateUngranted(relations ...v1alpha1.Relation) {
	w.t.Helper()
	w.relate()
	w.admin.Run(`DO $$ BEGIN EXECUTE 'GRANT SELECT (id, conversation_id) ON messages TO sweeper_' || current_database(); END $$`)
	for _, r := range relations {
		to := string(r.ReferencesColumn)
		if to == "" {
			to = "id"
		}
		w.config.Relations = append(w.config.Relations, Relation{Schema: "public", Table: string(r.Table), Column: string(r.Column), References: r.References, To: to, Declared: true})
	}
}

// A relation of a table to itself, of one that is partitioned, and over three tables.
func TestDeclaredRelationsOfOtherShapes(t *testing.T) {
	old, young := "now() - interval '100 days'", "now() - interval '1 day'"
	t.Run("to itself", func(t *testing.T) {
		w := newWorld(t, Config{Datasets: []Dataset{after(90, chatTable("messages"))}}, `CREATE TABLE messages (id bigint PRIMARY KEY, parent_message_id bigint, created_at timestamptz); CREATE INDEX ON messages (parent_message_id);
			INSERT INTO messages VALUES (1, NULL, `+old+`), (2, 1, `+old+`), (3, 2, `+young+`), (4, NULL, `+old+`), (5, 4, `+old+`), (6, 6, `+old+`), (7, 99, `+old+`)`)
		if n := len(w.problems()); n != 1 {
			t.Errorf("%d problems before it is said", n)
		}
		w.relate(declared("messages", "parent_message_id", "messages"))
		w.sweep()
		if diff := cmp.Diff([]string{"1", "2", "3"}, w.admin.List(`SELECT id::text FROM messages ORDER BY id`)); diff != "" {
			t.Errorf("left (-want +got):\n%s", diff)
		}
		if l := w.measure()["messages"]; l.KeptByChild != 2 || l.Overdue != 2 {
			t.Errorf("measured: %+v", l)
		}
	})
	t.Run("down two tables, one of them partitioned, keys of two columns", func(t *testing.T) {
		conversations := chatTable("conversations")
		conversations.Key = []v1alpha1.Identifier{"account", "id"}
		w := newWorld(t, Config{Datasets: []Dataset{after(90, conversations), after(90, chatTable("messages")), after(90, chatTable("files"))}}, `
			CREATE TABLE conversations (account int, id bigint, created_at timestamptz, PRIMARY KEY (account, id));
			CREATE TABLE messages (id bigint, created_at timestamptz, "conversationId" int, PRIMARY KEY (id, created_at)) PARTITION BY RANGE (created_at);
			CREATE TABLE messages_all PARTITION OF messages DEFAULT; CREATE UNIQUE INDEX ON messages_all (id); CREATE INDEX ON messages ("conversationId");
			CREATE TABLE files (id bigint PRIMARY KEY, message_id bigint, created_at timestamptz); CREATE INDEX ON files (message_id);
			INSERT INTO conversations VALUES (1, 1, `+old+`), (1, 2, `+old+`), (1, 3, `+old+`); INSERT INTO messages VALUES (1, `+old+`, 1), (2, `+old+`, 2), (3, `+old+`, NULL);
			INSERT INTO files VALUES (1, 1, `+young+`), (2, 2, `+old+`), (3, 44, `+old+`)`)
		w.config.Datasets[1].Table.Key = []v1alpha1.Identifier{"id", "created_at"}
		to := declared("messages", "conversationId", "conversations")
		to.ReferencesColumn = "id"
		files := declared("files", "message_id", "messages")
		files.ReferencesColumn = "id"
		w.relate(to, files)
		if p := w.problems(); len(p) > 0 {
			t.Fatalf("problems: %+v", p)
		}
		w.sweep()
		left := w.admin.List(`SELECT 'c' || id FROM conversations UNION ALL SELECT 'm' || id FROM messages UNION ALL SELECT 'f' || id FROM files ORDER BY 1`)
		if diff := cmp.Diff([]string{"c1", "f1", "m1"}, left); diff != "" {
			t.Errorf("left (-want +got):\n%s", diff)
		}
	})
}
