package reconcile

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// ResponseCache remembers what the keyserver last said about an object, so that it is not asked on every pass. It is
// lost on a restart, and nothing depends on it but the number of questions. It holds one for each name at most, and
// none for a name whose object is gone: whoever finds that forgets it.
type ResponseCache[A any] struct {
	mutex sync.Mutex
	known map[types.NamespacedName]Response[A]
}

// Response is what was answered, about which object and when.
type Response[A any] struct {
	uid        types.UID
	Generation int64
	At         time.Time
	Value      A
}

// Get returns the answer about this very object, not about an earlier one of its name.
func (a *ResponseCache[A]) Get(object client.Object) (Response[A], bool) {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	known, ok := a.known[client.ObjectKeyFromObject(object)]
	if !ok || known.uid != object.GetUID() {
		return Response[A]{}, false
	}
	return known, true
}

// Put remembers an answer about an object.
func (a *ResponseCache[A]) Put(object client.Object, at time.Time, value A) {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	if a.known == nil {
		a.known = map[types.NamespacedName]Response[A]{}
	}
	a.known[client.ObjectKeyFromObject(object)] = Response[A]{uid: object.GetUID(), Generation: object.GetGeneration(), At: at, Value: value}
}

// Len is how many answers are remembered.
func (a *ResponseCache[A]) Len() int {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	return len(a.known)
}

// Forget what is remembered under a name.
func (a *ResponseCache[A]) Forget(name types.NamespacedName) {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	delete(a.known, name)
}

// Jitter is a share of a period that is the same for an object on every start, so that a restart does not ask for all
// objects at once.
func Jitter(uid types.UID, period time.Duration) time.Duration {
	var sum uint32 = 2166136261
	for _, b := range []byte(uid) {
		sum = (sum ^ uint32(b)) * 16777619
	}
	return time.Duration(float64(period) * float64(sum%1000) / 1000)
}
