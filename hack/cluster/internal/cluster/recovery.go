package cluster

// situation is what Up finds of a cluster that was up before.
type situation struct {
	// total is how many parts the cluster has, alive how many of them run.
	total, alive int
	// serving says that all run and all serve.
	serving bool
	// rebooted says that the machine was restarted since.
	rebooted bool
	// durable says that etcd waits for the disk.
	durable bool
	// hasNode says that there is a real node, holderAlive that the process which keeps its mount namespace runs.
	hasNode, holderAlive bool
	// portTaken says that another program has the port of a part that does not run.
	portTaken bool
}

// step is what Up does about a situation; as a text, what it says about it.
type step string

const (
	// leave: nothing is to be done.
	leave step = "nothing to do"
	// startMissing: what runs stays, what does not is started.
	startMissing step = "starting the others"
	// startAll: what runs is stopped, because the others cannot be put beside it; the data stays.
	startAll step = "starting all of them again"
	// beginAnew: everything is removed first, the data too.
	beginAnew step = "beginning anew: the machine was restarted, and without --fsync the data may be torn"
)

func (s situation) next() step {
	switch {
	case s.rebooted && !s.durable:
		// After a loss of power etcd may have a log without the data that the log says it has.
		return beginAnew
	case s.rebooted:
		return startAll
	case s.serving:
		return leave
	case s.hasNode && !s.holderAlive:
		// No process can enter the namespace of those that are left.
		return startAll
	case s.portTaken:
		// A new port is a new address, which the parts that run do not know.
		return startAll
	default:
		return startMissing
	}
}
