package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/test/ports"
)

// program is the manager or the keyserver, running on this machine.
type program struct {
	name    string
	cmd     *exec.Cmd
	ended   chan error
	log     *os.File
	started time.Time
	metrics string // URL
	passes  string // URL: of a harness, how much its controllers have done and do, and nothing else
	health  string // URL
	peak    int64  // most memory of all the processes that it has had, KiB
}

func build(ctx context.Context, root, pkg, to string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-o", to, pkg)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build %s: %w\n%s", pkg, err, out)
	}
	return nil
}

// token of a ServiceAccount. An empty audience is the API server's.
func (b *bench) token(ctx context.Context, account, audience string) (string, error) {
	hours := int64(6 * 3600)
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &hours}}
	if audience != "" {
		request.Spec.Audiences = []string{audience}
	}
	sa := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: systemNamespace, Name: account}}
	if err := b.admin.SubResource("token").Create(ctx, sa, request); err != nil {
		return "", fmt.Errorf("ask for a token of %s: %w", account, err)
	}
	return request.Status.Token, nil
}

// identities writes a kubeconfig for each of the two programs, the manager's token for the keyserver, and a KEK.
func (b *bench) identities(ctx context.Context) error {
	for _, account := range []string{managerAccount, keysAccount} {
		token, err := b.token(ctx, account, "")
		if err != nil {
			return err
		}
		config, err := clientcmd.LoadFromFile(b.cluster.Kubeconfig)
		if err != nil {
			return fmt.Errorf("read the kubeconfig: %w", err)
		}
		for name := range config.AuthInfos {
			config.AuthInfos[name] = &clientcmdapi.AuthInfo{Token: token}
		}
		if err := clientcmd.WriteToFile(*config, filepath.Join(b.work, account+".kubeconfig")); err != nil {
			return fmt.Errorf("write a kubeconfig: %w", err)
		}
	}
	token, err := b.token(ctx, managerAccount, v1alpha1.AudienceKeyserver)
	if err != nil {
		return err
	}
	kek := make([]byte, 32)
	if _, err := rand.Read(kek); err != nil {
		return fmt.Errorf("read randomness: %w", err)
	}
	for name, content := range map[string]string{"token": token, "kek": base64.StdEncoding.EncodeToString(kek)} {
		if err := os.WriteFile(filepath.Join(b.work, name), []byte(content), 0o600); err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
	}
	return nil
}

func (b *bench) startKeyserver(ctx context.Context) error {
	address, err := ports.Address()
	if err != nil {
		return err
	}
	b.keyserverURL = "https://localhost" + strings.TrimPrefix(address, "127.0.0.1")
	b.keyserver = &program{name: "keyserver"}
	b.undo = append(b.undo, b.keyserver.stop)
	return b.start(ctx, b.keyserver, keysAccount,
		"--realm="+realm, "--kek-file="+filepath.Join(b.work, "kek"), "--kek-grade=Production", "--listen="+address)
}

func (b *bench) startManager(ctx context.Context) error {
	if b.manager == nil {
		b.manager = &program{name: "manager"}
		b.undo = append(b.undo, b.manager.stop)
	}
	if b.profile != "" {
		return b.startHarness(ctx, b.manager, 10*time.Hour)
	}
	return b.start(ctx, b.manager, managerAccount,
		"--token-file="+filepath.Join(b.work, "token"), "--leader-elect=false", "--workers="+strconv.Itoa(b.workers))
}

// start runs a program as its ServiceAccount and waits until it is ready.
func (b *bench) start(ctx context.Context, p *program, account string, args ...string) error {
	metrics, err := ports.Address()
	if err != nil {
		return err
	}
	health, err := ports.Address()
	if err != nil {
		return err
	}
	p.metrics, p.health = "http://"+metrics+"/metrics", "http://"+health
	args = append(args, "--image="+image, "--namespace="+systemNamespace, "--keys-namespace="+keysNamespace, "--keyserver-url="+b.keyserverURL,
		"--metrics-bind-address="+metrics, "--health-probe-bind-address="+health)
	if p.log, err = os.OpenFile(filepath.Join(b.work, p.name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err != nil {
		return fmt.Errorf("open a log: %w", err)
	}
	// Not bound to the context: it is stopped in its turn, so that what it logs at the end is about itself.
	path := filepath.Join(b.work, p.name)
	if len(args) > 0 && args[0] == harnessCommand {
		path = b.self
	}
	p.cmd = exec.Command(path, args...)
	p.cmd.Env = append(os.Environ(), "KUBECONFIG="+filepath.Join(b.work, account+".kubeconfig"))
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	p.started = time.Now()
	if err := p.cmd.Start(); err != nil {
		return fmt.Errorf("start the %s: %w", p.name, err)
	}
	ended := make(chan error, 1)
	p.ended = ended
	cmd := p.cmd
	go func() { ended <- cmd.Wait() }()
	return waitFor(ctx, "the "+p.name, time.Minute, 20*time.Millisecond, func(ctx context.Context) (bool, string, error) {
		select {
		case err := <-ended:
			ended <- err // for whoever stops it
			if err == nil {
				err = errors.New("by itself")
			}
			return false, "", fmt.Errorf("it ended (%w): %s", err, p.lastWords())
		default:
		}
		_, err := get(ctx, p.health+"/readyz")
		return err == nil, "", err
	})
}

// stop ends the program by its own means, and by force when that takes too long.
func (p *program) stop() error {
	if p.cmd == nil || p.cmd.Process == nil {
		return nil
	}
	defer func() { p.cmd = nil; _ = p.log.Close() }()
	if hwm, _, err := p.memory(); err == nil {
		p.peak = max(p.peak, hwm)
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop the %s: %w", p.name, err)
	}
	process := p.cmd.Process
	kill := time.AfterFunc(30*time.Second, func() { _ = process.Kill() })
	defer kill.Stop()
	if err := <-p.ended; err != nil {
		return fmt.Errorf("the %s did not end well: %w: %s", p.name, err, p.lastWords())
	}
	return nil
}

// lastWords are the end of the program's log.
func (p *program) lastWords() string {
	b, err := os.ReadFile(p.log.Name())
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-2000):])
}

// memory is the most that the process ever had, and what it has now, in KiB.
func (p *program) memory() (peak, now int64, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0, 0, fmt.Errorf("read the memory of the %s: %w", p.name, err)
	}
	for line := range bytes.Lines(b) {
		f := strings.Fields(string(line))
		if len(f) < 2 {
			continue
		}
		switch f[0] {
		case "VmHWM:":
			peak, err = strconv.ParseInt(f[1], 10, 64)
		case "VmRSS:":
			now, err = strconv.ParseInt(f[1], 10, 64)
		}
		if err != nil {
			return 0, 0, fmt.Errorf("read the memory of the %s: %w", p.name, err)
		}
	}
	return peak, now, nil
}

// plain asks for answers as they are: packing them would cost the manager more than its work.
var plain = &http.Client{Transport: &http.Transport{DisableCompression: true}}

func get(ctx context.Context, url string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", url, err)
	}
	response, err := plain.Do(request)
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", url, err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("get %s: %s", url, response.Status)
	}
	return body, err
}

// queues are how much a manager has done, and how much it has before it.
type queues struct {
	bots    float64 // passes of the BotDeployment controller
	passes  float64 // of all controllers
	waiting float64 // in the queues and at work
}

func (p *program) queues(ctx context.Context) (queues, error) { return readQueues(ctx, p.metrics) }

func readQueues(ctx context.Context, url string) (queues, error) {
	body, err := get(ctx, url)
	if err != nil {
		return queues{}, err
	}
	var q queues
	lines := bufio.NewScanner(bytes.NewReader(body))
	for lines.Scan() {
		name, value, ok := strings.Cut(lines.Text(), "} ")
		if !ok {
			continue
		}
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			continue
		}
		switch metric, labels, _ := strings.Cut(name, "{"); metric {
		case "controller_runtime_reconcile_total":
			q.passes += v
			if strings.Contains(labels, `controller="botdeployment"`) {
				q.bots += v
			}
		case "lethe_queue_depth", "controller_runtime_active_workers":
			q.waiting += v
		}
	}
	return q, nil
}
