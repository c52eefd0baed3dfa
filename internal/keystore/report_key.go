package keystore

import (
	"context"
	"fmt"
	"io"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/internal/ledger"
	"github.com/lethe-dev/lethe/internal/sealing"
)

const (
	formatReportKey = "lethe.dev/report-key/v2"

	// ReportKeyName is the name of the Secret of the key of reports.
	ReportKeyName = "report-key"
)

// reportKeyDoc holds the seed of the key that statements about reports are signed with, under the KEK. It stays the
// same when the KEK is rotated.
type reportKeyDoc struct {
	Realm  string `json:"realm"`
	Public string `json:"public"`
	Key    string `json:"key"`
}

// ReportKey reads the key of reports. Where there is none it is made, unless mayMake says that there was one:
// create-only, so that of two replicas the second takes the first one's.
func (s *Store) ReportKey(ctx context.Context, mayMake func(context.Context) error) (ledger.ReportKey, error) {
	s.reportMu.Lock()
	defer s.reportMu.Unlock()
	if s.reportKey != nil {
		return *s.reportKey, nil
	}
	if err := s.KEKUsable(ctx); err != nil {
		return ledger.ReportKey{}, err
	}
	var secret corev1.Secret
	name := client.ObjectKey{Namespace: s.KeysNamespace, Name: ReportKeyName}
	err := s.Client.Get(ctx, name, &secret)
	if apierrors.IsNotFound(err) {
		if err := mayMake(ctx); err != nil {
			return ledger.ReportKey{}, err
		}
		made, err := s.newReportKey()
		if err != nil {
			return ledger.ReportKey{}, err
		}
		if err := s.Client.Create(ctx, made); err != nil && !apierrors.IsAlreadyExists(err) {
			return ledger.ReportKey{}, err
		}
		if err := s.Client.Get(ctx, name, &secret); err != nil {
			return ledger.ReportKey{}, err
		}
	} else if err != nil {
		return ledger.ReportKey{}, err
	}
	key, err := openReportKey(&secret, s.KEKs())
	if err != nil {
		return ledger.ReportKey{}, s.refuseDocument(err, "")
	}
	s.reportKey = &key
	return key, nil
}

// newReportKey makes a key of reports, and the Secret of its document.
func (s *Store) newReportKey() (*corev1.Secret, error) {
	seed := make([]byte, ledger.ReportSeedSize)
	defer clear(seed)
	if _, err := io.ReadFull(s.Random, seed); err != nil {
		return nil, fmt.Errorf("read randomness: %w", err)
	}
	key, err := ledger.NewReportKey(s.Realm, seed)
	if err != nil {
		return nil, err
	}
	wrapped, err := s.KEKs().WrapBytes(s.Random, sealing.KID([]byte(key.Public())), seed, sealing.PurposeReport, s.Realm)
	if err != nil {
		return nil, err
	}
	doc := reportKeyDoc{Realm: s.Realm, Public: key.Public(), Key: wrapped}
	return NewDocument(s.KeysNamespace, ReportKeyName, "", formatReportKey, 1, s.KEKs(), doc)
}

// openReportKey reads, opens and authenticates the document of the key of reports.
func openReportKey(secret *corev1.Secret, kek sealing.Ring) (ledger.ReportKey, error) {
	var doc reportKeyDoc
	if _, err := OpenKEKDocument(secret, formatReportKey, kek, &doc); err != nil {
		return ledger.ReportKey{}, err
	}
	_, seed, err := kek.UnwrapBytes(doc.Key, sealing.PurposeReport, doc.Realm)
	if err != nil {
		return ledger.ReportKey{}, altered(secret, "the key of reports does not open")
	}
	defer clear(seed)
	key, err := ledger.NewReportKey(doc.Realm, seed)
	if err != nil || key.Public() != doc.Public {
		return ledger.ReportKey{}, altered(secret, "the key of reports is another one than it says")
	}
	return key, nil
}
