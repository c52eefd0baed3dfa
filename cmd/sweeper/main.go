// Command sweeper measures one store and deletes from it what its plan allows, and reports through its termination
// message.
//
// Exit codes: 0 when the report says Done, Stopped or Refused: the sweep did what it should, and the report says what
// a person must do; a Job that failed would say less. 1 when it says Failed. 2 when no report could be written, or
// the flags are wrong.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"
	_ "time/tzdata" // the image has no zones of its own

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/foreign"
	"github.com/lethe-dev/lethe/internal/keyclient"
	"github.com/lethe-dev/lethe/internal/plan"
	"github.com/lethe-dev/lethe/internal/report"
	"github.com/lethe-dev/lethe/internal/stores"
	"github.com/lethe-dev/lethe/internal/stores/postgres"
	"github.com/lethe-dev/lethe/internal/sweep"
)

const (
	exitFailed   = 1
	exitNoReport = 2
)

type options struct {
	url, caFile, tokenFile string
	planFile, planHash     string
	terminationLog         string
	budget                 time.Duration
}

func main() {
	os.Exit(run(os.Args[1:], os.Stderr))
}

func run(args []string, stderr io.Writer) int {
	text := foreign.NewWriter(stderr)
	o, err := parse(args, text)
	if err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		fmt.Fprintln(text, foreign.Text(foreign.Err(err)))
		return exitNoReport
	}
	log := foreign.NewLogger(stderr, slog.LevelInfo)
	slog.SetDefault(log)
	r := o.sweep(log)
	log.Info("Finished sweep", "outcome", r.Outcome, "reason", r.Reason, "message", r.Message)
	if err := write(o.terminationLog, r); err != nil {
		log.Error("Could not write report", "cause", err)
		return exitNoReport
	}
	if r.Outcome == report.Failed {
		return exitFailed
	}
	return 0
}

func parse(args []string, stderr io.Writer) (options, error) {
	var o options
	f := flag.NewFlagSet("sweeper", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.StringVar(&o.url, "url", "", "address of the keyserver, https://host:port")
	f.StringVar(&o.caFile, "ca-file", "", "PEM bundle that the keyserver's certificate must chain to")
	f.StringVar(&o.tokenFile, "token-file", "", "the pod's token with the audience lethe.dev/keyserver")
	f.StringVar(&o.planFile, "plan", "", "the plan to run")
	f.StringVar(&o.planHash, "plan-hash", "", "SHA-256 of the plan, in hex")
	f.StringVar(&o.terminationLog, "termination-log", "/dev/termination-log", "where to write the report")
	f.DurationVar(&o.budget, "time-budget", 45*time.Minute, "time after which no batch begins any more")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	for name, value := range map[string]string{"url": o.url, "ca-file": o.caFile, "token-file": o.tokenFile, "plan": o.planFile, "plan-hash": o.planHash} {
		if value == "" {
			return o, fmt.Errorf("--%s is required", name)
		}
	}
	if f.NArg() > 0 || o.budget <= 0 {
		return o, errors.New("no arguments are taken, and --time-budget must be positive")
	}
	return o, nil
}

// sweep reads the plan and runs it until it ends or the pod is asked to.
func (o options) sweep(log *slog.Logger) report.Report {
	began := time.Now().Unix()
	refused := func(reason, message string) report.Report {
		return report.Report{Plan: o.planHash, Started: began, Finished: time.Now().Unix(), Outcome: report.Refused, Reason: reason, Message: message}
	}
	b, err := os.ReadFile(o.planFile)
	if err != nil {
		return refused(v1alpha1.ReasonPlanMismatch, "the plan cannot be read: is its ConfigMap mounted?")
	}
	if plan.HashBytes(b) != o.planHash {
		return refused(v1alpha1.ReasonPlanMismatch, "the plan is not the one whose hash the pod was given: it was edited")
	}
	p, err := plan.Decode(b)
	if errors.Is(err, plan.ErrFormat) {
		return refused(v1alpha1.ReasonPlanMismatch, err.Error())
	}
	if err != nil {
		return refused(v1alpha1.ReasonPlanMismatch, "the plan cannot be read by this version of the sweeper")
	}
	client, err := keyclient.New(keyclient.Options{URL: o.url, CAFile: o.caFile, TokenFile: o.tokenFile})
	if err != nil {
		return refused(v1alpha1.ReasonLeaseRefused, err.Error())
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, os.Interrupt)
	defer signal.Stop(signals)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	stop := make(chan struct{})
	go func() {
		select {
		case <-signals:
			close(stop)
		case <-ctx.Done():
		}
	}()
	return sweep.Run(ctx, sweep.Options{Plan: p, Engines: stores.Engines{postgres.Engine{}}, Hash: o.planHash, Leaser: client, Budget: o.budget, Stop: stop, Clock: time.Now, Log: log})
}

// write leaves the report where the kubelet picks it up. If it does not fit, what names things goes before what counts.
func write(path string, r report.Report) error {
	b, err := report.Encode(r)
	if err != nil {
		r.Uncovered, r.Undeclared, r.Pointers, r.Datasets, r.Truncated = nil, nil, nil, nil, report.Measurements(r.Datasets)
		if b, err = report.Encode(r); err != nil {
			return err
		}
	}
	if err := os.WriteFile(path, b, 0o600); err != nil { //nolint:gosec // the path is the pod's own flag
		return fmt.Errorf("write the report: %w", err)
	}
	return nil
}
