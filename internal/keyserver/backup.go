package keyserver

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/sealing"
)

const formatBackup = "lethe.dev/keys-backup/v1"

// Backup is the content of the keys' namespace in one file. Every key in it is wrapped: without the key-encryption key
// it opens nothing, and with it everything. Leases are not part of it.
type Backup struct {
	Format  string         `json:"format"`
	Created time.Time      `json:"created"`
	Realm   string         `json:"realm"`
	KEK     string         `json:"kek"` // names the key-encryption key that is needed
	Secrets []BackupSecret `json:"secrets"`
	Digest  string         `json:"digest"` // hex SHA-256 over the secrets, against a file that was cut or changed by accident
}

// BackupSecret is one Secret of the keys' namespace.
type BackupSecret struct {
	Name     string          `json:"name"`
	Document json.RawMessage `json:"document"`
}

// BackupItem is what a backup holds, for people.
type BackupItem struct {
	Secret string // its name
	Kind   string // Tenant, BotDeployment, DataStore, CertificateAuthority or Canary
	Name   string // of the tenant, or namespace/name of the object
	Tenant string // whose keys they are; empty for the last two kinds
	UID    string
	Keys   []string // kids of sealing keys
}

// NewBackup makes a backup of what a list of the keys' namespace returned. A key that cannot be read makes it fail: a
// backup with a hole is found when it is needed, which is too late.
func NewBackup(secrets []corev1.Secret, now time.Time) (Backup, error) {
	b := Backup{Format: formatBackup, Created: now.UTC().Truncate(time.Second)}
	for i := range secrets {
		s := &secrets[i]
		if s.Type != v1alpha1.SecretTypeWrappedKey {
			continue
		}
		entry := BackupSecret{Name: s.Name, Document: slices.Clone(s.Data[documentKey])}
		if _, err := entry.item(); err != nil {
			return Backup{}, err
		}
		if s.Name == canaryName {
			var doc canaryDoc
			if err := json.Unmarshal(entry.Document, &doc); err != nil {
				return Backup{}, errors.New("the canary is not readable")
			}
			kid, err := sealing.WrappingKID(doc.Canary)
			if err != nil {
				return Backup{}, errors.New("the canary is not readable")
			}
			b.Realm, b.KEK = doc.Realm, kid
		}
		b.Secrets = append(b.Secrets, entry)
	}
	if b.KEK == "" {
		return Backup{}, fmt.Errorf("there is no Secret %s: the keyserver has never run here, or it was deleted; start the keyserver, which makes it again when its key-encryption key opens the other keys", canaryName)
	}
	slices.SortFunc(b.Secrets, func(x, y BackupSecret) int { return strings.Compare(x.Name, y.Name) })
	b.Digest = b.digest()
	return b, nil
}

func (b Backup) digest() string {
	h := sha256.New()
	for _, s := range b.Secrets {
		for _, part := range []string{s.Name, string(s.Document)} {
			fmt.Fprintf(h, "%d:%s,", len(part), part)
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}

// Encode is the file.
func (b Backup) Encode() ([]byte, error) {
	out, err := json.Marshal(b)
	if err != nil {
		return nil, fmt.Errorf("encode the backup: %w", err)
	}
	return append(out, '\n'), nil
}

// ReadBackup reads a file and makes sure that it is whole.
func ReadBackup(file []byte) (Backup, error) {
	var b Backup
	if err := json.Unmarshal(file, &b); err != nil {
		return Backup{}, errors.New("the file is no backup of keys, or was cut")
	}
	if b.Format != formatBackup {
		return Backup{}, fmt.Errorf("the file is of format %q, this program reads %q", b.Format, formatBackup)
	}
	if b.Digest != b.digest() {
		return Backup{}, errors.New("the file was changed or cut: its digest does not fit")
	}
	return b, nil
}

// List says what the backup holds.
func (b Backup) List() ([]BackupItem, error) {
	var out []BackupItem
	for _, s := range b.Secrets {
		item, err := s.item()
		if err != nil {
			return nil, err
		}
		out = append(out, item)
	}
	return out, nil
}

// as reads the document as one of a format.
func (s BackupSecret) as(format string, into any) error {
	return readDocument(&corev1.Secret{Type: v1alpha1.SecretTypeWrappedKey, Data: map[string][]byte{documentKey: s.Document}}, format, into)
}

func (s BackupSecret) item() (BackupItem, error) {
	var head struct {
		Format string `json:"format"`
	}
	if err := json.Unmarshal(s.Document, &head); err != nil {
		return BackupItem{}, fmt.Errorf("secret %s is not readable", s.Name)
	}
	switch head.Format {
	case formatTenant:
		var doc tenantDoc
		if err := s.as(formatTenant, &doc); err != nil {
			return BackupItem{}, err
		}
		item := BackupItem{Secret: s.Name, Kind: "Tenant", Name: doc.Tenant, Tenant: doc.Tenant, UID: doc.UID}
		for _, k := range doc.Seal {
			item.Keys = append(item.Keys, k.KID)
		}
		return item, nil
	case formatObject:
		var doc objectDoc
		if err := s.as(formatObject, &doc); err != nil {
			return BackupItem{}, err
		}
		return BackupItem{Secret: s.Name, Kind: doc.Kind, Name: doc.Namespace + "/" + doc.Name, Tenant: doc.Tenant, UID: doc.UID}, nil
	case formatCA:
		return BackupItem{Secret: s.Name, Kind: "CertificateAuthority"}, nil
	case formatCanary:
		return BackupItem{Secret: s.Name, Kind: "Canary"}, nil
	}
	return BackupItem{}, fmt.Errorf("secret %s is of format %q, which this program does not know", s.Name, head.Format)
}

// Verify opens every key of the backup with a key-encryption key. The error names each that does not open.
func (b Backup) Verify(kek sealing.Key) error {
	if kek.KID() != b.KEK {
		return fmt.Errorf("the backup needs key-encryption key %s, this one is %s", b.KEK, kek.KID())
	}
	tenants, err := b.openTenants(kek)
	var problems []error
	if err != nil {
		problems = append(problems, err)
	}
	for _, s := range b.Secrets {
		problems = append(problems, b.verify(s, kek, tenants))
	}
	return errors.Join(problems...)
}

// openTenants opens the tenants' keys, by UID of the tenant.
func (b Backup) openTenants(kek sealing.Key) (map[string]sealing.Key, error) {
	keys := map[string]sealing.Key{}
	var problems []error
	for _, s := range b.Secrets {
		var doc tenantDoc
		if s.as(formatTenant, &doc) != nil {
			continue
		}
		key, err := kek.Unwrap(doc.Key, sealing.PurposeTenant, doc.Realm, doc.Tenant, doc.UID)
		if err != nil {
			problems = append(problems, fmt.Errorf("key of Tenant %s: %w", doc.Tenant, err))
			continue
		}
		keys[doc.UID] = key
	}
	return keys, errors.Join(problems...)
}

func (b Backup) verify(s BackupSecret, kek sealing.Key, tenants map[string]sealing.Key) error {
	var tenant tenantDoc
	if s.as(formatTenant, &tenant) == nil {
		key, ok := tenants[tenant.UID]
		if !ok {
			return nil // openTenants has said it
		}
		for _, k := range tenant.Seal {
			kid, seed, err := key.UnwrapBytes(k.Key, sealing.PurposeSeal, tenant.Realm, tenant.Tenant, tenant.UID)
			if err != nil || kid != k.KID {
				return fmt.Errorf("sealing key %s of Tenant %s: %w", k.KID, tenant.Tenant, sealing.ErrDoesNotOpen)
			}
			clear(seed)
		}
		return nil
	}
	var object objectDoc
	if s.as(formatObject, &object) == nil {
		key, ok := tenants[object.TenantUID]
		if !ok {
			return fmt.Errorf("key of %s %s/%s: the key of its Tenant %s is not in the backup", object.Kind, object.Namespace, object.Name, object.Tenant)
		}
		if _, err := key.Unwrap(object.Key, sealing.PurposeData, object.Realm, object.Tenant, object.TenantUID, object.UID); err != nil {
			return fmt.Errorf("key of %s %s/%s: %w", object.Kind, object.Namespace, object.Name, err)
		}
		return nil
	}
	var ca caDoc
	if s.as(formatCA, &ca) == nil {
		if _, _, err := kek.UnwrapBytes(ca.Present.Key, sealing.PurposeCA, ca.Realm); err != nil {
			return fmt.Errorf("key of the certificate authority: %w", err)
		}
		return nil
	}
	var canary canaryDoc
	if err := s.as(formatCanary, &canary); err != nil {
		return err
	}
	if _, _, err := kek.UnwrapBytes(canary.Canary, sealing.PurposeCanary, canary.Realm); err != nil {
		return fmt.Errorf("canary: %w", err)
	}
	return nil
}

// secret makes the Secret again.
func (s BackupSecret) secret(namespace string) (*corev1.Secret, error) {
	item, err := s.item()
	if err != nil {
		return nil, err
	}
	return newKeySecret(namespace, s.Name, item.Tenant, s.Document)
}
