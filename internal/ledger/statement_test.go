package ledger

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
)

func aStatement() Statement {
	return Statement{Namespace: "acme-data", Name: "chat", Store: "6b3e5a0c-0001-4f5e-9d5a-000000000001", Job: "6b3e5a0c-0002-4f5e-9d5a-000000000002",
		Pod: "6b3e5a0c-0003-4f5e-9d5a-000000000003", Plan: strings.Repeat("a1", 32), Sequence: 7, Time: noon, Report: strings.Repeat("b2", 32), Previous: strings.Repeat("c3", 32)}
}

func reportKey(t testing.TB, first byte) ReportKey {
	t.Helper()
	k, err := NewReportKey("test", append([]byte{first}, make([]byte, ReportSeedSize-1)...))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// signedStatement is what docs/design/formats.md shows. It never changes.
const signedStatement = `lethe report v1
store acme-data/chat 6b3e5a0c-0001-4f5e-9d5a-000000000001
job 6b3e5a0c-0002-4f5e-9d5a-000000000002
pod 6b3e5a0c-0003-4f5e-9d5a-000000000003
plan a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1
sequence 7
time 2026-03-02T12:00:00Z
report b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2
previous c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3

`

func TestAStatementHasOneForm(t *testing.T) {
	key := reportKey(t, 1)
	signed, err := key.Sign(aStatement())
	if err != nil {
		t.Fatal(err)
	}
	again, err := key.Sign(aStatement())
	if err != nil || signed != again || !strings.HasPrefix(signed, signedStatement+"\u2014 lethe-reports/test ") || strings.Count(signed, "\n") != 11 {
		t.Errorf("signed: %v\n%s", err, signed)
	}
	got, err := OpenStatement(signed, key.Public())
	if err != nil || got != aStatement() {
		t.Errorf("opened: %+v, %v", got, err)
	}
	if got, err = ReadStatement(signed); err != nil || got != aStatement() {
		t.Errorf("read: %+v, %v", got, err)
	}
	if text := fmt.Sprintf("%v %+v %#v", key, key, key); strings.Contains(text, "private") || !strings.Contains(text, key.Public()) {
		t.Errorf("a key shows itself: %s", text)
	}
}

// TestOthersCanCheckAStatement: with nothing of Lethe's but the public key.
func TestOthersCanCheckAStatement(t *testing.T) {
	signed, err := reportKey(t, 1).Sign(aStatement())
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := note.NewVerifier(reportKey(t, 1).Public())
	if err != nil {
		t.Fatal(err)
	}
	opened, err := note.Open([]byte(signed), note.VerifierList(verifier))
	if err != nil || len(opened.Sigs) != 1 || !strings.HasPrefix(opened.Text, statementHeader+"\n") {
		t.Errorf("%+v, %v", opened, err)
	}
}

// TestAStatementThatWasChanged: each byte of it counts, that of its signature too.
func TestAStatementThatWasChanged(t *testing.T) {
	key := reportKey(t, 1)
	signed, err := key.Sign(aStatement())
	if err != nil {
		t.Fatal(err)
	}
	for i := range signed {
		if i == len(signed)-len("x=\n") {
			continue // the last digit of base64, whose last bits say nothing
		}
		changed := []byte(signed)
		changed[i] ^= 1
		if s, err := OpenStatement(string(changed), key.Public()); err == nil {
			t.Errorf("byte %d: opened %+v", i, s)
		}
	}
	if _, err := OpenStatement(signed, reportKey(t, 2).Public()); !errors.Is(err, ErrNotSigned) {
		t.Errorf("with another key: %v", err)
	}
	other, err := reportKey(t, 2).Sign(aStatement())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := OpenStatement(other, key.Public()); !errors.Is(err, ErrNotSigned) {
		t.Errorf("signed with another key: %v", err)
	}
}

func TestNoStatement(t *testing.T) {
	text, err := aStatement().Text()
	if err != nil {
		t.Fatal(err)
	}
	for what, changed := range map[string]string{
		"nothing": "", "cut": text[:len(text)-1], "a line more": text + "note x\n", "another version": strings.Replace(text, "v1", "v2", 1),
		"a number in another form": strings.Replace(text, "sequence 7", "sequence 07", 1), "a plus": strings.Replace(text, "sequence 7", "sequence +7", 1),
		"none": strings.Replace(text, "sequence 7", "sequence 0", 1), "less": strings.Replace(text, "sequence 7", "sequence -7", 1),
		"another zone": strings.Replace(text, "12:00:00Z", "12:00:00+00:00", 1), "parts of seconds": strings.Replace(text, "12:00:00Z", "12:00:00.5Z", 1),
		"a digest in capitals": strings.Replace(text, "b2b2", "B2B2", 1), "a space": strings.Replace(text, "job ", "job  ", 1),
		"carriage returns": strings.ReplaceAll(text, "\n", "\r\n"), "no name": strings.Replace(text, "acme-data/chat", "acme-data", 1),
		"lines in another order": strings.Replace(text, "job", "pod", 1), "a line within a name": strings.Replace(text, "chat ", "chat\njob x ", 1),
	} {
		if s, err := ParseStatement(changed); !errors.Is(err, ErrNoStatement) {
			t.Errorf("%s: %+v, %v", what, s, err)
		}
	}
	for what, change := range map[string]func(*Statement){
		"a name of two lines": func(s *Statement) { s.Name = "chat\nstore" }, "a UID with a space": func(s *Statement) { s.Job = "a b" },
		"no plan": func(s *Statement) { s.Plan = "" }, "no time": func(s *Statement) { s.Time = time.Time{} }, "a short digest": func(s *Statement) { s.Report = "b2" },
	} {
		s := aStatement()
		change(&s)
		if _, err := reportKey(t, 1).Sign(s); !errors.Is(err, ErrNoStatement) {
			t.Errorf("%s: signed, %v", what, err)
		}
	}
}

func take(t *testing.T, r Reported, pod, report string, floor int64) Reported {
	t.Helper()
	s := aStatement()
	s.Job, s.Pod, s.Report = "job-"+pod, pod, strings.Repeat(report, 32)
	out, changed, err := r.Take(s, "key", floor, noon)
	if err != nil || !changed {
		t.Fatalf("pod %s: %v, %v", pod, changed, err)
	}
	text, err := out.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if out, err = DecodeReported(text); err != nil {
		t.Fatal(err)
	}
	return out
}

// TestReportsMakeAChain: each is taken once, by its pod, and follows the one before it.
func TestReportsMakeAChain(t *testing.T) {
	first := take(t, Reported{}, "p1", "01", 0)
	if first.Last.Sequence != 1 || first.Last.Previous != NoStatement {
		t.Errorf("the first is %+v", first.Last)
	}
	second := take(t, first, "p2", "02", 0)
	if err := second.Last.Follows(first.Last); err != nil {
		t.Errorf("the second is %+v: %v", second.Last, err)
	}
	again := second.Last
	again.Sequence, again.Previous, again.Time = 0, "", noon.Add(time.Hour)
	if same, changed, err := second.Take(again, "key", 0, noon.Add(time.Hour)); err != nil || changed || same.Last != second.Last {
		t.Errorf("the last one again: %v, %v, %+v", changed, err, same.Last)
	}
	for what, change := range map[string]func(*Statement){
		"another report of its pod": func(s *Statement) { s.Report = strings.Repeat("03", 32) },
		"for another plan":          func(s *Statement) { s.Plan = strings.Repeat("03", 32) },
		"of an earlier pod":         func(s *Statement) { *s = first.Last },
	} {
		s := again
		change(&s)
		if _, _, err := second.Take(s, "key", 0, noon); !errors.Is(err, ErrReportedBefore) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, _, err := second.Take(aStatement(), "another key", 0, noon); !errors.Is(err, ErrAnotherKey) {
		t.Errorf("with another key: %v", err)
	}
	third := take(t, second, "p3", "02", 40)
	if third.Last.Sequence != 41 {
		t.Errorf("over a floor of 40 the sequence is %d", third.Last.Sequence)
	}
	if err := third.Last.Follows(second.Last); !errors.Is(err, ErrChain) {
		t.Errorf("a hole in the chain: %v", err)
	}
	other := second.Last
	other.Store = "another-store"
	if err := other.Follows(first.Last); !errors.Is(err, ErrChain) {
		t.Errorf("of another store: %v", err)
	}
}

// TestReportedIsBounded: the account of reports lies in an annotation.
func TestReportedIsBounded(t *testing.T) {
	r := Reported{}
	for i := range 100 {
		r = take(t, r, fmt.Sprintf("6b3e5a0c-0003-4f5e-9d5a-%012d", i), "0a", 0)
	}
	text, err := r.Encode()
	if err != nil || len(r.Reporters) != maxReporters || len(text) > 2048 {
		t.Errorf("%d pods, %d bytes, %v", len(r.Reporters), len(text), err)
	}
}

func TestReportedUnreadable(t *testing.T) {
	for _, text := range []string{"no document", "{}", `{"v":2}`, `{"v":1,"last":{"sequence":3}}`} {
		if r, err := DecodeReported(text); !errors.Is(err, ErrUnreadable) {
			t.Errorf("%q: %+v, %v", text, r, err)
		}
	}
}

func FuzzOpenStatement(f *testing.F) {
	key := reportKey(f, 1)
	signed, err := key.Sign(aStatement())
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(signed))
	f.Add([]byte(signedStatement))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := ReadStatement(string(b)); err == nil {
			text, err := s.Text()
			if err != nil || !bytes.HasPrefix(b, []byte(text)) {
				t.Fatalf("%+v is not what was read: %v", s, err)
			}
		}
		if s, err := OpenStatement(string(b), key.Public()); err == nil && s != aStatement() {
			t.Fatalf("opened %+v, which nobody signed", s)
		}
	})
}
