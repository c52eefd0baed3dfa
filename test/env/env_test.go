package env

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

func TestEnv(t *testing.T) {
	begin := time.Now().Add(-time.Second)
	e := Start(t)

	namespace := e.Namespace(t, "env", nil)
	bot := &v1alpha1.BotDeployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace.Name, Name: "b"},
		Spec:       v1alpha1.BotDeploymentSpec{Image: "bot:1"},
	}
	if err := e.Client.Create(t.Context(), bot); err != nil {
		t.Fatalf("the kinds are not installed: %v", err)
	}

	err := e.AsServiceAccount(t, namespace.Name, "nobody").Create(t.Context(), &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace.Name, Name: "x"},
	})
	if !apierrors.IsForbidden(err) {
		t.Errorf("a ServiceAccount without rights created a ConfigMap: %v", err)
	}

	sa := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace.Name, Name: "sa"}}
	if err := e.Client.Create(t.Context(), sa); err != nil {
		t.Fatal(err)
	}
	token, err := e.Token(t.Context(), namespace.Name, "sa", v1alpha1.AudienceKeyserver, nil)
	if err != nil || strings.Count(token, ".") != 2 {
		t.Errorf("token %d bytes long, %v", len(token), err)
	}

	writes, err := e.Writes(begin, "system:serviceaccount:")
	if err != nil {
		t.Fatal(err)
	}
	if len(writes) != 1 || writes[0].Verb != "create" || writes[0].Resource != "configmaps" || writes[0].Code != 403 {
		t.Errorf("audit log tells %v, want the one refused ConfigMap", writes)
	}
}
