package keystore

import (
	"fmt"
	"slices"
	"testing"
)

func TestMergedVersions(t *testing.T) {
	entry := func(name string, highest uint32, digest string) VersionEntry {
		return VersionEntry{Kind: "BotDeployment", Namespace: "a", Name: name, Credential: "c", Highest: highest, Digest: digest}
	}
	got := mergeVersions([]VersionEntry{entry("x", 5, "five"), entry("y", 1, "one")}, []VersionEntry{entry("x", 3, "three"), entry("z", 2, "two")})
	want := []VersionEntry{entry("y", 1, "one"), entry("x", 5, "five"), entry("z", 2, "two")}
	if len(got) != 3 || got[0] != want[0] || got[1] != want[1] || got[2] != want[2] {
		t.Errorf("got %+v", got)
	}
	var many []VersionEntry
	for i := range maxVersions + 5 {
		many = append(many, entry(fmt.Sprint(i), 1, ""))
	}
	if got := mergeVersions(many, []VersionEntry{entry("last", 1, "")}); len(got) != maxVersions || got[maxVersions-1].Name != "last" || got[0].Name != "6" {
		t.Errorf("%d entries, from %s to %s", len(got), got[0].Name, got[len(got)-1].Name)
	}
}

func TestVersionsAreBoundedByObject(t *testing.T) {
	entry := func(name, credential string) VersionEntry {
		return VersionEntry{Kind: "BotDeployment", Namespace: "a", Name: name, Credential: credential, Highest: 1}
	}
	count := func(entries []VersionEntry) map[string]int {
		counts := map[string]int{}
		for _, e := range entries {
			counts[e.Name]++
		}
		return counts
	}
	var many []VersionEntry
	for i := range maxVersionsOfObject + 3 {
		many = append(many, entry("one", fmt.Sprint(i)))
	}
	if got := boundVersions(slices.Clone(many)); len(got) != maxVersionsOfObject || got[0].Credential != "3" {
		t.Errorf("%d of one object, the first %s", len(got), got[0].Credential)
	}
	// Five hundred names with two each, one with four and the oldest with one: the four give first, nobody loses all.
	many = []VersionEntry{entry("oldest", "c")}
	for i := range 500 {
		many = append(many, entry(fmt.Sprint(i), "a"), entry(fmt.Sprint(i), "b"))
	}
	for i := range 4 {
		many = append(many, entry("four", fmt.Sprint(i)))
	}
	got := boundVersions(slices.Clone(many))
	if counts := count(got); len(got) != maxVersions || counts["oldest"] != 1 || counts["four"] != 2 || len(counts) != 502 {
		t.Errorf("%d entries of %d objects, oldest %d, four %d", len(got), len(counts), counts["oldest"], counts["four"])
	}
	if got := boundVersions(slices.Clone(got)); len(got) != maxVersions {
		t.Errorf("%d entries the second time", len(got))
	}
}
