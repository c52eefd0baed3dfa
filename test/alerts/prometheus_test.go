package alerts

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/lethe-dev/lethe/test/ports"
)

// prometheus is a real one that scrapes the programs of a world twice a second and evaluates the rules as they are
// shipped, but for time: what must hold for minutes has to be seen once, and increases are looked for within seconds.
type prometheus struct {
	t       *testing.T
	address string
	began   time.Time
	rules   map[string]rule
	fired   map[string]bool
	cleared map[string]bool
	ran     map[string]bool // sections of runbooks, by alert and heading
}

// patience is how long a test waits for what must happen on a busy machine.
const patience = 90 * time.Second

func startPrometheus(t *testing.T, targets ...string) *prometheus {
	t.Helper()
	rules := readRules(t)
	p := &prometheus{t: t, began: time.Now(), address: freeAddress(t), rules: rules.all(), fired: map[string]bool{}, cleared: map[string]bool{}, ran: map[string]bool{}}
	within := regexp.MustCompile(`\[\d+m\]`)
	for _, group := range rules.Groups {
		for i := range group.Rules {
			group.Rules[i].For = "0s"
			group.Rules[i].Expr = within.ReplaceAllString(group.Rules[i].Expr, "[4s]")
		}
	}
	folder := t.TempDir()
	config := map[string]any{
		"global":     map[string]string{"scrape_interval": "500ms", "evaluation_interval": "500ms"},
		"rule_files": []string{writeYAML(t, folder, "rules.yaml", rules)},
		"scrape_configs": []any{map[string]any{
			// As the PodMonitor has it: pods carry the label namespace, too.
			"job_name": "lethe-system/lethe", "honor_labels": honorsLabels(t),
			"static_configs": []any{map[string]any{"targets": targets, "labels": map[string]string{"namespace": "lethe-system"}}},
		}},
	}
	var log bytes.Buffer
	command := exec.Command(binary(t, "prometheus"), "--config.file="+writeYAML(t, folder, "prometheus.yaml", config), "--storage.tsdb.path="+filepath.Join(folder, "data"),
		"--web.listen-address="+p.address, "--log.level=warn")
	command.Stdout, command.Stderr = &log, &log
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = command.Process.Signal(os.Interrupt)
		_ = command.Wait()
		if t.Failed() {
			t.Logf("Prometheus said:\n%s", log.String())
		}
	})
	p.until("Prometheus is ready", func() error {
		_, err := fetch("http://" + p.address + "/-/ready")
		return err
	})
	return p
}

// honorsLabels is what the shipped PodMonitor says.
func honorsLabels(t *testing.T) bool {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(root, "config", "monitoring", "podmonitor.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var monitor struct {
		Spec struct {
			Endpoints []struct{ HonorLabels bool } `json:"podMetricsEndpoints"`
		}
	}
	if err := yaml.Unmarshal(content, &monitor); err != nil {
		t.Fatal(err)
	}
	return monitor.Spec.Endpoints[0].HonorLabels
}

func fetch(url string) ([]byte, error) {
	resp, err := http.Get(url)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, body)
	}
	return body, err
}

func freeAddress(t *testing.T) string {
	t.Helper()
	address, err := ports.Address()
	if err != nil {
		t.Fatal(err)
	}
	return address
}

func (p *prometheus) until(what string, condition func() error) {
	p.t.Helper()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	deadline := time.Now().Add(patience)
	for {
		err := condition()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("%s: %v", what, err)
		}
		<-tick.C
	}
}

type alert struct {
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
	State       string            `json:"state"`
}

// firing are the alerts of a name with labels, given as key=value.
func (p *prometheus) firing(name string, labels []string) ([]alert, error) {
	body, err := fetch("http://" + p.address + "/api/v1/alerts")
	if err != nil {
		return nil, err
	}
	var answer struct {
		Data struct {
			Alerts []alert `json:"alerts"`
		} `json:"data"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(answer.Data.Alerts, func(a alert) bool {
		return a.State != "firing" || a.Labels["alertname"] != name || slices.ContainsFunc(labels, func(label string) bool {
			key, value, _ := strings.Cut(label, "=")
			return a.Labels[key] != value
		})
	}), nil
}

// fires waits until an alert fires, and looks at what it says.
func (p *prometheus) fires(name string, labels ...string) {
	p.t.Helper()
	if _, known := p.rules[name]; !known {
		p.t.Fatalf("there is no alert %s", name)
	}
	p.until(name+" fires", func() error {
		alerts, err := p.firing(name, labels)
		if err != nil {
			return err
		}
		if len(alerts) == 0 {
			return fmt.Errorf("not with %v; now: %s", labels, p.allFiring())
		}
		for _, text := range slices.Sorted(maps.Values(alerts[0].Annotations)) {
			if strings.Contains(text, "no value") || strings.Contains(text, "{{") || strings.Contains(text, "error") || strings.Contains(text, " /") {
				p.t.Errorf("%s says %q", name, text)
			}
		}
		return nil
	})
	p.fired[name] = true
	p.t.Logf("%s: %s fires", time.Since(p.began).Truncate(time.Second), name)
	p.run(name, headingLook)
}

// clears waits until it fires no more.
func (p *prometheus) clears(name string, labels ...string) {
	p.t.Helper()
	if !p.fired[name] {
		p.t.Fatalf("%s has not fired", name)
	}
	p.until(name+" clears", func() error {
		alerts, err := p.firing(name, labels)
		if err == nil && len(alerts) > 0 {
			err = fmt.Errorf("%v", alerts)
		}
		return err
	})
	p.cleared[name] = true
	p.run(name, headingOver)
}

func (p *prometheus) allFiring() string {
	body, err := fetch("http://" + p.address + "/api/v1/alerts")
	return fmt.Sprint(string(body), err)
}

// complete says whether each alert has fired and cleared.
func (p *prometheus) complete() error {
	var errs []error
	for name := range p.rules {
		if !p.fired[name] || !p.cleared[name] {
			errs = append(errs, fmt.Errorf("%s: fired %v, cleared %v", name, p.fired[name], p.cleared[name]))
		}
	}
	return errors.Join(errs...)
}
