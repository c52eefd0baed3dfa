package guest

import (
	"context"
	"errors"
	"fmt"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// ErrBusy says that another run is at work.
var ErrBusy = errors.New("another run of the demo, or of the tests, is at work on this cluster now: wait for its end")

// holdName is the Lease that a run renews while it works. A run that was killed renews it no more.
const holdName = "lethe-demo-run"

// busy says whether somebody else's run is at work in the namespace of a mark. A Lease is somebody's as long as it
// changes: no clocks are compared.
func (g *Guest) busy(ctx context.Context, namespace string) (bool, error) {
	var first string
	for end := time.Now().Add(4 * g.beat); ; {
		var l coordinationv1.Lease
		if err := g.Client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: holdName}, &l); err != nil {
			if apierrors.IsNotFound(err) {
				return false, nil
			}
			return false, fmt.Errorf("look whether another run is at work: %w", err)
		}
		if l.Spec.HolderIdentity != nil && *l.Spec.HolderIdentity == g.run || l.ResourceVersion == g.dead {
			return false, nil
		}
		if first == "" {
			first = l.ResourceVersion
		}
		if l.ResourceVersion != first {
			return true, nil
		}
		if !time.Now().Before(end) {
			g.dead = first
			return false, nil
		}
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-time.After(g.beat / 4):
		}
	}
}

// hold tells others that a run is at work, until Release or the end of this program. A Lease that somebody has left
// is taken over.
func (g *Guest) hold(ctx context.Context, namespace string) error {
	busy, err := g.busy(ctx, namespace)
	if err != nil {
		return err
	}
	if busy {
		return ErrBusy
	}
	g.end()
	l := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: holdName}}
	err = g.Client.Get(ctx, client.ObjectKeyFromObject(l), l)
	switch {
	case apierrors.IsNotFound(err):
		g.renew(l)
		err = g.Client.Create(ctx, l)
	case err == nil:
		g.renew(l)
		err = g.Client.Update(ctx, l) // of what was read, and nothing newer
	}
	if apierrors.IsAlreadyExists(err) || apierrors.IsConflict(err) {
		return ErrBusy
	}
	if err != nil {
		return fmt.Errorf("say that this run is at work: %w", err)
	}
	at, cancel := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan struct{})
	g.end = func() { cancel(); <-done; g.end = func() {} }
	g.held = l
	go func() {
		defer close(done)
		tick := time.NewTicker(g.beat)
		defer tick.Stop()
		for {
			select {
			case <-at.Done():
				return
			case <-tick.C:
				g.renew(l)
				if g.Client.Update(at, l) == nil {
					continue
				}
				// The next one tries again with what is there now, unless somebody has taken it over. A Lease that is
				// gone went with its namespace.
				if g.Client.Get(at, client.ObjectKeyFromObject(l), l) == nil && (l.Spec.HolderIdentity == nil || *l.Spec.HolderIdentity != g.run) {
					return
				}
			}
		}
	}()
	return nil
}

func (g *Guest) renew(l *coordinationv1.Lease) {
	now := metav1.NowMicro()
	l.Spec.HolderIdentity, l.Spec.RenewTime = &g.run, &now
}

// Release says that this run is at work no more.
func (g *Guest) Release(ctx context.Context) {
	g.end()
	if g.held != nil {
		_ = g.delete(ctx, g.held) // whoever comes waits until it is seen not to change
		g.held = nil
	}
}
