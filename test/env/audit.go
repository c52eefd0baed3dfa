package env

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"strings"
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

// Writes are all requests since a time that were meant to change something, by users whose name begins with prefix.
// Leases and events are left out.
func (e *Env) Writes(since time.Time, prefix string) ([]Write, error) {
	file, err := os.Open(e.auditLog)
	if err != nil {
		return nil, fmt.Errorf("open the audit log: %w", err)
	}
	defer file.Close()
	var writes []Write
	scanner := bufio.NewScanner(file)
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		var event auditEvent
		if err := json.Unmarshal(scanner.Bytes(), &event); err != nil {
			continue // the last line may be half written
		}
		user := event.User.Username
		if event.ImpersonatedUser != nil {
			user = event.ImpersonatedUser.Username
		}
		resource := event.ObjectRef.Resource
		if event.ObjectRef.Subresource != "" {
			resource += "/" + event.ObjectRef.Subresource
		}
		if event.RequestReceivedTimestamp.Before(since) || !strings.HasPrefix(user, prefix) || resource == "leases" || resource == "events" {
			continue
		}
		writes = append(writes, Write{
			User: user, Verb: event.Verb, Resource: resource, Object: event.ObjectRef.Namespace + "/" + event.ObjectRef.Name,
			Code: event.ResponseStatus.Code, At: event.RequestReceivedTimestamp,
		})
	}
	if err := scanner.Err(); err != nil {
		return nil, fmt.Errorf("read the audit log: %w", err)
	}
	return writes, nil
}
