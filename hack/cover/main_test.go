package main

import (
	"bytes"
	"strings"
	"testing"
)

func TestTheTotal(t *testing.T) {
	for name, c := range map[string]struct{ profile, says, wrong string }{
		"a block that one package's tests ran and another's did not": {
			profile: "mode: set\nm/a/a.go:1.1,2.2 3 0\nm/a/a.go:1.1,2.2 3 1\nm/a/a.go:5.1,6.2 1 0\nm/b/b.go:1.1,2.2 4 0\n",
			says:    " 75.0 %  m/a\n  0.0 %  m/b\n 37.5 %  total: 3 of 8 statements\n"},
		"generated files are not counted": {
			profile: "mode: set\nm/a/a.go:1.1,2.2 1 1\nm/a/zz_generated.deepcopy.go:1.1,2.2 99 0\n",
			says:    "100.0 %  m/a\n100.0 %  total: 1 of 1 statements\n"},
		"no test ran":      {profile: "mode: set\n", wrong: "no test ran"},
		"another document": {profile: "hello\n", wrong: "is no line"},
	} {
		var out bytes.Buffer
		err := summarize(strings.NewReader(c.profile), &out)
		if (err != nil) != (c.wrong != "") || (err != nil && !strings.Contains(err.Error(), c.wrong)) || out.String() != c.says {
			t.Errorf("%s: %q, %v", name, out.String(), err)
		}
	}
}
