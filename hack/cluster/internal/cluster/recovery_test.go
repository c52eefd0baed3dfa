package cluster

import "testing"

func TestNext(t *testing.T) {
	up := situation{total: 3, alive: 3, serving: true}
	with := func(s situation, change func(*situation)) situation {
		change(&s)
		return s
	}
	for name, c := range map[string]struct {
		found situation
		want  step
	}{
		"all serve":          {up, leave},
		"one has ended":      {with(up, func(s *situation) { s.alive, s.serving = 2, false }), startMissing},
		"one hangs":          {with(up, func(s *situation) { s.serving = false }), startMissing},
		"none was started":   {situation{total: 3}, startMissing},
		"a port is taken":    {with(up, func(s *situation) { s.alive, s.serving, s.portTaken = 2, false, true }), startAll},
		"the node has ended": {situation{total: 9, alive: 8, hasNode: true}, startAll},
		"a kubelet ended":    {situation{total: 9, alive: 8, hasNode: true, holderAlive: true}, startMissing},
		"node serves":        {situation{total: 9, alive: 9, hasNode: true, holderAlive: true, serving: true}, leave},
		"restarted":          {situation{total: 3, rebooted: true}, beginAnew},
		"restarted, durable": {situation{total: 3, rebooted: true, durable: true}, startAll},
	} {
		t.Run(name, func(t *testing.T) {
			if got := c.found.next(); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}
