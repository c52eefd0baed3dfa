package keyserver

import (
	"errors"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/internal/keystore"
	"github.com/lethe-dev/lethe/internal/sealing"
)

// TestADeletedObjectLeavesNoSecretOfARotation: what a rotation moved, and what it had only begun, goes with its object.
func TestADeletedObjectLeavesNoSecretOfARotation(t *testing.T) {
	for failAt := range 5 {
		w := newRotationWorld(t)
		bot, _ := w.newBot("support")
		w.storeAndRecord(bot)
		w.askFor(keystore.LayerData, "")
		w.writes.reset(failAt, true)
		_ = w.server.Rotate(t.Context())
		w.writes.reset(0, false)
		w.restart()
		w.must(testEnv.Client.Delete(t.Context(), bot))
		w.granted(w.call(keyapi.PathRevoke, w.manager, keyapi.RevokeRequest{Object: refTo(sealing.KindBotDeployment, bot)}, nil))
		if left := w.encrypted(); len(left) > 0 {
			t.Errorf("crash at write %d: the namespace holds %v", failAt, left)
		}
	}
}

// TestKeysThatWaitFollowTheKEK: a Tenant that was deleted before the key-encryption key changed comes back after it.
func TestKeysThatWaitFollowTheKEK(t *testing.T) {
	w := newRotationWorld(t)
	w.newRunner("support")
	w.must(testEnv.Client.Delete(t.Context(), w.tenant))
	w.granted(w.call(keyapi.PathRevoke, w.manager, keyapi.RevokeRequest{Object: refTo("Tenant", w.tenant)}, nil))
	old, fresh := w.opts.KEK, newKEK()
	w.opts.KEK, w.opts.KEKPrevious = fresh, []sealing.Key{old}
	w.restart()
	w.askFor(keystore.LayerKEK, "")
	w.settle()
	backup, err := keystore.NewBackup(w.keySecrets(), w.clock.Now())
	w.must(err)
	w.must(backup.Verify(sealing.Ring{fresh})) // nothing needs the earlier one
	pending := 0
	for _, s := range w.keySecrets() {
		if keystore.FormatOf(&s) == keystore.FormatPending {
			pending++
			if !keystore.UnderKEK(&s, fresh.KID()) {
				t.Error("keys that wait are under the earlier key")
			}
		}
	}
	if pending != 1 {
		t.Errorf("%d documents of keys that wait", pending)
	}
}

// TestOldCopiesOpenForNobodyOnceTheKEKIsGone: what destroying keys erases, and since when it holds for copies too.
func TestOldCopiesOpenForNobodyOnceTheKEKIsGone(t *testing.T) {
	w := newRotationWorld(t)
	w.newRunner("support")
	old, fresh := w.opts.KEK, newKEK()
	copied, err := keystore.NewBackup(w.keySecrets(), w.clock.Now())
	w.must(err)
	w.opts.KEK, w.opts.KEKPrevious = fresh, []sealing.Key{old}
	w.restart()
	// Nothing happens by itself: until it is asked for the earlier key wraps, on all replicas.
	w.settle()
	if kid := w.server.keys.KEKs().First().KID(); kid != old.KID() {
		t.Fatalf("%s wraps before anybody asked", kid)
	}
	w.askFor(keystore.LayerKEK, "")
	st := w.settle()
	if st.KEKs[0].KID != fresh.KID() || st.KEKs[1].KID != old.KID() || st.KEKs[1].Rewrapped.IsZero() {
		t.Fatalf("the status says %+v", st.KEKs)
	}
	say := func() keystore.RotationStatus {
		w.Helper()
		w.later(2 * time.Second)
		w.ask(func(cm *corev1.ConfigMap) error { return keystore.RecordKEKDestroyed(cm, old.KID(), w.clock.Now()) })
		w.must(w.server.Rotate(t.Context()))
		return w.rotation()
	}
	if st := say(); !strings.Contains(st.Refused[old.KID()], "no backup") {
		t.Errorf("without a verified backup: %+v", st)
	}
	// A backup from before the end is none that would do.
	record := func(b keystore.Backup) {
		w.Helper()
		w.ask(func(cm *corev1.ConfigMap) error {
			return keystore.RecordBackup(cm, keystore.VerifiedBackup{Created: b.Created, Digest: b.Digest, KEK: b.KEK, At: w.clock.Now()})
		})
	}
	record(copied)
	if st := say(); !strings.Contains(st.Refused[old.KID()], "no backup") {
		t.Errorf("with an earlier backup: %+v", st)
	}
	now, err := keystore.NewBackup(w.keySecrets(), w.clock.Now())
	w.must(err)
	w.must(now.Verify(sealing.Ring{fresh}))
	record(now)
	if st := say(); !strings.Contains(st.Refused[old.KID()], "still holds it") {
		t.Errorf("while it is mounted: %+v", st)
	}
	w.opts.KEKPrevious = nil
	w.restart()
	w.must(w.server.Maintain(t.Context()))
	w.must(w.server.Ready(t.Context()))
	st = say()
	if st.KEKs[1].State != keystore.StateDestroyed || st.KEKs[1].Destroyed.IsZero() || len(st.Refused) > 0 {
		t.Errorf("the status says %+v, refused %v", st.KEKs, st.Refused)
	}
	// The control: with the earlier key the copy opens, and with all that is left it does not.
	w.must(copied.Verify(sealing.Ring{old}))
	if err := copied.Verify(sealing.Ring{fresh}); err == nil {
		t.Error("the copy opens with the present key")
	}
	// Going back to it is refused.
	w.opts.KEK, w.opts.KEKPrevious = old, []sealing.Key{fresh}
	w.restart()
	w.askFor(keystore.LayerKEK, "")
	if err := w.server.Rotate(t.Context()); err == nil || !strings.Contains(err.Error(), "was destroyed") {
		t.Errorf("a key that was called destroyed: %v", err)
	}
}

// TestAReplicaWithoutAKEKThatIsNeededIsNotReady, and says which one it lacks.
func TestAReplicaWithoutAKEKThatIsNeededIsNotReady(t *testing.T) {
	w := newRotationWorld(t)
	old, fresh := w.opts.KEK, newKEK()
	behind := w.replica(old)
	w.must(behind.Maintain(t.Context()))
	w.opts.KEK, w.opts.KEKPrevious = fresh, []sealing.Key{old}
	w.restart()
	w.must(w.server.Maintain(t.Context()))
	w.askFor(keystore.LayerKEK, "")
	w.must(w.server.Rotate(t.Context()))
	w.later(keystore.KEKMemory)
	var r *refusal
	if err := behind.Ready(t.Context()); !errors.As(err, &r) || r.Reason != v1alpha1.ReasonKEKUnavailable || !strings.Contains(r.Message, fresh.KID()) {
		t.Errorf("a replica without the new key: %v", err)
	}
	early := w.replica(fresh)
	w.must(early.Maintain(t.Context()))
	if err := early.Ready(t.Context()); !errors.As(err, &r) || !strings.Contains(r.Message, old.KID()) || !strings.Contains(r.Message, "--kek-file-previous") {
		t.Errorf("a replica without the old key, too early: %v", err)
	}
	w.settle()
	w.later(keystore.KEKMemory)
	w.must(early.Ready(t.Context()))
}

// TestKEKsAreGivenOnce: the same key twice is a mistake.
func TestKEKsAreGivenOnce(t *testing.T) {
	w := newRotationWorld(t)
	o := w.opts
	o.KEKPrevious = []sealing.Key{o.KEK}
	if _, err := New(o); err == nil || !strings.Contains(err.Error(), o.KEK.KID()) {
		t.Errorf("the same key twice: %v", err)
	}
	o.KEKPrevious = []sealing.Key{{}}
	if _, err := New(o); err == nil {
		t.Error("an empty key is taken")
	}
}
