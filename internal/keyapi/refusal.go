package keyapi

import "fmt"

// Refusal is an answer other than 200, as the error that the keyserver's parts hand on. Its message is for people and
// never holds a value.
type Refusal struct {
	Answer
	Cause error // for the log; may be nil
}

// Answer is Error under another name, since an error has a method Error.
type Answer = Error

// Error is the reason and the message.
func (r *Refusal) Error() string { return r.Reason + ": " + r.Message }

// Unwrap is the cause, for the log.
func (r *Refusal) Unwrap() error { return r.Cause }

// Refuse makes a final refusal: asking again changes nothing until somebody acts.
func Refuse(reason, format string, args ...any) *Refusal {
	return &Refusal{Answer: Answer{Reason: reason, Message: fmt.Sprintf(format, args...)}}
}

// Later makes a refusal that may be another answer in some seconds.
func Later(reason string, seconds int, format string, args ...any) *Refusal {
	r := Refuse(reason, format, args...)
	r.RetryAfter = seconds
	return r
}
