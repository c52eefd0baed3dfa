package sweep

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/calendar"
	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/internal/plan"
	"github.com/lethe-dev/lethe/internal/report"
	"github.com/lethe-dev/lethe/test/lease"
)

// chat is a chat product's tables with every kind of foreign key, and beside them the oracle's own book: shadow holds
// what was ever written, by whoever wrote it, in the same transaction. record is run by the database for each row
// that goes or loses its parent, and judges by itself whether that was right at that moment.
const chat = `
	CREATE TABLE account (id bigint PRIMARY KEY, at timestamptz);
	CREATE TABLE conversation (id bigint PRIMARY KEY, at timestamptz, parent bigint REFERENCES account ON DELETE CASCADE);
	CREATE TABLE message (id bigint PRIMARY KEY, at timestamptz, parent bigint REFERENCES conversation ON DELETE CASCADE);
	CREATE TABLE attachment (id bigint PRIMARY KEY, at timestamptz, parent bigint REFERENCES message ON DELETE SET NULL);
	CREATE TABLE payment (id bigint PRIMARY KEY, at timestamptz, parent bigint REFERENCES account);
	CREATE INDEX ON conversation (parent); CREATE INDEX ON message (parent); CREATE INDEX ON attachment (parent); CREATE INDEX ON payment (parent);
	CREATE INDEX ON message (at); CREATE INDEX ON attachment (at);

	CREATE TABLE deletion (kind text, id bigint, at timestamptz, why text);
	CREATE FUNCTION public.record() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$
	DECLARE
		keep interval := CASE TG_TABLE_NAME WHEN 'payment' THEN interval '7 years' ELSE interval '90 days' END;
		why text;
	BEGIN
		IF TG_OP = 'UPDATE' THEN
			IF OLD.parent IS NOT NULL AND NEW.parent IS NULL AND TG_TABLE_NAME = 'attachment' THEN
				-- The product says so: SET NULL. It is right only where the message is gone, which its own deletion judges.
				UPDATE shadow SET parent_kind = NULL, parent = NULL WHERE kind = 'attachment' AND id = OLD.id;
			ELSIF OLD.parent IS NOT NULL AND NEW.parent IS NULL THEN
				INSERT INTO deletion VALUES (TG_TABLE_NAME, OLD.id, OLD.at, 'lost its parent');
			END IF;
			RETURN NULL;
		END IF;
		IF OLD.at IS NULL OR OLD.at < '1990-01-01' THEN why := 'its age is unknown';
		ELSIF clock_timestamp() < OLD.at + keep THEN why := 'it is too young';
		ELSIF TG_TABLE_NAME = 'account' AND (EXISTS (SELECT FROM conversation c WHERE c.parent = OLD.id) OR EXISTS (SELECT FROM payment p WHERE p.parent = OLD.id))
			OR TG_TABLE_NAME = 'conversation' AND EXISTS (SELECT FROM message m WHERE m.parent = OLD.id) THEN why := 'a row refers to it';
		END IF;
		INSERT INTO deletion VALUES (TG_TABLE_NAME, OLD.id, OLD.at, why);
		IF OLD.id % 20 = 0 THEN PERFORM pg_sleep(0.0001); END IF; -- so that there is a middle to be killed in
		RETURN NULL;
	END $$;
	CREATE TRIGGER record AFTER DELETE ON account FOR EACH ROW EXECUTE FUNCTION public.record();
	CREATE TRIGGER record AFTER DELETE OR UPDATE ON conversation FOR EACH ROW EXECUTE FUNCTION public.record();
	CREATE TRIGGER record AFTER DELETE OR UPDATE ON message FOR EACH ROW EXECUTE FUNCTION public.record();
	CREATE TRIGGER record AFTER DELETE OR UPDATE ON attachment FOR EACH ROW EXECUTE FUNCTION public.record();
	CREATE TRIGGER record AFTER DELETE OR UPDATE ON payment FOR EACH ROW EXECUTE FUNCTION public.record();

	CREATE SEQUENCE ids START 1000000;
	INSERT INTO account SELECT n, now() - interval '200 days' FROM generate_series(1, 400) n;
	INSERT INTO conversation SELECT n, now() - interval '150 days', n % 400 + 1 FROM generate_series(1, 2000) n;
	INSERT INTO message SELECT n, now() - (60 + n % 80) * interval '1 day', n % 2000 + 1 FROM generate_series(1, 30000) n;
	INSERT INTO attachment SELECT n, CASE n % 50 WHEN 0 THEN NULL WHEN 1 THEN timestamptz '1970-01-01' ELSE now() - (80 + n % 60) * interval '1 day' END, n * 8 FROM generate_series(1, 3000) n;
	INSERT INTO payment SELECT n, now() - (n % 10) * interval '1 year' - interval '10 days', n FROM generate_series(1, 100) n;
	CREATE TABLE shadow (kind text, id bigint, at timestamptz, parent_kind text, parent bigint, PRIMARY KEY (kind, id));
	INSERT INTO shadow SELECT 'account', id, at FROM account; INSERT INTO shadow SELECT 'conversation', id, at, 'account', parent FROM conversation;
	INSERT INTO shadow SELECT 'message', id, at, 'conversation', parent FROM message; INSERT INTO shadow SELECT 'attachment', id, at, 'message', parent FROM attachment;
	INSERT INTO shadow SELECT 'payment', id, at, 'account', parent FROM payment`

// survivors are, by the oracle's book, the rows that have not expired and all that they refer to; attachments let their
// message go.
const survivors = `WITH RECURSIVE stays AS (
		SELECT kind, id, parent_kind, parent FROM shadow WHERE at IS NULL OR at < '1990-01-01'
			OR at > now() - CASE kind WHEN 'payment' THEN interval '7 years' ELSE interval '90 days' END
		UNION SELECT p.kind, p.id, p.parent_kind, p.parent FROM stays s JOIN shadow p ON p.kind = s.parent_kind AND p.id = s.parent WHERE s.kind <> 'attachment')
	SELECT kind || ' ' || id || ' ' || coalesce(parent, 0) FROM stays ORDER BY 1`

const present = `SELECT 'account ' || id || ' 0' FROM account UNION ALL SELECT 'conversation ' || id || ' ' || coalesce(parent, 0) FROM conversation
	UNION ALL SELECT 'message ' || id || ' ' || coalesce(parent, 0) FROM message UNION ALL SELECT 'attachment ' || id || ' ' || coalesce(parent, 0) FROM attachment
	UNION ALL SELECT 'payment ' || id || ' ' || coalesce(parent, 0) FROM payment ORDER BY 1`

const kills = 50

func TestKilledAtAnyPointNothingGoesThatShouldStay(t *testing.T) {
	datasets := []plan.Dataset{dataset("account", 90), dataset("conversation", 90), dataset("message", 90), dataset("attachment", 90), dataset("payment", 365)}
	datasets[4].Floor = new(calendar.Or(&v1alpha1.Period{Years: new(int32(7))}))
	w := newWorld(t, chat, datasets...)
	sweeper := newProgram(t, w)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))

	writing, stopWriting := context.WithCancel(t.Context())
	var writers sync.WaitGroup
	for n := range 3 {
		conn, dice := server.Admin(t, w.database), rand.New(rand.NewPCG(seed, uint64(n+2)))
		writers.Go(func() { write(t, writing, conn.Conn, dice) })
	}
	// How long a sweep takes depends on the machine: the time to kill within grows while nothing has gone, and
	// shrinks when the sweep was faster.
	killed, inTheMiddle, before, within := 0, 0, int64(0), 400*time.Millisecond
	for starts := 0; killed < kills && starts < 10*kills; starts++ {
		sweeper.start(t)
		hit := sweeper.killAfter(t, time.Duration(random.Int64N(int64(within))))
		gone := w.admin.Count(`SELECT count(*) FROM deletion`)
		switch {
		case !hit:
			within = within * 4 / 5
		case gone == before:
			killed, within = killed+1, within*9/8
		default:
			killed, inTheMiddle = killed+1, inTheMiddle+1
		}
		before = gone
		if n := w.admin.Count(`SELECT count(*) FROM deletion WHERE why IS NOT NULL`); n != 0 {
			break
		}
	}
	stopWriting()
	writers.Wait()
	t.Logf("%d sweeps were killed, %d after they had deleted rows; %d rows had gone by then", killed, inTheMiddle, before)
	if !t.Failed() && (killed < kills || inTheMiddle < kills/5) {
		t.Errorf("%d sweeps were killed, %d of them after they had deleted rows: the test interrupts too little", killed, inTheMiddle)
	}

	sweeper.start(t)
	if r := sweeper.finish(t); r.Outcome != report.Done {
		t.Errorf("the last sweep: %+v", r)
	}
	for _, bad := range w.admin.List(`SELECT DISTINCT kind || ': ' || why FROM deletion WHERE why IS NOT NULL`) {
		t.Errorf("deleted, although of %s", bad)
	}
	if diff := cmp.Diff(w.admin.List(survivors), w.admin.List(present)); diff != "" {
		t.Errorf("left (-by the oracle +in the tables):\n%s", diff)
	}
	if n := w.admin.Count(`SELECT (SELECT count(*) FROM shadow) - (SELECT count(*) FROM deletion)`); n != int64(len(w.admin.List(present))) {
		t.Errorf("%d rows were written and not recorded as deleted, %d are there", n, len(w.admin.List(present)))
	}
}

// write changes ages, adds children and adds old rows, each together with the oracle's book, until the context ends.
// The server may refuse what comes too late: the row or its parent has gone.
func write(t *testing.T, ctx context.Context, conn *pgx.Conn, dice *rand.Rand) {
	kinds := []struct{ child, parent string }{{"conversation", "account"}, {"message", "conversation"}, {"attachment", "message"}, {"payment", "account"}}
	for ctx.Err() == nil {
		k := kinds[dice.IntN(len(kinds))]
		id := 1 + dice.IntN(2000)
		var statements []string
		switch dice.IntN(8) {
		case 0: // refresh
			statements = []string{`WITH u AS (UPDATE ` + k.parent + ` SET at = now() WHERE id = $1 RETURNING id) UPDATE shadow s SET at = now() FROM u WHERE s.kind = '` + k.parent + `' AND s.id = u.id`}
		case 1: // a young child
			statements = []string{`WITH i AS (INSERT INTO ` + k.child + ` SELECT nextval('ids'), now(), $1 RETURNING *) INSERT INTO shadow SELECT '` + k.child + `', id, at, '` + k.parent + `', parent FROM i`}
		case 2: // move a young child under another parent
			statements = []string{`WITH u AS (UPDATE ` + k.child + ` SET parent = $1 WHERE id = (SELECT min(id) FROM ` + k.child + ` WHERE id >= 1000000 AND at > now() - interval '1 day') RETURNING *)
				UPDATE shadow s SET parent = u.parent FROM u WHERE s.kind = '` + k.child + `' AND s.id = u.id`}
		default: // an old child, so that there is always something to delete
			statements = []string{`WITH i AS (INSERT INTO ` + k.child + ` SELECT nextval('ids'), now() - interval '10 years', $1 RETURNING *) INSERT INTO shadow SELECT '` + k.child + `', id, at, '` + k.parent + `', parent FROM i`}
		}
		err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
			for _, s := range statements {
				if _, err := tx.Exec(ctx, s, id); err != nil {
					return err
				}
			}
			if dice.IntN(4) == 0 {
				pause(ctx, time.Duration(dice.IntN(20))*time.Millisecond) // an application that thinks in its transaction
			}
			return nil
		})
		var refused *pgconn.PgError
		if err != nil && ctx.Err() == nil && !errors.As(err, &refused) {
			t.Errorf("write: %v", err)
			return
		}
	}
}

// program is the real sweeper's binary with its files.
type program struct {
	path, dir string
	keyserver *lease.Server
	args      []string
	cmd       *exec.Cmd
	stderr    *bytes.Buffer
	ended     chan struct{} // closed at the end; failed is how
	failed    error
}

// built is where the binary lies; TestMain removes it.
var built string

var build = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "lethe-sweeper-")
	if err != nil {
		return "", err
	}
	built = dir
	path := filepath.Join(dir, "sweeper")
	out, err := exec.Command("go", "build", "-o", path, "../../cmd/sweeper").CombinedOutput()
	if err != nil {
		return "", errors.Join(err, errors.New(string(out)))
	}
	return path, nil
})

func newProgram(t *testing.T, w *world) *program {
	t.Helper()
	path, err := build()
	if err != nil {
		t.Fatalf("build the sweeper: %v", err)
	}
	k := newKeyserver(t)
	b, err := plan.Encode(w.plan)
	if err != nil {
		t.Fatal(err)
	}
	p := &program{path: path, dir: t.TempDir(), keyserver: k}
	if err := os.WriteFile(filepath.Join(p.dir, "plan.json"), b, 0o600); err != nil {
		t.Fatal(err)
	}
	p.args = []string{"--url=" + k.URL, "--ca-file=" + k.CAFile, "--token-file=" + k.TokenFile,
		"--plan=" + filepath.Join(p.dir, "plan.json"), "--plan-hash=" + plan.HashBytes(b), "--termination-log=" + filepath.Join(p.dir, "report"), "--time-budget=1m"}
	return p
}

func (p *program) start(t *testing.T) {
	t.Helper()
	p.stderr, p.ended = &bytes.Buffer{}, make(chan struct{})
	p.cmd = exec.Command(p.path, p.args...)
	p.cmd.Stderr = p.stderr
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	cmd, ended := p.cmd, p.ended
	go func() {
		p.failed = cmd.Wait()
		close(ended)
	}()
	t.Cleanup(func() { _ = cmd.Process.Kill() }) // it has usually ended
}

// killAfter kills the program by SIGKILL, and says whether it was still running.
func (p *program) killAfter(t *testing.T, after time.Duration) bool {
	t.Helper()
	timer := time.NewTimer(after)
	defer timer.Stop()
	select {
	case <-p.ended:
		if p.failed != nil {
			t.Errorf("a sweep that was not killed: %v\n%s", p.failed, p.stderr)
		}
		return false
	case <-timer.C:
	}
	if err := p.cmd.Process.Signal(syscall.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Fatal(err)
	}
	<-p.ended
	return true
}

// finish waits for the end and reads the report that was handed in, which the termination message names.
func (p *program) finish(t *testing.T) report.Report {
	t.Helper()
	timer := time.NewTimer(2 * time.Minute)
	defer timer.Stop()
	select {
	case <-p.ended:
	case <-timer.C:
		t.Fatalf("the sweep does not end\n%s", p.stderr)
	}
	b, err := os.ReadFile(filepath.Join(p.dir, "report"))
	if err != nil {
		t.Fatalf("%v\n%s", err, p.stderr)
	}
	canonical, _ := p.keyserver.Report()
	if m, err := report.DecodeMessage(string(b)); err != nil || m.Reason != "" || m.Digest != keyapi.DigestReport(canonical) {
		t.Fatalf("the termination message names another report than was handed in: %+v, %v\n%s", m, err, p.stderr)
	}
	r, err := report.Decode(string(canonical))
	if err != nil {
		t.Fatal(err)
	}
	return r
}
