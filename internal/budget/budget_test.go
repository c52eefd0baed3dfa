package budget

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

const (
	window = 5 * time.Minute
	slot   = window / Slots
)

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

type written struct {
	at    time.Time
	bytes int64
}

// TestWindow: whatever is written when, the meter counts each byte for at least a window and for at most one part
// more, for the one who wrote it, and Below says when the window will be as empty as that.
func TestWindow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m, now, log := New(window), start, map[string][]written{}
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.Int64Range(0, int64(window)/4).Draw(t, "pause")))
			who := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "who")
			n := rapid.Int64Range(1, 1000).Draw(t, "bytes")
			log[who] = append(log[who], written{now, n})
			got := m.Add(who, n, now)
			for name, all := range log {
				least, most := within(all, now, window), within(all, now, window+slot)
				if name == who && got != m.Total(who, now) {
					t.Fatalf("Add says %d, Total %d", got, m.Total(who, now))
				}
				if total := m.Total(name, now); total < least || total > most {
					t.Fatalf("%s at %s: %d, want %d to %d", name, now, total, least, most)
				}
			}
			bound := rapid.Int64Range(0, 5000).Draw(t, "bound")
			below := m.Below(who, bound, now)
			if below.Before(now) || below.After(now.Add(window+slot)) {
				t.Fatalf("below at %s, now %s", below, now)
			}
			later := New(window)
			for _, w := range log[who] {
				later.Add(who, w.bytes, w.at)
			}
			if total := later.Total(who, below); total > bound {
				t.Fatalf("at %s there are %d, want at most %d", below, total, bound)
			}
			if got > bound {
				earlier := New(window)
				for _, w := range log[who] {
					earlier.Add(who, w.bytes, w.at)
				}
				if total := earlier.Total(who, below.Add(-time.Nanosecond)); total <= bound {
					t.Fatalf("already before %s there are %d of %d", below, total, bound)
				}
			}
		}
	})
}

func within(all []written, now time.Time, d time.Duration) (sum int64) {
	for _, w := range all {
		if w.at.After(now.Add(-d)) {
			sum += w.bytes
		}
	}
	return sum
}

// TestOver: who has written more than the limit, and nobody else.
func TestOver(t *testing.T) {
	m := New(window)
	const limit = 50
	m.Add("less", 49, start)
	m.Add("just", 50, start)
	m.Add("more", 51, start)
	if got := m.Over(limit, start); !slices.Equal(got, []string{"more"}) {
		t.Errorf("over: %v", got)
	}
	if got := m.Over(limit, start.Add(window+slot)); len(got) > 0 {
		t.Errorf("over after the window: %v", got)
	}
	m.Add("more", 51, start.Add(time.Hour))
	m.Forget("more")
	if got := m.Over(limit, start.Add(time.Hour)); len(got) > 0 || m.Total("more", start.Add(time.Hour)) != 0 {
		t.Errorf("over after it was forgotten: %v", got)
	}
}

// TestMemory: of any number of tenants that come and go, only those of the window are remembered.
func TestMemory(t *testing.T) {
	m, now := New(window), start
	for i := range 100_000 {
		m.Add(fmt.Sprint("tenant-", i), 1, now)
		now = now.Add(window / 100)
	}
	if n := m.Len(); n > 110 {
		t.Errorf("%d tenants are remembered", n)
	}
}

// TestClockSetBack: what was written counts on.
func TestClockSetBack(t *testing.T) {
	m := New(window)
	m.Add("a", 1, start)
	if n := m.Add("a", 1, start.Add(-time.Hour)); n != 2 {
		t.Errorf("counted %d", n)
	}
	if n := m.Total("a", start.Add(window+slot)); n != 0 {
		t.Errorf("left: %d", n)
	}
}

func bot(args int, character string) *v1alpha1.BotDeployment {
	b := &v1alpha1.BotDeployment{ObjectMeta: metav1.ObjectMeta{Name: "bot", Namespace: "acme"}, Spec: v1alpha1.BotDeploymentSpec{Image: "registry.example/bot:v1"}}
	long := make([]byte, 0, 1024)
	for len(long) < 1024 {
		long = append(long, character...)
	}
	for range args {
		b.Spec.Args = append(b.Spec.Args, string(long))
	}
	for i := range args {
		b.ManagedFields = append(b.ManagedFields, metav1.ManagedFieldsEntry{Manager: fmt.Sprint(i), FieldsV1: metav1.NewFieldsV1(`{"f:spec":{"f:args":{}}}`)})
	}
	return b
}

// TestSizeOf: managed fields count, and a character that JSON writes with six bytes counts as six.
func TestSizeOf(t *testing.T) {
	small, err := SizeOf(bot(0, "x"))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := SizeOf(bot(40, "x"))
	if err != nil {
		t.Fatal(err)
	}
	escaped, err := SizeOf(bot(40, "<"))
	if err != nil {
		t.Fatal(err)
	}
	const fields = 24
	if plain < small+40*(1024+fields) || escaped != plain+5*40*1024 {
		t.Errorf("%d, %d, %d bytes", small, plain, escaped)
	}
	if _, err := SizeOf(func() {}); err == nil {
		t.Error("what cannot be measured has a size")
	}
}

func BenchmarkSizeOf(b *testing.B) {
	for name, object := range map[string]*v1alpha1.BotDeployment{"typical": bot(2, "x"), "largest": bot(300, "<")} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := SizeOf(object); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkAdd(b *testing.B) {
	m := New(window)
	for b.Loop() {
		m.Add("a", 1, start)
	}
}
