// Command rotate measures a rotation of every layer of keys: N bots with a stored credential each, on a real API
// server and etcd, two keyservers with the rights of the chart that both look for work, and their callers asking
// meanwhile. Nothing but the clock is made up: it is put forward where a keyserver waits for late writes. It ends
// with lines for machines:
//
//	rewrap_s=             seconds until every document was under the new key-encryption key
//	tenant_s= data_s=     the same for the tenants' keys and for the data keys, encrypted Secrets included
//	restarted_bots=       bots that would restart: whose set of credentials has another name than before
//	left_on_old=          what is on an old key at the end, as the keyserver counts it
//	asked= refused=       credentials asked for while all this went on, and how many were refused
//	opened_after_destroy= tenants whose keys open out of a copy of before, with all that is left
//	control_opened=       the same with the key-encryption key that was destroyed: the copies are good
//
// Usage: rotate [-n N] [-tenants N]
package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/signal"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/internal/keyserver"
	"github.com/lethe-dev/lethe/internal/keystore"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/internal/sealing"
	"github.com/lethe-dev/lethe/test/env"
)

const (
	realm      = "bench"
	credential = "token"
	workers    = 8
	// lateWrites is longer than a keyserver waits for writes under an earlier key.
	lateWrites = 5 * time.Minute
)

func main() {
	n := flag.Int("n", 1000, "bots")
	tenants := flag.Int("tenants", 0, "tenants; 0: one for each hundred bots")
	flag.Parse()
	if *tenants == 0 {
		*tenants = max(1, *n/100)
	}
	ctrl.SetLogger(logr.Discard())
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *n, *tenants); err != nil {
		fmt.Fprintln(os.Stderr, "rotate:", err)
		stop()
		os.Exit(1)
	}
}

// clockAhead is the real clock, put forward.
type clockAhead struct{ by atomic.Int64 }

func (c *clockAhead) Now() time.Time                  { return time.Now().Add(time.Duration(c.by.Load())) }
func (c *clockAhead) Since(t time.Time) time.Duration { return c.Now().Sub(t) }
func (c *clockAhead) put(by time.Duration)            { c.by.Add(int64(by)) }

// tenant is a customer with its bots.
type tenant struct {
	live *v1alpha1.Tenant
	key  sealing.PublicKey
}

type bot struct {
	live *v1alpha1.BotDeployment
	set  string
}

type bench struct {
	env     *env.Env
	admin   client.Client // what people and the manager write; bounded by the API server alone
	clock   *clockAhead
	token   string
	servers []*keyserver.Server
	urls    []string
	tenants []tenant
	bots    []bot
}

func run(ctx context.Context, n, tenants int) (err error) {
	e, err := env.New(ctx)
	if err != nil {
		return fmt.Errorf("start an API server: %w", err)
	}
	defer func() { err = errors.Join(err, e.Stop()) }()
	b := &bench{env: e, clock: &clockAhead{}}
	if b.admin, err = newClient(e, e.ConfigFor("system:kube-controller-manager", "system:masters")); err != nil {
		return err
	}
	if b.token, err = e.Token(ctx, env.SystemNamespace, resources.ServiceAccountManager, v1alpha1.AudienceKeyserver, nil); err != nil {
		return err
	}
	old, fresh, err := twoKEKs()
	if err != nil {
		return err
	}
	if err := b.start(old); err != nil {
		return err
	}
	if err := b.servers[0].Maintain(ctx); err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	if err := b.makeWorld(ctx, n, tenants); err != nil {
		return err
	}
	return b.measure(ctx, old, fresh)
}

func newClient(e *env.Env, config *rest.Config) (client.Client, error) {
	config = rest.CopyConfig(config)
	config.QPS = -1
	return client.New(config, client.Options{Scheme: e.Scheme})
}

func twoKEKs() (old, fresh sealing.Key, err error) {
	for _, k := range []*sealing.Key{&old, &fresh} {
		secret := make([]byte, 32)
		if _, err = rand.Read(secret); err != nil {
			return old, fresh, err
		}
		if *k, err = sealing.ParseKEK([]byte(base64.StdEncoding.EncodeToString(secret))); err != nil {
			return old, fresh, err
		}
	}
	return old, fresh, nil
}

// start begins two keyservers that remember nothing, with the rights of the chart.
func (b *bench) start(kek sealing.Key, previous ...sealing.Key) error {
	b.servers, b.urls = nil, nil
	for range 2 {
		c, err := newClient(b.env, b.env.ServiceAccountConfig(env.SystemNamespace, "lethe-keyserver"))
		if err != nil {
			return err
		}
		metrics, err := keyserver.NewMetrics(prometheus.NewRegistry())
		if err != nil {
			return err
		}
		settings := resources.DefaultSettings()
		settings.Image = "lethe.example/lethe:bench"
		s, err := keyserver.New(keyserver.Options{Client: c, KEK: kek, KEKPrevious: previous, KEKGrade: keyserver.GradeProduction, Realm: realm,
			KeysNamespace: env.KeysNamespace, Hosts: []string{"localhost"}, Settings: settings, Clock: b.clock, Random: rand.Reader,
			Log: slog.New(slog.DiscardHandler), Metrics: metrics})
		if err != nil {
			return err
		}
		b.servers, b.urls = append(b.servers, s), append(b.urls, httptest.NewServer(s.Handler()).URL)
	}
	return nil
}

// ask posts to one of the keyservers as the manager.
func (b *bench) ask(ctx context.Context, i int, path string, question, answer any) error {
	body, err := json.Marshal(question)
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, b.urls[i%len(b.urls)]+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", "Bearer "+b.token)
	r.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", path, text)
	}
	return json.Unmarshal(text, answer)
}

func (b *bench) makeWorld(ctx context.Context, n, tenants int) error {
	settings := resources.DefaultSettings()
	for i := range tenants {
		name := fmt.Sprintf("tenant-%04d", i)
		ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{v1alpha1.LabelTenant: name}}}
		live := &v1alpha1.Tenant{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.TenantSpec{State: v1alpha1.TenantActive,
			Class: v1alpha1.TenantCustomer, Namespaces: []v1alpha1.TenantNamespace{{Name: name}}}}
		if err := errors.Join(b.admin.Create(ctx, ns), b.admin.Create(ctx, live)); err != nil {
			return fmt.Errorf("make a tenant: %w", err)
		}
		live.Status.Namespaces = []v1alpha1.TenantNamespaceStatus{{Name: name, UID: string(ns.UID), Origin: "Adopted"}}
		if err := b.admin.Status().Update(ctx, live); err != nil {
			return fmt.Errorf("make a tenant: %w", err)
		}
		for _, binding := range resources.TenantRoleBindings(settings, live, name) {
			if binding.Name == resources.BindingKeyserver {
				if err := b.admin.Create(ctx, binding.DeepCopy()); err != nil {
					return fmt.Errorf("make a tenant: %w", err)
				}
			}
		}
		var answer keyapi.TenantResponse
		if err := b.ask(ctx, i, keyapi.PathTenant, keyapi.TenantRequest{Tenant: keyapi.ObjectRef{Kind: "Tenant", Name: name, UID: string(live.UID)}}, &answer); err != nil {
			return err
		}
		key, err := sealing.ParsePublicKey(answer.SealingKeys[0].Suite, answer.SealingKeys[0].Public)
		if err != nil {
			return err
		}
		b.tenants = append(b.tenants, tenant{live, key})
	}
	b.bots = make([]bot, n)
	return parallel(ctx, n, func(ctx context.Context, i int) error {
		live, err := b.makeBot(ctx, b.tenants[i%tenants], fmt.Sprintf("bot-%05d", i))
		if err != nil {
			return err
		}
		set, err := b.store(ctx, i, live)
		b.bots[i] = bot{live, set}
		return err
	})
}

func (b *bench) makeBot(ctx context.Context, t tenant, name string) (*v1alpha1.BotDeployment, error) {
	sealed, err := sealing.Seal(t.key, sealing.Place{Realm: realm, Tenant: t.live.Name, Namespace: t.live.Name, Kind: sealing.KindBotDeployment,
		Name: name, Key: credential, Version: 1}, []byte("the-token-of-"+name))
	if err != nil {
		return nil, err
	}
	live := &v1alpha1.BotDeployment{ObjectMeta: metav1.ObjectMeta{Namespace: t.live.Name, Name: name}, Spec: v1alpha1.BotDeploymentSpec{
		Image: "registry.example/bot:1.0.0", Credentials: []v1alpha1.Credential{{Name: credential, Sealed: v1alpha1.SealedValue(sealed)}}}}
	return live, b.admin.Create(ctx, live)
}

// store asks for a bot's credentials, as the manager does again and again, and returns the name of its set.
func (b *bench) store(ctx context.Context, i int, live *v1alpha1.BotDeployment) (string, error) {
	var answer keyapi.CredentialsResponse
	err := b.ask(ctx, i, keyapi.PathCredentials, keyapi.CredentialsRequest{Object: keyapi.ObjectRef{Kind: sealing.KindBotDeployment,
		Namespace: live.Namespace, Name: live.Name, UID: string(live.UID)}}, &answer)
	if err == nil && answer.Secret == "" {
		err = fmt.Errorf("%s/%s: %+v", live.Namespace, live.Name, answer.Items)
	}
	return answer.Secret, err
}

// parallel does n things with some workers, and stops at the first that fails.
func parallel(ctx context.Context, n int, do func(context.Context, int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n && ctx.Err() == nil; i = int(next.Add(1)) - 1 {
				if err := do(ctx, i); err != nil {
					cancel(err)
				}
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// request changes what people ask for.
func (b *bench) request(ctx context.Context, change func(*corev1.ConfigMap) error) error {
	cm := &corev1.ConfigMap{}
	err := b.admin.Get(ctx, client.ObjectKey{Namespace: env.KeysNamespace, Name: keystore.RotationName}, cm)
	if client.IgnoreNotFound(err) != nil {
		return err
	}
	missing := err != nil
	if missing {
		cm = keystore.NewRotation(env.KeysNamespace)
	}
	if err := change(cm); err != nil {
		return err
	}
	if missing {
		return b.admin.Create(ctx, cm)
	}
	return b.admin.Update(ctx, cm)
}

func (b *bench) status(ctx context.Context) (keystore.RotationStatus, error) {
	var cm corev1.ConfigMap
	if err := b.admin.Get(ctx, client.ObjectKey{Namespace: env.KeysNamespace, Name: keystore.RotationStatusName}, &cm); err != nil {
		return keystore.RotationStatus{}, err
	}
	return keystore.ReadRotationStatus(&cm)
}

// rotate asks for one layer and has both keyservers look until nothing of it is left. It returns how long they were
// busy.
func (b *bench) rotate(ctx context.Context, layer keystore.Layer) (time.Duration, error) {
	b.clock.put(2 * time.Second)
	if err := b.request(ctx, func(cm *corev1.ConfigMap) error { return keystore.AskRotation(cm, layer, "", b.clock.Now()) }); err != nil {
		return 0, err
	}
	var busy time.Duration
	for round := range 20 {
		began := time.Now()
		errs := make([]error, len(b.servers))
		var wg sync.WaitGroup
		for i, s := range b.servers {
			wg.Go(func() { errs[i] = s.Rotate(ctx) })
		}
		wg.Wait()
		busy += time.Since(began)
		if err := errors.Join(errs...); err != nil && round > 2 {
			return 0, err // of two that turn at once, one is asked to come again
		}
		st, err := b.status(ctx)
		if err != nil {
			return 0, err
		}
		if round > 0 && st.Left[keystore.LayerKEK]+st.Left[keystore.LayerTenant]+st.Left[keystore.LayerData] == 0 && len(st.Problems) == 0 {
			return busy, nil
		}
		b.clock.put(lateWrites)
	}
	st, err := b.status(ctx)
	return busy, errors.Join(err, fmt.Errorf("not over after 20 rounds: %+v", st))
}

func (b *bench) copies(ctx context.Context) (keystore.Backup, error) {
	var list corev1.SecretList
	if err := b.admin.List(ctx, &list, client.InNamespace(env.KeysNamespace)); err != nil {
		return keystore.Backup{}, err
	}
	return keystore.NewBackup(list.Items, b.clock.Now())
}

// opens counts the tenants whose keys open out of a copy with a key-encryption key.
func opens(copied keystore.Backup, kek sealing.Key) int {
	n := 0
	for _, s := range copied.Secrets {
		if strings.HasPrefix(s.Name, "tenant-") {
			one := keystore.Backup{KEK: kek.KID(), Secrets: []keystore.BackupSecret{s}}
			if one.Verify(sealing.Ring{kek}) == nil {
				n++
			}
		}
	}
	return n
}

func (b *bench) measure(ctx context.Context, old, fresh sealing.Key) error {
	before, err := b.copies(ctx)
	if err != nil {
		return err
	}
	if err := b.start(fresh, old); err != nil {
		return err
	}
	asking, stop := context.WithCancel(ctx)
	defer stop()
	var asked, refused atomic.Int64
	var askers sync.WaitGroup
	askers.Go(func() {
		for i := 0; asking.Err() == nil; i++ {
			one := b.bots[i%len(b.bots)]
			set, err := b.store(asking, i, one.live)
			if asking.Err() != nil {
				return
			}
			asked.Add(1)
			if err != nil || set != one.set {
				refused.Add(1)
			}
		}
	})
	took := map[keystore.Layer]time.Duration{}
	for _, layer := range []keystore.Layer{keystore.LayerKEK, keystore.LayerTenant, keystore.LayerData, keystore.LayerSealing} {
		if took[layer], err = b.rotate(ctx, layer); err != nil {
			return fmt.Errorf("rotate %s: %w", layer, err)
		}
		fmt.Fprintf(os.Stderr, "%s: %.1f s\n", layer, took[layer].Seconds())
	}
	stop()
	askers.Wait()
	if err := b.destroy(ctx, old, fresh); err != nil {
		return err
	}
	var restarted atomic.Int64
	if err := parallel(ctx, len(b.bots), func(ctx context.Context, i int) error {
		set, err := b.store(ctx, i, b.bots[i].live)
		if err == nil && set != b.bots[i].set {
			restarted.Add(1)
		}
		return err
	}); err != nil {
		return fmt.Errorf("ask for credentials afterwards: %w", err)
	}
	st, err := b.status(ctx)
	if err != nil {
		return err
	}
	left := st.Left[keystore.LayerKEK] + st.Left[keystore.LayerTenant] + st.Left[keystore.LayerData]
	fmt.Printf("rewrap_s=%.1f\ntenant_s=%.1f\ndata_s=%.1f\n", took[keystore.LayerKEK].Seconds(), took[keystore.LayerTenant].Seconds(), took[keystore.LayerData].Seconds())
	fmt.Printf("restarted_bots=%d\nleft_on_old=%d\nasked=%d\nrefused=%d\n", restarted.Load(), left, asked.Load(), refused.Load())
	fmt.Printf("opened_after_destroy=%d\ncontrol_opened=%d\n", opens(before, fresh), opens(before, old))
	switch {
	case restarted.Load() > 0, left > 0, opens(before, fresh) > 0:
		return errors.New("a promise is not kept")
	case opens(before, old) != len(b.tenants):
		return fmt.Errorf("the control opens %d of %d: the measurement says nothing", opens(before, old), len(b.tenants))
	}
	return nil
}

// destroy goes the rest of the way that a person goes: a verified backup, a restart without the old key, and the
// statement.
func (b *bench) destroy(ctx context.Context, old, fresh sealing.Key) error {
	copied, err := b.copies(ctx)
	if err != nil {
		return err
	}
	if err := copied.Verify(sealing.Ring{fresh}); err != nil {
		return fmt.Errorf("the backup of afterwards: %w", err)
	}
	if err := b.request(ctx, func(cm *corev1.ConfigMap) error {
		return keystore.RecordBackup(cm, keystore.VerifiedBackup{Created: copied.Created, Digest: copied.Digest, KEK: copied.KEK, At: b.clock.Now()})
	}); err != nil {
		return err
	}
	if err := b.start(fresh); err != nil {
		return err
	}
	if err := b.request(ctx, func(cm *corev1.ConfigMap) error { return keystore.RecordKEKDestroyed(cm, old.KID(), b.clock.Now()) }); err != nil {
		return err
	}
	if err := b.servers[0].Rotate(ctx); err != nil {
		return err
	}
	st, err := b.status(ctx)
	if err == nil && (len(st.KEKs) < 2 || st.KEKs[1].Destroyed.IsZero()) {
		err = fmt.Errorf("the key-encryption key is not called destroyed: %+v", st)
	}
	return err
}
