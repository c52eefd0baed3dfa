// Package metricspage holds docs/metrics.md against what the programs export.
package metricspage

import (
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

var (
	desc   = regexp.MustCompile(`^Desc\{fqName: "([^"]+)", help: "(.*)", constLabels: \{\}, variableLabels: \{([^}]*)\}\}$`)
	row    = regexp.MustCompile("(?m)^\\| `([a-z0-9_]+)` \\| (\\w+) \\| ([^|]*) \\| (.+) \\|$")
	prefix = regexp.MustCompile("(?m)^\\| `([a-z_]+_)…` \\|")
	types  = regexp.MustCompile(`(?m)^# TYPE (\S+) (\S+)$`)
	word   = regexp.MustCompile("`([a-z_]+)`")
)

// Check compares the section of a program with its registry, which knows also what has no series yet, and with the
// text of a scrape. Lethe's own metrics are listed one by one, those of libraries by what their names begin with.
func Check(t testing.TB, heading string, registry prometheus.Collector, scrape string) {
	t.Helper()
	section := read(t, heading)
	documented, labels := map[string]string{}, map[string]string{} // types, and labels in their order
	for _, match := range row.FindAllStringSubmatch(section, -1) {
		if _, twice := documented[match[1]]; twice {
			t.Errorf("%s: %s is listed twice", heading, match[1])
		}
		documented[match[1]] = match[2]
		var names []string
		for _, name := range word.FindAllStringSubmatch(match[3], -1) {
			names = append(names, name[1])
		}
		labels[match[1]] = strings.Join(names, ",")
		if (match[2] == "counter") != strings.HasSuffix(match[1], "_total") {
			t.Errorf("%s: %s is a %s", heading, match[1], match[2])
		}
	}
	exported := described(t, registry)
	for name, want := range exported {
		if got, ok := labels[name]; !ok || got != want {
			t.Errorf("%s: %s has the labels %q, on the page %q (listed: %v)", heading, name, want, got, ok)
		}
	}
	for name := range documented {
		if _, ok := exported[name]; !ok {
			t.Errorf("%s: %s is on the page, and is not exported", heading, name)
		}
	}
	var libraries []string
	for _, match := range prefix.FindAllStringSubmatch(section, -1) {
		libraries = append(libraries, match[1])
	}
	used := map[string]bool{}
	for _, match := range types.FindAllStringSubmatch(scrape, -1) {
		name, kind := match[1], match[2]
		if strings.HasPrefix(name, "lethe_") {
			if documented[name] != kind {
				t.Errorf("%s: %s is a %s, on the page a %q", heading, name, kind, documented[name])
			}
			continue
		}
		i := slices.IndexFunc(libraries, func(prefix string) bool { return strings.HasPrefix(name, prefix) })
		if i < 0 {
			t.Errorf("%s: the page says nothing of %s", heading, name)
			continue
		}
		used[libraries[i]] = true
	}
	for _, prefix := range libraries {
		if !used[prefix] {
			t.Errorf("%s: nothing that is exported begins with %s", heading, prefix)
		}
	}
}

// described are the labels of Lethe's own metrics, by name.
func described(t testing.TB, registry prometheus.Collector) map[string]string {
	t.Helper()
	descs := make(chan *prometheus.Desc)
	go func() {
		registry.Describe(descs)
		close(descs)
	}()
	out := map[string]string{}
	for d := range descs {
		match := desc.FindStringSubmatch(d.String())
		if match == nil {
			if strings.Contains(d.String(), "lethe_") {
				t.Errorf("not understood: %s", d)
			}
			continue
		}
		if strings.HasPrefix(match[1], "lethe_") {
			out[match[1]] = match[3]
			if match[2] == "" {
				t.Errorf("%s has no help", match[1])
			}
		}
	}
	if len(out) < 10 {
		t.Errorf("%d metrics only", len(out))
	}
	return out
}

func read(t testing.TB, heading string) string {
	t.Helper()
	_, here, _, ok := runtime.Caller(0)
	if !ok {
		t.Fatal("this file is nowhere")
	}
	content, err := os.ReadFile(filepath.Join(filepath.Dir(here), "..", "..", "docs", "metrics.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(content), "\n## "+heading+"\n")
	if !found {
		t.Fatalf("docs/metrics.md has no section %q", heading)
	}
	section, _, _ := strings.Cut(rest, "\n## ")
	return section
}
