package env

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

const (
	botFinalizer = "lethe-bot-finalizer" // the policy and its binding
	// finalizerWait is how long the API server may take: it asks for the schemas of kinds every five seconds.
	finalizerWait = time.Minute
)

// InstallBotFinalizer applies config/finalizer, as an installation on Kubernetes 1.36 and newer has it, and waits
// until it works. Where no manager runs nobody would take the finalizer off again, so that it is no part of Start.
func (e *Env) InstallBotFinalizer(ctx context.Context) error {
	if err := e.applyFolder(ctx, filepath.Join(e.Root, "config", "finalizer")); err != nil {
		return err
	}
	return e.awaitBotFinalizer(ctx, true)
}

// WithoutBotFinalizer is a cluster in which nothing puts Lethe's finalizer on new bots, as before Kubernetes 1.36,
// until the test ends.
func (e *Env) WithoutBotFinalizer(t testing.TB) {
	t.Helper()
	binding := &admissionv1.MutatingAdmissionPolicyBinding{}
	if err := e.Client.Get(t.Context(), client.ObjectKey{Name: botFinalizer}, binding); err != nil {
		t.Fatal(err)
	}
	if err := e.Client.Delete(t.Context(), binding); err != nil {
		t.Fatal(err)
	}
	ctx := context.WithoutCancel(t.Context())
	t.Cleanup(func() {
		again := &admissionv1.MutatingAdmissionPolicyBinding{ObjectMeta: metav1.ObjectMeta{Name: binding.Name, Labels: binding.Labels}, Spec: binding.Spec}
		if err := errors.Join(e.Client.Create(ctx, again), e.awaitBotFinalizer(ctx, true)); err != nil {
			t.Error(err)
		}
	})
	if err := e.awaitBotFinalizer(ctx, false); err != nil {
		t.Fatal(err)
	}
}

// awaitBotFinalizer waits until a bot that would be made has Lethe's finalizer, or has none. The API server learns of
// policies in the background, and until it knows the schema of a kind that a policy changes it answers that the
// service is unavailable, whatever the failurePolicy says.
func (e *Env) awaitBotFinalizer(ctx context.Context, want bool) error {
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "env-finalizer-", Labels: map[string]string{v1alpha1.LabelTenant: "env"}}}
	if err := e.Client.Create(ctx, namespace); err != nil {
		return fmt.Errorf("make a namespace to try in: %w", err)
	}
	var last error
	err := wait.PollUntilContextTimeout(ctx, 100*time.Millisecond, finalizerWait, true, func(ctx context.Context) (bool, error) {
		bot := &v1alpha1.BotDeployment{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace.Name, Name: "probe"},
			Spec:       v1alpha1.BotDeploymentSpec{Image: "bot:1", Credentials: []v1alpha1.Credential{{Name: "token", Sealed: "seal.v1.a.b.c.d.e"}}},
		}
		last = e.Client.Create(ctx, bot, client.DryRunAll)
		if apierrors.IsServiceUnavailable(last) {
			return false, nil
		}
		return slices.Contains(bot.Finalizers, v1alpha1.FinalizerKeys) == want, last
	})
	if err != nil {
		err = fmt.Errorf("wait until Lethe's finalizer on a new bot is %v: %w", want, errors.Join(err, last))
	}
	return errors.Join(err, e.endNamespace(ctx, namespace))
}

// endNamespace plays the namespace controller for a namespace in which nothing is.
func (e *Env) endNamespace(ctx context.Context, namespace *corev1.Namespace) error {
	if err := e.Client.Delete(ctx, namespace); err != nil {
		return fmt.Errorf("delete a namespace: %w", err)
	}
	if err := e.Client.Get(ctx, client.ObjectKeyFromObject(namespace), namespace); err != nil {
		return client.IgnoreNotFound(err)
	}
	namespace.Spec.Finalizers = nil
	if err := e.Client.SubResource("finalize").Update(ctx, namespace); err != nil {
		return fmt.Errorf("end a namespace: %w", err)
	}
	return nil
}
