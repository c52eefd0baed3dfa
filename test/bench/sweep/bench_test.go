package main

import (
	"os/exec"
	"regexp"
	"strconv"
	"testing"
)

// TestASmallBench runs the bench as a person does, on a thousandth of the rows, and asks it for what does not depend
// on time.
func TestASmallBench(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "run", ".", "-rows=20000", "-rounds=1", "-unknown=20000", "-fsync=false").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for name, most := range map[string]float64{"sweep_ratio": 100, "poison_rollbacks": 100, "starved_datasets": 0, "chain_20000_s": 3600, "partitions_1100_s": 3600,
		"unknown_tenants_0m_s": 3600, "sweep_txn_max_ms": 60_000, "sweep_premature": 0} {
		line := regexp.MustCompile(`(?m)^` + name + `=([0-9.]+)$`).FindSubmatch(out)
		if line == nil {
			t.Errorf("no %s= in\n%s", name, out)
			continue
		}
		if value, err := strconv.ParseFloat(string(line[1]), 64); err != nil || value > most {
			t.Errorf("%s is %s, at most %v is possible", name, line[1], most)
		}
	}
}
