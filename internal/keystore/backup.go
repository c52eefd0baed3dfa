package keystore

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
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/sealing"
)

const formatBackup = "lethe.dev/keys-backup/v2"

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
	Kind   string // Tenant, BotDeployment, DataStore, CertificateAuthority, Canary or UserIDs
	Name   string // of the tenant, or namespace/name of the object
	Tenant string // whose keys they are; empty for the last three kinds
	UID    string
	Keys   []string  // kids of sealing keys
	Until  time.Time // of keys that wait for their destruction
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
		entry := BackupSecret{Name: s.Name, Document: slices.Clone(s.Data[DocumentKey])}
		if entry.format() == FormatChannelHolder {
			continue // who holds a channel is found out anew, and names objects by UIDs that a restore changes
		}
		if _, err := entry.item(); err != nil {
			return Backup{}, err
		}
		if s.Name == CanaryName {
			var doc CanaryDoc
			if _, err := entry.as(FormatCanary, &doc); err != nil {
				return Backup{}, errors.New("the canary is not readable")
			}
			kid, err := sealing.WrappingKID(doc.present().Canary)
			if err != nil {
				return Backup{}, errors.New("the canary is not readable")
			}
			b.Realm, b.KEK = doc.Realm, kid
		}
		b.Secrets = append(b.Secrets, entry)
	}
	if b.KEK == "" {
		return Backup{}, fmt.Errorf("there is no Secret %s: the keyserver has never run here, or it was deleted; start the keyserver, which makes it again when its key-encryption key opens the other keys", CanaryName)
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
		return Backup{}, fmt.Errorf("the file is of format %q, this program reads %q%s", b.Format, formatBackup, earlier(b.Format))
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

// stored is the Secret that the entry was made from, as far as its document goes.
func (s BackupSecret) stored() *corev1.Secret {
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "(backup)", Name: s.Name}, Type: v1alpha1.SecretTypeWrappedKey,
		Data: map[string][]byte{DocumentKey: s.Document}}
}

// as reads the document as one of a format, without authenticating it.
func (s BackupSecret) as(format string, into any) (Envelope, error) {
	return ReadDocument(s.stored(), format, into)
}

// format of the document, whatever it is.
func (s BackupSecret) format() string {
	var head Envelope
	if err := json.Unmarshal(s.Document, &head); err != nil {
		return ""
	}
	return head.Format
}

func (s BackupSecret) item() (BackupItem, error) {
	switch format := s.format(); format {
	case FormatTenant:
		var doc TenantDoc
		if _, err := s.as(format, &doc); err != nil {
			return BackupItem{}, err
		}
		item := BackupItem{Secret: s.Name, Kind: "Tenant", Name: doc.Tenant, Tenant: doc.Tenant, UID: doc.UID}
		for _, k := range doc.Seal {
			item.Keys = append(item.Keys, k.KID)
		}
		return item, nil
	case FormatObject:
		var doc ObjectDoc
		if _, err := s.as(format, &doc); err != nil {
			return BackupItem{}, err
		}
		return BackupItem{Secret: s.Name, Kind: doc.Kind, Name: doc.Namespace + "/" + doc.Name, Tenant: doc.Tenant, UID: doc.UID}, nil
	case FormatCA:
		return BackupItem{Secret: s.Name, Kind: "CertificateAuthority"}, nil
	case FormatCanary:
		return BackupItem{Secret: s.Name, Kind: "Canary"}, nil
	case FormatUIDs:
		return BackupItem{Secret: s.Name, Kind: "UserIDs"}, nil
	case formatChannelKey:
		return BackupItem{Secret: s.Name, Kind: "ChannelKey"}, nil
	case formatReportKey:
		return BackupItem{Secret: s.Name, Kind: "ReportKey"}, nil
	case FormatPending:
		var doc pendingDoc
		if _, err := s.as(format, &doc); err != nil {
			return BackupItem{}, err
		}
		item := BackupItem{Secret: s.Name, Kind: "Pending", Name: doc.Tenant, Tenant: doc.Tenant, UID: doc.UID, Until: doc.Until}
		for _, k := range doc.Seal {
			item.Keys = append(item.Keys, k.KID)
		}
		return item, nil
	case FormatVersions:
		var doc VersionsDoc
		if _, err := s.as(format, &doc); err != nil {
			return BackupItem{}, err
		}
		return BackupItem{Secret: s.Name, Kind: "Versions", Name: doc.Tenant, Tenant: doc.Tenant, UID: doc.TenantUID}, nil
	default:
		return BackupItem{}, fmt.Errorf("secret %s is of format %q, which this program does not know%s", s.Name, format, earlier(format))
	}
}

// Verify opens every key of the backup with the key-encryption keys, and authenticates every document. The error
// names each that is not right.
func (b Backup) Verify(kek sealing.Ring) error {
	if _, err := kek.Find(b.KEK); err != nil {
		return fmt.Errorf("the backup needs key-encryption key %s, this one is %s", b.KEK, strings.Join(kek.KIDs(), ", "))
	}
	tenants, err := b.openTenants(kek)
	problems := []error{err}
	for _, s := range b.Secrets {
		problems = append(problems, s.verify(kek, tenants))
	}
	return errors.Join(problems...)
}

// openTenants opens the tenants' documents, by UID of the tenant.
func (b Backup) openTenants(kek sealing.Ring) (map[string]*TenantKeys, error) {
	out := map[string]*TenantKeys{}
	var problems []error
	for _, s := range b.Secrets {
		if s.format() != FormatTenant {
			continue
		}
		keys, err := OpenTenantDocument(s.stored(), kek)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		out[keys.Doc.UID] = keys
	}
	return out, errors.Join(problems...)
}

func (s BackupSecret) verify(kek sealing.Ring, tenants map[string]*TenantKeys) error {
	switch s.format() {
	case FormatTenant:
		return nil // openTenants has said it
	case FormatObject:
		var object ObjectDoc
		if _, err := s.as(FormatObject, &object); err != nil {
			return err
		}
		tenant, ok := tenants[object.TenantUID]
		if !ok {
			return fmt.Errorf("key of %s %s/%s: the key of its Tenant %s is not in the backup", object.Kind, object.Namespace, object.Name, object.Tenant)
		}
		_, err := OpenObjectDocument(s.stored(), tenant)
		return err
	case FormatCA:
		var ca CADoc
		if _, err := OpenKEKDocument(s.stored(), FormatCA, kek, &ca); err != nil {
			return err
		}
		if _, _, err := kek.UnwrapBytes(ca.Present.Key, sealing.PurposeCA, ca.Realm); err != nil {
			return fmt.Errorf("key of the certificate authority: %w", err)
		}
		return nil
	case FormatUIDs:
		var uids UIDsDoc
		_, err := OpenKEKDocument(s.stored(), FormatUIDs, kek, &uids)
		return err
	case formatChannelKey:
		_, err := openChannelKey(s.stored(), kek)
		return err
	case formatReportKey:
		_, err := openReportKey(s.stored(), kek)
		return err
	case FormatPending:
		var pending pendingDoc
		if _, err := OpenKEKDocument(s.stored(), FormatPending, kek, &pending); err != nil {
			return err
		}
		for _, k := range pending.Seal {
			if _, _, err := kek.UnwrapBytes(k.Key, sealing.PurposePending, pending.ids()...); err != nil {
				return fmt.Errorf("sealing key %s of the deleted Tenant %s: %w", k.KID, pending.Tenant, err)
			}
		}
		return nil
	case FormatVersions:
		var versions VersionsDoc
		_, err := OpenKEKDocument(s.stored(), FormatVersions, kek, &versions)
		return err
	}
	var canary CanaryDoc
	if _, err := OpenKEKDocument(s.stored(), FormatCanary, kek, &canary); err != nil {
		return err
	}
	if _, _, err := kek.UnwrapBytes(canary.present().Canary, sealing.PurposeCanary, canary.Realm); err != nil {
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
	return KeySecret(namespace, s.Name, item.Tenant, s.Document), nil
}
