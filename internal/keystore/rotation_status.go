package keystore

import (
	"encoding/json"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// KEKStatus is a key-encryption key as the status shows it.
type KEKStatus struct {
	KID   string    `json:"kid"`
	State string    `json:"state"`
	Since time.Time `json:"since"`
	// Rewrapped is since when nothing in the keys' namespace has been under it.
	Rewrapped time.Time `json:"rewrapped,omitzero"`
	// Destroyed is when a person said to have destroyed every copy of it. From then on copies of the keys' namespace
	// that are older than Rewrapped open for nobody.
	Destroyed time.Time `json:"destroyed,omitzero"`
}

// RotationStatus is what the keyserver says about rotation.
type RotationStatus struct {
	// Seen is the resourceVersion of the request that was acted upon.
	Seen string `json:"seen"`
	// Left is how much of each layer is on an old key: documents of the KEK, keys under a tenant's earlier key,
	// values of live objects that are sealed to a retired key, objects whose earlier data key is still there.
	Left map[Layer]int `json:"left"`
	// KEKs are the key-encryption keys, the present one first.
	KEKs   []KEKStatus     `json:"keks"`
	Backup *VerifiedBackup `json:"verifiedBackup,omitempty"`
	// Refused says by kid why a key was not destroyed.
	Refused map[string]string `json:"refused,omitempty"`
	// Problems are documents that could not be dealt with, and requests that say nothing.
	Problems []string `json:"problems,omitempty"`
}

// RotationStatusKey is the entry of the keyserver's ConfigMap that holds a RotationStatus.
const RotationStatusKey = "status.json"

// ReadRotationStatus reads the keyserver's ConfigMap.
func ReadRotationStatus(cm *corev1.ConfigMap) (RotationStatus, error) {
	var out RotationStatus
	if err := json.Unmarshal([]byte(cm.Data[RotationStatusKey]), &out); err != nil {
		return out, fmt.Errorf("ConfigMap %s/%s is not readable", cm.Namespace, cm.Name)
	}
	return out, nil
}
