package authority

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/internal/keystore"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/internal/sealing"
)

// annotationNext on the bundle says which next authority is in it and since when: <fingerprint> <RFC 3339>. It is
// written together with the bundle, so the authority cannot begin to sign before the bundle was there.
const annotationNext = "lethe.dev/next-authority"

// bundleOf is what clients are to trust, in PEM.
func bundleOf(d *keystore.CADoc) string {
	var b strings.Builder
	b.WriteString(d.Present.Certificate)
	for _, e := range []*keystore.CAEntry{d.Next, d.Previous} {
		if e != nil {
			b.WriteString(e.Certificate)
		}
	}
	return b.String()
}

// publish makes the ConfigMap say what the document says, and returns since when the next authority is in it.
func (a *Authority) publish(ctx context.Context, doc *keystore.CADoc, now time.Time) (time.Time, error) {
	fingerprint := ""
	if doc.Next != nil {
		cert, err := parseCert(doc.Next.Certificate)
		if err != nil {
			return time.Time{}, err
		}
		fingerprint = sealing.KID(cert.Raw)
	}
	cm := &corev1.ConfigMap{}
	err := a.Keys.Client.Get(ctx, client.ObjectKey{Namespace: a.Namespace, Name: resources.CABundleName}, cm)
	if client.IgnoreNotFound(err) != nil {
		return time.Time{}, err
	}
	missing := apierrors.IsNotFound(err)
	addresses, err := a.addresses(ctx)
	if err != nil {
		return time.Time{}, err
	}
	data := map[string]string{resources.CABundleKey: bundleOf(doc), resources.AddressesKey: addresses}
	if differing := cm.Data[resources.DifferingKey]; differing != "" {
		data[resources.DifferingKey] = differing // tellDiffering's
	}
	since := nextSince(cm, fingerprint)
	if !missing && maps.Equal(cm.Data, data) && (fingerprint == "" || !since.IsZero()) {
		return since, nil
	}
	if fingerprint != "" && (since.IsZero() || !strings.Contains(cm.Data[resources.CABundleKey], doc.Next.Certificate)) {
		// It was not in the bundle until now, whatever the annotation says.
		since = now.UTC().Truncate(time.Second)
	}
	cm.Data = data
	if cm.Annotations == nil {
		cm.Annotations = map[string]string{}
	}
	delete(cm.Annotations, annotationNext)
	if fingerprint != "" {
		cm.Annotations[annotationNext] = fmt.Sprintf("%s %s", fingerprint, since.Format(time.RFC3339))
	}
	if missing {
		cm.ObjectMeta = metav1.ObjectMeta{Namespace: a.Namespace, Name: resources.CABundleName,
			Labels: resources.Labels(resources.ComponentKeyserver), Annotations: cm.Annotations}
		err = a.Keys.Client.Create(ctx, cm)
	} else {
		err = a.Keys.Client.Update(ctx, cm)
	}
	if apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) {
		return time.Time{}, keyapi.Later(v1alpha1.ReasonInternal, 1, "another replica published at the same time")
	}
	if err != nil {
		return time.Time{}, err
	}
	return since, nil
}

// addresses are the cluster IPs of the keyserver's Service, one a line: pods without DNS find it by them. A Service
// that is not there, or has none, gives none.
func (a *Authority) addresses(ctx context.Context) (string, error) {
	service := &corev1.Service{}
	err := a.Keys.Client.Get(ctx, client.ObjectKey{Namespace: a.Namespace, Name: resources.ServiceKeyserver}, service)
	if client.IgnoreNotFound(err) != nil {
		return "", err
	}
	var lines strings.Builder
	for _, ip := range service.Spec.ClusterIPs {
		if _, err := netip.ParseAddr(ip); err == nil { // "None" is no address
			lines.WriteString(ip + "\n")
		}
	}
	return lines.String(), nil
}

// nextSince reads the annotation; zero when it speaks of another authority, or is not readable.
func nextSince(cm *corev1.ConfigMap, fingerprint string) time.Time {
	name, at, ok := strings.Cut(cm.Annotations[annotationNext], " ")
	if !ok || fingerprint == "" || name != fingerprint {
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339, at)
	if err != nil {
		return time.Time{}
	}
	return t
}
