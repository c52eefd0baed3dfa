package messages

import "fmt"

// affinityRows break each rule of an affinity wherever it stands.
func affinityRows() []row {
	const required, preferred = "requiredDuringSchedulingIgnoredDuringExecution", "preferredDuringSchedulingIgnoredDuringExecution"
	var out []row
	add := func(shape, what string) {
		out = append(out, bad("Tenant", "spec.placement.affinity", fmt.Sprintf(shape, what)))
	}
	requirements := []string{`{"key": "a b", "operator": "Exists"}`, `{"key": "pool", "operator": "In"}`, `{"key": "pool", "operator": "Exists", "values": ["a"]}`, `{"key": "pool", "operator": "In", "values": ["a b"]}`}
	for _, shape := range []string{`{"nodeAffinity": {"` + required + `": {"nodeSelectorTerms": [{"matchExpressions": [%s]}]}}}`,
		`{"nodeAffinity": {"` + preferred + `": [{"weight": 1, "preference": {"matchExpressions": [%s]}}]}}`} {
		for _, r := range append(requirements, `{"key": "pool", "operator": "Gt", "values": ["many"]}`) {
			add(shape, r)
		}
	}
	for _, pods := range []string{"podAffinity", "podAntiAffinity"} {
		for _, shape := range []string{`{"` + pods + `": {"` + required + `": [%s]}}`, `{"` + pods + `": {"` + preferred + `": [{"weight": 1, "podAffinityTerm": %s}]}}`} {
			add(shape, `{"topologyKey": "a b"}`)
			for _, r := range requirements {
				add(shape, fmt.Sprintf(`{"topologyKey": "zone", "labelSelector": {"matchExpressions": [%s]}}`, r))
			}
		}
	}
	return out
}
