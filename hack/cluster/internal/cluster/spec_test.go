package cluster

import (
	"os"
	"strconv"
	"strings"
	"testing"
)

func TestCheckName(t *testing.T) {
	for name, ok := range map[string]bool{
		"a": true, "lethe": true, "test-2": true, strings.Repeat("a", 32): true,
		"": false, "A": false, "-a": false, "a-": false, "a.b": false, "../x": false, "a/b": false, strings.Repeat("a", 33): false,
	} {
		if err := CheckName(name); (err == nil) != ok {
			t.Errorf("CheckName(%q) = %v", name, err)
		}
	}
}

func TestCheckSpec(t *testing.T) {
	for name, c := range map[string]struct {
		spec Spec
		want string
	}{
		"control plane":         {Spec{Mode: ControlPlane}, ""},
		"without controllers":   {Spec{Mode: ControlPlane, NoControllers: true}, ""},
		"simulated":             {Spec{Mode: Simulated, Nodes: 3, PodStages: []string{"fast"}}, ""},
		"node":                  {Spec{Mode: Node, AuditLog: true, Fsync: true}, ""},
		"no mode":               {Spec{}, "--mode"},
		"misspelt mode":         {Spec{Mode: "nod"}, "--mode"},
		"simulated, no node":    {Spec{Mode: Simulated}, "--nodes"},
		"simulated, too many":   {Spec{Mode: Simulated, Nodes: 1001}, "--nodes"},
		"nodes of a real node":  {Spec{Mode: Node, Nodes: 2}, "--nodes"},
		"node, no controllers":  {Spec{Mode: Node, NoControllers: true}, "--no-controllers"},
		"policy without log":    {Spec{Mode: Node, AuditPolicy: "/p"}, "--audit-log"},
		"argument of nobody":    {Spec{Mode: Node, ExtraArgs: map[string][]string{"apiserver": {"--v=4"}}}, "--extra-arg"},
		"argument of a part":    {Spec{Mode: Node, ExtraArgs: map[string][]string{"kube-apiserver": {"--v=4"}}}, ""},
		"stages of a real node": {Spec{Mode: Node, PodStages: []string{"fast"}}, "--pod-stages"},
	} {
		t.Run(name, func(t *testing.T) {
			err := c.spec.Check()
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want one about %q", err, c.want)
			}
		})
	}
}

func TestChoose(t *testing.T) {
	has := Spec{Mode: Simulated, Nodes: 2}
	other := Spec{Mode: Simulated, Nodes: 3}
	for name, c := range map[string]struct {
		known bool
		asked *Spec
		ok    bool
	}{
		"new":                  {false, &has, true},
		"new without settings": {false, nil, false},
		"new and wrong":        {false, &Spec{Mode: "x"}, false},
		"known":                {true, nil, true},
		"known, the same":      {true, &Spec{Mode: Simulated, Nodes: 2}, true},
		"known, another":       {true, &other, false},
	} {
		t.Run(name, func(t *testing.T) {
			cl := &Cluster{Name: "a", state: state{Spec: has}}
			if err := cl.choose(c.known, c.asked); (err == nil) != c.ok {
				t.Errorf("choose: %v", err)
			}
		})
	}
}

// Each part listens on a port of its own: two parts that share one would only fail at run time, one after the other.
func TestEveryPartHasItsPort(t *testing.T) {
	ports, err := freePorts(loopbackPorts)
	if err != nil {
		t.Fatal(err)
	}
	for name, set := range map[string]map[string]int{"loopback": ports, "node": nodePorts} {
		seen := map[int]string{}
		for part, port := range set {
			if other, taken := seen[port]; taken || port == 0 {
				t.Errorf("%s: %s has port %d, as has %q", name, part, port, other)
			}
			seen[port] = part
			if lowest, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range"); err != nil {
				t.Fatal(err)
			} else if n, err := strconv.Atoi(strings.Fields(string(lowest))[0]); err != nil || port >= n {
				t.Errorf("%s: port %d of %s may be taken by an outgoing connection, which get ports from %d (%v)", name, port, part, n, err)
			}
		}
	}
}
