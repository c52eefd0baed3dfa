package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/test/stage"
)

// hosted is what the parts about programs share: how each was before the parts between them, and what it must know
// again after those.
type hosted struct {
	whatsApp, alerts *v1alpha1.BotDeployment
	pods             map[*v1alpha1.BotDeployment]*corev1.Pod
	there            *whatsAppStandIn
}

// programs: two that people run, as examples/programs has them, with their configuration, home and database. Each
// answers, and says truthfully that it does not yet. In the end both are told to start again, which they do while
// other parts go on.
func programs(t *testing.T, w *world) {
	images := w.programImages(t, map[string]string{"whatsapp-bot": "./whatsapp-bot", "alertmanager": "github.com/prometheus/alertmanager/cmd/alertmanager"})
	password := stage.Random()
	w.canaries["the proxy's password"] = []byte(password)
	there := w.startWhatsApp(t, password)
	tenant := w.tenant(t, "e2e-programs", func(s *v1alpha1.TenantSpec) {
		s.Egress[0].Ports = append(s.Egress[0].Ports, v1alpha1.EgressPort{Protocol: "TCP", Port: portOf(t, there.Proxy)})
	})
	whatsApp := w.program(t, tenant, "whatsapp-bot.yaml", images["whatsapp-bot"], "10.20.30.40:3128", there.Proxy, map[string]string{"proxy-password": password, "ca": there.CA})
	whatsApp.Spec.Env = append(whatsApp.Spec.Env, v1alpha1.EnvVar{Name: "WHATSAPP_NOISE_ROOT", Value: there.Root})
	token, id := w.newToken(t, 70)
	alerts := w.program(t, tenant, "alertmanager.yaml", images["alertmanager"], "https://api.telegram.org", w.telegram.API, map[string]string{"telegram-token": token, "ca": w.telegram.CA})
	alerts.Spec.Channels[0].Telegram.APIURL = w.telegram.API
	w.create(t, whatsApp, alerts)

	// WhatsApp's bot runs, waits to be paired, and is not ready for as long as it is not.
	code := w.inPod(t, whatsApp, ",", "/whatsapp-bot", "pairing", whatsApp.Spec.Files[0].Path)
	if out, err := w.Kubectl(t.Context(), "", "-n", tenant.Name, "exec", whatsApp.Name+"-bot-0", "-c", "bot", "--", "/whatsapp-bot", "ready", whatsApp.Spec.Files[0].Path); err == nil || !strings.Contains(err.Error(), "not paired") {
		t.Errorf("before it is paired it says %q, %v", out, err)
	}
	until(t, 30*time.Second, "see that it is not ready, and by what", func(ctx context.Context) (string, error) {
		if err := w.client.Get(ctx, client.ObjectKeyFromObject(whatsApp), whatsApp); err != nil {
			return "", err
		}
		for _, c := range whatsApp.Status.Conditions {
			if c.Type == v1alpha1.ConditionWorkloadReady && c.Status == metav1.ConditionFalse && strings.Contains(c.Message, "its readiness probe (a command) does not succeed") {
				return "", nil
			}
		}
		return fmt.Sprintf("%+v", whatsApp.Status.Conditions), nil
	})
	there.scan(t, code)

	// Alertmanager tells the group of an alert, and not of one that is silenced.
	w.awaitReady(t, alerts, time.Minute)
	said, err := w.telegram.Control.UserSays(t.Context(), id, 77, "/start")
	if err != nil {
		t.Fatal(err)
	}
	w.web(t, alerts, http.MethodPost, "/api/v2/silences", `{"matchers":[{"name":"alertname","value":"Known","isRegex":false}],"createdBy":"e2e","comment":"kept",
		"startsAt":"`+time.Now().Format(time.RFC3339)+`","endsAt":"`+time.Now().Add(time.Hour).Format(time.RFC3339)+`"}`)
	w.web(t, alerts, http.MethodPost, "/api/v2/alerts", `[{"labels":{"alertname":"Known"}},{"labels":{"alertname":"StoreIsLate"}}]`)
	m, err := w.telegram.Control.AwaitReply(t.Context(), id, 77, said, 30*time.Second)
	if err != nil || !strings.Contains(m.Text, "StoreIsLate") {
		t.Fatalf("Alertmanager said %q (%v)", m.Text, err)
	}

	w.awaitReady(t, whatsApp, time.Minute)
	there.ask(t, stage.Random())
	if st := there.stats(t); st.TurnedAway != 0 || st.Paired != 1 || st.Logins != 1 {
		t.Errorf("after pairing: %+v", st)
	}
	w.hosted = &hosted{whatsApp: whatsApp, alerts: alerts, pods: map[*v1alpha1.BotDeployment]*corev1.Pod{}, there: there}
	for bot, secrets := range map[*v1alpha1.BotDeployment][]string{whatsApp: {password, strings.Split(strings.TrimSpace(code), ",")[3], there.asked}, alerts: {token}} {
		pod := w.botsPod(t, bot)
		w.hosted.pods[bot] = pod
		w.foundWhatItNeeds(t, pod, bot, secrets)
		change(t, w.client, bot, func(b *v1alpha1.BotDeployment) { b.Spec.RestartedAt = metav1.NewTime(time.Now()) })
	}
}

// programsAgain: after a restart both know what they knew. WhatsApp's bot is the device that was paired, and in the
// same session with the friend that wrote to it; Alertmanager has what is silenced.
func programsAgain(t *testing.T, w *world) {
	h := w.hosted
	if h == nil {
		t.Fatal("no program is hosted: the part that hosts them was not played, or failed")
	}
	for bot, pod := range h.pods {
		until(t, 2*time.Minute, "see "+bot.Name+" restarted", func(ctx context.Context) (string, error) {
			again := &corev1.Pod{}
			if err := w.client.Get(ctx, client.ObjectKeyFromObject(pod), again); err != nil || again.UID == pod.UID {
				return fmt.Sprintf("the same pod (%v)", err), nil
			}
			return "", nil
		})
		w.awaitReady(t, bot, time.Minute)
	}
	h.there.ask(t, stage.Random())
	if st := h.there.stats(t); st.Paired != 1 || st.Logins != 2 || st.Strangers != 0 || st.Sent != 2 || st.Begun != 1 || st.Opened != 2 || st.Answered != 2 {
		t.Errorf("after a restart it should be the same device, without being paired again, and in the same session with its friend: %+v", st)
	}
	w.web(t, h.alerts, http.MethodPost, "/api/v2/alerts", `[{"labels":{"alertname":"Known"}}]`)
	if kept := w.web(t, h.alerts, http.MethodGet, "/api/v2/alerts?silenced=true&active=false", ""); !strings.Contains(kept, `"state":"suppressed"`) {
		t.Errorf("after a restart Alertmanager has forgotten what is silenced: %.300s", kept)
	}
	for bot := range h.pods {
		if err := w.client.Delete(t.Context(), bot); err != nil {
			t.Fatal(err)
		}
	}
}

// programImages builds programs of the module of test/programs, beside each other, and brings images of them to the
// node. It returns their full names.
func (w *world) programImages(t *testing.T, programs map[string]string) map[string]string {
	t.Helper()
	type made struct {
		name, image string
		err         error
	}
	all := make(chan made)
	for name, pkg := range programs {
		go func() {
			_, err := w.BuildProgram(t.Context(), name, "test/programs", pkg)
			if err == nil {
				err = w.WrapImage(t.Context(), name)
			}
			image := ""
			if err == nil {
				image, err = w.LoadImage(t.Context(), name)
			}
			all <- made{name, image, err}
		}()
	}
	images := map[string]string{}
	for range programs {
		m := <-all
		if m.err != nil {
			t.Error(m.err)
		}
		images[m.name] = m.image
	}
	if t.Failed() {
		t.FailNow()
	}
	return images
}

// program is a bot of examples/programs, with an image, another address in its file, and its credentials sealed. The
// one named ca is what it trusts.
func (w *world) program(t *testing.T, tenant *v1alpha1.Tenant, file, image, from, to string, credentials map[string]string) *v1alpha1.BotDeployment {
	t.Helper()
	bot := manifest[v1alpha1.BotDeployment](t, w, "examples/programs/"+file)
	bot.Namespace = tenant.Name
	bot.Spec.Image, bot.Spec.ImagePullPolicy = image, corev1.PullNever
	content := &bot.Spec.Files[0].Content
	if !strings.Contains(*content, from) {
		t.Fatalf("%s does not name %s", file, from)
	}
	*content = strings.ReplaceAll(*content, from, to)
	bot.Spec.Storage.ReclaimPolicy = "Delete"
	bot.Spec.Rollout = v1alpha1.BotRollout{TerminationGracePeriodSeconds: 5, ProgressDeadlineSeconds: 120}
	bot.Spec.Credentials = append(bot.Spec.Credentials, v1alpha1.Credential{Name: "ca"})
	bot.Spec.Env = append(bot.Spec.Env, v1alpha1.EnvVar{Name: "SSL_CERT_FILE", Value: "/var/run/lethe/credentials/ca"})
	for i, c := range bot.Spec.Credentials {
		value, ok := credentials[c.Name]
		if !ok {
			t.Fatalf("%s has a credential %s that nobody knows", file, c.Name)
		}
		bot.Spec.Credentials[i].Sealed = w.seal(t, tenant, tenant.Name, bot.Name, c.Name, 1, value)
	}
	return bot
}

// inPod runs a program in a bot's container, as the examples tell people to, until what it says holds what is wanted.
func (w *world) inPod(t *testing.T, bot *v1alpha1.BotDeployment, want string, command ...string) (said string) {
	t.Helper()
	until(t, 2*time.Minute, fmt.Sprintf("have %v say %s", command, want), func(ctx context.Context) (string, error) {
		out, err := w.Kubectl(ctx, "", append([]string{"-n", bot.Namespace, "exec", bot.Name + "-bot-0", "-c", "bot", "--"}, command...)...)
		if err == nil && strings.Contains(out, want) {
			said = out
			return "", nil
		}
		return fmt.Sprintf("it says %q", out), err
	})
	return said
}

// foundWhatItNeeds looks into a pod through its own root: its file with the credential in it (the first of its
// secrets), its home, its database; and into its log, where none of its secrets is.
func (w *world) foundWhatItNeeds(t *testing.T, pod *corev1.Pod, bot *v1alpha1.BotDeployment, secrets []string) {
	t.Helper()
	data := dataOf(t, pod)
	root := filepath.Dir(data)
	file := bot.Spec.Files[0]
	config, err := os.ReadFile(filepath.Join(root, file.Path))
	if err != nil || !strings.Contains(string(config), secrets[0]) || strings.Contains(string(config), "${") {
		t.Errorf("%s: %s has %d bytes, which are not the %d of the spec with the credential in them (%v)", bot.Name, file.Path, len(config), len(file.Content), err)
	}
	if bot.Name == "whatsapp" {
		if head, err := os.ReadFile(filepath.Join(data, "whatsapp.db")); err != nil || !strings.HasPrefix(string(head), "SQLite format 3\x00") {
			t.Errorf("%s has no database on its volume (%v)", bot.Name, err)
		}
		home := filepath.Join(root, "var/run/lethe/home/.local/state/whatsapp-bot")
		if _, err := os.Stat(home); err != nil {
			t.Errorf("%s has no home: %v", bot.Name, err)
		}
		if _, err := os.Stat(filepath.Join(home, "pairing-code")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the pairing code is still there: %v", err)
		}
	}
	logs, err := w.Kubectl(t.Context(), "", "-n", pod.Namespace, "logs", pod.Name, "-c", "bot")
	if err != nil {
		t.Fatal(err)
	}
	for i, secret := range secrets {
		if strings.Contains(logs, secret) {
			t.Errorf("the log of %s (%d bytes) holds its secret %d", bot.Name, len(logs), i)
		}
	}
}

// web asks what listens in a bot's pod, from within: nobody else reaches it.
func (w *world) web(t *testing.T, bot *v1alpha1.BotDeployment, method, path, body string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "nsenter", "--net=/proc/"+processOf(t, w.botsPod(t, bot))+"/ns/net", "bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/9093 && cat >&3 && cat <&3")
	cmd.Stdin = strings.NewReader(fmt.Sprintf("%s %s HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", method, path, len(body), body))
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.HasPrefix(string(out), "HTTP/1.0 200 ") {
		t.Fatalf("%s %s: %s (%v)", method, path, out, err)
	}
	return string(out)
}

// whatsAppStandIn is the stand-in of test/programs/whatsapp, as a process of its own: the whole module of whatsmeow
// is not this one's.
type whatsAppStandIn struct {
	Proxy, CA, Root, Control string
	asked                    string // last
}

type whatsAppStats struct{ TurnedAway, Paired, Logins, Strangers, Sent, Begun, Opened, Answered int }

func (w *world) startWhatsApp(t *testing.T, password string) *whatsAppStandIn {
	t.Helper()
	path, err := w.BuildProgram(t.Context(), "whatsapp", "test/programs", "./whatsapp/cmd")
	if err != nil {
		t.Fatal(err)
	}
	passwordFile, ready := w.Path("secrets", "whatsapp-proxy"), w.Path("whatsapp.ready")
	if err := os.WriteFile(passwordFile, []byte(password), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, net.JoinHostPort(w.info.Network.HostIP, "0"), passwordFile, ready)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.ends = append(w.ends, func(t *testing.T) {
		if err := errors.Join(cmd.Process.Signal(syscall.SIGTERM), cmd.Wait()); err != nil {
			t.Errorf("end the stand-in for WhatsApp: %v", err)
		}
	})
	there := &whatsAppStandIn{}
	until(t, 10*time.Second, "start the stand-in for WhatsApp", func(context.Context) (string, error) {
		b, err := os.ReadFile(ready)
		if err != nil {
			return "", err
		}
		return "", json.Unmarshal(b, there)
	})
	return there
}

func (there *whatsAppStandIn) call(t *testing.T, method, path, body string) []byte {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, there.Control+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }() // it is read
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s: %s (%v)", path, resp.Status, b, err)
	}
	return b
}

// scan is what a phone does.
func (there *whatsAppStandIn) scan(t *testing.T, code string) {
	t.Helper()
	there.call(t, http.MethodPost, "/scan", code)
}

// ask is what a friend writes, sealed from end to end, and wants the bot's answer to.
func (there *whatsAppStandIn) ask(t *testing.T, text string) {
	t.Helper()
	there.asked = text
	if answer := string(there.call(t, http.MethodPost, "/ask", text)); answer != "You said: "+text {
		t.Errorf("%q is answered by %q", text, answer)
	}
}

func (there *whatsAppStandIn) stats(t *testing.T) (st whatsAppStats) {
	t.Helper()
	if err := json.Unmarshal(there.call(t, http.MethodGet, "/stats", ""), &st); err != nil {
		t.Fatal(err)
	}
	return st
}

func portOf(t *testing.T, address string) int32 {
	t.Helper()
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	number, err := net.LookupPort("tcp", port)
	if err != nil {
		t.Fatal(err)
	}
	return int32(number)
}
