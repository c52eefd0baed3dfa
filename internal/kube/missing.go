package kube

import (
	"errors"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// IsMissing says whether an error of a read means that the API server, or a cache, knows the kind and has no object
// of that name. An API server answers 404 as well for a kind, or a version of it, that it does not serve (any more,
// or yet) while the objects are there, and so does whatever stands in front of it. Whoever destroys or gives away
// something because an object is gone asks this, and takes any other 404 for a failure.
func IsMissing(err error, name string) bool {
	var status apierrors.APIStatus
	if !apierrors.IsNotFound(err) || !errors.As(err, &status) || apierrors.HasStatusCause(err, metav1.CauseTypeUnexpectedServerResponse) {
		return false
	}
	details := status.Status().Details
	return details != nil && details.Kind != "" && details.Name == name
}

// UnlessMissing returns the error of a read, or nil when the object is not there.
func UnlessMissing(err error, name string) error {
	if IsMissing(err, name) {
		return nil
	}
	return err
}
