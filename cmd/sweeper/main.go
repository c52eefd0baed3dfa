// Command sweeper measures one store and deletes from it what its plan allows, and hands its report in at the
// keyserver. Its termination message names the report.
//
// Exit codes: 0 when the report says Done, Stopped or Refused: the sweep did what it should, and the report says what
// a person must do; a Job that failed would say less. 1 when it says Failed. 2 when the report could not be handed in
// or named, or the flags are wrong.
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
	client, unusable := keyclient.New(keyclient.Options{URL: o.url, CAFile: o.caFile, TokenFile: o.tokenFile})
	stop, release := asked()
	defer release()
	r := o.sweep(log, client, unusable, stop)
	log.Info("Finished sweep", "outcome", r.Outcome, "reason", r.Reason, "message", r.Message, "deleted", r.Deleted)
	message, err := o.handIn(log, client, r, stop)
	if err != nil {
		log.Error("Could not hand in the report", "cause", err)
	}
	if err := errors.Join(err, write(o.terminationLog, message)); err != nil {
		log.Error("The sweep is not reported", "cause", err)
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
	f.StringVar(&o.terminationLog, "termination-log", "/dev/termination-log", "where to say which report was handed in")
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

// asked gives a channel that is closed once the pod is asked to end.
func asked() (stop <-chan struct{}, release func()) {
	signals, ended, closed := make(chan os.Signal, 1), make(chan struct{}), make(chan struct{})
	signal.Notify(signals, syscall.SIGTERM, os.Interrupt)
	go func() {
		select {
		case <-signals:
			close(closed)
		case <-ended:
		}
	}()
	return closed, func() { signal.Stop(signals); close(ended) }
}

// sweep reads the plan and runs it until it ends or the pod is asked to.
func (o options) sweep(log *slog.Logger, client *keyclient.Client, unusable error, stop <-chan struct{}) report.Report {
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
	if unusable != nil {
		return refused(v1alpha1.ReasonLeaseRefused, unusable.Error())
	}
	return sweep.Run(context.Background(), sweep.Options{Plan: p, Engines: stores.Engines{postgres.Engine{}}, Hash: o.planHash, Leaser: client, Budget: o.budget, Stop: stop, Clock: time.Now, Log: log})
}
