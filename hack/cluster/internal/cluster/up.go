package cluster

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"reflect"
	"strings"
	"time"

	"github.com/lethe-dev/lethe/hack/cluster/internal/assets"
	"github.com/lethe-dev/lethe/hack/cluster/internal/cache"
	"github.com/lethe-dev/lethe/hack/cluster/internal/node"
	"github.com/lethe-dev/lethe/hack/cluster/internal/process"
)

// Options of Up.
type Options struct {
	// Spec is what is wanted; nil means what the cluster was brought up with before.
	Spec *Spec
	// Wait bounds the time from the first start to all being ready.
	Wait time.Duration
	// Progress is told, in lines, what happens.
	Progress func(format string, args ...any)
}

// Up brings the cluster of that name up: from nothing, or from whatever an earlier Up, a crash or a restart of the
// machine left of it. One that is up already stays as it is.
func Up(ctx context.Context, cacheRoot, name string, o Options) (*Cluster, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	c := open(cacheRoot, name)
	known, err := c.load()
	if err != nil {
		return nil, err
	}
	if err := c.choose(known, o.Spec); err != nil {
		return nil, err
	}
	if c.state.Spec.Mode == Node {
		if err := node.Supported(); err != nil {
			return nil, err
		}
		if err := node.InstallPackages(o.Progress); err != nil {
			return nil, err
		}
	}
	builder := assets.Builder{Cache: cacheRoot, Progress: o.Progress}
	if err := builder.Ensure(c.programs()); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the cluster's folder: %w", err)
	}
	c.lock, err = cache.LockDir(c.Dir, func() { o.Progress("%s: waiting for another command", name) })
	if err != nil {
		return nil, err
	}
	defer c.lock.Unlock()
	// What another command has done meanwhile counts, not what was there before the wait.
	wanted := c.state
	if known, err = c.load(); err != nil {
		return nil, err
	}
	if known {
		err = c.choose(true, o.Spec)
	} else {
		c.state = wanted
		err = c.begin()
	}
	if err != nil {
		return nil, err
	}
	return c, c.bringUp(ctx, known, o)
}

// choose decides between what the user asks for and what is there.
func (c *Cluster) choose(known bool, asked *Spec) error {
	if !known {
		if asked == nil {
			return fmt.Errorf("cluster %s does not exist yet: say --mode %s, %s or %s", c.Name, ControlPlane, Node, Simulated)
		}
		c.state = state{Spec: *asked}
		return asked.Check()
	}
	if asked != nil && !reflect.DeepEqual(*asked, c.state.Spec) {
		return fmt.Errorf("cluster %s exists with other settings (mode %s); for new ones bring it down first", c.Name, c.state.Spec.Mode)
	}
	return nil
}

// programs are those that the cluster's mode needs built.
func (c *Cluster) programs() []string {
	out := append([]string{}, assets.ForEnvtest...)
	if own := assets.FromEnvironment(); own != "" && c.state.Binaries == "" && assets.SameMinor(own) {
		c.state.Binaries = own
	}
	if c.state.Binaries != "" {
		out = nil
	}
	if !c.state.Spec.NoControllers {
		out = append(out, "kube-controller-manager")
	}
	switch c.state.Spec.Mode {
	case ControlPlane:
	case Simulated:
		out = append(out, "kube-scheduler", "kwok")
	case Node:
		out = append(out, "kube-scheduler", "kubelet", "kube-proxy", "coredns", "pause", "etcdctl", "etcdutl")
	}
	return out
}

// begin gives a new cluster its addresses and writes them down before they are used. All clusters of the cache take
// turns at it, so that no two choose the same.
func (c *Cluster) begin() error {
	lock, err := cache.LockDir(clustersDir(c.Cache), func() {})
	if err != nil {
		return err
	}
	defer lock.Unlock()
	c.state.Boot = process.BootID()
	if c.state.Spec.Mode != Node {
		if c.state.Ports, err = freePorts(loopbackPorts); err != nil {
			return err
		}
		return c.save()
	}
	taken, err := node.TakenOnHost()
	if err != nil {
		return err
	}
	others, err := All(c.Cache)
	if err != nil {
		return err
	}
	for _, other := range others {
		if n := other.state.Network; n != nil {
			taken = append(taken, n.Block)
		}
	}
	network, err := node.ChooseNetwork(c.Name, taken)
	if err != nil {
		return err
	}
	c.state.Network = &network
	if err := c.checkFree(network); err != nil {
		return err
	}
	return c.save()
}

// checkFree makes sure that the names and addresses are nobody else's before the state says that they are ours.
func (c *Cluster) checkFree(n node.Network) error {
	if err := n.Free(); err != nil {
		return err
	}
	groups, err := node.NewCgroups(c.Name)
	if err != nil {
		return err
	}
	return groups.Free()
}

// The ports of loopback that parts get. They lie below those that Linux gives to outgoing connections
// (net.ipv4.ip_local_port_range, 32768 to 60999 by default): a port of that range belongs, between the look and the part's
// start, or while the part is being restarted, to any connection of the machine that comes first.
const firstPort, lastPort = 10000, 19999

// freePorts finds a free port on loopback for each name. All are held until all are found, so they differ.
func freePorts(names []string) (map[string]int, error) {
	out := map[string]int{}
	var held []net.Listener
	defer func() {
		for _, l := range held {
			_ = l.Close()
		}
	}()
	candidates := rand.Perm(lastPort - firstPort + 1)
	for _, name := range names {
		for out[name] == 0 {
			if len(candidates) == 0 {
				return nil, fmt.Errorf("find a free port for %s: none from %d to %d", name, firstPort, lastPort)
			}
			port := firstPort + candidates[0]
			candidates = candidates[1:]
			if l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
				held = append(held, l)
				out[name] = port
			}
		}
	}
	return out, nil
}

// bringUp starts what does not run and waits for all of it.
func (c *Cluster) bringUp(ctx context.Context, known bool, o Options) error {
	ctx, cancel := context.WithTimeout(ctx, o.Wait)
	defer cancel()
	if known {
		healthy, err := c.recover(ctx, o)
		if err != nil || healthy {
			return err
		}
	}
	begun := time.Now()
	if err := c.prepare(); err != nil {
		return err
	}
	parts, err := c.parts()
	if err != nil {
		return err
	}
	for _, p := range parts {
		if err := c.ensure(ctx, p, o.Progress); err != nil {
			return err
		}
		if err := c.after(ctx, p); err != nil {
			return err
		}
	}
	if c.state.Spec.Mode != ControlPlane {
		o.Progress("waiting for nodes to be ready")
		if err := c.eventually(ctx, c.settled); err != nil {
			return fmt.Errorf("cluster %s did not become ready: %w; logs are in %s", c.Name, err, c.relative(c.path("logs")))
		}
	}
	o.Progress("cluster %s (%s) is up after %s: %s", c.Name, c.state.Spec.Mode, time.Since(begun).Round(time.Second), c.url("kube-apiserver"))
	return nil
}

// recover deals with a cluster that was up before: true if it still is. What cannot be continued is removed so that the
// start is a fresh one.
func (c *Cluster) recover(ctx context.Context, o Options) (healthy bool, err error) {
	parts, err := c.parts()
	if err != nil {
		return false, err
	}
	alive := map[string]bool{}
	found := situation{
		total: len(parts), hasNode: c.state.Spec.Mode == Node, durable: c.state.Spec.Fsync,
		rebooted: c.state.Boot != process.BootID(),
	}
	for _, p := range parts {
		r, ok, err := process.Read(c.record(p.name))
		if err != nil {
			return false, err
		}
		if ok && r.Alive() {
			alive[p.name] = true
			found.alive++
		}
	}
	found.holderAlive = alive[holder]
	found.portTaken = c.portsTaken(alive)
	found.serving = found.alive == found.total && c.checkAll(ctx, parts) == nil

	step := found.next()
	if step == leave {
		o.Progress("cluster %s (%s) is up already: %s", c.Name, c.state.Spec.Mode, c.url("kube-apiserver"))
		return true, nil
	}
	o.Progress("cluster %s: %d of %d parts run; %s", c.Name, found.alive, found.total, step)
	switch step {
	case beginAnew:
		if err := c.wipe(); err != nil {
			return false, err
		}
		return false, c.begin()
	case startAll:
		if err := c.stopAll(); err != nil {
			return false, err
		}
		if found.portTaken {
			if c.state.Ports, err = freePorts(loopbackPorts); err != nil {
				return false, err
			}
		}
		c.state.Boot = process.BootID()
		return false, c.save()
	default:
		return false, nil
	}
}

// portsTaken says whether another program has the port of a part that has ended.
func (c *Cluster) portsTaken(alive map[string]bool) bool {
	for name, port := range c.state.Ports {
		if alive[strings.TrimSuffix(name, "-peer")] {
			continue
		}
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			return true
		}
		_ = l.Close()
	}
	return false
}

// checkAll asks every part once whether it serves.
func (c *Cluster) checkAll(ctx context.Context, parts []part) error {
	for _, p := range parts {
		if p.ready == nil {
			continue
		}
		if err := p.ready(ctx); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	if c.state.Spec.Mode == ControlPlane {
		return nil
	}
	return c.settled(ctx)
}

// prepare makes all that the parts read, where it is missing.
func (c *Cluster) prepare() error {
	steps := []func() error{c.certificates, c.kubeconfigs, c.auditPolicy}
	if c.state.Spec.Mode == Node {
		steps = append(steps, c.prepareNode)
	}
	for _, s := range steps {
		if err := s(); err != nil {
			return err
		}
	}
	return nil
}

func (c *Cluster) prepareNode() error {
	if err := c.state.Network.Up(); err != nil {
		return err
	}
	groups, err := node.NewCgroups(c.Name)
	if err != nil {
		return err
	}
	if err := groups.Up(); err != nil {
		return err
	}
	return c.writeNodeConfig(groups)
}

// ensure starts the part unless it runs, and waits until it is ready.
func (c *Cluster) ensure(ctx context.Context, p part, progress func(string, ...any)) error {
	r, ok, err := process.Read(c.record(p.name))
	if err != nil {
		return err
	}
	if !ok || !r.Alive() {
		if r, err = c.start(ctx, p); err != nil {
			return fmt.Errorf("%w; its log: %s", err, c.relative(c.log(p.name)))
		}
		progress("%s: started", p.name)
	}
	if p.ready == nil {
		return nil
	}
	err = c.eventually(ctx, func(ctx context.Context) error {
		err := p.ready(ctx)
		if err != nil && !r.Alive() {
			return stopWaiting{fmt.Errorf("%s has ended", p.name)}
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("%s did not become ready: %w\nits log, %s, ends with:\n%s",
			p.name, err, c.relative(c.log(p.name)), process.Tail(c.log(p.name), 10))
	}
	return nil
}

func (c *Cluster) start(ctx context.Context, p part) (process.Record, error) {
	var join []string
	if c.state.Spec.Mode == Node {
		groups, err := node.NewCgroups(c.Name)
		if err != nil {
			return process.Record{}, err
		}
		join = groups.Join()
	}
	if p.name == holder {
		if err := os.RemoveAll(c.path("holder")); err != nil {
			return process.Record{}, fmt.Errorf("start %s: %w", p.name, err)
		}
	}
	s, err := c.spec(p, join)
	if err != nil {
		return process.Record{}, err
	}
	return process.Start(ctx, s)
}

// after does what has to be done between one part and the next.
func (c *Cluster) after(ctx context.Context, p part) error {
	var objects []object
	switch {
	case p.name == "kube-apiserver" && c.state.Spec.Mode == Node:
		objects = append(c.dns(), kubeletAccess(), storageClass())
	case p.name == "kube-apiserver" && c.state.Spec.Mode == Simulated:
		objects = append(c.simulatedNodes(), storageClass())
	case p.name == "containerd":
		return c.loadOwnImages(ctx)
	default:
		return nil
	}
	// The API server serves before it has made its own namespaces and priority classes.
	err := c.eventually(ctx, func(ctx context.Context) error { return c.apply(ctx, objects...) })
	if err != nil {
		return fmt.Errorf("set up the cluster's own objects: %w", err)
	}
	return nil
}

// stopWaiting is an error that time will not mend.
type stopWaiting struct{ error }

func (s stopWaiting) Unwrap() error { return s.error }

// eventually calls f until it succeeds or the context ends; the error is then f's last one.
func (c *Cluster) eventually(ctx context.Context, f func(context.Context) error) error {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	var last error
	for {
		err := f(ctx)
		var stop stopWaiting
		if err == nil || errors.As(err, &stop) {
			return err
		}
		// An error that only says that time is over hides why it was needed.
		if last == nil || ctx.Err() == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.Canceled) {
				return fmt.Errorf("interrupted: %w", last)
			}
			return fmt.Errorf("gave up after the time of --wait: %w", last)
		case <-tick.C:
		}
	}
}
