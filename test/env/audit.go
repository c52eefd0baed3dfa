package env

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
)

// Write is a request that was meant to change something, as the API server's audit log tells it.
type Write struct {
	User     string // impersonated, where the request was
	Verb     string
	Resource string // with the subresource: botdeployments/status
	Object   string // namespace/name
	Code     int
	At       time.Time
}

func (w Write) String() string {
	return fmt.Sprintf("%s %s %s by %s: %d", w.Verb, w.Resource, w.Object, w.User, w.Code)
}

type auditEvent struct {
	Verb                     string                                                  `json:"verb"`
	User                     struct{ Username string }                               `json:"user"`
	ImpersonatedUser         *struct{ Username string }                              `json:"impersonatedUser"`
	ObjectRef                struct{ Resource, Subresource, Namespace, Name string } `json:"objectRef"`
	ResponseStatus           struct{ Code int }                                      `json:"responseStatus"`
	RequestReceivedTimestamp time.Time                                               `json:"requestReceivedTimestamp"`
}

// audit is what has been read of the audit log.
type audit struct {
	mutex  sync.Mutex
	offset int64 // after the last whole line
	writes []Write
}

// Writes are all requests since a time that were meant to change something, by users whose name begins with prefix.
// Leases and events are left out.
func (e *Env) Writes(since time.Time, prefix string) ([]Write, error) {
	e.audit.mutex.Lock()
	defer e.audit.mutex.Unlock()
	if err := e.audit.read(e.auditLog); err != nil {
		return nil, err
	}
	var writes []Write
	for _, w := range e.audit.writes { // in the order in which they ended
		if !w.At.Before(since) && strings.HasPrefix(w.User, prefix) {
			writes = append(writes, w)
		}
	}
	return writes, nil
}

// read goes on where it ended the last time.
func (a *audit) read(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("open the audit log: %w", err)
	}
	defer file.Close()
	if info, err := file.Stat(); err != nil || info.Size() < a.offset {
		return errors.Join(errors.New("the audit log is shorter than what was read of it"), err)
	}
	if _, err := file.Seek(a.offset, io.SeekStart); err != nil {
		return fmt.Errorf("go on in the audit log: %w", err)
	}
	for reader := bufio.NewReader(file); ; {
		line, err := reader.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return nil // the last line may be half written
		}
		if err != nil {
			return fmt.Errorf("read the audit log: %w", err)
		}
		a.offset += int64(len(line))
		var event auditEvent
		if err := json.Unmarshal(line, &event); err != nil {
			return fmt.Errorf("a line of the audit log: %w", err)
		}
		if resource := event.ObjectRef.Resource; resource != "leases" && resource != "events" {
			a.writes = append(a.writes, event.write())
		}
	}
}

func (e auditEvent) write() Write {
	w := Write{User: e.User.Username, Verb: e.Verb, Resource: e.ObjectRef.Resource, Object: e.ObjectRef.Namespace + "/" + e.ObjectRef.Name,
		Code: e.ResponseStatus.Code, At: e.RequestReceivedTimestamp}
	if e.ImpersonatedUser != nil {
		w.User = e.ImpersonatedUser.Username
	}
	if e.ObjectRef.Subresource != "" {
		w.Resource += "/" + e.ObjectRef.Subresource
	}
	return w
}
