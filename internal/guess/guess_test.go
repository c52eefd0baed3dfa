package guess

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestAColumnIsNamedAfterADataset walks the ways in which products name a column after a table, and what is no such
// name. The table "child" has the column; the dataset "parent" is the table that it may be named after.
func TestAColumnIsNamedAfterADataset(t *testing.T) {
	tests := []struct {
		table, column string
		typ           string
		want          bool
	}{
		// The faults' own, and the ways to write them.
		{"conversations", "conversation_id", "bigint", true},
		{"conversations", "conversationId", "bigint", true},
		{"conversations", "ConversationID", "uuid", true},
		{"conversations", "conversationid", "character varying", true},
		{"conversations", "conversation", "bigint", true},
		{"conversations", "conversations", "bigint[]", true},
		{"conversations", "fk_conversation", "bigint", true},
		{"conversations", "fkconversation", "bigint", true},
		{"conversations", "id_conversation", "bigint", true},
		{"conversations", "idConversation", "bigint", true},
		{"conversations", "conversation_uuid", "uuid", true},
		{"conversations", "conversation_ref", "text", true},
		{"conversations", "conversation_ids", "uuid[]", true},
		{"conversations", "conversation_key", "text", true},
		{"conversations", "parent_conversation_id", "bigint", true},
		{"conversations", "last_conversation", "bigint", true},
		{"conversations", "conversation_id_old", "bigint", true},
		{"conversations", "conversation_2_id", "bigint", true},
		{"conversations", "CONVERSATION_ID", "bigint", true},
		// The table's side: singular, prefixed, camel case, with a version or a common word.
		{"conversation", "conversation_id", "bigint", true},
		{"conversation", "conversations_id", "bigint", true},
		{"Conversations", "conversation_id", "bigint", true},
		{"ChatConversations", "conversation_id", "bigint", true},
		{"chat_conversations", "conversation_id", "bigint", true},
		{"chat_conversations", "chat_conversation_id", "bigint", true},
		{"chat_conversations", "chatconversationid", "bigint", true},
		{"tbl_conversation", "conversation_id", "bigint", true},
		{"conversations_v2", "conversation_id", "bigint", true},
		{"conversations_2024", "conversation_id", "bigint", true},
		{"message_data", "message_id", "bigint", true},
		{"fileinfo", "fileids", "text", true},
		{"posts", "postid", "character varying", true},
		{"posts", "rootpostid", "character varying", true},
		{"upload_files", "upload_file_id", "uuid", true},
		{"upload_files", "file_id", "uuid", true},
		// Plurals that a rule of thumb misses.
		{"companies", "company_id", "bigint", true},
		{"people", "person_id", "bigint", true},
		{"children", "child_id", "bigint", true},
		{"boxes", "box_id", "bigint", true},
		{"statuses", "status_id", "bigint", true},
		{"status", "status_id", "bigint", true},
		{"leaves", "leaf_id", "bigint", true},
		{"media", "medium_id", "bigint", true},
		{"indices", "index_id", "bigint", true},
		{"responses", "response_id", "bigint", true},
		{"addresses", "address_id", "bigint", true},
		// In short.
		{"organizations", "org_id", "bigint", true},
		{"organizations", "orgId", "bigint", true},
		{"messages", "msg_id", "bigint", true},
		{"messages", "parent_msg_id", "bigint", true},
		{"conversations", "conv_id", "bigint", true},
		{"app_users", "usr_id", "bigint", true},
		{"accounts", "acct_id", "bigint", true},
		{"documents", "docid", "bigint", true},
		{"conversations", "cat_id", "bigint", false},
		{"messages", "msg", "text", false},
		{"messages", "me_id", "bigint", false},
		// No such name, or nothing that can tell a row.
		{"conversations", "id", "bigint", false},
		{"conversations", "body", "text", false},
		{"conversations", "user_id", "bigint", false},
		{"conversations", "conversation_count", "bigint", false},
		{"conversations", "conversation_status", "text", false},
		{"conversations", "conversation_at", "timestamp with time zone", false},
		{"conversations", "conversation", "boolean", false},
		{"conversations", "conversation_day", "date", false},
		{"conversations", "conversation", "tsvector", false},
		{"conversations", "conversion_id", "bigint", false},
		{"rates", "corporates", "boolean", false},
		{"tags", "stage", "text", false},
		{"users", "paid", "bigint", false},
	}
	for _, tc := range tests {
		got := Relations([]Table{
			{Schema: "public", Name: "child_table", Columns: []Column{{"id", "bigint"}, {tc.column, tc.typ}}},
			{Schema: "public", Name: tc.table, Columns: []Column{{"id", "bigint"}}},
		}, []Dataset{{Name: "the-dataset", Schema: "public", Table: tc.table, Key: []string{"id"}}})
		var want []Relation
		if tc.want {
			want = []Relation{{"public", "child_table", tc.column, "the-dataset"}}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (%s) and table %s (-want +got):\n%s", tc.column, tc.typ, tc.table, diff)
		}
	}
}

// TestWhatTheCatalogueTies walks shapes of catalogues.
func TestWhatTheCatalogueTies(t *testing.T) {
	columns := func(names ...string) (out []Column) {
		for _, n := range names {
			out = append(out, Column{n, "bigint"})
		}
		return out
	}
	key := func(table string, columns ...string) Key { return Key{Columns: columns, Schema: "public", Name: table} }
	conversations := Table{Schema: "public", Name: "conversations", Columns: columns("id")}
	dataset := func(name string, more ...string) Dataset {
		return Dataset{Name: name, Schema: "public", Table: strings.ReplaceAll(name, "-", "_"), Key: []string{"id"}, Explained: more}
	}
	both := []Dataset{dataset("conversations"), dataset("messages")}
	tests := map[string]struct {
		tables   []Table
		datasets []Dataset
		want     []string
	}{
		"no foreign key": {
			tables: []Table{conversations, {Schema: "public", Name: "messages", Columns: columns("id", "conversation_id")}}, datasets: both,
			want: []string{"public.messages.conversation_id > conversations"},
		},
		"a foreign key": {
			tables: []Table{conversations, {Schema: "public", Name: "messages", Columns: columns("id", "conversation_id"), Keys: []Key{key("conversations", "conversation_id")}}}, datasets: both,
		},
		"a composite foreign key to the dataset": {
			tables: []Table{conversations, {Schema: "public", Name: "messages", Columns: columns("id", "account_id", "conversation_id"), Keys: []Key{key("conversations", "account_id", "conversation_id")}}}, datasets: both,
		},
		"a composite foreign key to another table ties none of its columns to a third": {
			tables: []Table{conversations, {Schema: "public", Name: "accounts", Columns: columns("id")},
				{Schema: "public", Name: "messages", Columns: columns("id", "account_id", "conversation_id"), Keys: []Key{key("conversations", "account_id", "conversation_id")}}},
			datasets: append(slices.Clone(both), dataset("accounts")),
			want:     []string{"public.messages.account_id > accounts"},
		},
		"a foreign key of the column to another table": {
			tables: []Table{conversations, {Schema: "public", Name: "threads", Columns: columns("id")},
				{Schema: "public", Name: "messages", Columns: columns("id", "conversation_id"), Keys: []Key{key("threads", "conversation_id")}}}, datasets: both,
		},
		"a foreign key of another column": {
			tables: []Table{conversations, {Schema: "public", Name: "messages", Columns: columns("id", "first_id", "conversation_id"), Keys: []Key{key("conversations", "first_id")}}}, datasets: both,
			want: []string{"public.messages.conversation_id > conversations"},
		},
		"a table that is no dataset": {
			tables: []Table{conversations, {Schema: "audit", Name: "events", Columns: columns("id", "conversation_id")}}, datasets: both,
			want: []string{"audit.events.conversation_id > conversations"},
		},
		"children of children, as in dify": {
			tables: []Table{{Schema: "public", Name: "messages", Columns: columns("id")},
				{Schema: "public", Name: "message_files", Columns: columns("id", "message_id", "upload_file_id")}, {Schema: "public", Name: "message_feedbacks", Columns: columns("id", "message_id")}},
			datasets: []Dataset{dataset("messages"), dataset("message-files"), dataset("message-feedbacks")},
			want:     []string{"public.message_files.upload_file_id > message-files", "public.message_feedbacks.message_id > messages", "public.message_files.message_id > messages"},
		},
		"a table of that very name comes before those that only end so": {
			tables:   []Table{{Schema: "public", Name: "files", Columns: columns("id")}, {Schema: "public", Name: "message_files", Columns: columns("id")}, {Schema: "public", Name: "notes", Columns: columns("id", "file_id")}},
			datasets: []Dataset{dataset("message-files")},
		},
		"its own key, and its own table": {
			tables: []Table{{Schema: "public", Name: "messages", Columns: columns("message_id", "id")}}, datasets: both,
		},
		"another row of its own table": {
			tables: []Table{{Schema: "public", Name: "messages", Columns: columns("id", "parent_message_id", "parent_id", "reply_to", "in_reply_to_id")}}, datasets: both,
			want: []string{"public.messages.in_reply_to_id > messages", "public.messages.parent_id > messages", "public.messages.parent_message_id > messages", "public.messages.reply_to > messages"},
		},
		"the tenant column of the dataset itself": {
			tables:   []Table{{Schema: "public", Name: "user_accounts", Columns: columns("id", "parent_account_id")}},
			datasets: []Dataset{dataset("user-accounts", "parent_account_id")},
		},
		"one schema's name in front of the table": {
			tables:   []Table{{Schema: "chat", Name: "chat_conversation", Columns: columns("id")}, {Schema: "chat", Name: "chat_message", Columns: columns("id", "conversation_id")}},
			datasets: []Dataset{{Name: "talks", Schema: "chat", Table: "chat_conversation", Key: []string{"id"}}},
			want:     []string{"chat.chat_message.conversation_id > talks"},
		},
		"the dataset's name, not the table's": {
			tables:   []Table{{Schema: "public", Name: "t_0815", Columns: columns("id")}, {Schema: "public", Name: "notes", Columns: columns("id", "conversation_id")}},
			datasets: []Dataset{{Name: "conversations", Schema: "public", Table: "t_0815", Key: []string{"id"}}},
			want:     []string{"public.notes.conversation_id > conversations"},
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, r := range Relations(tc.tables, tc.datasets) {
				got = append(got, r.Schema+"."+r.Table+"."+r.Column+" > "+r.References)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestAColumnPointsToAFile(t *testing.T) {
	for column, want := range map[string]bool{
		"url text": true, "avatar_url character varying": true, "path text": true, "file_path text": true, "filePath text": true, "bucket text": true, "blob bytea": true,
		"file text": true, "attachment jsonb": true, "attachments jsonb": true, "storage_key text": true, "object_key text": true, "storageKey text": true, "objectkey text": true,
		"key text": true, "s3_key text": true, "file_name text": true, "upload_file_id uuid": true, "fileurl text": true, "urls text[]": true, "document oid": true, "image text": true,
		"file_size bigint": false, "file_count integer": false, "body text": false, "path_length integer": false, "monkey text": false, "keyboard text": false, "user_id uuid": false,
		"profile text": false, "has_file boolean": false, "api_key text": false, "primary_key uuid": false,
	} {
		name, typ, _ := strings.Cut(column, " ")
		if got := Pointer(name, typ); got != want {
			t.Errorf("%s: %t, want %t", column, got, want)
		}
	}
}

// FuzzNames: whatever tables and columns are called, a guess ends, names what is there, and says the same again.
func FuzzNames(f *testing.F) {
	for _, names := range [][2]string{{"conversations", "conversation_id"}, {"_", "$"}, {"", ""}, {"日本", "日本_id"}, {"ID", "id_id"}, {"a1b2", "A1B2Id"}, {"s", "sid"}, {"\x00", "\xff"}, {"data_data", "dataid"}} {
		f.Add(names[0], names[1])
	}
	f.Fuzz(func(t *testing.T, table, column string) {
		tables := []Table{{Schema: "public", Name: table, Columns: []Column{{column, "text"}}}, {Schema: "public", Name: "other", Columns: []Column{{column, "text"}, {column + "_id", "text"}}}}
		datasets := []Dataset{{Name: "d", Schema: "public", Table: table, Key: []string{"id"}}}
		first := Relations(tables, datasets)
		for _, r := range first {
			if r.References != "d" || r.Table != table && r.Table != "other" {
				t.Errorf("%+v", r)
			}
		}
		if diff := cmp.Diff(first, Relations(tables, datasets)); diff != "" {
			t.Errorf("another answer:\n%s", diff)
		}
		_ = Pointer(column, "text")
	})
}
