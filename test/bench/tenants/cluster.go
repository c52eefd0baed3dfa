package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/internal/keyclient"
	"github.com/lethe-dev/lethe/internal/plan"
	"github.com/lethe-dev/lethe/internal/planner"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/internal/sealing"
	"github.com/lethe-dev/lethe/test/env"
	"github.com/lethe-dev/lethe/test/kcm"
	"github.com/lethe-dev/lethe/test/ports"
)

const (
	realm = "bench"
	image = "lethe.example/lethe:bench"
	// few is the number of tenants that a renewal is compared with.
	few = 10
	// elsewhere is a namespace that is nobody's: Tenants that list it are known, and nothing is made for them.
	elsewhere = "elsewhere"
)

// bench is one run against an API server.
type bench struct {
	out      io.Writer
	begun    time.Time
	env      *env.Env
	admin    client.Client
	cluster  client.Client
	folder   string
	wire     *wire
	url      string
	renewals int
	walled   int // tenants for whom the manager makes a namespace

	manager, keyserver *program
	store              *v1alpha1.DataStore
	lease              *keyclient.Client
	hash               string
	undo               []func() error
}

func (b *bench) step(format string, args ...any) {
	fmt.Fprintf(b.out, "%6.1fs  %s\n", time.Since(b.begun).Seconds(), fmt.Sprintf(format, args...))
}

// onServer measures what only an API server shows, with the same world, of as many datasets as the API takes.
func onServer(ctx context.Context, out io.Writer, world func(datasets int) plan.Input, renewals, walled int) (err error) {
	b := &bench{out: out, begun: time.Now(), renewals: renewals, walled: walled}
	defer func() {
		for _, undo := range slices.Backward(b.undo) {
			err = errors.Join(err, undo())
		}
	}()
	if err := b.setUp(ctx); err != nil {
		return err
	}
	most, err := maxDatasets(b.env.Root)
	if err != nil {
		return err
	}
	in := world(most)
	tenants := in.Tenants
	if err := b.makeTenants(ctx, tenants[:min(few, len(tenants))], 0); err != nil {
		return err
	}
	if err := b.makeStore(ctx, in); err != nil {
		return err
	}
	small, err := b.renew(ctx, "few")
	if err != nil {
		return err
	}
	b.step("%d tenants", len(tenants))
	if err := b.makeTenants(ctx, tenants[min(few, len(tenants)):], few); err != nil {
		return err
	}
	if err := b.begin(ctx, "many"); err != nil {
		return err
	}
	large, err := b.renew(ctx, "many")
	if err != nil {
		return err
	}
	writes, stopped, err := b.onboard(ctx)
	if err != nil {
		return err
	}
	keyserver, err := b.keyserver.peak()
	if err != nil {
		return err
	}
	manager, err := b.manager.peak()
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "a renewal: %s of a processor with %d tenants, %s with %d, one every %s; what %d asked, by path: %s\n", small.cpu.Round(10*time.Microsecond), min(few, len(tenants)),
		large.cpu.Round(10*time.Microsecond), len(tenants), large.every.Round(100*time.Millisecond), renewals, large.paths)
	fmt.Fprintf(out, "lease_api_calls=%.1f\nlease_read_bytes=%.0f\nlease_cpu_ratio=%.2f\n", large.calls, large.bytes, float64(large.cpu)/float64(small.cpu))
	fmt.Fprintf(out, "lease_calls_per_minute=%.0f\nwatch_calls_per_minute=%.0f\n", large.perMinute, large.watches)
	fmt.Fprintf(out, "onboarding_plan_writes=%d\nonboarding_stopped_sweeps=%d\n", writes, stopped)
	fmt.Fprintf(out, "keyserver_rss_mib=%.1f\nmanager_rss_mib=%.1f\ntook_s=%.0f\n", keyserver, manager, time.Since(b.begun).Seconds())
	return nil
}

// maxDatasets is how many datasets a DataStore may have, by its schema.
func maxDatasets(root string) (int, error) {
	content, err := os.ReadFile(filepath.Join(root, "config", "crd", "bases", "lethe.dev_datastores.yaml"))
	if err != nil {
		return 0, fmt.Errorf("read the schema: %w", err)
	}
	var crd apiextensionsv1.CustomResourceDefinition
	if err := yaml.Unmarshal(content, &crd); err != nil {
		return 0, fmt.Errorf("read the schema: %w", err)
	}
	most := crd.Spec.Versions[0].Schema.OpenAPIV3Schema.Properties["spec"].Properties["datasets"].MaxItems
	if most == nil {
		return 0, errors.New("the schema does not say how many datasets a DataStore may have")
	}
	return int(*most), nil
}

// setUp starts an API server, and the two programs with the rights of the chart.
func (b *bench) setUp(ctx context.Context) (err error) {
	b.step("an API server, the manager, the keyserver")
	if b.env, err = env.New(ctx); err != nil {
		return fmt.Errorf("start an API server: %w", err)
	}
	b.undo = append(b.undo, b.env.Stop)
	if b.folder, err = os.MkdirTemp("", "lethe-tenants-"); err != nil {
		return fmt.Errorf("make a folder: %w", err)
	}
	b.undo = append(b.undo, func() error { return os.RemoveAll(b.folder) })
	b.admin = b.env.Client
	config := b.env.ConfigFor("system:kube-controller-manager", "system:masters")
	if b.cluster, err = client.New(config, client.Options{Scheme: b.env.Scheme}); err != nil {
		return fmt.Errorf("make a client: %w", err)
	}
	if err := b.env.ApplyFile(ctx, filepath.Join(b.env.Root, "config", "manager", "priorityclasses.yaml")); err != nil {
		return err
	}
	if err := b.admin.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: elsewhere}}); err != nil {
		return fmt.Errorf("make a namespace: %w", err)
	}
	b.playKubernetes(ctx)
	for name, pkg := range map[string]string{"manager": ".", "keyserver": "./cmd/keyserver"} {
		cmd := exec.CommandContext(ctx, "go", "build", "-o", filepath.Join(b.folder, name), pkg)
		cmd.Dir = b.env.Root
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("go build %s: %w\n%s", pkg, err, out)
		}
	}
	return b.startPrograms(ctx)
}

// playKubernetes is what of the controller-manager is needed.
func (b *bench) playKubernetes(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	played := &kcm.Controllers{Client: b.cluster, Reader: b.cluster}
	var group sync.WaitGroup
	group.Go(func() {
		for ctx.Err() == nil {
			_ = played.Once() // what failed is done the next time
			select {
			case <-ctx.Done():
			case <-time.After(2 * time.Second):
			}
		}
	})
	b.undo = append(b.undo, func() error { cancel(); group.Wait(); return nil })
}

func (b *bench) startPrograms(ctx context.Context) error {
	var err error
	if b.wire, err = newWire(b.env.Config); err != nil {
		return err
	}
	// With TLS: over a plain connection the keyserver would send no token.
	proxy := httptest.NewUnstartedServer(b.wire)
	proxy.EnableHTTP2 = true
	proxy.StartTLS()
	b.undo = append(b.undo, func() error { proxy.CloseClientConnections(); proxy.Close(); return nil })
	kek := make([]byte, 32)
	if _, err := rand.Read(kek); err != nil {
		return fmt.Errorf("read randomness: %w", err)
	}
	token, err := b.env.Token(ctx, env.SystemNamespace, resources.ServiceAccountManager, v1alpha1.AudienceKeyserver, nil)
	if err != nil {
		return err
	}
	for name, content := range map[string]string{"kek": base64.StdEncoding.EncodeToString(kek), "manager-token": token} {
		if err := os.WriteFile(filepath.Join(b.folder, name), []byte(content), 0o600); err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
	}
	listen, err := ports.Address()
	if err != nil {
		return err
	}
	b.url = "https://localhost" + strings.TrimPrefix(listen, "127.0.0.1")
	common := []string{"--image=" + image, "--namespace=" + env.SystemNamespace, "--keys-namespace=" + env.KeysNamespace, "--keyserver-url=" + b.url}
	config, err := b.kubeconfig(ctx, "lethe-keyserver", proxy.URL, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: proxy.Certificate().Raw}))
	if err != nil {
		return err
	}
	b.keyserver, err = start(ctx, b.folder, "keyserver", config, append(common, "--realm="+realm, "--kek-file="+filepath.Join(b.folder, "kek"), "--listen="+listen)...)
	if err != nil {
		return err
	}
	b.undo = append(b.undo, b.keyserver.stop)
	if config, err = b.kubeconfig(ctx, resources.ServiceAccountManager, address(b.env.Config), b.env.Config.CAData); err != nil {
		return err
	}
	b.manager, err = start(ctx, b.folder, "manager", config, append(common, "--token-file="+filepath.Join(b.folder, "manager-token"), "--leader-elect=false")...)
	if err != nil {
		return err
	}
	b.undo = append(b.undo, b.manager.stop)
	return nil
}

// kubeconfig of a ServiceAccount of Lethe's, by a way to the API server.
func (b *bench) kubeconfig(ctx context.Context, account, server string, ca []byte) (string, error) {
	request := &authenticationv1.TokenRequest{} // for the API server itself
	if err := b.admin.SubResource("token").Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: env.SystemNamespace, Name: account}}, request); err != nil {
		return "", fmt.Errorf("ask for a token of %s: %w", account, err)
	}
	config := clientcmdapi.NewConfig()
	config.Clusters["bench"] = &clientcmdapi.Cluster{Server: server, CertificateAuthorityData: ca}
	config.AuthInfos["bench"] = &clientcmdapi.AuthInfo{Token: request.Status.Token}
	config.Contexts["bench"] = &clientcmdapi.Context{Cluster: "bench", AuthInfo: "bench"}
	config.CurrentContext = "bench"
	path := filepath.Join(b.folder, account+".kubeconfig")
	if err := clientcmd.WriteToFile(*config, path); err != nil {
		return "", fmt.Errorf("write a kubeconfig: %w", err)
	}
	return path, nil
}

// makeTenants of customers. The first ones get a namespace from the manager; the others list one that is nobody's, so
// that they are known and cost the API server no walls.
func (b *bench) makeTenants(ctx context.Context, tenants []v1alpha1.Tenant, before int) error {
	const workers = 8
	var next atomic.Int64
	var group sync.WaitGroup
	failed := make([]error, workers)
	for w := range workers {
		group.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(tenants) && ctx.Err() == nil && failed[w] == nil; i = int(next.Add(1)) - 1 {
				failed[w] = b.makeTenant(ctx, &tenants[i], before+i < b.walled)
			}
		})
	}
	group.Wait()
	return errors.Join(append(failed, ctx.Err())...)
}

func (b *bench) makeTenant(ctx context.Context, t *v1alpha1.Tenant, walled bool) error {
	made := t.DeepCopy()
	made.Spec.Namespaces = []v1alpha1.TenantNamespace{{Name: elsewhere}}
	if walled {
		made.Spec.Namespaces[0].Name = made.Name
	}
	if err := b.admin.Create(ctx, made); err != nil {
		return fmt.Errorf("make a tenant: %w", err)
	}
	return nil
}

// makeStore makes the platform, its policy and its store, and waits until the manager has planned its sweeps.
func (b *bench) makeStore(ctx context.Context, in plan.Input) error {
	b.step("a store of %d datasets", len(in.Store.Spec.Datasets))
	platform := &v1alpha1.Tenant{ObjectMeta: metav1.ObjectMeta{Name: in.StoreTenant.Name},
		Spec: v1alpha1.TenantSpec{Class: v1alpha1.TenantPlatform, Namespaces: []v1alpha1.TenantNamespace{{Name: in.Store.Namespace}}}}
	for _, o := range []client.Object{platform, in.Policies[0].DeepCopy()} {
		if err := b.admin.Create(ctx, o); err != nil {
			return fmt.Errorf("make the platform: %w", err)
		}
	}
	err := until(ctx, "the platform's Tenant", 5*time.Minute, func() (bool, error) {
		err := b.admin.Get(ctx, client.ObjectKeyFromObject(platform), platform)
		return err == nil && meta.IsStatusConditionTrue(platform.Status.Conditions, v1alpha1.ConditionReady) && len(platform.Status.SealingKeys) > 0, err
	})
	if err != nil {
		return fmt.Errorf("%w: %+v", err, platform.Status.Conditions)
	}
	b.store = in.Store.DeepCopy()
	b.store.UID = ""
	key := platform.Status.SealingKeys[0]
	public, err := sealing.ParsePublicKey(key.Suite, key.Public)
	if err != nil {
		return fmt.Errorf("read the platform's key: %w", err)
	}
	sealed, err := sealing.Seal(public, sealing.Place{Realm: key.Realm, Tenant: platform.Name, Namespace: b.store.Namespace, Kind: sealing.KindDataStore, Name: b.store.Name,
		Key: sealing.PasswordKey, Version: 1, Destination: sealing.DestinationOf(&b.store.Spec)}, []byte("password-of-the-bench"))
	if err != nil {
		return fmt.Errorf("seal a password: %w", err)
	}
	b.store.Spec.Postgres.Password = v1alpha1.SealedValue(sealed)
	if err := b.admin.Create(ctx, b.store); err != nil {
		return fmt.Errorf("make the store: %w", err)
	}
	return b.begin(ctx, "few")
}

// begin waits until the manager has written the plan that the objects give now, and begins a sweep by it, as the
// CronJob's controller and a kubelet would.
func (b *bench) begin(ctx context.Context, name string) error {
	if err := b.quiet(ctx); err != nil {
		return err
	}
	var cron batchv1.CronJob
	err := until(ctx, "the store's plan", 10*time.Minute, func() (bool, error) {
		if err := b.admin.Get(ctx, client.ObjectKeyFromObject(b.store), b.store); err != nil {
			return false, err
		}
		compiled, err := planner.Store(ctx, b.admin, b.store, time.Now())
		if err != nil {
			return false, err
		}
		if b.hash, err = plan.Hash(compiled.Plan); err != nil {
			return false, err
		}
		if err := b.admin.Get(ctx, client.ObjectKey{Namespace: b.store.Namespace, Name: resources.SweepName(b.store.Name)}, &cron); err != nil {
			return false, client.IgnoreNotFound(err)
		}
		volumes := cron.Spec.JobTemplate.Spec.Template.Spec.Volumes
		return slices.ContainsFunc(volumes, func(v corev1.Volume) bool {
			return v.ConfigMap != nil && v.ConfigMap.Name == resources.PlanName(b.store.Name, b.hash)
		}), nil
	})
	if err != nil {
		return fmt.Errorf("%w: %+v", err, b.store.Status.Conditions)
	}
	job := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Namespace: cron.Namespace, Name: "sweep-" + name, OwnerReferences: []metav1.OwnerReference{
		*metav1.NewControllerRef(&cron, batchv1.SchemeGroupVersion.WithKind("CronJob"))}}, Spec: *cron.Spec.JobTemplate.Spec.DeepCopy()}
	if err := b.cluster.Create(ctx, job); err != nil {
		return fmt.Errorf("make a Job: %w", err)
	}
	template := job.Spec.Template
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: job.Namespace, Name: job.Name + "-abcde", Labels: template.Labels, Annotations: template.Annotations,
		OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(job, batchv1.SchemeGroupVersion.WithKind("Job"))}}, Spec: *template.Spec.DeepCopy()}
	if err := b.cluster.Create(ctx, pod); err != nil {
		return fmt.Errorf("make a pod: %w", err)
	}
	return b.firstLease(ctx, pod)
}

// firstLease releases the lease of the sweep before, and takes one for a pod.
func (b *bench) firstLease(ctx context.Context, pod *corev1.Pod) error {
	if b.lease != nil {
		if err := b.lease.Release(ctx, b.hash); err != nil {
			return fmt.Errorf("end the sweep before: %w", err)
		}
	}
	kubelet, err := client.New(b.env.ConfigFor("kubelet", "system:nodes", "system:masters"), client.Options{Scheme: b.env.Scheme})
	if err != nil {
		return fmt.Errorf("make a client: %w", err)
	}
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{Audiences: []string{v1alpha1.AudienceKeyserver},
		BoundObjectRef: &authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: pod.Name, UID: pod.UID}}}
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Spec.ServiceAccountName}}
	if err := kubelet.SubResource("token").Create(ctx, account, request); err != nil {
		return fmt.Errorf("ask for the pod's token: %w", err)
	}
	file := filepath.Join(b.folder, pod.Name+".token")
	if err := os.WriteFile(file, []byte(request.Status.Token), 0o600); err != nil {
		return fmt.Errorf("write a token: %w", err)
	}
	b.lease, err = keyclient.New(keyclient.Options{URL: b.url, TokenFile: file, CA: func(ctx context.Context) ([]byte, error) {
		var bundle corev1.ConfigMap
		err := b.admin.Get(ctx, client.ObjectKey{Namespace: env.SystemNamespace, Name: resources.CABundleName}, &bundle)
		return []byte(bundle.Data[resources.CABundleKey]), err
	}})
	if err != nil {
		return fmt.Errorf("make a client of the keyserver: %w", err)
	}
	lease, err := b.lease.Lease(ctx, keyapi.LeaseRequest{PlanHash: b.hash}, true)
	if err != nil {
		return fmt.Errorf("the first lease: %w", err)
	}
	if len(lease.Items) != 1 {
		return fmt.Errorf("the first lease came with %d passwords", len(lease.Items))
	}
	return nil
}
