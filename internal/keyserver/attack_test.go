package keyserver

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/internal/doors"
	"github.com/lethe-dev/lethe/internal/keyapi"
	"github.com/lethe-dev/lethe/internal/keyclient"
	"github.com/lethe-dev/lethe/internal/resources"
	"github.com/lethe-dev/lethe/internal/sealing"
	"github.com/lethe-dev/lethe/test/attack"
	"github.com/lethe-dev/lethe/test/env"
)

// attackedEnv names a file that tells this program to be a keyserver and nothing else: what it takes of memory is
// then a keyserver's, without that of the attackers.
const attackedEnv = "LETHE_TEST_ATTACKED_KEYSERVER"

// chartMemory is what the chart gives a keyserver.
const chartMemory = 256 << 20

type attackedConfig struct {
	Host                     string
	TLS                      rest.TLSClientConfig
	Impersonate              rest.ImpersonationConfig
	KEK, Realm, SystemNS, NS string
	Image                    string
}

// attacked serves as cmd/keyserver does, until its standard input ends.
func attacked(path string) int {
	b, err := os.ReadFile(path)
	var c attackedConfig
	if err == nil {
		err = json.Unmarshal(b, &c)
	}
	if err == nil {
		err = serveAttacked(&c)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func serveAttacked(c *attackedConfig) error {
	debug.SetMemoryLimit(chartMemory / 4 * 3)
	scheme, err := env.NewScheme()
	if err != nil {
		return err
	}
	kube, err := client.New(&rest.Config{Host: c.Host, TLSClientConfig: c.TLS, Impersonate: c.Impersonate, QPS: -1}, client.Options{Scheme: scheme})
	if err != nil {
		return err
	}
	kek, err := sealing.ParseKEK([]byte(c.KEK))
	if err != nil {
		return err
	}
	registry := prometheus.NewRegistry()
	metrics, err := NewMetrics(registry)
	if err != nil {
		return err
	}
	doorMetrics, err := doors.NewMetrics("lethe_keyserver", registry)
	if err != nil {
		return err
	}
	settings := resources.DefaultSettings()
	settings.Image, settings.Namespace = c.Image, c.SystemNS
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	server, err := New(Options{Client: kube, KEK: kek, KEKGrade: GradeProduction, Realm: c.Realm, KeysNamespace: c.NS, Hosts: []string{"127.0.0.1"},
		Settings: settings, Clock: clock.RealClock{}, Random: rand.Reader, Metrics: metrics, Log: log})
	if err != nil {
		return err
	}
	if err := server.Maintain(context.Background()); err != nil {
		return err
	}
	raw, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		return err
	}
	fmt.Println(raw.Addr().(*net.TCPAddr).Port)
	calls := doors.NewServer(server.Handler(), CallRules, server.Authority().TLSConfig(), log)
	go func() {
		_ = calls.ServeTLS(doors.Listen(raw, "calls", CallLimits, clock.RealClock{}, doorMetrics), "", "")
	}()
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// startAttacked starts such a process.
func (w *world) startAttacked(kek string) (address string, pid int) {
	w.Helper()
	config := testEnv.ConfigFor("admin", "system:masters")
	b, err := json.Marshal(attackedConfig{Host: config.Host, TLS: config.TLSClientConfig, Impersonate: config.Impersonate, KEK: kek,
		Realm: testRealm, SystemNS: w.opts.Settings.Namespace, NS: w.opts.KeysNamespace, Image: w.opts.Settings.Image})
	w.must(err)
	path := filepath.Join(w.TempDir(), "config")
	w.must(os.WriteFile(path, b, 0o600))
	self, err := os.Executable()
	w.must(err)
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), attackedEnv+"="+path)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	w.must(err)
	stdout, err := cmd.StdoutPipe()
	w.must(err)
	w.must(cmd.Start())
	w.Cleanup(func() {
		_ = stdin.Close()
		if err := cmd.Wait(); err != nil {
			w.Errorf("the keyserver under attack ended with %v", err)
		}
	})
	port, err := bufio.NewReader(stdout).ReadString('\n')
	w.must(err)
	return "127.0.0.1:" + strings.TrimSpace(port), cmd.Process.Pid
}

// peakMemory of a process, from the kernel.
func peakMemory(t *testing.T, pid int) int64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return kib << 10
		}
	}
	t.Fatal("the kernel says nothing of the peak")
	return 0
}

// TestMemoryUnderAttack: a keyserver with the chart's memory, under every attack at a time, and under the two that
// were seen to kill it: 640 connections with one unfinished frame of HTTP/2 each, and 3842 idle ones from one pod.
// All come from the victim's own address, as behind one that many pods share, and from many others. The victim's pod
// gets its credentials, the manager its answers, and the process stays within its memory.
func TestMemoryUnderAttack(t *testing.T) {
	keys, kek := testEnv.Namespace(t, "attacked", nil).Name, newKEKText()
	w := newWorldAs(t, testEnv.As(t, "admin", "system:masters"), keys, parseKEK(kek))
	w.opts.Settings.Namespace = keys
	w.restart()
	w.must(w.server.Maintain(t.Context()))
	w.must(testEnv.Client.Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: keys, Name: "lethe-manager"}}))
	w.manager = w.token(w.opts.Settings.Namespace, "lethe-manager", "lethe.dev/keyserver", nil)
	w.tenantKeys()
	bot, secret := w.newBot("victim", w.rich)
	pod := w.startPod(bot, w.storeAndRecord(bot).Secret)
	address, pid := w.startAttacked(kek)
	_, bundle := w.bundle()
	dir := t.TempDir()
	ca := filepath.Join(dir, "ca.crt")
	w.must(os.WriteFile(ca, []byte(bundle), 0o600))
	newClient := func(name, token string) *keyclient.Client {
		file := filepath.Join(dir, name)
		w.must(os.WriteFile(file, []byte(token), 0o600))
		c, err := keyclient.New(keyclient.Options{URL: "https://" + address, CAFile: ca, TokenFile: file})
		w.must(err)
		return c
	}
	manager := newClient("manager", w.manager)
	askManager := func() error {
		_, err := manager.Tenant(t.Context(), refTo("Tenant", w.tenant))
		return err
	}
	w.must(askManager())
	podToken := w.podToken(pod)
	quiet := peakMemory(t, pid)

	ctx, stop := context.WithCancel(t.Context())
	var stats [2]attack.Stats
	var all sync.WaitGroup
	run := func(kind attack.Kind, n int, from string, s *attack.Stats) {
		all.Go(func() {
			attack.Run(ctx, attack.Options{Kind: kind, Address: address, Path: keyapi.PathUnseal, Connections: n, From: net.ParseIP(from), Pause: 500 * time.Millisecond}, s)
		})
	}
	run(attack.Frames, 640, "127.0.0.1", &stats[0])
	run(attack.Silent, 3842, "127.0.0.1", &stats[0])
	for i, kind := range attack.Kinds {
		run(kind, 30, fmt.Sprintf("127.0.2.%d", i+1), &stats[1])
	}
	for i, kind := range []attack.Kind{attack.Bodies, attack.BigBodies} {
		all.Go(func() {
			attack.Run(ctx, attack.Options{Kind: kind, Address: address, Path: keyapi.PathReport, Connections: 30, From: net.ParseIP(fmt.Sprintf("127.0.3.%d", i+1)), Pause: 500 * time.Millisecond}, &stats[1])
		})
	}
	var reports atomic.Int64
	for range 32 {
		all.Go(func() { w.floodReports(ctx, "https://"+address, bundle, podToken, &reports) })
	}
	defer func() {
		stop()
		all.Wait()
	}()
	w.eventuallyWithin(time.Minute, func() bool { return stats[0].Ended.Load() > 600 && stats[1].Ended.Load() > 100 && reports.Load() > 5 })
	for i := range 3 {
		if err := askManager(); err != nil {
			t.Errorf("the manager, whose connection is known, was not answered: %v", err)
		}
		var last error
		w.eventuallyWithin(time.Minute, func() bool {
			got, err := newClient(fmt.Sprint("pod", i), podToken).Unseal(t.Context())
			if last = err; err != nil {
				return false
			}
			for _, item := range got.Items {
				if item.Name == "telegram" && string(item.Value) == secret {
					return true
				}
			}
			return false
		})
		if last != nil {
			t.Errorf("the victim got nothing: %v", last)
		}
	}
	peak := peakMemory(t, pid)
	t.Logf("from the victim's address: %s", &stats[0])
	t.Logf("from others: %s", &stats[1])
	t.Logf("%d of the largest reports from a bot's pod were refused", reports.Load())
	t.Logf("memory: %d MiB before, %d MiB at its peak", quiet>>20, peak>>20)
	// What the kernel holds for the connections comes on top: at most 512 of 32 KiB to receive into, and 256 of 128
	// KiB to send from.
	if peak > chartMemory/4*3 {
		t.Errorf("%d MiB of memory at the peak", peak>>20)
	}
}

// floodReports sends the largest reports there are, of a pod whose token counts and that has nothing to report.
func (w *world) floodReports(ctx context.Context, url, bundle, token string, refused *atomic.Int64) {
	noise := make([]byte, keyapi.MaxPackedReport-64)
	_, _ = rand.Read(noise)
	packed, err := keyapi.PackReport(noise)
	if err != nil {
		w.Error(err)
		return
	}
	body, err := json.Marshal(keyapi.ReportRequest{PlanHash: strings.Repeat("ab", 32), Report: packed})
	if err != nil {
		w.Error(err)
		return
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(bundle))
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 4, 1)}}
	c := &http.Client{Transport: &http.Transport{DialContext: dialer.DialContext, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots}}}
	defer c.CloseIdleConnections()
	for ctx.Err() == nil {
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, url+keyapi.PathReport, bytes.NewReader(body))
		if err != nil {
			w.Error(err)
			return
		}
		r.Header.Set("Authorization", "Bearer "+token)
		resp, err := c.Do(r)
		if err != nil {
			continue // turned away, or the connection was given to another
		}
		if _, err := io.Copy(io.Discard, resp.Body); err == nil && resp.StatusCode == http.StatusForbidden {
			refused.Add(1)
		}
		_ = resp.Body.Close()
	}
}
