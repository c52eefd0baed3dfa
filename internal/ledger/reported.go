package ledger

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
)

// reportedFormat of the document.
const reportedFormat = 1

// maxReporters is how many pods are remembered to have reported. A store has one pod at a time, and for a moment two.
const maxReporters = 16

// Reported is what the keyserver remembers of the reports of a store. It lies beside the store's lease, apart from
// the report itself, so that an earlier report that somebody puts back is found.
type Reported struct {
	Format int `json:"v"`
	// Last is the statement about the last report that was taken. It has all that the statement is made of: where the
	// process dies before the report is kept, the same one is made again.
	Last Statement `json:"last"`
	// Key is the public key that it was signed for.
	Key string `json:"key"`
	// Reporters are the pods that have reported, the last one last.
	Reporters []string `json:"reporters"`
}

// Why a report is not taken.
var (
	ErrReportedBefore = errors.New("this pod has reported already, and another report or a later one was taken since: a report counts once")
	ErrAnotherKey     = errors.New("the store's earlier reports were signed with another key than the one that is here")
)

// DecodeReported reads a document; an empty text is that of a store of which no report was taken.
func DecodeReported(text string) (Reported, error) {
	var r Reported
	if text == "" {
		return r, nil
	}
	if err := json.Unmarshal([]byte(text), &r); err != nil || r.Format != reportedFormat {
		return Reported{}, fmt.Errorf("%w: format %d, this program reads %d", ErrUnreadable, r.Format, reportedFormat)
	}
	if _, err := r.Last.Text(); err != nil {
		return Reported{}, fmt.Errorf("%w: its statement is none", ErrUnreadable)
	}
	return r, nil
}

// Encode writes the document.
func (r Reported) Encode() (string, error) {
	b, err := json.Marshal(r)
	if err != nil {
		return "", fmt.Errorf("encode what was reported: %w", err)
	}
	return string(b), nil
}

// Digest of the last statement; that of none where there is none.
func (r Reported) Digest() (string, error) {
	if r.Last.Sequence == 0 {
		return NoStatement, nil
	}
	return r.Last.Digest()
}

// Take makes the statement about a report, whose Sequence, Previous and Time are this function's to set, and what is
// remembered from then on. The last report of the same pod gives the statement that it gave before, and changed is
// false. floor is a sequence that was seen elsewhere: a lower one is never given.
func (r Reported) Take(s Statement, key string, floor int64, now time.Time) (out Reported, changed bool, err error) {
	if r.Key != "" && r.Key != key {
		return r, false, ErrAnotherKey
	}
	last := r.Last
	if last.Sequence > 0 && last.Pod == s.Pod && last.Job == s.Job && last.Plan == s.Plan && last.Report == s.Report && last.Store == s.Store {
		return r, false, nil
	}
	if slices.Contains(r.Reporters, s.Pod) {
		return r, false, ErrReportedBefore
	}
	if s.Previous, err = r.Digest(); err != nil {
		return r, false, err
	}
	s.Sequence, s.Time = max(last.Sequence, floor)+1, now.UTC().Truncate(time.Second)
	if s.Time.Before(last.Time) {
		s.Time = last.Time
	}
	if _, err := s.Text(); err != nil {
		return r, false, err
	}
	out = Reported{Format: reportedFormat, Last: s, Key: key, Reporters: append(slices.Clone(r.Reporters), s.Pod)}
	if over := len(out.Reporters) - maxReporters; over > 0 {
		out.Reporters = out.Reporters[over:]
	}
	return out, true, nil
}
