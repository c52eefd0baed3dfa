package main

import (
	"bytes"
	"regexp"
	"strconv"
	"testing"
)

// TestTheBench asks it, with all ten thousand tenants, for what does not depend on time.
func TestTheBench(t *testing.T) {
	var out bytes.Buffer
	if err := run(&out, 10_000, 100, 1); err != nil {
		t.Fatal(err)
	}
	for name, most := range map[string]float64{"plan_bytes": 131_072, "compile_ms": 60_000, "plans_per_newcomer": 0} {
		line := regexp.MustCompile(`(?m)^` + name + `=([0-9.]+)$`).FindSubmatch(out.Bytes())
		if line == nil {
			t.Errorf("no %s= in\n%s", name, &out)
			continue
		}
		if value, err := strconv.ParseFloat(string(line[1]), 64); err != nil || value > most {
			t.Errorf("%s is %s, at most %v is wanted", name, line[1], most)
		}
	}
}
