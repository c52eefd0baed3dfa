package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

const (
	managerUser = "system:serviceaccount:" + systemNamespace + ":" + managerAccount
	keysUser    = "system:serviceaccount:" + systemNamespace + ":" + keysAccount

	resourceBots = "botdeployments"
)

// request is one line of the audit log.
type request struct {
	verb, user, agent              string
	resource, sub, namespace, name string
	code                           int
	sent, done                     time.Time
}

// lethe says whether the manager or the keyserver sent it: the bare client has their identities and another agent.
func (r request) lethe() bool {
	return (r.user == managerUser || r.user == keysUser) && !strings.HasPrefix(r.agent, benchAgent)
}

func (r request) write() bool { return r.verb != "get" && r.verb != "list" }

// review says that it is a question to the API server in the form of a create: it stores nothing.
func (r request) review() bool { return strings.HasSuffix(r.resource, "reviews") }

func (r request) event() bool { return r.resource == "events" }

// child says that it made an object that a bot consists of.
func (r request) child() bool {
	return r.lethe() && r.verb == "create" && r.code == 201 && r.sub == "" && !r.review() && !r.event()
}

// floor says that the bare client made an object, floorChild that it is one that a bot consists of.
func (r request) floor() bool {
	return strings.HasPrefix(r.agent, benchAgent+"-floor") && r.verb == "create" && r.code == 201
}

func (r request) floorChild() bool { return r.floor() && r.resource != resourceBots }

func (r request) kind() string {
	s := r.verb + " " + r.resource
	if r.sub != "" {
		s += "/" + r.sub
	}
	if r.code >= 300 {
		s += fmt.Sprintf(" (%d)", r.code)
	}
	return s
}

// auditLog is read on from where it was left.
type auditLog struct {
	path   string
	offset int64
	rest   []byte
}

// next are the requests since the last call.
func (a *auditLog) next() ([]request, error) {
	file, err := os.Open(a.path)
	if err != nil {
		return nil, fmt.Errorf("open the audit log: %w", err)
	}
	defer file.Close()
	if _, err := file.Seek(a.offset, io.SeekStart); err != nil {
		return nil, fmt.Errorf("read the audit log: %w", err)
	}
	b, err := io.ReadAll(file)
	if err != nil {
		return nil, fmt.Errorf("read the audit log: %w", err)
	}
	a.offset += int64(len(b))
	b = append(a.rest, b...)
	end := bytes.LastIndexByte(b, '\n') + 1
	a.rest = append([]byte(nil), b[end:]...) // the last line may be half written
	var out []request
	for line := range bytes.Lines(b[:end]) {
		var e struct {
			Verb, UserAgent          string
			User                     struct{ Username string }
			ObjectRef                struct{ Resource, Subresource, Namespace, Name string }
			ResponseStatus           struct{ Code int }
			RequestReceivedTimestamp time.Time
			StageTimestamp           time.Time
		}
		if err := json.Unmarshal(line, &e); err != nil {
			return nil, fmt.Errorf("read the audit log: %w", err)
		}
		out = append(out, request{verb: e.Verb, user: e.User.Username, agent: e.UserAgent,
			resource: e.ObjectRef.Resource, sub: e.ObjectRef.Subresource, namespace: e.ObjectRef.Namespace, name: e.ObjectRef.Name,
			code: e.ResponseStatus.Code, sent: e.RequestReceivedTimestamp, done: e.StageTimestamp})
	}
	return out, nil
}

// window is from when the first of some requests was sent until the last of others was answered.
type window struct {
	begin, end time.Time
	n          int // of the others
}

func (w window) took() time.Duration {
	if w.begin.IsZero() || w.end.IsZero() {
		return 0
	}
	return w.end.Sub(w.begin)
}

// rate is how many of the others there were each second.
func (w window) rate() float64 { return float64(w.n) / w.took().Seconds() }

func span(requests []request, first, last func(request) bool) window {
	var w window
	for _, r := range requests {
		if first(r) && (w.begin.IsZero() || r.sent.Before(w.begin)) {
			w.begin = r.sent
		}
		if last(r) {
			w.n++
			if r.done.After(w.end) {
				w.end = r.done
			}
		}
	}
	return w
}
