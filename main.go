// Command manager is the operator: it turns Tenants, BotDeployments, DataStores and DataRetentionPolicies into what
// they ask for. It holds no right on Secrets and no key.
//
//	manager [flags]            run
//	manager check-uninstall    fail while Tenants exist: without the manager nothing could take them down in order
//
// Exit codes: 0 stopped by a signal (or nothing to check), 1 failed while running (or Tenants exist), 2 wrong flags.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime/debug"
	"strings"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/controllers"
	"github.com/lethe-dev/lethe/internal/dnscheck"
	"github.com/lethe-dev/lethe/internal/foreign"
	"github.com/lethe-dev/lethe/internal/keyclient"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/internal/rollout"
	"github.com/lethe-dev/lethe/internal/version"
)

const (
	exitFailed = 1
	exitUsage  = 2

	leaseName = "lethe-manager"

	// gcPercent is Go's GOGC unless the environment says otherwise: the manager rests most of the time, so that
	// collecting more often costs less than the room that garbage takes beside a thousand bots.
	gcPercent = 40
)

type options struct {
	settings      resources.Settings
	keysNamespace string
	tokenFile     string
	leaderElect   bool
	workers       int
	policyKinds   string
	changes       string
	rollout       rollout.Limits
	metrics       string
	health        string
	verbosity     int
}

func main() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	os.Exit(run(ctrl.SetupSignalHandler(), os.Args[1:]))
}

// run does what the arguments say until the context ends, and returns the exit code.
func run(ctx context.Context, args []string) int {
	stderr := foreign.NewWriter(os.Stderr)
	log := logTo(os.Stderr, 0)
	if len(args) > 0 && args[0] == "check-uninstall" {
		if err := checkUninstall(ctx); err != nil {
			fmt.Fprintln(stderr, foreign.Line(foreign.Err(err), foreign.MaxLogged))
			return exitFailed
		}
		return 0
	}
	o, err := parse(args)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		log.Error("Not started", "cause", err)
		return exitUsage
	}
	log = logTo(os.Stderr, o.verbosity)
	mgr, err := newManager(ctx, o)
	if err != nil {
		log.Error("Not started", "cause", err)
		return exitFailed
	}
	log.Info("Starting", "version", version.String())
	if err := mgr.Start(ctx); err != nil {
		log.Error("Failed", "cause", err)
		return exitFailed
	}
	return 0
}

// logTo makes the one log of the process, and has every library log there: what others say is cleaned on the way.
// Beyond 4 it says no more: there a client of the API server logs whole requests and answers.
func logTo(w io.Writer, verbosity int) *slog.Logger {
	log := foreign.NewLogger(w, max(slog.Level(-verbosity), slog.LevelDebug))
	slog.SetDefault(log)
	ctrl.SetLogger(logr.FromSlogHandler(log.Handler()))
	klog.SetSlogLogger(log)
	return log
}

func parse(args []string) (options, error) {
	var o options
	flags := flag.NewFlagSet("manager", flag.ContinueOnError)
	flags.SetOutput(foreign.NewWriter(os.Stderr))
	o.settings.AddFlags(flags)
	flags.StringVar(&o.keysNamespace, "keys-namespace", "lethe-keys", "namespace of the wrapped keys, which no Tenant may have")
	flags.StringVar(&o.tokenFile, "token-file", "/var/run/secrets/lethe.dev/token", "file with the manager's token for the keyserver")
	flags.BoolVar(&o.leaderElect, "leader-elect", true, "work only while holding the lease, so that replicas take turns")
	flags.IntVar(&o.workers, "workers", 10, "objects of one kind that are worked on at a time")
	flags.StringVar(&o.policyKinds, "network-policy-kinds", controllers.DefaultPolicyKinds,
		"kinds of network policies that keep bots from starting where another client made one: resource.group,resource.group")
	flags.StringVar(&o.changes, "changes-budget", controllers.DefaultChangesBudget,
		"bytes that may be written to the bots and stores of one Tenant within five minutes; past it, changes are paused")
	flags.IntVar(&o.rollout.Percent, "rollout-percent", rollout.DefaultPercent, "percent of all bots, and at least one, that may be unready at a time because Lethe restarts them")
	flags.IntVar(&o.rollout.StopAfter, "rollout-stop-after", rollout.DefaultStopAfter, "bots that were ready and fail after Lethe has restarted them, before it restarts no more")
	flags.DurationVar(&o.rollout.Deadline, "rollout-deadline", rollout.DefaultDeadline, "how long a bot that Lethe has restarted may take until it is ready, before it counts as failed")
	flags.StringVar(&o.metrics, "metrics-bind-address", ":8080", "address of the metrics, plain HTTP; 0 for none")
	flags.StringVar(&o.health, "health-probe-bind-address", ":8081", "address of /healthz and /readyz, plain HTTP")
	flags.IntVar(&o.verbosity, "v", 0, "4 for what was looked at and left as it is")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	problems := []error{o.settings.Validate(), o.rollout.Validate()}
	if flags.NArg() > 0 {
		problems = append(problems, fmt.Errorf("unexpected argument %q", flags.Arg(0)))
	}
	if o.verbosity < 0 || o.verbosity > 4 {
		problems = append(problems, fmt.Errorf("--v %d is not between 0 and 4: there is no more to say", o.verbosity))
	}
	if o.workers < 1 {
		problems = append(problems, fmt.Errorf("--workers %d is less than 1", o.workers))
	}
	if _, err := controllers.ParsePolicyKinds(o.policyKinds); err != nil {
		problems = append(problems, fmt.Errorf("--network-policy-kinds: %w", err))
	}
	if _, err := controllers.ParseChangesBudget(o.changes); err != nil {
		problems = append(problems, fmt.Errorf("--changes-budget: %w", err))
	}
	if o.tokenFile == "" {
		problems = append(problems, errors.New("--token-file is empty"))
	}
	if o.keysNamespace == "" || o.keysNamespace == o.settings.Namespace {
		problems = append(problems, errors.New("--keys-namespace must name a namespace other than --namespace"))
	}
	return o, errors.Join(problems...)
}

func newManager(ctx context.Context, o options) (ctrl.Manager, error) {
	cfg, err := ctrl.GetConfig()
	if err != nil {
		return nil, fmt.Errorf("find the API server: %w", err)
	}
	cfg.QPS = -1
	cfg.UserAgent = "lethe-manager/" + version.String()
	limit, err := controllers.ParseChangesBudget(o.changes)
	if err != nil {
		return nil, err
	}
	changes := controllers.NewChanges(limit, clock.RealClock{})
	managerOptions, err := controllers.ManagerOptions(cfg, o.workers, changes)
	if err != nil {
		return nil, err
	}
	managerOptions.Scheme, err = newScheme()
	if err != nil {
		return nil, err
	}
	// The servers of controller-runtime take any number of connections: observe opens ours instead.
	managerOptions.Metrics = metricsserver.Options{BindAddress: "0"}
	managerOptions.HealthProbeBindAddress = "0"
	managerOptions.LeaderElection = o.leaderElect
	managerOptions.LeaderElectionID = leaseName
	managerOptions.LeaderElectionNamespace = o.settings.Namespace
	// The process ends with the manager, so the next leader need not wait for the lease to run out.
	managerOptions.LeaderElectionReleaseOnCancel = true
	mgr, err := ctrl.NewManager(cfg, managerOptions)
	if err != nil {
		return nil, fmt.Errorf("make the manager: %w", err)
	}
	keys, err := keyclient.New(keyclient.Options{URL: o.settings.KeyserverURL, CA: caBundle(mgr.GetClient(), o.settings.Namespace), TokenFile: o.tokenFile})
	if err != nil {
		return nil, fmt.Errorf("make the keyserver's client: %w", err)
	}
	kinds, err := controllers.ParsePolicyKinds(o.policyKinds)
	if err != nil {
		return nil, err
	}
	if err := controllers.CloseAPIServers(ctx, mgr.GetAPIReader(), &o.settings); err != nil {
		return nil, err
	}
	if err := mgr.Add(controllers.WatchAPIServers(mgr.GetAPIReader(), o.settings)); err != nil {
		return nil, fmt.Errorf("watch the API server's addresses: %w", err)
	}
	err = controllers.Setup(ctx, mgr, controllers.Options{Settings: o.settings, Keys: keys, KeysNamespace: o.keysNamespace, PolicyKinds: kinds, Changes: changes, Rollout: o.rollout, Metrics: metrics.Registry,
		DNS: dnscheck.New(o.settings, mgr.GetAPIReader(), mgr.GetClient())})
	if err != nil {
		return nil, err
	}
	if err := observe(ctx, mgr, o); err != nil {
		return nil, err
	}
	return mgr, nil
}

// caBundle reads the certificates that the keyserver's must chain to, as the keyserver publishes them.
func caBundle(c client.Reader, namespace string) func(context.Context) ([]byte, error) {
	return func(ctx context.Context) ([]byte, error) {
		bundle := &corev1.ConfigMap{}
		if err := c.Get(ctx, client.ObjectKey{Namespace: namespace, Name: resources.CABundleName}, bundle); err != nil {
			return nil, fmt.Errorf("read the keyserver's CA bundle: %w", err)
		}
		return []byte(bundle.Data[resources.CABundleKey]), nil
	}
}

func newScheme() (*runtime.Scheme, error) {
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		return nil, fmt.Errorf("register kinds: %w", err)
	}
	return scheme, nil
}

// checkUninstall names the Tenants that would be left without anybody to take them down.
func checkUninstall(ctx context.Context) error {
	cfg, err := ctrl.GetConfig()
	if err != nil {
		return fmt.Errorf("find the API server: %w", err)
	}
	scheme, err := newScheme()
	if err != nil {
		return err
	}
	c, err := client.New(cfg, client.Options{Scheme: scheme})
	if err != nil {
		return fmt.Errorf("make a client: %w", err)
	}
	tenants := &v1alpha1.TenantList{}
	if err := c.List(ctx, tenants); err != nil {
		return fmt.Errorf("list Tenants: %w", err)
	}
	var names []string
	for i := range tenants.Items {
		names = append(names, tenants.Items[i].Name)
	}
	if len(names) > 0 {
		return fmt.Errorf("only a running manager can take Tenants down in order, and these exist: %s: delete them first (kubectl delete tenant NAME); "+
			"nothing was removed, and `helm rollback` to the release's last revision lets Helm go on with it", strings.Join(names, ", "))
	}
	return nil
}
