// Command scale measures what Lethe costs for each bot: `make bench-scale N=1000`.
//
// It brings up a cluster of its own with simulated nodes, and runs the manager and the keyserver on this machine with
// the identities and the rights that they have in earnest. The measure is a bare client that creates the same
// objects, cloned from the children that a real bot got, with the same identities, on the same cluster, before and
// after the bots, and once more with a BotDeployment to each: what is reported are the ratios, since seconds belong to
// the machine. All requests are counted from
// the API server's audit log.
//
// The last lines of its output are name=value:
//
//	scale_ratio            rate at which children were created, against the bare client
//	same_objects_ratio     the same, where the bare client creates the BotDeployments, too
//	writes_per_bot         requests of both identities that change something, failed ones too, leases left out
//	children_per_bot       objects created
//	status_writes_per_bot  writes of a BotDeployment's status
//	reconciles_per_bot     passes of the BotDeployment controller
//	steady_writes          writes over the resyncs, when nothing changes
//	restart_writes         writes after a restart of the manager
//	restart_drain_s        from the start of the manager's process until its queues are empty
//	manager_rss_mib        the most memory that the manager ever had (VmHWM)
//
// and beside them what helps to believe them. Everything is taken down at the end, also after a failure or Ctrl-C.
package main
