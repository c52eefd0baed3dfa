package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
)

// results are what is printed at the end.
type results struct {
	floors                     []floorRates
	rates                      floorRates // the same, of Lethe
	writes, children, statuses float64    // for each bot
	finalizers, events, reads  float64    // for each bot
	failed                     float64    // writes that were refused, for each bot
	reconciles                 float64
	childrenSeconds, readySecs float64
	steady, restart            int
	resyncs                    int
	restartDrain               float64
	managerPeak, managerIdle   int64 // KiB
	keysPeak                   int64
	others                     []float64 // share of the processors that others had: floor, bots, floor
	cpu                        []float64 // processor seconds for each object made, without those of others: floor, bots, floor
	bots                       int
}

func (r *results) print(w io.Writer) {
	line := func(name, format string, value any) { fmt.Fprintf(w, "%s="+format+"\n", name, value) }
	var mean floorRates
	var children []float64
	line("bots", "%d", r.bots)
	for i, f := range r.floors {
		mean.children += f.children / float64(len(r.floors))
		mean.all += f.all / float64(len(r.floors))
		children = append(children, f.children)
		line(fmt.Sprintf("floor_%d_per_s", i+1), "%.1f", f.children)
	}
	line("floor_noise", "%.2f", slices.Max(children)/slices.Min(children))
	line("lethe_per_s", "%.1f", r.rates.children)
	line("children_s", "%.1f", r.childrenSeconds)
	line("all_ready_s", "%.1f", r.readySecs)
	line("finalizer_writes_per_bot", "%.2f", r.finalizers)
	line("event_writes_per_bot", "%.2f", r.events)
	line("failed_writes_per_bot", "%.2f", r.failed)
	line("reads_per_bot", "%.2f", r.reads)
	for i, name := range []string{"floor_1", "lethe", "floor_2"} {
		line(name+"_foreign_cpu_share", "%.2f", r.others[i])
	}
	// On a machine that has nothing to spare this is what scale_ratio would be without the others.
	line("cpu_ratio", "%.2f", (r.cpu[0]+r.cpu[2])/2/r.cpu[1])
	line("resyncs", "%d", r.resyncs)
	line("manager_rss_idle_mib", "%.1f", float64(r.managerIdle)/1024)
	line("keyserver_rss_mib", "%.1f", float64(r.keysPeak)/1024)
	line("scale_ratio", "%.2f", r.rates.children/mean.children)
	line("same_objects_ratio", "%.2f", r.rates.all/mean.all)
	line("writes_per_bot", "%.2f", r.writes)
	line("children_per_bot", "%.2f", r.children)
	line("status_writes_per_bot", "%.2f", r.statuses)
	line("reconciles_per_bot", "%.2f", r.reconciles)
	line("steady_writes", "%d", r.steady)
	line("restart_writes", "%d", r.restart)
	line("restart_drain_s", "%.2f", r.restartDrain)
	line("manager_rss_mib", "%.1f", float64(r.managerPeak)/1024)
}

// measure is the floor, the bots, the floor again, and then the quiet.
func (b *bench) measure(ctx context.Context) error {
	b.results.bots = b.bots
	b.step("one bot, as a pattern for the floor")
	f, err := b.newFloor(ctx)
	if err != nil {
		return err
	}
	b.step("a bot has %d children: %s", len(f.templates), f.kinds())
	if err := b.floor(ctx, f); err != nil {
		return err
	}
	b.step("removing what the floor made")
	if err := f.remove(ctx); err != nil {
		return err
	}
	if err := b.startManager(ctx); err != nil {
		return err
	}
	if err := b.comeUp(ctx); err != nil {
		return err
	}
	if err := b.floor(ctx, f); err != nil {
		return err
	}
	if err := f.remove(ctx); err != nil {
		return err
	}
	if err := b.restartManager(ctx); err != nil {
		return err
	}
	return b.resync(ctx)
}

// floor runs the bare client without a manager beside it.
func (b *bench) floor(ctx context.Context, f *floor) error {
	if err := b.manager.stop(); err != nil {
		return err
	}
	rates, err := f.run(ctx)
	b.results.floors = append(b.results.floors, rates)
	return err
}

// comeUp creates all bots at once and counts until nothing is left to do.
func (b *bench) comeUp(ctx context.Context) error {
	b.step("sealing %d credentials", b.bots)
	bots, err := b.allBots()
	if err != nil {
		return err
	}
	if _, _, err := b.drained(ctx, b.manager, time.Second, 3*time.Second, 1); err != nil {
		return err
	}
	if _, err := b.calm(ctx); err != nil {
		return err
	}
	before, err := b.manager.queues(ctx)
	if err != nil {
		return err
	}
	b.step("%d bots", b.bots)
	profiled := b.profileAPIServer(ctx, "lethe")
	sampler := b.sample(ctx)
	err = parallel(ctx, b.workers, len(bots), func(ctx context.Context, i int) error { return b.admin.Create(ctx, bots[i]) })
	if err != nil {
		return fmt.Errorf("make the bots: %w", err)
	}
	_, after, err := b.drained(ctx, b.manager, 10*time.Second, 6*time.Second, 1)
	if err != nil {
		return err
	}
	if err := b.waitReady(ctx, b.bots+patternBots); err != nil {
		return err
	}
	requests, err := b.calm(ctx)
	if err != nil {
		return err
	}
	profiled()
	b.results.reconciles = (after.bots - before.bots) / float64(b.bots)
	return b.count(requests, sampler)
}

// count reads out of the audit log what the bots cost.
func (b *bench) count(requests []request, sampler *sampler) error {
	created := func(r request) bool {
		return r.verb == "create" && r.resource == resourceBots && r.sub == "" && strings.HasPrefix(r.agent, benchAgent)
	}
	status := func(r request) bool {
		return r.lethe() && r.resource == resourceBots && r.sub == "status" && r.write()
	}
	made, ready := span(requests, created, request.child), span(requests, created, status)
	if made.took() <= 0 {
		return errNoChildren
	}
	cpu := sampler.between(made.begin, made.end)
	res := &b.results
	n := float64(b.bots)
	res.childrenSeconds, res.readySecs = made.took().Seconds(), ready.took().Seconds()
	all := made
	all.n += b.bots // which people make, and the API server has the work
	res.rates = floorRates{children: made.rate(), all: all.rate()}
	res.children, res.statuses = float64(made.n)/n, float64(ready.n)/n
	res.others = append(res.others, cpu.others(made.took()))
	res.cpu = append(res.cpu, cpu.ours().Seconds()/float64(made.n))
	b.step("%d children in %.1fs, all ready after %.1fs", made.n, res.childrenSeconds, res.readySecs)
	b.step("    processor time: %s", cpu)
	early := 0
	for _, r := range requests {
		if status(r) && r.done.Before(made.end) {
			early++
		}
	}
	b.step("    %d of %d status writes came before the last child", early, ready.n)
	kinds := map[string]int{}
	for _, r := range requests {
		if !r.lethe() {
			continue
		}
		kinds[r.kind()]++
		switch {
		case r.review() || !r.write():
			res.reads += 1 / n
			continue
		case r.event():
			res.events += 1 / n
		case r.verb == "patch" && r.resource == resourceBots && r.sub == "":
			res.finalizers += 1 / n
		}
		res.writes += 1 / n
		if r.code >= 300 {
			res.failed += 1 / n
		}
	}
	for _, kind := range slices.Sorted(maps.Keys(kinds)) {
		is := func(r request) bool { return r.lethe() && r.kind() == kind }
		b.step("    %6d  %s (%s)", kinds[kind], kind, latencies(requests, is))
	}
	return nil
}

// latencies are the median and the 99th percentile of some requests, as the API server saw them.
func latencies(requests []request, of func(request) bool) string {
	var all []time.Duration
	for _, r := range requests {
		if of(r) {
			all = append(all, r.done.Sub(r.sent))
		}
	}
	if len(all) == 0 {
		return "none"
	}
	slices.Sort(all)
	at := func(q float64) time.Duration { return all[int(q*float64(len(all)-1))].Round(100 * time.Microsecond) }
	return fmt.Sprintf("p50 %s p99 %s", at(0.5), at(0.99))
}

// writesOf counts what both identities wrote, leases left out.
func writesOf(requests []request) (n int, first string) {
	for _, r := range requests {
		if r.lethe() && r.write() && !r.review() {
			if n++; n == 1 {
				first = r.kind() + " " + r.namespace + "/" + r.name
			}
		}
	}
	return n, first
}

// restartManager starts the manager again and looks what memory that takes, and whether it writes.
func (b *bench) restartManager(ctx context.Context) error {
	b.step("restarting the manager")
	if err := b.manager.stop(); err != nil {
		return err
	}
	if _, err := b.calm(ctx); err != nil {
		return err
	}
	if err := b.startManager(ctx); err != nil {
		return err
	}
	// Every bot and every tenant is looked at once.
	if _, _, err := b.drained(ctx, b.manager, 10*time.Second, 6*time.Second, float64(b.bots+b.tenants)); err != nil {
		return err
	}
	requests, err := b.calm(ctx)
	if err != nil {
		return err
	}
	var first string
	b.results.restart, first = writesOf(requests)
	if b.results.restart > 0 {
		b.step("    written after the restart: %s", first)
	}
	afterRestart, idle, err := b.manager.memory()
	if err != nil {
		return err
	}
	b.results.managerIdle = idle
	b.step("    the manager had at most %.1f MiB before, and has had %.1f since", float64(b.manager.peak)/1024, float64(afterRestart)/1024)
	return nil
}

// resync starts the manager's controllers once more and looks how long they work. Then it has them look at everything
// again and again, while nothing changes.
func (b *bench) resync(ctx context.Context) error {
	if err := b.manager.stop(); err != nil { // notes its peak
		return err
	}
	b.results.managerPeak = b.manager.peak
	every := max(10*time.Second, time.Duration(b.bots)*10*time.Millisecond)
	b.step("%d resyncs, one every %s", b.resyncs, every)
	p := &program{name: "harness"}
	b.undo = append(b.undo, p.stop)
	if err := b.startHarness(ctx, p, every); err != nil {
		return err
	}
	done, err := b.caughtUp(ctx, p, float64(b.bots+b.tenants))
	if err != nil {
		return err
	}
	b.results.restartDrain = done.Sub(p.started).Seconds()
	b.step("drained after %.2fs", b.results.restartDrain)
	_, before, err := b.drained(ctx, p, time.Second, 3*time.Second, float64(b.bots+b.tenants))
	if err != nil {
		return err
	}
	if _, err := b.calm(ctx); err != nil {
		return err
	}
	var after queues
	limit := time.Duration(b.resyncs+5) * every * 2
	err = waitFor(ctx, "the resyncs", limit, time.Second, func(ctx context.Context) (bool, string, error) {
		var err error
		after, err = p.queues(ctx)
		rounds := (after.bots - before.bots) / float64(b.bots)
		return rounds >= float64(b.resyncs), fmt.Sprintf("%.1f rounds", rounds), err
	})
	if err != nil {
		return err
	}
	requests, err := b.calm(ctx)
	if err != nil {
		return err
	}
	b.results.resyncs = int((after.bots - before.bots) / float64(b.bots))
	var first string
	b.results.steady, first = writesOf(requests)
	if b.results.steady > 0 {
		b.step("    written although nothing had changed: %s", first)
	}
	if hwm, _, err := b.keyserver.memory(); err == nil {
		b.results.keysPeak = hwm
	}
	return nil
}
