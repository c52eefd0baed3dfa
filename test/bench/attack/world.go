package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/sealing"
	"github.com/lethe-dev/lethe/test/stage"
)

const (
	attackerImage = "attacker"
	attacker      = "attacker" // the Tenant, and its namespace
	operators     = "attackers"
	victimLabel   = "bench.lethe.dev/victim"
	most          = 3 * time.Minute // that anything in the set-up takes
	botsOfTenant  = 50
)

// bench is one run.
type bench struct {
	options
	*stage.Stage
	info     stage.Info
	cfg      *rest.Config
	admin    client.WithWatch
	operator client.Client // a person of the attacking tenant's, with the role Operate
	image    string
	orders   *orders
	victims  []*v1alpha1.Tenant
	hostile  *v1alpha1.Tenant
	begun    time.Time
	versions uint32 // of the values that were sealed
}

func (b *bench) say(format string, args ...any) {
	fmt.Printf("%4.0fs "+format+"\n", append([]any{time.Since(b.begun).Seconds()}, args...)...)
}

// setUp brings up the cluster, Lethe, the tenants, and the attacker's pods, which rest.
func (b *bench) setUp(ctx context.Context) (err error) {
	if err := b.Open(); err != nil {
		return err
	}
	if err := b.DownCluster(ctx); err != nil {
		return err
	}
	b.say("building")
	if err := errors.Join(b.Build(ctx, true), b.BuildImage(ctx, attackerImage, "./test/attack/cmd")); err != nil {
		return err
	}
	if err := b.Up(ctx, "node"); err != nil {
		return err
	}
	if b.info, err = b.Info(ctx); err != nil {
		return err
	}
	if err := b.LoadImages(ctx); err != nil {
		return err
	}
	if b.image, err = b.LoadImage(ctx, attackerImage); err != nil {
		return err
	}
	if err := b.clients(); err != nil {
		return err
	}
	if err := b.PrepareKEK(ctx); err != nil {
		return err
	}
	if err := b.Install(ctx); err != nil {
		return err
	}
	if b.orders, err = listen(b.info.Network.HostIP); err != nil {
		return err
	}
	b.say("Lethe runs; making %d tenants and one that attacks", b.options.victims)
	if b.hostile, err = b.tenant(ctx, attacker, func(spec *v1alpha1.TenantSpec) {
		pods, bots := int32(b.pods), int32(botsOfTenant)
		spec.Quota = &v1alpha1.TenantQuota{Pods: &pods, Bots: &bots}
		spec.Access = []v1alpha1.TenantAccess{{Group: operators, Role: v1alpha1.AccessOperate}}
		spec.Egress = []v1alpha1.EgressRule{{CIDR: b.info.Network.HostIP + "/32", Ports: []v1alpha1.EgressPort{{Protocol: "TCP", Port: b.orders.port}}}}
	}); err != nil {
		return err
	}
	for i := range b.options.victims {
		t, err := b.tenant(ctx, fmt.Sprintf("victim-%02d", i), nil)
		if err != nil {
			return err
		}
		b.victims = append(b.victims, t)
	}
	return b.attackersRest(ctx)
}

func (b *bench) clients() error {
	var err error
	if b.cfg, err = b.RESTConfig(); err != nil {
		return err
	}
	scheme, err := stage.NewScheme()
	if err != nil {
		return err
	}
	if b.admin, err = client.NewWithWatch(b.cfg, client.Options{Scheme: scheme}); err != nil {
		return fmt.Errorf("make a client: %w", err)
	}
	cfg := rest.CopyConfig(b.cfg)
	cfg.Impersonate = rest.ImpersonationConfig{UserName: "mallory", Groups: []string{"system:authenticated", operators}}
	if b.operator, err = client.New(cfg, client.Options{Scheme: scheme}); err != nil {
		return fmt.Errorf("make a client: %w", err)
	}
	return nil
}

// tenant makes a customer of one namespace, which has its name, and waits until it is ready.
func (b *bench) tenant(ctx context.Context, name string, edit func(*v1alpha1.TenantSpec)) (*v1alpha1.Tenant, error) {
	t := &v1alpha1.Tenant{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.TenantSpec{Namespaces: []v1alpha1.TenantNamespace{{Name: name}}}}
	if edit != nil {
		edit(&t.Spec)
	}
	if err := b.admin.Create(ctx, t); err != nil {
		return nil, fmt.Errorf("make Tenant %s: %w", name, err)
	}
	return t, stage.AwaitCondition(ctx, b.admin, t, v1alpha1.ConditionReady, metav1.ConditionTrue, "", most)
}

// bot is a small one with a sealed credential.
func (b *bench) bot(t *v1alpha1.Tenant, name string, version uint32, limits corev1.ResourceList, args ...string) (*v1alpha1.BotDeployment, error) {
	key := t.Status.SealingKeys[0]
	public, err := sealing.ParsePublicKey(key.Suite, key.Public)
	if err != nil {
		return nil, fmt.Errorf("read the sealing key of %s: %w", t.Name, err)
	}
	sealed, err := sealing.Seal(public, sealing.Place{
		Realm: key.Realm, Tenant: t.Name, Namespace: t.Name, Kind: sealing.KindBotDeployment, Name: name, Key: "token", Version: version,
	}, []byte(stage.Random()))
	if err != nil {
		return nil, fmt.Errorf("seal a credential: %w", err)
	}
	return &v1alpha1.BotDeployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: t.Name, Name: name},
		Spec: v1alpha1.BotDeploymentSpec{
			Image: b.image, ImagePullPolicy: corev1.PullNever, Args: args,
			Resources: &v1alpha1.BotResources{
				Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("5m"), corev1.ResourceMemory: resource.MustParse("16Mi")},
				Limits:   limits,
			},
			Credentials: []v1alpha1.Credential{{Name: "token", Sealed: v1alpha1.SealedValue(sealed)}},
			Rollout:     v1alpha1.BotRollout{TerminationGracePeriodSeconds: 1},
		},
	}, nil
}

// attackersRest starts the attacker's pods; they wait for orders.
func (b *bench) attackersRest(ctx context.Context) error {
	limits := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(b.cpu), corev1.ResourceMemory: resource.MustParse("256Mi")}
	bots := make([]*v1alpha1.BotDeployment, b.pods)
	for i := range bots {
		var err error
		if bots[i], err = b.bot(b.hostile, fmt.Sprintf("attacker-%02d", i), b.version(), limits, "attack", b.orders.url); err != nil {
			return err
		}
		if err := b.operator.Create(ctx, bots[i]); err != nil {
			return fmt.Errorf("make an attacker: %w", err)
		}
	}
	for _, bot := range bots {
		if err := stage.AwaitCondition(ctx, b.admin, bot, v1alpha1.ConditionReady, metav1.ConditionTrue, "", most); err != nil {
			return err
		}
	}
	return stage.Until(ctx, most, "hear from every attacker", func(context.Context) (string, error) {
		if n := b.orders.heard(); n < b.pods {
			return fmt.Sprintf("%d of %d have asked for orders", n, b.pods), nil
		}
		return "", nil
	})
}

// largest is a suspended bot as large as admission lets it be, in characters that JSON writes with six bytes.
func largest(name string) *v1alpha1.BotDeployment {
	const character, annotations, spec = "<", 65000, 48000
	bot := &v1alpha1.BotDeployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: attacker, Name: name, Labels: map[string]string{}, Annotations: map[string]string{"a": strings.Repeat(character, annotations)}},
		Spec:       v1alpha1.BotDeploymentSpec{Image: "registry.example/bot:v1", OperatingMode: v1alpha1.ModeSuspended},
	}
	for i := range 32 {
		bot.Labels[fmt.Sprintf("%s.example/%063d", strings.Repeat("l", 63), i)] = strings.Repeat("v", 63)
	}
	for left := spec; left > 0; left -= 1024 {
		bot.Spec.Args = append(bot.Spec.Args, strings.Repeat(character, min(left, 1024)))
	}
	return bot
}
