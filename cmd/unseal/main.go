// Command unseal is the init container of a bot's pod: it asks the keyserver for the pod's credentials and writes
// them into memory. It talks to nothing but the keyserver.
//
// Exit codes: 0 written, 1 the keyserver refused or did not answer in time, 2 wrong flags, 3 a file could not be
// written or a value cannot be delivered. The reason is in the termination message, without any value.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"k8s.io/utils/clock"

	"github.com/lethe-dev/lethe/internal/foreign"
	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/internal/keyclient"
)

// Exit codes.
const (
	exitDone     = 0
	exitRefused  = 1
	exitUsage    = 2
	exitDelivery = 3
)

// terminationLog is where Kubernetes reads a container's last words.
const terminationLog = "/dev/termination-log"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	code, message := run(ctx, os.Args[1:])
	stop()
	if message != "" {
		message = foreign.Text(message) // the keyserver's words, a file's name, an address
		fmt.Fprintln(os.Stderr, message)
		// Outside a container there is no such file, and standard error has said it.
		_ = os.WriteFile(terminationLog, []byte(message), 0o600) //nolint:gosec // G703: the path is a constant
	}
	os.Exit(code)
}

type options struct {
	url, caFile, addressesFile, tokenFile, dir, envFile, templates, files string
	timeout                                                               time.Duration
}

func parse(args []string) (options, error) {
	var o options
	flags := flag.NewFlagSet("unseal", flag.ContinueOnError)
	flags.SetOutput(foreign.NewWriter(os.Stderr))
	flags.StringVar(&o.url, "url", "", "address of the keyserver, https://host:port (required)")
	flags.StringVar(&o.caFile, "ca-file", "", "certificates to trust, in PEM (required)")
	flags.StringVar(&o.addressesFile, "addresses-file", "", "addresses of the keyserver, one a line, to try before its name is looked up")
	flags.StringVar(&o.tokenFile, "token-file", "", "the pod's projected token (required)")
	flags.StringVar(&o.dir, "dir", "", "folder in memory for credentials delivered as files (required)")
	flags.StringVar(&o.envFile, "env-file", "", "file in memory for credentials delivered as variables; only where there are some")
	flags.StringVar(&o.templates, "templates", "", "folder with the bot's files, in which credentials are named; only where there are some")
	flags.StringVar(&o.files, "files", "", "folder in memory for the same files with the credentials filled in")
	flags.DurationVar(&o.timeout, "timeout", time.Minute, "how long to go on asking")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if o.url == "" || o.caFile == "" || o.tokenFile == "" || o.dir == "" || flags.NArg() > 0 {
		return o, errors.New("--url, --ca-file, --token-file and --dir are required, and nothing else is taken")
	}
	if (o.templates == "") != (o.files == "") {
		return o, errors.New("--templates and --files go together")
	}
	if o.timeout <= 0 {
		return o, errors.New("--timeout must be longer than nothing")
	}
	return o, nil
}

func run(ctx context.Context, args []string) (int, string) {
	o, err := parse(args)
	if errors.Is(err, flag.ErrHelp) {
		return exitDone, ""
	}
	if err != nil {
		return exitUsage, err.Error()
	}
	client, err := keyclient.New(keyclient.Options{URL: o.url, CAFile: o.caFile, AddressesFile: o.addressesFile, TokenFile: o.tokenFile})
	if err != nil {
		return exitUsage, err.Error()
	}
	bundle, err := ask(ctx, client, clock.RealClock{}, o.timeout)
	if err != nil {
		return exitRefused, err.Error()
	}
	if err := deliver(o, bundle); err != nil {
		return exitDelivery, err.Error()
	}
	return exitDone, ""
}

// unsealer is the one call that is made.
type unsealer interface {
	Unseal(ctx context.Context) (keyapi.SecretBundle, error)
}

// Waits between two asks.
const (
	firstWait = 250 * time.Millisecond
	maxWait   = 5 * time.Second
	// unansweredWait is the longest where no keyserver answered.
	unansweredWait = time.Second
)

// ask goes on asking until the keyserver gives the credentials, refuses for good, or the time is up.
func ask(ctx context.Context, client unsealer, c clock.Clock, timeout time.Duration) (keyapi.SecretBundle, error) {
	deadline := c.Now().Add(timeout)
	for wait := firstWait; ; wait = min(2*wait, maxWait) {
		bundle, err := client.Unseal(ctx)
		if err == nil {
			return bundle, nil
		}
		if !keyclient.IsRetryable(err) {
			return bundle, describe(err)
		}
		// What the keyserver asks for is kept to only up to our own longest wait: a pod that starts should start soon.
		pause := min(max(wait, keyclient.RetryAfter(err, 0)), maxWait)
		if keyclient.ReasonOf(err) == "" {
			// A connection that was closed before an answer lost its place in a crowd: the sooner it comes again, the
			// sooner it gets in.
			pause = min(pause, unansweredWait)
		}
		if c.Now().Add(pause).After(deadline) {
			return bundle, fmt.Errorf("no credentials within %s: %w", timeout, describe(err))
		}
		select {
		case <-ctx.Done():
			return bundle, fmt.Errorf("stopped while waiting for credentials: %w", describe(err))
		case <-c.After(pause):
		}
	}
}

func describe(err error) error {
	if reason := keyclient.ReasonOf(err); reason != "" {
		return fmt.Errorf("the keyserver refused (%s): %w", reason, err)
	}
	return err
}
