package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/sealing"
	"github.com/lethe-dev/lethe/test/stage"
)

const (
	tenantName = "fleet" // and its namespace
	brokenName = "broken"
	botImage   = "upgrade-bot"
	most       = 5 * time.Minute // that anything in the set-up takes
)

// bench is one run.
type bench struct {
	*stage.Stage
	n      int
	begun  time.Time
	client client.Client
	tenant *v1alpha1.Tenant
	image  string
	server *http.Server
	port   int32
	host   string
	refuse atomic.Bool // bots that start now are told not to run
}

func (b *bench) say(format string, args ...any) {
	fmt.Printf("%4.0fs "+format+"\n", append([]any{time.Since(b.begun).Seconds()}, args...)...)
}

func (b *bench) close() error {
	if b.server == nil {
		return nil
	}
	if err := b.server.Close(); err != nil {
		return fmt.Errorf("end the server that bots ask: %w", err)
	}
	return nil
}

// listen answers bots that ask whether they may run.
func (b *bench) listen(ctx context.Context, host string) error {
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp4", net.JoinHostPort(host, "0"))
	if err != nil {
		return fmt.Errorf("listen for bots: %w", err)
	}
	address, ok := listener.Addr().(*net.TCPAddr)
	if !ok {
		return errors.New("listen for bots: no TCP address")
	}
	b.host, b.port = host, int32(address.Port)
	mux := http.NewServeMux()
	mux.HandleFunc("/run", func(w http.ResponseWriter, _ *http.Request) {
		if b.refuse.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	mux.HandleFunc("/never", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
	b.server = &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	go func() { _ = b.server.Serve(listener) }() // it ends with the run
	return nil
}

// setUp brings up the cluster, Lethe, the tenant and its bots.
func (b *bench) setUp(ctx context.Context) error {
	if err := b.Open(); err != nil {
		return err
	}
	if err := b.DownCluster(ctx); err != nil {
		return err
	}
	b.say("building")
	if err := errors.Join(b.Build(ctx, true), b.BuildImage(ctx, botImage, "./test/bench/upgrade/bot")); err != nil {
		return err
	}
	if err := b.Up(ctx, "node"); err != nil {
		return err
	}
	info, err := b.Info(ctx)
	if err != nil {
		return err
	}
	if err := b.LoadImages(ctx); err != nil {
		return err
	}
	if b.image, err = b.LoadImage(ctx, botImage); err != nil {
		return err
	}
	if b.client, err = b.Client(); err != nil {
		return err
	}
	if err := b.PrepareKEK(ctx); err != nil {
		return err
	}
	if err := b.Install(ctx); err != nil {
		return err
	}
	if err := b.listen(ctx, info.Network.HostIP); err != nil {
		return err
	}
	return b.makeFleet(ctx)
}

func (b *bench) makeFleet(ctx context.Context) error {
	b.say("Lethe runs; making %d bots, and one that is broken", b.n)
	room := int32(b.n + 10)
	b.tenant = &v1alpha1.Tenant{ObjectMeta: metav1.ObjectMeta{Name: tenantName}, Spec: v1alpha1.TenantSpec{
		Namespaces: []v1alpha1.TenantNamespace{{Name: tenantName}},
		Quota:      &v1alpha1.TenantQuota{Pods: &room, Bots: &room},
		Egress:     []v1alpha1.EgressRule{{CIDR: b.host + "/32", Ports: []v1alpha1.EgressPort{{Protocol: "TCP", Port: b.port}}}},
	}}
	if err := b.client.Create(ctx, b.tenant); err != nil {
		return fmt.Errorf("make the Tenant: %w", err)
	}
	if err := stage.AwaitCondition(ctx, b.client, b.tenant, v1alpha1.ConditionReady, metav1.ConditionTrue, "", most); err != nil {
		return err
	}
	bots := make([]*v1alpha1.BotDeployment, 0, b.n+1)
	for i := range b.n {
		bot, err := b.bot(fmt.Sprintf("bot-%02d", i), "/run")
		if err != nil {
			return err
		}
		bots = append(bots, bot)
	}
	broken, err := b.bot(brokenName, "/never")
	if err != nil {
		return err
	}
	for _, bot := range append(bots, broken) {
		if err := b.client.Create(ctx, bot); err != nil {
			return fmt.Errorf("make a bot: %w", err)
		}
	}
	for _, bot := range bots {
		if err := stage.AwaitCondition(ctx, b.client, bot, v1alpha1.ConditionReady, metav1.ConditionTrue, "", most); err != nil {
			return err
		}
	}
	return stage.AwaitCondition(ctx, b.client, broken, v1alpha1.ConditionWorkloadReady, metav1.ConditionFalse, "CrashLoopBackOff", most)
}

// bot is a small one with a sealed credential, that asks at a path whether it may run.
func (b *bench) bot(name, path string) (*v1alpha1.BotDeployment, error) {
	key := b.tenant.Status.SealingKeys[0]
	public, err := sealing.ParsePublicKey(key.Suite, key.Public)
	if err != nil {
		return nil, fmt.Errorf("read the sealing key: %w", err)
	}
	sealed, err := sealing.Seal(public, sealing.Place{
		Realm: key.Realm, Tenant: tenantName, Namespace: tenantName, Kind: sealing.KindBotDeployment, Name: name, Key: "token", Version: 1,
	}, []byte(stage.Random()))
	if err != nil {
		return nil, fmt.Errorf("seal a credential: %w", err)
	}
	return &v1alpha1.BotDeployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: tenantName, Name: name},
		Spec: v1alpha1.BotDeploymentSpec{
			Image: b.image, ImagePullPolicy: corev1.PullNever, Args: []string{fmt.Sprintf("http://%s:%d%s", b.host, b.port, path)},
			Resources: &v1alpha1.BotResources{
				Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1m"), corev1.ResourceMemory: resource.MustParse("16Mi")},
				Limits:   corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m"), corev1.ResourceMemory: resource.MustParse("64Mi")},
			},
			Credentials: []v1alpha1.Credential{{Name: "token", Sealed: v1alpha1.SealedValue(sealed)}},
			Rollout:     v1alpha1.BotRollout{TerminationGracePeriodSeconds: 1},
		},
	}, nil
}
