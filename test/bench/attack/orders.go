package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/internal/sealing"
	"github.com/lethe-dev/lethe/test/attack"
	"github.com/lethe-dev/lethe/test/stage"
)

// orders answers the attacker's pods.
type orders struct {
	url    string
	port   int32
	server *http.Server

	mu       sync.Mutex
	attack   bool
	common   attack.Orders
	tokens   map[string]string
	dialled  map[string]int64
	answered map[string]int64
}

func listen(address string) (*orders, error) {
	l, err := net.Listen("tcp", net.JoinHostPort(address, "0"))
	if err != nil {
		return nil, fmt.Errorf("listen for the attacker's pods: %w", err)
	}
	o := &orders{tokens: map[string]string{}, dialled: map[string]int64{}, answered: map[string]int64{}}
	o.url = "http://" + l.Addr().String() + "/"
	if a, ok := l.Addr().(*net.TCPAddr); ok {
		o.port = int32(a.Port)
	}
	o.server = &http.Server{Handler: o, ReadHeaderTimeout: 5 * time.Second}
	go func() { _ = o.server.Serve(l) }()
	return o, nil
}

func (o *orders) close() { _ = o.server.Close() }

// ServeHTTP tells a pod what to do.
func (o *orders) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	o.mu.Lock()
	defer o.mu.Unlock()
	pod := r.URL.Query().Get("pod")
	for name, of := range map[string]map[string]int64{"dialled": o.dialled, "answered": o.answered} {
		n, err := strconv.ParseInt(r.URL.Query().Get(name), 10, 64)
		if err != nil {
			n = 0
		}
		of[pod] = max(of[pod], n)
	}
	answer := attack.Orders{}
	if o.attack {
		answer = o.common
		answer.Attack, answer.Token = true, o.tokens[pod]
	}
	_ = json.NewEncoder(w).Encode(answer) // a pod that has gone asks again
}

func (o *orders) heard() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.dialled)
}

func (o *orders) set(attack bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.attack = attack
}

// sums are the connections that were tried, and the calls that were answered.
func (o *orders) sums() (dialled, answered int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for pod := range o.dialled {
		dialled, answered = dialled+o.dialled[pod], answered+o.answered[pod]
	}
	return dialled, answered
}

// prepareOrders finds the keyservers, and makes a token of its own for each attacker's pod: the one that its
// unsealing had.
func (b *bench) prepareOrders(ctx context.Context) error {
	var servers, pods corev1.PodList
	if err := b.admin.List(ctx, &servers, client.InNamespace(stage.SystemNamespace), client.MatchingLabels{"app.kubernetes.io/component": "keyserver"}); err != nil {
		return fmt.Errorf("list the keyserver's pods: %w", err)
	}
	if err := b.admin.List(ctx, &pods, client.InNamespace(attacker)); err != nil {
		return fmt.Errorf("list the attacker's pods: %w", err)
	}
	key, err := sealing.GeneratePrivateKey(rand.Reader)
	if err != nil {
		return fmt.Errorf("make a key: %w", err)
	}
	body, err := json.Marshal(keyapi.UnsealRequest{PublicKey: key.Public().String()})
	if err != nil {
		return fmt.Errorf("write a request: %w", err)
	}
	common := attack.Orders{Path: keyapi.PathUnseal, Body: string(body), Connections: b.connections}
	for _, p := range servers.Items {
		common.Addresses = append(common.Addresses, net.JoinHostPort(p.Status.PodIP, "8443"))
	}
	// Only the kubelet of a pod's node may ask for its tokens.
	cfg := rest.CopyConfig(b.cfg)
	cfg.Impersonate = rest.ImpersonationConfig{UserName: "system:node:" + b.info.Network.NodeName, Groups: []string{"system:nodes", "system:authenticated"}}
	kubelet, err := client.New(cfg, client.Options{Scheme: b.admin.Scheme()})
	if err != nil {
		return fmt.Errorf("make a client: %w", err)
	}
	tokens := map[string]string{}
	for _, p := range pods.Items {
		expires := int64(3600)
		token := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
			Audiences: []string{v1alpha1.AudienceKeyserver}, ExpirationSeconds: &expires,
			BoundObjectRef: &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: p.Name, UID: p.UID},
		}}
		account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: p.Namespace, Name: p.Spec.ServiceAccountName}}
		if err := kubelet.SubResource("token").Create(ctx, account, token); err != nil {
			return fmt.Errorf("make a token for pod %s: %w", p.Name, err)
		}
		tokens[p.Name] = token.Status.Token
	}
	b.orders.mu.Lock()
	defer b.orders.mu.Unlock()
	b.orders.common, b.orders.tokens = common, tokens
	return nil
}
