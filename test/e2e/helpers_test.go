package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/sealing"
	"github.com/lethe-dev/lethe/test/stage"
)

// until polls with a bound; ok says what is still missing.
func until(t *testing.T, most time.Duration, what string, ok func(context.Context) (string, error)) {
	t.Helper()
	if err := stage.Until(t.Context(), most, what, ok); err != nil {
		t.Fatal(err)
	}
}

func (w *world) create(t *testing.T, objects ...client.Object) {
	t.Helper()
	for _, o := range objects {
		until(t, time.Minute, "create "+o.GetName(), func(ctx context.Context) (string, error) {
			err := w.client.Create(ctx, o)
			if err != nil && !apierrors.IsServiceUnavailable(err) { // said of a bot as long as the API server does not know the kind's schema
				return "", stage.Stop(err)
			}
			return "", err
		})
	}
}

// change reads an object, changes it and writes it, again when someone else wrote it meanwhile.
func change[T client.Object](t *testing.T, c client.Client, o T, edit func(T)) {
	t.Helper()
	until(t, 30*time.Second, "change "+o.GetName(), func(ctx context.Context) (string, error) {
		if err := c.Get(ctx, client.ObjectKeyFromObject(o), o); err != nil {
			return "", err
		}
		edit(o)
		return "", c.Update(ctx, o)
	})
}

// tenant makes a customer of one namespace, which has its name, and waits until it is ready. The stand-in for
// Telegram is open to it.
func (w *world) tenant(t *testing.T, name string, edit func(*v1alpha1.TenantSpec)) *v1alpha1.Tenant {
	t.Helper()
	tenant := &v1alpha1.Tenant{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.TenantSpec{
		Namespaces: []v1alpha1.TenantNamespace{{Name: name}},
		Egress:     []v1alpha1.EgressRule{{CIDR: w.telegram.Host + "/32", Ports: []v1alpha1.EgressPort{{Protocol: "TCP", Port: w.telegram.Port}}}},
	}}
	if edit != nil {
		edit(&tenant.Spec)
	}
	if w.given != nil {
		tenant.Spec.ForeignNetworkPolicies = append(tenant.Spec.ForeignNetworkPolicies, v1alpha1.ForeignNetworkPolicy{Name: stage.LabelPolicy})
	}
	w.create(t, tenant)
	w.awaitReady(t, tenant, time.Minute)
	w.openByLabel(t, tenant)
	return tenant
}

// newToken makes a token that the stand-in knows, and remembers it as a secret that may turn up nowhere.
func (w *world) newToken(t *testing.T, number int) (token string, id int64) {
	t.Helper()
	token = fmt.Sprintf("%d:AA%s", 5_000_000+number, stage.Random())
	id, err := w.telegram.Control.AddBot(t.Context(), token, fmt.Sprintf("bot_%d", number))
	if err != nil {
		t.Fatal(err)
	}
	_, secret, _ := strings.Cut(token, ":")
	w.canaries[fmt.Sprintf("token %d", number)] = []byte(secret)
	return token, id
}

// seal seals a value for a credential of a bot.
func (w *world) seal(t *testing.T, tenant *v1alpha1.Tenant, namespace, bot, credential string, version uint32, value string) v1alpha1.SealedValue {
	t.Helper()
	key := tenant.Status.SealingKeys[0]
	public, err := sealing.ParsePublicKey(key.Suite, key.Public)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := sealing.Seal(public, sealing.Place{
		Realm: key.Realm, Tenant: tenant.Name, Namespace: namespace, Kind: sealing.KindBotDeployment, Name: bot, Key: credential, Version: version,
	}, []byte(value))
	if err != nil {
		t.Fatal(err)
	}
	return v1alpha1.SealedValue(sealed)
}

// newBot is a bot of the example's image with a sealed token.
func (w *world) newBot(t *testing.T, tenant *v1alpha1.Tenant, name, token string) *v1alpha1.BotDeployment {
	t.Helper()
	small := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("5m"), corev1.ResourceMemory: resource.MustParse("16Mi")}
	most := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("200m"), corev1.ResourceMemory: resource.MustParse("64Mi")}
	return &v1alpha1.BotDeployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: tenant.Name, Name: name},
		Spec: v1alpha1.BotDeploymentSpec{
			Image: w.botImage, ImagePullPolicy: w.pull(),
			Ports:     []v1alpha1.ContainerPort{{Name: "health", ContainerPort: 8080}},
			Probes:    &v1alpha1.Probes{Readiness: &v1alpha1.Probe{Path: "/healthz", Port: "health", PeriodSeconds: 2}},
			Resources: &v1alpha1.BotResources{Requests: small, Limits: most},
			Channels:  []v1alpha1.Channel{{Name: "telegram", Type: v1alpha1.ChannelTelegram, Telegram: &v1alpha1.TelegramChannel{Credential: "telegram-token", APIURL: w.telegram.API}}},
			Env:       []v1alpha1.EnvVar{{Name: "SSL_CERT_FILE", Value: "/var/run/lethe/credentials/telegram-ca"}},
			Credentials: []v1alpha1.Credential{
				{Name: "telegram-token", Sealed: w.seal(t, tenant, tenant.Name, name, "telegram-token", 1, token)},
				{Name: "telegram-ca", Sealed: w.seal(t, tenant, tenant.Name, name, "telegram-ca", 1, w.telegram.CA)},
			},
			Rollout: v1alpha1.BotRollout{TerminationGracePeriodSeconds: 10, ProgressDeadlineSeconds: 60},
		},
	}
}

// awaitCondition waits until a condition has a status and, unless it is empty, a reason, for the present spec.
func (w *world) awaitCondition(t *testing.T, o client.Object, kind string, status metav1.ConditionStatus, reason string, most time.Duration) {
	t.Helper()
	if err := stage.AwaitCondition(t.Context(), w.client, o, kind, status, reason, most); err != nil {
		t.Fatal(err)
	}
}

func (w *world) awaitReady(t *testing.T, o client.Object, most time.Duration) {
	t.Helper()
	w.awaitCondition(t, o, v1alpha1.ConditionReady, metav1.ConditionTrue, "", most)
}

// chat writes to a bot and wants the answer.
func (w *world) chat(t *testing.T, id int64, text string) {
	t.Helper()
	said, err := w.telegram.Control.UserSays(t.Context(), id, 77, text)
	if err != nil {
		t.Fatal(err)
	}
	m, err := w.telegram.Control.AwaitReply(t.Context(), id, 77, said, 60*time.Second)
	if err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	if want := "You said: " + text; m.Text != want {
		t.Fatalf("answer %q, want %q", m.Text, want)
	}
}

// gone waits until an object does not exist.
func (w *world) gone(t *testing.T, o client.Object, most time.Duration) {
	t.Helper()
	until(t, most, "wait for the end of "+o.GetName(), func(ctx context.Context) (string, error) {
		err := w.client.Get(ctx, client.ObjectKeyFromObject(o), o)
		if err == nil {
			return fmt.Sprintf("it is there, finalizers %v, deletion %v", o.GetFinalizers(), o.GetDeletionTimestamp()), nil
		}
		return "", client.IgnoreNotFound(err)
	})
}

// as is a client that acts as someone else.
func (w *world) as(t *testing.T, user string, groups ...string) client.Client {
	t.Helper()
	cfg := rest.CopyConfig(w.cfg)
	cfg.Impersonate = rest.ImpersonationConfig{UserName: user, Groups: append([]string{"system:authenticated"}, groups...)}
	c, err := client.New(cfg, client.Options{Scheme: w.client.Scheme()})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// serviceAccount acts as a ServiceAccount.
func (w *world) serviceAccount(t *testing.T, namespace, name string) client.Client {
	t.Helper()
	return w.as(t, "system:serviceaccount:"+namespace+":"+name, "system:serviceaccounts", "system:serviceaccounts:"+namespace)
}

// hand is someone whom the walls let through: the hand that changes what Lethe owns.
func (w *world) hand(t *testing.T) client.Client {
	t.Helper()
	return w.as(t, "system:kube-controller-manager", "system:masters")
}
