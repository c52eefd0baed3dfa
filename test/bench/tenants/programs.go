package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"k8s.io/client-go/rest"

	"github.com/lethe-dev/lethe/test/ports"
)

// program is the manager or the keyserver, in a process of its own.
type program struct {
	name  string
	cmd   *exec.Cmd
	ended chan error
	log   *os.File
}

// start runs a program with a kubeconfig and waits until it is ready.
func start(ctx context.Context, folder, name, kubeconfig string, args ...string) (*program, error) {
	health, err := ports.Address()
	if err != nil {
		return nil, err
	}
	p := &program{name: name, ended: make(chan error, 1)}
	if p.log, err = os.Create(filepath.Join(folder, name+".log")); err != nil {
		return nil, fmt.Errorf("open a log: %w", err)
	}
	args = append(args, "--metrics-bind-address=0", "--health-probe-bind-address="+health)
	p.cmd = exec.Command(filepath.Join(folder, name), args...)
	p.cmd.Env = append(os.Environ(), "KUBECONFIG="+kubeconfig)
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is ours to pass on
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the %s: %w", name, err)
	}
	go func() { p.ended <- p.cmd.Wait() }()
	err = until(ctx, "the "+name, time.Minute, func() (bool, error) {
		select {
		case err := <-p.ended:
			p.ended <- err
			return false, fmt.Errorf("it ended: %w: %s", err, p.lastWords())
		default:
		}
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+health+"/readyz", nil)
		if err != nil {
			return false, err
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			return false, nil //nolint:nilerr // it does not listen yet
		}
		return resp.StatusCode == http.StatusOK, resp.Body.Close()
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%w: %s", err, p.lastWords()), p.stop())
	}
	return p, nil
}

// stop ends the program by its own means, and by force when that takes too long.
func (p *program) stop() error {
	defer func() { _ = p.log.Close() }()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop the %s: %w", p.name, err)
	}
	kill := time.AfterFunc(30*time.Second, func() { _ = p.cmd.Process.Kill() })
	defer kill.Stop()
	if err := <-p.ended; err != nil {
		return fmt.Errorf("the %s did not end well: %w: %s", p.name, err, p.lastWords())
	}
	return nil
}

func (p *program) lastWords() string {
	b, err := os.ReadFile(p.log.Name())
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-2000):])
}

// peak is the most memory that the program ever had, in MiB.
func (p *program) peak() (float64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0, fmt.Errorf("read the memory of the %s: %w", p.name, err)
	}
	for line := range bytes.Lines(b) {
		if f := strings.Fields(string(line)); len(f) > 1 && f[0] == "VmHWM:" {
			kib, err := strconv.ParseFloat(f[1], 64)
			return kib / 1024, err
		}
	}
	return 0, fmt.Errorf("the kernel does not say how much memory the %s had", p.name)
}

// processor time of the program so far.
func (p *program) processor() (time.Duration, error) {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", p.cmd.Process.Pid))
	if err != nil || len(threads) == 0 {
		return 0, fmt.Errorf("find the threads of the %s: %w", p.name, cmp.Or(err, os.ErrNotExist))
	}
	var total time.Duration
	for _, thread := range threads {
		b, err := os.ReadFile(thread)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("read the processor time of the %s: %w", p.name, err)
		}
		used, _, _ := strings.Cut(string(b), " ")
		n, err := strconv.ParseInt(used, 10, 64) // nanoseconds
		if err != nil {
			return 0, fmt.Errorf("read the processor time of the %s: %w", p.name, err)
		}
		total += time.Duration(n)
	}
	return total, nil
}

// wire is a way to the API server on which everything is counted. Watches are counted apart: they belong to no renewal.
type wire struct {
	proxy   *httputil.ReverseProxy
	calls   atomic.Int64
	bytes   atomic.Int64
	watches atomic.Int64

	mu    sync.Mutex
	paths map[string]int // of the calls, since the last look
}

func newWire(to *rest.Config) (*wire, error) {
	target, err := url.Parse(address(to))
	if err != nil {
		return nil, fmt.Errorf("read the API server's address: %w", err)
	}
	tls, err := rest.TLSConfigFor(&rest.Config{TLSClientConfig: rest.TLSClientConfig{CAData: to.CAData}})
	if err != nil {
		return nil, fmt.Errorf("trust the API server: %w", err)
	}
	w := &wire{paths: map[string]int{}}
	w.proxy = &httputil.ReverseProxy{FlushInterval: -1, Transport: &http.Transport{TLSClientConfig: tls, ForceAttemptHTTP2: true},
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) },
		ModifyResponse: func(r *http.Response) error {
			if !isWatch(r.Request) {
				r.Body = &counted{r.Body, &w.bytes}
			}
			return nil
		}}
	return w, nil
}

// address of an API server, with its scheme.
func address(of *rest.Config) string {
	if strings.Contains(of.Host, "://") {
		return of.Host
	}
	return "https://" + of.Host
}

func isWatch(r *http.Request) bool { return r.URL.Query().Get("watch") == "true" }

func (w *wire) ServeHTTP(to http.ResponseWriter, r *http.Request) {
	if isWatch(r) {
		w.watches.Add(1)
	} else {
		w.calls.Add(1)
		w.mu.Lock()
		w.paths[r.Method+" "+r.URL.Path]++
		w.mu.Unlock()
	}
	w.proxy.ServeHTTP(to, r)
}

// look is what was called since the last look.
func (w *wire) look() map[string]int {
	w.mu.Lock()
	defer w.mu.Unlock()
	paths := w.paths
	w.paths = map[string]int{}
	return paths
}

type counted struct {
	io.ReadCloser
	into *atomic.Int64
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.ReadCloser.Read(b)
	c.into.Add(int64(n))
	return n, err
}

// until asks until the answer is yes, there is an error, or it takes too long.
func until(ctx context.Context, what string, most time.Duration, done func() (bool, error)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, most, fmt.Errorf("%s: not after %s", what, most))
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		ok, err := done()
		if ok {
			return nil
		}
		if err != nil {
			return fmt.Errorf("wait for %s: %w", what, err)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}
