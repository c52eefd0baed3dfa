package policies

import (
	"encoding/json"
	"strings"
	"testing"
)

// objects reads one JSON document a line into a state. The kind is told by what it has.
func objects(t *testing.T, lines string) State {
	t.Helper()
	s := State{Pods: map[string]Pod{}, Namespaces: map[string]Namespace{}, Policies: map[string]Policy{}}
	for line := range strings.Lines(strings.TrimSpace(lines)) {
		kind, document, _ := strings.Cut(strings.TrimSpace(line), " ")
		var err error
		switch kind {
		case "pod":
			var p Pod
			err = json.Unmarshal([]byte(document), &p)
			s.Pods[p.Metadata.UID] = p
		case "namespace":
			var n Namespace
			err = json.Unmarshal([]byte(document), &n)
			s.Namespaces[n.Metadata.UID] = n
		case "policy":
			var p Policy
			err = json.Unmarshal([]byte(document), &p)
			s.Policies[p.Metadata.UID] = p
		}
		if err != nil {
			t.Fatalf("%v: %s", err, line)
		}
	}
	return s
}

const world = `
namespace {"metadata":{"name":"acme","uid":"n1","labels":{"tenant":"acme"}}}
namespace {"metadata":{"name":"dns","uid":"n2","labels":{"name":"dns"}}}
pod {"metadata":{"namespace":"acme","name":"bot","uid":"1","labels":{"app":"bot"}},"status":{"phase":"Running","podIP":"10.0.0.1"}}
pod {"metadata":{"namespace":"dns","name":"dns","uid":"2","labels":{"app":"dns"}},"spec":{"containers":[{"ports":[{"name":"dns","protocol":"UDP","containerPort":5353}]}]},"status":{"phase":"Running","podIP":"10.0.0.2"}}
pod {"metadata":{"namespace":"dns","name":"other","uid":"3","labels":{"app":"other"}},"status":{"phase":"Running","podIP":"10.0.0.3"}}
pod {"metadata":{"namespace":"acme","name":"ended","uid":"4","labels":{"app":"bot"}},"status":{"phase":"Succeeded","podIP":"10.0.0.4"}}
pod {"metadata":{"namespace":"acme","name":"host","uid":"5","labels":{"app":"bot"}},"spec":{"hostNetwork":true},"status":{"phase":"Running","podIP":"10.9.9.9"}}
pod {"metadata":{"namespace":"acme","name":"early","uid":"6","labels":{"app":"bot"}},"status":{"phase":"Pending"}}
`

// TestScript looks at the chain of one pod and direction; "open" means that there is none.
func TestScript(t *testing.T) {
	policy := func(spec string) string {
		return `policy {"metadata":{"namespace":"acme","name":"p","uid":"p"},"spec":` + spec + "}\n"
	}
	const nothing, everywhere = "\t\treject with icmpx type admin-prohibited\n", "\t\treturn\n"
	tests := map[string]struct {
		policies string
		chain    string
		want     string
	}{
		"no policy, no wall":            {"", "from_0", "open"},
		"an empty selector is all pods": {policy(`{"podSelector":{},"policyTypes":["Egress"]}`), "from_0", nothing},
		"the other direction is open":   {policy(`{"podSelector":{},"policyTypes":["Egress"]}`), "to_0", "open"},
		"other namespaces are":          {policy(`{"podSelector":{},"policyTypes":["Egress","Ingress"]}`), "from_1", "open"},
		"a policy of other pods":        {policy(`{"podSelector":{"matchLabels":{"app":"web"}},"policyTypes":["Egress"]}`), "from_0", "open"},
		"an empty rule allows all":      {policy(`{"podSelector":{},"policyTypes":["Egress"],"egress":[{}]}`), "from_0", everywhere + nothing},
		"two policies add up": {policy(`{"podSelector":{},"policyTypes":["Egress"]}`) + strings.ReplaceAll(policy(`{"podSelector":{},"policyTypes":["Egress"],"egress":[{}]}`), `"uid":"p"`, `"uid":"q"`),
			"from_0", everywhere + nothing},
		"a port of pods in other namespaces, by number": {
			policy(`{"podSelector":{},"policyTypes":["Egress"],"egress":[{"to":[{"namespaceSelector":{"matchLabels":{"name":"dns"}},"podSelector":{"matchLabels":{"app":"dns"}}}],"ports":[{"protocol":"UDP","port":53},{"protocol":"TCP","port":53}]}]}`),
			"from_0", "\t\tip daddr 10.0.0.2 udp dport 53 return\n\t\tip daddr 10.0.0.2 tcp dport 53 return\n" + nothing},
		"by name, which only some have": {
			policy(`{"podSelector":{},"policyTypes":["Egress"],"egress":[{"to":[{"namespaceSelector":{}}],"ports":[{"protocol":"UDP","port":"dns"}]}]}`),
			"from_0", "\t\tip daddr 10.0.0.2 udp dport 5353 return\n" + nothing},
		"a pod selector alone is about the policy's own namespace": {
			policy(`{"podSelector":{},"policyTypes":["Ingress"],"ingress":[{"from":[{"podSelector":{}}]}]}`),
			"to_0", "\t\tip saddr 10.0.0.1 return\n" + nothing},
		"expressions": {
			policy(`{"podSelector":{"matchExpressions":[{"key":"app","operator":"In","values":["bot"]},{"key":"app","operator":"Exists"},{"key":"old","operator":"DoesNotExist"}]},"policyTypes":["Ingress"],"ingress":[{"from":[{"namespaceSelector":{"matchExpressions":[{"key":"tenant","operator":"NotIn","values":["acme"]}]}}]}]}`),
			"to_0", "\t\tip saddr 10.0.0.2 return\n\t\tip saddr 10.0.0.3 return\n" + nothing},
		"blocks with exceptions and ranges of ports": {
			policy(`{"podSelector":{},"policyTypes":["Egress"],"egress":[{"to":[{"ipBlock":{"cidr":"0.0.0.0/0","except":["10.0.0.0/8","169.254.169.254/32"]}}],"ports":[{"port":8000,"endPort":9000},{"protocol":"UDP"}]}]}`),
			"from_0", "\t\tip daddr 0.0.0.0/0 ip daddr != 10.0.0.0/8 ip daddr != 169.254.169.254/32 tcp dport 8000-9000 return\n" +
				"\t\tip daddr 0.0.0.0/0 ip daddr != 10.0.0.0/8 ip daddr != 169.254.169.254/32 meta l4proto udp return\n" + nothing},
		"what cannot be read allows nothing": {
			policy(`{"podSelector":{},"policyTypes":["Egress"],"egress":[{"to":[{"ipBlock":{"cidr":"fd00::/8"}},{"ipBlock":{"cidr":"10.0.0.0/8; accept"}},{"ipBlock":{"cidr":"0.0.0.0/0","except":["x"]}}]},{"ports":[{"protocol":"udp;","port":1},{"port":0},{"port":"nobody"}]}]}`),
			"from_0", nothing},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			script := Script(objects(t, world+tc.policies))
			got := "open"
			if _, chain, ok := strings.Cut(script, "\tchain "+tc.chain+" {"); ok {
				_, chain, _ = strings.Cut(chain, "\n")
				got, _, _ = strings.Cut(chain, "\t}\n")
			}
			if got != tc.want {
				t.Errorf("%s:\n%swant\n%s", tc.chain, got, tc.want)
			}
			for _, address := range []string{"10.0.0.4", "10.9.9.9"} {
				if strings.Contains(script, address) {
					t.Errorf("a pod without an address of its own is named:\n%s", script)
				}
			}
		})
	}
}

// TestScriptJumps: each hook sends a pod's packets to its chains, and the whole is one transaction.
func TestScriptJumps(t *testing.T) {
	script := Script(objects(t, world+`policy {"metadata":{"namespace":"acme","name":"p","uid":"p"},"spec":{"podSelector":{},"policyTypes":["Egress","Ingress"]}}`))
	for text, times := range map[string]int{
		"ip saddr 10.0.0.1 jump from_0": 2, "ip daddr 10.0.0.1 jump to_0": 2, "hook forward": 1, "hook input": 1,
		"delete table inet lethe_policies": 1, "ct state established,related accept": 2,
		"meta nfproto ipv6 iifname != \"lo\" drop": 2,
	} {
		if got := strings.Count(script, text); got != times {
			t.Errorf("%q stands there %d times, want %d:\n%s", text, got, times, script)
		}
	}
}
