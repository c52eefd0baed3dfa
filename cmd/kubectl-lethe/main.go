package main

import (
	"context"
	"crypto/rand"
	"errors"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/term"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	ctrl "sigs.k8s.io/controller-runtime"
)

func main() {
	ctrl.SetLogger(logr.Discard())
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	code := run(ctx, osShell(), os.Args[1:])
	stop()
	os.Exit(code)
}

// run returns the exit code.
func run(ctx context.Context, s *shell, args []string) int {
	cmd := newRoot(s)
	cmd.SetArgs(args)
	err := cmd.ExecuteContext(ctx)
	var exit errExit
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errFailing):
		return 1
	case errors.As(err, &exit):
		return int(exit)
	default:
		s.fail(err)
		return 1
	}
}

// errFailing ends a command whose output already says what is wrong.
var errFailing = errors.New("failing")

// osShell is the process's own surroundings.
func osShell() *shell {
	return &shell{
		IOStreams:   genericiooptions.IOStreams{In: os.Stdin, Out: os.Stdout, ErrOut: os.Stderr},
		config:      genericclioptions.NewConfigFlags(true),
		now:         time.Now,
		random:      rand.Reader,
		terminal:    func() bool { return term.IsTerminal(int(os.Stdin.Fd())) },
		outTerminal: func() bool { return term.IsTerminal(int(os.Stdout.Fd())) },
		hidden:      func() ([]byte, error) { return term.ReadPassword(int(os.Stdin.Fd())) },
	}
}
