package keyclient

import (
	"encoding/json"
	"testing"

	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/test/fuzz"
)

// FuzzAnswer: what answers in the keyserver's place is an error that does not repeat it, or a refusal with a reason.
func FuzzAnswer(f *testing.F) {
	f.Add(409, []byte(`{"reason":"InUse","message":"another pod holds the token","retryAfterSeconds":5}`))
	f.Add(502, []byte("<html>a proxy says 4711:canary, at some length</html>"))
	f.Fuzz(func(t *testing.T, status int, answer []byte) {
		err := refusalOf(status, answer)
		if err == nil {
			t.Fatal("an answer other than 200 is no error")
		}
		var e keyapi.Error
		if ReasonOf(err) != "" {
			if json.Unmarshal(answer, &e) != nil || e.Reason != ReasonOf(err) || err.Error() != e.Message {
				t.Fatalf("the refusal is %v", err)
			}
			return
		}
		if piece := fuzz.Repeated(err, string(answer)); piece != "" {
			t.Fatalf("the error repeats %q", piece)
		}
	})
}

// FuzzToken: a token is never part of an error.
func FuzzToken(f *testing.F) {
	f.Add(tokenFor(podUIDForTests))
	f.Add("e30.e30.x")
	f.Fuzz(func(t *testing.T, token string) {
		uid, err := podUID(token)
		if piece := fuzz.Repeated(err, token); piece != "" {
			t.Fatalf("the error repeats %q", piece)
		}
		if err == nil && uid == "" {
			t.Fatal("no UID, and no error")
		}
	})
}
