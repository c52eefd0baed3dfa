package keyserver

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keystore"
	"github.com/lethe-dev/lethe/internal/kube"
	"github.com/lethe-dev/lethe/internal/resources"
)

// cleanSets deletes the encrypted Secrets of an object that no pod template, present or about to go, refers to any
// more. It looks only when there is more than the present one. A lookup that fails keeps everything.
func (s *Server) cleanSets(ctx context.Context, sub *subject, keys *keystore.ObjectKeys, present string) error {
	if keys.Secret == nil || len(keys.Doc.Sets) < 2 || present == "" {
		return nil
	}
	used, err := s.setsInUse(ctx, sub)
	if err != nil {
		return err
	}
	if used == nil {
		return nil
	}
	used = append(used, present)
	doc := keys.Doc
	doc.Sets, doc.Secrets = nil, maps.Clone(doc.Secrets)
	for _, name := range keys.Doc.Sets {
		if slices.Contains(used, name) {
			doc.Sets = append(doc.Sets, name)
			continue
		}
		if err := s.deleteSet(ctx, sub, keys.Doc.SecretOf(name)); err != nil {
			return err
		}
		delete(doc.Secrets, name)
	}
	return s.writeDocument(ctx, sub, keys, doc)
}

// deleteSet deletes a Secret that is this object's, by UID: one made again under that name in between stays.
func (s *Server) deleteSet(ctx context.Context, sub *subject, name string) error {
	var secret corev1.Secret
	err := s.Client.Get(ctx, client.ObjectKey{Namespace: sub.namespace(), Name: name}, &secret)
	if apierrors.IsNotFound(err) || (err == nil && !isOurs(&secret, sub)) {
		return nil
	}
	if err != nil {
		return err
	}
	return client.IgnoreNotFound(s.Client.Delete(ctx, &secret, client.Preconditions{UID: &secret.UID}))
}

// setsInUse lists the sets that pods of an object use or will use; nil when that cannot be told yet. A sweep asks for
// the present set when it begins and keeps it in memory, so a store's older sets are used by nobody.
func (s *Server) setsInUse(ctx context.Context, sub *subject) ([]string, error) {
	if sub.store != nil {
		return []string{}, nil
	}
	return s.setsOfBot(ctx, sub)
}

// setsOfBot looks at the StatefulSet's template, at the revision that its pods still have, and at the pod.
func (s *Server) setsOfBot(ctx context.Context, sub *subject) ([]string, error) {
	var sts appsv1.StatefulSet
	err := s.Client.Get(ctx, client.ObjectKey{Namespace: sub.namespace(), Name: resources.BotName(sub.name())}, &sts)
	if kube.IsMissing(err, resources.BotName(sub.name())) {
		return []string{}, nil
	}
	if err != nil {
		return nil, err
	}
	if !metav1.IsControlledBy(&sts, sub.object) || sts.Status.ObservedGeneration != sts.Generation {
		return nil, nil
	}
	used := []string{sts.Spec.Template.Annotations[v1alpha1.AnnotationCredentials]}
	if sts.Status.CurrentRevision != sts.Status.UpdateRevision {
		name, err := s.setOfRevision(ctx, sub.namespace(), sts.Status.CurrentRevision)
		if err != nil {
			return nil, err
		}
		used = append(used, name)
	}
	var pod corev1.Pod
	err = s.Client.Get(ctx, client.ObjectKey{Namespace: sub.namespace(), Name: resources.BotPodName(sub.name())}, &pod)
	if kube.UnlessMissing(err, resources.BotPodName(sub.name())) != nil {
		return nil, err
	}
	return append(used, pod.Annotations[v1alpha1.AnnotationCredentials]), nil
}

// setOfRevision reads the set's name out of a stored revision of a StatefulSet, which holds a patch of its template.
func (s *Server) setOfRevision(ctx context.Context, namespace, name string) (string, error) {
	var revision appsv1.ControllerRevision
	err := s.Client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, &revision)
	if kube.IsMissing(err, name) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	var patch struct {
		Spec struct {
			Template corev1.PodTemplateSpec `json:"template"`
		} `json:"spec"`
	}
	if err := json.Unmarshal(revision.Data.Raw, &patch); err != nil {
		return "", fmt.Errorf("revision %s/%s is not readable", namespace, name)
	}
	return patch.Spec.Template.Annotations[v1alpha1.AnnotationCredentials], nil
}
