// Package crash chooses where tests let a process die. docs/design/0029-crash-points.md says why these places are
// enough.
package crash

import "flag"

var every = flag.Bool("every", false, "let a process die before every write, and not only before the first of each kind: go test ./controllers/lives -run Crash -args -every")

// Every says that all writes are asked for.
func Every() bool { return *every }

// Points are the places in one course of things. After every write the process dies in any case.
type Points struct{ seen map[string]bool }

// Before says whether a process is also to die before a write: where it is the first of its kind.
func (p *Points) Before(kind string) bool {
	if p.seen == nil {
		p.seen = map[string]bool{}
	}
	first := !p.seen[kind]
	p.seen[kind] = true
	return first || *every
}
