package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/lethe-dev/lethe/hack/cluster/internal/cache"
	"github.com/lethe-dev/lethe/hack/cluster/internal/node"
	"github.com/lethe-dev/lethe/hack/cluster/internal/process"
)

// Down stops the cluster of that name and removes all of it. ErrNone if there is none.
func Down(cacheRoot, name string, progress func(string, ...any)) error {
	if err := CheckName(name); err != nil {
		return err
	}
	c := open(cacheRoot, name)
	lock, err := cache.LockDir(c.Dir, func() { progress("%s: waiting for another command", name) })
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cluster %s: %w", name, ErrNone)
	}
	if err != nil {
		return err
	}
	defer lock.Unlock()
	if _, err := c.load(); err != nil {
		return err
	}
	if c.state.Spec.Mode == Node && os.Geteuid() != 0 {
		return fmt.Errorf("cluster %s has a real node: bring it down as root", name)
	}
	if err := c.stopAll(); err != nil {
		return err
	}
	if err := c.removeSurroundings(); err != nil {
		return err
	}
	if err := os.RemoveAll(c.Dir); err != nil {
		return fmt.Errorf("remove the folder of cluster %s: %w", name, err)
	}
	return nil
}

// stopAll ends every process of the cluster. Records say which processes its parts are; on a real node the control
// groups have those and all that came of them.
func (c *Cluster) stopAll() error {
	records, err := filepath.Glob(c.path("run", "*.json"))
	if err != nil {
		return fmt.Errorf("stop cluster %s: %w", c.Name, err)
	}
	var errs []error
	for _, path := range records {
		r, ok, err := process.Read(path)
		if err != nil || !ok {
			// A record cut short by a crash names no process. It is removed with the folder.
			errs = append(errs, err)
			continue
		}
		errs = append(errs, r.Stop())
	}
	if c.state.Spec.Mode == Node {
		groups, err := node.NewCgroups(c.Name)
		if err == nil {
			err = groups.Down()
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// removeSurroundings removes what exists outside the cluster's folder, and every mount inside it.
func (c *Cluster) removeSurroundings() error {
	if n := c.state.Network; n != nil {
		if err := n.Down(); err != nil {
			return err
		}
	}
	return node.UnmountBelow(c.Dir)
}

// wipe stops everything and empties the folder, which stays because it is locked.
func (c *Cluster) wipe() error {
	if err := c.stopAll(); err != nil {
		return err
	}
	if err := c.removeSurroundings(); err != nil {
		return err
	}
	entries, err := os.ReadDir(c.Dir)
	if err != nil {
		return fmt.Errorf("empty the folder of cluster %s: %w", c.Name, err)
	}
	for _, e := range entries {
		if err := os.RemoveAll(c.path(e.Name())); err != nil {
			return fmt.Errorf("empty the folder of cluster %s: %w", c.Name, err)
		}
	}
	c.state.Network, c.state.Ports = nil, nil
	return nil
}
