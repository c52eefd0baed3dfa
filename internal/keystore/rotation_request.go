package keystore

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

// Two ConfigMaps of the keys' namespace. People write the one, `kubectl lethe keys rotate` does it for them; the
// keyserver writes the other. The manager has no right on either, so that it can have nothing rotated and nothing
// destroyed.
const (
	RotationName       = "lethe-key-rotation"
	RotationStatusName = "lethe-key-rotation-status"
)

// Layer is one of the layers of keys.
type Layer string

// The layers, from the top.
const (
	LayerKEK     Layer = "kek"
	LayerTenant  Layer = "tenant"
	LayerSealing Layer = "sealing"
	LayerData    Layer = "data"
)

// Layers are all of them.
func Layers() []Layer { return []Layer{LayerKEK, LayerTenant, LayerSealing, LayerData} }

// maxAhead is how far the clock of whoever asks may be ahead of the keyserver's.
const maxAhead = 5 * time.Minute

// DestroyWithin is how long a request to destroy a key counts. One that was refused, or was not read, does not come
// true at another time, when nobody is looking.
const DestroyWithin = 10 * time.Minute

// maxRequests bounds the entries of the ConfigMap, which holds a mebibyte.
const maxRequests = 4000

// Entries of the ConfigMap.
const (
	entryRotate       = "rotate."              // <layer>, or <layer>.<tenant>: a time
	entryDestroy      = "destroy.sealing-key." // <kid>: JSON of DestroyRequest
	entryKEKDestroyed = "destroyed.kek."       // <kid>: a time
	entryBackup       = "verified-backup"      // JSON of VerifiedBackup
)

// RotationRequest is what people have asked for. It says what shall be so, not what shall be done: no key is older
// than a time. So it may be read by two replicas, again after a crash, and while new keys come in.
type RotationRequest struct {
	// NotBefore are the times by layer and tenant; the empty name is every tenant, and the one of LayerKEK.
	NotBefore map[Layer]map[string]time.Time
	// Destroy are the retired sealing keys that somebody wants destroyed, by kid.
	Destroy map[string]DestroyRequest
	// KEKDestroyed are the key-encryption keys that somebody says to have destroyed, by kid.
	KEKDestroyed map[string]time.Time
	// Backup is the last one that was opened to the last key, and said so.
	Backup *VerifiedBackup
	// Problems name entries that say nothing; they are ignored.
	Problems []string
}

// DestroyRequest asks for the end of a retired sealing key.
type DestroyRequest struct {
	Tenant string    `json:"tenant"`
	At     time.Time `json:"at"`
	// Force destroys it although live objects still hold values that are sealed to it.
	Force bool `json:"force,omitempty"`
}

// VerifiedBackup is a backup whose every key was opened.
type VerifiedBackup struct {
	Created time.Time `json:"created"`
	Digest  string    `json:"digest"`
	KEK     string    `json:"kek"`
	At      time.Time `json:"at"` // when it was verified
}

var (
	kidPattern    = regexp.MustCompile(`^[0-9a-f]{16}$`)
	tenantPattern = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)
)

// ReadRotation reads what people asked for. now tells a clock that runs ahead.
func ReadRotation(cm *corev1.ConfigMap, now time.Time) RotationRequest {
	r := RotationRequest{NotBefore: map[Layer]map[string]time.Time{}, Destroy: map[string]DestroyRequest{}, KEKDestroyed: map[string]time.Time{}}
	for _, name := range slices.Sorted(maps.Keys(cm.Data)) {
		if problem := r.entry(name, cm.Data[name], now); problem != "" {
			r.Problems = append(r.Problems, fmt.Sprintf("%s: %s", name, problem))
		}
	}
	return r
}

func (r *RotationRequest) entry(name, value string, now time.Time) string {
	if rest, ok := strings.CutPrefix(name, entryRotate); ok {
		layer, tenant, named := strings.Cut(rest, ".")
		at, problem := pastTime(value, now)
		switch {
		case !slices.Contains(Layers(), Layer(layer)):
			return "no such layer of keys"
		case named && (Layer(layer) == LayerKEK || !tenantPattern.MatchString(tenant)):
			return "names no tenant"
		case problem != "":
			return problem
		}
		if r.NotBefore[Layer(layer)] == nil {
			r.NotBefore[Layer(layer)] = map[string]time.Time{}
		}
		r.NotBefore[Layer(layer)][tenant] = at
		return ""
	}
	if kid, ok := strings.CutPrefix(name, entryDestroy); ok {
		var d DestroyRequest
		if err := json.Unmarshal([]byte(value), &d); err != nil || !kidPattern.MatchString(kid) || !tenantPattern.MatchString(d.Tenant) {
			return "names no key and tenant"
		}
		if d.At.After(now.Add(maxAhead)) {
			return "lies in the future: look at the clock of whoever asked"
		}
		if now.Before(d.At.Add(DestroyWithin)) {
			r.Destroy[kid] = d
		}
		return ""
	}
	if kid, ok := strings.CutPrefix(name, entryKEKDestroyed); ok {
		at, problem := pastTime(value, now)
		if problem == "" && !kidPattern.MatchString(kid) {
			problem = "names no key"
		}
		// What was said and refused does not come true later: by then it may be another statement.
		if problem == "" && now.Before(at.Add(DestroyWithin)) {
			r.KEKDestroyed[kid] = at
		}
		return problem
	}
	if name == entryBackup {
		var b VerifiedBackup
		if err := json.Unmarshal([]byte(value), &b); err != nil || !kidPattern.MatchString(b.KEK) || b.Digest == "" {
			return "is no verified backup"
		}
		r.Backup = &b
		return ""
	}
	return "is nothing that the keyserver knows"
}

func pastTime(text string, now time.Time) (time.Time, string) {
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{}, "is no time as in 2026-03-02T15:04:05Z"
	}
	if at.After(now.Add(maxAhead)) {
		return time.Time{}, "lies in the future: look at the clock of whoever asked"
	}
	return at, ""
}

// Of is the time that no key of a layer of a tenant may be older than; zero when nobody asked.
func (r RotationRequest) Of(layer Layer, tenant string) time.Time {
	all, own := r.NotBefore[layer][""], r.NotBefore[layer][tenant]
	if own.After(all) {
		return own
	}
	return all
}

// NewRotation is the ConfigMap that holds nothing yet.
func NewRotation(namespace string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: RotationName, Labels: map[string]string{
		v1alpha1.LabelComponent: "keys", "app.kubernetes.io/part-of": "lethe"}}, Data: map[string]string{}}
}

// AskRotation puts a request into the ConfigMap: that no key of the layer is older than a time. The empty tenant is
// all of them, and takes the place of what was asked for single ones before.
func AskRotation(cm *corev1.ConfigMap, layer Layer, tenant string, at time.Time) error {
	name := entryRotate + string(layer)
	if tenant != "" {
		name += "." + tenant
	}
	return put(cm, name, at.UTC().Format(time.RFC3339), func(other string) bool {
		return tenant == "" && strings.HasPrefix(other, name+".")
	})
}

// AskDestruction puts a request into the ConfigMap: that a retired sealing key ends.
func AskDestruction(cm *corev1.ConfigMap, kid string, d DestroyRequest) error {
	b, err := json.Marshal(d)
	if err != nil {
		return fmt.Errorf("encode the request: %w", err)
	}
	return put(cm, entryDestroy+kid, string(b), nil)
}

// RecordKEKDestroyed puts into the ConfigMap that a person has destroyed every copy of a key-encryption key.
func RecordKEKDestroyed(cm *corev1.ConfigMap, kid string, at time.Time) error {
	return put(cm, entryKEKDestroyed+kid, at.UTC().Format(time.RFC3339), nil)
}

// RecordBackup puts into the ConfigMap that a backup was verified.
func RecordBackup(cm *corev1.ConfigMap, b VerifiedBackup) error {
	text, err := json.Marshal(b)
	if err != nil {
		return fmt.Errorf("encode the record: %w", err)
	}
	return put(cm, entryBackup, string(text), nil)
}

func put(cm *corev1.ConfigMap, name, value string, overtaken func(string) bool) error {
	if cm.Data == nil {
		cm.Data = map[string]string{}
	}
	if overtaken != nil {
		maps.DeleteFunc(cm.Data, func(other, _ string) bool { return overtaken(other) })
	}
	cm.Data[name] = value
	if len(cm.Data) > maxRequests {
		return fmt.Errorf("ConfigMap %s/%s holds %d requests: ask for all tenants at once, with --all, which takes their place", cm.Namespace, cm.Name, len(cm.Data))
	}
	return nil
}
