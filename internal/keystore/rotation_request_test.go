package keystore

import (
	"strings"
	"testing"
	"time"
)

func TestRotationRequests(t *testing.T) {
	now := time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)
	cm := NewRotation("lethe-keys")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(AskRotation(cm, LayerSealing, "acme", now.Add(-time.Hour)))
	must(AskRotation(cm, LayerSealing, "bolt", now))
	must(AskRotation(cm, LayerData, "acme", now))
	r := ReadRotation(cm, now)
	if len(r.Problems) > 0 || !r.Of(LayerSealing, "acme").Equal(now.Add(-time.Hour)) || !r.Of(LayerSealing, "bolt").Equal(now) ||
		!r.Of(LayerSealing, "other").IsZero() || !r.Of(LayerTenant, "acme").IsZero() {
		t.Errorf("read %+v", r)
	}
	// All tenants at once take the place of single ones, of this layer only.
	must(AskRotation(cm, LayerSealing, "", now))
	if r = ReadRotation(cm, now); !r.Of(LayerSealing, "acme").Equal(now) || !r.Of(LayerSealing, "new").Equal(now) || !r.Of(LayerData, "acme").Equal(now) || len(cm.Data) != 2 {
		t.Errorf("read %+v out of %v", r, cm.Data)
	}
	must(AskDestruction(cm, "0011223344556677", DestroyRequest{Tenant: "acme", At: now, Force: true}))
	must(RecordBackup(cm, VerifiedBackup{Created: now, Digest: "d", KEK: "8899aabbccddeeff", At: now}))
	must(RecordKEKDestroyed(cm, "8899aabbccddeeff", now))
	if r = ReadRotation(cm, now); !r.Destroy["0011223344556677"].Force || r.Backup == nil || r.Backup.Digest != "d" || r.KEKDestroyed["8899aabbccddeeff"].IsZero() {
		t.Errorf("read %+v", r)
	}
	// What says nothing is named and ignored; the value, which may be anything, is not repeated.
	for name, value := range map[string]string{
		"rotate.everything":                    now.Format(time.RFC3339),
		"rotate.sealing.Not_A_Name":            now.Format(time.RFC3339),
		"rotate.kek.acme":                      now.Format(time.RFC3339),
		"rotate.data":                          "canary",
		"rotate.tenant":                        now.Add(time.Hour).Format(time.RFC3339),
		"destroy.sealing-key.x":                `{"tenant":"acme"}`,
		"destroy.sealing-key.0011223344556677": `{"tenant":""}`,
		"destroyed.kek.x":                      now.Format(time.RFC3339),
		"verified-backup":                      `{"digest":"canary"}`,
		"canary":                               "canary",
	} {
		cm := NewRotation("lethe-keys")
		cm.Data[name] = value
		r := ReadRotation(cm, now)
		if len(r.Problems) != 1 || !strings.HasPrefix(r.Problems[0], name+": ") || strings.Contains(strings.TrimPrefix(r.Problems[0], name), "canary") ||
			len(r.NotBefore)+len(r.Destroy)+len(r.KEKDestroyed) > 0 || r.Backup != nil {
			t.Errorf("%s: %+v", name, r)
		}
	}
	full := NewRotation("lethe-keys")
	for i := range maxRequests {
		full.Data[strings.Repeat("x", i+1)] = ""
	}
	if err := AskRotation(full, LayerData, "acme", now); err == nil || !strings.Contains(err.Error(), "--all") {
		t.Errorf("too many requests: %v", err)
	}
}
