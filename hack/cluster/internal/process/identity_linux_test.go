package process

import "testing"

func TestParseStat(t *testing.T) {
	const rest = " 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 987654 20 21"
	for name, c := range map[string]struct {
		stat, want string
		ok         bool
	}{
		"plain":             {"12 (etcd) S" + rest, "987654", true},
		"name with space":   {"12 (a b) S" + rest, "987654", true},
		"name with bracket": {"12 (a) S 1) R" + rest, "987654", true},
		"zombie":            {"12 (etcd) Z" + rest, "", false},
		"dead":              {"12 (etcd) X" + rest, "", false},
		"cut short":         {"12 (etcd) S 1 2", "", false},
		"no name":           {"12 etcd S 1", "", false},
		"empty":             {"", "", false},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parseStat(c.stat)
			if got != c.want || (err == nil) != c.ok {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
}
