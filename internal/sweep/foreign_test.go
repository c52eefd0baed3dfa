package sweep

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/plan"
	"github.com/lethe-dev/lethe/internal/report"
	"github.com/lethe-dev/lethe/internal/stores"
	"github.com/lethe-dev/lethe/internal/stores/postgres"
	"github.com/lethe-dev/lethe/test/storetest"
)

const rowSecret = "hunter2-Xq7-of-a-row"

// TestADatabasesWordsStayOutside sweeps databases that say hostile things in every way that a database can, and looks
// for them in the report, in what a manager reads from it, and in the log.
func TestADatabasesWordsStayOutside(t *testing.T) {
	const table = `CREATE TABLE log (id bigint PRIMARY KEY, at timestamptz, email text); CREATE INDEX ON log (at);
		INSERT INTO log SELECT n, now() - interval '100 days', '` + rowSecret + `' || n FROM generate_series(1, 20) n;`
	hostile := `E'` + rowSecret + `\x1b[31m\u202e\nline ' || repeat('x', 1000000) || OLD.email`
	for name, sql := range map[string]string{
		"a trigger raises": `CREATE FUNCTION shout() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION '%', ` + hostile + ` USING DETAIL = OLD.email, HINT = OLD.email; END $$;
			CREATE TRIGGER shout BEFORE DELETE ON log FOR EACH ROW EXECUTE FUNCTION shout()`,
		"with a SQLSTATE of its own": `CREATE FUNCTION shout() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION '%', ` + hostile + ` USING ERRCODE = 'HUNTR'; END $$;
			CREATE TRIGGER shout BEFORE DELETE ON log FOR EACH ROW EXECUTE FUNCTION shout()`,
		"a trigger warns": `CREATE FUNCTION shout() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE WARNING '%', ` + hostile + `; RETURN OLD; END $$;
			CREATE TRIGGER shout BEFORE DELETE ON log FOR EACH ROW EXECUTE FUNCTION shout()`,
		"a trigger's name": `CREATE FUNCTION quiet() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN OLD; END $$;
			CREATE TRIGGER U&"red\001b[31m\202e\000aline" BEFORE DELETE ON log FOR EACH ROW EXECUTE FUNCTION quiet()`,
		"a constraint's error": `CREATE TABLE copies (email text UNIQUE); GRANT INSERT ON copies TO PUBLIC; INSERT INTO copies SELECT email FROM log;
			CREATE FUNCTION copy() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN INSERT INTO public.copies VALUES (OLD.email); RETURN OLD; END $$;
			CREATE TRIGGER copy BEFORE DELETE ON log FOR EACH ROW EXECUTE FUNCTION copy()`,
		"a table's name":       `CREATE TABLE U&"red\001b[31m\202e\000aline" (id int)`,
		"a foreign key's name": `CREATE TABLE child (id int, log bigint CONSTRAINT U&"red\001b[31m\202e\000aline" REFERENCES log)`,
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, table+sql, dataset("log", 90))
			w.plan.Exempt = []plan.Exemption{{Table: &plan.TableName{Schema: "public", Name: "copies"}}}
			var log bytes.Buffer
			r := Run(t.Context(), Options{Plan: w.plan, Hash: "hash", Engines: stores.Engines{postgres.Engine{}}, Leaser: client(t, newKeyserver(t)), Budget: time.Minute, Clock: time.Now,
				Log: slog.New(slog.NewJSONHandler(&log, nil))})
			encoded, err := report.Encode(r)
			if err != nil {
				t.Fatal(err)
			}
			read, err := report.Decode(string(encoded))
			if err != nil {
				t.Fatalf("a manager cannot read the report: %v", err)
			}
			var all strings.Builder
			for _, l := range storetest.Lines(read) {
				all.WriteString(l.Reason + "\x00" + l.Message + "\x00")
			}
			all.WriteString(read.Reason + "\x00" + read.Message + "\x00" + strings.Join(read.Uncovered, "\x00"))
			whole, err := json.Marshal(r)
			if err != nil {
				t.Fatal(err)
			}
			for what, text := range map[string]string{"the report": string(whole), "what a manager reads": all.String(), "the log": log.String()} {
				for _, bad := range []string{rowSecret, "\x1b", "\\u001b", "\u202e", "\\u202e", "\nline", "\\nline", strings.Repeat("x", 1000)} {
					if strings.Contains(text, bad) {
						t.Errorf("%s holds %.40q: %.600s", what, bad, text)
					}
				}
			}
			t.Logf("%s: %s", read.Reason, read.Message)
		})
	}
}

// TestAReportOfABrokenSweeperIsCleanedOrRefused: the pod that writes a report may be broken into.
func TestAReportOfABrokenSweeperIsCleanedOrRefused(t *testing.T) {
	good := report.Report{Plan: "hash", Outcome: report.Done, Identity: v1alpha1.StoreIdentity{Kind: "PostgresSystemIdentifier", Value: "7"}}
	for name, change := range map[string]func(*report.Report){
		"reason":             func(r *report.Report) { r.Reason = "Not a\nreason" },
		"identity":           func(r *report.Report) { r.Identity.Value = "7\x1b[31m" },
		"kind of identity":   func(r *report.Report) { r.Identity.Kind = "a\nb" },
		"half an identity":   func(r *report.Report) { r.Identity.Kind = "" },
		"a dataset's reason": func(r *report.Report) { r.Datasets = []report.Dataset{{Problem: v1alpha1.Problem{Reason: "\x1b[31m"}}} },
		"a rule's reason": func(r *report.Report) {
			r.Datasets = []report.Dataset{{Rules: []report.Rule{{Problem: v1alpha1.Problem{Reason: "\x1b[31m"}}}}}
		},
	} {
		r := good
		change(&r)
		encoded, err := report.Encode(r)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := report.Decode(string(encoded)); err == nil {
			t.Errorf("%s: read as %+v", name, got)
		}
	}
	r := good
	r.Message, r.Database, r.Uncovered = "a\x1b[31m\nb", "d\x1b", []string{"t\u202e\n"}
	r.Datasets = []report.Dataset{{Name: "d", Problem: v1alpha1.Problem{Message: "l\x1b\nm"}, Notice: "n\u202e\no"}}
	encoded, err := report.Encode(r)
	if err != nil {
		t.Fatal(err)
	}
	got, err := report.Decode(string(encoded))
	if err != nil || got.Message != "a[31m b" || got.Database != "d" || got.Uncovered[0] != "t" || got.Datasets[0].Message != "l m" || got.Datasets[0].Notice != "n o" {
		t.Errorf("%+v, %v", got, err)
	}
}
