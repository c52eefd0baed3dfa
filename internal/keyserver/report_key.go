package keyserver

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keystore"
	"github.com/lethe-dev/lethe/internal/ledger"
	"github.com/lethe-dev/lethe/internal/resources"
)

// annotationReportKey on the ConfigMap of the CA bundle is the public key of reports, where whoever wants to check
// one finds it, and by which it is known that there is a key.
const annotationReportKey = "lethe.dev/report-key"

// keyOfReports reads the key of reports, and makes it where there never was one.
func (s *Server) keyOfReports(ctx context.Context) (ledger.ReportKey, error) {
	return s.keys.ReportKey(ctx, s.neverPublished)
}

// neverPublished refuses another key of reports where one was published.
func (s *Server) neverPublished(ctx context.Context) error {
	bundle, err := s.bundle(ctx)
	if err != nil {
		return err
	}
	if bundle != nil && bundle.Annotations[annotationReportKey] != "" {
		return refuse(v1alpha1.ReasonKeyMissing,
			"the key that reports are signed with is gone: Secret %s/%s is not there, and ConfigMap %s/%s names its public key; restore it with `kubectl lethe keys restore` (another one is never made in its place: nobody could tell its reports from forged ones)",
			s.KeysNamespace, keystore.ReportKeyName, bundle.Namespace, bundle.Name)
	}
	return nil
}

// bundle is the ConfigMap of the CA bundle; nil where there is none.
func (s *Server) bundle(ctx context.Context) (*corev1.ConfigMap, error) {
	cm := &corev1.ConfigMap{}
	err := s.Client.Get(ctx, client.ObjectKey{Namespace: s.Settings.Namespace, Name: resources.CABundleName}, cm)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	return cm, err
}

// maintainReportKey makes the key of reports before the first sweep needs it, and publishes what it is checked with.
func (s *Server) maintainReportKey(ctx context.Context) error {
	key, err := s.keyOfReports(ctx)
	if err != nil {
		return fmt.Errorf("key of reports: %w", err)
	}
	bundle, err := s.bundle(ctx)
	if err != nil || bundle == nil || bundle.Annotations[annotationReportKey] == key.Public() {
		return err
	}
	if was := bundle.Annotations[annotationReportKey]; was != "" {
		s.Log.Warn("Another public key of reports was published than there is", "configMap", resources.CABundleName)
	}
	if bundle.Annotations == nil {
		bundle.Annotations = map[string]string{}
	}
	bundle.Annotations[annotationReportKey] = key.Public()
	if err := s.Client.Update(ctx, bundle); err != nil && !apierrors.IsConflict(err) { // another replica's turn; the next look finds out
		return errors.Join(errors.New("publish the key of reports"), err)
	}
	return nil
}
