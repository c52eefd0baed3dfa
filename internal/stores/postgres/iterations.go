package postgres

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/jackc/pgx/v5/pgproto3"
)

// minIterations of SCRAM is what RFC 7677 asks of servers, and PostgreSQL's default. The client's proof is only as
// hard to guess a password from as there are iterations, and the server says how many: one whose certificate is
// trusted, and that is not the database, would ask for a single one and try passwords against the answer at leisure.
// The driver bounds them from above.
const minIterations = 4096

// maxLogin bounds one message of the server before the login is over, and how many bytes of it are kept.
const maxLogin = 64 << 10

// Codes of a server's message about authentication.
const (
	authMessage      = 'R'
	authOK           = 0
	authSASLContinue = 11
)

// weakIterations is the error of a server that asks for too few.
type weakIterations struct{ asked int }

func (e *weakIterations) Error() string {
	return fmt.Sprintf("the server asks for %d iterations of SCRAM", e.asked)
}

// checkedFrontend is the driver's own, behind a reader that refuses a challenge before the driver answers it.
func checkedFrontend(r io.Reader, w io.Writer) *pgproto3.Frontend {
	return pgproto3.NewFrontend(&loginReader{from: r}, w)
}

// loginReader hands a server's messages on one by one until the login is over, and everything as it comes afterwards.
type loginReader struct {
	from io.Reader
	held []byte // of a whole message that was looked at
	over bool
}

func (l *loginReader) Read(p []byte) (int, error) {
	if len(l.held) == 0 {
		if l.over {
			return l.from.Read(p)
		}
		if err := l.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, l.held)
	l.held = l.held[n:]
	return n, nil
}

// next reads one message: a letter, the length of the rest with itself, the rest.
func (l *loginReader) next() error {
	var head [5]byte
	if _, err := io.ReadFull(l.from, head[:]); err != nil {
		return err
	}
	length := binary.BigEndian.Uint32(head[1:])
	if length < 4 || length > maxLogin {
		return errors.New("a message of the login has no length that one has")
	}
	message := make([]byte, 5+length-4)
	copy(message, head[:])
	if _, err := io.ReadFull(l.from, message[5:]); err != nil {
		return err
	}
	body := message[5:]
	if head[0] == authMessage && len(body) >= 4 {
		switch binary.BigEndian.Uint32(body) {
		case authOK:
			l.over = true
		case authSASLContinue:
			if err := enoughIterations(body[4:]); err != nil {
				return err
			}
		}
	}
	l.held = message
	return nil
}

// enoughIterations reads i= of a server's first message (RFC 5802): r=nonce,s=salt,i=iterations. What has none, or no
// number, the driver refuses itself; where it stands twice, the smallest counts.
func enoughIterations(challenge []byte) error {
	for attribute := range bytes.SplitSeq(challenge, []byte(",")) {
		number, found := bytes.CutPrefix(attribute, []byte("i="))
		if !found {
			continue
		}
		if asked, err := strconv.Atoi(string(number)); err == nil && asked < minIterations {
			return &weakIterations{asked}
		}
	}
	return nil
}
