package memo

import (
	"strconv"
	"testing"
	"time"

	clocktesting "k8s.io/utils/clock/testing"
)

func TestAValueIsRememberedForAWhile(t *testing.T) {
	clock := clocktesting.NewFakePassiveClock(time.Date(2026, 3, 2, 4, 5, 6, 0, time.UTC))
	m := New[int](clock, time.Minute)
	if _, ok := m.Get("a"); ok {
		t.Error("knows what nobody said")
	}
	m.Put("a", 1)
	m.Put("b", 2)
	m.Forget("b")
	if v, ok := m.Get("a"); !ok || v != 1 {
		t.Errorf("remembers %d, %t", v, ok)
	}
	if _, ok := m.Get("b"); ok {
		t.Error("what was forgotten is there")
	}
	clock.SetTime(clock.Now().Add(time.Minute - time.Nanosecond))
	if _, ok := m.Get("a"); !ok {
		t.Error("forgot too early")
	}
	m.Put("c", 3)
	clock.SetTime(clock.Now().Add(time.Nanosecond))
	if _, ok := m.Get("a"); ok {
		t.Error("remembers what is out of date")
	}
	// Nobody asks for it again: it goes out of memory all the same.
	m.Sweep()
	if n := m.Len(); n != 1 {
		t.Errorf("%d values are in memory", n)
	}
	m.Flush()
	if n := m.Len(); n != 0 {
		t.Errorf("%d values are in memory after all were forgotten", n)
	}
}

func TestItsSizeIsBounded(t *testing.T) {
	m := New[int](clocktesting.NewFakePassiveClock(time.Now()), time.Minute)
	for i := range size + 1 {
		m.Put(strconv.Itoa(i), i)
	}
	if n := m.Len(); n != 1 {
		t.Errorf("%d values are in memory", n)
	}
}
